# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Errors: one system call of a module returns an errno instead of being executed, and the module must handle
that. So many rounds as there are pairs of a call and an errno try each of these once, in a random order.
"""

from __future__ import annotations

import errno
import os
import sys

sys.path[:0] = [os.environ.get("RACEFREE_SITE", "/root/site"), "/root/site/tests"]

import errnos
import jobs
import victim

# x86-64 numbers of system calls that cannot fail, or whose failure no program can survive: memory, signals,
# exit.
SPARED = {9, 10, 11, 12, 13, 14, 15, 25, 28, 35, 60, 158, 186, 202, 218, 228, 230, 231, 273, 318, 334}


def attempt(score, world, way, _random):
    """
    One try. It is not counted if the job makes fewer system calls than that, or if the chosen one is one of
    SPARED.
    """
    if way.calls[True] > errnos.MOST_CALLS:
        raise RuntimeError(f"{way.job.title} makes {way.calls[True]} system calls: raise MOST_CALLS")
    pairs = errnos.order(score.seed, way.job.title)
    count, error = pairs[score.round % len(pairs)]
    if count > way.calls[True]:
        return
    met = []

    def decide(pid, number):
        del pid
        met.append(number)
        return 0 if number in SPARED else error

    way.job.prepare()
    run = way.begin()
    code = run.stopped(count, decide)[1]
    how = f"call {count} (number {met[0] if met else '-'}) answered {errno.errorcode[error]}"
    if met and met[0] not in SPARED:
        jobs.conclude(score, world, way, run, code, how, "right" if victim.is_ok(run.answer()) else "refused")
    else:
        way.job.finish()
        world.clean()


def main():
    return jobs.play("errors", __doc__, attempt)


if __name__ == "__main__":
    sys.exit(main())
