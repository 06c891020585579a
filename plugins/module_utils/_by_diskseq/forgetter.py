# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Make the kernel forget names, so that the devices held for them can be closed.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A name stays in the kernel's dentry cache after its last use, until a notification (FUSE_NOTIFY_INVAL_ENTRY)
removes it. The notification takes the directory's lock, which a lookup holds until it is answered. So a
separate thread sends notifications. It sends none while an answer is late, because lookups of other names
would wait behind it.

A notification also removes a name that is in use, and swapon(2) refuses a path whose name was removed since
it was looked up (mm/swapfile.c: d_unlinked). So a name is left alone until it was not looked up for a while.
This time becomes longer if the machine stands still, because the others had no time either.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from .schedule import Schedule

# Seconds without a lookup of a name before it is forgotten, and the longest pause between two notifications.
QUIET, _MOST = 0.1, 1.0
# The quiet time is counted in steps. A step that takes longer counts as one. Seconds.
_STEP = 0.01
# How often it looks whether an answer is still late.
_LATE = 0.01


class Work(NamedTuple):
    """
    The functions that the thread calls. ``forget(name)`` is repeated until ``is_known(name)`` is False, but
    not while ``is_late()``. ``expire()`` is called in between and returns when (monotonic clock) it must be
    called next, or None.
    """

    forget: Callable[[str], None]
    is_known: Callable[[str], bool]
    expire: Callable[[], float | None]
    is_late: Callable[[], bool]


class Forgetter:
    """The thread that sends the notifications. ``quiet`` as QUIET, in seconds."""

    def __init__(self, work: Work, quiet: float = QUIET) -> None:
        self._work = work
        self._quiet = quiet
        self._condition = threading.Condition()
        # By the clock of _passed().
        self._due: Schedule[str] = Schedule()
        self._clock, self._read, self._step = 0.0, time.monotonic(), _STEP
        # The pause before the notification of each name that is due.
        self._pauses: dict[str, float] = {}
        # When something expires, and until when the thread sleeps; monotonic clock.
        self._expiry: float | None = None
        self._sleeps: float | None = 0.0
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="forgetter", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._condition:
            self._ended = True
            self._condition.notify()

    def looked_up(self, name: str) -> None:
        """Have the name forgotten after a quiet time: the kernel is being told of it once more."""
        self._plan(name, self._quiet, self._quiet)

    def hurry(self, name: str) -> None:
        """Have the name forgotten now: the disk is to be removed."""
        self._plan(name, 0.0, self._quiet)

    def expires(self, when: float) -> None:
        """Call ``expire`` at this time (monotonic clock) at the latest."""
        with self._condition:
            if self._expiry is None or when < self._expiry:
                self._expiry = when
                self._wake(when)

    def _plan(self, name: str, wait: float, pause: float) -> None:
        with self._condition:
            self._due.put(name, self._passed() + wait)
            self._pauses[name] = pause
            self._wake(time.monotonic() + wait)

    def _passed(self) -> float:
        """The time of a clock that goes on by at most one step at once."""
        now = time.monotonic()
        self._clock += min(now - self._read, self._step)
        self._read = now
        return self._clock

    def _wake(self, when: float) -> None:
        if self._sleeps is None or when < self._sleeps:
            self._condition.notify()

    def _run(self) -> None:
        while True:
            with self._condition:
                names = self._next()
                if self._ended:
                    return
                self._expiry = None
                pauses = [self._pauses.pop(name) for name in names]
            for name, pause in zip(names, pauses):
                self._forget(name, min(_MOST, pause * 2))
            expiry = self._work.expire()
            if expiry is not None:
                self.expires(expiry)

    def _next(self) -> list[str]:
        """
        Wait until names are due, and return them, or until something expires. The caller holds the lock.
        """
        while not self._ended:
            is_late = self._work.is_late()
            names = [] if is_late else self._due.take(self._passed())
            left = None if self._expiry is None else self._expiry - time.monotonic()
            if names or (left is not None and left <= 0):
                self._sleeps = 0.0
                return names
            waits = [wait for wait in (left, self._left(is_late)) if wait is not None]
            self._sleeps = time.monotonic() + min(waits) if waits else None
            self._condition.wait(min(waits, default=None))
        return []

    def _left(self, is_late: bool) -> float | None:
        """Seconds to wait for the next name, at most one step of its quiet time. None without names."""
        due = self._due.next()
        if due is None:
            self._step = _STEP
            return None
        left = due - self._clock
        wait = left if left > self._quiet else min(left, _STEP)
        self._step = max(wait, _STEP)
        return max(wait, _LATE if is_late else 0.0)

    def _forget(self, name: str, pause: float) -> None:
        # A lookup from here on schedules the name itself.
        if not self._work.is_known(name):
            return
        self._work.forget(name)
        with self._condition:
            if name not in self._pauses:
                self._due.put(name, self._passed() + pause)
                self._pauses[name] = pause
