# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
A socket through which root asks the service to let go of a disk before the disk is removed.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A request is one packet with the disk sequence number in decimal. The answer is the number of files that are
still in use, ``0`` if none, or ``EINVAL``. The client is ``_block/let_go``, which is called by removals.
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
# Seconds that a client has to send its request, and to take the answer.
_PATIENCE = 1.0


class Requests:
    """The thread that serves the socket: it calls ``let_go(diskseq)`` for each request."""

    def __init__(self, path: str, let_go: Callable[[int], int]) -> None:
        """
        Replace a stale socket at ``path``. The caller holds the service's lock. KernelError if the socket
        cannot be created.
        """
        self._let_go = let_go
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            # Only root may connect (unix(7)). The directory, too, is accessible to root only.
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
                    # The client is gone or too slow. Nothing depends on the answer.
                    continue

    def _answer(self, client: socket.socket) -> None:
        text = client.recv(_LONGEST).decode("ascii", "replace")
        name = parse(text)
        answer = "EINVAL" if name is None or name.partition else str(self._let_go(name.diskseq))
        client.send(answer.encode("ascii"))
