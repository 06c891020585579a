# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Measures tasks that change nothing: one of each module beside one of ansible.builtin.ping, alternately in one
play on this machine.

Modules that need device-mapper run on a kernel that runs as a process if this machine has none. Those that
need Xen or libvirt are not run. ``tasks.py --help`` lists the options.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import figures
import kernel
import loops
import modules
import playbook

SIZE = 4 << 20
NAME = "racefree-bench"
PING = {"name": "ping", "ansible.builtin.ping": {}}
# Of a machine without device-mapper and of one with it.
PLAIN = (
    "device_command",
    "device_info",
    "device_info without features",
    "golden_image",
    "kernel_key",
    "loop_device",
    "loop_devices",
    "snapshot_stores",
    "xl_disk",
    "xl_disks",
)
MAPPED = ("dm_device", "dm_devices", "dm_table", "thin_volumes")
NOT_RUN = ("libvirt_disk", "libvirt_disk_info", "libvirt_disks", "xen_vbd", "xen_vbd_info", "xen_vbds")


def arguments(place: str) -> dict[str, dict[str, Any]]:
    """
    {case: the arguments of its task}; the first word of a case is the module. The files are those of
    ``make_files``.
    """
    disk, cow = f"{place}/disk.raw", f"{place}/store.cow"
    xl = {"config_file": f"{place}/guest.cfg", "source": {"file": disk}}
    line = f"0 {SIZE // 512} linear file:{disk} 0"
    pool = {
        "name": f"{NAME}-pool",
        "uuid": f"{NAME}-pool",
        "table": f"0 32768 thin-pool file:{place}/meta.raw file:{place}/data.raw 128 0",
    }
    return {
        "device_command": {
            "argv": ["true", "{disk}"],
            "devices": {"disk": {"file": disk}},
            "creates": f"{place}/disk.raw",
        },
        "device_info": {},
        "device_info without features": {"features": False},
        "golden_image": {"path": f"{place}/golden.raw", "image": f"{place}/image.qcow2", "format": "qcow2"},
        "kernel_key": {"description": f"{NAME}:key", "payload": "00112233445566778899aabbccddeeff"},
        "loop_device": {"backing_file": disk},
        "loop_devices": {"devices": [{"backing_file": disk}]},
        "snapshot_stores": {"stores": [{"path": cow, "image": disk}]},
        "xl_disk": {**xl, "vdev": "xvda"},
        "xl_disks": {"disks": [{**xl, "vdev": "xvda"}]},
        "dm_device": {"name": NAME, "table": line},
        "dm_devices": {"devices": [{"name": NAME, "table": line}]},
        "dm_table": {"table": line},
        "thin_volumes": {"pool": pool, "volumes": [{"id": 1}]},
    }


def make_files(place: str) -> None:
    for name, size in {"disk.raw": SIZE, "store.cow": SIZE, "meta.raw": SIZE, "data.raw": 16 * SIZE}.items():
        with open(f"{place}/{name}", "wb") as file:
            file.truncate(size)
    Path(place, "guest.cfg").write_text('name = "guest"\nmemory = 128\n', encoding="utf-8")
    command = ["qemu-img", "create", "-q", "-f", "qcow2", f"{place}/image.qcow2", str(SIZE)]
    with contextlib.suppress(FileNotFoundError):
        subprocess.run(command, check=True)


@contextlib.contextmanager
def removed(site: str, place: str, cases: list[str]) -> Iterator[None]:
    """Remove at the end what the first round of tasks has made."""
    try:
        yield
    finally:
        for name in {"kernel_key", "dm_device"} & set(cases):
            chosen = arguments(place)[name]
            key = "description" if name == "kernel_key" else "name"
            modules.call(site, name, **{key: chosen[key], "state": "absent"})
        modules.call(site, "loop_device", backing_file=f"{place}/disk.raw", state="absent")


def task(case: str, chosen: dict[str, Any], name: str | None = None) -> dict[str, Any]:
    return {"name": name or case, f"racefree.block.{case.split()[0]}": chosen}


def measure(cases: list[str], turns: int, site: str, place: str) -> list[dict[str, object]]:
    """A row for each case: the medians of its tasks and of those of ping, and the ratios of the pairs."""
    make_files(place)
    chosen = arguments(place)
    tasks = [task(case, chosen[case], f"first {case}") for case in cases]
    for number in range(turns):
        for case in cases:
            pair = [dict(PING, name=f"ping beside {case}"), task(case, chosen[case])]
            tasks += pair if number % 2 else reversed(pair)
    with removed(site, place, cases), loops.as_before(place):
        found = playbook.run(tasks, site, place)
    rows: list[dict[str, object]] = []
    for case in cases:
        pairs = list(zip(found[case], found[f"ping beside {case}"]))
        if any(own[2] for own, _ping in pairs):
            raise SystemExit(f"{case}: the task changes something each time")
        row: dict[str, object] = {"task": case, "turns": turns}
        row["spent"] = figures.medians(own[:2] for own, _ping in pairs)
        row["ping"] = figures.medians(ping[:2] for _own, ping in pairs)
        row["ratio"] = [
            round(figures.paired_ratio((own[kind], ping[kind]) for own, ping in pairs), 2) for kind in (0, 1)
        ]
        rows.append(row)
        print(row, flush=True)
    return rows


def on_a_kernel(options: argparse.Namespace, cases: list[str], place: str) -> list[dict[str, object]]:
    """The rows of the cases that need device-mapper, from a kernel that runs as a process."""
    report = Path(place, "inside.json")
    words = ["--turns", str(options.turns), "--cases", ",".join(cases)]
    kernel.run(options.checkout, "tasks.py", words, report, ansible=True)
    rows: list[dict[str, object]] = json.loads(report.read_text(encoding="utf-8"))["rows"]
    return [{**row, "as a process": True} for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=15, help="turns of each task (default: 15)")
    parser.add_argument("--cases", default=",".join(PLAIN + MAPPED), help="the tasks (default: all)")
    parser.add_argument("--checkout", default=os.getcwd(), help="a git checkout of the collection")
    parser.add_argument("--report", type=Path, help="a file for the figures")
    parser.add_argument("--inside", metavar="SITE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    about = {"machine": figures.machine()}
    cases = options.cases.split(",")
    elsewhere = [] if kernel.has_device_mapper() else [case for case in cases if case in MAPPED]
    here = [case for case in cases if case not in elsewhere]
    with tempfile.TemporaryDirectory(prefix="racefree-bench-", dir="/tmp") as place:
        site = options.inside or os.path.join(place, "site")
        if not options.inside:
            modules.unpack(options.checkout, None, site)
        rows = measure(here, options.turns, site, place)
        _keep(options, about, rows)
        if elsewhere:
            rows += on_a_kernel(options, elsewhere, place)
            _keep(options, about, rows)


def _keep(options: argparse.Namespace, about: dict[str, Any], rows: list[dict[str, object]]) -> None:
    """Keep the rows that there are, and name all other tasks."""
    done = {row["task"] for row in rows}
    not_run = sorted(NOT_RUN + tuple(case for case in PLAIN + MAPPED if case not in done))
    if options.report:
        figures.keep(options.report, {**about, "rows": rows, "not run": not_run})


if __name__ == "__main__":
    main()
