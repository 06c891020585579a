# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The thin pool of a guest's disk: an existing one, or the devices to create it from.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Pure. A definition outlives the boot, so a pool is either a mapped device with a UUID, which somebody else
activates, or a table with its own name and UUID. In the second case, the first guest that starts creates the
pool, other guests find it, and it is removed when the last one ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import _dm_table
from .._base.errors import InvalidValue, TableError
from .._base.record import Record
from .._base.values import SECTOR, bytes_of, check_keys, whole
from .._dm import names
from .._source import spec

if TYPE_CHECKING:
    from .._source.spec import FileSource, PathSource, Source

LAST_ID = 2**24 - 1
_MAPPED = ("path", "uuid")
_MADE = ("name", "uuid", "metadata", "data", "size", "metadata_size", "block_size", "low_water_mark")
_MIB = 2**20
# Bytes of metadata for each block of data (thin_metadata_size), and the minimum and maximum metadata size of
# a pool (dm-thin-metadata.h).
_PER_BLOCK = 64
_LEAST = 4 * _MIB
_MOST = 16 * 2**30


class Pool(Record):
    """
    ``source``: plain data for a recipe. ``key``: equal for entries with the same pool. ``files``: ``[(path,
    bytes, whether the size was given)]`` that it needs.
    """

    key: str
    source: dict[str, Any]
    files: list[tuple[str, int, bool]]

    def __str__(self) -> str:
        return f"the pool {self.key}"


def pool_of(value: Any, option: str) -> Pool:
    """The Pool, or InvalidValue."""
    if not isinstance(value, dict) or (value.get("path") is None) == (value.get("name") is None):
        allowed = (
            "a dictionary with path and uuid, for an existing pool, "
            "or with name, metadata, data and size, for a new one"
        )
        shown = sorted(map(str, value)) if isinstance(value, dict) else "(not shown)"
        raise InvalidValue(option, shown, f"must be {allowed}")
    return _mapped(value, option) if value.get("path") is not None else _made(value, option)


def id_of(value: Any, option: str) -> int:
    """The number of a volume."""
    return whole(value, option, LAST_ID)


def _mapped(value: Any, option: str) -> Pool:
    check_keys(value, option, _MAPPED, _MAPPED + _MADE)
    source = spec.parse({"path": value["path"], "uuid": value.get("uuid")}, option)
    if not isinstance(source, spec.PathSource) or source.uuid is None:
        raise InvalidValue(
            f"{option}.uuid",
            None,
            "must be the pool's uuid (dmsetup info): after the next boot another pool may have the path",
        )
    if source.uuid.startswith(names.LVM):
        allowed = (
            "not be that of an LVM pool, because LVM assigns the volume numbers itself: "
            "create a volume with lvcreate, and give it as source"
        )
        raise InvalidValue(f"{option}.uuid", source.uuid, f"must {allowed}")
    return Pool(source.uuid, {"path": source.path, "uuid": source.uuid}, [])


def _made(value: Any, option: str) -> Pool:
    check_keys(value, option, _MADE, _MAPPED + _MADE)
    name = names.check_name(value["name"], f"{option}.name")
    uuid = names.check_uuid(value.get("uuid") or f"RACEFREE-POOL-{name}", f"{option}.uuid")
    devices = {field: _device(value.get(field), f"{option}.{field}") for field in ("metadata", "data")}
    if isinstance(devices["data"], spec.FileSource):
        # The beginning of the data device is written by guests. thin_volumes checks it when the pool is
        # created.
        devices["data"] = devices["data"]._replace(format="raw")
    size = bytes_of(value.get("size"), f"{option}.size")
    block = whole(value.get("block_size") or 128, f"{option}.block_size")
    line = {
        "start": 0,
        "length": size // SECTOR,
        "target": "thin-pool",
        "metadata": _plain(devices["metadata"]),
        "data": _plain(devices["data"]),
        "block_size": block,
        "low_water_mark": whole(value.get("low_water_mark") or 0, f"{option}.low_water_mark"),
    }
    try:
        _dm_table.parse_table([line])
    except TableError as error:
        raise InvalidValue(option, value["name"], f"makes no valid table: {error.message}") from error
    asked = value.get("metadata_size") is not None
    most = (
        bytes_of(value["metadata_size"], f"{option}.metadata_size")
        if asked
        else _metadata_bytes(size // (block * SECTOR))
    )
    files = [
        (device.file, wanted, given)
        for device, wanted, given in ((devices["metadata"], most, asked), (devices["data"], size, True))
        if isinstance(device, spec.FileSource) and not device.offset and not device.size
    ]
    return Pool(name, {"table": [line], "name": name, "uuid": uuid}, files)


def _metadata_bytes(blocks: int) -> int:
    return min(_MOST, max(_LEAST, -(-blocks * _PER_BLOCK // _MIB) * _MIB))


def _device(value: Any, option: str) -> FileSource | PathSource:
    if value is None:
        raise InvalidValue(
            option,
            None,
            "must be a file or a block device, such as file:/srv/pool.data or /dev/disk/by-id/...",
        )
    source = spec.parse(value, option)
    if not isinstance(source, (spec.FileSource, spec.PathSource)):
        raise InvalidValue(option, str(source), "must be a file or the path of a block device")
    return source


def _plain(source: Source) -> dict[str, Any]:
    return {key: value for key, value in source._asdict().items() if value not in (None, False, 0)}
