# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What sysfs reports about block devices: attributes, numbers and names, and the devices below and above them.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Source: Documentation/ABI/stable/sysfs-block of Linux. sysfs tells where to look and proves nothing, unless
the caller holds the device open, which pins its number.
"""

from __future__ import annotations

import errno
import os

from .._base import digits, gone
from .._base.errors import KernelError
from .._base.gone import SYSFS, list_directory

_SECTOR = 512  # the unit of sysfs, whatever the device's block size


def partition_of(major: int, minor: int) -> tuple[int, int, int, int] | None:
    """
    ``(major, minor, start, size)``: the number of a partition's disk, and the partition's start and size in
    bytes. None if the device is not a partition.
    """
    directory = f"/sys/dev/block/{major}:{minor}"
    if read(directory + "/partition") is None:
        return None
    disk = parse_number(read(os.path.realpath(directory) + "/../dev") or "")
    start, size = read(directory + "/start"), read(directory + "/size")
    if disk is None or start is None or size is None:
        return None
    return disk + (int(start) * _SECTOR, int(size) * _SECTOR)


def partitions_of(major: int, minor: int) -> list[tuple[int, int]]:
    """The numbers of a disk's partitions; empty for a partition, and if no device has the number."""
    name = kernel_name(major, minor)
    if name is None:
        return []
    return _numbers_in(f"/sys/dev/block/{major}:{minor}", name.replace("/", "!"))


def members_of(major: int, minor: int) -> list[tuple[int, int]]:
    """The numbers of the devices below a stacked device (md, bcache, dm); empty for other devices."""
    return _numbers_in(f"/sys/dev/block/{major}:{minor}/slaves")


def holders_of(major: int, minor: int) -> list[tuple[int, int]]:
    """The numbers of the stacked devices directly above a device."""
    return _numbers_in(f"/sys/dev/block/{major}:{minor}/holders")


def _numbers_in(directory: str, start: str = "") -> list[tuple[int, int]]:
    """The numbers of the devices with an entry in the directory whose name begins with ``start``."""
    names = [name for name in list_directory(directory, SYSFS) if name.startswith(start)]
    numbers = [parse_number(read(f"{directory}/{name}/dev") or "") for name in names]
    return [number for number in numbers if number is not None]


_ATTRIBUTE = 65536  # bytes; the largest page size
_MOST_LINKS = 40  # the kernel's limit (MAXSYMLINKS)


def diskseq_of(major: int, minor: int) -> int | None:
    """
    The disk sequence number of a device (for a partition, of its disk) from sysfs, without opening the
    device. None if no device has the number. Raises KernelError.

    If it is the same before and after other reads, those were about the same device.
    """
    base = f"/sys/dev/block/{major}:{minor}"
    text = _diskseq(base)
    if text is None and kernel_name(major, minor) is not None:
        # Another device may have got the number since: read it once more.
        text = _diskseq(base)
        if text is None:
            raise KernelError(
                "sysfs shows no disk sequence number for it",
                device=f"{base}/diskseq",
                hint="Linux 5.15 or newer is needed",
            )
    return None if text is None else int(text)


def _diskseq(base: str) -> str | None:
    text = read(f"{base}/diskseq")
    if text is None and read(f"{base}/partition") is not None:
        text = read(f"{base}/../diskseq")
    return text


def number_named(path: str) -> tuple[int, int] | None:
    """
    ``(major, minor)`` of the device whose kernel name is the path ``/dev/NAME``, or the target of a link
    there; or None.
    """
    for dummy in range(_MOST_LINKS):
        directory, dummy2, name = path.rpartition("/")
        directory = os.path.realpath(directory or "/")
        full = f"{directory}/{name}"
        if full.startswith("/dev/") and len(full) > 5:
            number = parse_number(read(f"/sys/class/block/{full[5:].replace('/', '!')}/dev") or "")
            if number is not None:
                return number
        try:
            path = os.path.join(directory, os.readlink(full))
        except OSError as error:
            if error.errno == errno.EINVAL or error.errno in gone.PATH:
                # It is not a link.
                return None
            raise gone.not_seen(error, full) from error
    return None


def parse_number(text: str) -> tuple[int, int] | None:
    """``(major, minor)`` from ``"253:4"`` in decimal, or None."""
    major, dummy, minor = text.partition(":")
    return (int(major), int(minor)) if digits.is_decimal(major, 10) and digits.is_decimal(minor, 10) else None


def kernel_name(major: int, minor: int) -> str | None:
    """The kernel's name of the device with this number (``dm-3``, ``cciss/c0d0``), or None."""
    path = f"/sys/dev/block/{major}:{minor}"
    try:
        return os.path.basename(os.readlink(path)).replace("!", "/")
    except OSError as error:
        if error.errno not in gone.SYSFS:
            raise gone.not_seen(error, path) from error
    gone.need_sysfs()
    return None


def read(path: str) -> str | None:
    """
    A sysfs attribute without its newline; None if it does not exist (any more). KernelError if it cannot be
    read.
    """
    try:
        # Three times as fast as open(). An attribute is at most one page, and is read at once.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.read(fd, _ATTRIBUTE)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in gone.SYSFS:
            return None
        raise gone.not_seen(error, path) from error
    return data.decode("utf-8", "surrogateescape").rstrip("\n")
