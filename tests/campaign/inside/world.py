# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The state of the kernel, read from sysfs independent of the collection's code, and a place for tries that
contains somebody else's devices.
"""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import tempfile
import time

import rawdev

SECTORS = 4096
SIZE = SECTORS * 512
BYSTANDER = "campaign-bystander"


# EINVAL: a mapped device that is being removed (dm_attr_show() in drivers/md/dm-sysfs.c).
_GONE = (errno.ENOENT, errno.ENODEV, errno.EINVAL)


def _read(path):
    """An attribute in sysfs, as text, or None if the device does not exist or is not bound."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # An attribute has at most a page; a file object would make four more system calls.
            return os.read(fd, 4096).decode(errors="replace").strip()
        finally:
            os.close(fd)
    except OSError as problem:
        if problem.errno in _GONE:
            return None
        raise


def loops():
    """{name: (diskseq, backing file, offset)} of all bound loop devices."""
    found = {}
    for name in os.listdir("/sys/block"):
        if name.startswith("loop"):
            file = _read(f"/sys/block/{name}/loop/backing_file")
            if file is not None:
                found[name] = (
                    _read(f"/sys/block/{name}/diskseq"),
                    file,
                    _read(f"/sys/block/{name}/loop/offset"),
                )
    return found


def _below(base):
    """The kernel's names of the devices below a mapped device, or None if it does not exist any more."""
    try:
        return tuple(sorted(os.listdir(f"{base}/slaves")))
    except FileNotFoundError:
        return None


def mapped():
    """{name: (uuid, diskseq, kernel's name, devices below, whether suspended)} of all mapped devices."""
    found = {}
    for node in os.listdir("/sys/block"):
        if node.startswith("dm-"):
            base = f"/sys/block/{node}"
            name, below = _read(f"{base}/dm/name"), _below(base)
            if name is not None and below is not None:
                found[name] = (
                    _read(f"{base}/dm/uuid"),
                    _read(f"{base}/diskseq"),
                    node,
                    below,
                    _read(f"{base}/dm/suspended"),
                )
    return found


def everything():
    return loops(), mapped()


def read(node, offset=0, size=1):
    """Bytes of a device, bypassing the page cache; empty if it cannot be read."""
    try:
        fd = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.pread(fd, size, offset)
    except OSError:
        return b""
    finally:
        os.close(fd)


def tool(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False)


def settled(condition, seconds=10):
    """Whether the condition becomes true within that time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


class World:
    """
    A directory with files; and a bystander, a loop device with a mapped device on it, which must never
    change. A context manager.
    """

    def __enter__(self):
        self._held = contextlib.ExitStack()
        self.directory = self._held.enter_context(
            tempfile.TemporaryDirectory(prefix="campaign-", dir="/var/tmp")
        )
        self.bystander = self.file("bystander", b"Z")
        loop = tool("losetup", "--find", "--show", self.bystander).stdout.strip()
        rawdev.make_mapped(BYSTANDER, "", [(0, SECTORS, "linear", f"{loop} 0")])
        self._loop = os.path.basename(loop)
        self.start = everything()
        self._content = self._bystander()
        assert self._content[2] == b"ZZZZ", self._content
        return self

    def __exit__(self, *exc):
        self.clean()
        rawdev.remove_mapped(BYSTANDER)
        rawdev.unbind(f"/dev/{self._loop}")
        self._held.close()

    def file(self, name, letter=b"", size=SIZE):
        """
        Create a file of that size. It begins with 4096 times the letter in upper case, then 4096 times in
        lower case.
        """
        path = os.path.join(self.directory, name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        with open(path, "wb") as file:
            if letter:
                file.write(letter * 4096)
                file.write(letter.lower() * 4096)
            file.truncate(size)
        return path

    def _bystander(self):
        device = mapped().get(BYSTANDER)
        return loops().get(self._loop), device, read(f"/dev/{device[2]}", 0, 4) if device else b""

    def is_intact(self):
        """Whether the bystander is unchanged."""
        return self._bystander() == self._content

    def left(self):
        """What exists in addition to the initial state, as text; empty if nothing does."""
        now = everything()
        more = [f"{name} over {row[1]}" for name, row in now[0].items() if name not in self.start[0]]
        more += [f"{name} ({row[0]})" for name, row in now[1].items() if name not in self.start[1]]
        return ", ".join(sorted(more))

    def clean(self):
        """Remove everything that is left, for the next try."""
        for again in range(200):
            if not self.left():
                return
            for name in mapped():
                if name not in self.start[1] and not rawdev.remove_mapped(name) and again > 20:
                    tool("dmsetup", "remove", "--noudevsync", "--force", name)
            for name in loops():
                if name not in self.start[0]:
                    rawdev.unbind(f"/dev/{name}")
            if again:
                time.sleep(min(0.001 * again, 0.05))
        raise RuntimeError(f"cannot be taken away: {self.left()}")
