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

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

if __name__ == "__main__":
    sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))

import hotplug
import names_rounds
from conftest import wait_until
from libvirthost import definition

GUEST = "names-xen"
VDEV, NUMBER = "xvdb", 51728
# Seconds.
TOOL_SECONDS = 240


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


if __name__ == "__main__":
    sys.exit(names_rounds.main(__doc__, TOOLS))
