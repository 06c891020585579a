# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Seals of devices: put on, lifted and looked at.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from .._base import locks
from .._base.deadline import Deadline
from . import attachment, keeping, living, reaping
from .entry import Seal

# For how long another run's change of the seals is waited for, in seconds.
SECONDS = 30.0


def probe() -> None:
    """NotSupported or KernelError when this host cannot seal devices; nothing is made."""
    attachment.probe()


def seal(major: int, minor: int, diskseq: int, with_removal: bool = False) -> None:
    """
    Have nobody open the device, nor its partitions, from now on. The caller holds it open, so that the number
    is its own.

    ``with_removal`` tells that the seal is to go when a deferred removal is cancelled. NotSupported,
    KernelError: then it is not sealed.
    """
    with locks.held([attachment.LOCK], Deadline(SECONDS)), attachment.ensure() as maps:
        before = maps.get(major, minor)
        was_sealed = before is not None and before.diskseq == diskseq
        try:
            keeping.have_keeper()
            reaping.put(maps, (major, minor), diskseq, with_removal=with_removal)
            reaping.put_partitions(maps, (major, minor), diskseq)
        except BaseException:
            if not was_sealed:
                _remove(maps, (major, minor), diskseq)
            reaping.clear_away(maps)
            raise


def lift(major: int, minor: int, diskseq: int) -> bool:
    """Have the device opened by everybody again, and its partitions; whether it was sealed."""
    if not attachment.in_use():
        return False
    with locks.held([attachment.LOCK], Deadline(SECONDS)), attachment.existing() as maps:
        found = None if maps is None else maps.get(major, minor)
        if maps is None or found is None or found.diskseq != diskseq:
            return False
        _remove(maps, (major, minor), diskseq)
        reaping.clear_away(maps)
    living.send_change(major, minor)
    return True


def forget(major: int, minor: int, diskseq: int) -> None:
    """Take away the seal of a device that is gone."""
    if not attachment.in_use():
        return
    with locks.held([attachment.LOCK], Deadline(SECONDS)), attachment.existing() as maps:
        seal_there = None if maps is None else maps.get(major, minor)
        if maps is not None and seal_there is not None and seal_there.diskseq == diskseq:
            maps.remove(major, minor)
            if living.diskseq_of(major, minor) is not None:
                # The next device with this number, at which udev may have been refused.
                living.send_change(major, minor)
            reaping.clear_away(maps)


def find(major: int, minor: int, diskseq: int) -> Seal | None:
    """The seal of this very device, or None."""
    if not attachment.in_use():
        return None
    with attachment.existing() as maps:
        found = None if maps is None else maps.get(major, minor)
    return found if found is not None and found.diskseq == diskseq else None


def found() -> dict[tuple[int, int], Seal]:
    """All seals, by (major, minor); those of devices that have just gone can be among them."""
    if not attachment.in_use():
        return {}
    with attachment.existing() as maps:
        return {} if maps is None else maps.found()


def reap() -> int:
    """
    Take away the seals whose devices are gone, and all of it when none is left; how many that were.

    Also sees that the others have their program and their keeper. Runs that work with devices do this at
    their beginning.
    """
    if not attachment.in_use():
        return 0
    with locks.held([attachment.LOCK], Deadline(SECONDS)), attachment.existing() as maps:
        if maps is None:
            attachment.take_away()
            return 0
        gone = reaping.reap_all(maps)
        if not reaping.clear_away(maps):
            attachment.ensure().close()
            keeping.have_keeper()
    return gone


def _remove(maps: attachment.Maps, disk: tuple[int, int], diskseq: int) -> None:
    """
    Take the seals off a disk and its partitions. The disk last: while it is sealed, the next run seals its
    partitions again.
    """
    for number in [*living.partitions_of(*disk), disk]:
        seal_there = maps.get(*number)
        if seal_there is not None and seal_there.diskseq == diskseq:
            maps.remove(*number)
