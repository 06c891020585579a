# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Remove mapped devices.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import os

from .._base.deadline import Deadline, pauses
from .._base.errors import BlockError, DeviceBusy, DeviceGone, WrongDevice
from .._block import device as _device
from .._block import let_go, sysfs
from . import control as _control
from . import mapped
from . import names as _names

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from .udev import Cookie


# For how long a device that may be in use is waited for, once it is to go with its last user.
_GOING_SECONDS = 1.0
# When one that is to go is looked at again, should somebody have opened it: the kernel takes milliseconds.
_LOOK_SECONDS = 0.1


def remove_without_table(control: _control.Control, found: _control.MappedStatus) -> None:
    """
    Remove the device of the MappedStatus ``found``, which has no table, so that it cannot be held.

    It is renamed to a name that nobody else makes, looked at, and only then removed, or renamed back. Raises DeviceGone, DeviceBusy,
    WrongDevice when it has become another one; KernelError.
    """
    _check_unchanged(control, _control.by_name(found.name), found)
    private = _control.by_name(_names.claimed_name(found.name))
    renamed = control.rename(_control.by_name(found.name), private.name)
    try:
        _check_unchanged(control, private, found)
        control.remove(private)
    except BaseException as error:
        told = mapped.give_name_back(control, renamed, private.name, found.name)
        if isinstance(error, BlockError):
            error.hint = told[0].upper() + told[1:] + (f". {error.hint}" if error.hint else "")
        raise


def create_again(control: _control.Control, status: _control.MappedStatus) -> None:
    """Have a device with the name and the uuid of a MappedStatus and without a table, as :func:`remove_without_table` has removed it."""
    limit = Deadline(_GOING_SECONDS)
    for pause in pauses():
        try:
            control.create(status.name, status.uuid)
            return
        except DeviceBusy:
            # What was made in its place may be going yet.
            if limit.expired:
                raise
        limit.sleep(pause)


def _check_unchanged(
    control: _control.Control, address: _control.Address, found: _control.MappedStatus
) -> None:
    """WrongDevice unless the device at the address is the one without a table that was found, as far as such a device can be told."""
    holder = _names.holder_of(found.name)
    if holder is not None and _names.is_held(found.name):
        raise DeviceBusy(
            f"process {holder.partition('-')[0]} is at work on it",
            device=found.name,
            hint="Try again",
        )
    now = control.status(address)
    if (now.number, now.uuid) != (found.number, found.uuid) or now.has_live_table or now.has_inactive_table:
        raise WrongDevice(
            f"it has become another device, or got a table: number {now.number}, uuid {now.uuid or '(none)'}",
            device=found.name,
            hint="Another process is at work on this name; nothing was done",
        )


def remove(
    control: _control.Control,
    device: _device.Device,
    cookie: Cookie,
    deferred: bool = False,
    timeout: float = 5.0,
) -> bool:
    """
    Remove a held mapped device, close it, and return whether it is gone already.

    Unless ``deferred``, a device that others hold after ``timeout`` seconds stays as it was: DeviceBusy. It is marked to go with its last user
    when that is this process, and if another comes just then the mark is taken off again at once, so that a process that is killed here
    leaves none on a device in use.
    """
    identity, status = device.id, control.status(_control.by_device(device))
    limit = Deadline(timeout)
    if deferred:
        with device:
            let_go.ask(device.id.diskseq)
            _send_off(control, device, cookie)
        return _has_gone(identity, limit.sooner(_GOING_SECONDS))
    held: _device.Device | None = device
    while held is not None:
        with held:
            wait_unused(control, held, limit)
            _send_off(control, held, cookie)
        held = _last_user(control, identity, status, limit)
    return True


def _send_off(control: _control.Control, device: _device.Device, cookie: Cookie) -> None:
    """Have a held device go with its last user."""
    event_nr = cookie.next()
    try:
        sent = control.remove(_control.by_device(device), deferred=True, event_nr=event_nr)
    except BaseException:
        cookie.not_sent()
        raise
    if not sent:
        cookie.not_sent()


def _has_gone(identity: _device.DeviceId, limit: Deadline) -> bool:
    """Whether the device is gone within the Deadline: the kernel removes one that nobody has open a moment after the last close."""
    for pause in pauses(most=0.005):
        if not is_there(identity):
            return True
        if limit.expired:
            break
        limit.sleep(pause)
    return False


def _last_user(
    control: _control.Control, identity: _device.DeviceId, status: _control.MappedStatus, limit: Deadline
) -> _device.Device | None:
    """
    Wait until a device that was sent off is gone: None. When somebody has it open it gets back what it was by its ``status``, and is
    returned, held; DeviceBusy when the Deadline is over and it is there for no reason to be seen.
    """
    patience = _LOOK_SECONDS
    while not _has_gone(identity, Deadline(patience)):
        try:
            device = _device.open_number(identity.major, identity.minor, diskseq=identity.diskseq)
        except (DeviceGone, WrongDevice):
            # Its number is free, or another's.
            return None
        try:
            now = control.status(_control.by_device(device))
            if now.open_count > 1 or limit.expired:
                mapped.set_persist(control, device, not status.deferred_remove)
            if now.open_count > 1:
                return device
            if limit.expired:
                raise _busy(device, now)
        except BaseException:
            device.close()
            raise
        device.close()
        patience = _GOING_SECONDS
    return None


def wait_unused(
    control: _control.Control, device: _device.Device, timeout: float | Deadline, others: int = 0
) -> _control.MappedStatus:
    """
    The status of a held mapped device that nobody else has open but ``others`` that are expected; DeviceBusy if that
    is not so in time. ``timeout``: seconds, or a Deadline.
    """
    limit, asked = Deadline.of(timeout), False
    while True:
        status = control.status(_control.by_device(device))
        if status.open_count <= 1 + others:
            return status
        if not asked:
            # The service of names closes what it has open.
            asked = let_go.ask(device.id.diskseq)
            if asked:
                continue
        # udev's probers open a new device for a moment, and not exclusively
        if limit.expired or _device.is_claimed(device):
            raise _busy(device, status)
        limit.sleep(0.01)


def is_there(identity: _device.DeviceId) -> bool:
    """Whether the device of this DeviceId, which nobody need hold, is there yet."""
    return sysfs.read(f"/sys/dev/block/{identity.number}/diskseq") == str(identity.diskseq)


def _busy(device: _device.Device, status: _control.MappedStatus) -> DeviceBusy:
    names = []
    try:
        names = sorted(os.listdir(f"{device.sysfs}/holders"))
    except OSError:
        pass
    going = (
        "It is to go with its last user already, which state=present takes back. "
        if status.deferred_remove
        else ""
    )
    return DeviceBusy(
        f"{status.name} is in use" + (f" by {', '.join(names)}" if names else " (open, or mounted)"),
        device=device.path,
        hint=f"{going}End that use first, or say deferred=true to have it go with its last user",
    )
