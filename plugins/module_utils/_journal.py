# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What a task is about to make permanent, so that a killed one's devices stay all, or not at all.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Devices are made to go with their last user, and made to stay one after the other when all of a task's are there. A task that is killed between the
first and the last of these steps leaves some. So it lists them in a file before the first step, and removes the file after the last; the next run
finds the list of a run that is gone. It is known to be gone by its lock (``_lock``), which ends with it, and by its process.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets

from . import _device, _dm, _gone, _lock, _loop, _process, _run_directory
from ._deadline import Deadline, pauses
from ._errors import BlockError, DeviceGone, KernelError, WrongDevice

DIRECTORY = f"{_run_directory.ROOT}/journal"
# For how long devices that go with their last user are waited for; a prober of udev may be that.
_GOING_SECONDS = 5
# For how long a process that was killed is waited for.
_DYING_SECONDS = 1
_MOST_BYTES = 2**26


class Journal:
    """The list of one task: written by the constructor, and valid until :meth:`remove`."""

    def __init__(self, devices):
        """``devices``: what is about to stay, the lowest of a stack first."""
        self._name = f"{os.getpid()}-{secrets.token_hex(8)}"
        # Before the file is there: one without its lock is a dead run's.
        self._locks = _lock.held([_lock_of(self._name)])
        try:
            _write(self._name, _content(devices))
        except BaseException:
            self._locks.close()
            raise

    def remove(self):
        """Everything stays now, or nothing does."""
        try:
            os.unlink(f"{DIRECTORY}/{self._name}")
        except OSError as error:
            raise KernelError.from_oserror(error, "remove the list of what was made", device=f"{DIRECTORY}/{self._name}") from error
        finally:
            self._locks.close()


def recover(host):
    """
    Roll back what runs that were killed made permanent in part; complete lists are kept as they are. What could not be done, as texts.

    To be called with the locks of all that the caller is about to look at: what this run finds afterwards stays.
    """
    if not _names():
        return []
    problems = []
    with _lock.held([_lock.Lock("journals", "what a killed run left")]):
        for name in _names():
            try:
                _recover(host, name)
            except BlockError as error:
                problems.append(f"devices of a run that was killed could not be rolled back, see {DIRECTORY}/{name}: {error}")
    return problems


def doomed(host):
    """The (major, minor, diskseq) of all that :func:`recover` would have gone; a set."""
    found = set()
    for name in _names():
        with _lock.Locks() as own:
            rows = _rows(name) if own.try_take(_lock_of(name)) and _is_left(name) else []
        if rows and not _is_complete(host, rows):
            found.update(rows)
    return found


def _recover(host, name):
    with _lock.Locks() as own:
        if not own.try_take(_lock_of(name)) or not _is_left(name):
            return
        rows = _rows(name)
        if not _is_complete(host, rows):
            limit = Deadline(_GOING_SECONDS)
            for row in reversed(rows):
                _roll_back(host, row, limit)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{DIRECTORY}/{name}")


def _is_complete(host, rows):
    """Whether the run was killed when it had done everything, and only had its list left to remove."""
    return all(_stays(host, *row) for row in rows)


def _stays(host, major, minor, diskseq):
    try:
        with _device.open_number(major, minor, diskseq=diskseq) as device:
            if _loop.is_loop(device):
                return not _loop.info(device).autoclear
            return not host.dm.status(_dm.number_of(device)).deferred_remove
    except (DeviceGone, WrongDevice):
        return False


def _roll_back(host, row, limit):
    """Have one device go with its last user, which is this one unless somebody uses it already; wait for it as long as there is time."""
    major, minor, diskseq = row
    try:
        with _device.open_number(major, minor, diskseq=diskseq) as device:
            identity = device.id
            if not _loop.is_loop(device):
                _dm.set_persist(host.dm, device, False)
            elif not _loop.info(device).autoclear:
                _loop.set_autoclear(device, True)
    except (DeviceGone, WrongDevice):
        return
    for pause in pauses():
        if limit.expired or _is_gone(identity):
            return
        limit.sleep(pause)


def _is_gone(identity):
    base = f"/sys/dev/block/{identity.number}"
    if _device.read_sysfs(f"{base}/diskseq") != str(identity.diskseq):
        return True
    return identity.major == _loop.MAJOR and not _gone.exists(f"{base}/loop", _gone.SYSFS)


def _names():
    try:
        return sorted(os.listdir(DIRECTORY))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise KernelError.from_oserror(error, "look for what killed runs left", device=DIRECTORY) from error


def _is_left(name):
    """Whether the run of this list, whose lock nobody has, is gone; of a list of another boot it is, with its devices."""
    plain = _read(name)
    if not plain or plain["boot"] != _boot() or plain["namespace"] != _namespace():
        # Only the lock tells of a process that has no number here.
        return True
    # Its module, which had the lock, is gone, so it is being killed; it may hang in a call into storage, and is not gone before that ends.
    return _process.start_time(plain["pid"]) != plain["started"] or _process.end(plain["pid"], plain["started"], _DYING_SECONDS)


def _rows(name):
    plain = _read(name)
    return [tuple(row) for row in plain.get("devices", ())] if plain.get("boot") == _boot() else []


def _read(name):
    """What the list says; nothing for one that was never complete, or that has just been removed."""
    if name.startswith("."):
        return {}
    try:
        with open(f"{DIRECTORY}/{name}", "rb") as file:
            return json.loads(file.read(_MOST_BYTES))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise KernelError(f"cannot read it: {error}", device=f"{DIRECTORY}/{name}", errno=getattr(error, "errno", None)) from error


def _content(devices):
    rows = [[device.id.major, device.id.minor, device.id.diskseq] for device in devices]
    return {"boot": _boot(), "namespace": _namespace(), "pid": os.getpid(), "started": _process.start_time("self"), "devices": rows}


def _write(name, plain):
    _run_directory.make(DIRECTORY)
    new = f"{DIRECTORY}/.{name}"
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w", encoding="ascii") as file:
            json.dump(plain, file)
        os.rename(new, f"{DIRECTORY}/{name}")
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise KernelError.from_oserror(error, "list what is to be made", device=new) from error


def _lock_of(name):
    return _lock.Lock(f"journal {name.lstrip('.')}", "what it makes")


def _boot():
    return _device.read_sysfs("/proc/sys/kernel/random/boot_id")


def _namespace():
    return os.readlink("/proc/self/ns/pid")
