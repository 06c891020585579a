# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Remove seals of devices that are gone, and seal new partitions of sealed disks.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A seal is for one disk sequence number, but the BPF program sees only the device number, which is reused. A
stale seal would refuse the next device with the same number. Only sysfs decides whether a device is gone:
uevents arrive late, and others can trigger them. The caller holds attachment.LOCK.
"""

from __future__ import annotations

import time

from .. import sysfs
from . import attachment, change_event, entry, passes


def reap_all(maps: attachment.Maps) -> int:
    """
    Remove all seals of devices that are gone, all expired passes, and seal new partitions of sealed disks.
    Return the number of removed seals.
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
    """Remove ``seal``, found at ``number``, if its device is gone; return whether it was removed."""
    now = sysfs.diskseq_of(*number)
    if now == seal.diskseq:
        return False
    maps.remove(*number)
    if now is not None:
        # udev may have been refused when it opened the new device.
        change_event.send(*number)
    return True


def clear_away(maps: attachment.Maps) -> bool:
    """If nothing is sealed, detach the program and remove the maps; return whether that was so."""
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
    """Seal a device. If it is already sealed, its seal and counter are left unchanged."""
    before = maps.get(*number)
    if before is None or before.diskseq != diskseq:
        maps.put(*number, entry.Seal(diskseq, boot_seconds(), 0, with_disk, with_removal))


def put_partitions(maps: attachment.Maps, disk: tuple[int, int], diskseq: int) -> None:
    """Seal the partitions that the disk has now."""
    for number in sysfs.partitions_of(*disk):
        put(maps, number, diskseq, with_disk=True)


def put_partition(maps: attachment.Maps, number: tuple[int, int]) -> None:
    """Seal a new partition if its disk is sealed."""
    partition, diskseq = sysfs.partition_of(*number), sysfs.diskseq_of(*number)
    seal = None if partition is None else maps.get(*partition[:2])
    if seal is not None and diskseq is not None and seal.diskseq == diskseq:
        put(maps, number, diskseq, with_disk=True)


def boot_seconds() -> int:
    """CLOCK_BOOTTIME in whole seconds, the unit of Seal.since."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME))
