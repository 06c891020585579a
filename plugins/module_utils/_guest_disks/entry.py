# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
One disk of a guest as the user describes it: checked, and converted to the source that is kept in the guest's
definition.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Pure; runs on the controller.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Optional

from .. import _dm_table
from .._base.errors import InvalidValue, TableError, one_value
from .._base.record import Record
from .._base.values import SECTOR, boolean, bytes_of, check_keys, whole
from .._xen import vdev as _vdev
from .conversion import Conversion, check_image_path, conversion_of
from .pool import Pool, id_of, pool_of

# Plain data for a recipe.
SourceData = Any
# Numbers by path: bytes, or nanoseconds.
Sizes = Mapping[Optional[str], Optional[int]]
_KINDS = ("file", "thin", "source")
_KEYS = (
    "vdev",
    "file",
    "format",
    "size",
    "image",
    "disk_size",
    "chunk_size",
    "adopt",
    "thin",
    "crypt",
    "source",
    "mode",
    "device_type",
    "shared",
    "state",
    "remove_file",
    "remove_volume",
)
_BOOLEAN_KEYS = ("shared", "remove_file", "remove_volume", "adopt")
_THIN = ("pool", "id", "snapshot_of")
_CRYPT = ("cipher", "key", "sector_size", "allow_discards")
_KEYRING = re.compile(r":[0-9]+:(?:logon|user|encrypted|trusted):[!-~]+\Z")


class Thin(Record):
    """A volume of a pool; ``snapshot_of``: the volume of which it is a snapshot."""

    pool: Pool
    id: int
    snapshot_of: int | None


class Entry(Record):
    """
    A checked disk. ``option``: its place in the list. ``label``: its name in messages. Sizes in bytes.
    ``image``: the path of the raw image, which is made by ``conversion`` unless that is None. ``given``: the
    options as given.
    """

    option: str
    label: str
    domain: str
    vdev: str
    absent: bool
    file: str | None
    size: int | None
    image: str | None
    conversion: Conversion | None
    disk_size: int | None
    chunk_size: int
    thin: Thin | None
    crypt: dict[str, Any] | None
    source: SourceData
    mode: str
    shared: bool
    remove: bool
    adopt: bool
    given: dict[str, Any]

    @property
    def writes(self) -> bool:
        # A snapshot writes its own records, even when the guest may only read.
        return self.mode == "w" or self.image is not None


def entry_of(disk: dict[str, Any], domain: str, option: str) -> Entry:
    """Return the Entry; InvalidValue for options that are wrong or inconsistent."""
    if not isinstance(disk, dict) or not disk.get("vdev"):
        raise InvalidValue(
            option,
            sorted(map(str, disk)) if isinstance(disk, dict) else "(not shown)",
            "must be a dictionary with vdev",
        )
    check_keys(disk, option, _KEYS)
    if disk.get("state", "present") not in ("present", "absent"):
        raise InvalidValue(f"{option}.state", one_value(disk["state"]), "must be present or absent")
    absent = disk.get("state", "present") == "absent"
    flags = {key: boolean(disk[key], f"{option}.{key}") for key in _BOOLEAN_KEYS if disk.get(key) is not None}
    conversion = conversion_of(disk.get("image"), f"{option}.image")
    _check_kind(disk, option, absent, flags)
    size = None if disk.get("size") is None else bytes_of(disk["size"], f"{option}.size")
    return Entry(
        option,
        f"{_name(disk['vdev'])} of {domain}",
        domain,
        disk["vdev"],
        absent,
        disk.get("file"),
        size,
        disk.get("image") if conversion is None else conversion.golden,
        conversion,
        None if disk.get("disk_size") is None else bytes_of(disk["disk_size"], f"{option}.disk_size"),
        whole(disk.get("chunk_size") or 8, f"{option}.chunk_size"),
        None if disk.get("thin") is None else _thin_of(disk["thin"], f"{option}.thin"),
        None if disk.get("crypt") is None else _crypt_of(disk["crypt"], f"{option}.crypt"),
        disk.get("source"),
        disk.get("mode") or "w",
        flags.get("shared", False),
        absent and bool(flags.get("remove_file") or flags.get("remove_volume")),
        flags.get("adopt", False),
        dict(disk, **flags),
    )


def source_of(entry: Entry, sizes: Sizes, mtimes: Sizes | None = None) -> SourceData:
    """
    The disk's source as plain data. ``sizes``: bytes of files and images by path. ``mtimes``: modification
    times of images by path, in nanoseconds, that the disk requires. InvalidValue for a file that is missing
    or has the wrong size.
    """
    base, size = _base_of(entry, sizes, mtimes or {})
    if entry.crypt is None:
        return base
    # The size is known: an encrypted disk must state it if its source has no known size.
    if size is None:
        raise AssertionError
    sector = entry.crypt.get("sector_size") or SECTOR
    if size % sector:
        raise InvalidValue(
            f"{entry.option}.crypt.sector_size",
            sector,
            f"must be a divisor of the disk's {size} bytes",
            device=entry.label,
        )
    return {"table": [dict(entry.crypt, length=size // SECTOR, device=base)]}


def _base_of(entry: Entry, sizes: Sizes, mtimes: Sizes) -> tuple[SourceData, int | None]:
    """``(source, bytes)`` without encryption."""
    if entry.source is not None:
        return entry.source, entry.size
    if entry.thin is not None:
        if entry.size is None:
            raise AssertionError
        return {
            "table": [
                {
                    "start": 0,
                    "length": entry.size // SECTOR,
                    "target": "thin",
                    "pool": entry.thin.pool.source,
                    "id": entry.thin.id,
                }
            ]
        }, entry.size
    if entry.file not in sizes:
        raise InvalidValue(f"{entry.option}.file", entry.file, "must be an existing file")
    if entry.image is None:
        said = {"format": entry.given["format"]} if entry.given.get("format") is not None else {}
        return {"file": entry.file, **said}, sizes[entry.file]
    return _snapshot_of(entry, sizes.get(entry.image), mtimes.get(entry.image))


def _snapshot_of(entry: Entry, image: int | None, mtime: int | None) -> tuple[SourceData, int]:
    image, size = _checked_sizes(entry, image)
    origin: dict[str, Any] = {"file": entry.image, "read_only": True}
    if entry.conversion is not None:
        # Known to be raw, even if the disk in it begins like another format.
        origin["format"] = "raw"
    if mtime is not None:
        origin["mtime_ns"] = mtime
    if size > image:
        origin = {
            "read_only": True,
            "table": [
                {"start": 0, "length": image // SECTOR, "target": "linear", "device": origin, "offset": 0},
                {"start": image // SECTOR, "length": (size - image) // SECTOR, "target": "zero"},
            ],
        }
    return {
        "table": [
            {
                "start": 0,
                "length": size // SECTOR,
                "target": "snapshot",
                "origin": origin,
                "cow": {"file": entry.file},
                "persistence": "P",
                "chunk_size": entry.chunk_size,
            }
        ]
    }, size


def _checked_sizes(entry: Entry, image: int | None) -> tuple[int, int]:
    """``(bytes of the image, bytes of the disk)`` of a snapshot; InvalidValue if they do not fit together."""
    if not image:
        raise InvalidValue(
            f"{entry.option}.image", entry.image, "must be an existing image that is not empty"
        )
    if image % SECTOR:
        raise InvalidValue(
            f"{entry.option}.image",
            entry.image,
            f"must be an image of whole sectors of {SECTOR} bytes: it has {image} bytes",
        )
    size = entry.disk_size or image
    if size < image:
        raise InvalidValue(
            f"{entry.option}.disk_size",
            entry.disk_size,
            f"must be {image} or more, which is the size of the image {entry.image}",
        )
    return image, size


def _check_kind(disk: dict[str, Any], option: str, absent: bool, flags: dict[str, bool]) -> None:
    """InvalidValue for options that exclude each other or are missing."""
    given = [kind for kind in _KINDS if disk.get(kind) is not None]
    if len(given) > 1 or not (given or absent):
        raise InvalidValue(option, given, "must have either file or thin or source")
    kind = given[0] if given else None
    for key in ("file", "image"):
        if disk.get(key) is not None and not (key == "image" and isinstance(disk[key], dict)):
            check_image_path(disk[key], f"{option}.{key}")
    if disk.get("image") is not None and kind != "file":
        raise InvalidValue(
            f"{option}.image",
            one_value(disk["image"]),
            "is possible only with file, which keeps what differs from the image",
        )
    for key in ("disk_size", "adopt"):
        if disk.get(key) not in (None, False) and disk.get("image") is None:
            raise InvalidValue(f"{option}.{key}", one_value(disk[key]), "is possible only with image")
    _check_format(disk, option, kind)
    _check_size(disk, option, kind)
    if disk.get("crypt") is not None and kind is None:
        raise InvalidValue(
            f"{option}.crypt", sorted(map(str, disk["crypt"])), "is possible only with file, thin or source"
        )
    for key, needed in (("remove_file", "file"), ("remove_volume", "thin")):
        if absent and flags.get(key) and kind != needed:
            raise InvalidValue(f"{option}.{key}", True, f"is possible only with {needed}")


def _check_format(disk: dict[str, Any], option: str, kind: str | None) -> None:
    if disk.get("format") is None:
        return
    if disk["format"] != "raw":
        allowed = (
            "must be raw: an image of another format must be converted first. Give it as image, with path, "
            "format and golden, to have it converted once, or convert it by hand: qemu-img convert -O raw"
        )
        raise InvalidValue(f"{option}.format", one_value(disk["format"]), allowed)
    if kind != "file" or disk.get("image") is not None:
        raise InvalidValue(
            f"{option}.format", disk["format"], "is possible only with file, and without image"
        )


def _check_size(disk: dict[str, Any], option: str, kind: str | None) -> None:
    if disk.get("size") is None and (kind == "thin" or kind == "source" and disk.get("crypt") is not None):
        raise InvalidValue(f"{option}.size", None, "must be the size of the disk")
    if disk.get("size") is not None and kind == "source" and disk.get("crypt") is None:
        raise InvalidValue(
            f"{option}.size",
            one_value(disk["size"]),
            "must be left out beside source, which has its own size",
        )


def _thin_of(value: Any, option: str) -> Thin | None:
    if not isinstance(value, dict) or value.get("id") is None:
        shown = sorted(map(str, value)) if isinstance(value, dict) else "(not shown)"
        raise InvalidValue(option, shown, "must be a dictionary with pool and id")
    check_keys(value, option, _THIN)
    origin = (
        None if value.get("snapshot_of") is None else id_of(value["snapshot_of"], f"{option}.snapshot_of")
    )
    number = id_of(value["id"], f"{option}.id")
    if origin == number:
        raise InvalidValue(f"{option}.snapshot_of", origin, "must not be the volume itself")
    return Thin(pool_of(value.get("pool"), f"{option}.pool"), number, origin)


def _crypt_of(value: Any, option: str) -> dict[str, Any] | None:
    """A table line without length and device. Errors do not show a plaintext key."""
    if not isinstance(value, dict) or not value.get("cipher") or not value.get("key"):
        raise InvalidValue(
            option,
            sorted(map(str, value)) if isinstance(value, dict) else "(not shown)",
            "must be a dictionary with cipher and key",
        )
    check_keys(value, option, _CRYPT)
    _check_key(value["key"], f"{option}.key")
    line = {
        "start": 0,
        "target": "crypt",
        "cipher": value["cipher"],
        "key": value["key"],
        "iv_offset": 0,
        "offset": 0,
    }
    if value.get("sector_size") is not None:
        line["sector_size"] = whole(value["sector_size"], f"{option}.sector_size")
    if value.get("allow_discards") is not None and boolean(
        value["allow_discards"], f"{option}.allow_discards"
    ):
        line["allow_discards"] = True
    try:
        _dm_table.parse_table([dict(line, length=8, device="/dev/vg/a")])
    except TableError as error:
        field = error.errors[0]["field"]
        raise InvalidValue(
            f"{option}.{field}", error.errors[0]["value"], f"must be {error.errors[0]['rule']}"
        ) from error
    return line


def _check_key(key: Any, option: str) -> None:
    """InvalidValue, without showing it, for a key that is not the name of a key in the keyring."""
    if not _KEYRING.match(str(key)):
        allowed = (
            "the name of a key in the kernel's keyring (:SIZE:TYPE:DESCRIPTION), because many users can read "
            "a definition. See the module kernel_key"
        )
        raise InvalidValue(option, "(not shown)", f"must be {allowed}")
    kind, description = str(key).split(":", 3)[2:]
    if kind == "logon" and not description.find(":") > 0:
        raise InvalidValue(
            option,
            key,
            "must be :SIZE:logon:PREFIX:NAME: the kernel requires a prefix for logon keys",
        )


def _name(vdev: object) -> str:
    """
    The canonical name of a disk whose name can be written in several ways; unchanged if it is not Xen's.
    """
    try:
        return _vdev.parse(vdev).name
    except InvalidValue:
        return str(vdev)
