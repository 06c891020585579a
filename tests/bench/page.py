# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The page docs/speed.md and its plots, from the figures in docs/speed/*.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import figures
import plot
import words

Figures = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
SUBJECTS = ("loops", "commands", "dm", "tasks", "payload", "vbds", "hotplug")
STEPS = {"create": "create", "unchanged": "no change", "info": "list", "absent": "remove"}
# The way whose growth has a goal, and the others.
OURS = {"loops": "loop_devices", "commands": "loop_devices", "dm": "dm_devices"}
GROWTH_MOST = 4000
TASK_GOAL, GROWTH_GOAL, HOTPLUG_GOAL, VBD_GOAL = 1.3, 1.05, 1.3, 15


def stored(folder: Path) -> dict[str, Figures]:
    found = {subject: figures.kept(folder / f"{subject}.json") for subject in SUBJECTS}
    return {subject: each for subject, each in found.items() if each is not None}


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table; the first ``left`` columns are text, the others numbers."""
    marks = ["---"] * left + ["---:"] * (len(heads) - left)
    return "\n".join("| " + " | ".join(row) + " |" for row in (heads, marks, *rows)) + "\n"


def seconds(spent: Sequence[float]) -> str:
    """Wall clock, and in brackets processor time if that is known."""
    text = [digits(value) for value in spent]
    return text[0] if len(text) == 1 else f"{text[0]} ({text[1]})"


def digits(value: float) -> str:
    """Two significant digits, but all of a whole number."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def on(machine: Figures) -> str:
    """A sentence about where the figures come from."""
    text = f"Linux {machine['kernel']}, Python {machine['python']}, {machine['processors']} processors"
    if machine.get("as a process"):
        text = f"On a kernel that runs as a process, without udevd: {text}"
    load = machine["load"]
    if load < words.QUIET:
        return f"{text}.\n"
    return f"{text}. {words.BUSY.format(load=load)}\n"


def by_devices(subject: str, found: Figures) -> str:
    """A table of the steps with each number of devices."""
    rows = {(row["devices"], row["way"]): row for row in found["rows"]}
    ways = list(dict.fromkeys(row["way"] for row in found["rows"]))
    others = [way for way in ways if way != OURS[subject]]
    lines = []
    for devices in dict.fromkeys(row["devices"] for row in found["rows"]):
        for step, name in STEPS.items():
            each = {way: rows[devices, way][step] for way in ways if step in rows.get((devices, way), {})}
            if not each:
                continue
            cells = [seconds(each[way]) if way in each else "" for way in ways]
            ratios = [digits(each[OURS[subject]][0] / each[way][0]) if way in each else "" for way in others]
            lines.append([f"{devices:,}", name, *cells, *ratios])
    heads = ["Devices", "Step", *ways, *(f"{OURS[subject]} / {way}" for way in others)]
    return table(heads, lines, 2)


def growths(subject: str, found: Figures) -> dict[str, list[float]]:
    """{step: [exponent of the wall clock, exponent of the processor time]} of the collection's own way."""
    rows = [row for row in found["rows"] if row["way"] == OURS[subject]]
    result: dict[str, list[float]] = {}
    for step in STEPS:
        for kind in range(min(len(row.get(step, ())) for row in rows)):
            fitted = figures.exponent([(row["devices"], row[step][kind]) for row in rows])
            if fitted is not None:
                result.setdefault(step, []).append(fitted)
    return result


def steepest(subject: str, found: Figures, step: str, kind: int) -> float | None:
    """The exponent between the two largest numbers of devices."""
    points = [(row["devices"], row[step][kind]) for row in found["rows"] if row["way"] == OURS[subject]]
    return figures.exponent(sorted(points)[-2:])


def most(found: Figures) -> int:
    return max(row["devices"] for row in found["rows"])


def growth(found: dict[str, Figures]) -> str:
    lines = []
    for subject in OURS:
        for step, fitted in growths(subject, found[subject]).items() if subject in found else ():
            last = [steepest(subject, found[subject], step, kind) for kind in range(len(fitted))]
            cells = [
                f"{all_sizes:.2f} ({two:.2f})" for all_sizes, two in zip(fitted, last) if two is not None
            ]
            name = f"{OURS[subject]}{' in a play' if subject == 'commands' else ''}"
            lines.append([name, STEPS[step], f"{most(found[subject]):,}", *cells, *[""] * (2 - len(cells))])
    return table(["Module", "Step", "Up to", "Wall clock", "Processor time"], lines, 2)


def devices_plot(subject: str, title: str, found: Figures) -> str:
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in found["rows"]:
        for step, name in STEPS.items():
            if step in row:
                panel = panels.setdefault(name, {})
                panel.setdefault(row["way"], []).append((row["devices"], row[step][0]))
    return plot.lines(title, words.PLOTS[subject], panels)


def tasks(found: Figures) -> str:
    rows = sorted(found["rows"], key=lambda row: str(row["task"]))
    cells = [
        [
            row["task"] + (" (kernel as a process)" if row.get("as a process") else ""),
            seconds(row["spent"]),
            seconds(row["ping"]),
            "{:.2f} ({:.2f})".format(*row["ratio"]),
        ]
        for row in rows
    ]
    text = table(["Task", "Seconds", "ping beside it", "Ratio"], cells)
    return f"{text}\n{words.NOT_RUN.format(names=', '.join(found['not run']))}\n"


def tasks_plot(found: Figures) -> str:
    rows = sorted(found["rows"], key=lambda row: -float(row["ratio"][0]))
    values = {str(row["task"]): float(row["ratio"][0]) for row in rows}
    return plot.bars("Tasks that change nothing, beside ping", words.PLOTS["tasks"], values, TASK_GOAL)


def payload(found: Figures) -> str:
    cells = [
        [row["module"], *(f"{row[name] / 1000:.0f}" for name in ("sent", "files"))] for row in found["rows"]
    ]
    return table(["Module", "Sent by Ansible, kB", "Files of the collection in it, kB"], cells)


def vbds(found: Figures) -> str:
    rows = [
        [f"{row['disks']}", row["way"], seconds([row["attach"]]), seconds([row["detach"]])]
        for row in found["rows"]
    ]
    return table(["Disks", "Way", "Attach", "Detach"], rows, 2)


def hotplug(found: Figures) -> str:
    rows = [
        [f"{row['disks']}", row["kind"], row["way"], *(seconds([row[each]]) for each in ("add", "remove"))]
        for row in found["rows"]
    ]
    return table(["At once", "Target", "Script", "add", "remove"], rows, 3)


def goals(found: dict[str, Figures]) -> str:
    """Each goal, what was measured, and whether that meets it."""
    rows = []
    for subject in ("loops", "dm"):
        if subject in found:
            worst = max((each[0], step) for step, each in growths(subject, found[subject]).items())
            name = f"{OURS[subject]}: exponent of the time over 8 to {most(found[subject]):,} devices"
            measured = f"at most {worst[0]:.2f} ({STEPS[worst[1]]})"
            rows.append(_goal(name, f"{GROWTH_GOAL}", measured, worst[0] <= GROWTH_GOAL))
            if most(found[subject]) < GROWTH_MOST and worst[0] <= GROWTH_GOAL:
                rows[-1][-1] = f"not measured up to {GROWTH_MOST:,}"
    if "tasks" in found:
        slow = [row for row in found["tasks"]["rows"] if row["ratio"][0] > TASK_GOAL]
        text = ", ".join(f"{row['task']} {row['ratio'][0]:.2f}" for row in slow) or "all"
        rows.append(
            _goal("a task that changes nothing, as many times as ping", f"{TASK_GOAL}", text, not slow)
        )
    if "vbds" in found:
        rows += [_vbd_goal(found["vbds"], step) for step in ("attach", "detach")]
    if "hotplug" in found:
        rows.append(_hotplug_goal(found["hotplug"]))
    return table(["What", "Goal", "Measured", "Met"], rows, 4)


def _vbd_goal(found: Figures, step: str) -> list[str]:
    disks = max(row["disks"] for row in found["rows"])
    own, xl = (
        {row["way"]: row[step] for row in found["rows"] if row["disks"] == disks}[way] for way in words.VBDS
    )
    what = f"{step} {disks} disks of a Xen guest, times faster than xl"
    return _goal(what, f"at least {VBD_GOAL}", digits(xl / own), xl / own >= VBD_GOAL)


def _hotplug_goal(found: Figures) -> list[str]:
    rows = {(row["disks"], row["kind"], row["way"]): row for row in found["rows"]}
    ratios = [
        row[step] / rows[disks, kind, words.BARE][step]
        for (disks, kind, way), row in rows.items()
        if way == words.SCRIPT
        for step in ("add", "remove")
    ]
    what = "hotplug script, as many times as a C program"
    return _goal(what, f"{HOTPLUG_GOAL}", f"at most {max(ratios):.2f}", max(ratios) <= HOTPLUG_GOAL)


def _goal(what: str, goal: str, measured: str, met: bool) -> list[str]:
    return [what, goal, measured, "yes" if met else "**no**"]


def pictures(found: dict[str, Figures]) -> dict[str, str]:
    """{name of the file: SVG} of what was measured."""
    made = {}
    if "loops" in found:
        made["speed-loops.svg"] = devices_plot("loops", "Loop devices", found["loops"])
    if "dm" in found:
        made["speed-dm.svg"] = devices_plot("dm", "Mapped devices", found["dm"])
    if "tasks" in found:
        made["speed-tasks.svg"] = tasks_plot(found["tasks"])
    return made


SECTIONS = {
    "loops": lambda found: by_devices("loops", found),
    "commands": lambda found: by_devices("commands", found),
    "dm": lambda found: by_devices("dm", found),
    "tasks": tasks,
    "vbds": vbds,
    "hotplug": hotplug,
    "payload": payload,
}


def page(found: dict[str, Figures]) -> str:
    parts = [words.HEAD, words.GOALS, goals(found), words.GROWTH, growth(found)]
    images = pictures(found)
    for subject, show in SECTIONS.items():
        title, text, why = words.SECTIONS[subject]
        parts += [f"## {title}\n", text]
        if subject not in found:
            parts.append(words.MISSING[subject])
            continue
        parts.append(on(found[subject]["machine"]))
        if f"speed-{subject}.svg" in images:
            parts.append(f"![{words.PLOTS[subject]}](images/speed-{subject}.svg)\n")
        parts.append(show(found[subject]))
        if why:
            parts.append(why)
    return "\n".join(parts)


def write(root: Path) -> None:
    found = stored(root / "docs/speed")
    for name, picture in pictures(found).items():
        (root / "docs/images" / name).write_text(picture, encoding="utf-8")
    (root / "docs/speed.md").write_text(page(found), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkout", type=Path, default=ROOT, help="a git checkout of the collection")
    write(parser.parse_args().checkout)


if __name__ == "__main__":
    main()
