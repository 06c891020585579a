# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Sources: plain data or text that names a device. Pure: nothing is looked up.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

``{diskseq: 42, partition, boot_id}``, ``{path: /dev/vg/a, uuid: ..., diskseq: 42, boot_id}``, ``{file:
/srv/a.raw, offset, size, partition, read_only, direct_io, sector_size, mtime_ns, format, overlap,
trusted_path}``,
``{table: [...], name, uuid, read_only}``.

As text: ``diskseq:42`` (``diskseq:42-part1``, ``diskseq:42@BOOT``), ``path:/dev/vg/a``, ``file:/srv/a.raw``,
``file:raw:/srv/a.raw`` (with ``format: raw``), ``dm:NAME,UUID`` (a mapped device that must have both), an
absolute path, or ``major:minor`` where a table expects a device.
"""

from __future__ import annotations

from .._base import digits, files
from .._base.errors import InvalidValue
from .._base.record import Record
from .._base.values import boolean, bytes_or_0, check_keys
from .._block import boot as _boot
from .._block import device, image_format, sysfs
from .._dm import names

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol, Union

    class Slot(Protocol):
        """A device slot of a table (``_dm_table.grammar.slot.Slot``)."""

        @property
        def value(self) -> Any: ...

        @property
        def field(self) -> str: ...


_KINDS = "diskseq, path, file, table"
# In messages, in place of what may contain a key, as tables do: also of a table under a mistyped name.
_HIDDEN = "(not shown)"
# As many letters and digits without a break are a key, not a part of a name: 16 bytes in hexadecimal.
_KEY_LETTERS = 32
_MOST_PARTITIONS = 255  # DISK_MAX_PARTS - 1 in include/linux/blkdev.h


class DiskseqSource(Record):
    """
    The disk that has this number now, or a partition of it. ``boot_id``: the boot that the number belongs to,
    or None: numbers start again with each boot.
    """

    diskseq: int
    partition: int | None = None
    boot_id: str | None = None

    def __str__(self) -> str:
        partition = f"-part{self.partition}" if self.partition else ""
        return f"diskseq:{self.diskseq}{partition}{f'@{self.boot_id}' if self.boot_id else ''}"


class NumberSource(Record):
    """
    The device that has this number now. Valid only for a device that is held by somebody, such as one in a
    live table.
    """

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}:{self.minor}"


class PathSource(Record):
    """
    The device at a path, which must have the given UUID (of a mapped device) and the given diskseq (of the
    boot ``boot_id``).
    """

    path: str
    uuid: str | None = None
    diskseq: int | None = None
    boot_id: str | None = None

    def __str__(self) -> str:
        return f"path:{self.path}"


class FileSource(Record):
    """
    A loop device on a file. ``offset`` and ``size`` in bytes; ``size`` 0 means to the end. ``mtime_ns``: the
    modification time that a file which must not change must have, in nanoseconds since the epoch (st_mtim).

    ``format``: ``raw`` if the file is known to be a raw image, whatever its first bytes are; ``overlap``:
    whether another device may write the same part of it; ``trusted_path``: whether nobody but root may be
    able to redirect the path. ``partition``: the area is this partition of the table in the file, whatever
    that says when the file is opened; ``offset`` and ``size`` are 0 then.
    """

    file: str
    offset: int = 0
    size: int = 0
    read_only: bool = False
    direct_io: bool = False
    sector_size: int | None = None
    mtime_ns: int | None = None
    format: str | None = None
    overlap: bool = False
    trusted_path: bool = False
    partition: int | None = None

    def __str__(self) -> str:
        return f"file:{self.file}" + (f", partition {self.partition}" if self.partition else "")


class TableSource(Record):
    """A mapped device with this table. The table's device slots are sources, too."""

    table: object
    name: str | None = None
    uuid: str | None = None
    read_only: bool = False

    def __str__(self) -> str:
        return f"table:{self.name or self.uuid or '(unnamed)'}"


if TYPE_CHECKING:
    Source = Union[DiskseqSource, NumberSource, PathSource, FileSource, TableSource]


def parse(value: object, option: str = "source", numbers: bool = False) -> Source:
    """
    The source from plain data or text; InvalidValue. Nothing is looked up. ``numbers``: allow major:minor.
    """
    if isinstance(value, str):
        return _without_keys(option, lambda: _parse_text(value, option, numbers))
    if not isinstance(value, dict):
        given = None if value is None else _HIDDEN
        raise InvalidValue(option, given, f"must be text or a dictionary with one of {_KINDS}")
    kinds = [
        kind
        for kind in _PARSERS
        if value.get(kind) is not None and not (kind == "diskseq" and value.get("path") is not None)
    ]
    if len(kinds) != 1:
        shown = {
            _HIDDEN if _has_key(key) else key: _shown(part) if key in _HARMLESS else _HIDDEN
            for key, part in value.items()
        }
        raise InvalidValue(
            option, shown, f"must have exactly one of {_KINDS} (a path may have a diskseq beside it)"
        )
    return _without_keys(option, lambda: _PARSERS[kinds[0]](value, option))


def _without_keys(option: str, parser: Callable[[], Source]) -> Source:
    """What ``parser`` returns, or its InvalidValue without what may be a key."""
    try:
        return parser()
    except InvalidValue as error:
        shown = _HIDDEN if isinstance(error.value, (dict, list)) or _has_key(error.value) else error.value
        named = f"{option}.{_HIDDEN}" if _has_key(error.option) else error.option
        if (shown, named) == (error.value, error.option):
            raise
        # A traceback would show the message of the first error.
        raise InvalidValue(named, shown, error.wrong) from None


def _parse_text(text: str, option: str, numbers: bool) -> Source:
    kind, colon, rest = text.partition(":")
    if text.startswith("/"):
        return PathSource(_absolute(text, option))
    if colon and kind == "diskseq":
        return _parse_diskseq_text(rest, option)
    if colon and kind == "path":
        return PathSource(_absolute(rest, option))
    if colon and kind == "file":
        is_raw = rest.startswith("raw:")
        return FileSource(_absolute(rest[4:] if is_raw else rest, option), format="raw" if is_raw else None)
    if colon and kind == "dm":
        return _parse_mapped(rest, option)
    number = sysfs.parse_number(text) if numbers else None
    if number is not None:
        return NumberSource(*number)
    forms = (
        "diskseq:N, diskseq:N-partP, diskseq:N@BOOT, path:/dev/..., file:/..., file:raw:/..., dm:NAME,UUID, "
        "or an absolute path" + (", or major:minor" if numbers else "")
    )
    raise InvalidValue(option, _shown(text), f"must be {forms}")


def _shown(value: object) -> object:
    """
    A wrong value for a message. Lines of tables have several words, and other data may contain one.
    """
    if isinstance(value, (dict, list)):
        return _HIDDEN
    if not isinstance(value, str):
        return value
    return _HIDDEN if _has_key(value) or len(value.split()) > 1 or value[:1] in ("{", "[") else value


def _has_key(value: object) -> bool:
    """Whether it is text that may contain a key."""
    if not isinstance(value, str):
        return False
    parts = "".join(letter if letter.isalnum() else "/" for letter in value).split("/")
    return any(len(part) >= _KEY_LETTERS for part in parts)


def _parse_mapped(text: str, option: str) -> PathSource:
    """
    Names and UUIDs cannot contain a comma. udev created the link, and the UUID proves that it leads to the
    device.
    """
    name, comma, uuid = text.partition(",")
    if not comma:
        raise InvalidValue(
            option, f"dm:{text}", "must be dm:NAME,UUID: a name alone can belong to another device by now"
        )
    return PathSource(f"/dev/mapper/{names.check_name(name, option)}", uuid=names.check_uuid(uuid, option))


def _parse_diskseq_text(text: str, option: str) -> DiskseqSource:
    number, at, boot = text.partition("@")
    number, dash, partition = number.partition("-part")
    return DiskseqSource(
        device.check_diskseq(number, option),
        _partition(partition, option) if dash else None,
        _boot.check_boot_id(boot, option) if at else None,
    )


def _parse_diskseq(value: dict[str, Any], option: str) -> DiskseqSource:
    check_keys(value, option, DiskseqSource._fields, _KNOWN)
    partition, boot = value.get("partition"), value.get("boot_id")
    return DiskseqSource(
        device.check_diskseq(value["diskseq"], f"{option}.diskseq"),
        None if partition is None else _partition(partition, f"{option}.partition"),
        None if boot is None else _boot.check_boot_id(boot, f"{option}.boot_id"),
    )


def _partition(value: object, option: str) -> int:
    text = str(value)
    if isinstance(value, bool) or not digits.is_decimal(text, 3) or not 1 <= int(text) <= _MOST_PARTITIONS:
        raise InvalidValue(
            option, value, f"must be the number of a partition, a whole number from 1 to {_MOST_PARTITIONS}"
        )
    return int(text)


def _parse_path(value: dict[str, Any], option: str) -> PathSource:
    check_keys(value, option, PathSource._fields, _KNOWN)
    diskseq, uuid, boot = value.get("diskseq"), value.get("uuid"), value.get("boot_id")
    if boot is not None and diskseq is None:
        raise InvalidValue(f"{option}.boot_id", boot, "is possible only with the diskseq that it belongs to")
    return PathSource(
        _absolute(value["path"], f"{option}.path"),
        None if uuid is None else names.check_uuid(uuid, f"{option}.uuid"),
        None if diskseq is None else device.check_diskseq(diskseq, f"{option}.diskseq"),
        None if boot is None else _boot.check_boot_id(boot, f"{option}.boot_id"),
    )


def _parse_file(value: dict[str, Any], option: str) -> FileSource:
    check_keys(value, option, FileSource._fields, _KNOWN)
    sector_size, mtime_ns = value.get("sector_size"), value.get("mtime_ns")
    if mtime_ns is not None and not _flag(value, option, "read_only"):
        raise InvalidValue(
            f"{option}.mtime_ns",
            mtime_ns,
            "is possible only with read_only=true: writing a file changes the time",
        )
    return FileSource(
        _absolute(value["file"], f"{option}.file"),
        _bytes(value, option, "offset"),
        _bytes(value, option, "size"),
        _flag(value, option, "read_only"),
        _flag(value, option, "direct_io"),
        None if sector_size is None else _bytes(value, option, "sector_size"),
        None if mtime_ns is None else _number(value, option, "mtime_ns", "nanoseconds since the epoch"),
        _format(value, option),
        _flag(value, option, "overlap"),
        _flag(value, option, "trusted_path"),
        _partition_of_file(value, option),
    )


def _partition_of_file(value: dict[str, Any], option: str) -> int | None:
    number = value.get("partition")
    if number is None:
        return None
    for key in ("offset", "size"):
        if value.get(key):
            raise InvalidValue(
                f"{option}.{key}", value[key], "must be left out if partition is set, which determines it"
            )
    return _partition(number, f"{option}.partition")


def _parse_table(value: dict[str, Any], option: str) -> TableSource:
    check_keys(value, option, TableSource._fields, _KNOWN)
    name, uuid = value.get("name"), value.get("uuid")
    return TableSource(
        value["table"],
        None if name is None else names.check_name(name, f"{option}.name"),
        None if uuid is None else names.check_uuid(uuid, f"{option}.uuid"),
        _flag(value, option, "read_only"),
    )


_PARSERS: dict[str, Callable[[dict[str, Any], str], Source]] = {
    "diskseq": _parse_diskseq,
    "path": _parse_path,
    "file": _parse_file,
    "table": _parse_table,
}
# Keys whose values, also wrong ones, are shown.
_HARMLESS = {*DiskseqSource._fields, *PathSource._fields, *FileSource._fields}
_KNOWN: set[str] = {*DiskseqSource._fields, *PathSource._fields, *FileSource._fields, *TableSource._fields}


def _absolute(value: object, option: str) -> str:
    if isinstance(value, str) and "\n" in value:
        raise InvalidValue(option, value, "must be an absolute path")
    if isinstance(value, (dict, list)):
        raise InvalidValue(option, _HIDDEN, "must be an absolute path")
    return files.check_path(value, option)


def _bytes(value: dict[str, Any], option: str, key: str) -> int:
    found = value.get(key)
    return 0 if found is None else bytes_or_0(found, f"{option}.{key}")


def _number(value: dict[str, Any], option: str, key: str, allowed: str) -> int:
    found = value.get(key)
    if found is None:
        return 0
    text = str(found)
    if isinstance(found, bool) or not digits.is_decimal(text, 19):
        raise InvalidValue(f"{option}.{key}", found, f"must be {allowed}")
    return int(text)


def _format(value: dict[str, Any], option: str) -> str | None:
    found = value.get("format")
    if found not in (None, "raw"):
        way_out = image_format.way_out(found if found in image_format.CONVERTED else None)
        allowed = f"raw: an image of another format is not a raw disk. Convert it {way_out}"
        raise InvalidValue(f"{option}.format", found, allowed)
    return found


def _flag(value: dict[str, Any], option: str, key: str) -> bool:
    found = value.get(key)
    return found is not None and boolean(found, f"{option}.{key}")


def parse_slot(slot: Slot) -> Source:
    """The source in a device slot of a table."""
    return parse(slot.value, option=slot.field, numbers=True)
