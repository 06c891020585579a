# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Time limits on the monotonic clock.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import os
import time

from .errors import DeadlineExceeded


class Deadline:
    """A point in time ``seconds`` from now (``None``: never); unlike a plain timeout it is shared by all steps of one job."""

    __slots__ = ("_end", "seconds")

    def __init__(self, seconds):
        self.seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    @classmethod
    def of(cls, value):
        """A Deadline as it is; a number of seconds, or None, as a new one."""
        return value if isinstance(value, cls) else cls(value)

    def left(self):
        """Seconds that are left, never negative; infinity when there is no limit."""
        return float("inf") if self._end is None else max(0.0, self._end - time.monotonic())

    @property
    def expired(self):
        return self.left() <= 0

    def sooner(self, seconds):
        """The sooner of this one and ``seconds`` from now, as a Deadline."""
        return self if seconds is None or self.left() <= seconds else Deadline(seconds)

    def sleep(self, seconds):
        """Sleep for ``seconds``, but not past the deadline."""
        time.sleep(min(seconds, self.left()))

    def exceeded(self, waited_for, device=None, hint=None):
        """The error to raise; ``waited_for`` completes "waited 5 s for ..."."""
        return DeadlineExceeded(waited_for, self.seconds or 0, device=device, hint=hint)


def pauses(first=0.002, most=0.05, jitter=0.0):
    """Endless pauses in seconds that double from ``first`` to ``most``; ``jitter`` is the part of each that is random, 0 to 1."""
    pause = first
    while True:
        yield pause * (1 - jitter * random()) if jitter else pause
        pause = min(most, pause * 2)


def random():
    """From 0 to 1. Spreads retries and is no secret; the module random takes long to import, for what is hardly ever needed."""
    return int.from_bytes(os.urandom(4), "little") / 2**32
