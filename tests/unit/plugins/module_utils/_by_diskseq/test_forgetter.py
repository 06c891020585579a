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
    thread = Forgetter(Work(kernel.forget, kernel.is_known, kernel.expire, lambda: kernel.late))
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
    expired = kernel.expired
    # expire() is still called.
    kernel.wait_for(lambda: kernel.expired > expired + 3)
    assert kernel.told == []
    kernel.late = False
    forgetter.wake()
    kernel.wait_for(lambda: kernel.told == ["a"])


def test_it_runs_again_when_something_expires(forgetter: Forgetter, kernel: Kernel) -> None:
    forgetter.wake()
    kernel.wait_for(lambda: kernel.expired >= 5)
    forgetter.wake()
    kernel.wait_for(lambda: kernel.expired >= 6)
