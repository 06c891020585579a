# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Processes named so that no other can be meant: by their id and the time they started at.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import os
import select
import signal

from . import _gone
from ._errors import KernelError


def start_time(pid):
    """
    Field 22 of /proc/PID/stat, in clock ticks since boot, as text; with the pid it names one process of this
    boot. None when there is no such process; KernelError when that cannot be told.
    """
    path = f"/proc/{pid}/stat"
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stat:
            return stat.read().rpartition(")")[2].split()[19]
    except OSError as error:
        # Without /proc every process would seem to have ended.
        if error.errno in _gone.PROC_FILE and _gone.exists("/proc/self"):
            return None
        raise _gone.not_seen(error, path) from error


def end(pid, started, seconds=5.0):
    """
    Kill the process that has this id and began at ``started`` (:func:`start_time`), and wait for its end; whether it has ended.

    True also when there is no such process; KernelError when that cannot be told. It need not be a child.
    """
    try:
        handle = os.pidfd_open(pid)
    except OSError as error:
        if error.errno in _gone.PROCESS:
            return True
        raise KernelError.from_oserror(error, f"look at the process {pid}") from error
    try:
        # The handle is one process's for good, so what is true of the id now is true of what is killed.
        if start_time(pid) != started:
            return True
        try:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        except ProcessLookupError:
            return True
        return bool(select.select([handle], [], [], seconds)[0])
    finally:
        os.close(handle)
