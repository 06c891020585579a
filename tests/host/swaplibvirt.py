# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The device under a definition's path is swapped between the definition and the guest's getting it, again and again.

``recipe``: a disk of libvirt_disk; in turn, what its recipe names is taken away and something else is put under every name it could be found by.
``plain``: a definition with the path of a mapped device, which is removed and made again over another file, as happens after a reboot or a
removal. Told is what the guest reads. ``swaplibvirt.py --help`` has the options; exit code 1 when a recipe ever gave a guest wrong bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile
import time

if __name__ == "__main__":
    sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))

from conftest import run_module
from libvirthost import defined, hook, in_guest, is_running, run, virsh, wait_for

from ansible_collections.racefree.block.plugins.module_utils import _domain_xml

SIZE = 1 << 20
GOOD, BAD = b"G" * 4096, b"B" * 4096
NAME = "swapped"


def write(path, content):
    with open(path, "wb") as file:
        file.write(content)
        file.truncate(SIZE)
    return str(path)


def dmsetup_swap(name, path):
    """Have the name lead to a new mapped device over this file; whether that could be done."""
    loop = run("losetup", "--show", "-f", path)
    try:
        subprocess.run(["dmsetup", "remove", "--retry", name], capture_output=True, check=False)
        done = subprocess.run(["dmsetup", "create", name, "--table", f"0 {SIZE // 512} linear {loop} 0"], capture_output=True, check=False)
        return done.returncode == 0
    finally:
        # It goes with the mapped device.
        run("losetup", "-d", loop, check=False)


def start_and_read(name):
    """``right``, ``wrong`` or ``refused``: what the guest reads from its disk when it can be started at all."""
    done = subprocess.run(["virsh", "-q", "-c", "xen:///system", "start", name], capture_output=True, timeout=600, check=False)
    if done.returncode:
        return "refused"
    try:
        if not is_running(name):
            return "refused"
        read = in_guest(name, "head -c 1 /dev/xvda")
    finally:
        virsh("destroy", name, check=False)
        wait_for(lambda: not is_running(name))
    return {"G": "right", "B": "wrong"}.get(read, "refused")


def swap(tries, way, directory):
    """``{outcome: count}`` of starts with a swap before each."""
    counts = {"right": 0, "refused": 0, "wrong": 0}
    good, bad = write(os.path.join(directory, "good.raw"), GOOD), write(os.path.join(directory, "bad.raw"), BAD)
    with defined_with(way, directory, good) as path:
        for turn in range(tries):
            # Every third time nobody swaps: a way that only ever refuses would be of no use.
            if turn % 3:
                dmsetup_swap(os.path.basename(path), bad)
            elif way == "plain":
                dmsetup_swap(os.path.basename(path), good)
            counts[start_and_read(NAME)] += 1
            if way == "recipe":
                subprocess.run(["dmsetup", "remove", "--retry", os.path.basename(path)], capture_output=True, check=False)
        subprocess.run(["dmsetup", "remove", "--retry", os.path.basename(path)], capture_output=True, check=False)
    return counts


@contextlib.contextmanager
def defined_with(way, directory, good):
    """A defined guest with its disk in that way; the path that its definition has."""
    plain = f"<disk type='block' device='disk'><driver name='phy' type='raw'/><source dev='/dev/mapper/{NAME}'/><target dev='xvda' bus='xen'/></disk>"
    with defined(pathlib.Path(directory), NAME, devices=plain if way == "plain" else ""):
        if way == "recipe":
            run_module("libvirt_disk", domain=NAME, vdev="xvda", source={"file": good})
        yield _domain_xml.Domain(virsh("dumpxml", NAME, "--inactive")).disk("xvda").source


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=500)
    parser.add_argument("--plain", type=int, default=30, help="tries with a plain definition, for comparison")
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory, hook():
        rows = {"recipe": swap(options.tries, "recipe", directory), "plain": swap(options.plain, "plain", directory)}
    for way, row in rows.items():
        print(f"{way:10}" + "".join(f"{row[name]:8} {name}" for name in row))
    print(f"{time.monotonic() - started:.0f} s")
    return 1 if rows["recipe"]["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
