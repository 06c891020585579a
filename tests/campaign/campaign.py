# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The long test campaign, in pieces whose results are kept: see docs/campaign.md and docs/testing.md.

small: a few rounds of every family in one kernel, a step of make test. full: all pieces that have no result
yet, or whose code has changed. table: only generate docs/campaign.md and its plots again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import expected
import hosts
import pieces
import results

KERNEL = pieces.ROOT / "tests" / "kernel" / "kernel"
# Rounds of each family in the small size, always the same ones, and the time limit in seconds.
SMALL = {"swaps": 9, "kills": 8, "errors": 24, "pairs": 6}
SMALL_SECONDS = 120
GRACE = 400


def in_kernel(release, commands, timeout, place):
    """
    Run shell commands in a test kernel. The files that they write to /tmp/reports are then in ``place``.
    Returns the exit code.
    """
    script = "mkdir -p /tmp/reports; " + "; ".join(commands)
    return subprocess.run(
        [
            str(KERNEL),
            "run",
            "--release",
            release,
            "--timeout",
            str(timeout),
            "--site",
            "--pull",
            f"/tmp/reports:{place}",
            "--",
            "sh",
            "-c",
            script,
        ],
        check=False,
    ).returncode


def command(words, name):
    return " ".join(["python3", "-B", *words, "--report", f"/tmp/reports/{name}.json"])


def reports(place):
    """{name: result} of all reports that were copied back."""
    return {
        file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(Path(place).glob("*.json"))
    }


def small(options):
    families = [family for family in pieces.FAMILIES if family.name in SMALL]
    commands = [
        command(pieces.program(family, 0, 0, SMALL[family.name], SMALL_SECONDS), family.name)
        for family in families
    ]
    with tempfile.TemporaryDirectory() as parent:
        place = os.path.join(parent, "reports")
        code = in_kernel(options.release[0], commands, len(SMALL) * SMALL_SECONDS + GRACE, place)
        found = reports(place) if os.path.isdir(place) else {}
    said = expected.judge(found.values(), expected.read(expected.FILE.read_text(encoding="utf-8")))
    if set(found) != {family.name for family in families}:
        said.append(f"not every family came to its end: {', '.join(found) or 'none'} did, exit code {code}")
    for text in said:
        print(text)
    return 1 if said else 0


def full(options):
    code = on_hosts(options) if "host" in (options.family or ()) else 0
    end = time.monotonic() + options.minutes * 60 if options.minutes else None
    for release in options.release:
        for family in pieces.FAMILIES:
            if options.family and family.name not in options.family:
                continue
            key = pieces.key(family)
            for index in range(family.pieces):
                code = max(code, one_piece(options, release, family, index, key, end))
    write_table()
    return code


def on_hosts(options):
    """
    Run for the given number of minutes on an emulated host of each requested release; returns the exit code.
    """
    family = pieces.HOST
    for release in options.release:
        if release not in pieces.HOST_RELEASES:
            print(
                f"host: --release {' or '.join(pieces.HOST_RELEASES)}, not {release}: emulated hosts are "
                "of these"
            )
            return 2
        key, before = pieces.key(family), results.kept(release, family, 0)
        if before is not None and before["key"] != key:
            before = None
        found = hosts.run(release, options.minutes or family.rounds)
        results.keep(release, family, 0, key, results.add(before, found))
    return 0


def one_piece(options, release, family, index, key, end):
    """Complete a piece, in parts of at most an hour, while there is time; returns the exit code."""
    while True:
        before = results.kept(release, family, index)
        if before is not None and before["key"] != key:
            before = None
        if before is not None and results.is_whole(family, before, release):
            return 0
        seconds = pieces.HOUR if end is None else min(pieces.HOUR, int(end - time.monotonic()))
        if options.seconds:
            seconds = min(seconds, options.seconds)
        if seconds < 30:
            return 0
        if part(release, family, index, key, seconds, before):
            return 1
        if options.seconds:
            return 0


def part(release, family, index, key, seconds, before):
    """Run the next part of a piece; returns 0 if its result was kept."""
    first = before["rounds"] if before else 0
    print(f"{family.name}, piece {index + 1} of {family.pieces}, from {first}, on {release}", flush=True)
    with tempfile.TemporaryDirectory() as parent:
        place = os.path.join(parent, "reports")
        program = pieces.program(family, index, first, family.rounds_on(release) - first, seconds, release)
        in_kernel(release, [command(program, "it"), "true"], seconds + GRACE, place)
        found = reports(place) if os.path.isdir(place) else {}
    if "it" not in found:
        print(f"{family.name} on {release}: no result; the kernel's words are above", flush=True)
        return 1
    result = results.of_tables(found["it"]) if family.name == "tables" else found["it"]
    results.keep(release, family, index, key, results.add(before, result))
    return 0


def write_table(_options=None):
    for path, text in results.pages().items():
        path.write_text(text, encoding="utf-8")
    return 0


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("size", choices=("small", "full", "table"))
    parser.add_argument(
        "--release", action="append", choices=pieces.RELEASES, help="kernels (default: the testing suite's)"
    )
    parser.add_argument(
        "--family", action="append", choices=[family.name for family in (*pieces.FAMILIES, pieces.HOST)]
    )
    parser.add_argument("--minutes", type=int, help="begin nothing that would take longer than this in all")
    parser.add_argument("--seconds", type=int, help="no piece takes longer")
    options = parser.parse_args()
    options.release = options.release or [pieces.RELEASES[0]]
    return {"small": small, "full": full, "table": write_table}[options.size](options)


if __name__ == "__main__":
    sys.exit(main())
