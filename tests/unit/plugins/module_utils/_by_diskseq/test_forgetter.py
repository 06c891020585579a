# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The thread that makes the kernel forget names.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from ansible_collections.racefree.block.plugins.module_utils._by_diskseq.forgetter import Forgetter, Work

QUIET = 0.01


class Kernel:
    """A simulated kernel: the notifications it got, and how many each name needs."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}
        self.told: list[str] = []
        self.expired = 0
        self.late = False
        self.condition = threading.Condition()

    def forget(self, name: str) -> None:
        with self.condition:
            self.told.append(name)
            self.known[name] -= 1
            self.condition.notify_all()

    def is_known(self, name: str) -> bool:
        return self.known.get(name, 0) > 0

    def expire(self) -> float | None:
        with self.condition:
            self.expired += 1
            self.condition.notify_all()
        return time.monotonic() + 0.01 if self.expired < 5 else None

    def wait_for(self, what) -> None:
        with self.condition:
            assert self.condition.wait_for(what, 60)


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def forgetter(kernel: Kernel) -> Iterator[Forgetter]:
    thread = Forgetter(Work(kernel.forget, kernel.is_known, kernel.expire, lambda: kernel.late), QUIET)
    thread.start()
    yield thread
    thread.stop()


def test_the_kernel_is_told_repeatedly_until_it_forgets(forgetter: Forgetter, kernel: Kernel) -> None:
    kernel.known = {"a": 5, "b": 1}
    for name in ("a", "b", "c"):
        forgetter.looked_up(name)
    kernel.wait_for(lambda: not any(map(kernel.is_known, "ab")))
    assert sorted(kernel.told) == ["a"] * 5 + ["b"]


def test_a_concurrent_lookup_is_not_lost(forgetter: Forgetter, kernel: Kernel) -> None:
    for round_ in range(1, 20):
        kernel.known["a"] = 1
        forgetter.looked_up("a")
        kernel.wait_for(lambda: not kernel.is_known("a"))
        assert len(kernel.told) == round_


def test_nothing_is_sent_while_an_answer_is_overdue(forgetter: Forgetter, kernel: Kernel) -> None:
    kernel.late, kernel.known = True, {"a": 1}
    forgetter.looked_up("a")
    # expire() is still called.
    forgetter.expires(time.monotonic())
    kernel.wait_for(lambda: kernel.expired > 3)
    assert kernel.told == []
    kernel.late = False
    kernel.wait_for(lambda: kernel.told == ["a"])


def test_it_runs_again_when_something_expires(forgetter: Forgetter, kernel: Kernel) -> None:
    forgetter.expires(time.monotonic() + 0.01)
    kernel.wait_for(lambda: kernel.expired >= 5)
    forgetter.expires(time.monotonic())
    kernel.wait_for(lambda: kernel.expired >= 6)


def test_an_earlier_time_interrupts_a_sleep(forgetter: Forgetter, kernel: Kernel) -> None:
    kernel.expired = 5
    forgetter.expires(time.monotonic() + 3600)
    forgetter.expires(time.monotonic())
    kernel.wait_for(lambda: kernel.expired >= 6)


def test_a_name_is_left_alone_as_long_as_it_is_looked_up(kernel: Kernel) -> None:
    """For swapon(2), which refuses a name that was removed since it was looked up."""
    forgetter = Forgetter(Work(kernel.forget, kernel.is_known, kernel.expire, lambda: False), 3600)
    forgetter.start()
    try:
        kernel.known = {"a": 1, "b": 1}
        forgetter.looked_up("a")
        forgetter.looked_up("b")
        # Another name, whose disk is removed, does not wait.
        forgetter.hurry("b")
        kernel.wait_for(lambda: kernel.told == ["b"])
        forgetter.hurry("a")
        kernel.wait_for(lambda: kernel.told == ["b", "a"])
    finally:
        forgetter.stop()


def test_each_lookup_puts_it_off(kernel: Kernel) -> None:
    forgetter = Forgetter(Work(kernel.forget, kernel.is_known, kernel.expire, lambda: False), 0.5)
    kernel.known = {"a": 1}
    forgetter.looked_up("a")
    time.sleep(0.3)
    last = time.monotonic()
    forgetter.looked_up("a")
    forgetter.start()
    try:
        kernel.wait_for(lambda: kernel.told == ["a"])
        assert time.monotonic() >= last + 0.5
    finally:
        forgetter.stop()


def test_the_quiet_time_does_not_pass_while_the_machine_stands_still(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.known = {"a": 1}
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    forgetter = Forgetter(Work(kernel.forget, kernel.is_known, kernel.expire, lambda: False), 0.02)
    forgetter.looked_up("a")
    for dummy in range(2):
        assert forgetter._due.take(forgetter._passed()) == []
        now += 100
    assert forgetter._due.take(forgetter._passed()) == ["a"]
