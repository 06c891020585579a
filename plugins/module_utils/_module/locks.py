# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The runner's locks: a task holds the locks of all its items from before it looks at anything until its end.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from collections.abc import Iterable

from .._base import locks as _locks
from .._base.deadline import Deadline
from .._base.errors import BlockError, DeviceBusy
from .row import Row

# How often the file or device may be replaced by another one while the task waits for its lock.
_TRIES = 10


def take(rows: list[Row], locks: _locks.Locks, seconds: float = _locks.SECONDS) -> None:
    """
    Take the locks that the rows' items need, in ``locks`` (``_base.locks.Locks``). A row whose locks cannot
    be taken gets the error.

    The items are asked again once the locks are held, because a path may lead to another file by then.
    """
    limit = Deadline(seconds)
    for dummy in range(_TRIES):
        wanted = _wanted(rows)
        if all(locks.has(lock) for found in wanted.values() for lock in found):
            return
        locks.close()
        _take(wanted, locks, limit)
        # What was read before the locks were held may be outdated by now.
        rows[0].item.resources.loops.forget()
    for row in _good(rows):
        row.error = DeviceBusy(
            "what it names was replaced repeatedly while this run waited for it", device=row.item.title()
        )


def settle(rows: list[Row]) -> None:
    """
    Release the locks that no row needs any more after the plans. A row that had nothing to lock, for example
    because a guest did not exist, gets an error if there is something by now: its plan was made without a
    lock.
    """
    for row in rows:
        if row.would_change and not row.locks and any(_wanted([row]).values()):
            row.error = DeviceBusy(
                "it appeared while the task made its plan",
                device=row.item.title(),
                hint="Nothing was done with it. Try again",
            )
    unneeded = {lock.name: lock for row in rows if row.locks for lock in row.item.unneeded_locks()}
    if unneeded:
        for row in rows:
            own = {lock.name for lock in row.item.unneeded_locks()}
            row.locks = [lock for lock in row.locks if lock.name not in own]
        needed = {lock.name for row in rows for lock in row.locks}
        rows[0].item.resources.locks.release(lock for lock in unneeded.values() if lock.name not in needed)


def _wanted(rows: Iterable[Row]) -> dict[Row, list[_locks.Lock]]:
    """``{row: [Lock]}``; if the locks of a row cannot be determined, the row gets the error."""
    wanted = {}
    for row in _good(rows):
        try:
            wanted[row] = row.locks = row.item.locks()
        except BlockError as error:
            row.error = error
    return wanted


def _take(wanted: dict[Row, list[_locks.Lock]], locks: _locks.Locks, limit: Deadline) -> None:
    while True:
        try:
            locks.take([lock for row in _good(wanted) for lock in wanted[row]], limit)
            return
        except _locks.Unavailable as error:
            for row in _good(wanted):
                if error.lock in wanted[row]:
                    row.error = error


def _good(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row.error is None]
