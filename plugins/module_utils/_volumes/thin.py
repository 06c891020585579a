# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The volumes of a thin pool: which exist and who uses them; create and delete them.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A pool does not list its volumes. To find out whether one exists, a ``thin`` target for it is loaded into a
mapped device that never becomes live. The kernel then looks up the volume, and changes nothing in the pool
(``drivers/md/dm-thin.c``, thin_ctr; ``dm-thin-metadata.c``, __open_device). Messages:
Documentation/admin-guide/device-mapper/thin-provisioning.rst.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import NamedTuple

from .._base.deadline import Deadline, pauses
from .._base.errors import BlockError, DeviceBusy, DeviceGone, InvalidValue, KernelError, WrongDevice
from .._block import device as _device
from .._dm import control as _control
from .._dm import load, suspended
from .._dm import names as _names

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from .._source.resources import Resources


LAST_ID = 2**24 - 1
_PROBE_SECONDS = 10


class Volume(NamedTuple):
    """
    The wanted state of one volume: ``present`` or not. ``origin``: the volume of which it is created as a
    snapshot.
    """

    id: int
    present: bool
    origin: int | None
    option: str


class User(NamedTuple):
    """
    A held mapped device with a ``thin`` target for the volume ``id``. ``live``: whether that is in its live
    table, or in an inactive one.
    """

    id: int
    device: _device.Device
    name: str
    live: bool


def parse_volumes(rows: Iterable[dict[str, Any]], option: str = "volumes") -> list[Volume]:
    """Convert ``[{id, snapshot_of, state}]`` to [Volume]; InvalidValue."""
    volumes: list[Volume] = []
    for index, row in enumerate(rows):
        where = f"{option}[{index}]"
        number = _check_id(row["id"], f"{where}.id")
        others = [volume.option for volume in volumes if volume.id == number]
        if others:
            raise InvalidValue(
                f"{where}.id",
                number,
                f"is in the list twice, also as {others[0]}.id",
                hint="Keep one of the two entries",
            )
        origin = row.get("snapshot_of")
        present = row.get("state", "present") == "present"
        if origin is not None:
            _check_id(origin, f"{where}.snapshot_of")
            if not present:
                raise InvalidValue(f"{where}.snapshot_of", origin, "must not be set with state=absent")
            if origin == number:
                raise InvalidValue(f"{where}.snapshot_of", origin, "must not be the volume itself")
        volumes.append(Volume(number, present, origin, where))
    return volumes


class Volumes:
    """
    The wanted volumes of one pool. Call in this order: :meth:`look`, :meth:`make`, :meth:`delete`;
    :meth:`undo` after an error.

    Snapshots are created in the order of the list. Volumes are deleted after everything else, because that
    cannot be undone.
    """

    def __init__(self, resources: Resources, volumes: list[Volume], seconds: float) -> None:
        """``seconds``: the limit for suspending a device while a snapshot is created."""
        self._resources = resources
        self._volumes = volumes
        self._seconds = seconds
        self._looked = False
        self._there: set[int] = set()
        self._made: list[int] = []
        # Whether a volume was deleted. From then on, a new volume may be the only copy of its data, and is
        # not rolled back.
        self.deleted = False

    def wanted(self, before: dict[str, str] | None = None) -> dict[str, str]:
        """
        The states of the volumes after the run, as plain data for the diff. ``before``: the result of
        :meth:`look`, if it succeeded.
        """
        after = {}
        for volume in self._volumes:
            text = str(volume.id)
            if not volume.present:
                after[text] = "absent"
            elif before is not None and before[text] == "present" or volume.origin is None:
                after[text] = "present"
            else:
                after[text] = f"present, a snapshot of {volume.origin}"
        return after

    def look(self, pool: _device.Device) -> dict[str, str]:
        """
        The present states of the volumes in a held active pool, as plain data. Raises what :meth:`make` and
        :meth:`delete` would raise, as far as this is known in advance: DeviceBusy, InvalidValue, KernelError;
        WrongDevice for a pool of LVM.
        """
        control, volumes = self._resources.dm, self._volumes
        _refuse_lvm(control, pool)
        self._there = existing(
            control,
            pool,
            [volume.id for volume in volumes]
            + [volume.origin for volume in volumes if volume.origin is not None],
        )
        self._looked = True
        if self._is_different():
            _check_mode(control, pool)
        coming = set(self._there)
        with contextlib.ExitStack() as stack:
            users = None
            for volume in volumes:
                if volume.present == (volume.id in self._there):
                    continue
                if volume.present and volume.origin is None:
                    coming.add(volume.id)
                    continue
                if users is None:
                    users = find_users(control, pool, stack)
                if not volume.present:
                    _refuse_used(volume, users)
                else:
                    if volume.origin not in coming:
                        raise InvalidValue(
                            f"{volume.option}.snapshot_of",
                            volume.origin,
                            "must be a volume that the pool has, or one that is earlier in the list",
                        )
                    for user in users:
                        if user.live and user.id == volume.origin:
                            suspended.check(control, user.device)
                    coming.add(volume.id)
        return {str(volume.id): "present" if volume.id in self._there else "absent" for volume in volumes}

    def make(self, pool: _device.Device) -> None:
        """Create the missing volumes in a held active pool."""
        if not self._looked:
            self.look(pool)
        for volume in self._volumes:
            if volume.present and volume.id not in self._there:
                if volume.origin is None:
                    self._resources.dm.message(_control.by_device(pool), f"create_thin {volume.id}")
                else:
                    make_snapshot(self._resources.dm, pool, volume.id, volume.origin, self._seconds)
                self._made.append(volume.id)

    def delete(self, pool: _device.Device) -> None:
        """Delete the volumes with the state absent. An error names those that are already deleted."""
        deleted: list[str] = []
        for volume in self._volumes:
            if volume.present or volume.id not in self._there:
                continue
            try:
                delete(self._resources.dm, pool, volume)
            except (KernelError, DeviceBusy) as error:
                if deleted:
                    gone = f"Already deleted, which cannot be undone: volumes {', '.join(deleted)}"
                    error.hint = f"{gone}. {error.hint}" if error.hint else gone
                raise
            self.deleted = True
            deleted.append(str(volume.id))

    def undo(self, pool: _device.Device) -> None:
        """Delete the volumes that :meth:`make` created."""
        problem = None
        while self._made:
            try:
                self._resources.dm.message(_control.by_device(pool), f"delete {self._made.pop()}")
            except BlockError as error:
                problem = problem or error
        if problem is not None:
            raise problem

    def _is_different(self) -> bool:
        return any(volume.present != (volume.id in self._there) for volume in self._volumes)


def _refuse_lvm(control: _control.Control, pool: _device.Device) -> None:
    status = control.status(_control.by_device(pool))
    if status.uuid.startswith(_names.LVM):
        raise WrongDevice(
            f"it is a pool of LVM (uuid {status.uuid}), which assigns the numbers of its volumes itself",
            device=status.name,
            hint="Make and remove its volumes with lvcreate and lvremove. LVM does not know a volume that "
            "was made without it: remove that one with dmsetup message POOL 0 'delete ID'",
        )


def existing(control: _control.Control, pool: _device.Device, ids: Iterable[int]) -> set[int]:
    """The set of those volumes ``ids`` that exist in a held active pool."""
    found: set[int] = set()
    if not ids:
        return found
    address = _control.by_name(_names.making_name())
    control.create(address.name)
    try:
        found.update(number for number in sorted(set(ids)) if _is_volume(control, pool, number, address))
    finally:
        control.remove(address, deferred=True)
        _wait_gone(control, address)
    return found


def _is_volume(
    control: _control.Control, pool: _device.Device, number: int, address: _control.Address
) -> bool:
    """Whether the volume exists. The device at ``address`` is used to look."""
    target = (0, 8, b"thin", f"{pool.id.number} {number}".encode("ascii"))
    table = load.Table((target,), read_only=True, held=(pool,))
    try:
        with load.sealed_let_in(table):
            control.load(address, table.targets, table.read_only)
    except KernelError as error:
        if error.errno == errno.ENODATA:
            return False
        code = error.errno or errno.EIO
        raise KernelError.from_oserror(
            OSError(code, os.strerror(code)),
            f"look for its volume {number}",
            device=control.status(_control.by_device(pool)).name,
            hint=error.hint,
        ) from error
    return True


def find_users(control: _control.Control, pool: _device.Device, stack: contextlib.ExitStack) -> list[User]:
    """[User] for the volumes of a held pool. ``stack`` holds their devices."""
    users = []
    # The names only tell where to look. A device directly on a pool is always a mapped device.
    for name in os.listdir(f"{pool.sysfs}/holders"):
        try:
            device = stack.enter_context(_device.open_path(f"/dev/{name}"))
            status = control.status(_control.by_device(device))
            # The device is held, so its number is pinned, and so is the pool's number in its table.
            for live in (True, False):
                for line in control.table(_control.by_device(device), inactive=not live, secure=True)[1]:
                    words = line.params.split()
                    if line.type == b"thin" and words[0] == pool.id.number.encode("ascii"):
                        users.append(User(int(words[1]), device, status.name, live))
        except (DeviceGone, WrongDevice):
            continue
    return users


def make_snapshot(
    control: _control.Control, pool: _device.Device, number: int, origin: int, seconds: float
) -> None:
    """
    Create the volume ``number`` as a snapshot of ``origin``. Mapped devices that have the origin in their
    live table are suspended meanwhile, so that the snapshot is consistent. ``seconds``: the limit for each of
    them to complete its I/O.
    """
    with contextlib.ExitStack() as stack:
        devices = {
            user.device.id: user.device
            for user in find_users(control, pool, stack)
            if user.live and user.id == origin
        }
        with suspended.quiet(control, list(devices.values()), seconds):
            control.message(_control.by_device(pool), f"create_snap {number} {origin}")


def delete(control: _control.Control, pool: _device.Device, volume: Volume) -> None:
    """Delete a Volume of a held active pool; DeviceBusy if it is in use."""
    try:
        control.message(_control.by_device(pool), f"delete {volume.id}")
    except KernelError as error:
        if error.errno != errno.EBUSY:
            raise
        with contextlib.ExitStack() as stack:
            _refuse_used(volume, find_users(control, pool, stack))
        raise DeviceBusy(
            f"the volume {volume.id} was in use a moment ago",
            device=error.device,
            errno=error.errno,
            hint="Try again",
        ) from error


def _refuse_used(volume: Volume, users: list[User]) -> None:
    names = sorted({f"{user.name} ({user.device.path})" for user in users if user.id == volume.id})
    if names:
        raise DeviceBusy(
            f"{volume.option}: the volume {volume.id} is in use by the mapped device {', '.join(names)}",
            hint="Remove that first; nothing was done",
        )


def _check_mode(control: _control.Control, pool: _device.Device) -> None:
    """
    Raise KernelError if the pool accepts no messages (dm-thin.c, pool_message). The pool's status line
    contains its mode.
    """
    status, lines = control.target_status(_control.by_device(pool))
    words = lines[0].params.split()
    if words == [b"Fail"] or b"ro" in words or b"needs_check" in words:
        raise KernelError(
            f"its volumes cannot be changed: the pool is {'failed' if words == [b'Fail'] else 'read-only'}",
            device=status.name,
            hint=f"Its status: {b' '.join(words).decode('ascii', 'replace')}. See thin_check and thin_repair",
        )


def _check_id(value: int, option: str) -> int:
    if not 0 <= value <= LAST_ID:
        raise InvalidValue(option, value, f"must be a number from 0 to {LAST_ID}")
    return value


def _wait_gone(control: _control.Control, address: _control.Address) -> None:
    """
    Wait until the device is removed. udev may have it open briefly; the deferred remove takes effect on last
    close.
    """
    deadline = Deadline(_PROBE_SECONDS)
    for pause in pauses():
        try:
            control.status(address)
        except DeviceGone:
            return
        if deadline.expired:
            # The kernel removes it on last close.
            return
        deadline.sleep(pause)
