# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The QEMU process of a domain that libvirt runs, and which devices it has opened.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

libvirt gives QEMU a /dev of its own, in a mount namespace (qemu_namespace.c of libvirt): it looks at the
host's path once, and makes a node with the number that it finds. QEMU opens that node. So two things show
which device a disk has: the number at the disk's path in QEMU's own /dev, and the block devices among QEMU's
open files. An open device keeps its number.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NamedTuple

from .._base import gone
from .._base.errors import GuestError, WrongDevice
from .._process import identity, open_files

if TYPE_CHECKING:
    from .._block.device import Device
    from .._process.open_files import What

# libvirt's record of each process, NAME.pid (virPidFileBuildPath, qemu_process.c).
RECORDS = "/run/libvirt/qemu"
_MOST_LINKS = 40  # the kernel's limit (MAXSYMLINKS)


class Process(NamedTuple):
    """``started``: its start time (``_process.identity.start_time``); with the PID it identifies it."""

    pid: int
    started: str


def find(domain: str, uuid: str) -> Process:
    """The QEMU process of the running domain with this name and UUID. Raises GuestError or KernelError."""
    path = f"{RECORDS}/{domain}.pid"
    text = "" if "/" in domain else (_read(path) or "").strip()
    if not text.isdecimal():
        raise GuestError("libvirt has not recorded the PID of its QEMU", device=path)
    # The start time is read first: whatever the PID belongs to later, it then differs.
    started = identity.start_time(text)
    words = (_read(f"/proc/{text}/cmdline") or "").split("\0")
    if started is None or "-uuid" not in words[:-1] or words[words.index("-uuid") + 1].lower() != uuid:
        raise GuestError(f"the process {text} of {path} is not its QEMU", device=domain)
    return Process(int(text), started)


def prove(process: Process, path: str, device: Device, title: str) -> None:
    """
    Raise WrongDevice unless QEMU has the held device at this path, and has opened it. ``title``: of the disk,
    for messages. GuestError if QEMU has ended, KernelError.
    """
    number = (device.id.major, device.id.minor)
    seen = number_at(process, path)
    is_open = number in opened(process)
    if identity.start_time(process.pid) != process.started:
        raise GuestError("its QEMU has ended", device=title)
    if seen != number or not is_open:
        other = "nothing" if seen is None else f"{seen[0]}:{seen[1]}"
        raise WrongDevice(
            f"QEMU has {other} at {path} instead of {device.id.number}"
            if seen != number
            else f"QEMU has {device.id.number} at {path}, but has opened something else",
            device=title,
            hint="Something made the path lead to another device meanwhile. Find out what, and try again",
        )
    device.prove()


def opened(process: Process) -> set[tuple[int, int]]:
    """``{(major, minor)}`` of the block devices that QEMU has open. Raises KernelError."""
    return {has[1:] for has in _open(process) if has[0] == "block"}


def count(process: Process, what: What) -> int:
    """How often QEMU has this file or block device open. Raises KernelError."""
    return _open(process).count(what)


def _open(process: Process) -> list[What]:
    found = [open_files.what(there) for there, dummy in open_files.of_process(str(process.pid))]
    return [what for what in found if what is not None]


def number_at(process: Process, path: str) -> tuple[int, int] | None:
    """The number of the block device at a path as QEMU sees it; None if there is none. Raises KernelError."""
    what = at(process, path)
    return what[1:] if what is not None and what[0] == "block" else None


def at(process: Process, path: str) -> What | None:
    """The file or block device at a path as QEMU sees it; None if there is none. Raises KernelError."""
    root = f"/proc/{process.pid}/root"
    for dummy in range(_MOST_LINKS):
        # The kernel would follow an absolute link in this process's file system.
        try:
            path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(root + path)))
        except OSError as error:
            if error.errno == errno.EINVAL:
                break
            if error.errno in (*gone.PATH, *gone.PROCESS):
                return None
            raise gone.not_seen(error, root + path) from error
    try:
        there = os.stat(root + path, follow_symlinks=False)
    except OSError as error:
        if error.errno in (*gone.PATH, *gone.PROCESS):
            return None
        raise gone.not_seen(error, root + path) from error
    return open_files.what(there)


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError as error:
        if error.errno in (*gone.PATH, *gone.PROC_FILE):
            return None
        raise gone.not_seen(error, path) from error
