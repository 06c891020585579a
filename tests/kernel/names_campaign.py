# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""
The adversary against names of disks at full size, in parts: what was done is stored in
docs/block-names/adversary.json after each part, and the next call goes on from there.

``names_campaign.py run [--minutes N]`` starts kernels (tests/kernel/kernel) until everything is done or the
time is over. ``hosts FILE`` adds what tests/host/names_xen.py printed on an emulated host. ``table`` writes
the stored results into docs/block-names.md, ``table --check`` compares them. Runs on the machine itself. Exit
code 1 if a name of this collection ever led to the other disk, or if the table differs.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "docs" / "block-names" / "adversary.json"
# What was done on emulated hosts: {kernel: {tool: {name: counts}}}.
ON_HOSTS = ROOT / "docs" / "block-names" / "hosts.json"
PAGE = ROOT / "docs" / "block-names.md"
COUNTS = ("tries", "replaced", "right", "refused", "wrong")
OURS = ("by-diskseq", "/dev/racefree/dm-uuid")
# Tries of a full run: of each tool with all names of this collection together, with each other name, and of
# late strikes.
FULL, OTHERS, LATE = 10000, 500, 200
LEVELS = (0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
# Parts of one start of a kernel.
AT_ONCE = 40
# For the series of late strikes: the tool is stopped for longer than the grace time.
STRIKES = {False: {"patience": 0.0, "grace_ms": 200}, True: {"patience": 0.06, "grace_ms": 20}}
NAMES = {
    "loop": ("by-diskseq", "/dev/loopN", "a link"),
    "mapped": ("by-diskseq", "/dev/racefree/dm-uuid", "/dev/mapper"),
    "mapping of cryptsetup": ("the mapping's name",),
}
_NAMES_OF_OURS = sum(name in OURS for names in NAMES.values() for name in names)


Rows = dict[str, dict[str, int]]
HostRows = dict[str, dict[str, dict[str, dict[str, int]]]]


class Part(NamedTuple):
    """One tool with the names of one kind of disk. ``size``: the tries of one start of a kernel."""

    kind: str
    tool: str
    size: int
    late: bool = False

    def key(self, name: str) -> str:
        return f"{self.kind}/{self.tool}/{name}" + (" late" if self.late else "")

    def target(self, name: str) -> int:
        if self.late:
            return LATE
        return math.ceil(FULL / _NAMES_OF_OURS) if name in OURS else OTHERS


def parts() -> Iterator[Part]:
    """All parts, in the order in which they are run."""
    both = ("loop", "mapped")
    for tool, size in (("open", 1000), ("realpath, open", 1000)):
        yield from (Part(kind, tool, size) for kind in both)
    for tool in ("dmsetup create", "mount", "mkfs.ext4"):
        yield from (Part(kind, tool, 1000) for kind in both)
    yield Part("mapping of cryptsetup", "cryptsetup close", 2000)
    for tool in ("realpath, open", "mount", "mkfs.ext4", "dmsetup create", "cryptsetup open"):
        yield Part("loop", tool, LATE, True)
    for tool in ("cryptsetup open", "cryptsetup luksFormat"):
        yield from (Part(kind, tool, 300) for kind in both)


def stored() -> Rows:
    """``{key: counts}``; a row that was not run is missing."""
    return json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.is_file() else {}


def done(rows: Rows, part: Part) -> float:
    """Which share of the part is done: of the name that has been tried least."""
    shares = [rows.get(part.key(name), {}).get("tries", 0) / part.target(name) for name in NAMES[part.kind]]
    return min(shares)


def next_part(rows: Rows) -> tuple[Part, float] | None:
    """
    The next part to run, and the share of it that is to be done then; None if everything is done. All parts
    get a small share first, so that every row is there early.
    """
    for level in LEVELS:
        for part in parts():
            share = done(rows, part)
            if share < level:
                return part, min(level, share + part.size * _NAMES_OF_OURS / FULL)
    return None


def plan(rows: Rows) -> list[dict[str, object]]:
    """The arguments of ``names_adversary.play`` for the next tries, as many as one start of a kernel does."""
    rows, found = {key: dict(row) for key, row in rows.items()}, []
    while len(found) < AT_ONCE:
        todo = next_part(rows)
        if todo is None:
            break
        part, share = todo
        sizes = {"tries": 0, "others": 0}
        seed = rows.get(part.key(NAMES[part.kind][0]), {}).get("tries", 0)
        for name in NAMES[part.kind]:
            wanted = part.target(name) if part.late else math.ceil(share * part.target(name))
            row = rows.setdefault(part.key(name), {"tries": 0})
            option = "tries" if name in OURS else "others"
            sizes[option] = max(sizes[option], wanted - row["tries"])
        for name in NAMES[part.kind]:
            rows[part.key(name)]["tries"] += sizes["tries" if name in OURS else "others"]
        found.append({"kind": part.kind, "tool": part.tool, "seed": seed, **sizes, **STRIKES[part.late]})
    return found


def run(minutes: float) -> int:
    """Run parts until the time is over. Returns the exit code."""
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        before = stored()
        todo = plan(before)
        if not todo:
            break
        start(todo, end)
        if stored() == before:
            print("nothing was added: look at the messages above")
            return 1
    return int(any(is_broken(key, row) for key, row in stored().items()))


def start(todo: list[dict[str, object]], end: float) -> None:
    """Run the plan on one kernel, and store each row as soon as it is there."""
    command = [str(ROOT / "tests/kernel/kernel"), "run", "--timeout", str(round(end - time.monotonic()) + 60)]
    command += ["--site", "--", "python3", "-B", "names_adversary.py", "--plan", json.dumps(todo)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as kernel:
        for line in kernel.stdout or ():
            if line.startswith("{"):
                rows, found = stored(), json.loads(line)
                add(rows, Part(found["disk"], found["tool"], 0, found["late"]), found)
                KEPT.parent.mkdir(exist_ok=True)
                KEPT.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            print(time.strftime("%T"), line.strip(), flush=True)
            if time.monotonic() > end:
                kernel.terminate()


def add(rows: Rows, part: Part, found: dict[str, object]) -> None:
    row = rows.setdefault(part.key(str(found["name"])), dict.fromkeys((*COUNTS, "seconds"), 0))
    for count in (*COUNTS, "seconds"):
        row[count] += round(float(str(found[count])))


def is_broken(key: str, row: dict[str, int]) -> bool:
    """Whether a name of this collection led to the other disk, although the tool was not late."""
    return bool(row["wrong"]) and key.endswith(OURS)


def table(rows: Rows, late: bool) -> str:
    """The rows in Markdown."""
    lines = ["| Disk | Tool | Name | Tries | Replaced | Right | Refused | Wrong |"]
    lines.append("|---|---|---|" + "---:|" * len(COUNTS))
    for part in sorted(parts(), key=lambda part: part.kind):
        for name in NAMES[part.kind] if part.late == late else ():
            row = rows.get(part.key(name))
            if row is not None:
                cells = [f"{row[count]:,}" for count in COUNTS]
                if name in OURS and not late:
                    cells[-1] = f"**{cells[-1]}**"
                lines.append("| " + " | ".join((part.kind, part.tool, name, *cells)) + " |")
    return "\n".join(lines)


def stored_of_hosts() -> HostRows:
    return json.loads(ON_HOSTS.read_text(encoding="utf-8")) if ON_HOSTS.is_file() else {}


def add_from_host(lines: list[str]) -> None:
    """Add rows that names_xen.py printed to the stored ones. Other lines are ignored."""
    rows = stored_of_hosts()
    for found in (json.loads(line) for line in lines if line.startswith('{"kernel"')):
        tools = rows.setdefault(found["kernel"], {})
        row = tools.setdefault(found["tool"], {}).setdefault(found["name"], dict.fromkeys(COUNTS, 0))
        for count in COUNTS:
            row[count] += found[count]
    ON_HOSTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def hosts_table(rows: HostRows) -> str:
    """The rows of emulated hosts in Markdown."""
    lines = ["| Kernel | Tool | Name | Tries | Replaced | Right | Refused | Wrong |"]
    lines.append("|---|---|---|" + "---:|" * len(COUNTS))
    for kernel, tools in rows.items():
        for tool, names in tools.items():
            for name, row in names.items():
                lines.append(
                    "| " + " | ".join((kernel, tool, name, *(f"{row[count]:,}" for count in COUNTS))) + " |"
                )
    return "\n".join(lines)


def page(text: str, rows: Rows, on_hosts: HostRows) -> str:
    """The page with the tables between their marks replaced."""
    tables = {
        "table": table(rows, False),
        "late table": table(rows, True),
        "table of hosts": hosts_table(on_hosts),
    }
    for mark, new in tables.items():
        before, start, rest = text.partition(f"<!-- {mark} -->\n")
        dummy, end, after = rest.partition(f"<!-- end of the {mark} -->")
        if not start or not end:
            raise SystemExit(f"{PAGE}: has no marks of the {mark}")
        text = f"{before}{start}\n{new}\n\n{end}{after}"
    return text


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run").add_argument("--minutes", type=float, default=60)
    commands.add_parser("hosts").add_argument("file", type=Path)
    commands.add_parser("table").add_argument("--check", action="store_true")
    options = parser.parse_args()
    if options.command == "run":
        return run(options.minutes)
    if options.command == "hosts":
        add_from_host(options.file.read_text(encoding="utf-8").splitlines())
        return 0
    text = PAGE.read_text(encoding="utf-8")
    new = page(text, stored(), stored_of_hosts())
    if options.check:
        return int(text != new)
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
