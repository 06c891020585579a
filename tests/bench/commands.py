# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Measures loop devices in a play: one task of loop_devices beside a task of ansible.builtin.command with
losetup for each device.

Both alternately create, find and remove the same number of devices, in one play on this machine. A task for
each device takes long, so that this is done with few devices. ``commands.py --help`` lists the options.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import figures
import loops
import modules
import paired
import playbook

STEPS = ("create", "unchanged", "absent")
WAYS = ("loop_devices", "command tasks")


def of_collection(step: str, files: list[str]) -> list[dict[str, Any]]:
    state = "absent" if step == "absent" else "present"
    devices = [{"backing_file": path, "state": state} for path in files]
    return [{"name": f"loop_devices {step}", "racefree.block.loop_devices": {"devices": devices}}]


def of_commands(step: str, files: list[str]) -> list[dict[str, Any]]:
    """As plays do it today. A command cannot know whether there is a device, so that it is looked for."""
    argv = {
        "create": ["losetup", "--find", "--show", "{{ item }}"],
        "unchanged": ["losetup", "--associated", "{{ item }}"],
        "absent": ["losetup", "--detach", "{{ item.stdout }}"],
    }[step]
    task: dict[str, Any] = {"name": f"command tasks {step}", "ansible.builtin.command": {"argv": argv}}
    task["loop"] = "{{ made.results }}" if step == "absent" else files
    if step == "create":
        task["register"] = "made"
    if step == "unchanged":
        task["changed_when"] = False
    return [task]


def measure(options: argparse.Namespace, place: str) -> list[dict[str, object]]:
    site = os.path.join(place, "this")
    modules.unpack(options.checkout, None, site)
    rows = []
    for count in options.sizes:
        with tempfile.TemporaryDirectory(dir=place) as folder, loops.as_before(folder):
            files = loops.make_files(folder, count)
            kinds = [of_collection, of_commands]
            tasks = [
                task
                for number in range(options.turns)
                for kind in (kinds if number % 2 else reversed(kinds))
                for step in STEPS
                for task in kind(step, files)
            ]
            found = playbook.run(tasks, site, place)
        for way in WAYS:
            row: dict[str, object] = {"devices": count, "way": way, "turns": options.turns}
            for step in STEPS:
                results = found[f"{way} {step}"]
                if any(changed != (step != "unchanged") for *_spent, changed in results):
                    raise SystemExit(f"{way} {step}: changed is wrong")
                row[step] = figures.medians((wall, processor) for wall, processor, _changed in results)
            rows.append(row)
            print(row, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=paired.sizes, default=[1, 8, 64], help="numbers of devices")
    parser.add_argument("--turns", type=int, default=5, help="turns of each way (default: 5)")
    parser.add_argument("--checkout", default=os.getcwd(), help="a git checkout of the collection")
    parser.add_argument("--report", type=Path, help="a file for the figures")
    options = parser.parse_args()
    about = figures.machine()
    with tempfile.TemporaryDirectory(prefix="racefree-bench-", dir="/dev/shm") as place:
        rows = measure(options, place)
    if options.report:
        figures.keep(options.report, {"machine": about, "rows": rows})


if __name__ == "__main__":
    main()
