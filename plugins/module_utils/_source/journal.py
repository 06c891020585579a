# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
A journal of the devices that a task is about to make persistent: if the task is killed, either all of them
stay or none.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Devices are created with autoclear or a deferred remove, so the kernel removes them when their last user
closes them. Once all devices of a task exist, they are made persistent one after the other. A task that is
killed between the first and the last of these steps leaves only some of them. So the task writes their list
to a file before the first step, and removes the file after the last one. A later run finds the file of a
killed run, and rolls it back. It knows that the run has ended by the file's lock (``_base.locks``), which is
released when the run ends, and by the process that the file names.
"""

from __future__ import annotations

import json
import os
import secrets
import stat

from .._base import gone, locks, run_directory
from .._base.deadline import Deadline, pauses
from .._base.errors import BlockError, DeviceGone, KernelError, WrongDevice
from .._base.files import kind_of_file, open_regular, write_whole
from .._block import boot, loop, sysfs
from .._block import device as _device
from .._process import identity as _identity

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from .resources import Resources

    Row = tuple[int, int, int]


DIRECTORY = f"{run_directory.ROOT}/journal"
# Seconds to wait until devices are removed on last close. The last user may be a udev prober. If there are
# many devices, each gets at least the shorter time.
_GOING_SECONDS, _LEAST_SECONDS = 5, 0.05
# Seconds that a stacked device may take to close the device below it.
_RELEASING_SECONDS = 1
# Seconds to wait for a killed process to exit.
_DYING_SECONDS = 1
_MOST_BYTES = 2**26
_KILLED = "a device that was left by a killed run"
_KILLED_REMOVAL = "a killed run had begun to remove a device that is in use"


class Journal:
    """
    The list of one task: written by the constructor, and valid until :meth:`remove`. Raises KernelError.
    """

    def __init__(self, devices: Iterable[_device.Device], removing: Iterable[_device.Device] = ()) -> None:
        """
        ``devices``: those about to be made persistent, in that order, the lowest of a stack first.
        ``removing``: loop devices about to be removed, which must stay if somebody uses them and the run is
        killed.
        """
        self._name = f"{os.getpid()}-{secrets.token_hex(8)}"
        # Take the lock before the file exists: a file whose lock is free counts as that of a dead run.
        self._locks = locks.held([_lock_of(self._name)])
        try:
            _write(self._name, _content(devices, removing))
        except BaseException:
            self._locks.close()
            raise

    def remove(self) -> None:
        """Remove the list, once all its devices are persistent or none is. Raises KernelError."""
        path = f"{DIRECTORY}/{self._name}"
        try:
            os.unlink(path)
        except OSError as error:
            raise KernelError.from_oserror(error, "remove the list of what was made", device=path) from error
        finally:
            self._locks.close()


def recover(resources: Resources) -> list[str]:
    """
    Roll back devices that killed runs made persistent only in part. Nothing is rolled back if the last device
    of a list is persistent. Returns what was rolled back, and what could not be, as texts.

    The caller must hold the locks of everything that it is about to examine: then no device that it finds
    afterwards is rolled back.
    """
    if not _names():
        return []
    told: list[str] = []
    with locks.held([locks.Lock("journals", "what a killed run left")]):
        for name in _names():
            try:
                _recover(resources, name, told)
            except BlockError as error:
                told.append(_problem(name, error))
    return told


def doomed(resources: Resources) -> tuple[set[Row], list[str]]:
    """
    ``(found, texts)``: the set of the (major, minor, diskseq) of everything that :func:`recover` would
    remove, and what it would report.
    """
    found: set[Row] = set()
    told: list[str] = []
    for name in _names():
        try:
            with locks.Locks() as own:
                rows = _rows(name) if own.try_take(_lock_of(name)) and _is_left(name) else []
            if rows and not _stays(resources, *rows[-1]):
                going = _unused(resources, rows)
                found.update(going)
                told += [f"{_KILLED} will be rolled back: {text}" for text in going.values()]
        except BlockError as error:
            told.append(_problem(name, error))
    return found, told


def _problem(name: str, error: BlockError) -> str:
    what = "devices that were left by a killed run could not be found or rolled back"
    return f"{what}, see {DIRECTORY}/{name}: {error}"


def _unused(resources: Resources, rows: list[Row]) -> dict[Row, str]:
    """
    ``{row: description}`` of the persistent devices that nobody has open exclusively, except for devices that
    are removed too.
    """
    found: dict[Row, str] = {}
    above: set[str] = set()
    for row in reversed(rows):
        try:
            with _device.open_number(*row[:2], diskseq=row[2]) as device:
                holders = set(gone.list_directory(f"{device.sysfs}/holders", gone.SYSFS))
                used = not holders <= above or (not holders and _device.is_claimed(device))
                if _is_permanent(resources, device) and not used:
                    found[row] = _words(device)
                    above.add(device.name)
        except (DeviceGone, WrongDevice):
            continue
    return found


def _recover(resources: Resources, name: str, told: list[str]) -> None:
    with locks.Locks() as own:
        if not own.try_take(_lock_of(name)) or not _is_left(name):
            return
        rows = _rows(name)
        # Devices are made persistent in the order of the list. If the last one is persistent, the run had
        # only the list left to remove, and devices that are missing were removed later.
        if rows and not _stays(resources, *rows[-1]):
            limit = Deadline(_GOING_SECONDS)
            for row in reversed(rows):
                _roll_back(resources, row, limit, told)
        for row in _rows(name, "removing"):
            _keep(resources, row, told)
        _unlink(name)


def _unlink(name: str) -> None:
    path = f"{DIRECTORY}/{name}"
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise KernelError.from_oserror(error, "remove the list", device=path) from error


def _stays(resources: Resources, major: int, minor: int, diskseq: int) -> bool:
    try:
        with _device.open_number(major, minor, diskseq=diskseq) as device:
            return _is_permanent(resources, device)
    except (DeviceGone, WrongDevice):
        return False


def _is_permanent(resources: Resources, device: _device.Device) -> bool:
    if loop.is_loop(device):
        return not loop.settings_of(device).autoclear
    from .._dm import control  # rarely needed, and it imports more files

    return not resources.dm.status(control.by_device(device)).deferred_remove


def _set_permanent(resources: Resources, device: _device.Device, wanted: bool) -> None:
    if loop.is_loop(device):
        loop.set_autoclear(device, not wanted)
    else:
        from .._dm import lifetime  # rarely needed, and it imports more files

        lifetime.set_persist(resources.dm, device, wanted)


def _words(device: _device.Device) -> str:
    backing = loop.backing_path(device) if loop.is_loop(device) else None
    return f"{device.path} (diskseq {device.id.diskseq}{f', {backing}' if backing else ''})"


def _roll_back(resources: Resources, row: Row, limit: Deadline, told: list[str]) -> None:
    """
    Remove one device unless it is in use by now, and wait until it is gone. Appends the outcome to ``told``.
    """
    major, minor, diskseq = row
    try:
        with _device.open_number(major, minor, diskseq=diskseq) as device:
            if not _is_permanent(resources, device):
                # The kernel removes it on last close.
                return
            identity, words = device.id, _words(device)
            is_claimed = _stays_claimed(device, limit.sooner(_RELEASING_SECONDS))
            if not is_claimed:
                _set_permanent(resources, device, False)
        if not is_claimed:
            if _goes(identity, limit):
                told.append(f"{_KILLED} was rolled back: {words}")
                return
            # The device still exists, so somebody has it open, but not exclusively.
            try:
                with _device.open_number(major, minor, diskseq=diskseq) as device:
                    _set_permanent(resources, device, True)
            except (DeviceGone, WrongDevice):
                told.append(f"{_KILLED} was rolled back: {words}")
                return
    except (DeviceGone, WrongDevice):
        return
    told.append(
        f"{_KILLED} was left unchanged, because it is in use: {words}. Remove it when it is no longer used"
    )


def _keep(resources: Resources, row: Row, told: list[str]) -> None:
    """Make a device persistent again if a killed run had begun to remove it and somebody uses it."""
    major, minor, diskseq = row
    try:
        with _device.open_number(major, minor, diskseq=diskseq) as device:
            if not _is_permanent(resources, device):
                _set_permanent(resources, device, True)
                told.append(f"{_KILLED_REMOVAL}, which stays: {_words(device)}")
    except (DeviceGone, WrongDevice):
        return


def _stays_claimed(device: _device.Device, limit: Deadline) -> bool:
    """
    Whether a held device stays in use until the deadline. A stacked device closes it only after it has
    disappeared from sysfs.
    """
    for pause in pauses():
        if not _device.is_claimed(device):
            return False
        if limit.expired:
            return True
        limit.sleep(pause)
    return True


def _goes(identity: _device.DeviceId, limit: Deadline) -> bool:
    """Whether the device disappears before the deadline. Each device is given a minimum of time."""
    own = Deadline(max(limit.left(), _LEAST_SECONDS))
    for pause in pauses():
        if _is_gone(identity):
            return True
        if own.expired:
            return False
        own.sleep(pause)
    return False


def _is_gone(identity: _device.DeviceId) -> bool:
    base = f"/sys/dev/block/{identity.number}"
    if sysfs.read(f"{base}/diskseq") != str(identity.diskseq):
        return True
    return identity.major == _device.LOOP_MAJOR and not gone.exists(f"{base}/loop", gone.SYSFS)


def _names() -> list[str]:
    try:
        return sorted(os.listdir(DIRECTORY))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise KernelError.from_oserror(error, "look for what killed runs left", device=DIRECTORY) from error


def _is_left(name: str) -> bool:
    """
    Whether the run that wrote this list has ended; the caller holds the list's lock. The run of an earlier
    boot has ended, and its devices are gone.
    """
    plain = _read(name)
    if not plain or plain["boot"] != boot.boot_id() or not _identity.is_of_this_namespace(plain["process"]):
        # The process cannot be seen from this namespace. Its lock is free, so it has ended.
        return True
    # The lock is free, so the process is being killed. It may hang in a system call on storage, and exits
    # only after that.
    return _identity.end_marked(plain["process"], _DYING_SECONDS)


def _rows(name: str, which: str = "devices") -> list[Row]:
    plain = _read(name)
    return [tuple(row) for row in plain.get(which, [])] if plain and plain["boot"] == boot.boot_id() else []


def _read(name: str) -> dict[str, Any]:
    """
    The content of a list; empty if it was never complete, or has just been removed. KernelError if it is not
    a list written by this collection.
    """
    path = f"{DIRECTORY}/{name}"
    try:
        there = os.lstat(path)
        if not stat.S_ISREG(there.st_mode) or there.st_uid != os.geteuid():
            what = f"a {kind_of_file(there.st_mode)} of the user {there.st_uid}"
            raise _no_list(path, f"it is {what}")
        if name.startswith("."):
            return {}
        with open(open_regular(path, "journal"), "rb") as file:
            plain: dict[str, Any] = json.loads(file.read(_MOST_BYTES))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise KernelError.from_oserror(error, "read it", device=path) from error
    except (ValueError, RecursionError) as error:
        raise _no_list(path, str(error)) from error
    if not _is_list(plain):
        raise _no_list(path, "its content does not have the expected form")
    return plain


def _is_list(plain: object) -> bool:
    """
    Whether the value has the form of :func:`_content`. For a list of another boot, only the boot_id is
    checked.
    """
    if not isinstance(plain, dict) or not isinstance(plain.get("boot"), str):
        return False
    if plain["boot"] != boot.boot_id():
        return True
    return (
        isinstance(plain.get("process"), str)
        and _identity.parse_mark(plain["process"]) is not None
        and _are_rows(plain.get("devices"))
        and _are_rows(plain.get("removing", []))
    )


def _are_rows(rows: object) -> bool:
    return isinstance(rows, list) and all(
        isinstance(row, list) and len(row) == 3 and all(map(_is_number, row)) for row in rows
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**64


def _no_list(path: str, why: str) -> KernelError:
    return KernelError(
        f"this is not a list that a run of the collection wrote: {why}",
        device=path,
        hint="Remove it, and find out who made it",
    )


def _content(devices: Iterable[_device.Device], removing: Iterable[_device.Device] = ()) -> dict[str, Any]:
    return {
        "boot": boot.boot_id(),
        "process": _identity.own_mark(),
        "devices": _rows_of(devices),
        "removing": _rows_of(removing),
    }


def _rows_of(devices: Iterable[_device.Device]) -> list[list[int]]:
    return [[device.id.major, device.id.minor, device.id.diskseq] for device in devices]


def _write(name: str, plain: dict[str, Any]) -> None:
    run_directory.make(DIRECTORY)
    new = f"{DIRECTORY}/.{name}"
    try:
        write_whole(f"{DIRECTORY}/{name}", json.dumps(plain), new)
    except OSError as error:
        raise KernelError.from_oserror(error, "list what is to be made", device=new) from error


def _lock_of(name: str) -> locks.Lock:
    return locks.Lock(f"journal {name.lstrip('.')}", "what it makes")
