# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Formats of disk images that are not the disk itself, byte for byte: told by what their files begin, or end,
with.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Pure. A loop device over such a file shows the guest the container and not the disk in it, and the first write
destroys it. What is found here only ever leads to a refusal: a guest can write any of these bytes into a raw
disk of its own, so nothing is opened *as* a format because of them.

Sources, of QEMU: docs/interop/qcow2.rst, docs/interop/qed_spec.rst, block/vmdk.c (vmdk_probe), block/vpc.c,
block/vhdx.h, block/vdi.c.
"""

from __future__ import annotations

RAW = "raw"
# How many bytes of the beginning and of the end are to be looked at.
HEAD, TAIL = 512, 512

# (format, where, bytes)
_MAGICS = (
    ("qcow", 0, b"QFI\xfb\0\0\0\1"),
    ("qcow2", 0, b"QFI\xfb"),
    ("qed", 0, b"QED\0"),
    ("vmdk", 0, b"KDMV"),
    ("vmdk", 0, b"COWD"),
    ("vmdk", 0, b"# Disk DescriptorFile"),
    ("vpc", 0, b"conectix"),  # QEMU's name of VHD
    ("vhdx", 0, b"vhdxfile"),
    ("vdi", 64, (0xBEDA107F).to_bytes(4, "little")),
)
# A VHD of fixed size is the disk with this behind it: the cookie, four bytes of flags, and the version 1.0 of
# the format.
_VHD_COOKIE, _VHD_VERSION = b"conectix", (0x00010000).to_bytes(4, "big")


def format_of(head, tail=b""):
    """
    The name of the format as ``qemu-img convert -f`` takes it, or None for what can be raw.

    ``head``: the first HEAD bytes of the file, or all of it when it is shorter; ``tail``: its last TAIL
    bytes, or nothing.
    """
    for name, where, magic in _MAGICS:
        if head[where:where + len(magic)] == magic:
            return name
    if len(tail) == TAIL and tail.startswith(_VHD_COOKIE) and tail[12:16] == _VHD_VERSION:
        return "vpc"
    return None
