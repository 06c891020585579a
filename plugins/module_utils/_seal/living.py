# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The device that has a number now, read from sysfs without opening it, and the uevent that makes udev examine
it again.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import os

from .._base import gone

_SIZE = 64


def diskseq_of(major: int, minor: int) -> int | None:
    """
    The disk sequence number of the device with this number; for a partition that of its disk. None if there
    is no such device. KernelError.
    """
    base = _base(major, minor)
    text = _read(f"{base}/diskseq")
    if text is None:
        text = _read(f"{base}/../diskseq")
    if text is not None:
        return int(text)
    # Without sysfs, devices exist but are not shown: raise instead of answering "gone".
    gone.need_sysfs()
    return None


def partitions_of(major: int, minor: int) -> list[tuple[int, int]]:
    """The numbers of the partitions of a disk. Empty for a partition and for a missing device."""
    base = _base(major, minor)
    try:
        disk = os.path.basename(os.readlink(base))
    except OSError as error:
        if error.errno in gone.SYSFS:
            return []
        raise gone.not_seen(error, base) from error
    found = []
    for name in gone.list_directory(base, gone.SYSFS):
        if name.startswith(disk):
            number = _read(f"{base}/{name}/dev")
            if number is not None:
                found.append(number_in(number))
    return found


def disk_of(major: int, minor: int) -> tuple[int, int] | None:
    """The number of the disk of this partition. None if it is no partition, or missing."""
    base = _base(major, minor)
    if _read(f"{base}/partition") is None:
        return None
    number = _read(f"{base}/../dev")
    return None if number is None else number_in(number)


def send_change(major: int, minor: int) -> None:
    """
    Trigger a "change" uevent, so that udev examines the device again. Does nothing if the device is missing.
    """
    path = f"{_base(major, minor)}/uevent"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(handle, b"change")
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in gone.SYSFS:
            raise gone.not_seen(error, path) from error


def number_in(text: str) -> tuple[int, int]:
    """Parse ``MAJOR:MINOR`` as printed by the kernel, such as ``253:4``."""
    major, dummy, minor = text.partition(":")
    return int(major), int(minor)


def _base(major: int, minor: int) -> str:
    return f"/sys/dev/block/{major}:{minor}"


def _read(path: str) -> str | None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(handle, _SIZE).decode("ascii").rstrip("\n")
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno in gone.SYSFS:
            return None
        raise gone.not_seen(error, path) from error
