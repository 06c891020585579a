# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Swap areas: the header that mkswap(8) writes, swapon(2), swapoff(2), and whether an area is in use.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import os
import platform
import re
import stat
import struct
import uuid
from typing import Any

from .._base import gone
from .._base.errors import InvalidValue, KernelError, NotSupported
from .._kernel import uapi, uapi_cffi

# swapon and swapoff: arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h.
_NUMBERS = {"x86_64": (167, 168), "aarch64": (224, 225), "riscv64": (224, 225)}
# include/linux/swap.h
_PREFER, _DISCARD = 0x8000, 0x10000
MOST_PRIORITY = 0x7FFF
_SIGNATURE = b"SWAPSPACE2"
# union swap_header: 1024 bytes for a boot sector, then version, last page, number of bad pages, UUID, label.
_INFO = struct.Struct("=1024xIII16s16s")
# The smallest area in pages (mm/swapfile.c requires more than the header).
_LEAST_PAGES = 10
_SWAPS = "/proc/swaps"
_ESCAPED = re.compile(r"\\([0-7]{3})")


def check_size(size: int) -> int:
    """The size of a page, in bytes. InvalidValue if an area of ``size`` bytes is too small."""
    page = os.sysconf("SC_PAGE_SIZE")
    if size // page < _LEAST_PAGES:
        raise InvalidValue("size", size, f"must be {_LEAST_PAGES * page} bytes or more for swap")
    return page


def header(size: int, label: str) -> bytes:
    """The first page of a swap area of ``size`` bytes. InvalidValue if the area is too small."""
    page = check_size(size)
    pages = min(size // page, 2**32 - 1)
    info = _INFO.pack(1, pages - 1, 0, uuid.uuid4().bytes, label.encode("utf-8")[:15])
    return info.ljust(page - len(_SIGNATURE), b"\0") + _SIGNATURE


def swap_on(path: str, priority: int | None, discard: bool) -> None:
    """
    Start swapping to the device. ``priority`` is 0 to MOST_PRIORITY, or None for the kernel's choice. Raises
    KernelError.
    """
    flags = (0 if priority is None else _PREFER | priority) | (_DISCARD if discard else 0)
    _call(0, path, "swap to it", flags)


def swap_off(path: str) -> None:
    """
    Read back what is swapped out to the area, and stop using it. KernelError, with ENOMEM if there is no room
    for it.
    """
    _call(1, path, "bring back what is swapped out to it")


def priority_of(major: int, minor: int) -> int | None:
    """
    The priority of the area on the device with this number, negative if the kernel chose it. None if the
    kernel does not swap to it.
    """
    found = [int(row[4]) for row in _rows() if _number_of(row[0]) == (major, minor)]
    return found[0] if found else None


def files_in_use(file: tuple[int, int]) -> list[str]:
    """The paths at which the kernel swaps to the file ``(st_dev, st_ino)`` itself. Raises KernelError."""
    rows = [(_path(row[0]), _stat(row[0])) for row in _rows() if row[1] == "file"]
    return [path for path, there in rows if there is not None and (there.st_dev, there.st_ino) == file]


def _rows() -> list[list[str]]:
    """The areas in use: path, type, size, used, priority. Raises KernelError."""
    try:
        with open(_SWAPS, encoding="utf-8", errors="surrogateescape") as file:
            return [line.split() for line in file.readlines()[1:]]
    except OSError as error:
        raise KernelError.from_oserror(error, f"read {_SWAPS}", device=_SWAPS) from error


def _path(word: str) -> str:
    """The path in a row, which has octal numbers for blanks and a backslash (fs/seq_file.c)."""
    return _ESCAPED.sub(lambda found: chr(int(found.group(1), 8)), word)


def _stat(word: str) -> os.stat_result | None:
    path = _path(word)
    try:
        return os.stat(path)
    except OSError as error:
        if error.errno in gone.PATH:
            return None
        raise gone.not_seen(error, path) from error


def _number_of(word: str) -> tuple[int, int] | None:
    there = _stat(word)
    if there is None or not stat.S_ISBLK(there.st_mode):
        return None
    return os.major(there.st_rdev), os.minor(there.st_rdev)


def _call(which: int, path: str, tried: str, *arguments: int) -> None:
    uapi.require()
    machine = platform.machine()
    if machine not in _NUMBERS or struct.calcsize("P") != 8:
        raise NotSupported(
            f"swap is not supported on {machine}", hint=f"Supported are {', '.join(sorted(_NUMBERS))}"
        )
    ffi: Any = uapi_cffi.ffi
    library: Any = uapi.lib
    words = [ffi.cast("long", word) for word in arguments]
    if library.syscall(_NUMBERS[machine][which], ffi.new("char[]", os.fsencode(path)), *words):
        raise KernelError.from_oserror(OSError(ffi.errno, os.strerror(ffi.errno)), tried, device=path)
