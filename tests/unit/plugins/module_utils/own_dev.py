# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
A private /dev for tests that remove or replace nodes: in a child process with its own mount namespace.

It is a plain directory in memory, as in many containers. The kernel creates no nodes there, and the nodes of
the real /dev are not touched.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import select
import stat
import traceback

CLONE_NEWNS = 0x20000
MS_RDONLY, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 4, 32, 4096, 16384, 1 << 18
_KEPT = ("null", "zero", "full", "random", "urandom", "tty", "loop-control")
_libc = ctypes.CDLL(None, use_errno=True)


def run(function, loops=True, nodev=False):
    """
    Run ``function()`` in a child with a private /dev. Returns its result (anything that can be pickled);
    AssertionError with the error that it raised.

    ``loops``: whether to create nodes for all present loop devices. ``nodev``: whether it is mounted so that
    no node can be opened.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        _work(function, loops, nodev, writer)
    os.close(writer)
    try:
        data = _read(reader)
    finally:
        os.close(reader)
        os.waitpid(child, 0)
    is_good, value = pickle.loads(data)
    assert is_good, value
    return value


def _work(function, loops, nodev, writer):
    """In the child; never returns."""
    try:
        try:
            _enter(loops, nodev)
            told = True, function()
        except BaseException:  # pylint: disable=broad-exception-caught
            told = False, traceback.format_exc()
        with open(writer, "wb") as pipe:
            pipe.write(pickle.dumps(told))
    finally:
        os._exit(0)


def _read(reader):
    data = b""
    while select.select([reader], [], [], 120)[0]:
        part = os.read(reader, 1 << 16)
        if not part:
            return data
        data += part
    raise AssertionError("the child hangs")


def _enter(loops, nodev):
    _call("unshare", CLONE_NEWNS)
    _mount(None, "/", None, MS_REC | MS_PRIVATE)
    shared = os.open("/dev/shm", os.O_PATH)
    names = [name for name in os.listdir("/dev") if name in _KEPT or loops and _is_loop(name)]
    nodes = {name: os.lstat(f"/dev/{name}") for name in names}
    _mount("dev", "/dev", "tmpfs", MS_NODEV if nodev else 0)
    for name, there in nodes.items():
        os.mknod(f"/dev/{name}", stat.S_IFMT(there.st_mode) | 0o666, there.st_rdev)
    os.mkdir("/dev/shm")
    _mount(f"/proc/self/fd/{shared}", "/dev/shm", None, MS_BIND)
    os.close(shared)
    with contextlib.suppress(FileExistsError):
        os.symlink("/proc/self/fd", "/dev/fd")


def _is_loop(name):
    return name.startswith("loop") and name[4:].isdigit()


def _mount(source, target, kind, flags):
    texts = [None if text is None else text.encode() for text in (source, target, kind)]
    _call("mount", *texts, ctypes.c_ulong(flags), None)


def _call(name, *arguments):
    if getattr(_libc, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def read_only():
    """In :func:`run`: make /dev read-only."""
    _mount(None, "/dev", None, MS_REMOUNT | MS_BIND | MS_RDONLY)


def hide(path):
    """In :func:`run`: mount an empty file system over the directory."""
    _mount("none", path, "tmpfs", 0)
