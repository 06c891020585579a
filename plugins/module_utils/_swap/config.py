# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The configuration of one encrypted swap area, read from a file that the role writes.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import json
import os
from typing import Any

from .._base import gone
from .._base.errors import InvalidValue, KernelError
from .._base.record import Record
from .._source import below, spec
from . import area

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from .._block.device import Device
    from .._source.below import Lower

DIRECTORY = "/etc/racefree-block/encrypted-swap"
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-")
_LONGEST_NAME = 64


class Config(Record):
    """
    ``source`` as ``_source.spec.parse`` accepts it. ``size`` in bytes, of a file that is created or resized;
    otherwise None. ``key_size`` in bits. ``overwrite``: whether the storage may contain anything else.
    """

    name: str
    source: Any
    size: int | None
    priority: int | None
    discard: bool
    cipher: str
    key_size: int
    overwrite: bool

    @property
    def device_name(self) -> str:
        return identity(self.name)[0]

    @property
    def uuid(self) -> str:
        return identity(self.name)[1]

    def parsed(self) -> Lower:
        """The source. The image formats of files are looked for with all other contents."""
        source = below.parse(self.source, "source")
        return source._replace(format="raw") if isinstance(source, spec.FileSource) else source

    def place(self, device: Device) -> str:
        """The held device of the source for messages: as it was given, if a program can open that."""
        source = self.parsed()
        return source.path if isinstance(source, spec.PathSource) else device.path


def identity(name: str) -> tuple[str, str]:
    """The name and the UUID of the mapped device of an area."""
    return f"racefree-swap-{name}", f"RACEFREE-SWAP-{name}"


def read(name: str) -> Config:
    """
    Read the Config with this name. InvalidValue for a value that is not allowed, KernelError if the file
    cannot be read.
    """
    check_name(name)
    path = os.path.join(DIRECTORY, f"{name}.json")
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except OSError as error:
        raise KernelError.from_oserror(error, f"read {path}", device=path) from error
    except ValueError as error:
        raise InvalidValue("configuration", path, f"must be JSON as the role writes it ({error})") from error
    return of_values(name, found)


def names() -> list[str]:
    """The names of all areas that have a configuration. Raises KernelError."""
    found = [os.path.splitext(name) for name in gone.list_directory(DIRECTORY)]
    return [name for name, end in found if end == ".json"]


def check_name(name: str) -> None:
    """Raise InvalidValue unless the name is valid in the name of a unit and of a mapped device."""
    if not 1 <= len(name) <= _LONGEST_NAME or set(name) - _LETTERS or name[0] in "_-":
        raise InvalidValue(
            "name", name, f"must be 1 to {_LONGEST_NAME} of a-z, 0-9, _ and -, with a letter or digit first"
        )


def of_values(name: str, found: Any) -> Config:
    """Check the contents of the file and return the Config. Raises InvalidValue."""
    if not isinstance(found, dict) or found.get("source") is None:
        raise InvalidValue("source", None, "must be given")
    size, priority = found.get("size"), found.get("priority")
    if size is not None and (not isinstance(size, int) or size < 1):
        raise InvalidValue("size", size, "must be a number of bytes")
    if size is not None and not (isinstance(found["source"], dict) and "file" in found["source"]):
        raise InvalidValue("size", size, "must be left out: the source is not a file")
    if priority is not None and (not isinstance(priority, int) or not 0 <= priority <= area.MOST_PRIORITY):
        raise InvalidValue("priority", priority, f"must be a number from 0 to {area.MOST_PRIORITY}")
    cipher, key_size = found.get("cipher") or "aes-xts-plain64", found.get("key_size") or 512
    if not isinstance(cipher, str) or not cipher.isascii() or not cipher.isprintable() or " " in cipher:
        raise InvalidValue("cipher", cipher, "must be a cipher as dm-crypt names it, such as aes-xts-plain64")
    if not isinstance(key_size, int) or key_size % 8 or not 128 <= key_size <= 512:
        raise InvalidValue("key_size", key_size, "must be bits, from 128 to 512, and a multiple of 8")
    overwrite = found.get("overwrite") or False
    if not isinstance(overwrite, bool):
        raise InvalidValue("overwrite", overwrite, "must be true or false")
    _check_source(found["source"])
    discard = bool(found.get("discard"))
    return Config(name, found["source"], size, priority, discard, cipher, key_size, overwrite)


def _check_source(value: Any) -> None:
    # A table is refused. Who uses the devices in it must be known before it is loaded, as targets such as
    # raid write to them at once. And a part of a device can look empty, whatever the whole contains.
    source = below.parse(value, "source")
    if getattr(source, "overlap", False):
        raise InvalidValue("source.overlap", True, "must be left out: nobody else may write swap's storage")
    if getattr(source, "read_only", False):
        raise InvalidValue("source.read_only", True, "must be left out: swap is written")
