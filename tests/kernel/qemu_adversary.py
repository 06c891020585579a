# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Guests of QEMU start while an adversary with root privileges replaces the device at the path of their disk.

``recipe`` is a disk of libvirt_disk with the hook, ``plain`` a definition with just a path. In turn, the
adversary does nothing (``nobody``), has put its own device there before the start (``before``), removes
whatever has the name and makes its own device there all through the start (``name``), or lets the link in
/dev/mapper lead to its own device for moments (``link``).

What QEMU has is read through its own open file: ``right`` bytes, or ``wrong`` ones of a guest that goes on.
``refused``: the start failed before QEMU had a disk. ``ended``: libvirt ended the guest as the hook saw a
wrong device at ``started``; its processors may have run for a moment. Exit code 1 if a recipe ever gave wrong
bytes. ``--report`` is complete after each turn, so a folder of the machine keeps it whatever happens:

    tests/kernel/kernel run --site --timeout 3600 --pull /racefree/r.json:r.json -- \\
        python3 -B qemu_adversary.py --tries 500 --report /racefree/r.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time

import libvirt

if __name__ == "__main__":
    sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))

import qemuhost
import swaplibvirt as swap
from conftest import run_module

MODES = ("nobody", "before", "name", "link")
OUTCOMES = ("right", "refused", "ended", "wrong")
WAYS = ("recipe", "plain")
NAME = "swapped"


@contextlib.contextmanager
def _guest(way, good):
    """``(libvirt's domain, name of the mapped device at its disk's path)``"""
    disk = (
        "<disk type='block'><driver name='qemu' type='raw'/>"
        f"<source dev='/dev/mapper/{NAME}'/><target dev='vda' bus='virtio'/></disk>"
    )
    name = f"{NAME}-{way}"
    with qemuhost.defined(qemuhost.definition(name, devices=disk if way == "plain" else "")) as domain:
        if way == "recipe":
            run_module("libvirt_disk", domain=domain, vdev="vda", source={"file": good}, uri=qemuhost.URI)
        connection = libvirt.open(qemuhost.URI)
        try:
            path = f"racefree-{domain}-vda" if way == "recipe" else NAME
            yield connection.lookupByUUIDString(domain), path
        finally:
            connection.close()


def _letters(name):
    """The first bytes of each block device that the guest's QEMU has open."""
    found = set()
    for path in qemuhost.open_disks(name):
        with open(path, "rb") as device:
            found.add(device.read(1))
    return found


def _outcome(domain):
    try:
        domain.create()
    except libvirt.libvirtError as error:
        return "ended" if "QEMU has" in str(error) else "refused"
    try:
        return "right" if _letters(domain.name()) == {b"G"} else "wrong"
    finally:
        domain.destroy()


@contextlib.contextmanager
def _turning(name, loop):
    """A process that lets the link lead to the loop device for moments, as no program of the system does."""
    child = os.fork()
    if not child:
        try:
            _turn_for_ever(f"/dev/mapper/{name}", loop)
        finally:
            os._exit(1)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _turn_for_ever(link, loop):
    chance, new = random.Random(), f"{link}.new"
    while True:
        time.sleep(chance.uniform(0, 0.3))
        with contextlib.suppress(OSError):
            was = os.readlink(link)
            os.symlink(loop, new)
            os.rename(new, link)
            time.sleep(chance.uniform(0, 0.1))
            os.symlink(was, new)
            os.rename(new, link)


def _remove_links(name):
    for path in (f"/dev/mapper/{name}", f"/dev/mapper/{name}.new"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _try(way, mode, guest, good, bad):
    domain, name = guest
    _remove_links(name)
    swap._clear(name)
    if way == "plain":
        swap._put(name, good)
    if mode == "before":
        swap._clear(name)
        swap._put(name, bad)
    adversary = {"name": swap._adversary, "link": _turning}.get(mode)
    with adversary(name, bad) if adversary else contextlib.nullcontext():
        return _outcome(domain)


def swapped(ways, tries, seconds=float("inf"), tell=lambda counts: None):
    """``{way: {mode: {outcome: count}}}`` of so many tries of each way, the ways and modes in turn."""
    counts = {way: {mode: dict.fromkeys(OUTCOMES, 0) for mode in MODES} for way in ways}
    end = time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp"))
        good, bad = (stack.enter_context(swap._loop_over(directory, letter)) for letter in "GB")
        # Not G.raw, over which a plain turn leaves its device: the recipe would be refused for that.
        image = shutil.copyfile(os.path.join(directory, "G.raw"), os.path.join(directory, "recipe.raw"))
        guests = {way: stack.enter_context(_guest(way, image)) for way in ways}
        for dummy, name in guests.values():
            stack.callback(swap._clear, name)
            stack.callback(_remove_links, name)
        for turn in range(tries):
            for way in ways:
                if time.monotonic() > end:
                    return counts
                mode = MODES[turn % len(MODES)]
                counts[way][mode][_try(way, mode, guests[way], good, bad)] += 1
            tell(counts)
    return counts


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--way", choices=WAYS, action="append", help="default: both")
    parser.add_argument("--tries", type=int, default=20, help="of each way")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no try later")
    parser.add_argument("--report", metavar="FILE", help="write the counts there after each turn")
    options = parser.parse_args()

    def tell(counts):
        if options.report:
            with open(f"{options.report}.new", "w", encoding="utf-8") as file:
                json.dump(counts, file, indent=1)
            os.rename(f"{options.report}.new", options.report)

    with qemuhost.hook():
        counts = swapped(options.way or WAYS, options.tries, options.seconds, tell)
    print(json.dumps(counts, indent=1))
    return 1 if any(row["wrong"] for row in counts.get("recipe", {}).values()) else 0


if __name__ == "__main__":
    sys.exit(main())
