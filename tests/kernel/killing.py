# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Run functions in separate processes that start in a millisecond (tests/campaign/inside/engine.c), and kill
them after one of their system calls.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from typing import Any, Callable

import ptrace
from zygote import Zygote

# A run is killed by SIGALRM after so many seconds.
_SECONDS = 100


class Runs:
    """
    Runs of the ``functions``, which get and return plain data; a context manager. What they need must be
    imported before.
    """

    def __init__(self, *functions: Callable[..., Any]) -> None:
        self._functions = {function.__name__: function for function in functions}
        self._zygote = Zygote(self._play, _SECONDS)

    def __enter__(self) -> Runs:
        return self

    def __exit__(self, *exc: object) -> None:
        self._zygote.close()

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run it to its end; returns what it returned."""
        status = os.waitpid(self.start(function, *arguments), 0)[1]
        assert status == 0, f"{function.__name__} ended with {os.waitstatus_to_exitcode(status)}"
        return self.answer()

    def start(self, function: Callable[..., Any], *arguments: Any, traced: bool = False) -> int:
        """Start a run; returns its process ID. If traced, it has stopped itself before anything else."""
        pid = self._zygote.start([function.__name__, random.random(), arguments], traced)
        if traced:
            os.waitpid(pid, os.WUNTRACED)
        return pid

    def answer(self) -> Any:
        """What the last run returned; None if it did not."""
        return self._zygote.answer()

    def killed(self, count: int, every: bool, function: Callable[..., Any], *arguments: Any) -> bool:
        """
        Run it, and kill it after call number ``count`` of those that change something, or of ``every`` system
        call; 0: before the first. Returns False if it made fewer, and ended well.
        """
        return was_killed(self.start(function, *arguments, traced=True), count, every)

    def _play(self, order: Any) -> Any:
        name, seed, arguments = order
        random.seed(seed)
        return self._functions[name](*arguments)


def was_killed(pid: int, count: int, every: bool) -> bool:
    """The same for a run that was started as traced."""
    done, code = ptrace.killed(pid, 0, count, every)
    assert code == (-9 if done else 0), f"a run ended with {code}"
    return done


def until(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    """Wait until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.005)


def now(text: str) -> None:
    """Record what is about to be tried, in case the kernel crashes or does not come back."""
    if "RACEFREE_NOW" in os.environ:
        with open(os.environ["RACEFREE_NOW"], "w", encoding="utf-8") as file:
            file.write(text)


def options(text: str | None) -> argparse.Namespace:
    """The command line of a program that kills."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", action="store_true", help="also calls that change nothing")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="begin with call N")
    parser.add_argument("--stride", type=int, default=1, metavar="N", help="kill after each Nth call only")
    return parser.parse_args()
