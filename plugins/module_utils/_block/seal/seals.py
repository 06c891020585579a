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
from . import attachment, change_event, keeping, reaping
from .entry import Seal

# Seconds to wait for another run that changes seals.
SECONDS = 30.0


def probe() -> None:
    """Raise NotSupported or KernelError if this host cannot seal devices. Leaves nothing behind."""
    attachment.probe()


def seal(major: int, minor: int, diskseq: int, with_removal: bool = False) -> None:
    """
    Seal the device and its partitions: later opens fail with EPERM. The caller holds the device open, so that
    its number cannot be reused.

    ``with_removal``: the seal belongs to a deferred removal, and is lifted when that is cancelled. On
    NotSupported or KernelError the device is not sealed, unless it was before.
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
    """
    Lift the seal of the device and its partitions, so that they can be opened again; return whether the
    device was sealed.
    """
    if not attachment.in_use():
        return False
    with locks.held([attachment.LOCK], Deadline(SECONDS)), attachment.existing() as maps:
        found = None if maps is None else maps.get(major, minor)
        if maps is None or found is None or found.diskseq != diskseq:
            return False
        _remove(maps, (major, minor), diskseq)
        reaping.clear_away(maps)
    change_event.send(major, minor)
    return True


def forget(major: int, minor: int, diskseq: int) -> None:
    """Remove the seal of a device that is gone."""
    if not attachment.in_use():
        return
    with locks.held([attachment.LOCK], Deadline(SECONDS)), attachment.existing() as maps:
        seal_there = None if maps is None else maps.get(major, minor)
        if maps is not None and seal_there is not None and seal_there.diskseq == diskseq:
            maps.remove(major, minor)
            if sysfs.diskseq_of(major, minor) is not None:
                # The next device with this number: udev may have been refused when it opened it.
                change_event.send(major, minor)
            reaping.clear_away(maps)


def find(major: int, minor: int, diskseq: int) -> Seal | None:
    """The seal of the device with this number and disk sequence number, or None."""
    if not attachment.in_use():
        return None
    with attachment.existing() as maps:
        found = None if maps is None else maps.get(major, minor)
    return found if found is not None and found.diskseq == diskseq else None


def found() -> dict[tuple[int, int], Seal]:
    """All seals, by (major, minor). May include seals of devices that have just gone."""
    if not attachment.in_use():
        return {}
    with attachment.existing() as maps:
        return {} if maps is None else maps.found()


def reap() -> int:
    """
    Remove seals of devices that are gone; return how many. If no seal is left, detach the program and remove
    the maps.

    Otherwise make sure that the program is attached and that a keeper runs. Runs that work with devices call
    this at their start.
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
    Remove the seals of a disk and its partitions. The disk's seal is removed last: while the disk is sealed,
    the next run seals its partitions again.
    """
    for number in [*sysfs.partitions_of(*disk), disk]:
        seal_there = maps.get(*number)
        if seal_there is not None and seal_there.diskseq == diskseq:
            maps.remove(*number)
