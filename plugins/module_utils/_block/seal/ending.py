# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
End seals without a reason: the guest's disk is detached, or the device stacked on it is no longer sealed.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The caller holds attachment.LOCK.
"""

from __future__ import annotations

from collections.abc import Collection

from .. import sysfs
from . import attachment, change_event, reaping, reasons


def reap_all(maps: attachment.Maps) -> int:
    """
    ``reaping.reap_all``, and remove the seals that have no reason any more. Return the number of removed
    seals.
    """
    gone = reaping.reap_all(maps)
    lifted = end_reasons(maps)
    for number in lifted:
        change_event.send(*number)
    return gone + len(lifted)


def end_reasons(maps: attachment.Maps) -> list[tuple[int, int]]:
    """
    Remove reasons that are no longer valid, and seals without a reason. Return the numbers of the devices
    that are no longer sealed. Raises KernelError.
    """
    lifted: list[tuple[int, int]] = []
    has_changed = True
    while has_changed:
        # A seal that ends can be the reason of those below it.
        has_changed = False
        for number, diskseq in reasons.recorded():
            there = reasons.of(maps, number, diskseq)
            left = {reason for reason in there if not reasons.has_ended(maps, reason, number)}
            if not there:
                # The device is gone, or a run was killed before it sealed the device.
                reasons.keep(number, diskseq, ())
            elif left != there:
                lifted += leave(maps, number, diskseq, left)
                has_changed = True
    return lifted


def leave(
    maps: attachment.Maps, number: tuple[int, int], diskseq: int, left: Collection[str]
) -> list[tuple[int, int]]:
    """Leave the device only these reasons. Without any, remove its seal, and return its number in a list."""
    if not left:
        remove(maps, number, diskseq)
    reasons.keep(number, diskseq, left)
    return [] if left else [number]


def remove(maps: attachment.Maps, disk: tuple[int, int], diskseq: int) -> None:
    """
    Remove the seals of a disk and its partitions. The disk's seal is removed last: while the disk is sealed,
    the next run seals its partitions again.
    """
    for number in [*sysfs.partitions_of(*disk), disk]:
        seal_there = maps.get(*number)
        if seal_there is not None and seal_there.diskseq == diskseq:
            maps.remove(*number)
