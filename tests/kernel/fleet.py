# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
A fleet of libvirt guests with snapshots of one golden image, made as the role guest_disks does, in one task
for each step.

As a program, it measures time and memory against the number of guests, and prints a table. Run it on a
machine that does nothing else (docs/testing.md has the command).
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import sys
import time
from pathlib import Path

import libvirt

if __name__ == "__main__":
    sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))

import qemuhost
from ansible_collections.racefree.block.plugins.module_utils._guest_disks import plan
from conftest import Failed, run_module

# A guest reads this after the boot sector, and prints it.
WORD = b"the golden image"
# Bytes of the golden image, and of each file with a guest's changes.
IMAGE, CHANGES = 4 << 20, 1 << 20


class Run:
    """
    What the role does with the guests, by its filters and modules, each as a process of its own, but without
    Ansible. ``seconds``; ``mebibytes``: of the largest process; ``steps``: {name: seconds}; ``changed``: the
    names of steps that changed something.
    """

    def __init__(self, guests):
        self.steps, self.changed, self.mebibytes = {}, set(), 0.0
        golden = self._golden(guests)
        files = plan.files_of(guests)
        paths = [file[key] for file in files for key in ("path", "image") if file[key] is not None]
        sizes = sizes_of(paths)
        resize = plan.to_resize(files, {**golden, **sizes})
        looked, times = self._stores("check the stores", plan.stores_of(guests, sizes), check=True)
        common = {"uri": qemuhost.URI}
        absent = plan.entries_of(guests, "absent", sizes, common)
        present = plan.entries_of(guests, "present", sizes, common, check_mode=True, mtimes=times)
        rows = self._disks("check the disks", absent + present, check=True)
        unused = {
            "files": [path for file in files for path in file["remove"]],
            "going": [{"domain": row["domain"], "vdev": row["vdev"]} for row in absent],
            "uri": qemuhost.URI,
        }
        if unused["files"]:
            self._module("check the files to remove", "unused_storage", check=True, **unused)
        for row in plan.images_of(guests):
            self._module("convert the image", "golden_image", **row)
        self._disks("remove the disks", absent)
        for file in resize:
            self.changed.add("make the files")
            with open(file["path"], "ab") as made:
                made.truncate(file["size"])
        sizes = sizes_of(paths)
        stores = plan.stores_of(guests, sizes)
        if self.changed or len(looked) != len(stores) or any(row["changed"] for row in looked):
            times = self._stores("record the images", stores)[1]
        present = plan.entries_of(guests, "present", sizes, common, mtimes=times)
        if self.changed or len(rows) != len(files) or any(row["changed"] for row in rows):
            self._disks("define the disks", present)
        if unused["files"]:
            self._module("remove the files", "unused_storage", **unused)
        self.seconds = sum(self.steps.values())

    def _golden(self, guests):
        rows = [
            self._module("check the image", "golden_image", check=True, **row)["golden"]
            for row in plan.images_of(guests)
        ]
        return {row["path"]: row["size"] for row in rows}

    def _stores(self, step, stores, check=False):
        """The rows of the stores, and the modification times of their images, by path."""
        rows = self._module(step, "snapshot_stores", check, stores=stores)["stores"] if stores else []
        images = [row["store"]["image"] for row in rows]
        return rows, {image["path"]: image["mtime_ns"] for image in images}

    def _disks(self, step, disks, check=False):
        return self._module(step, "libvirt_disks", check, disks=disks)["disks"] if disks else []

    def _module(self, step, name, check=False, **arguments):
        began = time.monotonic()
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            status = 1
            try:
                os.close(reader)
                with os.fdopen(writer, "w", encoding="utf-8") as file:
                    json.dump(run_module(name, check, **arguments), file)
                status = 0
            except Failed as error:
                print(f"{step}: {error}", file=sys.stderr)
            finally:
                os._exit(status)
        os.close(writer)
        with os.fdopen(reader, encoding="utf-8") as file:
            text = file.read()
        status, usage = os.wait4(child, 0)[1:]
        if status:
            raise AssertionError(f"{step}: it failed")
        self.steps[step] = self.steps.get(step, 0) + time.monotonic() - began
        self.mebibytes = max(self.mebibytes, usage.ru_maxrss / 1024)
        result = json.loads(text)
        if result["changed"] and not check:
            self.changed.add(step)
        return result


def sizes_of(paths):
    return {path: os.path.getsize(path) for path in paths if os.path.exists(path)}


@contextlib.contextmanager
def connected():
    connection = libvirt.open(qemuhost.URI)
    try:
        yield connection
    finally:
        connection.close()


class Fleet:
    """``count`` guests, defined without disks, and the image that they are to have. A context."""

    def __init__(self, place, count):
        self.place = Path(place)
        self.names = [f"fleet-{number}" for number in range(count)]

    def __enter__(self):
        self.place.mkdir(parents=True, exist_ok=True, mode=0o755)
        raw = self.place / "disk.raw"
        raw.write_bytes(qemuhost.boot_sector(self.place) + WORD.ljust(512, b"\0"))
        os.truncate(raw, IMAGE)
        image = str(self.place / "image.qcow2")
        qemuhost.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), image)
        self.image = {"path": image, "format": "qcow2", "golden": str(self.place / "golden.raw")}
        qemuhost.start_daemon()
        with connected() as connection:
            for name in self.names:
                connection.defineXML(qemuhost.definition(name, serial=self.serial(name)))
        return self

    def __exit__(self, *exc):
        # The hook's installation restarts the daemon, so this is another connection.
        with connected() as connection:
            for name in self.names:
                domain = connection.lookupByName(name)
                if domain.isActive():
                    domain.destroy()
                domain.undefine()

    def serial(self, name):
        """The file with what a guest prints."""
        return str(self.place / f"{name}.serial")

    def changes(self, name):
        return str(self.place / f"{name}.cow")

    def guests(self, state="present"):
        """The guests as the role takes them."""
        disk = {"vdev": "vda", "image": self.image, "size": CHANGES, "state": state}
        more = {"remove_file": True} if state == "absent" else {}
        return [
            {"domain": name, "disks": [dict(disk, file=self.changes(name), **more)]} for name in self.names
        ]

    def run(self, state="present"):
        return Run(self.guests(state))


def said(path):
    """The line that a guest has printed, empty before it is complete."""
    with open(path, "rb") as file:
        text = file.read()
    return text.strip() if b"\n" in text else b""


def start(fleet, names):
    """
    Start guests at once. Each must read the golden image, and write its own file with changes alone. Returns
    the seconds until the last one has written.
    """
    with open(fleet.image["golden"], "rb") as file:
        golden = file.read()
    began = time.monotonic()
    for name in names:
        qemuhost.virsh("start", name)
    wanted = WORD + b" written"
    for name in names:
        found = qemuhost.wait_for(functools.partial(said, fleet.serial(name)), 600)
        if found != wanted:
            raise AssertionError(f"{name}: {found!r}")
    seconds = time.monotonic() - began
    for name in names:
        if len(qemuhost.opened(name)) != 1:
            raise AssertionError(f"{name}: {qemuhost.opened(name)}")
        qemuhost.virsh("destroy", name)
        with open(fleet.changes(name), "rb") as file:
            if WORD not in file.read():
                raise AssertionError(f"{name} has not written to its own file")
    with open(fleet.image["golden"], "rb") as file:
        if file.read() != golden:
            raise AssertionError("the golden image was written to")
    return seconds


def measured(place, count, qemu):
    """One row of the table, as a dictionary."""
    with Fleet(Path(place) / str(count), count) as fleet:
        first, second = fleet.run(), fleet.run()
        row = {
            "guests": count,
            "first": round(first.seconds, 2),
            "second": round(second.seconds, 2),
            "mebibytes": round(max(first.mebibytes, second.mebibytes)),
            "steps": {name: round(seconds, 2) for name, seconds in first.steps.items()},
            "steps again": {name: round(seconds, 2) for name, seconds in second.steps.items()},
        }
        if second.changed:
            raise AssertionError(f"the second run changed something: {second.changed}")
        if qemu:
            with qemuhost.hook():
                row["started"] = min(qemu, count)
                row["start"] = round(start(fleet, fleet.names[:qemu]), 1)
                if not qemuhost.nothing_left():
                    raise AssertionError("something of the guests is left")
        row["removed"] = round(fleet.run("absent").seconds, 2)
    return row


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().partition("\n")[0])
    parser.add_argument("--guests", type=int, nargs="+", default=[25, 50, 100, 200])
    parser.add_argument("--qemu", type=int, default=20, help="how many of the largest fleet are started")
    parser.add_argument("--report", help="a file for the rows as JSON")
    chosen = parser.parse_args()
    rows = []
    for count in sorted(chosen.guests):
        rows.append(measured("/var/tmp/fleet", count, chosen.qemu if count == max(chosen.guests) else 0))
        print(json.dumps(rows[-1]), flush=True)
        if chosen.report:
            Path(chosen.report).write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print("| Guests | First run | Second run | Removal | Largest process |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for row in rows:
        print("| {guests} | {first} s | {second} s | {removed} s | {mebibytes} MiB |".format(**row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
