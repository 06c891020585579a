# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A loop device on this machine, as modules find it."""

from __future__ import annotations

import os

import pytest
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices


class Disk:
    """A loop device: ``fd``, ``node``, ``diskseq``, the path of its ``file``."""

    def __init__(self, place, name="disk", content=b"disk", flags=loopdevices.AUTOCLEAR):
        self.file = loopdevices.image(place, name, 2**20, content)
        self.fd, self.number = loopdevices.bind_free(self.file, flags)
        self.node = f"/dev/loop{self.number}"
        self.diskseq = loopdevices.diskseq_of(self.fd)


@pytest.fixture
def place():
    """A directory for files; at the end no loop device is bound to them."""
    loopdevices.need_loop()
    with loopdevices.directory() as path:
        yield path
        assert loopdevices.nothing_bound(path), loopdevices.bound_files(path)


@pytest.fixture
def disk(place):
    made = Disk(place)
    yield made
    os.close(made.fd)


@pytest.fixture
def second(place):
    made = Disk(place, "second", b"second")
    yield made
    os.close(made.fd)
