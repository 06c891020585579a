# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
An adversary constantly replaces the file behind /dev/loopN while mapped devices are created over it.

Counts for each way of naming the device how often it got the right device, was refused, or got the wrong
device. The device is identified by the file's marker, read through the mapped device. ``swap.py --help``
lists the options. Exit code 1 if one of the collection's ways ever got a wrong device.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

if __name__ == "__main__":
    sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))

from ansible_collections.racefree.block.plugins.module_utils._base.errors import BlockError
from ansible_collections.racefree.block.plugins.module_utils._block import bind, loop
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.plugins.module_utils._dm import control as _control
from ansible_collections.racefree.block.plugins.module_utils._dm import mapped, names
from ansible_collections.racefree.block.plugins.module_utils._kernel import uapi
from ansible_collections.racefree.block.plugins.module_utils._source import opener, resources, slots
from differential import EVENT, fast_removal, udev_stopped

SIZE = 1 << 20
SECTORS = 8
MARKERS = {"a": b"A" * 512, "b": b"B" * 512}
# Seconds for which a file stays attached: from shorter than any step of its users to longer than all steps
# together.
PAUSES = (0, 0.0005, 0.002, 0.005, 0.01, 0.02, 0.05)
NUMBER = 240
LOOP_CTL_ADD = 0x4C80
LOOP_CTL_REMOVE = 0x4C81
WAYS = ("diskseq", "path and diskseq", "file", "dmsetup")


def adversary(number, files):
    """Forever: attach one of the files to the loop device, wait for a moment, detach it."""
    node = f"/dev/loop{number}"
    fds = [os.open(path, os.O_RDWR) for path in files]
    turn = 0
    while True:
        turn += 1
        try:
            device = os.open(node, os.O_RDWR)
        except OSError:
            continue
        try:
            config = uapi.ffi.new("struct loop_config *")
            config.fd = fds[turn % 2]
            try:
                fcntl.ioctl(device, uapi.lib.LOOP_CONFIGURE, uapi.ffi.buffer(config))
            except OSError:
                pass
            time.sleep(PAUSES[turn // 2 % len(PAUSES)])
            try:
                fcntl.ioctl(device, uapi.lib.LOOP_CLR_FD, 0)
            except OSError:
                pass
        finally:
            os.close(device)


def read_marker(path):
    """Read the first sector, bypassing the cache."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.pread(fd, 512, 0)
    finally:
        os.close(fd)


def look_up(number, marker, until):
    """The diskseq of the loop device with this file, as a user would have recorded it."""
    while time.monotonic() < until:
        try:
            with _device.open_path(f"/dev/loop{number}") as device:
                if os.pread(device.fd, 512, 0) == marker and loop.info(device):
                    return device.id.diskseq
        except (BlockError, OSError):
            continue
    raise RuntimeError(f"the file never came to /dev/loop{number}: is the adversary at work?")


class Counter:
    """
    Count for each way how often it got the ``right`` device, was ``refused``, or got a ``wrong`` one.
    ``gone``: the device had no content any more.
    """

    def __init__(self):
        self.rows = {way: {"tries": 0, "right": 0, "refused": 0, "gone": 0, "wrong": 0} for way in WAYS}

    def note(self, way, marker, wanted):
        row = self.rows[way]
        row["tries"] += 1
        if marker is None:
            row["refused"] += 1
        elif marker == wanted:
            row["right"] += 1
        elif marker in MARKERS.values():
            row["wrong"] += 1
        else:
            row["gone"] += 1


def ours(control, value, name):
    """
    Read the marker through a mapped device that the collection created over this source. None if it refused.
    """
    row = {"start": 0, "length": SECTORS, "target": "linear", "device": value, "offset": 0}
    with resources.Resources() as host:
        try:
            table = slots.Slots(host).make([row], False, opener.Opener(host))
            device = mapped.make(control, name, names.new_uuid(), table, EVENT, persist=False)
        except (BlockError, OSError):
            return None
        with device:
            try:
                return read_marker(device.path)
            except OSError:
                return b""


def dmsetup(control, number, name):
    """The same, with dmsetup and the path."""
    done = subprocess.run(
        [
            "dmsetup",
            "create",
            "--noudevsync",
            "--noudevrules",
            name,
            "--table",
            f"0 {SECTORS} linear /dev/loop{number} 0",
        ],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        return None
    try:
        status = control.status(_control.by_name(name))
        try:
            return read_marker(f"/dev/dm-{status.minor}")
        except OSError:
            return b""
    finally:
        until = time.monotonic() + 20
        while True:
            try:
                control.remove(_control.by_name(name), event_nr=EVENT)
                break
            except BlockError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.005)


def swap(tries, dmsetup_tries, number=NUMBER, directory="/var/tmp"):
    """
    Run the tries; return ``{way: counts}``. ``tries`` is the total for the collection's ways,
    ``dmsetup_tries`` that for dmsetup.
    """
    counter = Counter()
    with contextlib.ExitStack() as stack:
        place = tempfile.mkdtemp(prefix="swap-", dir=directory)
        stack.callback(shutil.rmtree, place)
        files = []
        for letter, marker in MARKERS.items():
            path = os.path.join(place, f"{letter}.raw")
            with open(path, "wb") as file:
                file.write(marker)
                file.truncate(SIZE)
            files.append(path)
        stack.enter_context(udev_stopped())
        stack.enter_context(fast_removal())
        loops = os.open(bind.CONTROL, os.O_RDWR | os.O_CLOEXEC)
        stack.callback(os.close, loops)
        fcntl.ioctl(loops, LOOP_CTL_ADD, number)
        if not os.path.exists(f"/dev/loop{number}"):
            os.mknod(f"/dev/loop{number}", 0o600 | 0o060000, os.makedev(7, number))
        child = os.fork()
        if not child:
            try:
                adversary(number, files)
            finally:
                os._exit(1)
        try:
            _play(counter, number, files, tries, dmsetup_tries)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            time.sleep(0.5)
            subprocess.run(["losetup", "-d", f"/dev/loop{number}"], check=False, capture_output=True)
            for _again in range(100):
                try:
                    fcntl.ioctl(loops, LOOP_CTL_REMOVE, number)
                    break
                except OSError:
                    time.sleep(0.05)
    return counter.rows


def _play(counter, number, files, tries, dmsetup_tries):
    wanted = MARKERS["a"]
    with _control.Control() as control:
        for turn in range(tries):
            name, way = f"swap-{os.getpid()}-{turn}", WAYS[turn % 3]
            if way == "file":
                counter.note(way, ours(control, {"file": files[0]}, name), wanted)
                continue
            diskseq = look_up(number, wanted, time.monotonic() + 30)
            value = (
                {"diskseq": diskseq}
                if way == "diskseq"
                else {"path": f"/dev/loop{number}", "diskseq": diskseq}
            )
            counter.note(way, ours(control, value, name), wanted)
        for turn in range(dmsetup_tries):
            look_up(number, wanted, time.monotonic() + 30)
            counter.note("dmsetup", dmsetup(control, number, f"swap-{os.getpid()}-d{turn}"), wanted)


def summary(rows):
    """One line for each way."""
    return "\n".join(
        f"{way:18}" + "".join(f"{number:8} {name}" for name, number in row.items())
        for way, row in rows.items()
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tries", type=int, default=10000, help="of the collection's ways together")
    parser.add_argument(
        "--dmsetup", type=int, default=300, help="tries with dmsetup, each of which starts a program"
    )
    options = parser.parse_args()
    started = time.monotonic()
    rows = swap(options.tries, options.dmsetup)
    print(f"Linux {os.uname().release}, {time.monotonic() - started:.0f} s")
    print(summary(rows))
    return 1 if any(row["wrong"] for way, row in rows.items() if way != "dmsetup") else 0


if __name__ == "__main__":
    sys.exit(main())
