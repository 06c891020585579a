# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Passes: let one thread of the collection open one sealed device, and nobody else.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A pass is an entry of a map that the program reads. Its key is the thread's IDs and the device number. Its
value has a random name that the thread gives itself for the duration (PR_SET_NAME). So a pass orphaned by a
killed process is useless to another process that gets the same ID. The next run removes it once it has
expired.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator

from ..._base.errors import KernelError
from . import attachment, bpf, entry

# prctl(2)
_SET_NAME, _GET_NAME = 15, 16
# Seconds that a pass is valid: loading a table opens all devices that the table names.
SECONDS = 60


@contextlib.contextmanager
def for_this_thread(maps: attachment.Maps, numbers: list[tuple[int, int]]) -> Iterator[None]:
    """
    A context in which this thread can open the sealed devices with these numbers. KernelError if there are
    too many passes at once.
    """
    process, thread = os.getpid(), threading.get_native_id()
    keys = [entry.pass_key(process, thread, *number) for number in numbers]
    # As long as a name can be, so that nobody guesses it.
    secret = os.urandom(8).hex()[: entry.NAME_SIZE - 1].encode("ascii")
    value = entry.Pass(time.monotonic_ns() + SECONDS * 10**9, secret).encoded()
    before = _name()
    try:
        for key in keys:
            _put(maps, key, value)
        _set_name(secret)
        yield
    finally:
        _set_name(before)
        for key in keys:
            maps.passes.remove(key)


def reap(maps: attachment.Maps) -> None:
    """Remove expired passes."""
    now = time.monotonic_ns()
    for key in maps.passes.keys():
        value = maps.passes.get(key)
        if value is not None and entry.end_of_pass(value) <= now:
            maps.passes.remove(key)


def _put(maps: attachment.Maps, key: bytes, value: bytes) -> None:
    try:
        maps.passes.put(key, value)
    except OSError as error:
        raise KernelError.from_oserror(
            error, "open a sealed device", hint="Try again when fewer tasks run at once"
        ) from error


def _name() -> bytes:
    ffi, library = bpf.c_library()
    buffer = ffi.new("char[]", entry.NAME_SIZE)
    library.prctl(_GET_NAME, buffer)
    name: bytes = ffi.string(buffer)
    return name


def _set_name(name: bytes) -> None:
    ffi, library = bpf.c_library()
    library.prctl(_SET_NAME, ffi.new("char[]", name))
