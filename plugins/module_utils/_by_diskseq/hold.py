# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Open the device that a name stands for and verify its identity on the open descriptor; verify it again later.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import errno

from .._base import gone
from .._base.errors import BlockError, DeviceGone, WrongDevice
from .._block.device import Device, open_number, read_diskseq
from .disk_name import DiskName
from .disks import Disks, is_bound, partition_of

# Errors of an open or ioctl that mean: no such device, or no medium in it.
_NOTHING = (*gone.DISK, *gone.PATH, errno.ENOMEDIUM)


def open_name(disks: Disks, name: DiskName) -> Device:
    """
    Open the device that the name stands for, for reading. DeviceGone if there is none; other errors pass
    unchanged.
    """
    disk = disks.find(name.diskseq)
    if disk is None:
        raise DeviceGone("no disk has this number", device=f"diskseq:{name}")
    device = open_number(disk.major, disk.minor, diskseq=name.diskseq)
    try:
        if not is_bound(disk.name):
            raise DeviceGone("it has no file or medium", device=device.path)
        if not name.partition:
            return device
        found = partition_of(disk, name.partition)
        if found is None:
            raise DeviceGone("it has no such partition", device=f"diskseq:{name}")
        # The disk is held open, so a device that has this number and the same diskseq is a partition of it.
        partition = open_number(found.major, found.minor, diskseq=name.diskseq)
    except BaseException:
        device.close()
        raise
    device.close()
    try:
        _check_partition(partition, name)
    except BaseException:
        partition.close()
        raise
    return partition


def _check_partition(device: Device, name: DiskName) -> None:
    if device.partition != name.partition:
        raise WrongDevice(f"it is the partition {device.partition}, not {name.partition}", device=device.path)


def is_still(device: Device) -> bool:
    """
    Whether a held device still exists and has the medium that it was opened with. Other errors pass
    unchanged.

    Nothing here waits for the device. A loop device keeps its file while it is held open, and its status,
    which could block, was read when it was opened.
    """
    if read_diskseq(device.fd, device.name) != device.id.diskseq:
        return False
    # The descriptor keeps the number from being reused, so this sysfs entry is the same device's. It
    # disappears when the device dies.
    return gone.exists(device.sysfs, gone.SYSFS)


def errno_of(error: BlockError) -> int:
    """The errno with which the request is answered."""
    if isinstance(error, (DeviceGone, WrongDevice)) or error.errno in _NOTHING:
        return errno.ENOENT
    return error.errno or error.ERRNO
