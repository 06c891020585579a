# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Pairs: while one run of a module stands before one of its system calls, a second run for the same thing runs
as far as it can.

What one run waits for the other has, so the second may have to wait: after a moment the first goes on beside
it. They have to end as if one had come after the other: both well, and the thing there once.
"""

from __future__ import annotations

import os
import sys
import time

sys.path[:0] = [os.environ.get("RACEFREE_SITE", "/root/site"), "/root/site/tests"]

import jobs
import ptrace
import victim

# Seconds that the second run gets alone.
MOMENT = 1.5


class Second:
    """The other run, beside the first."""

    def __init__(self, job):
        self.run = victim.Run(*job.asked)
        self.child = None

    def start(self, pid, number):
        """Called while the first stands; returns when this one has ended, or after a moment."""
        del pid, number
        self.child = os.fork()
        if not self.child:
            code = 1
            try:
                code = self.run.body()
            finally:
                os._exit(code)
        end = time.monotonic() + MOMENT
        while time.monotonic() < end:
            if os.waitid(os.P_PID, self.child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return 0
            time.sleep(0.01)
        return 0

    def end(self):
        """Its answer, when it has ended."""
        if self.child is None:
            return self.run.plainly()
        try:
            os.waitpid(self.child, 0)
        except ChildProcessError:
            pass
        return self.run.answer()


def attempt(score, world, job, calls, random):
    """One try."""
    count = random.randint(1, calls[0])
    job.prepare()
    first, second = victim.Run(*job.asked), Second(job)
    ptrace.run_stopped(first.body, 0, count, second.start)
    answers = first.answer(), second.end()
    problems = [
        ("left", f"one of two runs fails: {victim.words(answer)}")
        for answer in answers
        if not victim.is_ok(answer)
    ]
    problems = jobs.aftermath(world, job, answers[0], problems)
    if problems:
        world.clean()
    score.note(job.title, "right", problems, f"the second began before call {count} of the first")


def main():
    return jobs.play("pairs", __doc__, attempt)


if __name__ == "__main__":
    sys.exit(main())
