# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Two files that are bound to one loop device in turn.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from typing import Any

import rawdev

SIZE = 1 << 20


class Place:
    """
    The open files A and B, whose first sectors are filled with their names, and the loop device with this
    number. A context manager.
    """

    def __init__(self, number: int) -> None:
        self.node = f"/dev/loop{number}"
        self.number = number
        self.files: dict[str, int] = {}

    def __enter__(self) -> Place:
        self._held = contextlib.ExitStack()
        self.directory = self._held.enter_context(
            tempfile.TemporaryDirectory(prefix="swaps-", dir="/var/tmp")
        )
        for letter in "AB":
            fd = os.open(self.path(letter), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
            self._held.callback(os.close, fd)
            os.pwrite(fd, letter.encode() * 512, 0)
            os.ftruncate(fd, SIZE)
            self.files[letter] = fd
        rawdev.add_loop(self.number)
        return self

    def __exit__(self, *exc: Any) -> None:
        self.clear()
        end = time.monotonic() + 5
        while not rawdev.remove_loop(self.number) and time.monotonic() < end:
            time.sleep(0.05)
        self._held.close()

    def path(self, letter: str) -> str:
        return os.path.join(self.directory, letter)

    def begin(self) -> int:
        """Bind A to the device; returns its disk sequence number."""
        self.clear()
        assert rawdev.bind(self.node, self.files["A"])
        with open(f"/sys/block/loop{self.number}/diskseq", encoding="ascii") as file:
            return int(file.read())

    def clear(self) -> None:
        end = time.monotonic() + 20
        while os.path.exists(f"/sys/block/loop{self.number}/loop"):
            rawdev.unbind(self.node)
            assert time.monotonic() < end, f"{self.node} is still bound"
            time.sleep(0.001)

    def rebind(self, node: str, letter: str) -> None:
        """Bind that file to the loop device, if the kernel allows it."""
        rawdev.unbind(node)
        rawdev.bind(node, self.files[letter])
