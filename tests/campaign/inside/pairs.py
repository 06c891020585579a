# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Pairs: while one run of a module is stopped before one of its system calls, a second run of the same task runs
as far as it can.

The second run may have to wait for something that the first one holds, so after a moment the first one
continues in parallel. The result must be as if one had run after the other: both succeed, and the device
exists once.
"""

from __future__ import annotations

import os
import sys
import time

sys.path[:0] = [os.environ.get("RACEFREE_SITE", "/root/site"), "/root/site/tests"]

import jobs
import victim

# Seconds that the second run gets alone: many times its usual duration.
MOMENT, COLD_MOMENT = 0.25, 2


class Second:
    """The second run, in parallel with the first."""

    def __init__(self, way):
        self.run = way.begin(1)
        self.moment = MOMENT if way.which is None else COLD_MOMENT
        self.child = None

    def start(self, pid, number):
        """Called while the first run is stopped. Returns when the second run has ended, or after a moment."""
        del pid, number
        self.child = self.run.begin(False)
        end = time.monotonic() + self.moment
        while time.monotonic() < end:
            if os.waitid(os.P_PID, self.child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return 0
            time.sleep(0.002)
        return 0

    def end(self):
        """Wait for the end of the second run; returns its answer."""
        if self.child is None:
            return self.run.plainly()
        try:
            os.waitpid(self.child, 0)
        except ChildProcessError:
            pass
        return self.run.answer()


def attempt(score, world, way, random):
    """One try."""
    count = random.randint(1, way.calls[True])
    way.job.prepare()
    first, second = way.begin(), Second(way)
    first.stopped(count, second.start)
    answers = first.answer(), second.end()
    problems = [
        ("left", f"one of two runs fails: {victim.words(answer)}")
        for answer in answers
        if not victim.is_ok(answer)
    ]
    problems = jobs.aftermath(world, way.job, answers[0], problems)
    if problems:
        world.clean()
    how = f"the second began before call {count} of the first{way.words()}"
    score.note(way.job.title, "right", problems, how)


def main():
    return jobs.play("pairs", __doc__, attempt)


if __name__ == "__main__":
    sys.exit(main())
