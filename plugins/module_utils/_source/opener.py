# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Open sources: plain data in, held devices out. Devices that do not exist are created.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The language of sources is in ``_source.spec``; existing devices are found by ``_source.lookup``.
"""

from __future__ import annotations

from .._base import locks as _locks
from .._base.deadline import Deadline, pauses
from .._base.errors import DeviceBusy, DeviceGone
from .._block import loop
from .._dm import health, lifetime, names
from .._dm import mapped as _mapped
from . import files, lookup, slots, spec

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from .._block.device import Device
    from .resources import Resources
    from .spec import Source


# Seconds that another run may take to make a device live: in all, and after the device has its final name.
_MAKING_SECONDS = 30.0
_FINISHING_SECONDS = 5.0


def refuse_broken(resources: Resources, device: Device) -> None:
    """Raise KernelError if the held device is a mapped device that no longer works, or is stacked on one."""
    if _mapped.is_mapped(device):
        health.refuse_broken(resources.dm, device)


class Opener:
    """
    Opens sources, and creates devices that do not exist. ``made`` lists the created devices, which are
    removed when their last user closes them.

    :meth:`keep` makes these persistent. All devices are held until the resources are closed.
    ``flags`` (of ``_dm.udev``) are sent with the udev events of the created mapped devices.
    """

    def __init__(self, resources: Resources, flags: int = 0, limit: Deadline | None = None) -> None:
        """``limit``: how long to wait for other runs, as a Deadline; ``_base.locks.SECONDS`` by default."""
        self.resources = resources
        self.limit = limit
        self.flags = flags
        self.made: list[Device] = []
        # Changes that are not rolled back (grown devices), as texts.
        self.grown: list[str] = []

    def open(self, source: Source) -> Device:
        """
        The device, held by the resources. KernelError if it is a mapped device that no longer works, or is
        stacked on one. Also raises what ``lookup.find`` and creating the device raise.
        """
        device = self._find_or_make(source)
        refuse_broken(self.resources, device)
        return device

    def _find_or_make(self, source: Source) -> Device:
        device = lookup.find(source, self.resources)
        if device is not None:
            return self._use(source, device)
        if isinstance(source, spec.FileSource):
            return self._find_or_make_file(source)
        if isinstance(source, spec.TableSource):
            return self._find_or_make_table(source)
        raise DeviceGone("there is no such device", device=str(source))

    def _use(self, source: Source, device: Device) -> Device:
        device = self.resources.enter_context(device)
        self.follow(source, device)
        return device

    def follow(self, source: Source, device: Device) -> None:
        """Call ``files.follow``, and record a device that has grown in ``grown``."""
        if files.follow(source, device):
            self.grown.append(f"{device.path} has {device.size} bytes, as its file allows")

    def keep(self) -> None:
        """Make all created devices persistent."""
        for device in self.made:
            self._set_persist(device, True)

    def give_up(self) -> None:
        """
        The opposite of :meth:`keep`: the created devices are removed again when their last user closes them.
        """
        for device in reversed(self.made):
            self._set_persist(device, False)

    def _set_persist(self, device: Device, wanted: bool) -> None:
        if loop.is_loop(device):
            loop.set_autoclear(device, not wanted)
        else:
            lifetime.set_persist(self.resources.dm, device, wanted)

    def _find_or_make_file(self, source: spec.FileSource) -> Device:
        device, is_new = files.find_or_make(source, self.resources, self.limit)
        if is_new:
            self.made.append(device)
        else:
            self.follow(source, device)
        return device

    def _find_or_make_table(self, source: spec.TableSource) -> Device:
        if self._wait_turn(_locks.of_mapped(source.name, source.uuid)):
            device = lookup.find_table(source, self.resources)
            if device is not None:
                return self._use(source, device)
        try:
            device = self._make_table(source)
        except DeviceBusy as error:
            # Another program, or a run with other locks, is creating the device.
            return self._use(source, self._wait_for_another(source, error))
        return self._keep_note(device)

    def _wait_for_another(self, source: spec.TableSource, error: DeviceBusy) -> Device:
        """The device that another run is creating from the same source. Raises ``error`` if there is none."""
        limit, left_alone = Deadline(_MAKING_SECONDS), Deadline(_FINISHING_SECONDS)
        for pause in pauses():
            device = lookup.find(source, self.resources)
            if device is not None:
                return device
            status = lookup.status_of(source, self.resources)
            if status is None or limit.expired or (left_alone.expired and not names.is_held(status.name)):
                break
            limit.sleep(pause)
        raise error

    def _wait_turn(self, locks: list[_locks.Lock]) -> bool:
        """
        Take the locks, and keep them until the resources are closed, so that the next run finds the finished
        device, or none.

        Returns whether any lock was new: then somebody may have created the device since it was looked up.
        """
        locks = [lock for lock in locks if not self.resources.locks.has(lock)]
        self.resources.locks.take(locks, self.limit)
        return bool(locks)

    def _keep_note(self, device: Device) -> Device:
        self.made.append(device)
        return self.resources.enter_context(device)

    def _make_table(self, source: spec.TableSource) -> Device:

        table = slots.host_slots(self.resources, source.table).make(source.table, source.read_only, self)
        name = source.name or names.unused_name()
        return _mapped.make(
            self.resources.dm, name, source.uuid, table, self.resources.cookie.next(self.flags), persist=False
        )
