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


_DOMID = "-xen-domid"


class Qemu(Record):
    """A QEMU process: its PID, and its domain ID as text, or None if its command line has none."""

    pid: str
    domid: str | None

    def may_serve(self, domid: int | str) -> bool:
        """Whether it serves this domain, or may serve it. A process for all domains has the domain ID 0."""
        return self.domid in (None, "0", str(domid))


def find_qemus() -> list[Qemu]:
    """All QEMU processes of this host; KernelError if /proc cannot be read."""
    pids = [pid for pid in gone.list_directory("/proc", ()) if pid.isdigit()]
    found = [pid for pid in pids if (_read(f"/proc/{pid}/comm") or "").startswith("qemu")]
    return [Qemu(pid, _domid_of(pid)) for pid in found]


def of_qemu(domid: int | str, qemus: Iterable[Qemu]) -> Iterator[tuple[os.stat_result, bool]]:
    """
    Yield ``(os.stat_result, whether it is open for writing)`` for each file or block device that is open in a
    QEMU process that serves this domain, or may serve it. KernelError if /proc cannot be read.
    """
    for qemu in qemus:
        if qemu.may_serve(domid):
            yield from _of_process(qemu.pid)


def _domid_of(pid: str) -> str | None:
    """The domain ID that libxl passes to QEMU (tools/libs/light/libxl_dm.c of Xen)."""
    words = (_read(f"/proc/{pid}/cmdline") or "").split("\0")
    return words[words.index(_DOMID) + 1] if _DOMID in words[:-1] else None


def _of_process(pid: str) -> Iterator[tuple[os.stat_result, bool]]:
    for number in gone.list_directory(f"/proc/{pid}/fd", gone.PROC_FILE):
        path = f"/proc/{pid}/fd/{number}"
        try:
            found = os.stat(path)
        except OSError as error:
            if error.errno in gone.PROC_FILE:
                continue
            raise gone.not_seen(error, path) from error
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISBLK(found.st_mode):
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
