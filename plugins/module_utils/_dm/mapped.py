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

import contextlib
import os
import time
from typing import NamedTuple

from .._base import gone
from .._base.deadline import Deadline, pauses
from .._base.errors import BlockError, DeviceBusy, DeviceGone, WrongDevice
from .._block import device as _device
from .._block import sysfs
from .._process.interrupt import interrupting
from . import control as _control
from . import keys, udev
from . import names as _names
from .load import Table, load_new
from .names import new_uuid
from .standby import resume_all, standby

# The most that udev may take for the event of an old table that is put back.
_UDEV_SECONDS = 30
# For how long a device that may be in use is waited for, once it is to go with its last user.
_GOING_SECONDS = 1.0
# When one that is to go is looked at again, should somebody have opened it: the kernel takes milliseconds.
_LOOK_SECONDS = 0.1
# Of a table in a message.
_LINES_SHOWN = 16


class Mapped(NamedTuple):
    """A mapped device as found: ``device`` is held, or None for one without any table, which cannot be opened."""

    device: _device.Device | None
    status: _control.MappedStatus


class Suspend(NamedTuple):
    """
    How to suspend: ``noflush`` keeps outstanding I/O queued, ``nolockfs`` leaves a file system on it as it is, ``seconds`` is the limit
    for the I/O to end.
    """

    noflush: bool = False
    nolockfs: bool = False
    seconds: float = 60.0


def make(control, name, uuid, table, event_nr, persist=True):
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
        control.remove(_number(device), deferred=True)
        _name(control, device, private, name, uuid)
        control.resume(_number(device), event_nr=event_nr)
        if persist:
            set_persist(control, device, True)
    except BaseException as error:
        _take_back(control, device, private)
        if isinstance(error, BlockError) and error.device == private.name:
            error.device = name
        raise
    return device


def _loaded(control, private, table):
    """The device at this address with the Table loaded, held."""
    status = load_new(control, private, table)
    table.prove()
    device = _device.open_number(status.major, status.minor)
    try:
        # While it is held its number is its own, so this tells whose number was opened.
        if control.status(_number(device)).name != private.name:
            raise WrongDevice(f"it is not the device {status.number} that was made", device=device.path)
    except BaseException:
        device.close()
        raise
    return device


def _name(control, device, private, name, uuid):
    """
    Give a held device that is not live yet its name, for udev's rules read it when it gets live.

    No cookie and no flags: to udev this event, of a suspended device, says nothing. That of the resume counts.
    """
    try:
        control.rename(private, name)
    except DeviceBusy as error:
        raise taken(control, name, uuid, device) from error
    status = control.status(_number(device))
    if (status.name, status.uuid) != (name, uuid):
        raise WrongDevice(
            f"it was renamed to {status.name} (uuid {status.uuid or 'none'}) while it was being made",
            device=name,
        )


def _take_back(control, device, private):
    """Have an unfinished make's device gone; udev may hold it for a moment, so with its last user."""
    try:
        control.remove(private if device is None else _number(device), deferred=True)
    except BlockError:
        # An error is on its way already. What is left tells by its name who made it, and a later run removes it.
        pass
    finally:
        if device is not None:
            device.close()


def _refuse_taken(control, name, uuid):
    """DeviceBusy when a device has the name or the uuid already, before anything is made."""
    for address in (_control.by_name(name), _control.by_uuid(uuid)):
        try:
            control.status(address)
        except DeviceGone:
            continue
        raise taken(control, name, uuid)


def find(control, name="", uuid=""):
    """
    The mapped device with this uuid, or else with this name, held and proved; None when there is none.

    With both given and a device that has only one of them, that one is returned: the caller compares.
    """
    for address in ([_control.by_uuid(uuid)] if uuid else []) + ([_control.by_name(name)] if name else []):
        mapped = open_mapped(control, address)
        if mapped is not None:
            return mapped
    return None


def open_mapped(control, address):
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
            held = control.status(_number(device))
            again = control.status(address)
        except DeviceGone:
            device.close()
            continue
        # The number is pinned by the descriptor; only if the address still leads to it, is it the one that was asked for.
        if (again.major, again.minor) == (held.major, held.minor):
            return Mapped(device, held)
        device.close()
    raise DeviceBusy("it is being made and removed all the time by others", device=str(address))


def taken(control, name, uuid, own=None):
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


def describe(control, mapped):
    """One line that tells a mapped device whole: name, uuid, number, diskseq and table, with ``*`` for what in it could be a key."""
    from .._dm_table import hide_in_line

    status = mapped.status
    parts = [f"mapped device {status.name}", f"uuid {status.uuid or '(none)'}", f"number {status.number}"]
    if mapped.device is not None:
        parts.append(f"diskseq {mapped.device.id.diskseq}")
    try:
        targets = control.table(_control.by_number(status.major, status.minor), secure=True)[1]
        parts.append(
            "table "
            + ("; ".join(hide_in_line(line_text(line)) for line in targets[:_LINES_SHOWN]) or "(none)")
        )
        if len(targets) > _LINES_SHOWN:
            parts.append(f"and {len(targets) - _LINES_SHOWN} more targets")
    except BlockError:
        pass
    return ", ".join(parts)


def line_text(line):
    """A table line as dmsetup writes it, from the kernel's answer."""
    text = f"{line.start} {line.length} {line.type.decode('ascii', 'replace')}"
    return f"{text} {line.params.decode('utf-8', 'surrogateescape')}" if line.params else text


# Suspended as dmsetup does it by default.
_PLAIN = Suspend()


def suspend(control, device, how=_PLAIN):
    """Suspend a held mapped device; DeadlineExceeded, and the device as it was, when its I/O does not end in time."""
    address = _number(device)
    status = control.status(address)
    try:
        with interrupting(
            how.seconds,
            "the outstanding reads and writes to end",
            device=status.name,
            hint="What they wait for is slow, suspended or out of space. Raise timeout, or say noflush=true for a target that keeps them",
        ):
            control.suspend(address, how.noflush, how.nolockfs)
    except BaseException:
        # The time was up just when it was done. Another table would be taken live by a resume: that is the caller's to decide.
        if not (status.suspended or status.has_inactive_table) and control.status(address).suspended:
            control.resume(address)
        raise


def live_table(control, device, stack):
    """The live Table of a held mapped device as the kernel has it, for :func:`reload` to go back to; ``stack`` holds what it stands on."""
    address = _number(device)
    status, lines = control.table(address, secure=True)
    held = []
    for number in control.deps(address):
        with contextlib.suppress(DeviceGone):
            held.append(stack.enter_context(_device.open_number(*number)))
    return Table(
        tuple((line.start, line.length, line.type, line.params) for line in lines),
        status.read_only,
        True,
        tuple(held),
    )


def reload(control, device, table, event_nr, how=_PLAIN):
    """
    Give a held mapped device a new table. If the kernel refuses it at resume, the old table is live again.

    A reload changes no diskseq. ``how``: Suspend. Raises KernelError, DeadlineExceeded.
    """
    address = _number(device)
    with contextlib.ExitStack() as below:
        # A new table that is taken but does not start has replaced the old one by then, whose devices would go with it.
        old = live_table(control, device, below)
        status = control.status(address)

        def keep_old(control, devices):
            control.clear(address)
            if not status.suspended:
                resume_all(control, devices)

        below.enter_context(standby(control, [device], keep_old))
        with keys.reachable(table.targets):
            control.load(address, table.targets, table.read_only, table.secure)
        try:
            table.prove()
            suspend(control, device, how)
        except BaseException:
            control.clear(address)
            if not status.suspended and control.status(address).suspended:
                # The time was up just when it was done.
                control.resume(address)
            raise
        try:
            control.resume(address, how.noflush, how.nolockfs, event_nr)
        except BaseException as error:
            _put_back(control, address, status, old, event_nr, error)
            raise


def _put_back(control, address, status, old, event_nr, error):
    """Have the Table ``old`` live again, and the device suspended if it was, after ``error`` at a resume with ``event_nr``."""
    try:
        with udev.Cookie() as cookie:
            replaced = (
                tuple(
                    (line.start, line.length, line.type, line.params)
                    for line in control.table(address, secure=True)[1]
                )
                != old.targets
            )
            if replaced:
                control.load(address, old.targets, old.read_only, secure=True)
            if replaced or not status.suspended:
                resumed = control.resume(address, event_nr=cookie.again(event_nr))
                if not resumed.uevent_generated:
                    cookie.not_sent()
            # Before it is suspended again, too: udev's probers would read from it, and hang.
            cookie.wait(_UDEV_SECONDS)
            if status.suspended and not control.status(address).suspended:
                control.suspend(address, noflush=True, nolockfs=True)
        told = "The old table is in place again"
    except BlockError as problem:
        told = f"The old table could not be put back, and the device is suspended: {problem.message}"
    if isinstance(error, BlockError):
        error.hint = told + (f". {error.hint}" if error.hint else "")


def rename(control, device, new_name, event_nr):
    """
    Rename a held mapped device; whether an uevent was sent. DeviceBusy when the name is taken.

    WrongDevice when somebody renamed it just then, so that the kernel renamed another one, which has its old name back then.
    """
    old = control.status(_number(device)).name
    renamed = control.rename(_number(device), new_name, event_nr)
    if (renamed.major, renamed.minor) == (device.id.major, device.id.minor):
        return renamed.uevent_generated
    told = _give_name_back(control, renamed, new_name, renamed.name)
    raise WrongDevice(
        f"it was renamed by somebody else while it was being renamed to {new_name}; {told}", device=old
    )


def remove_without_table(control, found):
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
        told = _give_name_back(control, renamed, private.name, found.name)
        if isinstance(error, BlockError):
            error.hint = told[0].upper() + told[1:] + (f". {error.hint}" if error.hint else "")
        raise


def create_again(control, status):
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


def _check_unchanged(control, address, found):
    """WrongDevice unless the device at the address is the one without a table that was found, as far as such a device can be told."""
    if _names.is_held(found.name):
        raise DeviceBusy(
            f"process {_names.holder_of(found.name).partition('-')[0]} is at work on it",
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


def _give_name_back(control, other, name, old):
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


def remove(control, device, cookie, deferred=False, timeout=5.0):
    """
    Remove a held mapped device, close it, and return whether it is gone already.

    Unless ``deferred``, a device that others hold after ``timeout`` seconds stays as it was: DeviceBusy. It is marked to go with its last user
    when that is this process, and if another comes just then the mark is taken off again at once, so that a process that is killed here
    leaves none on a device in use.
    """
    identity, status = device.id, control.status(_number(device))
    limit = Deadline(timeout)
    if deferred:
        with device:
            _have_names_let_go(device)
            _send_off(control, device, cookie)
        return _has_gone(identity, limit.sooner(_GOING_SECONDS))
    while device is not None:
        with device:
            wait_unused(control, device, limit.left())
            _send_off(control, device, cookie)
        device = _last_user(control, identity, status, limit)
    return True


def _send_off(control, device, cookie):
    """Have a held device go with its last user."""
    event_nr = cookie.next()
    try:
        sent = control.remove(_number(device), deferred=True, event_nr=event_nr)
    except BaseException:
        cookie.not_sent()
        raise
    if not sent:
        cookie.not_sent()


def _has_gone(identity, limit):
    """Whether the device is gone within the Deadline: the kernel removes one that nobody has open a moment after the last close."""
    for pause in pauses(most=0.005):
        if not is_there(identity):
            return True
        if limit.expired:
            return False
        limit.sleep(pause)


def _last_user(control, identity, status, limit):
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
            now = control.status(_number(device))
            if now.open_count > 1 or limit.expired:
                set_persist(control, device, not status.deferred_remove)
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


def wait_unused(control, device, timeout, others=0):
    """
    The status of a held mapped device that nobody else has open but ``others`` that are expected; DeviceBusy if that
    is not so within ``timeout`` seconds.
    """
    until, asked = time.monotonic() + timeout, False
    while True:
        status = control.status(_number(device))
        if status.open_count <= 1 + others:
            return status
        if not asked:
            asked = _have_names_let_go(device)
            if asked:
                continue
        # udev's probers open a new device for a moment, and not exclusively
        if time.monotonic() > until or _device.is_claimed(device):
            raise _busy(device, status)
        time.sleep(0.01)


def _have_names_let_go(device):
    """Have the service of names close what it has open of a held device; whether it runs and did."""
    from .._block import let_go  # only removals need it, and the hotplug script makes devices

    return let_go.ask(device.id.diskseq)


def set_persist(control, device, wanted):
    """Whether a held mapped device stays when its last user goes (message ``@cancel_deferred_remove``, interface 4.27)."""
    if control.status(_number(device)).deferred_remove != wanted:
        return
    if wanted:
        control.message(_number(device), "@cancel_deferred_remove")
    else:
        control.remove(_number(device), deferred=True)


def number_of(device):
    """The ioctl address of a held mapped device: its number, pinned by the descriptor."""
    return _number(device)


def is_mapped(device):
    return gone.exists(f"{device.sysfs}/dm", gone.SYSFS)


def _number(device):
    return _control.by_number(device.id.major, device.id.minor)


def is_there(identity):
    """Whether the device of this DeviceId, which nobody need hold, is there yet."""
    return sysfs.read(f"/sys/dev/block/{identity.number}/diskseq") == str(identity.diskseq)


def _busy(device, status):
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
