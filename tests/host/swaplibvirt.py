# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The device under a definition's path is swapped between the definition and the guest's getting it, again and again.

``recipe`` is a disk of libvirt_disk, ``plain`` a definition with just a path. An adversary removes and makes mapped devices under the very name:
before the start, all through it, or not at all, in turn; a way that only ever refuses would be of no use. Told is what was read: ``right`` bytes,
``wrong`` ones, or ``refused``.

A whole start takes half a minute under emulation. So most tries do what libvirt and libxl do with the path and no more: the hook, the hotplug
script's look at the number, a pause, and the opening by that number, as blkback opens it. ``--whole`` tries start a guest, which reads the bytes.
``swaplibvirt.py --help`` has the options; exit code 1 when a recipe ever gave wrong bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

if __name__ == "__main__":
    sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))

from ansible_collections.racefree.block.plugins.module_utils._base.errors import BlockError, DeviceGone
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.plugins.module_utils._dm import control as _control
from ansible_collections.racefree.block.plugins.module_utils._dm import load, mapped, names, udev
from ansible_collections.racefree.block.plugins.module_utils._libvirt import domain_xml
from ansible_collections.racefree.block.plugins.module_utils._libvirt import hook as _hook
from conftest import run_module
from libvirthost import defined, hook, in_guest, is_running, run, virsh, wait_for

SECTORS = 256
NAME = "swapped"
MODES = ("nobody", "before", "all through")
PAUSE = 0.02


def swap(quick, whole, way, directory):
    """``{outcome: count}`` of so many tries of each kind in this way."""
    counts = {"right": 0, "refused": 0, "wrong": 0}
    with contextlib.ExitStack() as stack:
        good, bad = (stack.enter_context(_loop_over(directory, letter)) for letter in "GB")
        text = stack.enter_context(_defined(way, directory, os.path.join(directory, "G.raw")))
        path = domain_xml.Domain(text).disk("xvda").source
        name = os.path.basename(path)
        stack.callback(_clear, name)
        for turn in range(quick + whole):
            mode = MODES[turn % 3]
            _clear(name)
            if way == "plain":
                _put(name, good)
            if mode == "before":
                _clear(name)
                _put(name, bad)
            with _adversary(name, bad) if mode == "all through" else contextlib.nullcontext():
                counts[_start_and_read() if turn >= quick else _take_and_read(way, text, path)] += 1
            if turn % 50 == 49:
                # What a run that is interrupted has shown.
                print(f"{way}, {turn + 1} tries: {counts}", flush=True)
    return counts


@contextlib.contextmanager
def _loop_over(directory, letter):
    path = os.path.join(directory, f"{letter}.raw")
    with open(path, "wb") as file:
        file.write(letter.encode() * (SECTORS * 512))
    loop = run("losetup", "--show", "-f", path)
    try:
        yield loop
    finally:
        run("losetup", "-d", loop)


@contextlib.contextmanager
def _defined(way, directory, good):
    """A guest with its disk in that way; its definition."""
    plain = f"<disk type='block' device='disk'><driver name='phy' type='raw'/><source dev='/dev/mapper/{NAME}'/><target dev='xvda' bus='xen'/></disk>"
    with defined(pathlib.Path(directory), NAME, devices=plain if way == "plain" else ""):
        if way == "recipe":
            run_module("libvirt_disk", domain=NAME, vdev="xvda", source={"file": good})
        yield virsh("dumpxml", NAME, "--inactive")


def _put(name, loop):
    """A mapped device of this name over the loop device, as anybody would make it."""
    with _control.Control() as control, _device.open_path(loop) as below, udev.Cookie() as cookie:
        _make(control, name, _table(below), cookie.next())
        cookie.wait(30)


def _table(below):
    return load.Table(((0, SECTORS, b"linear", f"{below.id.number} 0".encode()),))


def _make(control, name, table, event_nr):
    mapped.make(control, name, names.new_uuid(), table, event_nr).close()


def _clear(name):
    """Until there is no device of this name, whoever made it, and udev has done all it was told of."""
    with _control.Control() as control:
        wait_for(lambda: _is_gone(control, name), 60, 0.01)
    # Starting dmsetup and udevadm would take most of a try's time. The link goes when udev has read the event, and the file when its queue is empty.
    wait_for(
        lambda: not os.path.lexists(f"/dev/mapper/{name}") and not os.path.exists("/run/udev/queue"), 30, 0.01
    )


def _is_gone(control, name):
    """Once it is asked to remove it and there is nothing to remove."""
    try:
        control.remove(_control.by_name(name))
    except DeviceGone:
        return True
    except BlockError:
        # In use for a moment: udev looks at what the adversary made.
        pass
    return False


@contextlib.contextmanager
def _adversary(name, loop):
    """A process that for as long as it lives removes whatever has the name, and puts its own device there."""
    child = os.fork()
    if not child:
        try:
            _swap_for_ever(name, loop)
        finally:
            os._exit(1)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _swap_for_ever(name, loop):
    with _control.Control() as control, _device.open_path(loop) as below:
        # Its own: a fork begins with the state of its parent's.
        table, chance = _table(below), random.Random()
        while True:
            with contextlib.suppress(BlockError):
                control.remove(_control.by_name(name))
            # It leaves the place free for a while, so that others can take it; and udev, which takes a tenth of a second for an event on an
            # emulated host, is not to be far behind, or nothing has a link.
            time.sleep(chance.uniform(0, 0.3))
            with contextlib.suppress(BlockError):
                _make(control, name, table, udev.PRIMARY_SOURCE << 16)
            time.sleep(chance.uniform(0, 0.1))


def _take_and_read(way, text, path):
    """What is read by who takes the path as the hotplug script and blkback do, after the hook."""
    if way == "recipe" and _hook.main([NAME, "prepare"], text):
        return "refused"
    try:
        # The script looks at the path, and blkback opens the number.
        number = os.stat(path).st_rdev
        time.sleep(PAUSE)
        with _device.open_number(os.major(number), os.minor(number)) as device:
            return {b"G": "right", b"B": "wrong"}.get(os.pread(device.fd, 1, 0), "refused")
    except (OSError, BlockError):
        return "refused"
    finally:
        if way == "recipe":
            _hook.main([NAME, "release"], text)


def _start_and_read():
    """What a guest reads from its disk, when it can be started at all."""
    done = subprocess.run(
        ["virsh", "-q", "-c", "xen:///system", "start", NAME], capture_output=True, timeout=600, check=False
    )
    if done.returncode or not is_running(NAME):
        return "refused"
    try:
        read = in_guest(NAME, "head -c 1 /dev/xvda")
    finally:
        virsh("destroy", NAME, check=False)
        wait_for(lambda: not is_running(NAME))
    return {"G": "right", "B": "wrong"}.get(read, "refused")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tries", type=int, default=500, help="of the recipe, without a guest")
    parser.add_argument("--whole", type=int, default=12, help="of the recipe, with a guest")
    parser.add_argument(
        "--plain", type=int, default=90, help="of the plain definition, without a guest, for comparison"
    )
    parser.add_argument("--plain-whole", type=int, default=3, help="of the plain definition, with a guest")
    options = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory, hook():
        for way, quick, whole in (
            ("recipe", options.tries, options.whole),
            ("plain", options.plain, options.plain_whole),
        ):
            started = time.monotonic()
            rows[way] = swap(quick, whole, way, directory)
            counts = "".join(f"{count:8} {name}" for name, count in rows[way].items())
            print(
                f"{way:10}{counts}  of {quick + whole} tries, {whole} with a guest, {time.monotonic() - started:.0f} s",
                flush=True,
            )
    return 1 if rows["recipe"]["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
