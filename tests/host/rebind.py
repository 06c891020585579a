# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
An adversary that gives a loop device another file while the hotplug script runs, against the collection's script and against Xen's own.

For each try the device has the file A, which is what the disk is to be; at a random moment of the script's run the adversary takes A away and
binds B, for as long as it is let. Counted is what blkback then has open: A is right, B is wrong, nothing is a refusal. Most tries begin when
the script's interpreter has been started, since nothing is done before. ``rebind.py --help`` has the options. Exit code 1 when the collection's
script ever exported a wrong device.
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

from ansible_collections.racefree.block.plugins.module_utils import _guest, _hotplug, _hotplug_add, _hotplug_pair, _hotplug_state, _uapi
from ansible_collections.racefree.block.plugins.module_utils._device import open_path
from ansible_collections.racefree.block.plugins.module_utils._errors import BlockError

GUEST = "rebind"
NUMBER = 241
NODE = f"/dev/loop{NUMBER}"
SIZE = 1 << 20
LOOP_CTL_ADD, LOOP_CTL_REMOVE = 0x4C80, 0x4C81
# What is passed to which script: ours knows which device is meant, or at least tells blkback which one it has proved.
# xl would kill Xen's own script after 40 s, which a busy emulated host may need.
_STOCK_SECONDS = 300
WAYS = (("diskseq", hotplug.SCRIPT), ("path", hotplug.SCRIPT), ("stock", hotplug.STOCK))


def bind(backing):
    """Give the device this file if it has none; whether it got it."""
    try:
        device = os.open(NODE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        config = _uapi.ffi.new("struct loop_config *")
        config.fd = backing
        fcntl.ioctl(device, _uapi.lib.LOOP_CONFIGURE, _uapi.ffi.buffer(config))
        return True
    except OSError:
        return False
    finally:
        os.close(device)


def unbind():
    with contextlib.suppress(OSError):
        device = os.open(NODE, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(device, _uapi.lib.LOOP_CLR_FD, 0)
        finally:
            os.close(device)


def marker():
    """Which file the device has: its first byte, or an empty text."""
    try:
        fd = os.open(NODE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.pread(fd, 1, 0)
    except OSError:
        return b""
    finally:
        os.close(fd)


class Place:
    """The two files, open, and the loop device that they take turns behind."""

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
            fcntl.ioctl(self.control, LOOP_CTL_ADD, NUMBER)
        if not os.path.exists(NODE):
            os.mknod(NODE, 0o600 | 0o060000, os.makedev(7, NUMBER))
        return self

    def __exit__(self, *exc):
        self.clear()
        for _again in range(100):
            try:
                fcntl.ioctl(self.control, LOOP_CTL_REMOVE, NUMBER)
                break
            except OSError:
                time.sleep(0.05)
        for fd in (*self.files.values(), self.control):
            os.close(fd)
        self.directory.cleanup()

    def clear(self):
        end = time.monotonic() + 20
        while os.path.exists(f"/sys/block/loop{NUMBER}/loop"):
            unbind()
            assert time.monotonic() < end, f"{NODE} is still bound"
            time.sleep(0.005)

    def begin(self):
        """A is behind the device; its sequence number."""
        self.clear()
        assert bind(self.files["A"])
        with open_path(NODE) as device:
            return device.id.diskseq


class Adversary:
    """
    A process that, when it is told to, waits a while and then exchanges A for B, again and again until it is told to stop. A context.

    One for all tries: a fork takes longer on an emulated host than what it is to disturb.
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
        while self._running[0] and time.monotonic() < moment:
            time.sleep(0.0005)
        done = False
        while self._running[0]:
            if not done:
                unbind()
                done = bind(self._place.files["B"])
            time.sleep(0.002 if done else 0.0005)


class _Link(_hotplug_pair.Link):
    """Sees whether it came so far that something could have been written."""

    was_shared = False

    def share(self, device):
        self.was_shared = True


class Try:
    """One try after the other in one way of WAYS; the disk is used again when nothing was ever written for it."""

    def __init__(self, store, place, adversary):
        self.store, self.place, self.adversary = store, place, adversary
        self.guest = _guest.find(store, GUEST)
        self.disk = None

    def __call__(self, way, script, delay, whole=False):
        """``(outcome, seconds that the script took)``; ``whole``: with the start of the interpreter, during which nothing can go wrong."""
        diskseq = self.place.begin()
        self._have_disk(f"diskseq:{diskseq}" if way == "diskseq" else NODE, script)
        began = time.monotonic()
        with self.adversary.at_work(delay):
            if script == hotplug.STOCK or whole:
                code, used = self.disk.start("add", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).wait(_STOCK_SECONDS), True
            else:
                code, used = self._add()
            took = time.monotonic() - began
        outcome = look(self.disk, code, way)
        if used or outcome != "refused":
            self.close()
        return outcome, took

    def _have_disk(self, target, script):
        if self.disk is not None and self.disk.script != script:
            self.close()
        if self.disk is None:
            self.disk = hotplug.Disk(self.store, self.guest, 0, target, script=script, bare=True)
            self.disk.__enter__()
            return
        backend = self.disk.key.backend

        def begin_anew(tx):
            tx.write(f"{backend}/params", target)
            tx.remove(f"{backend}/hotplug-error")
            tx.remove(f"{backend}/hotplug-status")

        self.store.transaction(begin_anew, 30)

    def _add(self):
        link = _Link()
        try:
            _hotplug_add.add(self.disk.key, _hotplug.SECONDS, link=link)
            return 0, True
        except BlockError:
            return 1, link.was_shared

    def close(self):
        if self.disk is not None:
            disk, self.disk = self.disk, None
            disk.close()
            _hotplug_state.forget(disk.key)

    def finish(self):
        """Also the directories that bare disks leave."""
        self.close()
        backends = f"/local/domain/0/backend/vbd/{self.guest.domid}"
        if self.store.list(backends) == []:
            self.store.remove(backends)


def look(disk, code, way):
    """What blkback has open now. It keeps the file of a loop device that it has open, whatever is asked to be unbound."""
    end = time.monotonic() + 2
    opened = f"{disk.key.sysfs}/physical_device"
    while code == 0 and not os.path.exists(opened) and time.monotonic() < end:
        # Xen's own script does not wait for it.
        time.sleep(0.01)
    if not os.path.exists(opened):
        return "refused"
    found = marker()
    if way != "path":
        return {b"A": "right", b"B": "wrong"}.get(found, "gone")
    # A path was asked for, so either file may be it; but it must be the device that was proved, and that blkback was told of.
    try:
        with open_path(NODE) as device:
            return "right" if f"{device.id.diskseq:x}" == disk.node("diskseq") else "wrong"
    except BlockError:
        return "gone"


def rebind(tries, stock_tries, whole=0):
    """``{way: {outcome: count}}``; ``tries`` of the collection's ways together, of which the last ``whole`` are with the interpreter's start."""
    rows = {way: {"right": 0, "refused": 0, "gone": 0, "wrong": 0} for way, script in WAYS}
    with Place() as place, hotplug.connect() as store, Adversary(place) as adversary, contextlib.ExitStack() as stack:
        one, length = Try(store, place, adversary), {}
        stack.callback(one.finish)
        for way, script in WAYS:
            for is_whole in (False, True):
                if not (stock_tries if script == hotplug.STOCK else whole or not is_whole):
                    continue
                outcome, length[way, is_whole] = one(way, script, None, is_whole)
                assert outcome == "right", f"undisturbed, {way} got a device that is {outcome}"
        for turn in range(tries):
            way, script = WAYS[turn % 2]
            is_whole = turn >= tries - whole
            rows[way][one(way, script, random.uniform(0, 1.1 * length[way, is_whole]), is_whole)[0]] += 1
            if turn % 50 == 49:
                print(f"{turn + 1} tries: {rows}", file=sys.stderr, flush=True)
        for _turn in range(stock_tries):
            rows["stock"][one("stock", hotplug.STOCK, random.uniform(0, 1.1 * length["stock", False]))[0]] += 1
    return rows


@contextlib.contextmanager
def guest():
    """A guest that answers for no disk: it is not asked, blkback opens the device all the same."""
    subprocess.run(["xenguest", "start", GUEST, "--memory", "128", "--no-frontend"], check=True, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        subprocess.run(["xenguest", "stop", GUEST], check=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=2000, help="of the collection's ways together")
    parser.add_argument("--whole", type=int, default=100, help="how many of them with the start of the script's interpreter, which takes most of its time")
    parser.add_argument("--stock", type=int, default=30, help="tries with Xen's own script, which takes longer")
    options = parser.parse_args()
    started = time.monotonic()
    with hotplug.installed(), guest(), hotplug.without_udev():
        rows = rebind(options.tries, options.stock, options.whole)
    for way, row in rows.items():
        print(f"{way:8}" + "".join(f"{count:8} {outcome}" for outcome, count in row.items()))
    print(f"{time.monotonic() - started:.0f} s")
    return 1 if any(rows[way]["wrong"] for way, script in WAYS if script == hotplug.SCRIPT) else 0


if __name__ == "__main__":
    sys.exit(main())
