# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The second process of the hotplug service. It holds a copy of each device's file descriptor from before the
device number is written until blkback has opened the device.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

It makes no system calls into storage, so it does not hang where the service may. If the service is killed, it
rolls back the calls in progress, as the watcher of ``_hotplug.worker`` does, and keeps devices open that
blkback may still open.
"""

from __future__ import annotations

import _socket as socket  # see _hotplug.worker
import os
import time

from .._base.errors import BlockError
from .._xen.vbd_key import Key
from . import add
from .worker import LOOK_SECONDS, fd_of, keeping_limit, leave_terminal, may_be_opened, worker_killed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._base.deadline import Deadline

# First byte of a message: a call was accepted; a descriptor is attached; the call has ended; it has ended and
# blkback may still open the device.
BEGIN, DEVICE, END, KEEP = b"b", b"d", b"e", b"k"
_LONGEST = 512


def encoded(kind: bytes, number: int, key: Key) -> bytes:
    """Encode a message from the service about its call ``number``, for the vbd of the Key."""
    return kind + f"{number} {key.domid}/{key.devid}".encode()


class Keeper:
    """
    The keeper process. ``connection`` is its end of the socket pair, which also shows that the service has
    ended.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.calls: dict[str, int | None] = {}
        self.kept: list[tuple[int, str, Deadline]] = []

    def run(self) -> None:
        """The process's main function; never returns."""
        try:
            leave_terminal()
            while self._hear():
                self._let_go()
            self._stand_in()
        finally:
            os._exit(0)

    def _hear(self) -> bool:
        self.connection.settimeout(LOOK_SECONDS if self.kept else None)
        try:
            message, ancillary = self.connection.recvmsg(_LONGEST, 64)[:2]
        except socket.timeout:
            return True
        if not message:
            return False
        kind, name = message[:1], message[1:].decode()
        if kind == BEGIN:
            self.calls[name] = None
        elif kind == DEVICE:
            self.calls[name] = fd_of(ancillary)
        else:
            self._end(name, kind == KEEP)
        return True

    def _end(self, name: str, is_needed: bool) -> None:
        fd = self.calls.pop(name, None)
        if fd is not None and is_needed:
            self.kept.append((fd, _key(name).sysfs, keeping_limit()))
        elif fd is not None:
            os.close(fd)

    def _let_go(self) -> None:
        for entry in list(self.kept):
            fd, sysfs, limit = entry
            if not may_be_opened(sysfs, limit):
                os.close(fd)
                self.kept.remove(entry)

    def _stand_in(self) -> None:
        """
        Roll back the calls in progress after the service was killed, and keep their devices open while
        needed.
        """
        for name, fd in list(self.calls.items()):
            try:
                add.give_up(_key(name), worker_killed(), fd is not None)
            except BlockError:
                pass
            self._end(name, True)
        while self.kept:
            self._let_go()
            time.sleep(LOOK_SECONDS)


def _key(name: str) -> Key:
    return Key(*map(int, name.partition(" ")[2].split("/")))
