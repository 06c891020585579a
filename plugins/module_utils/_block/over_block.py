# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Loop devices over block devices: who else uses the part of the disk below.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A loop device does not claim the block device below it (drivers/block/loop.c), so the kernel refuses neither a
mount nor a second loop device there. A partition and its disk are two devices with the same bytes.
"""

from __future__ import annotations

import os

from .._base.errors import DeviceBusy
from . import detach, sysfs
from . import device as _device

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from .backing import Backing
    from .loop import LoopInfo

    # A disk (st_rdev), and bytes of it; the end is None for "to the end".
    Place = tuple[int, int, "int | None"]


def refuse_used(backing: Backing) -> None:
    """
    Raise DeviceBusy if somebody has the block device of a Backing open exclusively, or one that has the same
    bytes. A Backing of a file passes. Raises KernelError.
    """
    if backing.block is None or not _device.is_claimed(backing.block):
        return
    names = detach.users(backing.block)
    users = (
        ", ".join(names) if names else "it, or its disk, is mounted, swapped to, or part of another device"
    )
    raise DeviceBusy(
        f"this host itself uses the device: {users}",
        device=backing.path,
        hint="End that use, give the device above it, or set read_only=true; or set overlap=true if two "
        "writers are intended",
    )


def meets(backing: Backing, offset: int, size: int, status: LoopInfo) -> bool:
    """
    Whether a loop device over a block device has bytes of this area of the Backing's block device, in bytes;
    ``size`` 0 means to the end.
    """
    disk, start, end = _place(backing.inode, offset, size)
    other, first, last = _place(status.backing_inode, status.offset, status.sizelimit)
    return disk == other and (end is None or first < end) and (last is None or start < last)


def _place(number: int, offset: int, size: int) -> Place:
    """Bytes of a device with this st_rdev, as bytes of its whole disk."""
    partition = sysfs.partition_of(os.major(number), os.minor(number))
    if partition is None:
        return number, offset, offset + size if size else None
    major, minor, start, length = partition
    return os.makedev(major, minor), start + offset, start + (offset + size if size else length)
