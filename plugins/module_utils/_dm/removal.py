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
from .._base.errors import BlockError, DeviceBusy, DeviceGone, KernelError, WrongDevice
from .._block import bound, let_go, sysfs
from .._block import device as _device
from . import control as _control
from . import lifetime, mapped
from . import names as _names

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from .udev import Cookie


# Seconds to wait for a device that may be in use, once its deferred remove is set.
_GOING_SECONDS = 1.0
# Seconds after which such a device is checked for new users. The kernel removes it within milliseconds.
_LOOK_SECONDS = 0.1


def remove_without_table(control: _control.Control, found: _control.MappedStatus) -> None:
    """
    Remove the device of the MappedStatus ``found``, which has no table and therefore cannot be held.

    The device is first given a unique name and examined. Only then is it removed, or renamed back. Raises
    DeviceGone, DeviceBusy, KernelError, and WrongDevice if it is another device by now.
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
    """
    Create a device without a table, with the name and the UUID of a MappedStatus. This rolls back
    :func:`remove_without_table`.
    """
    limit = Deadline(_GOING_SECONDS)
    for pause in pauses():
        try:
            control.create(status.name, status.uuid)
            return
        except DeviceBusy:
            # The device that was created in its place may not be gone yet.
            if limit.expired:
                raise
        limit.sleep(pause)


def _check_unchanged(
    control: _control.Control, address: _control.Address, found: _control.MappedStatus
) -> None:
    """
    Raise WrongDevice unless the device at the address is still ``found`` and has no table, as far as a device
    without a table can be identified.
    """
    holder = _names.holder_of(found.name)
    if holder is not None and _names.is_held(found.name):
        raise DeviceBusy(
            f"process {holder.partition('-')[0]} is working on it",
            device=found.name,
            hint="Try again",
        )
    now = control.status(address)
    if (now.number, now.uuid) != (found.number, found.uuid) or now.has_live_table or now.has_inactive_table:
        raise WrongDevice(
            f"it is another device now, or has a table: number {now.number}, uuid {now.uuid or '(none)'}",
            device=found.name,
            hint="Another process uses this name; nothing was done",
        )


def remove(
    control: _control.Control,
    device: _device.Device,
    cookie: Cookie,
    deferred: bool = False,
    timeout: float = 5.0,
) -> bool:
    """
    Remove a held mapped device, close it, and return whether it is already gone.

    Unless ``deferred``, a device that others still hold after ``timeout`` seconds is left unchanged:
    DeviceBusy. The deferred remove is set only once this process is the last user. If another user appears at
    that moment, it is cleared at once, so a process that is killed here does not leave it set on a device in
    use.
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
    """Set the deferred remove of a held device."""
    event_nr = cookie.next()
    try:
        sent = control.remove(_control.by_device(device), deferred=True, event_nr=event_nr)
    except BaseException:
        cookie.not_sent()
        raise
    if not sent:
        cookie.not_sent()


def _has_gone(identity: _device.DeviceId, limit: Deadline) -> bool:
    """
    Whether the device disappears before the deadline. The kernel removes an unused device shortly after the
    last close.
    """
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
    Wait until a device with a deferred remove is gone, and return None. If somebody has opened it, restore
    the deferred remove as in ``status``, and return the device, held. DeviceBusy if it still exists at the
    deadline without a visible user.
    """
    patience = _LOOK_SECONDS
    while not _has_gone(identity, Deadline(patience)):
        try:
            device = _device.open_number(identity.major, identity.minor, diskseq=identity.diskseq)
        except (DeviceGone, WrongDevice):
            # Its number is free, or belongs to another device.
            return None
        try:
            now = control.status(_control.by_device(device))
            if now.open_count > 1 or limit.expired:
                lifetime.set_persist(control, device, not status.deferred_remove)
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
    Wait until nobody else has a held mapped device open, except ``others`` expected users. Returns its
    status; DeviceBusy if that takes too long. ``timeout``: seconds, or a Deadline.
    """
    limit, asked = Deadline.of(timeout), False
    while True:
        status = control.status(_control.by_device(device))
        if status.open_count <= 1 + others:
            return status
        if not asked:
            # The service of /dev/disk/by-diskseq then closes the descriptors that it keeps.
            asked = let_go.ask(device.id.diskseq)
            if asked:
                continue
        # udev's probers open a new device only briefly, and not exclusively.
        if limit.expired or _device.is_claimed(device):
            raise _busy(device, status)
        limit.sleep(0.01)


def is_there(identity: _device.DeviceId) -> bool:
    """Whether the device of this DeviceId, which need not be held, still exists."""
    return sysfs.read(f"/sys/dev/block/{identity.number}/diskseq") == str(identity.diskseq)


def _busy(device: _device.Device, status: _control.MappedStatus) -> DeviceBusy:
    names: list[str] = []
    try:
        names = sorted(os.listdir(f"{device.sysfs}/holders"))
        names += bound.over_block().get(device.id.rdev, [])
    except (OSError, KernelError):
        pass
    going = (
        "It will already be removed when its last user closes it; state=present undoes that. "
        if status.deferred_remove
        else ""
    )
    return DeviceBusy(
        f"{status.name} is in use" + (f" by {', '.join(names)}" if names else " (open, or mounted)"),
        device=device.path,
        hint=f"{going}End that use first, or set deferred=true to have it removed when its last user "
        "closes it",
    )
