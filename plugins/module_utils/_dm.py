# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Mapped devices: make, find, change, remove.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The orders of calls here were tried on Linux 6.1 and 6.12. What makes them free of races: a uuid that nobody else has
names the device until it is open, and from then on its number does, which cannot be reused while it is open.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import time
from typing import NamedTuple

from . import _device, _dm_ioctl, _dm_keys, _dm_udev, _gone, _process
from ._dm_standby import resume_all, standby
from ._errors import BlockError, DeviceBusy, DeviceGone, KernelError, WrongDevice
from ._interrupt import interrupting

MARK = "RACEFREE-"
# The most that udev may take for the event of an old table that is put back.
_UDEV_SECONDS = 30
# For how long a device that may be in use is waited for, once it is to go with its last user.
_GOING_SECONDS = 1.0
# For how long others may take from creating a device to its live table.
_MAKING_SECONDS = 2.0
# For how long a snapshot that others have over the same store is waited for, and the target types that have one.
_STORE_SECONDS = 5.0
_SNAPSHOTS = (b"snapshot", b"snapshot-merge")
_POOL = b"thin-pool"
# Of a table in a message.
_LINES_SHOWN = 16
_MARKED = re.compile(r"RACEFREE-([0-9]+)-([0-9]+)-[0-9a-f]{32}\Z")


class Mapped(NamedTuple):
    """A mapped device as found: ``device`` is held, or None for one without any table, which cannot be opened."""

    device: _device.Device | None
    status: _dm_ioctl.MappedStatus


class Table(NamedTuple):
    """
    What to load: ``targets`` as ``(start, length, type, params)`` in sectors and bytes; ``secure`` when it holds a key; ``held``: the Devices that
    the targets name by number.
    """

    targets: tuple
    read_only: bool = False
    secure: bool = False
    held: tuple = ()

    def prove(self):
        """
        Once it is loaded: raise WrongDevice or DeviceGone unless every device is still the one that was looked up.

        From the load on the kernel has them exclusively, so that a loop device can get no other file by LOOP_CONFIGURE.
        """
        for device in self.held:
            device.prove()


class Suspend(NamedTuple):
    """
    How to suspend: ``noflush`` keeps outstanding I/O queued, ``nolockfs`` leaves a file system on it as it is, ``seconds`` is the limit
    for the I/O to end.
    """

    noflush: bool = False
    nolockfs: bool = False
    seconds: float = 60.0


def new_uuid():
    """A uuid that nobody else has and that tells a later run who made the device: process and its start time."""
    return f"{MARK}{os.getpid()}-{_process.start_time('self')}-{secrets.token_hex(16)}"


def unused_name(uuid):
    """A name for a device with a uuid from :func:`new_uuid`, for one that needs none."""
    return MARK.lower() + uuid.rpartition("-")[2][:16]


def maker_is_gone(uuid):
    """Whether a device with this uuid was made here by a process that has ended; False for other people's uuids."""
    found = _MARKED.match(uuid)
    return found is not None and _process.start_time(found.group(1)) != found.group(2)


def make(control, name, uuid, table, event_nr, persist=True):
    """
    Make a mapped device, take its table live, and return it, held.

    ``event_nr`` (from a Cookie) goes with the resume. Unless ``persist`` the device goes with its last user, which from
    the return on is the returned Device. On any error nothing is left. Raises DeviceBusy that describes who has the
    name or the uuid.
    """
    try:
        control.create(name, uuid)
    except DeviceBusy as error:
        raise taken(control, name, uuid) from error
    address = _dm_ioctl.by_uuid(uuid)
    device = None
    try:
        status = _load_new(control, address, table)
        table.prove()
        device = _device.open_path(f"/dev/dm-{status.minor}")
        _prove(control, device, uuid)
        if not persist:
            # Before it is live: from here on a killed process leaves nothing behind.
            control.remove(_number(device), deferred=True)
        control.resume(address, event_nr=event_nr)
    except BaseException:
        if device is not None:
            device.close()
        _drop(control, address)
        raise
    return device


def drop_unfinished(control, uuid):
    """Remove the device with this uuid if it never gets a live table: its maker was killed. One that is being made just now is waited for."""
    until = time.monotonic() + _MAKING_SECONDS
    with contextlib.suppress(DeviceGone):
        while True:
            status = control.status(_dm_ioctl.by_uuid(uuid))
            if status.has_live_table:
                return
            if time.monotonic() > until:
                break
            time.sleep(0.02)
        control.remove(_dm_ioctl.by_uuid(uuid))


def find(control, name="", uuid=""):
    """
    The mapped device with this uuid, or else with this name, held and proved; None when there is none.

    With both given and a device that has only one of them, that one is returned: the caller compares.
    """
    for address in ([_dm_ioctl.by_uuid(uuid)] if uuid else []) + ([_dm_ioctl.by_name(name)] if name else []):
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
        if not (status.has_live_table or status.has_inactive_table) and _device.kernel_name(status.major, status.minor) is None:
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


def taken(control, name, uuid):
    """A DeviceBusy that tells who has the name or the uuid: the kernel's EBUSY does not."""
    for what, address in (("name", _dm_ioctl.by_name(name)), ("uuid", _dm_ioctl.by_uuid(uuid))):
        try:
            mapped = open_mapped(control, address)
        except BlockError:
            continue
        if mapped is None:
            continue
        try:
            return DeviceBusy(f"the {what} is taken by {describe(control, mapped)}", device=name)
        finally:
            if mapped.device is not None:
                mapped.device.close()
    return DeviceBusy("the name or the uuid was taken by a device that has gone since", device=name, hint="Try again")


def describe(control, mapped):
    """One line that tells a mapped device whole: name, uuid, number, diskseq and table, with ``*`` for what in it could be a key."""
    from ._dm_table import hide_in_line

    status = mapped.status
    parts = [f"mapped device {status.name}", f"uuid {status.uuid or '(none)'}", f"number {status.number}"]
    if mapped.device is not None:
        parts.append(f"diskseq {mapped.device.id.diskseq}")
    try:
        targets = control.table(_dm_ioctl.by_number(status.major, status.minor), secure=True)[1]
        parts.append("table " + ("; ".join(hide_in_line(line_text(line)) for line in targets[:_LINES_SHOWN]) or "(none)"))
        if len(targets) > _LINES_SHOWN:
            parts.append(f"and {len(targets) - _LINES_SHOWN} more targets")
    except BlockError:
        pass
    return ", ".join(parts)


def line_text(line):
    """A table line as dmsetup writes it, from the kernel's answer."""
    text = f"{line.start} {line.length} {line.type.decode('ascii', 'replace')}"
    return f"{text} {line.params.decode('utf-8', 'surrogateescape')}" if line.params else text


def suspend(control, device, how=Suspend()):
    """Suspend a held mapped device; DeadlineExceeded, and the device as it was, when its I/O does not end in time."""
    address = _number(device)
    status = control.status(address)
    try:
        with interrupting(
            how.seconds, "the outstanding reads and writes to end", device=status.name,
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
    return Table(tuple((line.start, line.length, line.type, line.params) for line in lines), status.read_only, True, tuple(held))


def reload(control, device, table, event_nr, how=Suspend()):
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
        with _dm_keys.reachable(table.targets):
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
        with _dm_udev.Cookie() as cookie:
            replaced = tuple((line.start, line.length, line.type, line.params) for line in control.table(address, secure=True)[1]) != old.targets
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


def complete(control, mapped, name, uuid, table, event_nr):
    """
    Load and resume a device that was made but never got a live table; returns it, held, to go with its last user.

    DeviceBusy when its maker is at work on it.
    """
    marked = _MARKED.match(mapped.status.uuid)
    if marked is not None and not maker_is_gone(mapped.status.uuid):
        raise DeviceBusy(f"process {marked.group(1)} is making it just now", device=name, hint="Try again")
    address = _dm_ioctl.by_uuid(uuid) if uuid else _dm_ioctl.by_number(mapped.status.major, mapped.status.minor)
    status = _load_new(control, address, table)
    device = mapped.device
    try:
        table.prove()
        if device is None:
            device = _device.open_path(f"/dev/dm-{status.minor}")
        now = control.status(_number(device))
        if (now.name, now.uuid) != (name, mapped.status.uuid):
            raise WrongDevice(f"this is {now.name} (uuid {now.uuid or 'none'}) now", device=name)
        control.remove(_number(device), deferred=True)
        control.resume(_number(device), event_nr=event_nr)
    except BaseException:
        with contextlib.suppress(BlockError):
            control.clear(_dm_ioctl.by_number(status.major, status.minor) if device is None else _number(device))
        if device is not None:
            with contextlib.suppress(BlockError):
                set_persist(control, device, not mapped.status.deferred_remove)
            if mapped.device is None:
                device.close()
        raise
    return device


def _load_new(control, address, table):
    """
    Load the table of a device that has none; DeviceBusy when another device has a snapshot over the same store.

    The kernel would have the new snapshot take the other one's records over at the resume (snapshot_ctr in drivers/md/dm-snap.c). It refuses that
    when the other one is live then, and when that has gone by then, the new one has no records: its I/O fails, and what was kept is not seen. A
    snapshot goes a moment after its last user, so it is waited for. Until records are taken over, the chunk size is 0.
    """
    until = time.monotonic() + _STORE_SECONDS
    while True:
        status = _load_pool(control, address, table, until)
        if not any(target[2] in _SNAPSHOTS for target in table.targets):
            return status
        lines = control.table(address, inactive=True, secure=True)[1]
        if not any(line.type in _SNAPSHOTS and line.params.split()[3:4] == [b"0"] for line in lines):
            return status
        control.clear(address)
        if time.monotonic() > until:
            raise DeviceBusy(
                "the store of its snapshot is another snapshot's", device=str(address), hint="Remove that one first: a store belongs to one snapshot at a time",
            )
        time.sleep(0.02)


def _load_pool(control, address, table, until):
    """
    Load a table; for one of a thin pool again while another device is the same pool (__pool_find in drivers/md/dm-thin.c: EBUSY).

    A pool that is going has lost its name before it lets go of its metadata.
    """
    while True:
        try:
            with _dm_keys.reachable(table.targets):
                return control.load(address, table.targets, table.read_only, table.secure)
        except KernelError as error:
            if error.errno != errno.EBUSY or all(target[2] != _POOL for target in table.targets) or time.monotonic() > until:
                raise
        time.sleep(0.02)


def rename(control, device, new_name, event_nr):
    """Rename a held mapped device; whether an uevent was sent. WrongDevice when another one had its name meanwhile."""
    old = control.status(_number(device)).name
    sent = control.rename(old, new_name, event_nr)
    # The kernel finds it by its old name only, which may have moved between the two calls.
    now = control.status(_number(device)).name
    if now != new_name:
        control.rename(new_name, old)
        raise WrongDevice(f"its name changed to {now} while it was being renamed; the other device has its name back", device=old)
    return sent


def remove(control, device, cookie, deferred=False, timeout=5.0):
    """
    Remove a held mapped device, close it, and return whether it is gone already.

    Unless ``deferred``, a device that others hold after ``timeout`` seconds stays: DeviceBusy.
    """
    address, identity = _number(device), device.id
    status = control.status(address) if deferred else wait_unused(control, device, timeout)
    # The kernel removes one that nobody has open a moment after the last close.
    until = time.monotonic() + (min(timeout, _GOING_SECONDS) if deferred else timeout)
    event_nr = cookie.next()
    try:
        if not control.remove(address, deferred=True, event_nr=event_nr):
            cookie.not_sent()
    except BaseException:
        cookie.not_sent()
        raise
    device.close()
    while is_there(identity):
        if time.monotonic() > until:
            if deferred:
                return False
            _undo_remove(control, identity, status)
        time.sleep(0.005)
    return True


def wait_unused(control, device, timeout):
    """The status of a held mapped device that nobody else has open; DeviceBusy if that is not so within ``timeout`` seconds."""
    until = time.monotonic() + timeout
    while True:
        status = control.status(_number(device))
        if status.open_count <= 1:
            return status
        # udev's probers open a new device for a moment, and not exclusively
        if time.monotonic() > until or _device.is_claimed(device):
            raise _busy(device, status)
        time.sleep(0.01)


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
    return _gone.exists(f"{device.sysfs}/dm", _gone.SYSFS)


def _number(device):
    return _dm_ioctl.by_number(device.id.major, device.id.minor)


def _prove(control, device, uuid):
    """While it is held: the kernel says that the uuid belongs to the number that was opened."""
    status = control.status(_dm_ioctl.by_uuid(uuid))
    if (status.major, status.minor) != (device.id.major, device.id.minor):
        raise WrongDevice(f"uuid {uuid} is the device {status.number}, and {device.id.number} was opened", device=device.path)


def _drop(control, address):
    """Take back what an unfinished make left; it may be held for a moment by udev, so deferred."""
    try:
        control.remove(address, deferred=True)
    except BlockError:
        pass


def is_there(identity):
    """Whether the device of this DeviceId, which nobody need hold, is there yet."""
    return _device.read_sysfs(f"/sys/dev/block/{identity.number}/diskseq") == str(identity.diskseq)


def _undo_remove(control, identity, status):
    try:
        device = _device.open_number(identity.major, identity.minor, diskseq=identity.diskseq)
    except (DeviceGone, WrongDevice):
        return
    with device:
        set_persist(control, device, not status.deferred_remove)
        raise _busy(device, status)


def _busy(device, status):
    names = []
    try:
        names = sorted(os.listdir(f"{device.sysfs}/holders"))
    except OSError:
        pass
    return DeviceBusy(
        f"{status.name} is in use" + (f" by {', '.join(names)}" if names else " (open, or mounted)"),
        device=device.path, hint="End that use first, or say deferred=true to have it go with its last user",
    )
