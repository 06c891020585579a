# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Encode and strictly decode the buffers of device-mapper's ioctls. Pure: nothing here calls the kernel.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Layout: include/uapi/linux/dm-ioctl.h and drivers/md/dm-ioctl.c. Encoders satisfy all checks of Linux 6.5,
also for older kernels, which would read beyond a malformed buffer. Decoders trust nothing: :class:`BadBuffer`
names the rule that a buffer breaks.
"""

from __future__ import annotations

from .._base.errors import BlockError, InvalidValue
from .._base.record import Record
from .._kernel import uapi

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


HEADER = 312
# offsetof(struct dm_ioctl, data): data_size of an answer that consists only of the header.
HEADER_ALONE = 305
SPEC = 40
MAX_TARGETS = 1048576
MAX_BUFFER = 2**30
_ALIGN = 8
_NEXT_MAX = 2**32 - 1
_U64_MAX = 2**64 - 1


class BadBuffer(BlockError):
    """
    A buffer breaks a rule of the interface. ``rule`` is one of: size, version, data_start, alignment, next,
    overlap, gap, overflow, nul, count, text. ``offset`` is the position in bytes from the start of the
    buffer.
    """

    def __init__(self, rule: str, offset: int, message: str) -> None:
        super().__init__(f"malformed device-mapper buffer at byte {offset}: {message}")
        self.rule = rule
        self.offset = offset


class Header(Record):
    """
    A decoded ``struct dm_ioctl``; ``dev`` in the kernel's huge encoding, ``name`` and ``uuid`` as bytes.
    """

    version: tuple[int, int, int]
    data_size: int
    data_start: int
    target_count: int
    open_count: int
    flags: int
    event_nr: int
    dev: int
    name: bytes
    uuid: bytes


class TargetLine(Record):
    """
    One target: ``start`` and ``length`` in sectors of 512 bytes, ``type`` and ``params`` as bytes without
    NUL.
    """

    start: int
    length: int
    type: bytes
    params: bytes


class NameEntry(Record):
    """One row of DM_LIST_DEVICES. ``event_nr`` and ``uuid`` are None if the kernel does not report them."""

    dev: int
    name: bytes
    event_nr: int | None
    uuid: bytes | None


def line_text(line: TargetLine) -> str:
    """A table line from the kernel's answer, in the format of dmsetup."""
    text = f"{line.start} {line.length} {line.type.decode('ascii', 'replace')}"
    return f"{text} {line.params.decode('utf-8', 'surrogateescape')}" if line.params else text


def encode_dev(major: int, minor: int) -> int:
    """Encode a device number like the kernel's huge_encode_dev (include/linux/kdev_t.h)."""
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)


def decode_dev(dev: int) -> tuple[int, int]:
    """``(major, minor)`` of a number in the kernel's huge encoding."""
    return (dev >> 8) & 0xFFF, (dev & 0xFF) | ((dev >> 12) & 0xFFF00)


def align(number: int) -> int:
    """Round up to the alignment of structures in a buffer, 8 bytes."""
    return (number + _ALIGN - 1) & ~(_ALIGN - 1)


def encode(
    version: tuple[int, int, int],
    name: bytes = b"",
    uuid: bytes = b"",
    dev: int = 0,
    flags: int = 0,
    event_nr: int = 0,
    target_count: int = 0,
    payload: bytes = b"",
    room: int = 0,
) -> bytearray:
    """
    Build a request buffer: the header, ``payload`` from byte 312 on, and at least ``room`` bytes for the
    answer.

    ``name`` and ``uuid`` are bytes without NUL. Raises InvalidValue if a value does not fit its field,
    BadBuffer if the buffer would be too large.
    """
    _check_number("dev", dev, _U64_MAX)
    _check_number("flags", flags, _NEXT_MAX)
    _check_number("event_nr", event_nr, _NEXT_MAX)
    _check_number("target_count", target_count, _NEXT_MAX)
    _check_text("name", name, uapi.lib.DM_NAME_LEN - 1)
    _check_text("uuid", uuid, uapi.lib.DM_UUID_LEN - 1)
    size = max(HEADER + len(payload), HEADER + room)
    if size > MAX_BUFFER:
        raise BadBuffer("size", 0, f"{size} bytes are needed, and the kernel takes {MAX_BUFFER} at most")
    buffer = bytearray(size)
    header = _header(buffer)
    header.version = version
    header.data_size = size
    header.data_start = HEADER
    header.target_count = target_count
    header.flags = flags
    header.event_nr = event_nr
    header.dev = dev
    buffer[48 : 48 + len(name)] = name
    buffer[176 : 176 + len(uuid)] = uuid
    buffer[HEADER : HEADER + len(payload)] = payload
    return buffer


def encode_targets(targets: Sequence[tuple[int, int, bytes, bytes]], strict: bool = True) -> bytes:
    """
    Build the payload of DM_TABLE_LOAD from ``(start, length, type, params)`` in order: sectors, and bytes
    without NUL.

    ``next`` is relative to its own spec. It is set in the last spec too, where the kernel ignores it.
    ``strict``: the targets must be contiguous from sector 0 on, as :func:`decode_table_request` requires.
    Otherwise any sectors that fit their fields are written, to test the kernel's own checks. Raises
    InvalidValue if a value does not fit its field, BadBuffer for the table as a whole.
    """
    if not targets:
        raise BadBuffer("count", HEADER, "a table needs at least one target")
    if len(targets) > MAX_TARGETS:
        raise BadBuffer(
            "count", HEADER, f"{len(targets)} targets, and the kernel takes {MAX_TARGETS} at most"
        )
    ffi = uapi.ffi
    spec = ffi.new("struct dm_target_spec *")
    raw = ffi.buffer(spec)
    pieces = []
    place, expected = HEADER, 0
    for start, length, kind, params in targets:
        _check_target(start, length, kind, params)
        if strict:
            _check_sectors(start, length, expected, place)
            expected = start + length
        spec.sector_start = start
        spec.length = length
        size = align(SPEC + len(params) + 1)
        if size > _NEXT_MAX:
            raise BadBuffer("overflow", HEADER, "the parameters of one target are longer than 4 GiB")
        spec.next = size
        # The type is padded with NULs: otherwise the end of the previous target's longer type would remain.
        spec.target_type = kind.ljust(16, b"\0")
        pieces.append(raw[:])
        pieces.append(params.ljust(size - SPEC, b"\0"))
        place += size
    return b"".join(pieces)


def _check_target(start: int, length: int, kind: bytes, params: bytes) -> None:
    """Raise InvalidValue unless the values fit the fields of ``struct dm_target_spec``."""
    _check_text("target", kind, uapi.lib.DM_MAX_TYPE_NAME - 1)
    if b"\0" in params:
        raise InvalidValue("params", params, "cannot hold a NUL")
    if not kind:
        raise InvalidValue("target", kind, "must be the type of a target")
    _check_number("start", start, _U64_MAX)
    _check_number("length", length, _U64_MAX)


def encode_message(sector: int, text: bytes) -> bytes:
    """
    Build the payload of DM_TARGET_MSG: ``sector`` (of 512 bytes) selects the target, ``text`` is bytes
    without NUL.
    """
    if b"\0" in text or not text:
        raise InvalidValue("message", text, "must be a message of at least one character without NUL")
    _check_number("sector", sector, _U64_MAX)
    return sector.to_bytes(8, "little") + text + b"\0"


def encode_text(text: bytes) -> bytes:
    """Build the payload of DM_DEV_RENAME and DM_GET_TARGET_VERSION: a string and its NUL."""
    return text + b"\0"


def decode_header(buffer: bytes | bytearray, major: int = 4) -> Header:
    """Decode the header of an answer or a request, and check every field. Raises BadBuffer."""
    if len(buffer) < HEADER:
        raise BadBuffer("size", len(buffer), f"{len(buffer)} bytes, and the header alone has {HEADER}")
    raw = _header(buffer)
    version = tuple(raw.version)
    if version[0] != major:
        raise BadBuffer("version", 0, f"interface version {version[0]}, not {major}")
    if raw.data_size != HEADER_ALONE and not HEADER <= raw.data_size <= len(buffer):
        raise BadBuffer("size", 12, f"data_size {raw.data_size} in a buffer of {len(buffer)} bytes")
    if raw.data_start < HEADER or raw.data_start > max(HEADER, raw.data_size):
        raise BadBuffer(
            "data_start", 16, f"data_start {raw.data_start} is not from {HEADER} to data_size {raw.data_size}"
        )
    if raw.data_start % _ALIGN:
        raise BadBuffer("alignment", 16, f"data_start {raw.data_start} is not a multiple of {_ALIGN}")
    if raw.target_count > MAX_TARGETS:
        raise BadBuffer("count", 20, f"{raw.target_count} targets, and {MAX_TARGETS} are allowed")
    return Header(
        version,
        raw.data_size,
        raw.data_start,
        raw.target_count,
        raw.open_count,
        raw.flags,
        raw.event_nr,
        raw.dev,
        _text(buffer, 48, 48 + uapi.lib.DM_NAME_LEN),
        _text(buffer, 176, 176 + uapi.lib.DM_UUID_LEN),
    )


def decode_table_request(buffer: bytes | bytearray) -> tuple[Header, list[TargetLine]]:
    """
    Decode a DM_TABLE_LOAD request to ``(Header, [TargetLine])``, with the checks of hardened kernels
    (``next`` counts from each spec).
    """
    header = decode_header(buffer)
    if not header.target_count:
        raise BadBuffer("count", 20, "a table needs at least one target")
    targets: list[TargetLine] = []
    place, end = header.data_start, header.data_size
    for index in range(header.target_count):
        last = index == header.target_count - 1
        line, following, params_end = _target(buffer, place, end, place)
        _check_sectors(
            line.start, line.length, targets[-1].start + targets[-1].length if targets else 0, place
        )
        targets.append(line)
        if not last:
            _check_next(following, params_end, place, end)
            place = following
    return header, targets


def decode_table(buffer: bytes | bytearray, header: Header) -> list[TargetLine]:
    """[TargetLine] of a DM_TABLE_STATUS answer, where ``next`` counts from ``data_start``."""
    targets: list[TargetLine] = []
    place, end = header.data_start, header.data_size
    for _index in range(header.target_count):
        line, following, params_end = _target(buffer, place, end, header.data_start)
        targets.append(line)
        if len(targets) < header.target_count:
            _check_next(following, params_end, place, end)
            place = following
    return targets


def decode_names(buffer: bytes | bytearray, header: Header, with_uuid: bool) -> list[NameEntry]:
    """[NameEntry] of a DM_LIST_DEVICES answer. ``with_uuid``: the request had DM_UUID_FLAG."""
    ffi, lib = uapi.ffi, uapi.lib
    entries: list[NameEntry] = []
    place, end = header.data_start, header.data_size
    if place >= end:
        # If there are no mapped devices, the kernel's answer is only the header.
        return entries
    while True:
        _check_room(place, 12, end)
        row = ffi.cast("struct dm_name_list *", ffi.from_buffer(buffer) + place)
        if not row.dev and not entries:
            return entries
        name, after = _string(buffer, place + 12, end)
        event_nr = uuid = None
        tail = align(after)
        if tail + 8 <= min(place + row.next if row.next else end, end):
            event_nr = int.from_bytes(buffer[tail : tail + 4], "little")
            has = int.from_bytes(buffer[tail + 4 : tail + 8], "little")
            if with_uuid and has & lib.DM_NAME_LIST_FLAG_HAS_UUID:
                uuid, after = _string(buffer, tail + 8, end)
            elif with_uuid and has & lib.DM_NAME_LIST_FLAG_DOESNT_HAVE_UUID:
                uuid = b""
        entries.append(NameEntry(row.dev, name, event_nr, uuid))
        if not row.next:
            return entries
        _check_next(place + row.next, after, place, end)
        place += row.next


def decode_versions(buffer: bytes | bytearray, header: Header) -> dict[str, tuple[int, int, int]]:
    """``{target: (major, minor, patch)}`` of a DM_LIST_VERSIONS or DM_GET_TARGET_VERSION answer."""
    ffi = uapi.ffi
    versions, place, end = {}, header.data_start, header.data_size
    while place < end:
        _check_room(place, 16, end)
        row = ffi.cast("struct dm_target_versions *", ffi.from_buffer(buffer) + place)
        name, after = _string(buffer, place + 16, end)
        versions[name.decode("ascii", "replace")] = tuple(row.version)
        if not row.next:
            break
        _check_next(place + row.next, after, place, end)
        place += row.next
    return versions


def decode_deps(buffer: bytes | bytearray, header: Header) -> list[tuple[int, int]]:
    """``[(major, minor)]`` of a DM_TABLE_DEPS answer."""
    place, end = header.data_start, header.data_size
    _check_room(place, 8, end)
    count = int.from_bytes(buffer[place : place + 4], "little")
    if count > (end - place - 8) // 8:
        raise BadBuffer("count", place, f"{count} dependencies do not fit")
    return [
        decode_dev(int.from_bytes(buffer[at : at + 8], "little"))
        for at in range(place + 8, place + 8 + 8 * count, 8)
    ]


def _header(buffer: bytes | bytearray) -> Any:
    return uapi.ffi.cast("struct dm_ioctl *", uapi.ffi.from_buffer(buffer))


def _target(buffer: bytes | bytearray, place: int, end: int, origin: int) -> tuple[TargetLine, int, int]:
    """
    ``(TargetLine, position of the next one, end of the parameters)``. Positions are in bytes from the start
    of the buffer; ``next`` counts from ``origin``.
    """
    _check_room(place, SPEC + 1, end)
    ffi = uapi.ffi
    spec = ffi.cast("struct dm_target_spec *", ffi.from_buffer(buffer) + place)
    kind = _text(buffer, place + 24, place + SPEC)
    if not kind:
        raise BadBuffer("text", place + 24, "an empty target type")
    _check_end(spec.sector_start, spec.length, place)
    params, after = _string(buffer, place + SPEC, end)
    return TargetLine(spec.sector_start, spec.length, kind, params), origin + spec.next, after


def _check_end(start: int, length: int, place: int) -> None:
    if start + length > _U64_MAX:
        raise BadBuffer("overflow", place, "start and length overflow 64 bits")


def _check_sectors(start: int, length: int, expected: int, place: int) -> None:
    """
    The sectors of a target in a request must start at ``expected``, and must not be empty
    (drivers/md/dm-table.c).
    """
    _check_end(start, length, place)
    if start != expected:
        raise BadBuffer(
            "overlap" if start < expected else "gap",
            place,
            f"the target starts at sector {start}, not {expected}",
        )
    if not length:
        raise BadBuffer("overflow", place + 8, "a target without sectors")


def _check_next(following: int, after: int, place: int, end: int) -> None:
    if following % _ALIGN:
        raise BadBuffer(
            "alignment",
            place,
            f"the following entry would be at byte {following}, not a multiple of {_ALIGN}",
        )
    if following < after:
        raise BadBuffer(
            "overlap",
            place,
            f"the following entry at byte {following} begins before this one ends at {after}",
        )
    if following >= end:
        raise BadBuffer("next", place, f"the following entry at byte {following} is outside the {end} bytes")


def _check_room(place: int, size: int, end: int) -> None:
    if place + size > end:
        raise BadBuffer("size", place, f"{size} bytes are needed, and the data ends at byte {end}")


def _text(buffer: bytes | bytearray, start: int, end: int) -> bytes:
    """A fixed-size field: text and its NUL, then only NULs."""
    field = bytes(buffer[start:end])
    text, nul, rest = field.partition(b"\0")
    if not nul:
        raise BadBuffer("nul", start, "a text without its NUL")
    if rest.strip(b"\0"):
        raise BadBuffer("text", start, "something follows the NUL of a text")
    return text


def _string(buffer: bytes | bytearray, start: int, end: int) -> tuple[bytes, int]:
    """A NUL-terminated string, and the position after its NUL."""
    nul = buffer.find(b"\0", start, end)
    if nul < 0:
        raise BadBuffer("nul", start, "a string without its NUL")
    return bytes(buffer[start:nul]), nul + 1


def _check_number(option: str, number: int, most: int) -> None:
    if not 0 <= number <= most:
        raise InvalidValue(option, number, f"must be a whole number from 0 to {most}")


def _check_text(option: str, text: bytes, most: int) -> None:
    if len(text) > most:
        raise InvalidValue(option, text.decode("utf-8", "replace"), f"must be at most {most} bytes")
    if b"\0" in text:
        raise InvalidValue(option, text.decode("utf-8", "replace"), "cannot hold a NUL")
