# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The files that QEMU processes of guests have open, from /proc, wherever their paths lead now.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import os
import stat

from .._base import gone
from .._base.record import Record

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    # ``("file", st_dev, st_ino)`` or ``("block", major, minor)``.
    What = tuple[str, int, int]

_DOMID = "-xen-domid"
# Debian calls that of Xen /usr/libexec/xen-qemu-system-i386.
_PROGRAMS = ("qemu", "xen-qemu")


class Qemu(Record):
    """
    A QEMU process, or one of QEMU's tools: its PID, and its domain ID as text, or None if its command line
    has none. ``name``: of its guest, or of the program.
    """

    pid: str
    domid: str | None
    name: str = ""

    def may_serve(self, domid: int | str) -> bool:
        """Whether it serves this domain, or may serve it. A process for all domains has the domain ID 0."""
        return self.domid in (None, "0", str(domid))


def find_qemus() -> list[Qemu]:
    """All QEMU processes of this host; KernelError if /proc cannot be read."""
    return [_qemu(pid, comm) for pid, comm in _commands() if comm.startswith(_PROGRAMS)]


def qemus_with(wanted: set[What]) -> Iterator[tuple[What, Qemu]]:
    """Yield ``(what, Qemu)`` for each of ``wanted`` that a QEMU process has open; KernelError."""
    for qemu in find_qemus():
        for one in {what(found) for found, dummy in of_process(qemu.pid)}:
            if one is not None and one in wanted:
                yield one, qemu


def holders_of(device: What) -> list[str]:
    """The PIDs of holders (``_process.holder``) that have the device open; KernelError."""
    return [
        pid
        for pid, comm in _commands()
        if comm == "sleep\n" and any(what(found) == device for found, dummy in of_process(pid))
    ]


def _commands() -> list[tuple[str, str]]:
    """``[(PID, name of its program)]``."""
    pids = [pid for pid in gone.list_directory("/proc", ()) if pid.isdigit()]
    return [(pid, _read(f"/proc/{pid}/comm") or "") for pid in pids]


def of_qemu(domid: int | str, qemus: Iterable[Qemu]) -> Iterator[tuple[os.stat_result, bool]]:
    """
    Yield ``(os.stat_result, whether it is open for writing)`` for each file or block device that is open in a
    QEMU process that serves this domain, or may serve it. KernelError if /proc cannot be read.
    """
    for qemu in qemus:
        if qemu.may_serve(domid):
            yield from of_process(qemu.pid)


def _qemu(pid: str, comm: str) -> Qemu:
    """
    With the domain ID that libxl passes to QEMU (tools/libs/light/libxl_dm.c of Xen), and the name that
    libvirt passes, as ``guest=NAME,debug-threads=on`` with each comma doubled (qemu_command.c of libvirt).
    """
    words = (_read(f"/proc/{pid}/cmdline") or "").split("\0")
    domid, name = (words[words.index(key) + 1] if key in words[:-1] else None for key in (_DOMID, "-name"))
    if name is not None:
        name = name.replace(",,", "\0").partition(",")[0].replace("\0", ",")
        name = name[len("guest=") :] if name.startswith("guest=") else name
    return Qemu(pid, domid, name or comm.strip())


def what(found: os.stat_result) -> What | None:
    """What such a file is, to compare: the file or the block device; None for other kinds."""
    if stat.S_ISREG(found.st_mode):
        return "file", found.st_dev, found.st_ino
    if stat.S_ISBLK(found.st_mode):
        return "block", os.major(found.st_rdev), os.minor(found.st_rdev)
    return None


def of_process(pid: str) -> Iterator[tuple[os.stat_result, bool]]:
    """The same for one process. Nothing if it has ended. Raises KernelError."""
    for number in gone.list_directory(f"/proc/{pid}/fd", gone.PROC_FILE):
        path = f"/proc/{pid}/fd/{number}"
        try:
            found = os.stat(path)
        except OSError as error:
            if error.errno in gone.PROC_FILE:
                continue
            raise gone.not_seen(error, path) from error
        if what(found) is None:
            continue
        flags = _read(f"/proc/{pid}/fdinfo/{number}")
        yield found, flags is None or _may_write(flags)


def _may_write(fdinfo: str) -> bool:
    """Parse the line ``flags:``, which is octal (proc(5))."""
    return int(fdinfo.partition("flags:")[2].split()[0], 8) & os.O_ACCMODE != os.O_RDONLY


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError as error:
        if error.errno in gone.PROC_FILE:
            return None
        raise gone.not_seen(error, path) from error
