# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Swaps: while a module, or an existing tool, is stopped before one of its system calls, an adversary replaces
the device that it works on.

Every window is hit on a single processor too: the call is drawn from all system calls of the victim,
including the first and last ones of the run.
"""

from __future__ import annotations

import os
import sys

sys.path[:0] = [os.environ.get("RACEFREE_SITE", "/root/site"), "/root/site/tests"]

import swapcases
import victim
from place import Place
from score import Score, finish, now, options, rounds
from uevents import Udev
from world import World, settled

ENDLESS = 10**9
NUMBER = 243
# Existing tools are tried only in one of so many rounds: they are wrong nearly each time.
OTHERS_EVERY = 10


def attempt(case, which, count):
    """
    One try; returns (whether the victim met the adversary, the outcome, problems, number of system calls).
    """
    run, case.is_done = case.begin(), False
    if which is not None:
        run = run.cold(which)
    met, code, calls = run.stopped(count, lambda pid, number: case.meet())
    is_ok = victim.is_ok(run.answer()) if case.ours else code == 0
    problems = case.judge(is_ok)
    if code == -14:
        problems.append(("left", "the run hung"))
    return met, "right" if is_ok else "refused", problems, calls


class Family:
    """The cases of the family, and how they are tried."""

    def __init__(self, world, place, chosen):
        self.world, self.place = world, place
        self.score = Score("swaps", chosen.seed)
        self.cases = [case for case in swapcases.cases(world, place) if chosen.only in case.title]
        self.calls = {}

    def round(self, is_cold, random):
        for case in self.cases:
            if not case.ours and (is_cold or self.score.round % OTHERS_EVERY):
                continue
            now(f"swaps: {case.title}, seed {self.score.seed}, round {self.score.round}")
            victim.seed(random.random())
            which = random.randrange(2) if is_cold else None
            if case not in self.calls:
                self.calls[case] = attempt(case, None, ENDLESS)[3]
                self.between()
            # A cold start makes about as many system calls.
            self.one(case, which, random.randint(1, self.calls[case]))
            self.between()

    def one(self, case, which, count):
        met, outcome, problems, _calls = attempt(case, which, count)
        if not self.world.is_intact():
            problems.append(("wrong", "the bystander was touched"))
        if met:
            how = f"exchanged before call {count}" + ("" if which is None else f" of a cold run's {which}")
            self.score.note(("" if case.ours else "today: ") + case.title, outcome, problems, how)

    def between(self):
        swapcases.undo(self.place)
        if self.world.left() and not settled(lambda: swapcases.undo(self.place) or not self.world.left(), 3):
            self.world.clean()


def main():
    chosen = options(__doc__)
    victim.load_all()
    with World() as world, Place(NUMBER) as place, Udev() as udev:
        family = Family(world, place, chosen)
        for is_cold, random in rounds(family.score, chosen, udev):
            family.round(is_cold, random)
    return finish(family.score, chosen.report)


if __name__ == "__main__":
    sys.exit(main())
