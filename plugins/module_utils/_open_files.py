# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What files a guest's QEMU has open, by /proc: for those that no path leads to.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import os

from . import _gone

_DOMID = "-xen-domid"


def of_qemu(domid):
    """
    Yield ``(os.stat_result, whether it is open for writing)`` of each file that a QEMU has open which is this
    domain's, or may be.

    KernelError when that cannot be looked at.
    """
    for pid in _gone.list_directory("/proc", ()):
        if pid.isdigit() and (_read(f"/proc/{pid}/comm") or "").startswith("qemu") and _may_serve(pid, domid):
            yield from _of_process(pid)


def _may_serve(pid, domid):
    """
    libxl tells QEMU the guest (tools/libs/light/libxl_dm.c of Xen); one that serves all of a domain's guests
    has that domain's number.
    """
    words = (_read(f"/proc/{pid}/cmdline") or "").split("\0")
    return _DOMID not in words[:-1] or words[words.index(_DOMID) + 1] in (str(domid), "0")


def _of_process(pid):
    for number in _gone.list_directory(f"/proc/{pid}/fd", _gone.PROC_FILE):
        path = f"/proc/{pid}/fd/{number}"
        try:
            found = os.stat(path)
        except OSError as error:
            if error.errno in _gone.PROC_FILE:
                continue
            raise _gone.not_seen(error, path) from error
        flags = _read(f"/proc/{pid}/fdinfo/{number}")
        yield found, flags is None or _may_write(flags)


def _may_write(fdinfo):
    """The line ``flags:`` is octal (proc(5))."""
    return int(fdinfo.partition("flags:")[2].split()[0], 8) & os.O_ACCMODE != os.O_RDONLY


def _read(path):
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError as error:
        if error.errno in _gone.PROC_FILE:
            return None
        raise _gone.not_seen(error, path) from error
