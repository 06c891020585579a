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

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Deadline:
    """
    A point in time ``seconds`` from now (``None``: never). Unlike a plain timeout, it is shared by all steps
    of a job.
    """

    __slots__ = ("_end", "seconds")

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    @classmethod
    def of(cls, value: Deadline | float | None) -> Deadline:
        """Return a Deadline unchanged, and make a new one from a number of seconds or None."""
        return value if isinstance(value, Deadline) else cls(value)

    def left(self) -> float:
        """The remaining seconds, never negative; infinity if there is no limit."""
        return float("inf") if self._end is None else max(0.0, self._end - time.monotonic())

    @property
    def expired(self) -> bool:
        return self.left() <= 0

    def sooner(self, seconds: float | None) -> Deadline:
        """Whichever ends sooner: this Deadline, or a new one ``seconds`` from now."""
        return self if seconds is None or self.left() <= seconds else Deadline(seconds)

    def sleep(self, seconds: float) -> None:
        """Sleep for ``seconds``, but not past the deadline."""
        time.sleep(min(seconds, self.left()))

    def exceeded(self, waited_for: str, device: object = None, hint: str | None = None) -> DeadlineExceeded:
        """The error to raise. ``waited_for`` completes "timed out after 5 s waiting for ..."."""
        return DeadlineExceeded(waited_for, self.seconds or 0, device=device, hint=hint)


def pauses(first: float = 0.002, most: float = 0.05, jitter: float = 0.0) -> Iterator[float]:
    """
    An endless iterator of pauses in seconds, doubling from ``first`` up to ``most``. ``jitter`` is the random
    fraction of each pause, 0 to 1.
    """
    pause = first
    while True:
        yield pause * (1 - jitter * random()) if jitter else pause
        pause = min(most, pause * 2)


def random() -> float:
    """
    A random number from 0 to 1, used to spread retries. Not taken from the module random, which is slow to
    import and rarely needed.
    """
    return int.from_bytes(os.urandom(4), "little") / 2**32
