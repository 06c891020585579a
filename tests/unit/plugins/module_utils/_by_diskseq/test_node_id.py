# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Inode numbers can be decoded without a table.
"""

from __future__ import annotations

import os

from ansible_collections.racefree.block.plugins.module_utils._by_diskseq import node_id
from hypothesis import given
from hypothesis import strategies as st

DISKSEQS = st.integers(1, 2**64 - 1)
NUMBERS = st.tuples(st.integers(1, 4095), st.integers(0, 2**20 - 1))


@given(DISKSEQS, NUMBERS)
def test_a_node_id_decodes_to_its_device(diskseq: int, number: tuple[int, int]) -> None:
    held, shown = (make(diskseq, os.makedev(*number)) for make in (node_id.held, node_id.shown))
    assert (node_id.is_shown(held), node_id.is_shown(shown)) == (False, True)
    for node in (held, shown):
        assert node_id.device_of(node) == number
        assert node_id.is_of(node, diskseq) and not node_id.is_of(node, diskseq + 1)
        assert node_id.text(node) == f"{number[0]}:{number[1]}"
        assert 0 < node < 2**64


@given(st.integers(1, 2**31 - 1), NUMBERS, st.integers(1, 2**31 - 1), NUMBERS)
def test_different_devices_have_different_node_ids(
    first: int, number: tuple[int, int], second: int, other: tuple[int, int]
) -> None:
    same = (first, number) == (second, other)
    nodes = node_id.held(first, os.makedev(*number)), node_id.held(second, os.makedev(*other))
    assert (nodes[0] == nodes[1]) == same
    assert node_id.ROOT not in nodes
