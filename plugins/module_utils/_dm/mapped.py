# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Mapped devices: make, find, change, remove.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The orders of calls here were tried on Linux 6.1, 6.12 and 7.2. What makes them free of races: a name that nobody else makes
names the device until it is open, and from then on its number does, which cannot be reused while it is open.
"""

from __future__ import annotations

from typing import NamedTuple

from .. import _dm_table
from .._base import gone
from .._base.errors import BlockError, DeviceBusy, DeviceGone, WrongDevice
from .._block import device as _device
from .._block import sysfs
from . import control as _control
from . import names as _names
from .load import load_new
from .names import new_uuid

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from .codec import TargetLine
    from .load import Table


# Of a table in a message.
_LINES_SHOWN = 16


class Mapped(NamedTuple):
    """A mapped device as found: ``device`` is held, or None for one without any table, which cannot be opened."""

    device: _device.Device | None
    status: _control.MappedStatus


def make(
    control: _control.Control, name: str, uuid: str | None, table: Table, event_nr: int, persist: bool = True
) -> _device.Device:
    """
    Make a mapped device, take its table live, and return it, held. ``uuid``: one that nobody else has, unless given.

    ``event_nr`` (from a Cookie) goes with the resume. Unless ``persist`` the device goes with its last user, which from
    the return on is the returned Device. On any error nothing is left. Raises DeviceBusy that describes who has the
    name or the uuid.
    """
    uuid = uuid or new_uuid()
    # Until it can be opened it has a name that nobody else makes: a uuid could be another device's by then, as could the name that is asked for.
    private = _control.by_name(_names.making_name())
    _refuse_taken(control, name, uuid)
    try:
        control.create(private.name, uuid)
    except DeviceBusy as error:
        raise taken(control, name, uuid) from error
    device = None
    try:
        device = _loaded(control, private, table)
        # Before it has its name and is live: from here on a killed process leaves nothing behind.
        control.remove(_control.by_device(device), deferred=True)
        _name(control, device, private, name, uuid)
        control.resume(_control.by_device(device), event_nr=event_nr)
        if persist:
            set_persist(control, device, True)
    except BaseException as error:
        _roll_back(control, device, private)
        if isinstance(error, BlockError) and error.device == private.name:
            error.device = name
        raise
    return device


def _loaded(control: _control.Control, private: _control.Address, table: Table) -> _device.Device:
    """The device at this address with the Table loaded, held."""
    status = load_new(control, private, table)
    table.prove()
    device = _device.open_number(status.major, status.minor)
    try:
        # While it is held its number is its own, so this tells whose number was opened.
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
    Give a held device that is not live yet its name, for udev's rules read it when it gets live.

    No cookie and no flags: to udev this event, of a suspended device, says nothing. That of the resume counts.
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


def _roll_back(control: _control.Control, device: _device.Device | None, private: _control.Address) -> None:
    """Have an unfinished make's device gone; udev may hold it for a moment, so with its last user."""
    try:
        control.remove(private if device is None else _control.by_device(device), deferred=True)
    except BlockError:
        # An error is on its way already. What is left tells by its name who made it, and a later run removes it.
        pass
    finally:
        if device is not None:
            device.close()


def _refuse_taken(control: _control.Control, name: str, uuid: str) -> None:
    """DeviceBusy when a device has the name or the uuid already, before anything is made."""
    for address in (_control.by_name(name), _control.by_uuid(uuid)):
        try:
            control.status(address)
        except DeviceGone:
            continue
        raise taken(control, name, uuid)


def find(control: _control.Control, name: str = "", uuid: str = "") -> Mapped | None:
    """
    The mapped device with this uuid, or else with this name, held and proved; None when there is none.

    With both given and a device that has only one of them, that one is returned: the caller compares.
    """
    for address in ([_control.by_uuid(uuid)] if uuid else []) + ([_control.by_name(name)] if name else []):
        mapped = open_mapped(control, address)
        if mapped is not None:
            return mapped
    return None


def open_mapped(control: _control.Control, address: _control.Address) -> Mapped | None:
    """The mapped device at this address, held and proved to be there, or None."""
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
        # The number is pinned by the descriptor; only if the address still leads to it, is it the one that was asked for.
        if (again.major, again.minor) == (held.major, held.minor):
            return Mapped(device, held)
        device.close()
    raise DeviceBusy("it is being made and removed all the time by others", device=str(address))


def taken(control: _control.Control, name: str, uuid: str, own: _device.Device | None = None) -> DeviceBusy:
    """A DeviceBusy that tells who has the name or the uuid, other than the held Device ``own``: the kernel's EBUSY does not."""
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
        "the name or the uuid was taken by a device that has gone since", device=name, hint="Try again"
    )


def describe(control: _control.Control, mapped: Mapped) -> str:
    """One line that tells a mapped device whole: name, uuid, number, diskseq and table, with ``*`` for what in it could be a key."""
    status = mapped.status
    parts = [f"mapped device {status.name}", f"uuid {status.uuid or '(none)'}", f"number {status.number}"]
    if mapped.device is not None:
        parts.append(f"diskseq {mapped.device.id.diskseq}")
    try:
        targets = control.table(_control.by_number(status.major, status.minor), secure=True)[1]
        parts.append(
            "table "
            + (
                "; ".join(_dm_table.hide_in_line(line_text(line)) for line in targets[:_LINES_SHOWN])
                or "(none)"
            )
        )
        if len(targets) > _LINES_SHOWN:
            parts.append(f"and {len(targets) - _LINES_SHOWN} more targets")
    except BlockError:
        pass
    return ", ".join(parts)


def line_text(line: TargetLine) -> str:
    """A table line as dmsetup writes it, from the kernel's answer."""
    text = f"{line.start} {line.length} {line.type.decode('ascii', 'replace')}"
    return f"{text} {line.params.decode('utf-8', 'surrogateescape')}" if line.params else text


def rename(control: _control.Control, device: _device.Device, new_name: str, event_nr: int) -> bool:
    """
    Rename a held mapped device; whether an uevent was sent. DeviceBusy when the name is taken.

    WrongDevice when somebody renamed it just then, so that the kernel renamed another one, which has its old name back then.
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
    """What became of the device of the MappedStatus ``other``, which was renamed from ``old`` to ``name`` and is to have its name back."""
    try:
        now = control.status(_control.by_name(name))
        if now.number != other.number:
            return f"the device that was {old}, {other.number}, was renamed by others since"
        control.rename(_control.by_name(name), old)
    except DeviceGone:
        return f"the device that was {old}, {other.number}, is gone"
    except BlockError as error:
        return f"ANOTHER DEVICE, {other.number} (uuid {other.uuid or 'none'}), HAS THE NAME {name} AND WAS {old}: {error}"
    return f"another device, {other.number}, has its name {old} back"


def set_persist(control: _control.Control, device: _device.Device, wanted: bool) -> None:
    """Whether a held mapped device stays when its last user goes (message ``@cancel_deferred_remove``, interface 4.27)."""
    if control.status(_control.by_device(device)).deferred_remove != wanted:
        return
    if wanted:
        control.message(_control.by_device(device), "@cancel_deferred_remove")
    else:
        control.remove(_control.by_device(device), deferred=True)


def is_mapped(device: _device.Device) -> bool:
    return gone.exists(f"{device.sysfs}/dm", gone.SYSFS)
