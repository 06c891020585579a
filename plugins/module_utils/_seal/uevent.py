# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The kernel's events of devices (uevents), as it sends them to everybody who listens.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

lib/kobject_uevent.c: ``ACTION@DEVPATH``, then ``NAME=VALUE`` words, each with a NUL at its end. Group 1 is
the kernel's; udev has another.
"""

from __future__ import annotations

import errno
import socket

from .._base.errors import KernelError
from .._base.record import Record

_NETLINK_KOBJECT_UEVENT, _KERNEL_GROUP = 15, 1
_SO_RCVBUFFORCE = 33
# Of the socket: an event takes 1 or 2 KiB, and thousands come when many devices are made at once.
_BUFFER = 16 * 1024 * 1024
_LONGEST = 16384


class Event(Record):
    """
    One event of a block device: ``action`` ("add", "remove", "change" ...), its number, and whether it is a
    partition.
    """

    action: str
    major: int
    minor: int
    is_partition: bool

    @property
    def number(self) -> tuple[int, int]:
        return self.major, self.minor


class Lost(Exception):
    """More events came than there was room for."""


class Listener:
    """A socket that gets all events from now on; a context."""

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _NETLINK_KOBJECT_UEVENT
            )
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
            self._socket.bind((0, _KERNEL_GROUP))
        except OSError as error:
            raise KernelError.from_oserror(error, "listen to the kernel's events of devices") from error

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def next(self, seconds: float) -> Event | None:
        """
        The next event of a block device, or None when none comes for so long, or another one came. Lost.
        """
        self._socket.settimeout(seconds)
        try:
            message, sender = self._socket.recvfrom(_LONGEST)
        except socket.timeout:
            return None
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                raise Lost from error
            raise
        # Everybody who may can send to the group; the kernel is 0.
        return parse(message) if sender[0] == 0 else None


def parse(message: bytes) -> Event | None:
    """The Event that the message tells; None when it is of something else than a block device."""
    words = message.split(b"\0")
    if b"SUBSYSTEM=block" not in words:
        return None
    named = dict(word.split(b"=", 1) for word in words if b"=" in word)
    try:
        major, minor = int(named[b"MAJOR"]), int(named[b"MINOR"])
    except (KeyError, ValueError):
        return None
    action = named.get(b"ACTION", b"").decode("ascii", "replace")
    return Event(action, major, minor, named.get(b"DEVTYPE") == b"partition")
