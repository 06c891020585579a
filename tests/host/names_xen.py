# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
An adversary against names of disks that go to Xen guests: it gives the name's device to another disk while
Xen's own hotplug script, ``xl block-attach``, ``virsh attach-disk`` or ``virsh start`` uses the name. All of
them resolve the name to a device number, and blkback opens the device by that number later.

The adversary begins at a random moment of the tool's run, and tries again until the tool has ended. Then it
is read from sysfs which disk blkback has open. ``names_xen.py --help`` lists the options. It prints a row in
JSON for each tool and name (``tests/kernel/names_campaign.py hosts`` stores them). Exit code 1 if a name by
disk sequence number, with a grace time longer than any run of a tool, ever led to the other disk.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

if __name__ == "__main__":
    sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))

import hotplug
from conftest import wait_until
from differential import udev_stopped
from libvirthost import definition
from names_service import Service, service
from names_world import LoopWorld, MappedWorld, Striker, World

GUEST = "names-xen"
VDEV, NUMBER = "xvdb", 51728
# Milliseconds of the grace time: the role's default, and one that outlives every tool.
SHORT, LONG = 200, 600000
PAUSE = 0.002
# Seconds.
TOOL_SECONDS = 240
COUNTS = ("tries", "replaced", "right", "refused", "wrong")
# The name in the table, the kind of disk, its name in the world, and the grace time.
WAYS = (
    ("by-diskseq, grace time of minutes", MappedWorld, "by-diskseq", LONG),
    ("by-diskseq, grace time 200 ms", MappedWorld, "by-diskseq", SHORT),
    ("/dev/mapper", MappedWorld, "/dev/mapper", SHORT),
    ("/dev/loopN", LoopWorld, "/dev/loopN", SHORT),
)
SAFE = WAYS[0][0]
OURS = tuple(name for name, *_more in WAYS if name.startswith("by-diskseq"))


def ran(*command: str) -> int:
    """The command's exit code, or -1 if it took too long."""
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=TOOL_SECONDS)
    except subprocess.TimeoutExpired:
        return -1
    return done.returncode


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=TOOL_SECONDS).stdout


def served(domid: str, devid: int) -> int | None:
    """The disk sequence number of what blkback has open for the guest's disk, or None."""
    base = f"/sys/bus/xen-backend/devices/vbd-{domid}-{devid}"
    try:
        # There as long as blkback has the device open, which therefore keeps its number.
        with open(f"{base}/physical_device", encoding="ascii") as file:
            major, minor = (int(part, 16) for part in file.read().split(":"))
        with open(f"/sys/dev/block/{major}:{minor}/diskseq", encoding="ascii") as file:
            found = int(file.read())
        return found if os.path.exists(f"{base}/physical_device") else None
    except FileNotFoundError:
        return None


class Script:
    """Xen's own script, called as libxl does, for a disk whose nodes are written as libxl does."""

    def __init__(self) -> None:
        self.number = 0

    @contextlib.contextmanager
    def guest(self) -> Iterator[None]:
        with hotplug.mute_guest(GUEST), hotplug.connect() as self.store:
            self.domid = output("xl", "domid", GUEST).strip()
            yield

    def attach(self, path: str) -> int | None:
        # A number of its own for each try.
        self.number = (self.number + 1) % 14
        self.disk = hotplug.Disk(
            self.store, GUEST, self.number, path, script=hotplug.STOCK, bare=True
        ).__enter__()
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self.disk.call("add")[0]:
                return None
        # blkback opens the device when the number is written, and ends with state 5 if it cannot.
        wait_until(lambda: self._served() is not None or self.disk.node("state") != "2", 30)
        return self._served()

    def _served(self) -> int | None:
        return served(self.domid, self.disk.devid)

    def detach(self) -> None:
        self.disk.call("remove")
        self.disk.remove_nodes(60)


class Attach:
    """A command that gives a disk to a running guest."""

    def __init__(self, attach: list[str], detach: list[str], *options: str) -> None:
        self._attach, self._detach, self._options = attach, detach, options

    @contextlib.contextmanager
    def guest(self) -> Iterator[None]:
        ran("xenguest", "stop", GUEST)
        subprocess.run(["xenguest", "start", *self._options, "--memory", "128", GUEST], check=True)
        try:
            self.domid = output("xl", "domid", GUEST).strip()
            yield
        finally:
            ran("xenguest", "stop", GUEST)

    def attach(self, path: str) -> int | None:
        ran(*(word.format(path) for word in self._attach))
        return served(self.domid, NUMBER)

    def detach(self) -> None:
        ran(*self._detach)
        # libvirt does not know a disk whose attachment failed, and libxl may have left it in XenStore.
        ran("xl", "block-detach", GUEST, VDEV)
        wait_until(lambda: served(self.domid, NUMBER) is None, 120)


class Start:
    """``virsh start`` of a guest that has the path in its definition."""

    @contextlib.contextmanager
    def guest(self) -> Iterator[None]:
        with tempfile.TemporaryDirectory() as self.place:
            self.domid = ""
            yield

    def attach(self, path: str) -> int | None:
        disk = (
            f"<disk type='block' device='disk'><driver name='phy'/><source dev='{path}'/>"
            f"<target dev='{VDEV}' bus='xen'/></disk>"
        )
        with open(f"{self.place}/guest.xml", "w", encoding="utf-8") as file:
            file.write(definition(GUEST, disk))
        ran("virsh", "-c", "xen:///system", "define", f"{self.place}/guest.xml")
        ran("virsh", "-c", "xen:///system", "start", "--paused", GUEST)
        self.domid = output("xl", "domid", GUEST).strip()
        return served(self.domid, NUMBER) if self.domid else None

    def detach(self) -> None:
        ran("virsh", "-c", "xen:///system", "destroy", GUEST)
        wait_until(lambda: not self.domid or served(self.domid, NUMBER) is None, 120)
        # A definition without a UUID does not replace another one.
        ran("virsh", "-c", "xen:///system", "undefine", GUEST)


TOOLS: dict[str, Callable[[], Script | Attach | Start]] = {
    "Xen's own script": Script,
    "xl block-attach": lambda: Attach(
        ["xl", "block-attach", GUEST, "phy:{}", VDEV, "w"], ["xl", "block-detach", GUEST, VDEV]
    ),
    "virsh attach-disk": lambda: Attach(
        ["virsh", "attach-disk", GUEST, "{}", VDEV, "--sourcetype", "block", "--driver", "phy", "--live"],
        ["virsh", "detach-disk", GUEST, VDEV, "--live"],
        "--libvirt",
    ),
    "virsh start": Start,
}


class Attempts:
    """The tries of one tool with one name."""

    def __init__(
        self, tool: Script | Attach | Start, world: World, disks: Service, way: str, seed: str
    ) -> None:
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


def rows(tool: str, tries: int, minutes: float, seed: int, every: int = 1) -> list[dict[str, object]]:
    """
    Rounds of one try with each name, until there are so many or the time is over. Names that are not by disk
    sequence number are tried in each ``every``-th round only.
    """
    end = time.monotonic() + 60 * minutes
    made = TOOLS[tool]()
    with contextlib.ExitStack() as stack:
        stack.enter_context(made.guest())
        stack.enter_context(udev_stopped())
        services = {grace: stack.enter_context(service("--grace-ms", str(grace))) for grace in (SHORT, LONG)}
        worlds = {}
        for kind in (MappedWorld, LoopWorld):
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix="names-xen-", dir="/var/tmp"))
            worlds[kind] = kind(place, services[SHORT], "/none")
            stack.callback(worlds[kind].close)
            worlds[kind].fill(lambda path: None)
        attempts = {
            name: Attempts(made, worlds[kind], services[grace], way, f"{seed} {tool} {name}")
            for name, kind, way, grace in WAYS
        }
        for one in attempts.values():
            one.left_alone()
        for number in range(tries):
            for name, one in attempts.items():
                is_due = name in OURS or number % every == 0
                if is_due and time.monotonic() < end:
                    one.one()
    head = {"kernel": os.uname().release, "tool": tool}
    return [{**head, "name": name, **one.counts} for name, one in attempts.items()]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tool", choices=list(TOOLS), action="append")
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
    for tool in options.tool or TOOLS:
        for row in rows(tool, options.tries, options.minutes, options.seed, options.every):
            print(json.dumps(row), flush=True)
            wrong += row["name"] == SAFE and int(str(row["wrong"]))
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
