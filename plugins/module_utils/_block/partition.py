# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
A partition identified by its disk's disk sequence number and its partition number.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Partitions have no disk sequence number of their own: BLKGETDISKSEQ returns that of the disk (block/ioctl.c,
``bdev->bd_disk->diskseq``).
"""

from __future__ import annotations

import os

from .._base.errors import DeviceGone, KernelError, WrongDevice
from . import device, sysfs


def open_partition(diskseq: int, number: int, writable: bool = False) -> device.Device:
    """
    Open partition ``number`` of the disk with this disk sequence number, held and verified. DeviceGone if
    either does not exist.
    """
    with device.open_diskseq(diskseq) as disk:
        found = _number_of(disk, number)
        if found is None:
            raise DeviceGone(
                f"{disk.path} has no partition {number}",
                device=f"diskseq:{diskseq}-part{number}",
                hint="A loop device has partitions only with partitions=true",
            )
        # The disk is held. So if the partition found under this number has the same diskseq, it belongs to
        # this disk.
        partition = device.open_number(*found, writable=writable, diskseq=diskseq)
    try:
        if partition.partition != number:
            wrong = f"it is the partition {partition.partition}, not {number}"
            raise WrongDevice(wrong, device=partition.path)
    except BaseException:
        partition.close()
        raise
    return partition


def _number_of(disk: device.Device, number: int) -> tuple[int, int] | None:
    """
    ``(major, minor)`` of the partition from sysfs, which tells where to look and proves nothing. Raises
    KernelError.
    """
    try:
        names = os.listdir(disk.sysfs)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KernelError.from_oserror(error, f"look at {disk.sysfs}", device=disk.path) from error
    for name in names:
        base = f"{disk.sysfs}/{name}"
        if not name.startswith(disk.name.rpartition("/")[2]):
            continue
        if sysfs.read(f"{base}/partition") == str(number):
            return sysfs.parse_number(sysfs.read(f"{base}/dev") or "")
    return None
