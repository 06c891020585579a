# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Convert between the names of a guest's disks (``xvda``, ``hdb1``, ``d20p3``) and their numbers in XenStore.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Encoding: docs/man/xen-vbd-interface.7 and libxl__device_disk_dev_number (tools/libs/light/libxl_device.c) of
Xen.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .._base.errors import InvalidValue

_EXTENDED = 1 << 28
_MOST_DISKS = 1 << 20
_NAME = re.compile(r"(xvd|hd|sd)([a-z]{1,5})([1-9][0-9]{0,2})?\Z")
_DISK = re.compile(r"d(0|[1-9][0-9]{0,6})(?:p(0|[1-9][0-9]{0,2}))?\Z")
_NUMBER = re.compile(r"(?:0[xX][0-9a-fA-F]{1,8}|0|[1-9][0-9]{0,9})\Z")
_ALLOWED = (
    "a disk of a guest: xvda, xvdb1, hda to hdd, sda to sdp, d0 or d0p1, or its number as decimal or "
    "0x hexadecimal (51712 is xvda)"
)
# kind: (number of disks, number of partitions including the whole disk)
_LIMITS = {"xvd": (_MOST_DISKS, 256), "hd": (4, 64), "sd": (16, 16)}


class Vdev(NamedTuple):
    """
    A guest's disk or partition. ``number`` is its number in XenStore, ``disk`` counts from 0, and
    ``partition`` 0 is the whole disk.
    """

    kind: str
    disk: int
    partition: int

    @property
    def number(self) -> int:
        """The number, as in ``device/vbd/51712``."""
        if self.kind == "hd":
            return ((3 if self.disk < 2 else 22) << 8) | ((self.disk & 1) << 6) | self.partition
        if self.kind == "sd":
            return (8 << 8) | (self.disk << 4) | self.partition
        if self.disk < 16 and self.partition < 16:
            return (202 << 8) | (self.disk << 4) | self.partition
        return _EXTENDED | (self.disk << 8) | self.partition

    @property
    def name(self) -> str:
        """The canonical name, such as ``xvda`` or ``xvdb1``."""
        return self.kind + _letters(self.disk) + (str(self.partition) if self.partition else "")


def parse(value: object, option: str = "vdev") -> Vdev:
    """Parse a name or number into a Vdev. Raises InvalidValue if it is neither or out of range."""
    text = str(value)
    found = _NAME.match(text)
    if found:
        return _checked(found.group(1), _index(found.group(2)), int(found.group(3) or 0), value, option)
    found = _DISK.match(text)
    if found:
        return _checked("xvd", int(found.group(1)), int(found.group(2) or 0), value, option)
    if _NUMBER.match(text) and not isinstance(value, bool):
        vdev = decode(int(text, 0))
        if vdev is not None:
            return vdev
    raise InvalidValue(option, value, f"must be {_ALLOWED}")


def decode(number: int) -> Vdev | None:
    """
    The Vdev with this number, or None if no name encodes to exactly this number (reserved and deprecated
    ones).
    """
    major, minor = number >> 8, number & 0xFF
    if major == 202:
        return Vdev("xvd", minor >> 4, minor & 15)
    if major == 8:
        return Vdev("sd", minor >> 4, minor & 15)
    if major in (3, 22):
        return Vdev("hd", (0 if major == 3 else 2) + ((minor >> 6) & 1), minor & 63) if minor < 128 else None
    if _EXTENDED <= number < 2 * _EXTENDED:
        vdev = Vdev("xvd", (number - _EXTENDED) >> 8, minor)
        # A disk that fits the short form is never encoded in the extended form.
        return vdev if vdev.number == number else None
    return None


def name_of(number: int) -> str:
    """The name of the disk with this number, or the number as text if it has no name."""
    vdev = decode(number)
    return str(number) if vdev is None else vdev.name


def _checked(kind: str, disk: int, partition: int, value: object, option: str) -> Vdev:
    disks, partitions = _LIMITS[kind]
    if disk >= disks or partition >= partitions:
        raise InvalidValue(
            option,
            value,
            f"must be {_ALLOWED}; {kind} has {disks} disks and partitions up to {partitions - 1}",
        )
    return Vdev(kind, disk, partition)


def _index(letters: str) -> int:
    """Convert letters to an index: ``a`` is 0, ``z`` 25, ``aa`` 26."""
    index = 0
    for letter in letters:
        index = index * 26 + ord(letter) - ord("a") + 1
    return index - 1


def _letters(index: int) -> str:
    text = ""
    index += 1
    while index:
        index, letter = divmod(index - 1, 26)
        text = chr(ord("a") + letter) + text
    return text
