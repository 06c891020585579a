# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The stored results, docs/campaign/*.json, and what is made of them: docs/campaign.md and its plots.
"""

from __future__ import annotations

import json
import sys

import pieces

sys.path.append(str(pieces.ROOT / "tests/bench"))
import plot

KEPT = pieces.ROOT / "docs" / "campaign"
TABLE = pieces.ROOT / "docs" / "campaign.md"
COUNTS = ("tries", "right", "refused", "wrong", "left", "lies")
EXAMPLES = 5
BAD = ("wrong", "left", "lies")
# Names and colours in the plots (plot.py).
KINDS = {"right": 0, "refused": 2, "wrong": 1, "left or untrue": 3}
TODAY = "today: "
_LINUX = {"forky": "the newest Linux", "trixie": "Linux 6.12", "bookworm": "Linux 6.1"}
HEAD = """<!--
Copyright (c) 2026, The racefree.block contributors
GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
SPDX-License-Identifier: GPL-3.0-or-later
-->

# The campaign

`make campaign` tests what the collection promises: it never uses the wrong device, leaves nothing behind,
and reports nothing that is not true. It makes this page from the results in `campaign/`. [How the
collection is tested](testing.md) says how to run it.

There are several families of tests:

- **swaps**: a module, or one of today's tools, is stopped before one of its system calls. Meanwhile the
  device that it works on is replaced by somebody else's. Today's tools are tried in every tenth round.
- **kills**: a module is killed after one of its system calls.
- **errors**: one of a module's system calls fails with EINTR, EAGAIN, EBUSY, ENOMEM, EIO, ENOSPC, EMFILE or
  EACCES. The newest kernel tries each of these errors at each system call, the older ones a sample.
- **pairs**: while a module is stopped before one of its system calls, a second run for the same thing
  starts.
- **libvirt**: libvirt_disk with QEMU is killed, or stopped while somebody else replaces the domain or
  changes its definition. *Wrong*: what somebody else wrote into the definition was overwritten, or their
  domain was changed.
- **host**: the hotplug script, libvirt's hook and definitions, and xen_vbd, on an emulated Xen host.
- **tables**: generated tables are compared with a kernel.

A round is one try of each row. No two kernels do the same rounds of swaps, pairs and libvirt, so their
tries add up. The newest kernel does the most of these rounds, since each takes three times as long on the
older ones.

The columns of the results are:

- *right*: the module reported success, and the kernel agrees.
- *refused*: the module failed or was killed, and the next run corrected everything.
- *wrong*: somebody else's device was used or changed.
- *left*: something was left that the next run did not correct, or the next run failed.
- *lies*: the module reported success, but that was not true.

For tables, *right* means that parser and kernel both accepted the table. *Refused* means that one of them
or both did not, for a reason with a name in [Device-mapper tables](device-mapper-tables.md), or that the
table was never sent because it could stop the kernel. *Wrong* is a disagreement without a name.
"""
PLOTS = """## In pictures

What happened when the device was replaced while a program was stopped before one of its system calls, on
all kernels together. Below are today's tools. The number of tries is at the end of each bar.

![Shares of right, refused and wrong tries, of modules and of today's tools](images/campaign-swaps.svg)

All tries of the collection's modules, by family and kernel.

![Shares of right, refused and wrong tries, for each family and kernel](images/campaign.svg)
"""


def path(release, family, index):
    number = "" if family.pieces == 1 else f"-{index:02}"
    return KEPT / f"{release}-{family.name}{number}.json"


def kept(release, family, index):
    """The stored result of a piece; None if there is none."""
    file = path(release, family, index)
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def keep(release, family, index, key, result):
    KEPT.mkdir(exist_ok=True)
    text = json.dumps(dict(result, key=key), indent=1, sort_keys=True, ensure_ascii=False)
    path(release, family, index).write_text(text + "\n", encoding="utf-8")


def is_whole(family, result, release):
    """Whether a piece is complete."""
    return family.pieces > 1 or result["rounds"] >= family.rounds_on(release)


def add(before, result):
    """Add the result of the next part to the earlier result of a piece."""
    if before is None:
        return result
    rows = add_up([before, result])
    examples = dict(before["examples"])
    for name, seen in result["examples"].items():
        examples[name] = (examples.get(name, []) + seen)[:EXAMPLES]
    sums = {name: before[name] + result[name] for name in ("seconds", "rounds")}
    return dict(result, rows=rows, examples=examples, **sums)


def of_tables(result):
    """Convert a result of differential.py to the form of the other families."""
    totals = result["totals"]
    wrong = totals["without a name"]
    counts = dict.fromkeys(COUNTS, 0)
    refused = totals["tables"] - totals["both took"] - wrong
    counts.update(tries=totals["tables"], right=totals["both took"], refused=refused, wrong=wrong)
    examples = {
        key: [row["examples"][0]["lines"]] for key, row in result["classes"].items() if row["name"] is None
    }
    rows = {"tables": counts}
    return {
        "family": "tables",
        "kernel": result["kernel"],
        "seed": result["seed"],
        "seconds": round(result["seconds"]),
        "rows": rows,
        "examples": examples,
    }


def add_up(results):
    """Add up several results of a family to {row: counts}."""
    rows = {}
    for result in results:
        for name, counts in result["rows"].items():
            row = rows.setdefault(name, dict.fromkeys(COUNTS, 0))
            for count in COUNTS:
                row[count] += counts[count]
    return rows


def pages():
    """{path: text} of all that is made from the results."""
    images = TABLE.parent / "images"
    return {
        TABLE: table(),
        images / "campaign.svg": families_plot(),
        images / "campaign-swaps.svg": swaps_plot(),
    }


def families_plot():
    """All tries of the modules: a bar for each family and kernel."""
    rows = {}
    for family, _release, results in _found():
        kernels = ", ".join(sorted({result["kernel"] for result in results}))
        rows[f"{family.name}, Linux {kernels}"] = _kinds(_ours(results))
    words = "Bars that show how many tries of each family on each kernel were right, refused or wrong"
    return plot.shares("The campaign", words, KINDS, rows)


def swaps_plot():
    """The family swaps on all kernels: a bar for each case, today's tools at the end."""
    results = [result for family, _release, found in _found() if family.name == "swaps" for result in found]
    rows = add_up(results)
    names = sorted(rows, key=lambda name: (name.startswith(TODAY), name))
    words = "Bars that show how many tries of each case were right, refused or wrong"
    return plot.shares(
        "A device replaced under a program", words, KINDS, {name: _kinds([rows[name]]) for name in names}
    )


def _kinds(rows):
    """The sums of several rows, as in KINDS."""
    sums = {count: sum(row[count] for row in rows) for count in COUNTS}
    return [sums["right"], sums["refused"], sums["wrong"], sums["left"] + sums["lies"]]


def _found():
    """(family, release, its results) for each kernel that has any."""
    for family in (*pieces.FAMILIES, pieces.HOST):
        for release in pieces.RELEASES:
            results = [kept(release, family, index) for index in range(family.pieces)]
            results = [result for result in results if result is not None]
            if results:
                yield family, release, results


def table():
    """Generate the text of docs/campaign.md."""
    parts = [HEAD, _sums(), PLOTS]
    parts += [_section(*each) for each in _found()]
    parts.append(_lacking())
    return "\n".join(parts)


def _sums():
    """A table with a row for each family: all tries of the collection's modules, on all kernels."""
    lines = ["## All kernels together", "", *_head("Family", "kernels", *COUNTS)]
    families = {}
    for family, _release, results in _found():
        families.setdefault(family, []).extend(results)
    for family, results in families.items():
        kernels = len({result["kernel"] for result in results})
        rows = _ours(results)
        lines.append(_line(family.name, kernels, *(sum(row[count] for row in rows) for count in COUNTS)))
    return "\n".join(lines) + "\n"


def _ours(results):
    """The rows of the collection's modules, added up; without today's tools."""
    return [row for name, row in add_up(results).items() if not name.startswith(TODAY)]


def _head(first, *others):
    """The first two lines of a table of counts."""
    return f"| {' | '.join((first, *others))} |", "| --- |" + " ---: |" * len(others)


def _line(name, *counts):
    return f"| {' | '.join((name, *(f'{count:,}' for count in counts)))} |"


def _section(family, release, results):
    kernels = ", ".join(sorted({result["kernel"] for result in results}))
    minutes = sum(result["seconds"] for result in results) // 60
    took = "1 minute" if minutes == 1 else f"{minutes} minutes"
    unit = {"host": "minutes", "tables": "tables"}.get(family.name, "rounds")
    lines = [
        f"## {family.name}, Linux {kernels}",
        "",
        f"{_done(family, results):,} of {family.rounds_on(release):,} {unit}, {took}.",
        "",
        *_head("What", *COUNTS),
    ]
    for name, counts in add_up(results).items():
        lines.append(_line(name, *(counts[count] for count in COUNTS)))
    return "\n".join(lines) + "\n"


def _done(family, results):
    return sum(result.get("rounds", family.rounds // family.pieces) for result in results)


def _lacking():
    missing = []
    for family in (*pieces.FAMILIES, pieces.HOST):
        for release in pieces.HOST_RELEASES if family is pieces.HOST else pieces.RELEASES:
            have = [kept(release, family, index) for index in range(family.pieces)]
            done = _done(family, [result for result in have if result is not None])
            whole = family.rounds_on(release)
            if done < whole:
                unit = " minutes" if family is pieces.HOST else ""
                missing.append(f"{family.name} on {_LINUX[release]}: {whole - done:,} of {whole:,}{unit}")
    return "\n".join(["## Not run yet", "", "; ".join(missing) + "." if missing else "Nothing.", ""])
