# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Processes named so that no other can be meant: by their id and the time they started at.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import _signal as signal  # the module signal only adds enumerations, which take long to import
import os
import select

from .._base import gone
from .._base.errors import KernelError

# In a mark: its maker's /proc shows processes of another namespace.
_UNKNOWN = "0"


def start_time(pid: int | str) -> str | None:
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
        if error.errno in gone.PROC_FILE and gone.exists("/proc/self"):
            return None
        raise gone.not_seen(error, path) from error


def own_mark() -> str:
    """This process as ``PID-START-NAMESPACES``, for :func:`has_ended` in another one."""
    return mark_of("self", os.getpid())


def mark_of(process: int | str, pid: int) -> str:
    """
    The mark of a process by its name in /proc and its id, which is one of this process's PID namespace.

    Ids of processes are those of a PID namespace, and times of start those of a time namespace
    (pid_namespaces(7), time_namespaces(7)).
    """
    return f"{pid}-{start_time(process)}-{_namespaces() or _UNKNOWN}"


def parse_mark(text: str) -> tuple[str, str, str] | None:
    """``(pid, start time, namespaces)`` of :func:`own_mark`'s text, or None."""
    words = text.split("-")
    if len(words) != 3 or not all(words) or not (words[0] + words[1]).isdecimal():
        return None
    return words[0], words[1], words[2]


def is_of_this_namespace(mark: str) -> bool:
    """
    Whether :func:`has_ended` can tell of the process of this mark: it is of this process's PID and time
    namespaces. KernelError.
    """
    found = parse_mark(mark)
    return found is not None and found[2] == _namespaces()


def has_ended(mark: str) -> bool:
    """
    Whether the process of this :func:`own_mark` has ended, as far as that can be seen from here: False for a mark of another namespace and for
    a text that is no mark. KernelError when /proc does not tell.
    """
    found = parse_mark(mark)
    return found is not None and found[2] == _namespaces() and start_time(found[0]) != found[1]


def _namespaces() -> str | None:
    """:func:`namespaces` as one word, or None."""
    numbers = namespaces()
    return numbers and ".".join(f"{number:x}" for number in numbers)


def namespaces() -> tuple[int, int] | None:
    """
    The numbers of this process's PID namespace and time namespace, 32 bits each; None where /proc shows the
    processes of another one.
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
        # A kernel without them (CONFIG_TIME_NS).
        return pids, 0


def end(pid: int, started: str, seconds: float = 5.0) -> bool:
    """
    Kill the process that has this id and began at ``started`` (:func:`start_time`), and wait for its end; whether it has ended.

    True also when there is no such process; KernelError when that cannot be told. It need not be a child.
    """
    try:
        handle = os.pidfd_open(pid)
    except OSError as error:
        if error.errno in gone.PROCESS:
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


def end_marked(mark: str, seconds: float = 5.0) -> bool:
    """:func:`end` for the process of a mark, if that is one of this namespace; whether it is known to have ended."""
    found = parse_mark(mark)
    return found is not None and found[2] == _namespaces() and end(int(found[0]), found[1], seconds)
