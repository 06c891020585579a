# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Headers as written by qemu-img 7.2."""

from __future__ import annotations

import pytest
from ansible_collections.racefree.block.plugins.module_utils._block.image_format import (
    HEAD,
    SECTOR,
    TAIL,
    format_of,
    tail_of,
)
from hypothesis import given
from hypothesis import strategies as st

HEADS = [
    ("qcow2", "514649fb000000030000000000000000"),
    ("qcow2", "514649fb000000020000000000000000"),
    ("qcow", "514649fb000000010000000000000000"),
    ("qed", "51454400000001000400000001000000"),
    ("vmdk", "4b444d56010000000300000000080000"),
    ("vmdk", b"# Disk DescriptorFile\nversion=1\n".hex()),
    ("vmdk", "434f574401000000"),
    ("vpc", "636f6e6563746978000000020001000000"),
    ("parallels", b"WithoutFreeSpace\2\0\0\0".hex()),
    ("parallels", b"WithouFreSpacExt\2\0\0\0".hex()),
    ("bochs", b"Bochs Virtual HD Image\0".hex()),
    ("cloop", b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0".hex()),
    ("vhdx", "7668647866696c6551004500"),
    ("vdi", b"<<< QEMU VM Virtual Disk Image >>>\n".ljust(64, b"\0").hex() + "7f10dabe01000100"),
    ("vdi", b"<<< Oracle VM VirtualBox Disk Image >>>\n".ljust(64, b"\0").hex() + "7f10dabe01000100"),
]


@pytest.mark.parametrize("name, head", HEADS)
def test_images(name, head):
    for whole in (bytes.fromhex(head), bytes.fromhex(head).ljust(HEAD, b"\0")):
        assert format_of(whole) == name


def by_end(data):
    """The format of a file with the content ``data``, which begins like a raw disk."""
    start = tail_of(len(data))
    assert 0 <= start <= max(0, len(data) - SECTOR) and start % SECTOR == 0 and len(data) - start <= TAIL
    return format_of(data[:HEAD], data[start:], start)


def footer(disk, kind=2):
    """The footer of a VHD whose disk has that many bytes."""
    words = b"conectix" + (2).to_bytes(4, "big") + (0x00010000).to_bytes(4, "big") + bytes([255] * 8)
    return (words.ljust(48, b"\0") + disk.to_bytes(8, "big") + bytes(4) + kind.to_bytes(4, "big")).ljust(
        SECTOR, b"\0"
    )


@pytest.mark.parametrize("size", [0, SECTOR, TAIL - SECTOR, TAIL, 65536])
def test_a_vhd_of_fixed_size(size):
    disk = bytes(size)
    assert by_end(disk + footer(7)) == by_end(disk + footer(7)[:511]) == "vpc"
    assert by_end(disk + b"\0" + footer(7)[1:]) is None
    assert by_end(disk + b"conectix" + bytes(SECTOR - 8)) is None or not size


@pytest.mark.parametrize("size", [SECTOR, 65536, 65536 + SECTOR])
def test_a_vhd_that_was_padded(size):
    disk = bytes(size)
    for padding in (1, SECTOR, TAIL - SECTOR):
        assert by_end(disk + footer(size) + bytes(padding)) == "vpc", padding
        # A disk that contains the end of another image.
        assert by_end(disk + footer(size - SECTOR) + bytes(padding)) is None
        assert by_end(disk + footer(size, kind=3) + bytes(padding)) is None


@pytest.mark.parametrize("size", [SECTOR, 65536, 65537])
def test_an_apple_disk_image(size):
    trailer = b"koly" + (4).to_bytes(4, "big") + (512).to_bytes(4, "big") + bytes(500)
    assert by_end(bytes(size) + trailer) == "dmg"
    assert by_end(bytes(size) + trailer + b"\0") is None
    assert by_end(bytes(size) + b"koly" + bytes(508)) is None


@pytest.mark.parametrize(
    "text",
    [
        "# a comment of somebody else's\nversion=1\nCID=1\n",
        "\nversion=3\n",
        "#\r\n  \r\n# x\r\nversion=2\r\n",
        "   \nversion=1\n",
        "version=1\nCID=1\n",
    ],
)
def test_descriptors_of_a_vmdk(text):
    assert format_of(text.encode()) == format_of(text.encode().ljust(HEAD, b"\0")) == "vmdk"


@pytest.mark.parametrize(
    "text",
    [
        "# only a comment\n",
        "#!/bin/sh\nexit\n",
        "# a comment\nversion=4\n",
        "# a comment\nversion=1",
        "#\n version=1\n",
    ],
)
def test_text_files_that_are_not_a_descriptor(text):
    assert format_of(text.encode()) is None


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"Q",
        bytes(HEAD),
        b"\xeb\x63\x90".ljust(510, b"\0") + b"\x55\xaa",
        b"LUKS\xba\xbe".ljust(HEAD, b"\0"),
        b"SnAp".ljust(HEAD, b"\0"),
        b"\0QFI\xfb".ljust(HEAD, b"\0"),
        b"QFI\xfa".ljust(HEAD, b"\0"),
        b"KDM",
        b"QED",
        b"# Disk Descriptor file",
    ],
)
def test_disks(head):
    assert format_of(head) is None


@given(st.binary(max_size=HEAD), st.binary(max_size=TAIL), st.integers(0, 9))
def test_any_bytes(head, tail, start):
    names = {name for name, dummy in HEADS} | {None, "dmg"}
    assert format_of(head, tail, start * SECTOR) in names
