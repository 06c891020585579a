# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Swaps: while a module, or a tool of today, stands before one of its system calls, an adversary exchanges what
it works on.

Every window is met on one processor too: the call is drawn from all that the victim makes, the first ones of
the run as well as the last.
"""

from __future__ import annotations

import os
import random
import sys
import time

sys.path[:0] = [os.environ.get("RACEFREE_SITE", "/root/site"), "/root/site/tests"]

import ptrace
import swapcases
import victim
from rebind import Place
from score import Score, finish, now, options
from world import World, settled

ENDLESS = 10**9
NUMBER = 243


def attempt(case, count):
    """(whether the victim met the adversary, the outcome, problems, how many calls it made) of one try."""
    run, case.is_done = case.begin(), False
    met, code, calls = ptrace.run_stopped(run.body, 0, count, lambda pid, number: case.meet())
    answer = run.answer() if case.ours else None
    is_ok = victim.is_ok(answer) if case.ours else code == 0
    problems = case.judge(is_ok)
    if code == -14:
        problems.append(("left", "the run hung"))
    return met, "right" if is_ok else "refused", problems, calls


def main():
    chosen = options(__doc__)
    score, random_ = Score("swaps", chosen.seed), random.Random(chosen.seed)
    victim.load_all()
    with World() as world, Place(NUMBER) as place:
        cases = [case for case in swapcases.cases(place) if chosen.only in case.title]
        random_.shuffle(cases)
        calls = {}
        for _round in range(chosen.tries):
            for case in cases:
                if time.monotonic() > score.started + chosen.seconds:
                    break
                if case not in calls:
                    calls[case] = attempt(case, ENDLESS)[3]
                    _between(world, place)
                _one(score, world, case, random_.randint(1, calls[case]))
                _between(world, place)
    return finish(score, chosen.report)


def _one(score, world, case, count):
    now(f"swaps: {case.title}: exchanged before call {count}")
    met, outcome, problems, _calls = attempt(case, count)
    if not world.is_intact():
        problems.append(("wrong", "the bystander was touched"))
    if met:
        score.note(
            ("" if case.ours else "today: ") + case.title, outcome, problems, f"exchanged before call {count}"
        )


def _between(world, place):
    swapcases.undo(place)
    if not settled(lambda: not world.left(), 3):
        world.clean()


if __name__ == "__main__":
    sys.exit(main())
