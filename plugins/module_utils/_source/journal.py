# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What a task is about to make permanent, so that a killed one's devices stay all, or not at all.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Devices are made to go with their last user, and made to stay one after the other when all of a task's are there. A task that is killed between the
first and the last of these steps leaves some. So it lists them in a file before the first step, and removes the file after the last; the next run
finds the list of a run that is gone. It is known to be gone by its lock (``_base.locks``), which ends with it, and by its process.

A loop device that is removed while somebody has it open is marked by the kernel to go with its last user, and
that mark is taken off again (``_block.detach``). So those that are to be removed are listed, too: a run that
is killed in between leaves the mark, and the next run takes it off.
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
from .._dm import control, mapped
from .._process import identity as _identity

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from .resources import Resources

    Row = tuple[int, int, int]


DIRECTORY = f"{run_directory.ROOT}/journal"
# For how long devices that go with their last user are waited for; a prober of udev may be that. Each of many
# has the shorter time at least.
_GOING_SECONDS, _LEAST_SECONDS = 5, 0.05
# For how long what stood on a device may take to let go of it.
_RELEASING_SECONDS = 1
# For how long a process that was killed is waited for.
_DYING_SECONDS = 1
_MOST_BYTES = 2**26
_KILLED = "what a run that was killed had made in part"
_KILLED_REMOVAL = "a run that was killed had begun to remove a device that somebody uses"


class Journal:
    """The list of one task: written by the constructor, and valid until :meth:`remove`."""

    def __init__(self, devices: Iterable[_device.Device], removing: Iterable[_device.Device] = ()) -> None:
        """
        ``devices``: what is about to stay, in the order in which it is made to, and the lowest of a stack
        first. ``removing``: loop devices that are about to be removed, and stay if somebody uses them.
        """
        self._name = f"{os.getpid()}-{secrets.token_hex(8)}"
        # Before the file is there: one without its lock is a dead run's.
        self._locks = locks.held([_lock_of(self._name)])
        try:
            _write(self._name, _content(devices, removing))
        except BaseException:
            self._locks.close()
            raise

    def remove(self) -> None:
        """Everything stays now, or nothing does."""
        path = f"{DIRECTORY}/{self._name}"
        try:
            os.unlink(path)
        except OSError as error:
            raise KernelError.from_oserror(error, "remove the list of what was made", device=path) from error
        finally:
            self._locks.close()


def recover(host: Resources) -> list[str]:
    """
    Roll back what runs that were killed made permanent in part; complete lists are kept as they are. What was
    rolled back, and what could not be, as texts.

    To be called with the locks of all that the caller is about to look at: what this run finds afterwards
    stays.
    """
    if not _names():
        return []
    told: list[str] = []
    with locks.held([locks.Lock("journals", "what a killed run left")]):
        for name in _names():
            try:
                _recover(host, name, told)
            except BlockError as error:
                told.append(_problem(name, error))
    return told


def doomed(host: Resources) -> tuple[set[Row], list[str]]:
    """
    ``(found, texts)``: the (major, minor, diskseq) of all that :func:`recover` would have gone, a set, and
    what it would tell.
    """
    found: set[Row] = set()
    told: list[str] = []
    for name in _names():
        try:
            with locks.Locks() as own:
                rows = _rows(name) if own.try_take(_lock_of(name)) and _is_left(name) else []
            if rows and not _stays(host, *rows[-1]):
                going = _unused(host, rows)
                found.update(going)
                told += [f"{_KILLED} will be rolled back: {text}" for text in going.values()]
        except BlockError as error:
            told.append(_problem(name, error))
    return found, told


def _problem(name: str, error: BlockError) -> str:
    what = "devices of a run that was killed could not be looked for or rolled back"
    return f"{what}, see {DIRECTORY}/{name}: {error}"


def _unused(host: Resources, rows: list[Row]) -> dict[Row, str]:
    """
    ``{row: words for it}`` of the permanent devices that nobody has exclusively but a device that goes, too.
    """
    found: dict[Row, str] = {}
    above: set[str] = set()
    for row in reversed(rows):
        try:
            with _device.open_number(*row[:2], diskseq=row[2]) as device:
                holders = set(gone.list_directory(f"{device.sysfs}/holders", gone.SYSFS))
                used = not holders <= above or (not holders and _device.is_claimed(device))
                if _is_permanent(host, device) and not used:
                    found[row] = _words(device)
                    above.add(device.name)
        except (DeviceGone, WrongDevice):
            continue
    return found


def _recover(host: Resources, name: str, told: list[str]) -> None:
    with locks.Locks() as own:
        if not own.try_take(_lock_of(name)) or not _is_left(name):
            return
        rows = _rows(name)
        # They are made permanent in this order: with the last one the run had done everything, and only had
        # its list left to remove. What is gone of the others was removed since.
        if rows and not _stays(host, *rows[-1]):
            limit = Deadline(_GOING_SECONDS)
            for row in reversed(rows):
                _roll_back(host, row, limit, told)
        for row in _rows(name, "removing"):
            _keep(host, row, told)
        _unlink(name)


def _unlink(name: str) -> None:
    path = f"{DIRECTORY}/{name}"
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise KernelError.from_oserror(error, "remove the list", device=path) from error


def _stays(host: Resources, major: int, minor: int, diskseq: int) -> bool:
    try:
        with _device.open_number(major, minor, diskseq=diskseq) as device:
            return _is_permanent(host, device)
    except (DeviceGone, WrongDevice):
        return False


def _is_permanent(host: Resources, device: _device.Device) -> bool:
    if loop.is_loop(device):
        return not loop.info(device).autoclear
    return not host.dm.status(control.by_device(device)).deferred_remove


def _set_permanent(host: Resources, device: _device.Device, wanted: bool) -> None:
    if loop.is_loop(device):
        loop.set_autoclear(device, not wanted)
    else:
        mapped.set_persist(host.dm, device, wanted)


def _words(device: _device.Device) -> str:
    backing = loop.backing_path(device) if loop.is_loop(device) else None
    return f"{device.path} (diskseq {device.id.diskseq}{f', {backing}' if backing else ''})"


def _roll_back(host: Resources, row: Row, limit: Deadline, told: list[str]) -> None:
    """
    Have one device go that somebody does not use by now, and wait for that; what becomes of it is added to
    ``told``.
    """
    major, minor, diskseq = row
    try:
        with _device.open_number(major, minor, diskseq=diskseq) as device:
            if not _is_permanent(host, device):
                # It goes by itself.
                return
            identity, words = device.id, _words(device)
            is_claimed = _stays_claimed(device, limit.sooner(_RELEASING_SECONDS))
            if not is_claimed:
                _set_permanent(host, device, False)
        if not is_claimed:
            if _goes(identity, limit):
                told.append(f"{_KILLED} was rolled back: {words}")
                return
            # A plain opener shows only by that.
            try:
                with _device.open_number(major, minor, diskseq=diskseq) as device:
                    _set_permanent(host, device, True)
            except (DeviceGone, WrongDevice):
                told.append(f"{_KILLED} was rolled back: {words}")
                return
    except (DeviceGone, WrongDevice):
        return
    told.append(f"{_KILLED} is left as it is, since somebody uses it: {words}. Remove it when nobody does")


def _keep(host: Resources, row: Row, told: list[str]) -> None:
    """Have a device stay that a killed removal has marked to go with its last user, unless it is gone."""
    major, minor, diskseq = row
    try:
        with _device.open_number(major, minor, diskseq=diskseq) as device:
            if not _is_permanent(host, device):
                _set_permanent(host, device, True)
                told.append(f"{_KILLED_REMOVAL}, which stays: {_words(device)}")
    except (DeviceGone, WrongDevice):
        return


def _stays_claimed(device: _device.Device, limit: Deadline) -> bool:
    """Whether somebody uses a held device; what stood on it lets go of it a moment after it is gone from sysfs."""
    for pause in pauses():
        if not _device.is_claimed(device):
            return False
        if limit.expired:
            return True
        limit.sleep(pause)
    return True


def _goes(identity: _device.DeviceId, limit: Deadline) -> bool:
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
    """Whether the run of this list, whose lock nobody has, is gone; of a list of another boot it is, with its devices."""
    plain = _read(name)
    if not plain or plain["boot"] != boot.boot_id() or not _identity.is_of_this_namespace(plain["process"]):
        # Only the lock tells of a process that cannot be seen here.
        return True
    # Its module, which had the lock, is gone, so it is being killed; it may hang in a call into storage, and is not gone before that ends.
    return _identity.end_marked(plain["process"], _DYING_SECONDS)


def _rows(name: str, which: str = "devices") -> list[Row]:
    plain = _read(name)
    return [tuple(row) for row in plain.get(which, [])] if plain and plain["boot"] == boot.boot_id() else []


def _read(name: str) -> dict[str, Any]:
    """
    What the list says; nothing for one that was never complete, or that has just been removed. KernelError
    for what is no list of a run of ours.
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
        raise _no_list(path, "its content is something else")
    return plain


def _is_list(plain: object) -> bool:
    """Whether it is what :func:`_content` returns; of another boot only that counts."""
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
        f"this is no list that a run of the collection wrote: {why}",
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
