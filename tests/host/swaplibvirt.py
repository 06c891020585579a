# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
An adversary replaces the device at a definition's path repeatedly between the definition and the start of the
guest.

``recipe`` is a disk of libvirt_disk, ``plain`` a definition with just a path. An adversary removes and makes
mapped devices under the very name: before the start, all through it, or not at all, in turn; a way that only
ever refuses would be of no use. Told is what was read: ``right`` bytes, ``wrong`` ones, or ``refused``.

A whole start takes half a minute under emulation. So most tries do what libvirt and libxl do with the path
and no more: the hook, the hotplug script's look at the number, a pause, and the opening by that number, as
blkback opens it. ``--whole`` tries start a guest, which reads the bytes. ``swaplibvirt.py --help`` has the
options; exit code 1 when a recipe ever gave wrong bytes.
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
    plain = (
        "<disk type='block' device='disk'><driver name='phy' type='raw'/><source "
        f"dev='/dev/mapper/{NAME}'/><target dev='xvda' bus='xen'/></disk>"
    )
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
    """Wait until no device has this name, whoever made it, and udev has handled all events."""
    with _control.Control() as control:
        wait_for(lambda: _is_gone(control, name), 60, 0.01)
    # Starting dmsetup and udevadm would take most of a try's time. udev removes the link when it has read the
    # event, and the file when its queue is empty.
    wait_for(
        lambda: not os.path.lexists(f"/dev/mapper/{name}") and not os.path.exists("/run/udev/queue"), 30, 0.01
    )


def _is_gone(control, name):
    """Ask for the removal until there is nothing to remove."""
    try:
        control.remove(_control.by_name(name))
    except DeviceGone:
        return True
    except BlockError:
        # In use for a moment: udev examines what the adversary made.
        pass
    return False


@contextlib.contextmanager
def _adversary(name, loop):
    """A process that repeatedly removes whatever has the name, and makes its own device there."""
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
        # Seeded here, because a fork starts with its parent's state.
        table, chance = _table(below), random.Random()
        while True:
            with contextlib.suppress(BlockError):
                control.remove(_control.by_name(name))
            # It leaves the name free for a while, so that others can take it. udev takes a tenth of a second
            # for an event on an emulated host; if it falls behind, no device gets a link. So udev makes the
            # link and does nothing else with these devices.
            time.sleep(chance.uniform(0, 0.3))
            with contextlib.suppress(BlockError):
                _make(control, name, table, (udev.PRIMARY_SOURCE | udev.HANDS_OFF) << 16)
            time.sleep(chance.uniform(0, 0.1))


def _take_and_read(way, text, path):
    """What is read through the path, opened as the hotplug script and blkback do after the hook."""
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
    """What a guest reads from its disk, if it can be started at all."""
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
                f"{way:10}{counts}  of {quick + whole} tries, {whole} with a guest, "
                f"{time.monotonic() - started:.0f} s",
                flush=True,
            )
    return 1 if rows["recipe"]["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
