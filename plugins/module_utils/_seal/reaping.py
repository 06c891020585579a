# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Taking away seals whose devices are gone, and sealing partitions that have come up on sealed disks.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A seal is for one disk sequence number, and the kernel's program sees only the device's number, which is
reused: a seal whose device is gone would refuse its successor. What sysfs shows for the number decides, and
nothing else: events come late, and everybody can have some sent. All of this is done by who has
attachment.LOCK.
"""

from __future__ import annotations

import time

from . import attachment, entry, living, passes


def reap_all(maps: attachment.Maps) -> int:
    """
    Take away all seals whose devices are gone, and have the partitions of sealed disks sealed; how many seals
    went.
    """
    gone = 0
    for number, seal in maps.found().items():
        if reap_one(maps, number, seal):
            gone += 1
        elif not seal.with_disk:
            put_partitions(maps, number, seal.diskseq)
    passes.reap(maps)
    return gone


def reap_one(maps: attachment.Maps, number: tuple[int, int], seal: entry.Seal) -> bool:
    """Take away the seal, as it was found, if its device is gone; whether it was."""
    now = living.diskseq_of(*number)
    if now == seal.diskseq:
        return False
    maps.remove(*number)
    if now is not None:
        # udev may have been refused meanwhile.
        living.send_change(*number)
    return True


def clear_away(maps: attachment.Maps) -> bool:
    """Have the program asked no more if nothing is sealed; whether that is so."""
    if maps.seals.keys():
        return False
    attachment.take_away()
    return True


def put(
    maps: attachment.Maps,
    number: tuple[int, int],
    diskseq: int,
    with_disk: bool = False,
    with_removal: bool = False,
) -> None:
    """Seal a device; one that has its seal already keeps that, and its count."""
    before = maps.get(*number)
    if before is None or before.diskseq != diskseq:
        maps.put(*number, entry.Seal(diskseq, boot_seconds(), 0, with_disk, with_removal))


def put_partitions(maps: attachment.Maps, disk: tuple[int, int], diskseq: int) -> None:
    """Seal what partitions the disk has now."""
    for number in living.partitions_of(*disk):
        put(maps, number, diskseq, with_disk=True)


def put_partition(maps: attachment.Maps, number: tuple[int, int]) -> None:
    """Seal a partition that has come up, if its disk is sealed."""
    disk, diskseq = living.disk_of(*number), living.diskseq_of(*number)
    seal = None if disk is None else maps.get(*disk)
    if seal is not None and diskseq is not None and seal.diskseq == diskseq:
        put(maps, number, diskseq, with_disk=True)


def boot_seconds() -> int:
    """Whole seconds of CLOCK_BOOTTIME, which Seal.since is in."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME))
