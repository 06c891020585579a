# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Handle an open of a block device that failed with EPERM: this is how the collection opens sealed devices.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Loaded only in that case, so that other runs do not pay for the import.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

from ..._base import locks
from ..._base.deadline import Deadline
from . import attachment, passes, place, reaping

_SECONDS = 30.0


def open_refused(path: str, flags: int, error: OSError) -> int:
    """
    Open the block device at ``path`` after an open failed with ``error``; ``flags`` as for os.open. Returns
    the descriptor.

    Removes the seal if its device is gone. If the device is sealed, opens it with a pass for this thread.
    Raises ``error`` if the path is no block device or nothing is sealed, OSError of the open, KernelError,
    DeviceBusy.
    """
    there = os.stat(path, follow_symlinks=not flags & os.O_NOFOLLOW)
    if not stat.S_ISBLK(there.st_mode) or not place.in_use():
        raise error
    number = os.major(there.st_rdev), os.minor(there.st_rdev)
    with attachment.existing() as maps:
        if maps is None or not _is_sealed(maps, number):
            # It is not sealed, or no longer.
            return os.open(path, flags)
        with passes.for_this_thread(maps, [number]):
            return os.open(path, flags)


@contextlib.contextmanager
def let_in(numbers: list[tuple[int, int]]) -> Iterator[None]:
    """
    A context in which this thread can make the kernel open devices with these numbers, sealed or not. Raises
    KernelError.
    """
    with attachment.existing() as maps:
        if maps is None:
            yield
        else:
            with passes.for_this_thread(maps, numbers):
                yield


def _is_sealed(maps: attachment.Maps, number: tuple[int, int]) -> bool:
    with locks.held([attachment.LOCK], Deadline(_SECONDS)):
        seal = maps.get(*number)
        if seal is None:
            return False
        if not reaping.reap_one(maps, number, seal):
            return True
        reaping.clear_away(maps)
        return False
