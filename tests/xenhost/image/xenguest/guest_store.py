# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Reading XenStore through xenstored's socket: names of domains and their consoles.

A few lines instead of a library keep the start of xenguest short under emulation.
Wire format: xen/include/public/io/xs_wire.h.
"""

from __future__ import annotations

import socket
import struct

from guest_errors import GuestProblem

SOCKET = "/run/xenstored/socket"
XS_DIRECTORY, XS_READ, XS_ERROR = 1, 2, 16
HEADER = struct.Struct("<IIII")


class Store:
    """One connection; every answer within ``seconds``."""

    def __init__(self, seconds=10.0):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(seconds)
        try:
            self._socket.connect(SOCKET)
        except OSError as error:
            raise GuestProblem(f"cannot reach xenstored at {SOCKET}: {error}") from None

    def close(self):
        self._socket.close()

    def _receive(self, size):
        data = b""
        while len(data) < size:
            more = self._socket.recv(size - len(data))
            if not more:
                raise GuestProblem("xenstored closed the connection")
            data += more
        return data

    def _ask(self, kind, path):
        body = path.encode() + b"\0"
        try:
            self._socket.sendall(HEADER.pack(kind, 1, 0, len(body)) + body)
            kind, _request, _transaction, length = HEADER.unpack(self._receive(HEADER.size))
            data = self._receive(length)
        except socket.timeout:
            raise GuestProblem(f"xenstored did not answer the question for {path} in time") from None
        except OSError as error:
            raise GuestProblem(f"cannot ask xenstored for {path}: {error}") from None
        return None if kind == XS_ERROR else data

    def read(self, path):
        """The node's value as text, or None when it cannot be read."""
        data = self._ask(XS_READ, path)
        return None if data is None else data.decode(errors="replace")

    def children(self, path):
        data = self._ask(XS_DIRECTORY, path)
        return [] if not data else data.decode().rstrip("\0").split("\0")

    def domains(self):
        """Name -> domain id, domain 0 left out."""
        found = {}
        for child in self.children("/local/domain"):
            name = self.read(f"/local/domain/{child}/name") if child != "0" else None
            if name:
                found[name] = int(child)
        return found
