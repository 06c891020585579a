# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Identify processes unambiguously: by process ID and start time.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import _signal as signal  # the module signal only adds enumerations, which take long to import
import os
import select

from .._base import gone
from .._base.errors import KernelError

# In a mark: its process saw the /proc of another PID namespace, so its namespaces are unknown.
_UNKNOWN = "0"


def start_time(pid: int | str) -> str | None:
    """
    Field 22 of /proc/PID/stat, in clock ticks since boot, as text. Together with the PID, it identifies a
    process of this boot. None if there is no such process; KernelError if this cannot be known.
    """
    path = f"/proc/{pid}/stat"
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stat:
            return stat.read().rpartition(")")[2].split()[19]
    except OSError as error:
        # Without /proc, every process would seem to have ended.
        if error.errno in gone.PROC_FILE and gone.exists("/proc/self"):
            return None
        raise gone.not_seen(error, path) from error


def own_mark() -> str:
    """This process as ``PID-START-NAMESPACES``, for :func:`has_ended` in another process."""
    return mark_of("self", os.getpid())


def mark_of(process: int | str, pid: int) -> str:
    """
    The mark of a process, from its name in /proc and its PID, which belongs to this process's PID namespace.

    PIDs belong to a PID namespace, and start times to a time namespace (pid_namespaces(7),
    time_namespaces(7)).
    """
    return f"{pid}-{start_time(process)}-{_namespaces() or _UNKNOWN}"


def parse_mark(text: str) -> tuple[str, str, str] | None:
    """``(pid, start time, namespaces)`` from the text of :func:`own_mark`, or None."""
    words = text.split("-")
    if len(words) != 3 or not all(words) or not (words[0] + words[1]).isdecimal():
        return None
    return words[0], words[1], words[2]


def is_of_this_namespace(mark: str) -> bool:
    """
    Whether the process of this mark can be seen: it has this process's PID and time namespaces. Raises
    KernelError.
    """
    found = parse_mark(mark)
    return found is not None and found[2] == _namespaces()


def has_ended(mark: str) -> bool:
    """
    Whether the process of this mark is known to have ended. False for a mark of another namespace, and for
    text that is not a mark. KernelError if /proc cannot be read.
    """
    found = parse_mark(mark)
    return found is not None and found[2] == _namespaces() and start_time(found[0]) != found[1]


def _namespaces() -> str | None:
    """:func:`namespaces` as one word, or None."""
    numbers = namespaces()
    return numbers and ".".join(f"{number:x}" for number in numbers)


def namespaces() -> tuple[int, int] | None:
    """
    The inode numbers of this process's PID and time namespaces, 32 bits each; None if /proc belongs to
    another PID namespace. Raises KernelError.
    """
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return None
        pids = os.stat("/proc/self/ns/pid").st_ino
    except OSError as error:
        raise KernelError.from_oserror(error, "look at this process in /proc") from error
    try:
        return pids, os.stat("/proc/self/ns/time").st_ino
    except FileNotFoundError:
        # The kernel has no such namespaces (CONFIG_TIME_NS).
        return pids, 0


def end(pid: int, started: str, seconds: float = 5.0) -> bool:
    """
    Kill the process with this PID and the start time ``started`` (:func:`start_time`), and wait up to
    ``seconds``. Returns whether it has ended.

    Also True if there is no such process. It need not be a child. Raises KernelError.
    """
    try:
        handle = os.pidfd_open(pid)
    except OSError as error:
        if error.errno in gone.PROCESS:
            return True
        raise KernelError.from_oserror(error, f"look at the process {pid}") from error
    try:
        # The pidfd refers to one process, so the start time read now is that of the process that is killed.
        if start_time(pid) != started:
            return True
        try:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        except ProcessLookupError:
            return True
        return bool(select.select([handle], [], [], seconds)[0])
    finally:
        os.close(handle)


def end_marked(mark: str, seconds: float = 5.0) -> bool:
    """
    Call :func:`end` for the process of a mark of this namespace. Returns whether it is known to have ended.
    """
    found = parse_mark(mark)
    return found is not None and found[2] == _namespaces() and end(int(found[0]), found[1], seconds)
