# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes by number and start time, because numbers are reused."""

from __future__ import annotations

import os
import signal
import time


def boot_id():
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def start_ticks(pid):
    """Field 22 of /proc/PID/stat, or None if there is no such process, or only a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def identity(pid):
    return {"pid": pid, "ticks": start_ticks(pid), "boot": boot_id()}


def alive(identity_):
    return (
        identity_["boot"] == boot_id()
        and identity_["ticks"] is not None
        and start_ticks(identity_["pid"]) == identity_["ticks"]
    )


def wait_gone(identity_, seconds):
    """True once the process has ended, False if it has not after ``seconds``."""
    deadline = time.monotonic() + seconds
    while alive(identity_):
        if time.monotonic() > deadline:
            return False
        try:
            os.waitpid(identity_["pid"], os.WNOHANG)
        except ChildProcessError:
            pass
        time.sleep(0.05)
    return True


def kill(identity_, seconds=10):
    """Kill exactly that process; True once it has ended."""
    try:
        fd = os.pidfd_open(identity_["pid"])
    except ProcessLookupError:
        return True
    try:
        # Checked after the descriptor is open: it refers to the process that is checked here.
        if alive(identity_):
            signal.pidfd_send_signal(fd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(fd)
    return wait_gone(identity_, seconds)
