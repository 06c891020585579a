# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Keys with the time at which each is due. Pure, not thread-safe.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

Key = TypeVar("Key", int, str)


class Schedule(Generic[Key]):
    """
    At most one time for each key. A change costs O(log n), and almost nothing if it puts a key off: its place
    in the heap is corrected when it comes up.
    """

    def __init__(self) -> None:
        self._when: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []
        # The earliest entry of each key in the heap; its other entries are void.
        self._placed: dict[Key, float] = {}

    def put(self, key: Key, when: float) -> None:
        """Set the time of a key, earlier or later than before."""
        self._when[key] = when
        if key not in self._placed or when < self._placed[key]:
            self._place(key, when)

    def drop(self, key: Key) -> None:
        """Remove a key. It need not be there."""
        self._when.pop(key, None)

    def next(self) -> float | None:
        """The earliest time, or None if there is no key."""
        while self._heap:
            placed, key = self._heap[0]
            if self._placed.get(key) != placed:
                heapq.heappop(self._heap)
                continue
            when = self._when.get(key)
            if when == placed:
                return when
            heapq.heappop(self._heap)
            del self._placed[key]
            if when is not None:
                self._place(key, when)
        return None

    def take(self, now: float) -> list[Key]:
        """Remove the keys that are due at ``now``, and return them, the earliest first."""
        keys: list[Key] = []
        while True:
            first = self.next()
            if first is None or first > now:
                return keys
            dummy, key = heapq.heappop(self._heap)
            del self._placed[key], self._when[key]
            keys.append(key)

    def _place(self, key: Key, when: float) -> None:
        heapq.heappush(self._heap, (when, key))
        self._placed[key] = when
