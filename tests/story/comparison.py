# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The page docs/comparison.md, from the results in docs/story/story.json and the playbooks beside this file.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path.insert(1, str(ROOT / "tests/bench"))

import figures
import prose
import words
import yaml
from page import digits, table
from places import ABSENT, PRESENT, WAYS, playbook

KEPT = ROOT / "docs/story/story.json"
PAGE = ROOT / "docs/comparison.md"
PARTS = ("times", "kills", "reuse")
PHASES = {"first": "first run", "second": "second run", "removal": "removal"}
WHOSE = {"ours": "its own image", "other": "**the other image**", "no guest": "does not run"}


def tasks(way, phase):
    (play,) = yaml.safe_load(playbook(way, phase).read_text(encoding="utf-8"))
    return play["tasks"]


def lines(way, phase):
    """The number of lines that are not empty, no comment, and not the mark of the beginning."""
    found = (line.strip() for line in playbook(way, phase).read_text(encoding="utf-8").splitlines())
    return len([line for line in found if line and line != "---" and not line.startswith("#")])


def add(before, found):
    """The results of the parts and ways in ``found`` replace those that were kept before."""
    if before is None:
        return found
    new = {(row["part"], row["way"]) for row in found["rows"]}
    kept = [row for row in before["rows"] if (row["part"], row["way"]) not in new]
    machine = dict(found["machine"])
    if kept:
        machine["load"] = max(machine["load"], before["machine"]["load"])
    order = [(part, way) for part in PARTS for way in WAYS]
    rows = sorted(kept + found["rows"], key=lambda row: order.index((row["part"], row["way"])))
    return dict(found, machine=machine, rows=rows)


def of(found, part, way):
    return [row for row in found["rows"] if (row["part"], row["way"]) == (part, way)]


def listed(left):
    """What is left, in words."""
    return ", ".join(kind if number == 1 else f"{number} {kind}s" for kind, number in left.items())


def said(text):
    return "ok" if text == "ok" else f"fails at *{text.partition(':')[0]}*"


def is_wrong(row):
    """Whether the guest had the other image at any time."""
    return "other" in (row.get("bytes"), row.get("bytes again"))


def is_taken(row):
    """Whether what belongs to somebody else was removed."""
    return not row["others"] or not row["others at last"]


def is_as_wanted(row, whole):
    """Whether the run after a killed one has finished it, without a word."""
    if row["again"] != "ok":
        return False
    return not row["then"] if row["phase"] == ABSENT else row["bytes"] == "ours" and row["then"] == whole


def summary(found):
    """One column for each way."""
    columns = [dict(written(way), **measured(found, way)) for way in WAYS]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = [[name, *(column.get(name, "") for column in columns)] for name in names]
    return table(["", *WAYS.values()], rows)


def written(way):
    counts = [(len(tasks(way, phase)), lines(way, phase)) for phase in (PRESENT, ABSENT)]
    names = ("Tasks to make it, to remove it", "Lines of YAML")
    return {name: ", ".join(map(str, both)) for name, both in zip(names, zip(*counts))}


def measured(found, way):
    """What there are results of, in words."""
    column = {}
    times = {row["phase"]: row for row in of(found, "times", way)}
    if times:
        for phase, name in PHASES.items():
            column[f"Seconds: {name}"] = digits(statistics.median(times[phase]["seconds"]))
        column["Second run: tasks that changed something"] = str(times["second"]["changed"])
        column["Second run: doubled"] = listed(doubled(times)) or "nothing"
        column["Left after the removal"] = listed(times["removal"]["left"]) or "nothing"
    killed = of(found, "kills", way)
    if killed and times:
        good = [row for row in killed if is_as_wanted(row, times["first"]["left"])]
        column["Killed runs that the next run finished"] = f"{len(good)} of {len(killed)}"
    cases = [row for row in of(found, "reuse", way) if row["said"]]
    if cases:
        starts = [row for row in cases if "removal" in row]
        wrong = [row for row in starts if is_wrong(row)]
        column["Name reused: the guest got the other image"] = bold(len(wrong), len(starts))
        taken = [row for row in cases if is_taken(row)]
        column["Name reused: somebody else's device was removed"] = bold(len(taken), len(cases))
    return column


def missing(found):
    """A sentence about what was not run; empty if there is nothing."""
    names = [f"{part} of {way}" for part in PARTS for way in WAYS if not of(found, part, way)]
    return f"Not run yet: {', '.join(names)}.\n" if names else ""


def doubled(times):
    """What there is more of after the second run."""
    before, after = times["first"]["left"], times["second"]["left"]
    return {kind: number for kind, number in after.items() if number > before.get(kind, 0)}


def bold(number, cases):
    text = f"{number} of {cases}"
    return f"**{text}**" if number else text


def kills(found):
    rows = []
    for way, name in WAYS.items():
        whole = [row["left"] for row in of(found, "times", way) if row["phase"] == "first"]
        for row in of(found, "kills", way) if whole else ():
            then = "finished"
            if not is_as_wanted(row, whole[0]):
                then = f"{said(row['again'])}; {listed(row['then']) or 'nothing'}"
            rows.append([name, row["phase"], row["after"], listed(row["left"]) or "nothing", then])
    return table(["Way", "Playbook", "Killed after", "There is then", "The next run"], rows, 5)


def cases(found):
    """A table for each name that is reused."""
    parts = []
    for case in dict.fromkeys(row["case"] for row in found["rows"] if row["part"] == "reuse"):
        rows, messages = [], []
        for way, name in WAYS.items():
            row = next((row for row in of(found, "reuse", way) if row["case"] == case), None)
            if row is None:
                continue
            if not row["said"]:
                rows.append([name, "there is no such moment", "", "", "", ""])
                continue
            rows.append(
                [
                    name,
                    said(row["said"]),
                    WHOSE[row["bytes"]],
                    "**removed**" if is_taken(row) else "untouched",
                    said(row["again"]) + (f"; {WHOSE[row['bytes again']]}" if "removal" in row else ""),
                    (f"{said(row['removal'])}; " if "removal" in row else "")
                    + (listed(row["at last"]) or "nothing"),
                ]
            )
            if row["said"] != "ok":
                messages.append(f"- {name}: `{short(row['said'])}`")
        heads = ["Way", "The play", "The guest", "Somebody else's device", "Run again", "Removal; left"]
        parts += [f"### {case[0].upper()}{case[1:]}\n", table(heads, rows, 6)]
        if messages:
            parts.append("\n".join(["What the plays that failed said:", "", *messages, ""]))
    return "\n".join(parts)


def short(message):
    """A message without the words of libvirt around that of the hook."""
    text = message.partition(": ")[2].rpartition("racefree.block: story: prepare: ")[2]
    text = " ".join(text.split()).replace("`", "'")
    return text if len(text) <= 300 else f"{text[:300]}..."


def where(found):
    """What the figures depend on."""
    machine = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(found["versions"].items()))
    turns = min((len(row["seconds"]) for row in found["rows"] if row["part"] == "times"), default=0)
    medians = prose.TURNS.format(turns=turns) if turns > 1 else ", of one turn"
    text = prose.WHERE.format(kernel=machine["kernel"], versions=versions, turns=medians)
    if machine["load"] >= words.QUIET:
        text += " " + words.BUSY.format(load=machine["load"])
    return textwrap.fill(text, 104, break_on_hyphens=False) + "\n"


def page(found):
    parts = [prose.HEAD, "## Summary\n", where(found), summary(found), missing(found), prose.SUMMARY]
    parts += [prose.PLAYS, prose.KILLS, kills(found), prose.REUSE, cases(found)]
    return "\n".join(part for part in parts if part)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--add", metavar="FILE", type=Path, help="keep these results first")
    options = parser.parse_args()
    if options.add:
        figures.keep(KEPT, add(figures.kept(KEPT), figures.kept(options.add)))
    found = figures.kept(KEPT)
    PAGE.write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
