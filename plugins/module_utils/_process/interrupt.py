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
    Interrupt a system call in the block after ``seconds``, and raise DeadlineExceeded. Works only in the main
    thread, and for system calls that signals interrupt.

    The system call may have succeeded just before the signal. So after the error, the caller must check
    whether it took effect.
    """

    def on_alarm(signum: int, frame: object) -> None:
        raise _AlarmFired

    before = signal.signal(signal.SIGALRM, on_alarm)
    try:
        try:
            # The timer repeats: the first signal may come just before the system call begins, and then
            # interrupts nothing.
            signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001), 1)
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except _AlarmFired:
        raise Deadline(seconds).exceeded(waited_for, device=device, hint=hint) from None
    finally:
        # The signal may have come just before the inner setitimer, which was then skipped.
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class _AlarmFired(Exception):
    pass
