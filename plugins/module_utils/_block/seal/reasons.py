# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Why a device is sealed: for itself, for a guest's disk, or because a sealed device is stacked on it.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A seal stays as long as there is a reason for it. Whoever seals a device adds a reason, and whoever lifts a
seal removes only the own reason. The reasons of a device are the lines of a file in DIRECTORY. A sealed
device without a file is sealed for OWN alone. The file is written before the device is sealed, and removed
after its seal, so that a killed run never loses the reason of a seal.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from ..._base import gone, run_directory
from ..._base.errors import KernelError
from ..._base.files import write_whole
from . import attachment, below, blkback, reason_text
from .reason_text import OWN

DIRECTORY = f"{run_directory.ROOT}/seals"
_NAME = re.compile(r"([0-9]+):([0-9]+)-([0-9]+)")

Number = tuple[int, int]


def of(maps: attachment.Maps, number: Number, diskseq: int) -> frozenset[str]:
    """The reasons of the device's seal; empty if it is not sealed. The caller need not hold a lock."""
    path = _path(number, diskseq)
    while True:
        recorded_then = _read(path)
        seal = maps.get(*number)
        if seal is None or seal.diskseq != diskseq:
            return frozenset()
        # Unless another run has changed them between.
        if _read(path) == recorded_then:
            return recorded_then or frozenset([OWN])


def keep(number: Number, diskseq: int, reasons: Iterable[str]) -> None:
    """Record the reasons of a device that is, or will be, sealed. Raises KernelError."""
    path, lines = _path(number, diskseq), sorted(set(reasons))
    needs_file = lines not in ([], [OWN])
    try:
        if needs_file:
            _write(path, lines)
        else:
            os.unlink(path)
    except OSError as error:
        if needs_file or error.errno not in gone.PATH:
            raise KernelError.from_oserror(error, "record why the device is sealed", device=path) from error


def recorded() -> list[tuple[Number, int]]:
    """``(device number, diskseq)`` of all devices with a file, sealed or not."""
    found = []
    for name in gone.list_directory(DIRECTORY):
        match = _NAME.fullmatch(name)
        if match is not None:
            major, minor, diskseq = (int(word) for word in match.groups())
            found.append(((major, minor), diskseq))
    return found


def has_ended(maps: attachment.Maps, reason: str, number: Number) -> bool:
    """Whether the reason, of the sealed device with this number, is no longer valid. Raises KernelError."""
    match = reason_text.VBD.fullmatch(reason)
    if match is not None:
        return blkback.opened_for(int(match.group(1)), int(match.group(2))) != number
    match = reason_text.BELOW.fullmatch(reason)
    if match is not None:
        upper, diskseq = (int(match.group(1)), int(match.group(2))), int(match.group(3))
        return match.group(4) not in of(maps, upper, diskseq) or number not in dict(below.devices(*upper))
    # OWN, or a reason of a newer version of the collection.
    return False


def _path(number: Number, diskseq: int) -> str:
    return f"{DIRECTORY}/{number[0]}:{number[1]}-{diskseq}"


def _write(path: str, lines: Iterable[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    try:
        write_whole(path, text)
    except FileNotFoundError:
        run_directory.make(DIRECTORY)
        write_whole(path, text)


def _read(path: str) -> frozenset[str]:
    try:
        with open(path, encoding="ascii") as file:
            return frozenset(file.read().splitlines())
    except OSError as error:
        if error.errno in gone.PATH:
            return frozenset()
        raise gone.not_seen(error, path) from error
