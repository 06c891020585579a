# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The devices of this host above the storage of a guest's disk, and whether the host uses them.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A mapped device does not tell that another one over the same device is mounted: all of them share one claim
(drivers/md/dm.c), so none gets EBUSY. What is not in use, such as the devices of other guests, stops nobody.
"""

from __future__ import annotations

from .._base.errors import DeviceBusy, DeviceGone
from .._block import device as _device
from .._block import sysfs
from .footprint import Extent, Questions, conflict, footprint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from .._block.device import Device

    Number = tuple[int, int]


def refuse_above(
    lower: Iterable[Number], mine: list[Extent], name: str, own: Device | None, questions: Questions
) -> None:
    """
    DeviceBusy if the host uses one of the ``lower`` devices, or a device above them, that writes the same
    bytes as the Extents ``mine``. ``name``: of the guest's device for messages; ``own``: that device, held.

    Stacked devices that only read these bytes are no conflict, whether the guest's or the host's: a snapshot
    reads those of an origin, which changes.
    """
    written = [extent for extent in mine if extent.writes]
    todo = [(number, mine) for number in lower]
    seen = set() if own is None else {(own.id.major, own.id.minor)}
    # Devices above one disk ask about the same devices below them.
    known = _remembering(questions)
    while todo:
        number, ours = todo.pop()
        if number in seen:
            continue
        seen.add(number)
        # What is above a device has no other bytes of it.
        if not conflict(ours, writes_of(number, known)):
            continue
        stacked = sysfs.holders_of(*number)
        parts = [] if stacked else sysfs.partitions_of(*number)
        todo += [(upper, written) for upper in stacked] + [(part, ours) for part in parts]
        if not stacked and not parts and is_claimed(number):
            raise DeviceBusy(
                f"this host itself uses the storage, as {words(number)}: it is mounted, or swapped to",
                device=name,
                hint="Unmount it first",
            )


def writes_of(number: Number, questions: Questions) -> list[Extent]:
    """The Extents that users of this device may write."""
    may_write = sysfs.read(f"/sys/dev/block/{number[0]}:{number[1]}/ro") != "1"
    return [extent for extent in footprint(*number, may_write, questions, is_others=True) if extent.writes]


def is_claimed(number: Number) -> bool:
    """Whether the device is mounted, swapped to, or open exclusively. False if there is none (any more)."""
    try:
        with _device.open_number(*number) as device:
            return _device.is_claimed(device)
    except DeviceGone:
        return False


def words(number: Number) -> str:
    """The device for messages."""
    name = sysfs.read(f"/sys/dev/block/{number[0]}:{number[1]}/dm/name")
    path = f"/dev/{sysfs.kernel_name(*number) or f'{number[0]}:{number[1]}'}"
    return path + (f" ({name})" if name else "")


def _remembering(questions: Questions) -> Questions:
    others = questions.others_loop_of
    return Questions(
        _remembered(questions.table_of),
        _remembered(questions.loop_of),
        _remembered(questions.partition_of),
        _remembered(questions.members_of),
        None if others is None else _remembered(others),
    )


def _remembered(function: Callable[[int, int], Any]) -> Callable[[int, int], Any]:
    answers: dict[Number, Any] = {}

    def answer(major: int, minor: int) -> Any:
        if (major, minor) not in answers:
            answers[major, minor] = function(major, minor)
        return answers[major, minor]

    return answer
