# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What disks there are, by disk sequence number, as sysfs shows it: where to look, not a proof.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Reading the number of every disk takes as long as there are disks, so it is remembered. A number that was
found is proved by whoever opens the disk. That there is none is answered without a new look only where it
must be so: a disk gets numbers from one counter, which only rises (block/genhd.c, inc_diskseq), and a new
disk is announced by a uevent. So a number below the highest one of the last look is nobody's if it was not
found then and nothing was announced since. A number above it can be that of a drive's new medium, which some
drivers do not announce.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from .._base import gone
from .._block import sysfs

_BLOCK = "/sys/block"
_ANNOUNCED = "/sys/kernel/uevent_seqnum"
# Seconds for which a look stands for a number that is higher than all: so that asking for numbers that are
# not there does not take all the time of the process.
_FRESH = 0.02


class Disk(NamedTuple):
    """
    A disk, or with ``partition`` (not 0) one of its partitions; ``name`` is the kernel's, like ``dm-3``.
    """

    diskseq: int
    partition: int
    name: str
    major: int
    minor: int


class Disks:
    """The disks of this machine by number. Thread-safe in that each look is whole."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._names: dict[int, str] = {}
        self._highest = 0
        self._looked = -_FRESH
        self._announced = ""

    def find(self, diskseq: int) -> Disk | None:
        """The disk that has this number, or None; KernelError when sysfs cannot be read."""
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
        # What was remembered is over: another disk may have it now, by no rule of the kernel, but that is
        # cheap.
        self._names.pop(diskseq, None)
        return None

    def listed(self) -> Iterator[Disk]:
        """All disks with something in them, and their partitions, now."""
        for name in self._look().values():
            disk = _disk(name)
            if disk is not None and is_bound(name):
                yield disk
                yield from partitions(disk)

    def _is_settled(self, diskseq: int) -> bool:
        """Whether the last look must still be right about a number that it did not find."""
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
    The disk that sysfs has under this name, or None; the number is read last, and so of what was read before.
    """
    number = sysfs.parse_number(sysfs.read(f"{_BLOCK}/{name}/dev") or "")
    diskseq = sysfs.read(f"{_BLOCK}/{name}/diskseq")
    if number is None or diskseq is None:
        return None
    return Disk(int(diskseq), 0, name.replace("!", "/"), *number)


def is_bound(name: str) -> bool:
    """Whether the disk has a file, a medium: loop devices and drives are there without one, too."""
    name = name.replace("/", "!")
    if name.startswith("loop"):
        return gone.exists(f"{_BLOCK}/{name}/loop", gone.SYSFS)
    return sysfs.read(f"{_BLOCK}/{name}/removable") != "1" or sysfs.read(f"{_BLOCK}/{name}/size") != "0"


def partitions(disk: Disk) -> Iterator[Disk]:
    """The partitions of a disk that sysfs shows."""
    base = disk.name.replace("/", "!")
    for name in gone.list_directory(f"{_BLOCK}/{base}", gone.SYSFS):
        if name.startswith(base):
            partition = _partition(disk, name)
            if partition is not None:
                yield partition


def partition_of(disk: Disk, number: int) -> Disk | None:
    """One partition of a disk by its number, or None when it has none such."""
    base = disk.name.replace("/", "!")
    # The kernel's names (block/partitions/core.c): sda1, and loop0p1 where the disk's ends with a digit.
    found = _partition(disk, f"{base}p{number}" if base[-1:].isdigit() else f"{base}{number}")
    return found if found is not None and found.partition == number else None


def _partition(disk: Disk, name: str) -> Disk | None:
    base = f"{_BLOCK}/{disk.name.replace('/', '!')}/{name}"
    number, device = sysfs.read(f"{base}/partition"), sysfs.parse_number(sysfs.read(f"{base}/dev") or "")
    if number is None or device is None:
        return None
    return Disk(disk.diskseq, int(number), name.replace("!", "/"), *device)
