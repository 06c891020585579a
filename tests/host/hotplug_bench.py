# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Measures the hotplug script alternately with Xen's own script and with a C program that does the least that
any script must do (bare_hotplug.c), on the same host: one call at a time and several at once, with its
service and without.

Run it on a Xen host: python3 hotplug_bench.py --help. It makes a guest that answers for no disk, so that only
the scripts and blkback are measured.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))

import figures
import hotplug

GUEST = "bench"
BARE = "/etc/xen/scripts/block-bare"
OURS, OTHERS = ("with service", "alone"), ("Xen's own", "C program")
# What is compared, and what is measured with it.
WAYS = {
    "with service": (hotplug.SCRIPT, contextlib.nullcontext),
    "alone": (hotplug.SCRIPT, hotplug.alone),
    "Xen's own": (hotplug.STOCK, contextlib.nullcontext),
    "C program": (BARE, contextlib.nullcontext),
}


def together(disks, command):
    """Seconds from the first start to the last end of the scripts, all at once."""
    began = time.monotonic()
    processes = [disk.start(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for disk in disks]
    for process in processes:
        output = process.communicate(timeout=300)[0]
        assert process.returncode == 0 or command == "remove", output
    return time.monotonic() - began


def turn(store, script, targets):
    """``(seconds of add, seconds of remove)`` with one disk for each target."""
    with contextlib.ExitStack() as stack:
        disks = [
            stack.enter_context(hotplug.Disk(store, GUEST, number, target, script=script))
            for number, target in enumerate(targets)
        ]
        hotplug.udev_settled()
        added = together(disks, "add")
        assert all(disk.node("hotplug-status") == "connected" for disk in disks)
        for disk in disks:
            disk.ask_back()
        for disk in disks:
            disk.wait_for("state", "6", 60)
        hotplug.udev_settled()
        removed = together(disks, "remove")
    hotplug.wait_no_loops(KEPT)
    return added, removed


KEPT = []


def attach(stack, path):
    """The path of a loop device over the file, which is removed with the ExitStack."""
    device = (
        subprocess.run(["losetup", "--show", "-f", path], check=True, stdout=subprocess.PIPE)
        .stdout.decode()
        .strip()
    )
    stack.callback(subprocess.run, ["losetup", "-d", device], check=True)
    return device


@contextlib.contextmanager
def bare_script():
    """Install the C program, which tests/setup/site compiles, as a script."""
    shutil.copy(os.path.join(os.path.dirname(os.path.abspath(__file__)), "bare_hotplug"), BARE)
    os.chmod(BARE, 0o755)
    try:
        yield
    finally:
        os.unlink(BARE)


def make_loops(files):
    """
    Make the loop devices in advance; they stay when they are unbound. Otherwise only the first run would have
    to make them.
    """
    with contextlib.ExitStack() as stack:
        for path in files:
            attach(stack, path)
    hotplug.wait_no_loops(KEPT)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--way", choices=list(WAYS), action="append", help="only this one")
    parser.add_argument("--report", type=Path, help="a file for the figures, for docs/speed/hotplug.json")
    options = parser.parse_args()
    ways = options.way or list(WAYS)
    measured = {"machine": figures.machine(), "rows": []}
    with (
        hotplug.mute_guest(GUEST),
        tempfile.TemporaryDirectory() as place,
        contextlib.ExitStack() as stack,
        hotplug.installed(),
        bare_script(),
        hotplug.Service(),
    ):
        store = stack.enter_context(hotplug.connect())
        files, devices = [], []
        for number in range(options.at_once):
            for kind in (files, devices):
                path = os.path.join(place, f"{len(kind)}-{'file' if kind is files else 'device'}.raw")
                with open(path, "wb") as file:
                    file.truncate(1 << 20)
                kind.append(path)
        devices = [attach(stack, path) for path in devices]
        KEPT.extend(hotplug.loops())
        make_loops(files)
        for count in (1, options.at_once):
            for kind, targets in (("device", devices), ("file", files)):
                times = {way: [] for way in ways}
                turns = options.turns if count == 1 else max(1, options.turns // 2)
                for number in range(turns):
                    for way in ways if number % 2 == 0 else reversed(ways):
                        script, around = WAYS[way]
                        with around():
                            times[way].append(turn(store, script, targets[:count]))
                measured["rows"] += report(kind, count, times)
                if options.report:
                    figures.keep(options.report, measured)
    return 0


def report(kind, count, times):
    """Print the medians and the ratios; a row for each way."""
    rows = []
    for way, found in times.items():
        added, removed = (round(statistics.median(values), 3) for values in zip(*found))
        both = statistics.median(sum(pair) for pair in found)
        rows.append(
            {"disks": count, "kind": kind, "way": way, "turns": len(found), "add": added, "remove": removed}
        )
        print(f"{count} {kind:7} {way:13} add {added:7.2f} s  remove {removed:7.2f} s  both {both:7.2f} s")
    for way in filter(times.get, OURS):
        for other in filter(times.get, OTHERS):
            pairs = [(sum(own), sum(its)) for own, its in zip(times[way], times[other])]
            ratio = statistics.median(own / its for own, its in pairs)
            print(f"{count} {kind:7} {way}: {ratio:.2f} times as long as {other}", flush=True)
    return rows


if __name__ == "__main__":
    sys.exit(main())
