# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
System calls that spend their time waiting in the kernel, made by several threads at once.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import collections
import threading

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    T = TypeVar("T")

_MOST_THREADS = 64


def each(function: Callable[[T], object], things: Sequence[T]) -> list[Exception | None]:
    """
    Call the function with each of the things, in no certain order. Returns what each call has raised, or
    None. All threads have ended then. If the system allows fewer threads, those do all of it.
    """
    raised: list[Exception | None] = [None] * len(things)
    pending = collections.deque(enumerate(things))

    def work() -> None:
        while True:
            try:
                index, thing = pending.popleft()
            except IndexError:
                return
            try:
                function(thing)
            except Exception as error:  # the caller decides about each
                raised[index] = error

    others: list[threading.Thread] = []
    try:
        for dummy in range(min(_MOST_THREADS, len(things)) - 1):
            other = threading.Thread(target=work)
            try:
                other.start()
            except RuntimeError:
                break
            others.append(other)
        work()
    finally:
        # Also if a signal's handler has raised an error here: nothing is worked on any more after that.
        pending.clear()
        for other in others:
            other.join()
    return raised
