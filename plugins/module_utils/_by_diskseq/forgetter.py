# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Have the kernel forget names, so that what is held for them can be given up.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A name that was looked up stays in the kernel's cache although it may be used for no time: only a notice
(FUSE_NOTIFY_INVAL_ENTRY) takes it out. The notice waits for the directory's lock, which whoever looks a name
up has until the answer. So it is sent from a thread of its own; and none is sent while an answer is late, as
look-ups of other names would wait behind it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

# Seconds until the first notice, which does for all look-ups until then, and at most between two.
_FIRST, _MOST = 0.002, 1.0


class Work(NamedTuple):
    """
    What the thread calls: ``forget(name)`` again and again until ``is_known(name)`` is False, but not while
    ``is_late()``; and ``expire()`` in between, which returns when (monotonic clock) it has to be called next,
    or None.
    """

    forget: Callable[[str], None]
    is_known: Callable[[str], bool]
    expire: Callable[[], float | None]
    is_late: Callable[[], bool]


class Forgetter:
    """The thread."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._condition = threading.Condition()
        # name -> when it is due, and the pause that it has waited for then.
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
        """The kernel is being told of the name once more."""
        with self._condition:
            now = time.monotonic()
            when, dummy = self._due.get(name, (now + _MOST, 0))
            if when > now + _FIRST:
                self._due[name] = now + _FIRST, _FIRST
                self._condition.notify()

    def wake(self) -> None:
        """Something may have to be done sooner than was known: the kernel has forgotten a name."""
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
        """The names that are due, with the pauses that they have waited for."""
        if self._work.is_late():
            return []
        now = time.monotonic()
        names = [(name, pause) for name, (when, pause) in self._due.items() if when <= now]
        for name, dummy in names:
            del self._due[name]
        return names

    def _forget(self, name: str, pause: float) -> None:
        # A look-up that comes from here on puts the name back itself.
        if not self._work.is_known(name):
            return
        self._work.forget(name)
        with self._condition:
            self._due.setdefault(name, (time.monotonic() + pause, pause))
