# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Find, add, read and remove keys in the kernel's user keyring of root.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

See add_key(2), keyctl(2) and user-keyring(7). The user keyring exists for as long as the kernel runs,
regardless of logins. A process finds a key only through its own keyrings, such as its session keyring. A
login links the user keyring into that one, but the start of a service does not, so :func:`reach` links it
into the process keyring. Requests name the user keyring by its special id, which counts as possession
(lookup_user_key in security/keys/process_keys.c).
"""

from __future__ import annotations

import os
import platform
import struct
from collections.abc import Iterable
from typing import Any

from .._base import gone
from .._base.errors import KernelError, NotSupported
from . import uapi

# System call numbers of add_key and keyctl: arch/x86/entry/syscalls/syscall_64.tbl,
# include/uapi/asm-generic/unistd.h.
_NUMBERS = {"x86_64": (248, 250), "aarch64": (217, 219), "riscv64": (217, 219)}
# include/uapi/linux/keyctl.h
_PROCESS_KEYRING, _USER_KEYRING = -2, -4
_LINK, _UNLINK, _SEARCH, _READ = 8, 9, 10, 11
NOT_THERE = gone.KEY
MOST_BYTES = 32767


def reach() -> None:
    """Let this process find the keys, until it executes another program."""
    _keyctl("reach the user keyring", _LINK, _USER_KEYRING, _PROCESS_KEYRING)


def find(kind: str, description: str) -> int | None:
    """The serial number of a key, or None if there is none."""
    try:
        return _keyctl(
            "look for the key", _SEARCH, _USER_KEYRING, _text(kind), _text(description), 0, device=description
        )
    except KernelError as error:
        if error.errno in NOT_THERE:
            return None
        raise


def add(kind: str, description: str, payload: bytes) -> int:
    """Add a key, or update the payload of an existing one; its serial number."""
    return _call(
        "add the key",
        _numbers()[0],
        (_text(kind), _text(description), _bytes(payload), len(payload), _USER_KEYRING),
        description,
    )


def read(serial: int) -> bytes:
    """The payload of a key of the type user, at most MOST_BYTES."""
    buffer = uapi.ffi.new("char[]", MOST_BYTES)
    length = _keyctl("read the key", _READ, serial, buffer, MOST_BYTES)
    return bytes(uapi.ffi.buffer(buffer, min(length, MOST_BYTES)))


def remove(serial: int) -> None:
    """Unlink a key from the keyring. It is destroyed when nothing else refers to it."""
    _keyctl("remove the key", _UNLINK, serial, _USER_KEYRING)


def _keyctl(tried: str, *arguments: Any, device: str | None = None) -> int:
    return _call(tried, _numbers()[1], arguments, device)


def _call(tried: str, number: int, arguments: Iterable[Any], device: str | None) -> int:
    ffi = uapi.ffi
    words = [ffi.cast("long", word) if isinstance(word, int) else word for word in arguments]
    result: int = uapi.lib.syscall(number, *words)
    if result < 0:
        raise KernelError.from_oserror(OSError(ffi.errno, os.strerror(ffi.errno)), tried, device=device)
    return result


def _numbers() -> tuple[int, int]:
    uapi.require()
    machine = platform.machine()
    if machine not in _NUMBERS or struct.calcsize("P") != 8:
        raise NotSupported(
            f"keys in the kernel's keyring are not supported on {machine}",
            hint=f"Supported are {', '.join(sorted(_NUMBERS))}, with 64 bits",
        )
    return _NUMBERS[machine]


def _text(word: str) -> Any:
    return uapi.ffi.new("char[]", word.encode("ascii"))


def _bytes(payload: bytes) -> Any:
    return uapi.ffi.from_buffer("char[]", payload)
