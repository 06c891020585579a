# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
A socket by which root asks the service to let go of a disk, before removing it.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A request is one packet with the disk sequence number in decimal; the answer, ``0`` or the number of files
that are in use still. The client is ``_block/let_go``, which the removals call.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable

from .._base.errors import KernelError
from .disk_name import parse

_LONGEST = 64  # bytes of a packet
# Seconds that a client is given to send its request and to take its answer.
_PATIENCE = 1.0


class Requests:
    """The socket's thread: ``let_go(diskseq)`` for each request."""

    def __init__(self, path: str, let_go: Callable[[int], int]) -> None:
        """
        KernelError when the socket cannot be had; one that is left there goes. For who has the service's
        lock.
        """
        self._let_go = let_go
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            # Nobody but root may connect (unix(7)); its directory is root's alone, too.
            mask = os.umask(0o177)
            try:
                self._socket.bind(path)
            finally:
                os.umask(mask)
            self._socket.listen(16)
        except OSError as error:
            self._socket.close()
            raise KernelError.from_oserror(error, "listen there", device=path) from error

    def start(self) -> None:
        threading.Thread(target=self._run, name="requests", daemon=True).start()

    def _run(self) -> None:
        while True:
            client, dummy = self._socket.accept()
            with client:
                client.settimeout(_PATIENCE)
                try:
                    self._answer(client)
                except OSError:
                    # It has gone, or is too slow: nothing depends on its having the answer.
                    continue

    def _answer(self, client: socket.socket) -> None:
        text = client.recv(_LONGEST).decode("ascii", "replace")
        name = parse(text)
        answer = "EINVAL" if name is None or name.partition else str(self._let_go(name.diskseq))
        client.send(answer.encode("ascii"))
