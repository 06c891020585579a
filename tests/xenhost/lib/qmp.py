# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""QEMU's machine protocol, the part that snapshots need (QEMU: docs/interop/qmp-spec)."""

from __future__ import annotations

import json
import os
import socket
import time

from common.errors import Failed


class Qmp:
    """A connection to the socket ``qmp.sock`` of a host's directory; every command within ``seconds``."""

    def __init__(self, directory, seconds=20):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(seconds)
        deadline = time.monotonic() + seconds
        # Through the open directory, because the path itself may be too long for the name of a socket.
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            while True:
                try:
                    self._socket.connect(f"/proc/self/fd/{fd}/qmp.sock")
                    break
                except OSError as error:
                    if time.monotonic() > deadline:
                        raise Failed(f"QEMU does not answer at {directory}/qmp.sock: {error}") from None
                    time.sleep(0.05)
        finally:
            os.close(fd)
        self._events = []
        self._file = self._socket.makefile("r", encoding="utf-8")
        self._line()
        self("qmp_capabilities")

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self._file.close()
        self._socket.close()

    def _line(self):
        try:
            line = self._file.readline()
        except OSError as error:
            raise Failed(f"QEMU does not answer: {error}") from None
        if not line:
            raise Failed("QEMU closed its control connection")
        return json.loads(line)

    def __call__(self, command, **arguments):
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while True:
            answer = self._line()
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise Failed(f"QEMU's {command}: {answer['error'].get('desc')}")
            self._events.append(answer.get("event"))

    def wait_event(self, name):
        """Wait for an event that a command causes."""
        while name not in self._events:
            self._events.append(self._line().get("event"))
        self._events.clear()
