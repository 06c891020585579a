# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Loop devices on this machine.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct

from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices

BLKPG, ADD = 0x1269, 1


class Loop:
    """A loop device, held open, over a file of at least one MiB."""

    def __init__(self, number: int, fd: int, path: str) -> None:
        self.number, self.fd, self.path = number, fd, path

    @property
    def diskseq(self) -> int:
        return loopdevices.diskseq_of(self.fd)

    @property
    def major(self) -> int:
        return os.major(os.fstat(self.fd).st_rdev)

    @property
    def minor(self) -> int:
        return os.minor(os.fstat(self.fd).st_rdev)

    def unbind(self) -> None:
        """Detach the file. The last close does that, so nobody else may have the device open."""
        fcntl.ioctl(self.fd, loopdevices.LOOP_CLR_FD, 0)
        os.close(self.fd)
        self.fd = os.open(f"/dev/loop{self.number}", os.O_RDONLY | os.O_CLOEXEC)

    def bind_again(self) -> None:
        """Attach the file again: the device number stays, the disk sequence number changes."""
        os.close(self.fd)
        for dummy in range(10000):
            fd = loopdevices.bind(self.number, self.path)
            if fd is not None:
                self.fd = fd
                return
        raise AssertionError("the loop device is not free")

    def close(self) -> None:
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)


def add_partition(fd: int, number: int, start: int, length: int) -> None:
    """BLKPG_ADD_PARTITION (include/uapi/linux/blkpg.h). Start and length in bytes."""
    data = ctypes.create_string_buffer(struct.pack("qqi64s64s", start, length, number, b"", b""), 152)
    fcntl.ioctl(fd, BLKPG, struct.pack("iiiP", ADD, 0, 152, ctypes.addressof(data)))
