# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Measures loop devices with this version of the collection and with another one, in the same run.

Both versions alternately create, find, list and remove the same number of devices. Each module run is a
process, as under Ansible, and Ansible's own part is the same for both. Run as root on a machine that does
nothing else. ``loops.py --help`` lists the options.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

STEPS = ("create", "unchanged", "info", "absent")
# Runs one module with the JSON arguments on standard input; sys.path is the site's.
RUN = """
import importlib, json, sys
from ansible.module_utils.testing import patch_module_args
name, arguments = json.load(sys.stdin)
module = importlib.import_module("ansible_collections.racefree.block.plugins.modules." + name)
with patch_module_args(arguments):
    module.main()
"""


def unpack(checkout, revision, site):
    """
    Put the collection of a git revision (None: the files as they are) where Python finds it below ``site``.
    """
    place = os.path.join(site, "ansible_collections", "racefree", "block")
    os.makedirs(place)
    if revision is None:
        shutil.copytree(os.path.join(checkout, "plugins"), os.path.join(place, "plugins"))
        return
    command = [
        "git",
        "-c",
        f"safe.directory={checkout}",
        "-C",
        checkout,
        "archive",
        "--format=tar",
        revision,
        "plugins",
    ]
    packed = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "-x", "-C", place], input=packed, check=True)


def call(site, name, **arguments):
    """``(the module's result, seconds of wall clock, seconds of processor time)``."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps([name, arguments]),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env=dict(os.environ, PYTHONPATH=site),
    )
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        result = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        raise SystemExit(f"{name} did not answer: {done.stderr}") from None
    if result.get("failed"):
        raise SystemExit(f"{name} failed: {result['msg']}")
    return result, wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def turn(site, files):
    """``{step: (wall, processor)}`` of one version, in seconds; each step's answer is checked."""
    present = [{"backing_file": path} for path in files]
    absent = [{"backing_file": path, "state": "absent"} for path in files]
    times = {}
    try:
        for step, name, arguments, changed in (
            ("create", "loop_devices", {"devices": present}, True),
            ("unchanged", "loop_devices", {"devices": present}, False),
            ("info", "device_info", {"features": False}, False),
            ("absent", "loop_devices", {"devices": absent}, True),
        ):
            result, *times[step] = call(site, name, **arguments)
            if result["changed"] != changed:
                raise SystemExit(f"{step}: changed is {result['changed']}")
    finally:
        if "absent" not in times:
            call(site, "loop_devices", devices=absent)
    return times


def make_files(place, count):
    files = [os.path.join(place, f"{number}.raw") for number in range(count)]
    for path in files:
        with open(path, "wb") as file:
            file.truncate(1 << 20)
    return files


def show(count, versions):
    """A table of the medians and of this version's ratio to the other one."""
    print(f"\n{count} devices: medians of {len(versions[0])} turns, seconds (processor time)")
    for step in STEPS:
        walls = [statistics.median(times[step][0] for times in turns) for turns in versions]
        spent = [statistics.median(times[step][1] for times in turns) for turns in versions]
        text = f"{step:10}  this {walls[0]:8.3f} ({spent[0]:7.3f})"
        if len(versions) > 1:
            text += f"  other {walls[1]:8.3f} ({spent[1]:7.3f})"
            text += f"  ratio {walls[0] / walls[1]:5.2f} ({spent[0] / spent[1]:5.2f})"
        print(text, flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes",
        type=lambda text: [int(word) for word in text.split(",")],
        default=[1, 100, 1000],
        help="numbers of devices",
    )
    parser.add_argument("--turns", type=int, default=5, help="turns of each version (default: 5)")
    parser.add_argument(
        "--base", metavar="REVISION", help="git revision of the other version (default: none, this one alone)"
    )
    parser.add_argument(
        "--checkout",
        default=os.environ.get("RACEFREE_CHECKOUT", os.getcwd()),
        help="a git checkout of the collection",
    )
    options = parser.parse_args()
    if os.geteuid():
        raise SystemExit("loop devices need root: run this as root")
    with tempfile.TemporaryDirectory(prefix="racefree-bench-", dir="/dev/shm") as place:
        sites = []
        for number, revision in enumerate([None] + ([options.base] if options.base else [])):
            sites.append(os.path.join(place, str(number)))
            unpack(options.checkout, revision, sites[-1])
        for count in options.sizes:
            folder = os.path.join(place, f"files-{count}")
            os.mkdir(folder)
            files = make_files(folder, count)
            # The kernel keeps devices that it has made. A first round before the measurement makes and
            # compiles everything.
            for site in sites:
                turn(site, files)
            versions = [[] for dummy in sites]
            for number in range(options.turns):
                for which in range(len(sites)) if number % 2 else reversed(range(len(sites))):
                    versions[which].append(turn(sites[which], files))
            show(count, versions)


if __name__ == "__main__":
    main()
