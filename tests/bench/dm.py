# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Measures mapped devices: dm_devices beside dmsetup in a shell loop and a C program with the bare system calls.

All of them alternately create, find, list and remove the same number of linear devices over one loop device.
Without device-mapper on this machine, it does so on a kernel that runs as a process. ``dm.py --help`` lists
the options.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import figures
import kernel
import modules
import paired

HERE = os.path.dirname(os.path.abspath(__file__))
SIZES = [1, 8, 64, 256, 1000, 4000]
# A kernel that runs as a process is slower.
INSIDE_SIZES = [1, 8, 64, 256, 1000]
MANY, MANY_TURNS = 256, 3
SECTORS = 8


def of_collection(site: str, device: dict[str, Any], names: list[str]) -> paired.Way:
    present = [
        {"name": name, "table": f"0 {SECTORS} linear diskseq:{device['diskseq']} {SECTORS * number}"}
        for number, name in enumerate(names)
    ]
    absent = [{"name": name, "state": "absent"} for name in names]
    return paired.of_collection("dm_devices", site, "dm_devices", present, absent)


def ways(site: str, device: dict[str, Any], program: str, count: int) -> list[paired.Way]:
    names = [f"racefree-bench-{number}" for number in range(count)]
    number = f"{device['major']}:{device['minor']}"
    return [
        of_collection(site, device, names),
        paired.Way("dmsetup", lambda step: paired.program(f"{HERE}/dmsetup.sh", step, number, *names)),
        paired.Way("bare calls", lambda step: paired.program(program, step, number, *names)),
    ]


def measure(options: argparse.Namespace, place: str, about: dict[str, Any]) -> None:
    """Measure each number of devices; the report has those that are done."""
    if options.inside:
        # There is no compiler: tests/setup/site has compiled it.
        site, program = options.inside, f"{options.inside}/tests/bare_dm"
    else:
        site = os.path.join(place, "this")
        modules.unpack(options.checkout, None, site)
        program = paired.compiled(f"{HERE}/bare_dm.c", os.path.join(place, "bare_dm"))
    image = os.path.join(place, "image.raw")
    with open(image, "wb") as file:
        file.truncate(512 * SECTORS * max(options.sizes))
    device = modules.call(site, "loop_device", backing_file=image)["device"]
    rows: list[dict[str, object]] = []
    try:
        for count in options.sizes:
            turns = options.turns if count < MANY else min(options.turns, MANY_TURNS)
            chosen = ways(site, device, program, count)
            rows += paired.rows(count, chosen, turns)
            paired.show(rows[-len(chosen) :])
            if options.report:
                figures.keep(options.report, {"machine": about, "rows": rows})
    finally:
        modules.call(site, "loop_device", backing_file=image, state="absent")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=paired.sizes, help="numbers of devices")
    parser.add_argument("--turns", type=int, default=5, help="turns of each way (default: 5)")
    parser.add_argument("--checkout", default=os.getcwd(), help="a git checkout of the collection")
    parser.add_argument("--report", type=Path, help="a file for the figures")
    parser.add_argument("--inside", metavar="SITE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.inside and not kernel.has_device_mapper():
        print("This machine has no device-mapper: on a kernel that runs as a process", flush=True)
        words = ["--sizes", ",".join(map(str, options.sizes or INSIDE_SIZES)), "--turns", str(options.turns)]
        kernel.run(options.checkout, "dm.py", words, options.report)
        return
    options.sizes = options.sizes or SIZES
    about = figures.machine()
    ping = subprocess.run(["udevadm", "control", "--ping"], capture_output=True, check=False)
    about["udev"] = ping.returncode == 0
    about["as a process"] = bool(options.inside)
    with tempfile.TemporaryDirectory(prefix="racefree-bench-", dir="/tmp") as place:
        measure(options, place, about)


if __name__ == "__main__":
    main()
