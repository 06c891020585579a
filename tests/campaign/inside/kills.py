# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Kills: SIGKILL after each system call of a module that changes something, in turn, and after a random sample
of all its system calls.
"""

from __future__ import annotations

import os
import sys

sys.path[:0] = [os.environ.get("RACEFREE_SITE", "/root/site"), "/root/site/tests"]

import jobs


def attempt(score, world, way, random):
    """
    One try. Three of four kill after a system call that changes something: all of these in turn, starting at
    a position that depends on the seed.
    """
    job = way.job
    turn = score.round
    every = turn % 4 == 3
    if every:
        count = random.randint(0, way.calls[True])
    else:
        count = (turn - turn // 4 + score.seed * 7919) % (way.calls[False] + 1)
    job.prepare()
    run = way.begin()
    killed, code = run.killed(count, every)
    outcome = "refused" if killed and run.answer() is None else "right"
    which = "all" if every else "those that change something"
    jobs.conclude(score, world, way, run, code, f"killed after call {count} of {which}", outcome)


def main():
    return jobs.play("kills", __doc__, attempt)


if __name__ == "__main__":
    sys.exit(main())
