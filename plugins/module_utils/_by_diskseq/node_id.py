# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The numbers by which the kernel names the files of this file system (inode numbers), and what they stand for.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A number is made of the disk sequence number's lower 31 bits and the device's number, so that nothing has to
be kept to tell what it stands for, and a device has the same inode number whenever it is looked at. The
highest bit tells the two files of a device apart: what is held (a pin), and what is only shown.
"""

from __future__ import annotations

ROOT = 1
_SHOWN = 1 << 63
_SEQUENCE = (1 << 31) - 1


def held(diskseq: int, rdev: int) -> int:
    """The file of a device that is held while the kernel knows this number."""
    return (diskseq & _SEQUENCE) << 32 | _encode(rdev)


def shown(diskseq: int, rdev: int) -> int:
    """The file of a device that is only shown, to who may not open it or in a listing."""
    return held(diskseq, rdev) | _SHOWN


def is_shown(node: int) -> bool:
    return bool(node & _SHOWN)


def device_of(node: int) -> tuple[int, int]:
    """``(major, minor)`` of the device."""
    number = node & 0xFFFFFFFF
    return number >> 20, number & 0xFFFFF


def is_of(node: int, diskseq: int) -> bool:
    """Whether it is a file of the disk with this number, of those that can be there at the same time."""
    return node >> 32 & _SEQUENCE == diskseq & _SEQUENCE


def _encode(rdev: int) -> int:
    # The kernel's own dev_t has 12 bits for the major and 20 for the minor (include/linux/kdev_t.h).
    major, minor = (rdev >> 8 & 0xFFF) | (rdev >> 32 & ~0xFFF), (rdev & 0xFF) | (rdev >> 12 & 0xFFF00)
    return major << 20 | minor


def text(node: int) -> str:
    """The device's number, for messages."""
    return "{}:{}".format(*device_of(node))
