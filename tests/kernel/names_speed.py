# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""
Compare the cost of a name by disk sequence number with a plain node: lookups and opens, interleaved, in
microseconds; and the cost of ``ls -l`` and ``find`` with different numbers of disks.

``names_speed.py [--tries N] [--lookups N] [--disks N,N,...]``; needs root and the library pyfuse3.
RACEFREE_SITE is the path of the collection. Exit code 1 if the median of a lookup is more than 200 us, that
of an open more than 60 times that of a plain open, anything is held at the end, or a listing of the most
disks takes more than 1.5 times as long for each disk as one of the fewest. With ``--instructions`` only the
listings are measured, by how many of Python's instructions the service executes, until it holds nothing
any more: this does not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from statistics import median, quantiles

if __name__ == "__main__":
    sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))

import rawdev
from differential import udev_stopped
from names_service import Service, diskseq_of, losetup, service, wait_for

# Of the first of the loop devices that are listed.
FIRST = 2000
ROUNDS = 3
LISTINGS = {"ls -l": ["ls", "-l"], "find": ["find"]}


class Counted(Service):
    """A service that counts the instructions of Python that it executes, and writes them down at SIGUSR1."""

    prelude = """
import signal, sys, threading
count = [0]
def trace(frame, event, argument):
    if event == "opcode":
        count[0] += 1
    elif event == "call":
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
    return trace
def show(number, frame):
    with open("/run/names-speed", "w") as file:
        file.write(f"{count[0]} ")
signal.signal(signal.SIGUSR1, show)
threading.settrace(trace)
sys.settrace(trace)
"""

    def instructions(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            os.unlink("/run/names-speed")
        os.kill(self.pid, signal.SIGUSR1)
        wait_for(lambda: os.path.exists("/run/names-speed") and os.path.getsize("/run/names-speed") > 0)
        with open("/run/names-speed", encoding="ascii") as file:
            return int(file.read())


def took(path: str, flags: int) -> float:
    """Microseconds for an open and a close."""
    begun = time.perf_counter_ns()
    os.close(os.open(path, flags))
    return (time.perf_counter_ns() - begun) / 1000


@contextlib.contextmanager
def disks(path: str, most: int) -> Iterator[None]:
    """Loop devices for a file, in addition to those that are there, in steps: the numbers from FIRST on."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for number in range(FIRST, FIRST + most):
            rawdev.add_loop(number)
        yield
    finally:
        os.close(file)
        for number in range(FIRST, FIRST + most):
            rawdev.unbind(f"/dev/loop{number}")
            rawdev.remove_loop(number)


def listings(names: Service, path: str, counts: list[int]) -> list[dict[str, object]]:
    """
    A row for each number of disks: milliseconds of each listing, or its instructions, the median of ROUNDS.
    """
    rows = []
    with disks(path, counts[-1]), open(path, "rb") as file:
        bound = 0
        for count in counts:
            for number in range(FIRST + bound, FIRST + count):
                rawdev.bind(f"/dev/loop{number}", file.fileno())
            bound, row = count, {"disks": count}
            for what, command in LISTINGS.items():
                row[what] = round(median(ran(names, command) for _round in range(ROUNDS)), 1)
            rows.append(row)
            print(json.dumps(row), flush=True)
    return rows


def ran(names: Service, command: list[str]) -> float:
    """Milliseconds that the command took, or how many instructions the service needed for it."""
    before = names.instructions() if isinstance(names, Counted) else 0
    begun = time.perf_counter_ns()
    subprocess.run([*command, names.mount], check=True, stdout=subprocess.DEVNULL)
    milliseconds = (time.perf_counter_ns() - begun) / 1e6
    if not isinstance(names, Counted):
        return milliseconds
    wait_for(lambda: not names.pins(), 120)
    return names.instructions() - before


def is_linear(rows: list[dict[str, object]]) -> bool:
    """Whether the most disks cost at most 1.5 times as much for each disk as the fewest."""
    first, last = rows[0], rows[-1]
    return all(
        float(str(last[what])) / int(str(last["disks"]))
        <= 1.5 * float(str(first[what])) / int(str(first["disks"]))
        for what in LISTINGS
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tries", type=int, default=5000, help="of each, in turns")
    parser.add_argument("--lookups", type=int, default=100000, help="after which nothing may be held")
    parser.add_argument("--disks", default="250,500,1000", help="numbers of disks to list, or nothing")
    parser.add_argument("--instructions", action="store_true", help="count them for listings; nothing else")
    options = parser.parse_args()
    counts = sorted(int(count) for count in filter(None, options.disks.split(",")))
    if options.instructions:
        with tempfile.TemporaryDirectory() as place, udev_stopped(), service(kind=Counted) as counted:
            with open(f"{place}/disk.raw", "wb") as file:
                file.truncate(2**20)
            return 0 if is_linear(listings(counted, f"{place}/disk.raw", counts)) else 1
    times: dict[str, list[float]] = {"look-up": [], "open": [], "plain open": []}
    with tempfile.TemporaryDirectory() as place, service() as names:
        with open(f"{place}/disk.raw", "wb") as file:
            file.truncate(2**20)
        node = losetup(f"{place}/disk.raw")
        try:
            path = names.path(diskseq_of(node))
            for _number in range(options.tries):
                times["look-up"].append(took(path, os.O_PATH))
                times["open"].append(took(path, os.O_RDONLY))
                times["plain open"].append(took(node, os.O_RDONLY))
            for _number in range(options.lookups):
                os.stat(path)
            free = names.no_pins()
            listed = listings(names, f"{place}/disk.raw", counts) if counts else []
        finally:
            subprocess.run(["losetup", "-d", node], check=True)
    row: dict[str, object] = {"no device held after": options.lookups if free else "NOT SO"}
    for what, values in times.items():
        row[what] = {"median": round(median(values), 1), "99 %": round(quantiles(values, n=100)[98], 1)}
    ratio = median(times["open"]) / median(times["plain open"])
    print(json.dumps({**row, "open / plain open": round(ratio, 1)}))
    good = free and median(times["look-up"]) <= 200 and ratio <= 60 and (not listed or is_linear(listed))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
