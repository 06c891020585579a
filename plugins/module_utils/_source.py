# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Sources: the one language for "which device". Plain data in, a held device out.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

``{diskseq: 42}``, ``{path: /dev/vg/a, uuid: ..., diskseq: 42}``, ``{file: /srv/a.raw, offset, size, read_only, direct_io,
sector_size}``, ``{table: [...], name, uuid, read_only}``; as text ``diskseq:42``, ``path:/dev/vg/a``, ``file:/srv/a.raw``,
an absolute path, or ``major:minor`` where a table asks for a device.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from . import _device, _dm, _loop
from ._errors import DeviceBusy, DeviceGone, InvalidValue, WrongDevice
from ._host import Host

_KINDS = "diskseq, path, file, table"


class DiskseqSource(NamedTuple):
    """The disk that has this number now."""

    diskseq: int

    def __str__(self):
        return f"diskseq:{self.diskseq}"


class NumberSource(NamedTuple):
    """The device that has this number now: only for what is held by somebody, such as a device in a live table."""

    major: int
    minor: int

    def __str__(self):
        return f"{self.major}:{self.minor}"


class PathSource(NamedTuple):
    """The device at a path, which must have the uuid (of a mapped device) and the diskseq that are given."""

    path: str
    uuid: str | None = None
    diskseq: int | None = None

    def __str__(self):
        return f"path:{self.path}"


class FileSource(NamedTuple):
    """A loop device over a file; ``offset`` and ``size`` in bytes, ``size`` 0 is "to the end"."""

    file: str
    offset: int = 0
    size: int = 0
    read_only: bool = False
    direct_io: bool = False
    sector_size: int | None = None

    def __str__(self):
        return f"file:{self.file}"


class TableSource(NamedTuple):
    """A mapped device with this table, whose device slots are sources again."""

    table: object
    name: str | None = None
    uuid: str | None = None
    read_only: bool = False

    def __str__(self):
        return f"table:{self.name or self.uuid or '(unnamed)'}"


def parse(value, option="source", numbers=False):
    """A typed source out of plain data or text, or InvalidValue; nothing is looked up. ``numbers``: allow major:minor."""
    if isinstance(value, str):
        return _parse_text(value, option, numbers)
    if not isinstance(value, dict):
        raise InvalidValue(option, value, f"a source is text or a dictionary with one of {_KINDS}")
    kinds = [kind for kind in _PARSERS if value.get(kind) is not None and not (kind == "diskseq" and value.get("path") is not None)]
    if len(kinds) != 1:
        raise InvalidValue(option, value, f"a source has exactly one of {_KINDS} (a path may have a diskseq beside it)")
    return _PARSERS[kinds[0]](value, option)


def find(source, host):
    """The existing device that the source names, held; None when a file or a table has no device yet."""
    if isinstance(source, DiskseqSource):
        return _device.open_diskseq(source.diskseq)
    if isinstance(source, NumberSource):
        return _device.open_number(source.major, source.minor)
    if isinstance(source, PathSource):
        return _open_path(source, host)
    if isinstance(source, FileSource):
        return _find_file(source, host)
    return _find_table(source, host)


def is_device(source, device, host):
    """Whether a held device is one that the source names, also when it would pick another one of several."""
    if isinstance(source, FileSource):
        if not _loop.is_loop(device):
            return False
        with _loop.Backing(source.file, read_only=True, option="source.file") as backing:
            status = _loop.info(device)
            return _loop.is_same(status, backing, source.offset, source.size) and _fits(source, device, status)
    try:
        found = find(source, host)
    except DeviceGone:
        return False
    if found is None:
        return False
    with found:
        return found.id == device.id


class Opener:
    """
    Opens sources, making what is not there yet; ``made`` lists the devices made, which go with their last user.

    :meth:`keep` has those made stay. Everything is held until the opener's host is left.
    """

    def __init__(self, host):
        self.host = host
        self.made = []

    def open(self, source):
        """The device, held by the host."""
        device = find(source, self.host)
        if device is None:
            device = self._make_file(source) if isinstance(source, FileSource) else self._make_table(source)
            self.made.append(device)
        return self.host.enter_context(device)

    def keep(self):
        """Take back "goes with its last user" for all that was made."""
        for device in self.made:
            self._set_persist(device, True)

    def give_up(self):
        """The opposite of :meth:`keep`: what was made goes with its last user after all."""
        for device in reversed(self.made):
            self._set_persist(device, False)

    def _set_persist(self, device, wanted):
        if _loop.is_loop(device):
            _loop.set_autoclear(device, not wanted)
        else:
            _dm.set_persist(self.host.dm, device, wanted)

    def _make_file(self, source):
        with _loop.Backing(source.file, source.read_only, option="source.file") as backing:
            device = _loop.attach(
                backing, source.offset, source.size, source.sector_size, source.read_only, source.direct_io,
            )
        self.host.loops.add(device, _loop.info(device))
        return device

    def _make_table(self, source):
        from . import _table_slots

        table = _table_slots.Slots(self.host).make(source.table, source.read_only, self)
        uuid = source.uuid or _dm.new_uuid()
        name = source.name or _dm.unused_name(uuid)
        return _dm.make(self.host.dm, name, uuid, table, self.host.cookie.next(), persist=False)


def parse_slot(slot):
    """The source that a table's device slot holds."""
    return parse(slot.value, option=slot.field, numbers=True)


def _parse_text(text, option, numbers):
    kind, colon, rest = text.partition(":")
    if text.startswith("/"):
        return PathSource(_absolute(text, option))
    if colon and kind == "diskseq":
        return DiskseqSource(_device.check_diskseq(rest, option))
    if colon and kind == "path":
        return PathSource(_absolute(rest, option))
    if colon and kind == "file":
        return FileSource(_absolute(rest, option))
    number = _device.parse_number(text) if numbers else None
    if number is not None:
        return NumberSource(*number)
    forms = "diskseq:N, path:/dev/..., file:/..., or an absolute path" + (", or major:minor" if numbers else "")
    raise InvalidValue(option, text, forms)


def _parse_diskseq(value, option):
    _only(value, option, ("diskseq",))
    return DiskseqSource(_device.check_diskseq(value["diskseq"], f"{option}.diskseq"))


def _parse_path(value, option):
    _only(value, option, ("path", "uuid", "diskseq"))
    diskseq, uuid = value.get("diskseq"), value.get("uuid")
    return PathSource(
        _absolute(value["path"], f"{option}.path"),
        None if uuid is None else _dm.check_uuid(uuid, f"{option}.uuid"),
        None if diskseq is None else _device.check_diskseq(diskseq, f"{option}.diskseq"),
    )


def _parse_file(value, option):
    _only(value, option, FileSource._fields)
    sector_size = value.get("sector_size")
    return FileSource(
        _absolute(value["file"], f"{option}.file"),
        _bytes(value, option, "offset"),
        _bytes(value, option, "size"),
        _boolean(value, option, "read_only"),
        _boolean(value, option, "direct_io"),
        None if sector_size is None else _bytes(value, option, "sector_size"),
    )


def _parse_table(value, option):
    _only(value, option, TableSource._fields)
    name, uuid = value.get("name"), value.get("uuid")
    return TableSource(
        value["table"],
        None if name is None else _dm.check_name(name, f"{option}.name"),
        None if uuid is None else _dm.check_uuid(uuid, f"{option}.uuid"),
        _boolean(value, option, "read_only"),
    )


_PARSERS = {"diskseq": _parse_diskseq, "path": _parse_path, "file": _parse_file, "table": _parse_table}
_KNOWN = {*DiskseqSource._fields, *PathSource._fields, *FileSource._fields, *TableSource._fields}


def _only(value, option, allowed):
    for key in value:
        # An option of another kind that is null was not given: module options have all of them.
        if key not in allowed and not (key in _KNOWN and value[key] is None):
            raise InvalidValue(f"{option}.{key}", value[key], f"there is no such option beside {allowed[0]}; there are {', '.join(allowed)}")


def _absolute(value, option):
    if isinstance(value, str) and "\n" in value:
        raise InvalidValue(option, value, "an absolute path")
    return _device.check_path(value, option)


def _bytes(value, option, key):
    found = value.get(key)
    if found is None:
        return 0
    text = str(found)
    if isinstance(found, bool) or not re.match(r"[0-9]{1,19}\Z", text):
        raise InvalidValue(f"{option}.{key}", found, "a whole number of bytes, 0 or more")
    return int(text)


def _boolean(value, option, key):
    found = value.get(key, False)
    if found is None:
        return False
    if not isinstance(found, bool):
        words = {"true": True, "yes": True, "false": False, "no": False}
        found = words.get(str(found).lower())
    if found is None:
        raise InvalidValue(f"{option}.{key}", value[key], "true or false")
    return found


def _open_path(source, host):
    device = _device.open_path(source.path, diskseq=source.diskseq)
    if source.uuid is None:
        return device
    try:
        if not _dm.is_mapped(device):
            raise WrongDevice("it is not a mapped device, so it has no uuid", device=source.path)
        uuid = host.dm.status(_dm.number_of(device)).uuid
        if uuid != source.uuid:
            raise WrongDevice(f"its uuid is {uuid or '(none)'}, not {source.uuid}", device=source.path)
    except BaseException:
        device.close()
        raise
    return device


def _find_file(source, host):
    with _loop.Backing(source.file, source.read_only, option="source.file") as backing:
        _loop.check_geometry(backing, source.offset, source.size, source.sector_size)
        chosen = None
        for device, status in host.loops.find(backing, source.offset, source.size):
            if chosen is None and _fits(source, device, status):
                chosen = device
            else:
                device.close()
        return chosen


def _fits(source, device, status):
    return (
        status.read_only == source.read_only
        and source.sector_size in (None, device.logical_block)
        and (status.direct_io or not source.direct_io)
    )


def _find_table(source, host):
    if not source.name and not source.uuid:
        return None
    mapped = _dm.find(host.dm, source.name or "", source.uuid or "")
    if mapped is None:
        return None
    try:
        _check_same_table(source, host, mapped)
    except BaseException:
        if mapped.device is not None:
            mapped.device.close()
        raise
    return mapped.device


def _check_same_table(source, host, mapped):
    """An existing device under the source's name serves only if it is exactly the one that the source describes."""
    from . import _table_slots

    name = source.name or source.uuid
    taken = DeviceBusy(f"there is another device under this name: {_dm.describe(host.dm, mapped)}", device=name)
    if mapped.device is None or (source.uuid and mapped.status.uuid != source.uuid) or (source.name and mapped.status.name != source.name):
        raise taken
    with Host() as own:
        try:
            wanted = _table_slots.Slots(own).look(source.table, source.read_only)
        except DeviceGone as error:
            raise taken from error
        if not wanted.is_complete or not wanted.table.same_as(_table_slots.live_table(host, mapped.device)) or mapped.status.read_only != source.read_only:
            raise taken
