# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What was made at this boot: one file for each device, written before the device becomes permanent.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A device is identified by its number and its disk sequence number, which the kernel does not use again until
the next boot. A record of a device that is gone, or that never became permanent because the run was killed,
does no harm.
"""

from __future__ import annotations

import json
import os

from .._base import run_directory
from .._base.errors import KernelError
from .._base.files import open_regular, write_whole
from .._base.record import Record
from .._block import boot

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from typing import Any

DIRECTORY = f"{run_directory.ROOT}/boot-devices"
_MOST_BYTES = 2**20
# The run has made it; somebody else has made it, to go with its last user, and the run has let it stay;
# somebody else has made it, and it stays.
MADE, KEPT, FOUND = "made", "kept", "found"


class Made(Record):
    """
    One record. ``text``: of the entry; ``how``: MADE, KEPT or FOUND; ``order``: a device has a higher
    number than those below it.
    """

    name: str
    text: str
    how: str
    order: int
    major: int
    minor: int
    diskseq: int

    @property
    def number(self) -> tuple[int, int, int]:
        """(major, minor, diskseq)"""
        return self.major, self.minor, self.diskseq


def read_all() -> dict[str, Made]:
    """The records of this boot by name, in the order in which the devices were made. Raises KernelError."""
    try:
        names = [name[:-5] for name in os.listdir(DIRECTORY) if name.endswith(".json")]
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise KernelError.from_oserror(error, "look for what was made", device=DIRECTORY) from error
    found = [record for record in map(_read, names) if record is not None]
    return {record.name: record for record in sorted(found, key=lambda record: record.order)}


def write(record: Made) -> None:
    """Write the record. Raises KernelError or WrongDevice."""
    run_directory.make(DIRECTORY)
    plain = dict(record._asdict(), boot=boot.boot_id())
    try:
        write_whole(_path(record.name), json.dumps(plain, sort_keys=True))
    except OSError as error:
        raise KernelError.from_oserror(error, "record the device", device=_path(record.name)) from error


def remove(name: str) -> None:
    """Remove the record, if it exists. Raises KernelError."""
    try:
        os.unlink(_path(name))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise KernelError.from_oserror(error, "remove the record", device=_path(name)) from error


def _path(name: str) -> str:
    return f"{DIRECTORY}/{name}.json"


def _read(name: str) -> Made | None:
    """None for a record of another boot."""
    path = _path(name)
    try:
        with open(open_regular(path, "record"), encoding="utf-8") as file:
            plain: Any = json.loads(file.read(_MOST_BYTES))
        if plain.pop("boot") != boot.boot_id():
            return None
        record = Made(**plain)
        if record.name != name or not all(isinstance(part, int) for part in record.number):
            raise ValueError("it belongs to another device")
        return record
    except OSError as error:
        raise KernelError.from_oserror(error, "read the record", device=path) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        hint = "Remove this file. Its device then stays until somebody removes it or the host boots"
        raise KernelError(f"this is not the record of this device: {error}", path, hint=hint) from error
