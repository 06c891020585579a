# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Verify udev's links in /dev against udev's record of the disk that they lead to.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

udev updates links late, so a link can lead to a number that belongs to another device by now. The record of a
device, /run/udev/data/bMAJOR:MINOR, contains its links (``S:``) and the disk sequence number that the device
had when udev examined it: in the name of a by-diskseq link, or in a property that the role's rule sets where
it removes that link.
"""

from __future__ import annotations

import errno
import os
import stat

from .._base import gone
from .._block import sysfs
from .disk_name import DiskName, parse
from .disks import Disks, partition_of

_DATA = "/run/udev/data"
_BY_DISKSEQ = "disk/by-diskseq/"
_PROPERTY = "RACEFREE_DISKSEQ="
_DEV = "/dev"


def disk_of_link(path: str) -> DiskName | None:
    """
    The disk or partition for which udev made the link ``path``, relative to /dev. None if there is no such
    link, if its device is gone, or if the device is not the one that udev made it for. Raises KernelError.
    """
    number = _target(f"{_DEV}/{path}")
    if number is None:
        return None
    before = sysfs.diskseq_of(*number)
    partition = sysfs.read(f"/sys/dev/block/{number[0]}:{number[1]}/partition")
    links, recorded = _record(*number)
    # diskseq is the same before and after, so everything read in between is of that device.
    if before is None or recorded != before or path not in links or sysfs.diskseq_of(*number) != before:
        return None
    return DiskName(before, int(partition or 0))


def _target(path: str) -> tuple[int, int] | None:
    """
    The (major, minor) of the link's target: a kernel name in /dev, or a name in by-diskseq. None if it is
    neither.
    """
    try:
        target = os.readlink(path)
    except OSError as error:
        if error.errno in (*gone.PATH, errno.EINVAL):
            return None
        raise gone.not_seen(error, path) from error
    full = os.path.normpath(os.path.join(os.path.dirname(path), target))
    name = parse(os.path.basename(full))
    if name is not None and full.startswith(f"{_DEV}/{_BY_DISKSEQ}"):
        return _of_name(name)
    return sysfs.number_named(full)


def _of_name(name: DiskName) -> tuple[int, int] | None:
    """The device number of a name in by-diskseq, looked up in sysfs."""
    disk = Disks().find(name.diskseq)
    if disk is not None and name.partition:
        disk = partition_of(disk, name.partition)
    return None if disk is None else (disk.major, disk.minor)


def _record(major: int, minor: int) -> tuple[set[str], int | None]:
    """
    The links in udev's record of the device, and the disk sequence number in the record (None if it has none,
    or several).
    """
    path = f"{_DATA}/b{major}:{minor}"
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().split("\n")
    except OSError as error:
        if error.errno in gone.PATH:
            return set(), None
        raise gone.not_seen(error, path) from error
    links = {line[2:] for line in lines if line.startswith("S:")}
    named = [parse(link[len(_BY_DISKSEQ) :]) for link in links if link.startswith(_BY_DISKSEQ)]
    numbers = {name.diskseq for name in named if name is not None}
    numbers |= {
        int(line[len(_PROPERTY) + 2 :])
        for line in lines
        if line.startswith(f"E:{_PROPERTY}") and parse(line[len(_PROPERTY) + 2 :])
    }
    return links, numbers.pop() if len(numbers) == 1 else None


def is_directory(path: str) -> bool:
    """
    Whether this is a directory below /dev that can contain links: not a mount point of another file system.
    """
    full = f"{_DEV}/{path}" if path else _DEV
    try:
        there = os.lstat(full)
        return stat.S_ISDIR(there.st_mode) and there.st_dev == os.lstat(_DEV).st_dev
    except OSError as error:
        if error.errno in gone.PATH:
            return False
        raise gone.not_seen(error, full) from error


def listed(path: str, depth: int = 4) -> list[str]:
    """
    The names in a directory below /dev that are verified links, or directories that contain some (``depth``
    levels).
    """
    names = []
    for name in gone.list_directory(f"{_DEV}/{path}" if path else _DEV):
        inside = f"{path}/{name}" if path else name
        if is_directory(inside):
            if depth and listed(inside, depth - 1):
                names.append(name)
        elif disk_of_link(inside) is not None:
            names.append(name)
    return names
