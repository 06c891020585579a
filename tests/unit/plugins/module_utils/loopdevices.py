# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Loop devices of this machine for tests, created with plain ioctls, independent of the code under test.

Others use the machine's loop devices at the same time, so only devices of a test's own files are examined.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import signal
import socket
import struct
import tempfile
import time

import pytest

CONTROL = "/dev/loop-control"
LOOP_CLR_FD, LOOP_GET_STATUS64, LOOP_CHANGE_FD, LOOP_CONFIGURE = 0x4C01, 0x4C05, 0x4C06, 0x4C0A
LOOP_CTL_ADD, LOOP_CTL_REMOVE, LOOP_CTL_GET_FREE = 0x4C80, 0x4C81, 0x4C82
BLKGETDISKSEQ = 0x80081280
READ_ONLY, AUTOCLEAR, PARTSCAN = 1, 4, 8
BLKPG, ADD_PARTITION, DELETE_PARTITION = 0x1269, 1, 2


def why_not():
    """The reason why loop devices cannot be tested here, or None."""
    if os.geteuid() != 0:
        return "loop devices need root"
    if not os.path.exists(CONTROL):
        return f"there is no {CONTROL}: modprobe loop"
    return None


def need_loop():
    if why_not():
        pytest.skip(why_not())


@contextlib.contextmanager
def directory():
    """
    A directory in memory if possible. There, binding and detaching a file is ten times as fast as on a disk,
    because nothing has to be synced.
    """
    path = tempfile.mkdtemp(prefix="racefree-test-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def image(where, name, size=65536, content=b""):
    path = os.path.join(str(where), name)
    with open(path, "wb") as file:
        file.write(content)
        file.truncate(size)
    return path


def special_file(path, kind):
    """Create a file that is not regular: a dir, fifo, socket, or link to a FIFO; nothing for None."""
    if kind == "dir":
        os.mkdir(path)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
    elif kind == "link":
        os.mkfifo(f"{path}.fifo")
        os.symlink(f"{path}.fifo", path)


def bind(number, path, flags=AUTOCLEAR):
    """Bind the file to /dev/loopN; returns the descriptor, or None if the device is not free now."""
    try:
        device = os.open(
            f"/dev/loop{number}", (os.O_RDONLY if flags & READ_ONLY else os.O_RDWR) | os.O_CLOEXEC
        )
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT, errno.EBUSY):
            return None
        raise
    backing = os.open(path, (os.O_RDONLY if flags & READ_ONLY else os.O_RDWR) | os.O_CLOEXEC)
    try:
        config = bytearray(304)
        struct.pack_into("=I", config, 0, backing)
        struct.pack_into("=I", config, 8 + 52, flags)
        fcntl.ioctl(device, LOOP_CONFIGURE, config)
        return device
    except OSError as error:
        os.close(device)
        if error.errno in (errno.EBUSY, errno.EAGAIN, errno.ENXIO):
            return None
        raise
    finally:
        os.close(backing)


def bind_free(path, flags=AUTOCLEAR):
    """Bind the file to a free loop device; returns ``(descriptor, number)``."""
    for dummy in range(10000):
        with open(CONTROL, "rb+", buffering=0) as control:
            number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
        device = bind(number, path, flags)
        if device is not None:
            return device, number
    raise AssertionError("no free loop device")


@contextlib.contextmanager
def own_number():
    """
    The number of a loop device that is added for this test, and that LOOP_CTL_GET_FREE does not return to
    anyone. Removed at the end.
    """
    with open(CONTROL, "rb+", buffering=0) as control:
        for number in range(4000 + os.getpid() % 1000, 9000):
            try:
                fcntl.ioctl(control, LOOP_CTL_ADD, number)
                break
            except FileExistsError:
                continue
        try:
            yield number
        finally:
            end = time.monotonic() + 10
            while True:
                try:
                    fcntl.ioctl(control, LOOP_CTL_REMOVE, number)
                    break
                except OSError:
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.02)


def diskseq_of(fd):
    buffer = bytearray(8)
    fcntl.ioctl(fd, BLKGETDISKSEQ, buffer)
    return struct.unpack("=Q", buffer)[0]


def bound_files(prefix):
    """``{number: path}`` of the loop devices that are bound to files with this path prefix, from sysfs."""
    found = {}
    for name in os.listdir("/sys/block"):
        if name.startswith("loop"):
            with (
                contextlib.suppress(OSError),
                open(f"/sys/block/{name}/loop/backing_file", encoding="utf-8") as attribute,
            ):
                path = attribute.read().rstrip("\n")
                if path.startswith(str(prefix)):
                    found[int(name[4:])] = path
    return found


def nothing_bound(prefix, seconds=5.0):
    """Whether no such file is bound any more within that time. A prober may hold a device briefly."""
    end = time.monotonic() + seconds
    while bound_files(prefix):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


@contextlib.contextmanager
def at_most(seconds):
    """Raise an error after that time, so that the test does not hang."""

    def late(number, frame):
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def change_partition(fd, operation, number, start=0, length=0):
    """
    BLKPG of include/uapi/linux/blkpg.h; start and length in bytes. Used because not every kernel can parse a
    partition table.
    """
    data = ctypes.create_string_buffer(struct.pack("qqi64s64s", start, length, number, b"", b""), 152)
    fcntl.ioctl(fd, BLKPG, struct.pack("iiiP", operation, 0, 152, ctypes.addressof(data)))
