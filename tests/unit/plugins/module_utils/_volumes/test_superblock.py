# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import struct

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import InvalidValue
from ansible_collections.racefree.block.plugins.module_utils._volumes import superblock
from hypothesis import given
from hypothesis import strategies as st


def block(blocks=7, block_size=128, magic=27022010):
    data = bytearray(4096)
    struct.pack_into("<Q", data, 32, magic)
    struct.pack_into("<Q", data, 64, blocks)
    struct.pack_into("<I", data, 336, block_size)
    return bytes(data)


@given(st.integers(0, 2**40), st.integers(128, 2097152))
def test_fields(blocks, block_size):
    found = superblock.parse(block(blocks, block_size), "/m")
    assert found == (blocks, block_size) and found.length == blocks * block_size


def test_an_empty_device():
    assert superblock.parse(bytes(4096), "/m") is None and superblock.parse(b"", "/m") is None


@pytest.mark.parametrize("data", [block(magic=1), b"x" * 4096, block()[:4000], b"\0" * 4095 + b"x"])
def test_other_data(data):
    with pytest.raises(InvalidValue, match="/m.*something else"):
        superblock.parse(data, "/m")
