# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Loop devices and mapped devices by plain ioctls, independent of the collection's code and without its
safeguards.

Sources: include/uapi/linux/loop.h, include/uapi/linux/dm-ioctl.h.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator, Sequence

_CONFIGURE, _CLEAR, _ADD, _REMOVE = 0x4C0A, 0x4C01, 0x4C80, 0x4C81
# struct loop_config: the descriptor, the block size, struct loop_info64, 64 reserved bytes.
_CONFIG = struct.Struct("=II232x64x")
_DM_CREATE, _DM_REMOVE, _DM_RENAME, _DM_SUSPEND, _DM_LOAD = (
    0xC138FD00 | number for number in (3, 4, 5, 6, 9)
)
# struct dm_ioctl: version, data_size, data_start, target_count, open_count, flags, event_nr, padding, dev,
# name, uuid.
_DM = struct.Struct("=IIIIIiIIIIQ128s129s7x")
_TARGET = struct.Struct("=QQiI16s")
_DM_SUSPENDED = 2


def bind(node: str, file: int) -> bool:
    """Bind the open file to the loop device if that has none; returns whether it succeeded."""
    with contextlib.suppress(OSError), _opened(node) as fd:
        fcntl.ioctl(fd, _CONFIGURE, _CONFIG.pack(file, 0))
        return True
    return False


def unbind(node: str) -> bool:
    """Detach the file, at once or on last close; returns whether the ioctl succeeded."""
    with contextlib.suppress(OSError), _opened(node) as fd:
        fcntl.ioctl(fd, _CLEAR, 0)
        return True
    return False


def add_loop(number: int) -> None:
    with _opened("/dev/loop-control") as fd, contextlib.suppress(FileExistsError):
        fcntl.ioctl(fd, _ADD, number)


def remove_loop(number: int) -> bool:
    with contextlib.suppress(OSError), _opened("/dev/loop-control") as fd:
        fcntl.ioctl(fd, _REMOVE, number)
        return True
    return False


def make_mapped(name: str, uuid: str, rows: Sequence[tuple[int, int, str, str]]) -> None:
    """Create a mapped device with this table: ``(start, length, target, parameters)``; OSError."""
    _call(_DM_CREATE, name, uuid)
    parts = []
    for start, length, target, parameters in rows:
        text = parameters.encode() + b"\0"
        text += bytes(-(_TARGET.size + len(text)) % 8)
        parts.append(_TARGET.pack(start, length, 0, _TARGET.size + len(text), target.encode()) + text)
    _call(_DM_LOAD, name, data=b"".join(parts), targets=len(parts))
    _call(_DM_SUSPEND, name)


def suspend_mapped(name: str) -> None:
    _call(_DM_SUSPEND, name, flags=_DM_SUSPENDED)


def rename_mapped(name: str, new: str) -> None:
    _call(_DM_RENAME, name, data=new.encode() + b"\0")


def remove_mapped(name: str) -> bool:
    """Remove a mapped device; returns whether it succeeded."""
    with contextlib.suppress(OSError):
        _call(_DM_REMOVE, name)
        return True
    return False


def _call(
    command: int, name: str, uuid: str = "", data: bytes = b"", targets: int = 0, flags: int = 0
) -> None:
    size = max(_DM.size + len(data), 16384)
    head = _DM.pack(4, 0, 0, size, _DM.size, targets, 0, flags, 0, 0, 0, name.encode(), uuid.encode())
    with _opened("/dev/mapper/control") as fd:
        fcntl.ioctl(fd, command, bytearray(head + data + bytes(size - _DM.size - len(data))))


@contextlib.contextmanager
def _opened(node: str) -> Iterator[int]:
    fd = os.open(node, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
