# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Measures loop devices: the collection's modules beside losetup in a shell loop and a C program with the bare
system calls, and, with --base, beside another version of the collection.

All of them alternately create, find, list and remove the same number of devices. Each run of a module is a
process, as under Ansible; Ansible's own part is not in it. Run as root on a machine that does nothing else.
``loops.py --help`` lists the options.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import figures
import modules
import paired

HERE = os.path.dirname(os.path.abspath(__file__))
SIZES = [1, 8, 64, 256, 1000, 4000]
# From so many devices on, fewer turns: they take longer, and differ less from each other.
MANY, MANY_TURNS = 1000, 3
LOOP_CTL_REMOVE = 0x4C81


def of_collection(name: str, site: str, files: list[str]) -> paired.Way:
    present = [{"backing_file": path} for path in files]
    absent = [{"backing_file": path, "state": "absent"} for path in files]
    return paired.of_collection(name, site, "loop_devices", present, absent)


def of_losetup(place: str, files: list[str], most: int) -> paired.Way:
    names = os.path.join(place, "names")
    return paired.Way("losetup", lambda step: paired.program(f"{HERE}/losetup.sh", step, names, *files), most)


def of_bare_calls(program: str, files: list[str]) -> paired.Way:
    return paired.Way("bare calls", lambda step: paired.program(program, step, *files))


def make_files(place: str, count: int) -> list[str]:
    files = [os.path.join(place, f"{number}.raw") for number in range(count)]
    for path in files:
        with open(path, "wb") as file:
            file.truncate(1 << 20)
    return files


def numbers() -> set[int]:
    """The numbers of all loop devices, bound or not."""
    matches = (re.fullmatch("loop([0-9]+)", name) for name in os.listdir("/sys/block"))
    return {int(match.group(1)) for match in matches if match}


@contextlib.contextmanager
def as_before(place: str) -> Iterator[None]:
    """
    At the end, detach loop devices over files in ``place``, which only a failed run leaves, and remove unused
    loop devices that were not there before: the kernel would keep them. Others that are just about to bind
    one of these fail, which is one reason to let the machine do nothing else.
    """
    before = numbers()
    try:
        yield
    finally:
        for path in Path("/sys/block").glob("loop*/loop/backing_file"):
            with contextlib.suppress(FileNotFoundError):
                if path.read_text(encoding="utf-8").startswith(place + "/"):
                    subprocess.run(["losetup", "--detach", f"/dev/{path.parts[3]}"], check=True)
        with open("/dev/loop-control", "rb") as control:
            for number in numbers() - before:
                with contextlib.suppress(OSError):
                    fcntl.ioctl(control, LOOP_CTL_REMOVE, number)


def measure(options: argparse.Namespace, place: str, about: dict[str, Any]) -> None:
    """Measure each number of devices; the report has those that are done."""
    sites = {"loop_devices": os.path.join(place, "this")}
    modules.unpack(options.checkout, None, sites["loop_devices"])
    if options.base:
        sites[options.base] = os.path.join(place, "base")
        modules.unpack(options.checkout, options.base, sites[options.base])
    program = paired.compiled(f"{HERE}/bare_loops.c", os.path.join(place, "bare_loops"))
    rows: list[dict[str, object]] = []
    for count in options.sizes:
        with tempfile.TemporaryDirectory(dir=place) as folder, as_before(folder):
            files = make_files(folder, count)
            bare = of_bare_calls(program, files)
            ways = [of_collection(name, site, files) for name, site in sites.items()]
            if not options.base:
                ways += [of_losetup(folder, files, options.shell_most), bare]
            # The kernel keeps devices that it has made. This round makes all of them.
            paired.turn(bare)
            turns = options.turns if count < MANY else min(options.turns, MANY_TURNS)
            rows += paired.rows(count, ways, turns)
        paired.show(row for row in rows if row["devices"] == count)
        if options.report:
            figures.keep(options.report, {"machine": about, "rows": rows})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=paired.sizes, default=SIZES, help="numbers of devices")
    parser.add_argument("--turns", type=int, default=5, help="turns of each way (default: 5)")
    parser.add_argument("--shell-most", type=int, default=4000, help="losetup: no more devices than this")
    parser.add_argument("--base", metavar="REVISION", help="a version of the collection to compare with")
    parser.add_argument("--checkout", default=os.getcwd(), help="a git checkout of the collection")
    parser.add_argument("--report", type=Path, help="a file for the figures")
    options = parser.parse_args()
    if os.geteuid():
        raise SystemExit("loop devices need root: run this as root")
    about = figures.machine()
    with tempfile.TemporaryDirectory(prefix="racefree-bench-", dir="/dev/shm") as place:
        measure(options, place, about)


if __name__ == "__main__":
    main()
