# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""
An adversary against names of disks: it gives a name's device to another disk while a tool uses the name.

A tool is started with a name of disk A and stopped before one of its system calls, a different one in each
try. The adversary then replaces A by B as far as the kernel permits: the same loop device or mapped device,
the same node, the same link. In half of the tries it does so while the tool stands, and in the others a
moment after the tool goes on, so that it can also strike within a system call. Until the tool ends, it tries
again. Afterwards it is determined which disk the tool has used. ``names_adversary.py --help`` lists the
options. Exit code 1 if a name of this collection ever led to B.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))

import ptrace
from differential import udev_stopped
from names_service import service
from names_tools import BY_NAME, KEY, TOOLS, Tool, begin
from names_world import CryptWorld, LoopWorld, MappedWorld, Striker, World

KINDS = {world.kind: world for world in (LoopWorld, MappedWorld, CryptWorld)}
OURS = ("by-diskseq", "/dev/racefree/dm-uuid")
NEVER, MANY = 10**6, 600
# Seconds: the longest delay of a strike after the tool goes on, and the pause between two.
DELAY, PAUSE = 0.002, 0.0005


class Attempts:
    """The tries of one tool with one name of A."""

    def __init__(self, world: World, tool: Tool, way: str, choose: random.Random, patience: float) -> None:
        self.world, self.tool, self.way = world, tool, way
        self.choose, self.patience = choose, patience
        self.striker = Striker()

    def one(self, count: int) -> tuple[str, int]:
        """
        Run the tool, stopped before its system call ``count``. Return the outcome, ``right``, ``refused`` or
        ``wrong``, and the number of calls that it made until then.
        """
        at_once = self.patience > 0 or self.choose.random() < 0.5
        delay = self.choose.uniform(0, DELAY)
        world = self.world
        world.make()

        def strike(pid: int, number: int) -> None:
            if at_once:
                time.sleep(self.patience)
                if world.swap():
                    return
            self.striker.start(world, delay, PAUSE)

        try:
            pid = begin(self.tool.command(world.names[self.way], world))
            dummy, code, calls = ptrace.stopped(pid, 0, count, strike)
            self.striker.stop()
            used = self.tool.used(world, code)
        finally:
            self.striker.stop()
            self.tool.undo(world)
            world.remove()
        return ("wrong" if "b" in used else "right" if used else "refused"), calls

    def row(self, tries: int) -> dict[str, object]:
        """Run the tool undisturbed, and then ``tries`` times with the adversary."""
        outcome, calls = self.one(NEVER)
        assert outcome == "right", f"{self.tool} by {self.way}, left alone: {outcome}"
        counts = {"right": 0, "refused": 0, "wrong": 0, "replaced": 0}
        begun = time.monotonic()
        for _number in range(tries):
            outcome, dummy = self.one(self._moment(calls))
            counts[outcome] += 1
            counts["replaced"] += self.world.replaced
        return {"tries": tries, **counts, "seconds": round(time.monotonic() - begun, 1)}

    def _moment(self, calls: int) -> int:
        """A system call to stop before. Few of the tries wait for the last of very many calls."""
        return self.choose.randint(1, MANY if calls > MANY and self.choose.random() < 0.8 else calls)


@contextlib.contextmanager
def arena(kind: str, grace_ms: int) -> Iterator[World]:
    """The services, without udev, and a world of this kind."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(udev_stopped())
        disks = stack.enter_context(service("--grace-ms", str(grace_ms)))
        identities = stack.enter_context(service("--disks", disks.mount, what="identity"))
        place = stack.enter_context(tempfile.TemporaryDirectory(prefix="adversary-", dir="/var/tmp"))
        os.mkdir(f"{place}/mnt")
        with open(KEY, "wb") as file:
            file.write(b"key")
        stack.callback(os.unlink, KEY)
        world = KINDS[kind](place, disks, identities.mount)
        stack.callback(world.close)
        yield world


def play(
    kind: str, tool: str, tries: int, others: int, seed: int, patience: float = 0.0, grace_ms: int = 200
) -> Iterator[dict[str, object]]:
    """
    Yield a row for each name of this kind of disk: ``tries`` with names of this collection, ``others`` with
    other names.
    """
    with arena(kind, grace_ms) as world:
        what = {**TOOLS, **BY_NAME}[tool]
        world.fill(what.prepare)
        for way in world.ways:
            count = tries if way in OURS else others
            if count:
                attempts = Attempts(world, what, way, random.Random(f"{seed} {way}"), patience)
                head = {"disk": kind, "tool": tool, "name": way, "kernel": os.uname().release}
                yield {**head, **attempts.row(count)}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tries", type=int, default=20, help="of each tool with each name of this collection"
    )
    parser.add_argument("--others", type=int, default=20, help="of each tool with each other name")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=list(KINDS), action="append")
    parser.add_argument("--tool", choices=[*TOOLS, *BY_NAME], action="append")
    parser.add_argument("--patience", type=float, default=0.0, help="seconds before the adversary strikes")
    parser.add_argument("--grace-ms", type=int, default=200, help="of the service")
    parser.add_argument("--plan", help="arguments of play() instead, a JSON list of dictionaries")
    options = parser.parse_args()
    wrong = 0
    for arguments in json.loads(options.plan) if options.plan else plan_of(options):
        for found in play(**arguments):
            print(json.dumps({**found, "late": arguments["patience"] > 0}), flush=True)
            wrong += int(str(found["wrong"])) if found["name"] in OURS else 0
    return 1 if wrong else 0


def plan_of(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The arguments of play() for each kind of disk and tool."""
    same = ("tries", "others", "seed", "patience", "grace_ms")
    return [
        {"kind": kind, "tool": tool, **{name: getattr(options, name) for name in same}}
        for kind in options.kind or KINDS
        for tool in options.tool or [*TOOLS, *BY_NAME]
        if (tool in BY_NAME) == (kind == CryptWorld.kind)
    ]


if __name__ == "__main__":
    sys.exit(main())
