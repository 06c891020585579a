# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Count tries: rows of tries, right, refused, wrong, left, lies, with a few examples of each problem.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time

COUNTS = ("tries", "right", "refused", "wrong", "left", "lies")
BAD = ("wrong", "left", "lies")
_EXAMPLES = 5
# Which rounds of a family start cold (victim.py).
COLD_EVERY, COLD_FIRST = 40, 5


class Score:
    """``{row: counts}``, and the first examples for each kind of problem in a row."""

    def __init__(self, family, seed):
        self.family = family
        self.seed = seed
        self.rows = {}
        self.examples = {}
        self.started = time.monotonic()
        # The current round, and the number of completed rounds.
        self.round = self.rounds = 0

    def note(self, row, outcome, problems=(), example=""):
        """
        Record one try. ``outcome``: "right" or "refused". ``problems``: a list of (one of BAD, description);
        a try with problems counts only as the worst of them. ``example``: how to describe the try.
        """
        counts = self.rows.setdefault(row, dict.fromkeys(COUNTS, 0))
        counts["tries"] += 1
        worst = min((BAD.index(kind) for kind, _seen in problems), default=None)
        if worst is None:
            counts[outcome] += 1
            return
        counts[BAD[worst]] += 1
        examples = self.examples.setdefault(f"{row}: {BAD[worst]}", [])
        if len(examples) < _EXAMPLES:
            seen = f"--seed {self.seed} --first {self.round} --tries 1: {example}: "
            examples.append(seen + "; ".join(f"{kind}: {seen}" for kind, seen in problems))

    def result(self):
        """The result to store, as plain data."""
        return {
            "family": self.family,
            "kernel": os.uname().release,
            "seed": self.seed,
            "seconds": round(time.monotonic() - self.started),
            "rounds": self.rounds,
            "rows": self.rows,
            "examples": self.examples,
        }


def now(text):
    """Record what is about to be tried, in case the kernel crashes."""
    path = os.environ.get("RACEFREE_NOW")
    if path:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


def options(text, words=None):
    """Parse the command line, which is the same for all families, or these words."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tries", type=int, default=100, help="of each row: so many rounds")
    parser.add_argument("--first", type=int, default=0, help="begin after so many rounds")
    parser.add_argument(
        "--share",
        type=int,
        nargs=2,
        default=(1, 1),
        metavar=("K", "N"),
        help="run only every Nth round, from the Kth on; --first and --tries count these",
    )
    parser.add_argument("--seconds", type=int, default=3000, help="begin no round after so many")
    parser.add_argument("--only", default="", help="only rows that have this text in their name")
    parser.add_argument("--report", help="write the result as JSON to this file")
    return parser.parse_args(words)


def rounds(score, chosen, udev):
    """
    Yield ``(whether the round starts cold, its random number generator)`` while there is time. Everything in
    a round depends only on the seed and its number.
    """
    share, shares = chosen.share
    for count in range(chosen.first, chosen.first + chosen.tries):
        number = count * shares + share - 1
        if time.monotonic() > score.started + chosen.seconds:
            return
        score.round = number
        is_cold = number % COLD_EVERY == COLD_FIRST
        udev.real(is_cold)
        yield is_cold, random.Random(f"{chosen.seed} {number}")
        score.rounds += 1


def finish(score, report):
    """Print the result and write the report; returns the exit code, which is 1 if there was any problem."""
    result = score.result()
    for row, counts in result["rows"].items():
        print(f"{score.family}: {row:40}" + "".join(f"{counts[name]:7} {name}" for name in COUNTS))
    for name, examples in result["examples"].items():
        for example in examples:
            print(f"  {name}: {example}")
    if report:
        with open(report, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1, sort_keys=True)
    print(f"{score.family}: {result['rounds']} rounds in {result['seconds']} s")
    sys.stdout.flush()
    return 1 if any(counts[name] for counts in result["rows"].values() for name in BAD) else 0
