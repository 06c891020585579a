# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The disks of this host by disk sequence number, as sysfs shows them. A result is a hint: whoever opens the
disk verifies it.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A scan reads the number of every disk, so its result is cached. A number that is not in the cache needs a new
scan, unless it cannot have appeared since. Numbers come from one counter that only increases (block/genhd.c,
inc_diskseq), and a new disk causes a uevent. So a number below the highest one of the last scan that was not
found then does not exist, unless there has been a uevent since. A number above it can belong to a new medium
in a drive, which some drivers do not announce.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from .._base import gone
from .._block import sysfs

_BLOCK = "/sys/block"
_ANNOUNCED = "/sys/kernel/uevent_seqnum"
# Seconds for which a scan stays valid for numbers above the highest one, so that lookups of missing numbers
# cannot use all the time of the process.
_FRESH = 0.02


class Disk(NamedTuple):
    """
    A disk, or one of its partitions if ``partition`` is not 0. ``name`` is the kernel's, such as ``dm-3``.
    """

    diskseq: int
    partition: int
    name: str
    major: int
    minor: int


class Disks:
    """The disks of this host by number. Thread-safe: each scan replaces the whole cache."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._names: dict[int, str] = {}
        self._highest = 0
        self._looked = -_FRESH
        self._announced = ""

    def find(self, diskseq: int) -> Disk | None:
        """The disk with this number, or None. KernelError if sysfs cannot be read."""
        name = self._names.get(diskseq)
        if name is None:
            if self._is_settled(diskseq):
                return None
            name = self._look().get(diskseq)
        if name is None:
            return None
        disk = _disk(name)
        if disk is not None and disk.diskseq == diskseq:
            return disk
        # The cached entry is stale. The kernel never gives the number to another disk, but dropping it costs
        # nothing.
        self._names.pop(diskseq, None)
        return None

    def listed(self) -> Iterator[Disk]:
        """All disks that have a file or medium, and their partitions. Scans now."""
        for name in self._look().values():
            disk = _disk(name)
            if disk is not None and is_bound(name):
                yield disk
                yield from partitions(disk)

    def _is_settled(self, diskseq: int) -> bool:
        """Whether the last scan is still valid for a number that it did not find."""
        if diskseq > self._highest and self._clock() - self._looked >= _FRESH:
            return False
        return sysfs.read(_ANNOUNCED) == self._announced

    def _look(self) -> dict[int, str]:
        gone.need_sysfs()
        announced, looked = sysfs.read(_ANNOUNCED) or "", self._clock()
        names = {}
        for name in gone.list_directory(_BLOCK, ()):
            number = sysfs.read(f"{_BLOCK}/{name}/diskseq")
            if number is not None:
                names[int(number)] = name
        self._names, self._highest = names, max(names, default=0)
        self._looked, self._announced = looked, announced
        return names


def _disk(name: str) -> Disk | None:
    """
    The disk with this name in sysfs, or None. diskseq is read last, so that it vouches for what was read
    before.
    """
    number = sysfs.parse_number(sysfs.read(f"{_BLOCK}/{name}/dev") or "")
    diskseq = sysfs.read(f"{_BLOCK}/{name}/diskseq")
    if number is None or diskseq is None:
        return None
    return Disk(int(diskseq), 0, name.replace("!", "/"), *number)


def is_bound(name: str) -> bool:
    """Whether the disk has a file or medium. Loop devices and drives exist without one, too."""
    name = name.replace("/", "!")
    if name.startswith("loop"):
        return gone.exists(f"{_BLOCK}/{name}/loop", gone.SYSFS)
    return sysfs.read(f"{_BLOCK}/{name}/removable") != "1" or sysfs.read(f"{_BLOCK}/{name}/size") != "0"


def partitions(disk: Disk) -> Iterator[Disk]:
    """The partitions of a disk, according to sysfs."""
    base = disk.name.replace("/", "!")
    for name in gone.list_directory(f"{_BLOCK}/{base}", gone.SYSFS):
        if name.startswith(base):
            partition = _partition(disk, name)
            if partition is not None:
                yield partition


def partition_of(disk: Disk, number: int) -> Disk | None:
    """The partition of a disk with this partition number, or None."""
    base = disk.name.replace("/", "!")
    # Partition names (block/partitions/core.c): sda1, but loop0p1 if the disk's name ends with a digit.
    found = _partition(disk, f"{base}p{number}" if base[-1:].isdigit() else f"{base}{number}")
    return found if found is not None and found.partition == number else None


def _partition(disk: Disk, name: str) -> Disk | None:
    base = f"{_BLOCK}/{disk.name.replace('/', '!')}/{name}"
    number, device = sysfs.read(f"{base}/partition"), sysfs.parse_number(sysfs.read(f"{base}/dev") or "")
    if number is None or device is None:
        return None
    return Disk(disk.diskseq, int(number), name.replace("!", "/"), *device)
