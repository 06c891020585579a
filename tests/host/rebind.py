# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
An adversary gives a loop device another file while the hotplug script runs: the collection's script, or Xen's
own.

For each try the device has the file A, which is what the disk is to be; at a random moment of the script's
run the adversary takes A away and binds B, for as long as it is let. Counted is what blkback then has open: A
is right, B is wrong, nothing is a refusal. The part ``work`` is what the script does when its interpreter has
been started, ``served`` the script with its service, ``stock`` Xen's own. ``rebind.py --help`` has the
options. Exit code 1 when the collection's script ever exported a wrong device.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time

if __name__ == "__main__":
    sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))

import hotplug
from ansible_collections.racefree.block.plugins.module_utils._base.errors import BlockError
from ansible_collections.racefree.block.plugins.module_utils._block import boot
from ansible_collections.racefree.block.plugins.module_utils._block.device import open_path
from ansible_collections.racefree.block.plugins.module_utils._hotplug import add, state, worker
from ansible_collections.racefree.block.plugins.module_utils._hotplug import (
    script as _script,
)
from ansible_collections.racefree.block.plugins.module_utils._kernel import uapi
from ansible_collections.racefree.block.plugins.module_utils._xen import guest

GUEST = "rebind"
NUMBER = 241
SIZE = 1 << 20
LOOP_CTL_ADD, LOOP_CTL_REMOVE = 0x4C80, 0x4C81
# What the script gets. The collection's script knows which device is meant, or at least tells blkback which
# one it has checked.
WAYS = {"work": ("diskseq", "path"), "served": ("diskseq", "path"), "stock": ("stock",)}
SCRIPTS = {"work": None, "served": hotplug.SCRIPT, "stock": hotplug.STOCK}
# xl would kill Xen's own script after 40 s, but a busy emulated host may need more.
_STOCK_SECONDS = 300
_BATCH = 4


class Place:
    """
    The two open files, and the loop device with this number, which has one of them at a time; a context.
    """

    def __init__(self, number):
        self.number = number
        self.node = f"/dev/loop{number}"
        self.sysfs = f"/sys/block/loop{number}/loop"

    def __enter__(self):
        self.directory = tempfile.TemporaryDirectory(prefix="rebind-", dir="/var/tmp")
        self.files = {}
        for letter in "AB":
            fd = os.open(os.path.join(self.directory.name, letter), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
            os.pwrite(fd, letter.encode() * 512, 0)
            os.ftruncate(fd, SIZE)
            self.files[letter] = fd
        self.control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
        with contextlib.suppress(FileExistsError):
            fcntl.ioctl(self.control, LOOP_CTL_ADD, self.number)
        if not os.path.exists(self.node):
            os.mknod(self.node, 0o600 | 0o060000, os.makedev(7, self.number))
        return self

    def __exit__(self, *exc):
        self.clear()
        for _again in range(100):
            try:
                fcntl.ioctl(self.control, LOOP_CTL_REMOVE, self.number)
                break
            except OSError:
                time.sleep(0.05)
        for fd in (*self.files.values(), self.control):
            os.close(fd)
        self.directory.cleanup()

    def begin(self):
        """A is behind the device; its sequence number."""
        self.clear()
        assert self.bind("A")
        with open_path(self.node) as device:
            return device.id.diskseq

    def clear(self):
        end = time.monotonic() + 20
        while os.path.exists(self.sysfs):
            self.unbind()
            assert time.monotonic() < end, f"{self.node} is still bound"
            time.sleep(0.005)

    def bind(self, letter):
        """Give the device this file if it has none; returns whether it did."""
        try:
            device = os.open(self.node, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            config = uapi.ffi.new("struct loop_config *")
            config.fd = self.files[letter]
            fcntl.ioctl(device, uapi.lib.LOOP_CONFIGURE, uapi.ffi.buffer(config))
            return True
        except OSError:
            return False
        finally:
            os.close(device)

    def unbind(self):
        with contextlib.suppress(OSError):
            device = os.open(self.node, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, uapi.lib.LOOP_CLR_FD, 0)
            finally:
                os.close(device)

    def marker(self):
        """Which file the device has: its first byte, or an empty text."""
        try:
            fd = os.open(self.node, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            return os.pread(fd, 1, 0)
        except OSError:
            return b""
        finally:
            os.close(fd)


class Adversary:
    """
    A process that waits for a command, then for a while, and then replaces A with B repeatedly until told to
    stop. A context manager.

    One process for all tries: on an emulated host, a fork takes longer than what it should disturb.
    """

    def __init__(self, place):
        self._place = place
        self._running = mmap.mmap(-1, 1)
        self._orders = os.pipe()
        self._answers = os.pipe()
        self._pid = None

    def __enter__(self):
        self._pid = os.fork()
        if not self._pid:
            try:
                while True:
                    self._disturb(struct.unpack("d", os.read(self._orders[0], 8))[0])
                    os.write(self._answers[1], b".")
            finally:
                os._exit(1)
        return self

    def __exit__(self, *exc):
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        for fd in (*self._orders, *self._answers):
            os.close(fd)

    @contextlib.contextmanager
    def at_work(self, delay):
        """From ``delay`` seconds from now on; None: not at all."""
        if delay is None:
            yield
            return
        self._running[0] = 1
        os.write(self._orders[1], struct.pack("d", time.monotonic() + delay))
        try:
            yield
        finally:
            self._running[0] = 0
            os.read(self._answers[0], 1)

    def _disturb(self, moment):
        # It wakes up seldom, to leave the processor to what it should disturb.
        time.sleep(max(0, moment - time.monotonic()))
        done = False
        while self._running[0]:
            if not done:
                self._place.unbind()
                done = self._place.bind("B")
            time.sleep(0.01 if done else 0.0005)


class _Link(worker.Link):
    """Records whether the script got so far that something could have been written."""

    was_shared = False

    def share(self, device):
        self.was_shared = True


class Try:
    """
    Tries in one way of WAYS, one after the other. A disk is used again if nothing was ever written for it.
    """

    def __init__(self, store, place, adversary, guest_name):
        self.store, self.place, self.adversary = store, place, adversary
        self.guest = guest.find(store, guest_name)
        self.disk = None
        # Disks whose nodes are written already, and what has been numbered.
        self.ready = []
        self.numbered = 0

    def __call__(self, way, script, delay):
        """
        ``(outcome, seconds that the script took)``; without a script it is the worker's part, in this
        process.
        """
        diskseq = self.place.begin()
        self._have_disk(
            f"diskseq:{diskseq}@{boot.boot_id()}" if way == "diskseq" else self.place.node, script
        )
        began = time.monotonic()
        with self.adversary.at_work(delay):
            if script:
                code, used = (
                    self.disk.start("add", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).wait(
                        _STOCK_SECONDS
                    ),
                    True,
                )
            else:
                code, used = self._add()
            took = time.monotonic() - began
        outcome = look(self.disk, self.place, code, way)
        if used or outcome != "refused":
            self.close()
        return outcome, took

    def _have_disk(self, target, script):
        is_new = self.disk is None
        if is_new:
            self.disk = self._next()
        disk, backend = self.disk, self.disk.key.backend
        self.store.write(f"{backend}/params", target)
        for node in () if is_new else ("hotplug-error", "hotplug-status"):
            self.store.remove(f"{backend}/{node}")
        disk.params, disk.script = target, script or hotplug.SCRIPT

    def _next(self):
        """The kernel takes a while for a new vbd, so the next ones are started before they are needed."""
        if len(self.ready) < 2:
            new = [
                hotplug.Disk(self.store, self.guest, (self.numbered + number) % (3 * _BATCH), "/", bare=True)
                for number in range(_BATCH)
            ]
            self.numbered += _BATCH
            hotplug.wait_until(
                lambda: not any(os.path.exists(disk.key.sysfs) for disk in new), 60, "earlier disks to go"
            )
            self.store.transaction(lambda tx: [disk.lay(tx) for disk in new], 60)
            self.ready += new
        disk = self.ready.pop(0)
        disk.wait_for_backend()
        return disk

    def _add(self):
        link = _Link()
        try:
            add.add(self.disk.key, _script.SECONDS, link=link)
            return 0, True
        except BlockError:
            return 1, link.was_shared

    def close(self):
        """Its number is not used again before the kernel has finished with it."""
        if self.disk is not None:
            disk, self.disk = self.disk, None
            disk.remove_nodes(wait=False)
            state.forget(disk.key)

    def finish(self):
        """Removes the directories that bare disks leave, too."""
        self.close()
        for disk in self.ready:
            disk.remove_nodes()
        backends = f"/local/domain/0/backend/vbd/{self.guest.domid}"
        if self.store.list(backends) == []:
            self.store.remove(backends)


def look(disk, place, code, way):
    """What blkback has open now. An open loop device keeps its file, even after a request to detach it."""
    end = time.monotonic() + 2
    opened = f"{disk.key.sysfs}/physical_device"
    while code == 0 and not os.path.exists(opened) and time.monotonic() < end:
        # Xen's own script does not wait for it.
        time.sleep(0.01)
    if not os.path.exists(opened):
        return "refused"
    found = place.marker()
    if way != "path":
        return {b"A": "right", b"B": "wrong"}.get(found, "gone")
    # The target is a path, so either file is right. But it must be the device that was checked and passed to
    # blkback.
    try:
        with open_path(place.node) as device:
            return "right" if f"{device.id.diskseq:x}" == disk.node("diskseq") else "wrong"
    except BlockError:
        return "gone"


def rebind(guest_name, **counts):
    """``{part: {way: {outcome: count}}}`` for so many tries of each part of WAYS."""
    rows = {}
    with (
        Place(NUMBER) as place,
        hotplug.connect() as store,
        Adversary(place) as adversary,
        contextlib.ExitStack() as stack,
    ):
        one = Try(store, place, adversary, guest_name)
        stack.callback(one.finish)
        for part, count in counts.items():
            rows[part] = {way: {"right": 0, "refused": 0, "gone": 0, "wrong": 0} for way in WAYS[part]}
            _rebind_part(one, SCRIPTS[part], count, rows[part])
    return rows


def _rebind_part(one, script, count, rows):
    length = {}
    for turn in range(count):
        way = list(rows)[turn % len(rows)]
        for _again in range(0 if way in length else 2):
            # The first one imports modules for the others.
            outcome, length[way] = one(way, script, None)
            assert outcome == "right", f"undisturbed, {way} got a device that is {outcome}"
        rows[way][one(way, script, random.uniform(0, 1.1 * length[way]))[0]] += 1
        if turn % 50 == 49:
            print(f"{turn + 1} of {count} tries: {rows}", file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work",
        type=int,
        default=1000,
        help="tries of the collection's ways without the script's start and service",
    )
    parser.add_argument("--served", type=int, default=1000, help="tries with the script and its service")
    parser.add_argument(
        "--stock", type=int, default=30, help="tries with Xen's own script, which takes longer"
    )
    options = parser.parse_args()
    started = time.monotonic()
    with hotplug.installed(), hotplug.without_udev(), hotplug.Service(), hotplug.mute_guest(GUEST):
        rows = rebind(GUEST, work=options.work, served=options.served, stock=options.stock)
    wrong = 0
    for part, ways in rows.items():
        for way, row in ways.items():
            print(f"{part:7} {way:8}" + "".join(f"{count:8} {outcome}" for outcome, count in row.items()))
            wrong += part != "stock" and row["wrong"]
    print(f"{time.monotonic() - started:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
