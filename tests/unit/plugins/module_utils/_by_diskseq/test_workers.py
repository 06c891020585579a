# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Jobs in threads."""

from __future__ import annotations

import threading

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import DeadlineExceeded
from ansible_collections.racefree.block.plugins.module_utils._by_diskseq.workers import Workers


def test_a_hanging_job_does_not_block_others() -> None:
    workers, release = Workers(8), threading.Event()
    stuck = workers.job("stuck", lambda: release.wait(60) and None)
    assert not stuck.wait(0.01)
    for number in range(50):
        assert workers.job(number, lambda: None).wait(60)
    ended = threading.Event()
    stuck.when_done(ended.set)
    assert not stuck.done and not ended.is_set()
    release.set()
    assert stuck.wait(60) and ended.wait(60) and stuck.error is None
    # After the end of the job, it is called at once.
    again = threading.Event()
    stuck.when_done(again.set)
    assert again.is_set()


def test_one_job_per_key_at_a_time() -> None:
    workers, release, done = Workers(8), threading.Event(), []

    def work() -> None:
        release.wait(60)
        done.append(1)

    first = workers.job("x", work)
    assert workers.job("x", work) is first
    release.set()
    assert first.wait(60) and done == [1]
    # After its end, the same key gets a new job.
    for dummy in range(1000):
        second = workers.job("x", work)
        if second is not first:
            break
    assert second is not first and second.wait(60) and done == [1, 1]


def test_an_error_is_kept_for_the_waiting_thread() -> None:
    def fail() -> None:
        raise ValueError("no")

    job = Workers(1).job("x", fail)
    assert job.wait(60) and isinstance(job.error, ValueError)


def test_the_limit_of_threads() -> None:
    workers, release = Workers(2), threading.Event()
    jobs = [workers.job(number, lambda: release.wait(60) and None) for number in range(2)]
    with pytest.raises(DeadlineExceeded, match="2 threads"):
        workers.job("more", lambda: None)
    release.set()
    assert all(job.wait(60) for job in jobs)
    assert workers.job("more", lambda: None).wait(60)
