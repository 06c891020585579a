# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures for tests with loop devices of this machine."""

from __future__ import annotations

import contextlib
import os

import pytest
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices


@pytest.fixture
def place():
    """A directory for files of loop devices, none of which may be left."""
    loopdevices.need_loop()
    with loopdevices.directory() as path:
        yield path
        assert loopdevices.nothing_bound(path), "the test left a loop device"


@pytest.fixture
def no_descriptor_leaks():
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def disk():
    """An open loop device with the partitions 1 and 3, whose content begins with their numbers."""
    loopdevices.need_loop()
    with loopdevices.directory() as place, contextlib.ExitStack() as opened:
        path = loopdevices.image(place, "disk", 4 * 2**20, content=b"disk")
        with open(path, "rb+") as file:
            for number in (1, 3):
                file.seek(number * 2**20)
                file.write(b"part%d" % number)
        fd, minor = loopdevices.bind_free(path, loopdevices.AUTOCLEAR | loopdevices.PARTSCAN)
        opened.callback(os.close, fd)
        for number in (1, 3):
            loopdevices.change_partition(fd, loopdevices.ADD_PARTITION, number, number * 2**20, 2**20)
        yield opened.enter_context(_device.open_number(7, minor))
        for number in (1, 3):
            with contextlib.suppress(OSError):
                loopdevices.change_partition(fd, loopdevices.DELETE_PARTITION, number)
