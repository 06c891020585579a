# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Time limits for system calls that have none of their own.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import contextlib
import signal

from .._base.deadline import Deadline

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def interrupting(
    seconds: float, waited_for: str, device: object | None = None, hint: str | None = None
) -> Iterator[None]:
    """
    Break a system call of the block that a signal can break, and raise DeadlineExceeded, after ``seconds``. For the main thread.

    The call may have ended well a moment before: what it did is to be asked for, not concluded from the error.
    """

    def ring(signum: int, frame: object) -> None:
        raise _Rang

    before = signal.signal(signal.SIGALRM, ring)
    try:
        try:
            # Again and again: the first one may come just before the call begins, and breaks nothing then.
            signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001), 1)
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except _Rang:
        raise Deadline(seconds).exceeded(waited_for, device=device, hint=hint) from None
    finally:
        # It may have rung just before the inner one, which was left undone then.
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class _Rang(Exception):
    pass
