# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Beginnings as qemu-img 7.2 writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.racefree.block.plugins.module_utils._image_format import HEAD, TAIL, format_of

HEADS = [
    ("qcow2", "514649fb000000030000000000000000"), ("qcow2", "514649fb000000020000000000000000"), ("qcow", "514649fb000000010000000000000000"),
    ("qed", "51454400000001000400000001000000"), ("vmdk", "4b444d56010000000300000000080000"),
    ("vmdk", b"# Disk DescriptorFile\nversion=1\n".hex()), ("vmdk", "434f574401000000"), ("vpc", "636f6e6563746978000000020001000000"),
    ("vhdx", "7668647866696c6551004500"), ("vdi", b"<<< QEMU VM Virtual Disk Image >>>\n".ljust(64, b"\0").hex() + "7f10dabe01000100"),
    ("vdi", b"<<< Oracle VM VirtualBox Disk Image >>>\n".ljust(64, b"\0").hex() + "7f10dabe01000100"),
]
FIXED_VHD = bytes.fromhex("636f6e6563746978 00000002 00010000 ffffffffffffffff").ljust(TAIL, b"\0")


@pytest.mark.parametrize("name, head", HEADS)
def test_images(name, head):
    for whole in (bytes.fromhex(head), bytes.fromhex(head).ljust(HEAD, b"\0")):
        assert format_of(whole) == name


def test_a_vhd_of_fixed_size():
    assert format_of(bytes(HEAD), FIXED_VHD) == "vpc"
    assert format_of(bytes(HEAD), FIXED_VHD[1:] + b"\0") is None
    assert format_of(bytes(HEAD), FIXED_VHD[:12] + bytes(TAIL - 12)) is None


@pytest.mark.parametrize("head", [
    b"", b"Q", bytes(HEAD), b"\xeb\x63\x90".ljust(510, b"\0") + b"\x55\xaa", b"LUKS\xba\xbe".ljust(HEAD, b"\0"), b"SnAp".ljust(HEAD, b"\0"),
    b"\0QFI\xfb".ljust(HEAD, b"\0"), b"QFI\xfa".ljust(HEAD, b"\0"), b"KDM", b"QED", b"# Disk Descriptor file",
])
def test_disks(head):
    assert format_of(head) is None


@given(st.binary(max_size=HEAD), st.one_of(st.just(b""), st.binary(min_size=TAIL, max_size=TAIL)))
def test_any_bytes(head, tail):
    assert format_of(head, tail) in (None, "qcow", "qcow2", "qed", "vmdk", "vpc", "vhdx", "vdi")
