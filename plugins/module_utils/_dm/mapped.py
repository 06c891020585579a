# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Create, find and rename mapped devices.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The order of calls was tested on Linux 6.1, 6.12 and 7.2. It is free of races: until the device is open, a
name that nobody else uses identifies it. From then on its number does, which cannot be reused while the
device is open.
"""

from __future__ import annotations

from typing import NamedTuple

from .. import _dm_table
from .._base import gone
from .._base.errors import BlockError, DeviceBusy, DeviceGone, WrongDevice
from .._block import device as _device
from .._block import sysfs
from . import codec, lifetime, recognize
from . import control as _control
from . import names as _names
from .load import load_new
from .names import new_uuid

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from .load import Table


# Number of table lines in a message.
_LINES_SHOWN = 16


class Mapped(NamedTuple):
    """
    A mapped device that was found. ``device`` is held; None if the mapped device has no table, because it
    cannot be opened then.
    """

    device: _device.Device | None
    status: _control.MappedStatus


def make(
    control: _control.Control, name: str, uuid: str | None, table: Table, event_nr: int, persist: bool = True
) -> _device.Device:
    """
    Create a mapped device with a live table and return it, held. ``uuid`` must be unique; None: generate one.

    ``event_nr`` (from a Cookie) is passed to the resume. Unless ``persist``, the device is removed when its
    last user closes it; at first, that is the returned Device. On any error nothing is left behind. Raises
    KernelError; and DeviceBusy, which describes the device that has the name or the UUID.
    """
    uuid = uuid or new_uuid()
    # It has a unique name until it is open: another device could take the UUID or the final name first.
    private = _control.by_name(_names.making_name())
    _refuse_taken(control, name, uuid)
    try:
        control.create(private.name, uuid)
    except DeviceBusy as error:
        raise taken(control, name, uuid) from error
    device = None
    try:
        device = _loaded(control, private, table)
        # Set before the device has its final name and is live: from here on, a killed process leaves nothing
        # behind.
        control.remove(_control.by_device(device), deferred=True)
        _name(control, device, private, name, uuid)
        control.resume(_control.by_device(device), event_nr=event_nr)
        _see_table(control, device, table)
        if persist:
            lifetime.set_persist(control, device, True)
    except BaseException as error:
        _roll_back(control, device, private)
        if isinstance(error, BlockError) and error.device == private.name:
            error.device = name
        raise
    return device


def _loaded(control: _control.Control, private: _control.Address, table: Table) -> _device.Device:
    """Load the Table into the device at this address, and return the device, held."""
    status = load_new(control, private, table)
    table.prove()
    device = _device.open_number(status.major, status.minor)
    try:
        # The device is held, so its number is pinned, and this is the status of the device that was opened.
        if control.status(_control.by_device(device)).name != private.name:
            raise WrongDevice(f"it is not the device {status.number} that was made", device=device.path)
    except BaseException:
        device.close()
        raise
    return device


def _name(
    control: _control.Control, device: _device.Device, private: _control.Address, name: str, uuid: str
) -> None:
    """
    Rename a held device before it is live, because udev's rules read the name when it becomes live.

    This needs no cookie and no flags: udev ignores the event of a suspended device. The event of the resume
    counts.
    """
    try:
        control.rename(private, name)
    except DeviceBusy as error:
        raise taken(control, name, uuid, device) from error
    status = control.status(_control.by_device(device))
    if (status.name, status.uuid) != (name, uuid):
        raise WrongDevice(
            f"it was renamed to {status.name} (uuid {status.uuid or 'none'}) while it was being made",
            device=name,
        )


def _see_table(control: _control.Control, device: _device.Device, table: Table) -> None:
    """
    Raise DeviceBusy unless the Table is live in a held device that has just been resumed. Until then, every
    program can drop or replace a table that was loaded.
    """
    status, lines = control.table(_control.by_device(device), secure=True)
    if recognize.is_table(lines, table.targets) and status.read_only == table.read_only:
        return
    raise DeviceBusy(
        f"another program {'replaced' if lines else 'dropped'} its table before it was live",
        device=status.name,
        hint="Find out what else changes mapped devices on this host, then try again",
    )


def _roll_back(control: _control.Control, device: _device.Device | None, private: _control.Address) -> None:
    """Remove an unfinished device. The remove is deferred, because udev may have the device open briefly."""
    try:
        control.remove(private if device is None else _control.by_device(device), deferred=True)
    except BlockError:
        # Another error is already being raised. The name of a leftover device identifies the process that
        # created it, and a later run removes the device.
        pass
    finally:
        if device is not None:
            device.close()


def _refuse_taken(control: _control.Control, name: str, uuid: str) -> None:
    """Raise DeviceBusy if a device already has the name or the UUID, before anything is created."""
    for address in (_control.by_name(name), _control.by_uuid(uuid)):
        try:
            control.status(address)
        except DeviceGone:
            continue
        raise taken(control, name, uuid)


def find(control: _control.Control, name: str = "", uuid: str = "") -> Mapped | None:
    """
    The mapped device with this UUID, or else with this name, held and verified; None if there is none. Raises
    KernelError.

    If both are given, a device that has only one of them is returned too: the caller must compare.
    """
    for address in ([_control.by_uuid(uuid)] if uuid else []) + ([_control.by_name(name)] if name else []):
        mapped = open_mapped(control, address)
        if mapped is not None:
            return mapped
    return None


def open_mapped(control: _control.Control, address: _control.Address) -> Mapped | None:
    """The mapped device at this address, held and verified, or None. Raises KernelError."""
    for _try in range(100):
        try:
            status = control.status(address)
        except DeviceGone:
            return None
        if (
            not (status.has_live_table or status.has_inactive_table)
            and sysfs.kernel_name(status.major, status.minor) is None
        ):
            return Mapped(None, status)
        try:
            device = _device.open_number(status.major, status.minor)
        except (DeviceGone, WrongDevice):
            continue
        try:
            held = control.status(_control.by_device(device))
            again = control.status(address)
        except DeviceGone:
            device.close()
            continue
        # The open descriptor pins the number. If the address still leads to this number, it is the right
        # device.
        if (again.major, again.minor) == (held.major, held.minor):
            return Mapped(device, held)
        device.close()
    raise DeviceBusy("other processes keep making and removing it", device=str(address))


def taken(control: _control.Control, name: str, uuid: str, own: _device.Device | None = None) -> DeviceBusy:
    """
    A DeviceBusy that describes the device, other than the held ``own``, that has the name or the UUID. The
    kernel's EBUSY does not tell which.
    """
    for what, address in (("name", _control.by_name(name)), ("uuid", _control.by_uuid(uuid))):
        try:
            mapped = open_mapped(control, address)
        except BlockError:
            continue
        if mapped is None:
            continue
        try:
            if own is not None and mapped.device is not None and mapped.device.id == own.id:
                continue
            return DeviceBusy(f"the {what} is taken by {describe(control, mapped)}", device=name)
        finally:
            if mapped.device is not None:
                mapped.device.close()
    return DeviceBusy(
        "the name or the uuid was taken by a device that is gone now", device=name, hint="Try again"
    )


def describe(control: _control.Control, mapped: Mapped) -> str:
    """
    One line about a mapped device: name, UUID, number, diskseq and table. ``*`` replaces anything that could
    be a key.
    """
    status = mapped.status
    parts = [f"mapped device {status.name}", f"uuid {status.uuid or '(none)'}", f"number {status.number}"]
    if mapped.device is not None:
        parts.append(f"diskseq {mapped.device.id.diskseq}")
    try:
        targets = control.table(_control.by_number(status.major, status.minor), secure=True)[1]
        parts.append(
            "table "
            + (
                "; ".join(_dm_table.hide_in_line(codec.line_text(line)) for line in targets[:_LINES_SHOWN])
                or "(none)"
            )
        )
        if len(targets) > _LINES_SHOWN:
            parts.append(f"and {len(targets) - _LINES_SHOWN} more targets")
    except BlockError:
        pass
    return ", ".join(parts)


def rename(control: _control.Control, device: _device.Device, new_name: str, event_nr: int) -> bool:
    """
    Rename a held mapped device. Returns whether a uevent was sent. DeviceBusy if the name is taken.

    WrongDevice if somebody else renamed the device at that moment, and the kernel therefore renamed another
    device. That device gets its old name back.
    """
    old = control.status(_control.by_device(device)).name
    renamed = control.rename(_control.by_device(device), new_name, event_nr)
    if (renamed.major, renamed.minor) == (device.id.major, device.id.minor):
        return renamed.uevent_generated
    told = give_name_back(control, renamed, new_name, renamed.name)
    raise WrongDevice(
        f"it was renamed by somebody else while it was being renamed to {new_name}; {told}", device=old
    )


def give_name_back(control: _control.Control, other: _control.MappedStatus, name: str, old: str) -> str:
    """
    The device of the MappedStatus ``other`` was renamed from ``old`` to ``name``: rename it back. Returns a
    description of the outcome.
    """
    try:
        now = control.status(_control.by_name(name))
        if now.number != other.number:
            return f"the device that was {old}, {other.number}, has been renamed by others"
        control.rename(_control.by_name(name), old)
    except DeviceGone:
        return f"the device that was {old}, {other.number}, is gone"
    except BlockError as error:
        which = f"{other.number} (uuid {other.uuid or 'none'})"
        return f"ANOTHER DEVICE, {which}, HAS THE NAME {name} AND WAS {old}: {error}"
    return f"another device, {other.number}, has its name {old} back"


def is_mapped(device: _device.Device) -> bool:
    """Whether a Device is a mapped device."""
    return gone.exists(f"{device.sysfs}/dm", gone.SYSFS)
