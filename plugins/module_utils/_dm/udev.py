# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
udev cookies: wait until udev has created or removed the nodes of mapped devices.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A cookie is a SysV semaphore. ``dmsetup udevcomplete``, which udev's rules run, decrements it. The protocol is
libdm's (lib/libdm-common.c). One cookie serves a batch of devices, and every wait has a deadline.

A semaphore outlives the process that created it. libdm creates single semaphores; ours are sets, in which the
other semaphores identify the process. So the next run in the same PID namespace can remove those of a killed
run.
"""

from __future__ import annotations

import errno
import os
import random
import time

from .._base import gone
from .._base.deadline import Deadline
from .._base.errors import KernelError
from .._kernel import uapi
from .._process import identity

_PREFIX = 0x0D4D
_SHIFT = 16
# The counter, then the process that created the set, in values of 15 bits: the PID in two parts, the first of
# them plus one; the low bits of its start time; and the inode numbers of its PID and time namespaces in three
# parts each (0 if unknown).
_SEMAPHORES = 10
_BITS = 15
_SEMAPHORES_TABLE = "/proc/sysvipc/sem"
_MASK = (1 << _BITS) - 1
# A set that has no owner after this many seconds will never get one.
_SECONDS_TO_SIGN = 60
DISABLE_DM = 0x01
DISABLE_SUBSYSTEM = 0x02
DISABLE_DISK = 0x04
DISABLE_OTHER = 0x08
LOW_PRIORITY = 0x10
DISABLE_LIBRARY_FALLBACK = 0x20
# Without this flag, udev's rules treat a later coldplug event as spurious and drop the device.
PRIMARY_SOURCE = 0x40
# udev's rules ignore the device: no probing, and only the links of the DM layer itself.
HIDDEN = DISABLE_DM | DISABLE_SUBSYSTEM | DISABLE_DISK | DISABLE_OTHER
# For a guest's disk and the devices below it, which the host must not use: no probing, no links by label, no
# activation of the guest's volume groups.
HANDS_OFF = DISABLE_DISK | DISABLE_OTHER | DISABLE_SUBSYSTEM


def is_running() -> bool:
    """Whether udevd is running. Without it nobody answers, so nothing is waited for."""
    return gone.exists("/run/udev/control")


class Cookie:
    """
    A cookie for a batch of ioctls: ``with Cookie() as cookie: control.resume(...,
    event_nr=cookie.next(flags)) ...; cookie.wait(seconds)``. Leaving the context always removes the
    semaphore. KernelError if none can be created.

    Another program may remove the semaphore (``dmsetup udevcomplete_all``) while a device is suspended. This
    is no error, so that the device is resumed; only :meth:`wait` tells.
    """

    def __init__(self) -> None:
        self._semaphore = -1
        self._number = 0
        self._is_removed = False

    def __enter__(self) -> Cookie:
        if is_running():
            reap()
            self._make()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._semaphore >= 0:
            semaphore, self._semaphore = self._semaphore, -1
            uapi.lib.semctl(semaphore, 0, uapi.lib.IPC_RMID)

    def next(self, flags: int = 0) -> int:
        """The ``event_nr`` for one more ioctl whose udev event is to be waited for."""
        self._change(1)
        return (flags | PRIMARY_SOURCE) << _SHIFT | self._number

    def again(self, event_nr: int) -> int:
        """Like :meth:`next`, with the flags of an earlier ``event_nr`` of any cookie."""
        return self.next(event_nr >> _SHIFT)

    def not_sent(self) -> None:
        """Undo the last :meth:`next`, because the ioctl failed or sent no event."""
        self._change(-1)

    def wait(self, seconds: float) -> bool:
        """
        Wait up to ``seconds`` until udev has processed every event; returns whether it has. False at once if
        somebody has removed the semaphore.
        """
        self._change(-1)
        done = self._operate(0, seconds)
        self._change(1)
        return done

    def _make(self) -> None:
        ffi, lib = uapi.ffi, uapi.lib
        for _try in range(100):
            number = random.randint(1, 0xFFFF)
            semaphore = lib.semget(
                _PREFIX << _SHIFT | number, _SEMAPHORES, 0o600 | lib.IPC_CREAT | lib.IPC_EXCL
            )
            if semaphore >= 0:
                # 1 for this process, so that the counter cannot reach zero before the batch is complete.
                if any(
                    lib.semctl(semaphore, place, lib.SETVAL, ffi.cast("int", value)) < 0
                    for place, value in ((0, 1), *_signature())
                ):
                    problem = ffi.errno
                    lib.semctl(semaphore, 0, lib.IPC_RMID)
                    raise KernelError("cannot set a udev cookie", errno=problem)
                self._semaphore, self._number = semaphore, number
                return
            if ffi.errno != errno.EEXIST:
                raise KernelError(
                    "cannot make a udev cookie",
                    errno=ffi.errno,
                    hint="Old ones may fill the system: see dmsetup udevcookies",
                )
        raise KernelError(
            "cannot find a free number for a udev cookie",
            hint="Old ones may fill the system: see dmsetup udevcookies",
        )

    def _change(self, by: int) -> None:
        self._operate(by, 0)

    def _operate(self, by: int, seconds: float) -> bool:
        """
        One semop. True if it was done, or if udev is not running; False if it timed out, or if the semaphore
        was removed.
        """
        if self._semaphore < 0:
            return not self._is_removed
        ffi, lib = uapi.ffi, uapi.lib
        deadline = Deadline(seconds)
        operation = ffi.new("struct sembuf *", {"sem_num": 0, "sem_op": by, "sem_flg": 0})
        while True:
            left = deadline.left()
            limit = ffi.new("struct timespec *", {"tv_sec": int(left), "tv_nsec": int(left % 1 * 10**9)})
            if lib.semtimedop(self._semaphore, operation, 1, limit) == 0:
                return True
            problem = ffi.errno
            if problem == errno.EAGAIN:
                return False
            if problem in (errno.EINVAL, errno.EIDRM):
                self._semaphore, self._number, self._is_removed = -1, 0, True
                return False
            # A signal interrupts the system call, but does not end the wait.
            if problem != errno.EINTR:
                raise KernelError("cannot change a udev cookie", errno=problem)


def reap() -> None:
    """
    Remove the semaphores of runs of this collection that ended without removing them.

    Those of processes in another PID or time namespace stay, because it cannot be known whether the process
    has ended.
    """
    lib = uapi.lib
    for identifier, changed in _sets():
        values = [lib.semctl(identifier, place, lib.GETVAL) for place in range(1, _SEMAPHORES)]
        # IDs are reused only after all the others, so this is still the set that was examined.
        if min(values) >= 0 and _has_ended(values[0], values[1], values[2], values[3:], changed):
            lib.semctl(identifier, 0, lib.IPC_RMID)


def _has_ended(high: int, low: int, started: int, namespaces: list[int], changed: int) -> bool:
    """
    Whether the process identified by these values has ended. Also True for a set that still has no owner
    after a while.
    """
    if not high:
        return time.time() > changed + _SECONDS_TO_SIGN
    if namespaces != _parts_of_namespaces() or not any(namespaces):
        return False
    now = identity.start_time((high - 1) << _BITS | low)
    return now is None or int(now) & _MASK != started


def _signature() -> tuple[tuple[int, int], ...]:
    """
    ``(semaphore, value)`` pairs by which :func:`reap` identifies the process. The value that is never 0 comes
    last.
    """
    pid = os.getpid()
    parts = [pid & _MASK, int(identity.start_time("self") or 0) & _MASK, *_parts_of_namespaces()]
    return *enumerate(parts, 2), (1, (pid >> _BITS) + 1)


def _parts_of_namespaces() -> list[int]:
    numbers = identity.namespaces() or (0, 0)
    return [number >> shift & _MASK for number in numbers for shift in (2 * _BITS, _BITS, 0)]


def _sets() -> list[tuple[int, int]]:
    """``[(ID, time of the last change)]`` of the cookies of this collection, from any process."""
    found = []
    try:
        with open(_SEMAPHORES_TABLE, encoding="ascii") as table:
            columns = next(table).split()
            for line in table:
                row = dict(zip(columns, (int(word) for word in line.split())))
                if row["key"] >> _SHIFT == _PREFIX and row["nsems"] == _SEMAPHORES:
                    found.append((row["semid"], row["ctime"]))
    except OSError as error:
        # A kernel without System V semaphores has no such table.
        if error.errno not in gone.PATH:
            raise gone.not_seen(error, _SEMAPHORES_TABLE) from error
    return found
