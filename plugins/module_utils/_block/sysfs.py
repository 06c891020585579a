# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What sysfs says about the devices below a device: the disk of a partition, the members of an array.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Sources: Documentation/ABI/stable/sysfs-block of Linux. For whoever knows that the device is open, so that its
number stays its own.
"""

from __future__ import annotations

import os

from .._base.gone import SYSFS, list_directory
from .device import parse_number, read_sysfs

_SECTOR = 512  # of sysfs, whatever the device's own block size


def partition_of(major, minor):
    """``(major, minor, start, size)`` of the disk a partition is on, in bytes, or None when the device is no partition."""
    directory = f"/sys/dev/block/{major}:{minor}"
    if read_sysfs(directory + "/partition") is None:
        return None
    disk = parse_number(read_sysfs(os.path.realpath(directory) + "/../dev") or "")
    start, size = read_sysfs(directory + "/start"), read_sysfs(directory + "/size")
    if disk is None or start is None or size is None:
        return None
    return disk + (int(start) * _SECTOR, int(size) * _SECTOR)


def members_of(major, minor):
    """The numbers of the devices that a stacked device (md, bcache, dm) is made of; an empty list for others."""
    return _numbers_in(f"/sys/dev/block/{major}:{minor}/slaves")


def holders_of(major, minor):
    """The numbers of the stacked devices that stand directly on a device."""
    return _numbers_in(f"/sys/dev/block/{major}:{minor}/holders")


def _numbers_in(directory):
    names = list_directory(directory, SYSFS)
    numbers = [parse_number(read_sysfs(f"{directory}/{name}/dev") or "") for name in names]
    return [number for number in numbers if number is not None]
