# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Fixtures: loop devices on this machine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices
from ansible_collections.racefree.block.tests.unit.plugins.module_utils._by_diskseq.loops import (
    Loop,
    add_partition,
)

PARTSCAN = 8


@pytest.fixture
def loop() -> Iterator[Loop]:
    """A loop device with a number that nobody else uses, removed at its last close."""
    loopdevices.need_loop()
    with loopdevices.directory() as place, loopdevices.own_number() as number:
        path = loopdevices.image(place, "disk", 2**20, content=b"disk")
        fd = loopdevices.bind(number, path)
        assert fd is not None
        with contextlib.closing(Loop(number, fd, path)) as made:
            yield made


@pytest.fixture
def disk() -> Iterator[Loop]:
    """A loop device with partitions 1 and 3."""
    loopdevices.need_loop()
    with loopdevices.directory() as place, loopdevices.own_number() as number:
        path = loopdevices.image(place, "disk", 4 * 2**20, content=b"disk")
        fd = loopdevices.bind(number, path, loopdevices.AUTOCLEAR | PARTSCAN)
        assert fd is not None
        for partition in (1, 3):
            add_partition(fd, partition, partition * 2**20, 2**20)
        with contextlib.closing(Loop(number, fd, path)) as made:
            yield made
