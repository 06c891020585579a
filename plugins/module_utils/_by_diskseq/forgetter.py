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
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

# Seconds until the first notification, which covers all lookups until then, and the longest pause between
# two.
_FIRST, _MOST = 0.002, 1.0


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
    """The thread that sends the notifications."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._condition = threading.Condition()
        # name -> (when it is due, the pause before that).
        self._due: dict[str, tuple[float, float]] = {}
        self._woken = False
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="forgetter", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._condition:
            self._ended = True
            self._condition.notify()

    def looked_up(self, name: str) -> None:
        """Schedule the name: the kernel is being told of it once more."""
        with self._condition:
            now = time.monotonic()
            when, dummy = self._due.get(name, (now + _MOST, 0))
            if when > now + _FIRST:
                self._due[name] = now + _FIRST, _FIRST
                self._condition.notify()

    def wake(self) -> None:
        """Run expire() now: the kernel has forgotten a name, so something may be due earlier than planned."""
        with self._condition:
            self._woken = True
            self._condition.notify()

    def _run(self) -> None:
        wanted: float | None = None
        while True:
            with self._condition:
                if not self._ended and not self._woken:
                    self._condition.wait(self._left(wanted))
                if self._ended:
                    return
                self._woken = False
                names = self._take()
            for name, pause in names:
                self._forget(name, min(_MOST, pause * 2))
            wanted = self._work.expire()

    def _left(self, wanted: float | None) -> float | None:
        """Seconds until something is due, or None."""
        ends = [when for when, dummy in self._due.values()]
        if wanted is not None:
            ends.append(wanted)
        if not ends:
            return None
        return max(min(ends) - time.monotonic(), 5 * _FIRST if self._work.is_late() else 0)

    def _take(self) -> list[tuple[str, float]]:
        """Remove and return the names that are due, each with the pause before that."""
        if self._work.is_late():
            return []
        now = time.monotonic()
        names = [(name, pause) for name, (when, pause) in self._due.items() if when <= now]
        for name, dummy in names:
            del self._due[name]
        return names

    def _forget(self, name: str, pause: float) -> None:
        # A lookup from here on schedules the name itself.
        if not self._work.is_known(name):
            return
        self._work.forget(name)
        with self._condition:
            self._due.setdefault(name, (time.monotonic() + pause, pause))
