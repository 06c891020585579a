# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Sources: the one language for "which device". Plain data in, a held device out.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The language itself is in ``_source.spec``.
"""

from __future__ import annotations

from .._base import locks as _locks
from .._base.deadline import Deadline, pauses
from .._base.errors import DeviceBusy, DeviceGone
from .._block import bind, loop
from .._dm import health, names
from .._dm import mapped as _mapped
from . import files, lookup, slots, spec

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from .._block.device import Device
    from .resources import Resources
    from .spec import Source


# For how long another run may take until a device has its live table, and from giving it its name on.
_MAKING_SECONDS = 30.0
_FINISHING_SECONDS = 5.0


def refuse_broken(host: Resources, device: Device) -> None:
    """KernelError when the held device is a mapped device that no longer works, or stands on one."""
    if _mapped.is_mapped(device):
        health.refuse_broken(host.dm, device)


class Opener:
    """
    Opens sources, making what is not there yet; ``made`` lists the devices made, which go with their last user.

    :meth:`keep` has those made stay. Everything is held until the opener's host is left. ``flags`` (of ``_dm.udev``) go with the udev events of the
    mapped devices made.
    """

    def __init__(self, host: Resources, flags: int = 0, limit: Deadline | None = None) -> None:
        """``limit``: until when other runs are waited for, a Deadline; ``_base.locks.SECONDS`` unless given."""
        self.host = host
        self.limit = limit
        self.flags = flags
        self.made: list[Device] = []
        # What was done that nothing takes back, as texts.
        self.grown: list[str] = []

    def open(self, source: Source) -> Device:
        """The device, held by the host; KernelError when it is a mapped device, or stands on one, that no longer works."""
        device = self._find_or_make(source)
        refuse_broken(self.host, device)
        return device

    def _find_or_make(self, source: Source) -> Device:
        device = lookup.find(source, self.host)
        if device is not None:
            return self._use(source, device)
        if isinstance(source, spec.FileSource):
            return self._find_or_make_file(source)
        if isinstance(source, spec.TableSource):
            return self._find_or_make_table(source)
        raise DeviceGone("there is no such device", device=str(source))

    def _use(self, source: Source, device: Device) -> Device:
        device = self.host.enter_context(device)
        self.follow(source, device)
        return device

    def follow(self, source: Source, device: Device) -> None:
        """``follow_file``, of which a note is kept."""
        if files.follow(source, device):
            self.grown.append(f"{device.path} has {device.size} bytes, as its file allows")

    def keep(self) -> None:
        """Take back "goes with its last user" for all that was made."""
        for device in self.made:
            self._set_persist(device, True)

    def give_up(self) -> None:
        """The opposite of :meth:`keep`: what was made goes with its last user after all."""
        for device in reversed(self.made):
            self._set_persist(device, False)

    def _set_persist(self, device: Device, wanted: bool) -> None:
        if loop.is_loop(device):
            loop.set_autoclear(device, not wanted)
        else:
            _mapped.set_persist(self.host.dm, device, wanted)

    def _find_or_make_file(self, source: spec.FileSource) -> Device:
        with files.backing_of(source) as backing:
            if self._wait_turn([_locks.of_inode(backing.device, backing.inode, source.file)]):
                self.host.loops.forget()
                device = files.find(source, self.host)
                if device is not None:
                    return self._use(source, device)
            files.check_new(source, backing, self.host)
            device = self._keep_note(
                bind.attach(
                    backing,
                    source.offset,
                    source.size,
                    source.sector_size,
                    source.read_only,
                    source.direct_io,
                )
            )
        self.host.loops.add(device, loop.info(device))
        return device

    def _find_or_make_table(self, source: spec.TableSource) -> Device:
        if self._wait_turn(_locks.of_mapped(source.name, source.uuid)):
            device = lookup.find_table(source, self.host)
            if device is not None:
                return self._use(source, device)
        try:
            device = self._make_table(source)
        except DeviceBusy as error:
            # Another program makes it, or a run that has other locks.
            return self._use(source, self._wait_for_another(source, error))
        return self._keep_note(device)

    def _wait_for_another(self, source: spec.TableSource, error: DeviceBusy) -> Device:
        """The device that another run has made of the same source meanwhile; ``error`` when there is none."""
        limit, left_alone = Deadline(_MAKING_SECONDS), Deadline(_FINISHING_SECONDS)
        for pause in pauses():
            device = lookup.find(source, self.host)
            if device is not None:
                return device
            status = lookup.status_of(source, self.host)
            if status is None or limit.expired or (left_alone.expired and not names.is_held(status.name)):
                break
            limit.sleep(pause)
        raise error

    def _wait_turn(self, locks: list[_locks.Lock]) -> bool:
        """
        Have the locks, until the host is left: who comes next finds the device, or that it did not come to be.

        Whether they were not had already, so that somebody may have made the device since it was looked for.
        """
        locks = [lock for lock in locks if not self.host.locks.has(lock)]
        self.host.locks.take(locks, self.limit)
        return bool(locks)

    def _keep_note(self, device: Device) -> Device:
        self.made.append(device)
        return self.host.enter_context(device)

    def _make_table(self, source: spec.TableSource) -> Device:

        table = slots.host_slots(self.host, source.table).make(source.table, source.read_only, self)
        name = source.name or names.unused_name()
        return _mapped.make(
            self.host.dm, name, source.uuid, table, self.host.cookie.next(self.flags), persist=False
        )
