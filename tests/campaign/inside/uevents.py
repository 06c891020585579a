# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
A fast replacement for the part of udevd that modules wait for: links in /dev/mapper, and the counter of a
cookie. It takes a millisecond.

udevd runs dmsetup twice for each event of a mapped device, and a worker with many rules for each event of a
loop device, which takes ten times as long as a module. Most tries use this replacement, and some use the real
udevd.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import struct
import subprocess
from typing import Any

import udevd

_KERNEL_EVENTS, _FAMILY = 1, 15
_COOKIE, _DISABLE_DM = 0x0D4D << 16, 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class Udev:
    """A context, with the real udevd or (``real(False)``) with a process of this module in its place."""

    def __init__(self) -> None:
        self._stand_in: tuple[int, int] | None = None

    def __enter__(self) -> Udev:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.real(True)

    def real(self, wanted: bool) -> None:
        if wanted and self._stand_in is not None:
            pid, pipe = self._stand_in
            self._stand_in = None
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(pipe)
            os.unlink(udevd.CONTROL)
            udevd.start()
        elif not wanted and self._stand_in is None:
            self._stand_in = _stand_in()


def _stand_in() -> tuple[int, int]:
    """Start the process; returns its PID, and a pipe that it keeps open."""
    subprocess.run(["udevadm", "settle"], check=False)
    udevd.stop()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(udevd.CONTROL)
    with open(udevd.CONTROL, "wb"):
        pass
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            _serve(writer)
        finally:
            os._exit(1)
    os.close(writer)
    if not os.read(reader, 1):
        raise RuntimeError("nothing answers for udev")
    return child, reader


def _serve(ready: int) -> None:
    events = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _FAMILY)
    events.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    events.bind((0, _KERNEL_EVENTS))
    os.write(ready, b".")
    links: dict[str, str] = {}
    while True:
        data = events.recv(1 << 16)
        if b"/block/dm-" not in data:
            continue
        values = dict(part.split("=", 1) for part in data.decode(errors="replace").split("\0") if "=" in part)
        _links(values, links)
        if "DM_COOKIE" in values:
            _count(int(values["DM_COOKIE"]))


def _links(values: dict[str, str], links: dict[str, str]) -> None:
    """Like 55-dm.rules: create the link of the device's name, and remove it once the device is gone."""
    node = os.path.basename(values["DEVPATH"])
    wanted = None
    if values["ACTION"] != "remove":
        if values["ACTION"] != "change" or int(values.get("DM_COOKIE", "0")) >> 16 & _DISABLE_DM:
            return
        with contextlib.suppress(OSError), open(f"/sys/block/{node}/dm/name", encoding="utf-8") as file:
            wanted = file.read().rstrip("\n")
    before = links.pop(node, None)
    if before not in (None, wanted) and before not in links.values():
        with contextlib.suppress(OSError):
            os.unlink(f"/dev/mapper/{before}")
    if wanted and "/" not in wanted:
        links[node] = wanted
        with contextlib.suppress(OSError):
            os.symlink(f"../{node}", f"/dev/mapper/{wanted}.new")
            os.rename(f"/dev/mapper/{wanted}.new", f"/dev/mapper/{wanted}")


def _count(cookie: int) -> None:
    """Like dmsetup udevcomplete: decrement the cookie."""
    identifier = _LIBC.semget(_COOKIE | cookie & 0xFFFF, 0, 0)
    if identifier >= 0:
        _LIBC.semop(identifier, ctypes.create_string_buffer(struct.pack("=Hhh", 0, -1, 0o4000)), 1)
