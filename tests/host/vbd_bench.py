# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Measures disks of a running guest: all of them in one task of xen_vbds, beside xl block-attach and xl
block-detach for each of them, one after the other, with Xen's own script.

Run it on a Xen host: python3 vbd_bench.py --help. Both ways alternate, with the same files. A module runs as
a process, as under Ansible; Ansible's own part is not in it. The guest uses each disk, as a real one does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
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
import modules
from ansible_collections.racefree.block.plugins.module_utils._xen import guest
from ansible_collections.racefree.block.plugins.module_utils._xen.vdev import parse

GUEST = "vbdbench"
SITE = os.environ.get("RACEFREE_SITE", "/root/site")


def call(*entries):
    """Run xen_vbds; all entries must have changed something."""
    result = modules.call(SITE, "xen_vbds", vbds=entries)
    assert all(each["changed"] for each in result["vbds"]), result


def vdevs(count):
    """From xvdb on; xvda is the guest's own."""
    return [parse("xvda")._replace(disk=disk).name for disk in range(1, count + 1)]


class Modules:
    name = "xen_vbds"

    def attach(self, disks):
        entries = [
            {"domain": GUEST, "vdev": vdev, "source": {"file": path}, "persist": False}
            for vdev, path in disks.items()
        ]
        call(*entries)

    def detach(self, disks):
        call(*({"domain": GUEST, "vdev": vdev, "state": "detached"} for vdev in disks))


class Xl:
    name = "xl"

    def attach(self, disks):
        for vdev, path in disks.items():
            text = f"vdev={vdev},access=w,script={hotplug.STOCK},target={path}"
            subprocess.run(["xl", "block-attach", GUEST, text], check=True, timeout=300)

    def detach(self, disks):
        for vdev in disks:
            subprocess.run(["xl", "block-detach", GUEST, vdev], check=True, timeout=300)


def attached(store, domid, disks):
    """How many of the disks have nodes in XenStore."""
    return sum(store.exists(f"/local/domain/0/backend/vbd/{domid}/{parse(vdev).number}") for vdev in disks)


def turn(way, store, domid, disks):
    """``(seconds to attach, seconds to detach)``."""
    began = time.monotonic()
    way.attach(disks)
    took = time.monotonic() - began
    assert attached(store, domid, disks) == len(disks)
    hotplug.udev_settled()
    began = time.monotonic()
    way.detach(disks)
    gone = time.monotonic() - began
    assert not attached(store, domid, disks)
    hotplug.wait_no_loops(KEPT, 60)
    hotplug.udev_settled()
    return took, gone


KEPT = []


@contextlib.contextmanager
def running_guest():
    subprocess.run(["xenguest", "start", GUEST], check=True, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        subprocess.run(["xenguest", "stop", GUEST], check=False)


def rows(count, turns, place):
    disks = {}
    for vdev in vdevs(count):
        disks[vdev] = os.path.join(place, f"{vdev}.raw")
        with open(disks[vdev], "wb") as file:
            file.truncate(1 << 20)
    ways = (Modules(), Xl())
    times = {way.name: [] for way in ways}
    with hotplug.connect() as store:
        domid = guest.find(store, GUEST).domid
        for each in range(turns):
            for way in ways if each % 2 == 0 else reversed(ways):
                times[way.name].append(turn(way, store, domid, disks))
                print(f"{count} disks, {way.name}: {times[way.name][-1]}", flush=True)
    for name, found in times.items():
        attach, detach = (round(statistics.median(values), 2) for values in zip(*found))
        yield {"disks": count, "way": name, "turns": turns, "attach": attach, "detach": detach}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--disks", type=int, nargs="+", default=[8, 32], help="how many at a time")
    parser.add_argument("--turns", type=int, default=3, help="turns of each way (default: 3)")
    parser.add_argument("--report", type=Path, help="a file for the figures, for docs/speed/vbds.json")
    options = parser.parse_args()
    report = {"machine": figures.machine(), "rows": []}
    KEPT.extend(hotplug.loops())
    with running_guest(), tempfile.TemporaryDirectory() as place:
        for count in options.disks:
            report["rows"] += rows(count, options.turns, place)
            if options.report:
                figures.keep(options.report, report)
    for row in report["rows"]:
        print(json.dumps(row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
