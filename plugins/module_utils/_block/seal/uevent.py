# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
uevents of block devices and guests' disks, received from the kernel's netlink multicast group.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Format (lib/kobject_uevent.c): ``ACTION@DEVPATH``, then ``NAME=VALUE`` strings, each NUL-terminated. Group 1
is the kernel's; udev uses another group.
"""

from __future__ import annotations

import errno
import socket

from ..._base.errors import KernelError
from ..._base.record import Record

_NETLINK_KOBJECT_UEVENT, _KERNEL_GROUP = 15, 1
_SO_RCVBUFFORCE = 33
# Receive buffer in bytes. An event takes 1 or 2 KiB, and thousands arrive when many devices are created at
# once.
_BUFFER = 16 * 1024 * 1024
_LONGEST = 16384


class Event(Record):
    """
    A uevent of a block device: ``action`` ("add", "remove", "change" ...), device number, and whether it is a
    partition. Or of a guest's disk that blkback serves: ``is_backend``, without a device number.
    """

    action: str
    major: int
    minor: int
    is_partition: bool
    is_backend: bool = False

    @property
    def number(self) -> tuple[int, int]:
        return self.major, self.minor


class Lost(Exception):
    """The socket's buffer overflowed, and events were lost."""


class Listener:
    """A netlink socket that receives all further uevents; a context manager."""

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
        The next uevent of a block device or a guest's disk. None after ``seconds`` without a message, and for
        any other message. Raises Lost.
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
        # Privileged processes can send to the group, too; the kernel's port ID is 0.
        return parse(message) if sender[0] == 0 else None


def parse(message: bytes) -> Event | None:
    """The Event in the message, or None if it is about neither a block device nor a backend of Xen."""
    words = message.split(b"\0")
    is_backend = b"SUBSYSTEM=xen-backend" in words
    if b"SUBSYSTEM=block" not in words and not is_backend:
        return None
    named = dict(word.split(b"=", 1) for word in words if b"=" in word)
    if is_backend:
        return Event(named.get(b"ACTION", b"").decode("ascii", "replace"), 0, 0, False, True)
    try:
        major, minor = int(named[b"MAJOR"]), int(named[b"MINOR"])
    except (KeyError, ValueError):
        return None
    action = named.get(b"ACTION", b"").decode("ascii", "replace")
    return Event(action, major, minor, named.get(b"DEVTYPE") == b"partition")
