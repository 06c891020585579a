# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The keeper: a small process that removes seals as soon as their devices are gone. It runs as long as anything
is sealed.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

It gets its code through a pipe (``keeping``), so that no file needs to stay for it. It prints READY once it
receives all further events. If it is killed, sealed devices stay sealed, and stale seals stay until the next
run of the collection.
"""

from __future__ import annotations

import os
import sys
import time

from ..._base import locks as _locks
from ..._base.deadline import Deadline
from ..._base.errors import BlockError
from . import attachment, change_event, ending, place, reaping, uevent

LOCK = _locks.Lock("keeper of seals", "the keeper of this host's seals")
READY = b"ready\n"
# Seconds between checks of all seals, in case an event was missed.
PERIOD = 10.0
# A remove event is sent shortly before the device disappears from sysfs. Seconds between the repeated checks.
_LOOKS = (0.001, 0.002, 0.005, 0.01, 0.05, 0.2, 1.0)
# Seconds from a remove event until the reasons of the seals are checked. By then sysfs has changed.
_REASONS_SECONDS = 0.2
_LOCK_SECONDS = 30.0


class Keeper:
    """
    Handle events. ``again`` maps a device number that must be checked again to (time of the check, index in
    _LOOKS).
    """

    def __init__(self) -> None:
        self.again: dict[tuple[int, int], tuple[float, int]] = {}
        # When the reasons of all seals are checked again, because a guest's disk or an upper device has gone.
        self.reasons_at: float | None = None

    def run(self, listener: uevent.Listener, locks: _locks.Locks) -> None:
        """
        Run until nothing is sealed. ``locks`` holds LOCK. LOCK is released before attachment.LOCK, so that
        whoever seals next starts a new keeper.
        """
        while True:
            try:
                if self._look_through(locks):
                    return
                self._listen(listener, time.monotonic() + PERIOD)
            except (BlockError, OSError):
                # Nobody would read a message, and the seals stay in force: retry.
                time.sleep(1)
            except uevent.Lost:
                continue

    def _look_through(self, locks: _locks.Locks) -> bool:
        """Check all seals; return whether nothing is sealed any more."""
        with _locks.held([attachment.LOCK], Deadline(_LOCK_SECONDS)), attachment.existing() as maps:
            if maps is not None:
                ending.reap_all(maps)
                if not reaping.clear_away(maps):
                    return False
            locks.release([LOCK])
            return True

    def _listen(self, listener: uevent.Listener, until: float) -> None:
        while time.monotonic() < until:
            event = listener.next(self._patience(until))
            if event is not None:
                self._see(event)
            self._look_again()
            if not place.in_use():
                # The run that lifts the last seal also triggers an event, which ends the wait above.
                return

    def _patience(self, until: float) -> float:
        """Seconds until the next check, never 0: a timeout of 0 would make the socket non-blocking."""
        soonest = min([when for when, dummy in self.again.values()] + [self.reasons_at or until, until])
        return max(0.0001, soonest - time.monotonic())

    def _see(self, event: uevent.Event) -> None:
        if event.action == "remove":
            self.reasons_at = self.reasons_at or time.monotonic() + _REASONS_SECONDS
        if event.is_backend:
            return
        if event.is_partition and event.action == "add":
            with _locks.held([attachment.LOCK], Deadline(_LOCK_SECONDS)), attachment.existing() as maps:
                if maps is not None:
                    reaping.put_partition(maps, event.number)
        elif not self._look(event.number) and event.action == "remove":
            self.again[event.number] = (time.monotonic() + _LOOKS[0], 0)

    def _look_again(self) -> None:
        now = time.monotonic()
        if self.reasons_at is not None and self.reasons_at <= now:
            self.reasons_at = None
            self._end_reasons()
        for number, (when, look) in list(self.again.items()):
            if when > now:
                continue
            del self.again[number]
            if not self._look(number) and look + 1 < len(_LOOKS):
                self.again[number] = (now + _LOOKS[look + 1], look + 1)

    @staticmethod
    def _end_reasons() -> None:
        with _locks.held([attachment.LOCK], Deadline(_LOCK_SECONDS)), attachment.existing() as maps:
            if maps is not None:
                for number in ending.end_reasons(maps):
                    change_event.send(*number)
                reaping.clear_away(maps)

    def _look(self, number: tuple[int, int]) -> bool:
        """Remove the seal if its device is gone; return whether the number is not sealed now."""
        with attachment.existing() as maps:
            if maps is None or maps.get(*number) is None:
                return True
        with _locks.held([attachment.LOCK], Deadline(_LOCK_SECONDS)), attachment.existing() as maps:
            # The seal may have been replaced since: decide about the one that is there under the lock.
            seal = None if maps is None else maps.get(*number)
            if maps is None or seal is None:
                return True
            is_gone = reaping.reap_one(maps, number, seal)
            reaping.clear_away(maps)
            return is_gone


def main() -> None:
    """
    The keeper's main function. Standard output is the starter's pipe until READY is printed. Errors before
    that are printed there, too.
    """
    try:
        with uevent.Listener() as listener, _locks.Locks() as locks:
            is_keeper = locks.try_take(LOCK)
            _say_ready()
            if is_keeper:
                Keeper().run(listener, locks)
    except BlockError as error:
        sys.stdout.write(f"{error}\n")


def _say_ready() -> None:
    os.write(1, READY)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.close(null)
