# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Tells the same story in several ways, and writes down what happens.

The story: an image, a loop device over it, a mapped device over half of that, and a guest of QEMU that has
it as its disk; then all of it is removed. Three parts:

    times  the first run, a second one, and the removal, several turns, the ways in turn
    kills  the play is killed after a task that changed something, and run again; so is the removal
    reuse  between two tasks, somebody else takes the name of a device for another file

Runs on a kernel as a process: tests/story/run brings it there, with everything that it needs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(1, os.environ.get("RACEFREE_SITE", "/root/site"))
    sys.path.insert(1, os.path.join(sys.path[1], "tests"))

import figures
import host
import qemuhost
from places import ABSENT, PRESENT, WAYS
from plays import has_task, play

# (name on the page, phase, the task before which it happens, what somebody else does)
CASES = (
    ("the loop device's number, before the mapped device is made", PRESENT, "Make the mapped device", "loop"),
    ("the mapped device's name, before the guest starts", PRESENT, "Start the guest", "mapped"),
    ("the mapped device's name, before it is removed", ABSENT, "Remove the mapped device", "mapped"),
    ("the loop device's number, before it is removed", ABSENT, "Remove the loop device", "loop"),
)


def times(ways, turns):
    rows = {}
    # Python compiles Ansible at its first use.
    for phase in (PRESENT, ABSENT):
        play(ways[0], phase)
    for turn in range(turns):
        for way in ways if turn % 2 == 0 else ways[::-1]:
            host.clear()
            for phase, name in (("first", PRESENT), ("second", PRESENT), ("removal", ABSENT)):
                done = play(way, name)
                row = {"part": "times", "way": way, "phase": phase, "seconds": [], "said": done.said}
                row.update(ran=done.ran, changed=len(done.did("changed")), bytes=host.whose_bytes())
                row["left"] = host.left_at_last() if name == ABSENT else host.left()
                row = rows.setdefault((way, phase), row)
                row["seconds"].append(done.seconds)
                tell(f"{way}, {phase} run of turn {turn + 1}: {done.seconds} s, {done.said}")
    return list(rows.values())


def kills(ways, _turns):
    rows = []
    for way in ways:
        host.clear()
        # After the last task, there is nothing to interrupt.
        steps = [play(way, phase).did("changed")[:-1] for phase in (PRESENT, ABSENT)]
        for made, removed in itertools.zip_longest(*steps):
            host.clear()
            for phase, step in ((PRESENT, made), (ABSENT, removed)):
                row = {"part": "kills", "way": way, "phase": phase, "after": step}
                if step:
                    play(way, phase, stop=step)
                    row["left"] = host.left()
                row["again"] = play(way, phase).said
                row["bytes"] = host.whose_bytes()
                row["then"] = host.left_at_last() if phase == ABSENT else host.left()
                if step:
                    rows.append(row)
                tell(json.dumps(row))
    return rows


def reuse(ways, _turns):
    rows = []
    for way in ways:
        for name, phase, task, act in CASES:
            row = {"part": "reuse", "way": way, "case": name}
            if not has_task(way, phase, task):
                # There is no such device between two tasks.
                rows.append(dict(row, said=None))
                continue
            host.clear()
            if phase == ABSENT:
                play(way, PRESENT)
            done = play(way, phase, before=(task, act))
            row.update(said=done.said, bytes=host.whose_bytes(), others=host.others_is_there(act))
            row["again"], row["bytes again"] = play(way, phase).said, host.whose_bytes()
            if phase == PRESENT:
                row["removal"] = play(way, ABSENT).said
            row["others at last"], row["at last"] = host.others_is_there(act), host.left_at_last()
            rows.append(row)
            tell(json.dumps(row))
    return rows


PARTS = {"times": times, "kills": kills, "reuse": reuse}


def tell(text):
    print(text, flush=True)


def versions():
    """What the figures depend on."""

    def first(*argv):
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split("\n")[0]

    release = Path("/opt/ansible/ansible/release.py").read_text(encoding="utf-8")
    return {
        "ansible-core": re.search(r'__version__ = "(.+)"', release.replace("'", '"')).group(1),
        "community.libvirt": _version(Path("/opt/community/ansible_collections/community/libvirt")),
        "libvirt": first("virsh", "--version"),
        "QEMU": first("qemu-system-x86_64", "--version").split()[3],
        "util-linux": first("losetup", "--version").split()[-1],
    }


def _version(collection):
    """The version of a collection, from what ansible-galaxy wrote, or from its source."""
    manifest = collection / "MANIFEST.json"
    if manifest.is_file():
        return json.loads(manifest.read_text(encoding="utf-8"))["collection_info"]["version"]
    lines = (collection / "galaxy.yml").read_text(encoding="utf-8").splitlines()
    return next(line.split()[1] for line in lines if line.startswith("version:"))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=PARTS, action="append", help="default: all")
    parser.add_argument("--way", choices=WAYS, action="append", help="default: all")
    parser.add_argument("--turns", type=int, default=3, help="of the measurement of times")
    parser.add_argument("--load", type=float, default=0.0, help="load of the machine before")
    parser.add_argument("--report", metavar="FILE", help="write the results there")
    options = parser.parse_args()
    ways = options.way or list(WAYS)
    found = {"machine": dict(figures.machine(), load=options.load), "versions": versions(), "rows": []}
    host.make_images()
    with qemuhost.hook():
        for part in options.part or PARTS:
            found["rows"] += PARTS[part](ways, options.turns)
            if options.report:
                figures.keep(Path(options.report), found)
        host.clear()


if __name__ == "__main__":
    main()
