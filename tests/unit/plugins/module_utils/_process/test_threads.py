# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Calls that several threads make at once."""

from __future__ import annotations

import threading

import pytest
from ansible_collections.racefree.block.plugins.module_utils._process import threads


def test_calls_are_made_at_once():
    """Each waits until all others have begun."""
    barrier, before = threading.Barrier(8, timeout=30), threading.active_count()
    assert threads.each(lambda thing: barrier.wait(), range(8)) == [None] * 8
    assert threading.active_count() == before


def test_each_call_has_its_own_error():
    def call(thing):
        if thing % 3 == 0:
            raise ValueError(thing)

    raised = threads.each(call, range(200))
    assert [str(error) for error in raised] == [
        str(thing) if thing % 3 == 0 else "None" for thing in range(200)
    ]


@pytest.mark.parametrize("allowed", [0, 3])
def test_fewer_threads_do_all_of_it(monkeypatch, allowed):
    real, started, done = threading.Thread.start, [], []

    def start(thread):
        if len(started) == allowed:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    assert threads.each(done.append, range(100)) == [None] * 100
    assert sorted(done) == list(range(100)) and len(started) == allowed


def test_nothing_is_called_without_things():
    assert threads.each(lambda thing: 1 / 0, []) == []


def test_an_interrupted_caller_waits_for_the_calls_that_have_begun():
    """An error that a signal's handler raises in the calling thread ends the others, too."""
    begun, done, before = threading.Barrier(2, timeout=30), [], threading.active_count()

    class Interrupted(BaseException):
        pass

    def call(thing):
        if threading.current_thread() is threading.main_thread():
            begun.wait()
            raise Interrupted
        begun.wait()
        done.append(thing)

    with pytest.raises(Interrupted):
        threads.each(call, range(2))
    assert len(done) == 1 and threading.active_count() == before
