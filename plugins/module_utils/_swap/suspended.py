# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Storage that does not answer, because it is on a suspended mapped device: who reads or writes it waits.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from .._base.deadline import Deadline, pauses
from .._base.errors import DeviceBusy
from .._block import loop, sysfs

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from .._block.device import Device

# Programs suspend a device for a moment to give it another table.
_SECONDS = 5


def refuse(device: Device, name: str) -> None:
    """
    Raise DeviceBusy if the held device, or one below it, stays suspended. ``name``: for messages. Raises
    KernelError.
    """
    limit = Deadline(_SECONDS)
    for pause in pauses():
        found = _first(device.id.major, device.id.minor)
        if found is None:
            return
        if limit.expired:
            raise DeviceBusy(
                f"{found} is suspended, so reading or writing would wait without end",
                device=name,
                hint=f"If nobody is about to give it another table: dmsetup resume {found}",
            )
        limit.sleep(pause)


def _first(major: int, minor: int) -> str | None:
    """The name of a suspended mapped device among the device and those below it, or None."""
    for number in sorted({(major, minor), *loop.stack_below(major, minor)}):
        base = f"/sys/dev/block/{number[0]}:{number[1]}/dm"
        if sysfs.read(f"{base}/suspended") == "1":
            return sysfs.read(f"{base}/name") or f"{number[0]}:{number[1]}"
    return None
