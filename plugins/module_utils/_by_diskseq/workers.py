# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Run jobs in threads, so that a device that does not answer blocks only its own caller.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable

from .._base.errors import DeadlineExceeded

# Seconds to wait in place for a job: an open takes microseconds, less than asynchronous waiting costs.
_AT_ONCE = 0.001


class Job:
    """A job that any number of callers can wait for. ``error`` is the exception that it raised, or None."""

    def __init__(self, what: Callable[[], None]) -> None:
        self._what = what
        self._lock = threading.Lock()
        self._ended = threading.Lock()
        self._ended.acquire()
        self._calls: list[Callable[[], None]] = []
        self.started = time.monotonic()
        self.done = False
        self.error: BaseException | None = None

    def wait(self, seconds: float = _AT_ONCE) -> bool:
        """Wait at most ``seconds``; return whether the job has ended."""
        if not self.done and self._ended.acquire(timeout=seconds):
            self._ended.release()
        return self.done

    def when_done(self, call: Callable[[], None]) -> None:
        """Call ``call`` when the job ends, from the job's thread; at once if it has already ended."""
        with self._lock:
            if not self.done:
                self._calls.append(call)
                return
        call()

    def run(self) -> None:
        try:
            self._what()
        except Exception as error:  # for the callers that wait for the job
            self.error = error
        with self._lock:
            self.done = True
            calls, self._calls = self._calls, []
        self._ended.release()
        for call in calls:
            call()


class Workers:
    """At most ``most`` threads that run jobs. A thread is started if none is idle."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._condition = threading.Condition()
        self._queue: deque[Job] = deque()
        self._jobs: dict[Hashable, Job] = {}
        self._idle = 0
        self._count = 0

    def job(self, key: Hashable, what: Callable[[], None]) -> Job:
        """Return the running job with this key, or start one. DeadlineExceeded if all threads are busy."""
        with self._condition:
            running = self._jobs.get(key)
            if running is not None:
                return running
            if self._idle <= len(self._queue):
                self._start(key)
            job = self._jobs[key] = Job(what)
            job.when_done(lambda: self._remove(key))
            self._queue.append(job)
            self._condition.notify()
            return job

    def _start(self, key: Hashable) -> None:
        if self._count >= self._most:
            raise DeadlineExceeded(
                f"one of {self._most} threads",
                0,
                device=f"diskseq:{key}",
                hint="That many devices do not respond: see dmesg",
            )
        self._count += 1
        threading.Thread(target=self._run, name=f"worker-{self._count}", daemon=True).start()

    def _remove(self, key: Hashable) -> None:
        with self._condition:
            del self._jobs[key]

    def _run(self) -> None:
        while True:
            with self._condition:
                self._idle += 1
                while not self._queue:
                    self._condition.wait()
                self._idle -= 1
                job = self._queue.popleft()
            job.run()
