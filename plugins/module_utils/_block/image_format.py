# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Detect formats of disk images that are not raw, by the first or last bytes of their files.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Pure. A loop device bound to such a file shows the guest the container instead of the disk in it, and the
first write destroys the image. A detected format only causes an error. No file is ever opened *as* a format
because of these bytes, since a guest can write any of them to its own raw disk.

Sources, of QEMU: docs/interop/qcow2.rst, docs/interop/qed_spec.rst, block/vmdk.c (vmdk_probe), block/vpc.c,
block/vhdx.h, block/vdi.c, block/parallels.c, block/bochs.c, block/cloop.c, block/dmg.c.
"""

from __future__ import annotations

RAW = "raw"
# Those that golden_image converts.
CONVERTED = ("qcow2", "vmdk", "vhdx")
# Bytes to examine at the beginning and at the end; the end begins at a sector boundary.
HEAD, TAIL, SECTOR = 512, 4096, 512

# (format, where, bytes)
_MAGICS = (
    ("qcow", 0, b"QFI\xfb\0\0\0\1"),
    ("qcow2", 0, b"QFI\xfb"),
    ("qed", 0, b"QED\0"),
    ("vmdk", 0, b"KDMV"),
    ("vmdk", 0, b"COWD"),
    ("vmdk", 0, b"# Disk DescriptorFile"),
    ("parallels", 0, b"WithoutFreeSpace"),
    ("parallels", 0, b"WithouFreSpacExt"),
    ("bochs", 0, b"Bochs Virtual HD Image"),
    ("cloop", 0, b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop"),
    ("vpc", 0, b"conectix"),  # QEMU's name for VHD
    ("vhdx", 0, b"vhdxfile"),
    ("vdi", 64, (0xBEDA107F).to_bytes(4, "little")),
)
# A VHD of fixed size is the disk followed by this footer: the cookie, four bytes of flags, and the format
# version 1.0; the size of the disk is at byte 48, and the type "fixed" at byte 60.
_VHD_COOKIE, _VHD_VERSION, _VHD_FIXED = b"conectix", (0x00010000).to_bytes(4, "big"), (2).to_bytes(4, "big")
# Old programs wrote the footer without its last byte.
_VHD_FOOTERS = (511, 512)
# The last 512 bytes of an Apple disk image: "koly", the version 4, and their number.
_DMG_TRAILER = b"koly" + (4).to_bytes(4, "big") + (512).to_bytes(4, "big")
_VMDK_VERSIONS = (b"version=1", b"version=2", b"version=3")


def way_out(form: str | None) -> str:
    """How to use an image of this format (None: of any other), as text: completes "Convert it "."""
    by_hand = f"qemu-img convert {f'-f {form} ' if form else ''}-O raw"
    if form not in CONVERTED:
        return f"({by_hand})"
    return (
        "once (racefree.block.golden_image; in the role guest_disks: an image with its format; by hand: "
        f"{by_hand})"
    )


def tail_of(size: int) -> int:
    """The offset in bytes at which the examined end of a file with ``size`` bytes begins."""
    return max(0, (size - 1) // SECTOR * SECTOR + SECTOR - TAIL)


def format_of(head: bytes, tail: bytes = b"", start: int = 0) -> str | None:
    """
    The name of the format, as ``qemu-img convert -f`` takes it; None for a possible raw image.

    ``head``: the first HEAD bytes of the file, or the whole of a shorter file. ``tail``: everything from
    ``start`` (:func:`tail_of`) on, or empty.
    """
    for name, where, magic in _MAGICS:
        if head[where : where + len(magic)] == magic:
            return name
    if _is_vmdk_descriptor(head):
        return "vmdk"
    if tail[-512:].startswith(_DMG_TRAILER):
        return "dmg"
    return "vpc" if _VHD_COOKIE in tail and _has_vhd_footer(tail, start) else None


def _is_vmdk_descriptor(head: bytes) -> bool:
    """
    Whether this is a text whose first line, except for comments and blank lines, is a version, as in QEMU's
    vmdk_probe.
    """
    if head[:1] not in (b"#", b" ", b"\r", b"\n", b"v"):
        return False
    for line in head.split(b"\n")[:-1]:
        line = line.rstrip(b"\r")
        if not line.startswith(b"#") and line.strip(b" "):
            return line in _VMDK_VERSIONS
    return False


def _has_vhd_footer(tail: bytes, start: int) -> bool:
    """
    Whether there is a VHD footer at the very end, or before it if the file was padded. A footer before the
    end must describe the disk before it, because a disk can contain the end of another disk's image.
    """
    for at in range(0, len(tail), SECTOR):
        footer = tail[at : at + SECTOR]
        if footer.startswith(_VHD_COOKIE) and footer[12:16] == _VHD_VERSION:
            of_this = footer[48:56] == (start + at).to_bytes(8, "big") and footer[60:64] == _VHD_FIXED
            if of_this or len(tail) - at in _VHD_FOOTERS:
                return True
    return False
