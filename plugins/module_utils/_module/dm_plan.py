# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The wanted table of a mapped device: checked on this host, and compared with the live table.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from typing import Any

from .._base.deadline import Deadline, pauses
from .._base.errors import DeviceBusy
from .._block.device import Device
from .._dm import control as _control
from .._dm import load
from .._dm_table import Table
from .._source import opener, slot_files, slots
from .._source.resources import Resources

# Seconds to wait for a process that has a device open only briefly.
PROBING_SECONDS = 2


class TablePlan:
    """
    ``value``: the option ``table`` as a list of lines. ``device``: the held device, None if it does not exist
    yet.
    """

    def __init__(
        self,
        resources: Resources,
        name: str,
        value: list[str | dict[str, Any]],
        read_only: bool,
        allow_shrink: bool,
        device: Device | None,
    ) -> None:
        self.resources = resources
        self.name = name
        self.value = value
        self.read_only = read_only
        self.allow_shrink = allow_shrink
        self.device = device
        self._slots: slots.Slots | None = None

    def wanted(self, live: Table | None) -> Table:
        """
        The Table after the run: the live one if both are equivalent. Raises TableError or DeviceBusy if the
        new table cannot replace the live one.
        """
        own = None if self.device is None else (self.device.id.major, self.device.id.minor)
        self._slots = slots.host_slots(self.resources, self.value, own)
        wanted = self._slots.look(self.value, self.read_only)
        if live is None:
            return wanted.table
        wanted.table.check_replaces(live)
        if wanted.table.length < live.length and not self.allow_shrink:
            self._refuse_shrinking(live.length, wanted.table.length)
        # An equivalent live table is kept, even if the new one is written differently.
        if wanted.is_complete and live.same_as(wanted.table):
            return live
        self._refuse_exchange(live, wanted.written)
        return wanted.table

    def found(self) -> list[Device]:
        """The devices that the table names and that exist, after a call of :meth:`wanted`."""
        return [] if self._slots is None else self._slots.found()

    def make(self, maker: opener.Opener) -> load.Table:
        """
        The table for the kernel. Devices that it names are opened, and created if they do not exist yet.
        """
        made = self._slots or slots.host_slots(self.resources, self.value)
        return made.make(self.value, self.read_only, maker)

    def _refuse_exchange(self, live: Table, written: Table) -> None:
        """
        Refuse a table over a different file, which the old path leads to now, while the device is in use, for
        example mounted.
        """
        found = slot_files.exchanged(live, written)
        if found is None:
            return
        if self._is_in_use():
            raise DeviceBusy(
                f"it is in use over {found.old}, and with the new table it would be over another file, "
                f"{found.file}",
                device=self.name,
                hint="End that use first. If the other file is meant, "
                "name its loop device by diskseq=N in the table",
            )
        self.resources.warn(
            f"{self.name}: it was over {found.old}, and with this table it is over another file, {found.file}"
        )

    def _refuse_shrinking(self, sectors: int, left: int) -> None:
        """Users of a device that becomes shorter get I/O errors beyond its new end."""
        if self._is_in_use():
            raise DeviceBusy(
                f"the table would shrink it from {sectors} to {left} sectors while it is in use",
                device=self.name,
                hint="End that use first, or set allow_shrink=true if nobody needs "
                "what is beyond the new end",
            )

    def _is_in_use(self) -> bool:
        if self.device is None:
            raise AssertionError
        return is_in_use(self.resources, self.device)


def is_in_use(resources: Resources, device: Device, seconds: float = PROBING_SECONDS) -> bool:
    """
    Whether another process has a held mapped device open. Waits for processes that open it only briefly, such
    as udev.
    """
    limit = Deadline(seconds)
    for pause in pauses():
        # This process is one of the openers.
        if resources.dm.status(_control.by_device(device)).open_count <= 1:
            return False
        if limit.expired:
            break
        limit.sleep(pause)
    return True
