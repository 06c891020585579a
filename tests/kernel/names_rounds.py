# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Rounds of tries with each name of a disk, for tools that give the disk to a guest (names_xen.py and
names_qemu.py): the adversary begins at a random moment of the tool's run, and tries again until the tool has
ended.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from differential import udev_stopped
from names_service import Service, service
from names_world import LoopWorld, MappedWorld, Striker, World

# Milliseconds of the grace time: the role's default, and one that outlives every tool.
SHORT, LONG = 200, 600000
# Seconds between two tries of the adversary.
PAUSE = 0.002
COUNTS = ("tries", "replaced", "right", "refused", "wrong")


class Way(NamedTuple):
    """``title`` in the table, the kind of disk, the disk's name in that world, the grace time in ms."""

    title: str
    kind: type[World]
    name: str
    grace_ms: int


WAYS = (
    Way("by-diskseq, grace time of minutes", MappedWorld, "by-diskseq", LONG),
    Way("by-diskseq, grace time 200 ms", MappedWorld, "by-diskseq", SHORT),
    Way("/dev/mapper", MappedWorld, "/dev/mapper", SHORT),
    Way("/dev/loopN", LoopWorld, "/dev/loopN", SHORT),
)
SAFE = WAYS[0].title
OURS = tuple(way.title for way in WAYS if way.name == "by-diskseq")


class Tool(Protocol):
    """
    What gives a disk to a guest. ``guest()`` is a context in which this is possible. ``attach(path)`` returns
    the disk sequence number of what the guest has then, or None. ``detach()`` undoes it, whatever happened.
    """

    def guest(self) -> AbstractContextManager[None]: ...

    def attach(self, path: str) -> int | None: ...

    def detach(self) -> None: ...


class Attempts:
    """The tries of one tool with one name."""

    def __init__(self, tool: Tool, world: World, disks: Service, way: str, seed: str) -> None:
        self.tool, self.world, self.disks, self.way = tool, world, disks, way
        self.choose = random.Random(seed)
        self.counts = dict.fromkeys(COUNTS, 0)
        self.seconds = 0.0

    def left_alone(self) -> None:
        """Without the adversary, the guest gets the disk; measures how long that takes."""
        outcome, self.seconds = self._one(None)
        assert outcome == "right", f"{self.way}, left alone: {outcome}"

    def one(self) -> None:
        outcome, dummy = self._one(self.choose.uniform(0, self.seconds))
        self.counts["tries"] += 1
        self.counts[outcome] += 1
        self.counts["replaced"] += self.world.replaced

    def _one(self, delay: float | None) -> tuple[str, float]:
        world = self.world
        world.disks = self.disks
        world.make()
        striker = Striker()
        if delay is not None:
            striker.start(world, delay, PAUSE)
        begun = time.monotonic()
        try:
            found = self.tool.attach(world.names[self.way])
            took = time.monotonic() - begun
        finally:
            striker.stop()
            self.tool.detach()
            world.remove()
        return "refused" if found is None else "right" if found == world.diskseq else "wrong", took


def rows(
    title: str, tool: Tool, tries: int, minutes: float, seed: int, every: int = 1
) -> list[dict[str, object]]:
    """
    Rounds of one try with each name, until there are so many or the time is over. Names that are not by disk
    sequence number are tried in each ``every``-th round only.
    """
    end = time.monotonic() + 60 * minutes
    with contextlib.ExitStack() as stack:
        stack.enter_context(tool.guest())
        stack.enter_context(udev_stopped())
        services = {
            grace: stack.enter_context(service("--grace-ms", str(grace), mount=f"/dev/names-{grace}"))
            for grace in (SHORT, LONG)
        }
        worlds = {}
        for kind in (MappedWorld, LoopWorld):
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix="names-rounds-", dir="/var/tmp"))
            worlds[kind] = kind(place, services[SHORT], "/none")
            stack.callback(worlds[kind].close)
            worlds[kind].fill(lambda path: None)
        attempts = {
            way.title: Attempts(
                tool, worlds[way.kind], services[way.grace_ms], way.name, f"{seed} {title} {way.title}"
            )
            for way in WAYS
        }
        for one in attempts.values():
            one.left_alone()
        for number in range(tries):
            for name, one in attempts.items():
                is_due = name in OURS or number % every == 0
                if is_due and time.monotonic() < end:
                    one.one()
    head = {"kernel": os.uname().release, "tool": title}
    return [{**head, "name": name, **one.counts} for name, one in attempts.items()]


def main(description: str, tools: Mapping[str, Callable[[], Tool]]) -> int:
    """
    The program around ``rows()``: prints a row in JSON for each tool and name. Returns 1 if a name by disk
    sequence number, with a grace time longer than any run of a tool, ever led to the other disk.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tool", choices=list(tools), action="append")
    parser.add_argument("--tries", type=int, default=1000, help="of each tool with each name")
    parser.add_argument("--minutes", type=float, default=10, help="for each tool")
    parser.add_argument(
        "--every",
        type=int,
        default=1,
        help="try names that are not by disk sequence number in every Nth round",
    )
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    wrong = 0
    for tool in options.tool or tools:
        for row in rows(tool, tools[tool](), options.tries, options.minutes, options.seed, options.every):
            print(json.dumps(row), flush=True)
            wrong += row["name"] == SAFE and int(str(row["wrong"]))
    return int(wrong > 0)
