# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Seal devices, lift seals, and look them up.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from ..._base import locks
from ..._base.deadline import Deadline
from .. import sysfs
from . import attachment, below, blkback, change_event, ending, keeping, place, reaping, reason_text, reasons
from .entry import Seal

# Seconds to wait for another run that changes seals.
SECONDS = 30.0


def probe() -> None:
    """Raise NotSupported or KernelError if this host cannot seal devices. Leaves nothing behind."""
    attachment.probe()


def seal(
    major: int, minor: int, diskseq: int, with_removal: bool = False, reason: str = reason_text.OWN
) -> None:
    """
    Seal the device and its partitions for this reason (``reasons``): later opens fail with EPERM. The caller
    holds the device open, so that its number cannot be reused.

    ``with_removal``: the seal belongs to a deferred removal, and is lifted when that is cancelled. On
    NotSupported or KernelError the device is not sealed, unless it was before.
    """
    number = major, minor
    with locks.held([attachment.LOCK], Deadline(SECONDS)), attachment.ensure() as maps:
        before = reasons.of(maps, number, diskseq)
        try:
            keeping.have_keeper()
            reasons.keep(number, diskseq, before | {reason})
            blkback.let_open_late(maps, number)
            reaping.put(maps, number, diskseq, with_removal=with_removal)
            reaping.put_partitions(maps, number, diskseq)
        except BaseException:
            if not before:
                ending.remove(maps, number, diskseq)
            reasons.keep(number, diskseq, before)
            reaping.clear_away(maps)
            raise


def lift(major: int, minor: int, diskseq: int, reason: str = reason_text.OWN) -> bool:
    """
    Remove this reason for the seal of the device and its partitions; return whether there was one. Without
    another reason they can be opened again. Devices that were sealed with it follow.
    """
    if not place.in_use():
        return False
    with locks.held([attachment.LOCK], Deadline(SECONDS)), attachment.existing() as maps:
        before = frozenset() if maps is None else reasons.of(maps, (major, minor), diskseq)
        if maps is None or reason not in before:
            return False
        lifted = ending.leave(maps, (major, minor), diskseq, before - {reason})
        lifted += ending.end_reasons(maps)
        reaping.clear_away(maps)
    for number in lifted:
        change_event.send(*number)
    return True


def seal_below(major: int, minor: int, diskseq: int, reason: str = reason_text.OWN) -> None:
    """
    Seal the loop and mapped devices below a device that is sealed for this reason, and that the caller holds
    open, so that their numbers cannot be reused. On an error some may be sealed.
    """
    why = reason_text.of_upper((major, minor), diskseq, reason)
    for number, lower in below.devices(major, minor):
        if why not in reasons_of(*number, lower):
            seal(*number, lower, reason=why)


def lift_below(major: int, minor: int, diskseq: int, reason: str = reason_text.OWN) -> None:
    """The opposite of :func:`seal_below`. Other reasons for the seals of these devices are kept."""
    why = reason_text.of_upper((major, minor), diskseq, reason)
    for number, lower in below.devices(major, minor):
        lift(*number, lower, reason=why)


def are_sealed_below(major: int, minor: int, diskseq: int, reason: str = reason_text.OWN) -> list[bool]:
    """For each loop and mapped device below a device, whether :func:`seal_below` has sealed it."""
    why = reason_text.of_upper((major, minor), diskseq, reason)
    return [why in reasons_of(*number, lower) for number, lower in below.devices(major, minor)]


def reasons_of(major: int, minor: int, diskseq: int) -> frozenset[str]:
    """The reasons of the device's seal (``reasons``); empty if it is not sealed."""
    if not place.in_use():
        return frozenset()
    with attachment.existing() as maps:
        return frozenset() if maps is None else reasons.of(maps, (major, minor), diskseq)


def forget(major: int, minor: int, diskseq: int) -> None:
    """Remove the seal of a device that is gone."""
    if not place.in_use():
        return
    with locks.held([attachment.LOCK], Deadline(SECONDS)), attachment.existing() as maps:
        seal_there = None if maps is None else maps.get(major, minor)
        if maps is not None and seal_there is not None and seal_there.diskseq == diskseq:
            maps.remove(major, minor)
            if sysfs.diskseq_of(major, minor) is not None:
                # The next device with this number: udev may have been refused when it opened it.
                change_event.send(major, minor)
            for number in ending.end_reasons(maps):
                change_event.send(*number)
            reaping.clear_away(maps)


def find(major: int, minor: int, diskseq: int) -> Seal | None:
    """The seal of the device with this number and disk sequence number, or None."""
    if not place.in_use():
        return None
    with attachment.existing() as maps:
        found = None if maps is None else maps.get(major, minor)
    return found if found is not None and found.diskseq == diskseq else None


def found() -> dict[tuple[int, int], Seal]:
    """All seals, by (major, minor). May include seals of devices that have just gone."""
    if not place.in_use():
        return {}
    with attachment.existing() as maps:
        return {} if maps is None else maps.found()


def reap() -> int:
    """
    Remove seals of devices that are gone or have no reason any more; return how many. If no seal is left,
    detach the program and remove the maps.

    Otherwise make sure that the program is attached and that a keeper runs. Runs that work with devices call
    this at their start.
    """
    if not place.in_use():
        return 0
    with locks.held([attachment.LOCK], Deadline(SECONDS)), attachment.existing() as maps:
        if maps is None:
            attachment.take_away()
            return 0
        gone = ending.reap_all(maps)
        if not reaping.clear_away(maps):
            attachment.ensure().close()
            keeping.have_keeper()
    return gone
