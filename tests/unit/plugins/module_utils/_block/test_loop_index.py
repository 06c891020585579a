# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Find the loop devices of a file."""

from __future__ import annotations

import os

import pytest
from ansible_collections.racefree.block.plugins.module_utils._block import backing as _backing
from ansible_collections.racefree.block.plugins.module_utils._block import (
    loop,
    loop_index,
)
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.attached_loops import attach, find

pytestmark = pytest.mark.usefixtures("no_descriptor_leaks")


SIZE = 65536


def test_a_file_is_identified_by_its_inode(place):
    path = loopdevices.image(place, "disk")
    with attach(path) as device:
        os.symlink(path, os.path.join(place, "link"))
        os.link(path, os.path.join(place, "hard"))
        os.rename(path, os.path.join(place, "moved"))
        for name in ("link", "hard", "moved"):
            if name == "link":
                os.symlink("moved", path)
            assert find(os.path.join(place, name)) == [device.id.minor]
        os.unlink(path)
        loopdevices.image(place, "disk")
        assert find(path) == [], "another file under the old name"


def test_offset_and_size_belong_to_the_identity(place):
    path = loopdevices.image(place, "disk")
    with (
        attach(path) as whole,
        attach(path, offset=4096) as rest,
        attach(path, offset=4096, size=4096) as part,
        attach(path, size=SIZE) as limited,
    ):
        # if the size is not given, no limit and a limit at the present end of the file are equal
        assert sorted(find(path)) == sorted([whole.id.minor, limited.id.minor])
        assert find(path, 4096) == [rest.id.minor]
        assert find(path, 4096, 4096) == [part.id.minor]
        assert find(path, 0, SIZE) == [limited.id.minor]
        assert find(path, 8192) == find(path, 4096, 8192) == find(path, 0, 4096) == []


def test_the_index_of_loop_devices(place):
    first, second = loopdevices.image(place, "first"), loopdevices.image(place, "second")
    index = loop_index.LoopIndex()
    with attach(first) as device, _backing.Backing(first) as backing:
        found = index.find(backing)
        assert [row[0].id for row in found] == [device.id]
        found[0][0].close()
        with attach(second) as other, _backing.Backing(second) as backing2:
            assert index.find(backing2) == [], "made since the index was read"
            index.add(other, loop.info(other))
            ((again, status),) = index.find(backing2)
            assert again.id == other.id and status == loop.info(other)
            again.close()
        assert loopdevices.nothing_bound(second)
        # the index only tells where to look
        with _backing.Backing(second) as backing2:
            assert index.find(backing2) == []
