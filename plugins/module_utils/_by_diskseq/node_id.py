# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The inode numbers of this file system, and what they encode.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

An inode number has the lower 31 bits of the disk sequence number, and the device number. So no table is
needed to decode it, and a device always has the same inode number. The highest bit distinguishes the two
files of a device: one that is held (a pin), and one that is only shown.
"""

from __future__ import annotations

ROOT = 1
_SHOWN = 1 << 63
_SEQUENCE = (1 << 31) - 1


def held(diskseq: int, rdev: int) -> int:
    """The inode number of a device that is held open as long as the kernel knows the inode."""
    return (diskseq & _SEQUENCE) << 32 | _encode(rdev)


def shown(diskseq: int, rdev: int) -> int:
    """The inode number of a device that is only shown: in a listing, or to a caller who may not open it."""
    return held(diskseq, rdev) | _SHOWN


def is_shown(node: int) -> bool:
    return bool(node & _SHOWN)


def device_of(node: int) -> tuple[int, int]:
    """Decode ``(major, minor)``."""
    number = node & 0xFFFFFFFF
    return number >> 20, number & 0xFFFFF


def is_of(node: int, diskseq: int) -> bool:
    """
    Whether the inode belongs to the disk with this sequence number. Only 31 bits are compared, which is
    enough for disks that exist at the same time.
    """
    return node >> 32 & _SEQUENCE == diskseq & _SEQUENCE


def _encode(rdev: int) -> int:
    # The kernel's dev_t has 12 bits for the major number and 20 for the minor (include/linux/kdev_t.h).
    major, minor = (rdev >> 8 & 0xFFF) | (rdev >> 32 & ~0xFFF), (rdev & 0xFF) | (rdev >> 12 & 0xFFF00)
    return major << 20 | minor


def text(node: int) -> str:
    """The device number for messages, ``MAJOR:MINOR``."""
    return "{}:{}".format(*device_of(node))
