# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The steps that create or change a mapped device, each with the step that rolls it back.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from typing import Any, Callable, TypeVar

from .._base.errors import DeviceBusy
from .._block.device import Device
from .._dm import control as _control
from .._dm import lifetime, load, reload, removal, udev
from .._dm import mapped as _mapped
from .._dm import suspended as _suspended
from .._source.resources import Resources
from .item import undo_steps

T = TypeVar("T")


class Changes:
    """
    ``hidden``: whether udev's rules ignore the device; ``how``: how it is suspended; ``timeout``:
    seconds.
    """

    def __init__(self, resources: Resources, hidden: bool, how: _suspended.Suspend, timeout: float) -> None:
        self.resources = resources
        self.how = how
        self.timeout = timeout
        self._flags = udev.HIDDEN if hidden else 0
        self.steps_back: list[Callable[[], Any]] = []
        # What a failed step has left changed, as texts.
        self.left: list[str] = []

    def make(self, name: str, uuid: str | None, table: load.Table, found: _mapped.Mapped | None) -> Device:
        """
        Create a device and return it, held; it is removed when its last user closes it. ``found``: a device
        without a live table that has its name or UUID.
        """
        event_nr = self._event()

        def make() -> Device:
            if found is not None:
                self._remove_unfinished(found)
            return _mapped.make(self.resources.dm, name, uuid, table, event_nr, persist=False)

        return self._with_event(event_nr, make)

    def rename(self, device: Device, old: str, new: str) -> None:
        self._rename(device, new)
        self.steps_back.append(lambda: self._rename(device, old))

    def reload(self, device: Device, table: load.Table, old: load.Table, suspended: bool) -> None:
        """``suspended``: whether the device is suspended now, and stays so."""
        self._take_live(device, table)
        self.steps_back.append(lambda: self._take_back(device, old, suspended))
        if suspended:
            self.set_suspended(device, True)

    def suspend(self, device: Device, wanted: bool) -> None:
        self.set_suspended(device, wanted)
        self.steps_back.append(lambda: self.set_suspended(device, not wanted))

    def persist(self, device: Device, wanted: bool) -> None:
        lifetime.set_persist(self.resources.dm, device, wanted)
        self.steps_back.append(lambda: lifetime.set_persist(self.resources.dm, device, not wanted))

    def set_suspended(self, device: Device, wanted: bool) -> None:
        """Suspend or resume the device. This is not rolled back."""
        if wanted:
            # udev's probers would read from it, and hang.
            self.resources.cookie.wait(self.how.seconds)
            _suspended.suspend(self.resources.dm, device, self.how)
            return
        _suspended.check(self.resources.dm, device)
        address, event_nr = _control.by_device(device), self._event()
        status = self._with_event(
            event_nr,
            lambda: self.resources.dm.resume(address, self.how.noflush, self.how.nolockfs, event_nr),
        )
        if not status.uevent_generated:
            self.resources.cookie.not_sent()

    def undo(self) -> None:
        """Roll back every step, the last one first; the first error is raised at the end."""
        undo_steps(self.steps_back)

    def _remove_unfinished(self, found: _mapped.Mapped) -> None:
        """
        Remove a device without a live table, which cannot hold any data. Rolling this back creates it again,
        without a table.
        """
        control, status = self.resources.dm, found.status
        if found.device is None:
            removal.remove_without_table(control, status)
        else:
            # The process that creates it holds it until it is live.
            if removal.wait_unused(control, found.device, self.timeout).has_live_table:
                raise DeviceBusy(
                    "it got its live table from another process meanwhile",
                    device=status.name,
                    hint="Try again",
                )
            removal.remove(control, found.device, self.resources.cookie, timeout=self.timeout)
        self.steps_back.append(lambda: removal.create_again(control, status))

    def _rename(self, device: Device, name: str) -> None:
        event_nr = self._event()
        if not self._with_event(event_nr, lambda: _mapped.rename(self.resources.dm, device, name, event_nr)):
            self.resources.cookie.not_sent()

    def _take_live(self, device: Device, table: load.Table) -> None:
        run = self.resources
        reload.reload(run.dm, device, table, run.cookie, self._flags, self.how, self.left)

    def _take_back(self, device: Device, old: load.Table, suspended: bool) -> None:
        self._take_live(device, old)
        if suspended:
            self.set_suspended(device, True)

    def _event(self) -> int:
        return self.resources.cookie.next(self._flags)

    def _with_event(self, event_nr: int, call: Callable[[], T]) -> T:
        """Return what the call returns. If it fails, its udev event is not waited for."""
        try:
            return call()
        except BaseException:
            if event_nr & 0xFFFF:
                self.resources.cookie.not_sent()
            raise
