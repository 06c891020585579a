# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
How tries are counted: rows of tries, right, refused, wrong, left, lies, with a few examples of what was not
as it should be.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

COUNTS = ("tries", "right", "refused", "wrong", "left", "lies")
BAD = ("wrong", "left", "lies")
_EXAMPLES = 5


class Score:
    """``{row: counts}``, and for each bad count of a row its first examples."""

    def __init__(self, family, seed):
        self.family = family
        self.seed = seed
        self.rows = {}
        self.examples = {}
        self.started = time.monotonic()

    def note(self, row, outcome, problems=(), example=""):
        """
        One try: ``outcome`` is "right" or "refused", ``problems`` is a list of (one of BAD, what was seen); a
        try with a problem counts as that only, with the worst that was seen. ``example``: how it was made.
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
            examples.append(f"{example}: " + "; ".join(f"{kind}: {seen}" for kind, seen in problems))

    def result(self):
        """Plain data, as it is kept."""
        return {
            "family": self.family,
            "kernel": os.uname().release,
            "seed": self.seed,
            "seconds": round(time.monotonic() - self.started),
            "rows": self.rows,
            "examples": self.examples,
        }


def now(text):
    """Say what is about to be tried, for whoever finds that the kernel has ended."""
    path = os.environ.get("RACEFREE_NOW")
    if path:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


def options(text):
    """The command line that all families have."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tries", type=int, default=100, help="of each row")
    parser.add_argument("--seconds", type=int, default=3000, help="begin no try after so many")
    parser.add_argument("--only", default="", help="only rows that have this text in their name")
    parser.add_argument("--report", help="write the result as JSON to this file")
    return parser.parse_args()


def finish(score, report):
    """Print the result and write it; the exit code: 1 when anything was not as it should be."""
    result = score.result()
    for row, counts in result["rows"].items():
        print(f"{score.family}: {row:40}" + "".join(f"{counts[name]:7} {name}" for name in COUNTS))
    for name, examples in result["examples"].items():
        for example in examples:
            print(f"  {name}: {example}")
    if report:
        with open(report, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1, sort_keys=True)
    sys.stdout.flush()
    return 1 if any(counts[name] for counts in result["rows"].values() for name in BAD) else 0
