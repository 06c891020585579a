# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
A process that holds devices until another process has ended.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A command that gets a name by disk sequence number inherits no descriptor of the device, or closes it: lvm
closes all that it does not know. If the process that started it is killed meanwhile, or has become the
command, this process still holds the device.
"""

from __future__ import annotations

import os
import select
import struct

from .._base.errors import KernelError

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn


# A process ID in the pipe.
_NUMBER = struct.Struct("=i")


def hold_until_ended(fds: Sequence[int], pid: int) -> tuple[int, int]:
    """
    Hold duplicates of the descriptors until the process ``pid`` has ended: a child that was not waited for,
    or this process. Returns the process that holds them, and the read end of a pipe, which is at its end when
    they are closed. Raises KernelError.
    """
    handle = reader = writer = -1
    try:
        handle = os.pidfd_open(pid)
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            _become_holder(fds, handle, writer)
        # This child has already exited. The process that holds the devices is not a child of this one, which
        # may become a program that waits for its children.
        os.waitpid(child, 0)
        os.close(writer)
        writer = -1
        holder = _NUMBER.unpack(os.read(reader, _NUMBER.size))[0]
    except (OSError, struct.error) as error:
        if reader >= 0:
            os.close(reader)
        if not isinstance(error, OSError):
            raise KernelError("the process that is to hold the devices has ended") from error
        raise KernelError.from_oserror(error, "start a process that holds the devices") from error
    finally:
        for fd in (handle, writer):
            if fd >= 0:
                os.close(fd)
    return int(holder), reader


def _become_holder(fds: Sequence[int], handle: int, writer: int) -> NoReturn:
    """Runs in the child and the grandchild; never returns."""
    try:
        if not os.fork():
            os.setsid()
            os.chdir("/")
            os.write(writer, _NUMBER.pack(os.getpid()))
            _keep_only({*fds, handle, writer})
            select.select([handle], [], [])
            for fd in fds:
                os.close(fd)
    finally:
        os._exit(0)


def _keep_only(keep: set[int]) -> None:
    """Close all other descriptors: whoever reads this process's output waits until it is closed."""
    first = 0
    for fd in sorted(keep):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, max(first, os.sysconf("SC_OPEN_MAX")))
