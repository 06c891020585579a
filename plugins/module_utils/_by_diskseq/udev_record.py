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

import os

from .._base import gone
from .._block import sysfs
from .dev_tree import DevTree
from .disk_name import DiskName, parse
from .disks import Disks, partition_of

_DATA = "/run/udev/data"
_BY_DISKSEQ = "disk/by-diskseq/"
_PROPERTY = "RACEFREE_DISKSEQ="


class UdevLinks:
    """udev's links. Paths are relative to /dev."""

    def __init__(self, dev: DevTree) -> None:
        self._dev = dev

    def is_directory(self, path: str) -> bool:
        """Whether this is a directory that can contain links. Raises KernelError."""
        return self._dev.is_directory(path)

    def disk_of(self, path: str) -> DiskName | None:
        """
        The disk or partition for which udev made the link. None if there is no such link, if its device is
        gone, or if the device is not the one that udev made it for. Raises KernelError.
        """
        number = self._target(path)
        if number is None:
            return None
        before = sysfs.diskseq_of(*number)
        partition = sysfs.read(f"/sys/dev/block/{number[0]}:{number[1]}/partition")
        links, recorded = _record(*number)
        # diskseq is the same before and after, so everything read in between is of that device.
        if before is None or recorded != before or path not in links or sysfs.diskseq_of(*number) != before:
            return None
        return DiskName(before, int(partition or 0))

    def listed(self, path: str, depth: int = 4) -> list[str]:
        """
        The names in a directory that are verified links, or directories that contain some (``depth`` levels).
        Raises KernelError.
        """
        directories, links = self._dev.listed(path)
        base = f"{path}/" if path else ""
        names = [name for name in directories if depth and self.listed(base + name, depth - 1)]
        names += [name for name in links if self.disk_of(base + name) is not None]
        return sorted(names)

    def _target(self, path: str) -> tuple[int, int] | None:
        """
        The (major, minor) of the link's target: a kernel name in /dev, or a name in by-diskseq. None if it is
        neither. udev makes no links to links.
        """
        text = self._dev.target(path)
        if text is None:
            return None
        full = os.path.normpath(os.path.join(self._dev.root, os.path.dirname(path), text))
        if not full.startswith(f"{self._dev.root}/"):
            return None
        inside = full[len(self._dev.root) + 1 :]
        if inside.startswith(_BY_DISKSEQ):
            name = parse(inside[len(_BY_DISKSEQ) :])
            return None if name is None else _of_name(name)
        return sysfs.parse_number(sysfs.read(f"/sys/class/block/{inside.replace('/', '!')}/dev") or "")


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
