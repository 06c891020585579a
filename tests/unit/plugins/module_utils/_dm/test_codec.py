# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The codec against an independent encoder, written here with the module struct from the kernel's header."""

from __future__ import annotations

import errno
import os
import random
import struct

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    BlockError,
    DeviceGone,
    InvalidValue,
    KernelError,
)
from ansible_collections.racefree.block.plugins.module_utils._dm import codec
from ansible_collections.racefree.block.plugins.module_utils._dm import control as _control
from ansible_collections.racefree.block.plugins.module_utils._dm.codec import BadBuffer, NameEntry, TargetLine
from ansible_collections.racefree.block.plugins.module_utils._kernel import uapi
from hypothesis import given, settings
from hypothesis import strategies as st

U32, U64 = 2**32 - 1, 2**64 - 1
START = 312
VERSION = (4, 27, 0)
# Bytes after the data that are never part of an answer: a string that is read beyond its end contains them.
GUARD = (b"\xa5" * 31 + b"\0") * 2

EDGES = [0, 1, 7, 8, 0x7F, 0x80, 0xFF, 2**31 - 1, 2**31, U32 - 1, U32]
u32 = st.one_of(st.sampled_from(EDGES), st.integers(0, U32))
u64 = st.one_of(st.sampled_from([*EDGES, 2**32, 2**63 - 1, 2**63, U64 - 1, U64]), st.integers(0, U64))
text = st.binary(max_size=40).map(lambda raw: raw.replace(b"\0", b"0"))
kinds = st.binary(min_size=1, max_size=15).map(lambda raw: raw.replace(b"\0", b"0"))
names = st.binary(min_size=1, max_size=127).map(lambda raw: raw.replace(b"\0", b"0"))
uuids = st.binary(max_size=128).map(lambda raw: raw.replace(b"\0", b"0"))


@st.composite
def tables(draw, most=5):
    """Targets as the kernel accepts them: contiguous from sector 0 on."""
    targets, place = [], 0
    for dummy in range(draw(st.integers(1, most))):
        length = draw(st.integers(1, 2**54))
        targets.append(TargetLine(place, length, draw(kinds), draw(text)))
        place += length
    return targets


def request(targets, strict=True, **fields):
    return codec.encode(
        VERSION, target_count=len(targets), payload=codec.encode_targets(targets, strict), **fields
    )


def pad(raw, to=8):
    return raw + bytes(-len(raw) % to)


def header(
    data=b"",
    version=VERSION,
    size=None,
    start=START,
    count=0,
    opens=0,
    flags=0,
    event=0,
    dev=0,
    name=b"",
    uuid=b"",
    guard=GUARD,
):
    """
    An answer, packed by hand: 305 bytes of fields, 7 unused bytes, the data, and the earlier content of the
    buffer.
    """
    size = START + len(data) if size is None else size
    packed = struct.pack("=3I4sI", *version, struct.pack("=I", size), start) + struct.pack(
        "=IiIIIQ128s129s7x", count, opens, flags, event, 0, dev, name, uuid
    )
    assert len(packed) == START
    return bytearray(packed + data + guard)


def spec(start, length, kind, params, following, status=0):
    return struct.pack("=QQiI16s", start, length, status, following, kind) + params


def status_answer(targets, **fields):
    """
    DM_TABLE_STATUS in the format of retrieve_status(): next counts from data_start, and the last text is not
    padded.
    """
    data = b""
    for line in targets:
        data = pad(data)
        row = spec(line.start, line.length, line.type, line.params + b"\0", 0)
        following = len(pad(data + row))
        data += spec(line.start, line.length, line.type, line.params + b"\0", following)
    return header(data, count=len(targets), **fields)


def names_answer(entries, layout="uuid", **fields):
    """
    DM_LIST_DEVICES in the format of list_devices().

    ``layout``: ``old`` (interface before 4.37) has only names, ``event`` (before 4.44) also event numbers,
    ``uuid`` everything.
    """
    rows = []
    for entry in entries:
        row = pad(struct.pack("=QI", entry.dev, 0) + entry.name + b"\0")
        if layout == "event":
            row += struct.pack("=II", entry.event_nr, 0)
        if layout == "uuid":
            row += struct.pack("=II", entry.event_nr, 1 if entry.uuid else 2)
            row += pad(entry.uuid + b"\0") if entry.uuid else b""
        rows.append(bytearray(row))
    for row in rows[:-1]:
        struct.pack_into("=I", row, 8, len(row))
    return header(b"".join(rows), **fields)


def versions_answer(versions):
    """DM_LIST_VERSIONS. The kernel computes the size generously, so zeros follow the last row."""
    rows = [
        bytearray(pad(struct.pack("=I3I", 0, *version) + name.encode() + b"\0")) for name, version in versions
    ]
    for row in rows[:-1]:
        struct.pack_into("=I", row, 0, len(row))
    return header(b"".join(rows) + bytes(7 * len(rows)))


def refused(rule, function, *arguments):
    with pytest.raises(BadBuffer) as caught:
        function(*arguments)
    assert caught.value.rule == rule, caught.value
    assert "malformed device-mapper buffer at byte" in str(caught.value)
    return caught.value


def decode_status(buffer):
    return codec.decode_table(buffer, codec.decode_header(buffer))


def decode_names(buffer, with_uuid=True):
    return codec.decode_names(buffer, codec.decode_header(buffer), with_uuid)


def decode_versions(buffer):
    return codec.decode_versions(buffer, codec.decode_header(buffer))


def decode_deps(buffer):
    return codec.decode_deps(buffer, codec.decode_header(buffer))


def changed(buffer, form, place, *values):
    copy = bytearray(buffer)
    struct.pack_into(form, copy, place, *values)
    return copy


# What the encoder writes


@given(tables(), names, uuids, u64, u32, u32, st.integers(0, 600))
def test_encoded_tables_are_decoded_unchanged(targets, name, uuid, dev, flags, event_nr, room):
    buffer = request(targets, name=name, uuid=uuid, dev=dev, flags=flags, event_nr=event_nr, room=room)
    head, lines = codec.decode_table_request(buffer)
    assert lines == targets
    assert (head.name, head.uuid, head.dev, head.flags, head.event_nr) == (name, uuid, dev, flags, event_nr)
    assert (
        head.version == VERSION
        and head.data_size == len(buffer)
        and head.data_start == START
        and head.target_count == len(targets)
    )


@given(tables())
def test_the_exact_bytes(targets):
    """Compare with the same table packed by hand."""
    expected = b"".join(
        spec(line.start, line.length, line.type, pad(line.params + b"\0"), 40 + len(pad(line.params + b"\0")))
        for line in targets
    )
    assert codec.encode_targets(targets) == expected


@given(st.lists(st.builds(TargetLine, u64, u64, kinds, text), min_size=1, max_size=4))
def test_any_sectors_are_encoded_and_validated(targets):
    """
    Without strict, the encoder writes any sectors. The decoder, and by default the encoder, either accept
    them or name the rule that they break.
    """
    end, rules = 0, set()
    for line in targets:
        if line.start + line.length > U64 or not line.length:
            rules.add("overflow")
        if line.start != end:
            rules.add("overlap" if line.start < end else "gap")
        end = line.start + line.length
    buffer = request(targets, strict=False)
    if not rules:
        assert codec.decode_table_request(buffer)[1] == targets
        assert request(targets) == buffer
        return
    with pytest.raises(BadBuffer) as decoding:
        codec.decode_table_request(buffer)
    with pytest.raises(BadBuffer) as encoding:
        request(targets)
    assert decoding.value.rule in rules
    assert (encoding.value.rule, encoding.value.offset, str(encoding.value)) == (
        decoding.value.rule,
        decoding.value.offset,
        str(decoding.value),
    )


@pytest.mark.parametrize(
    "targets, rule, offset",
    [
        ([(8, 8, b"zero", b"")], "gap", START),
        ([(0, 0, b"zero", b"")], "overflow", START + 8),
        ([(0, 8, b"zero", b""), (9, 8, b"zero", b"")], "gap", START + 48),
        ([(0, 8, b"zero", b"x" * 8), (7, 8, b"zero", b"")], "overlap", START + 56),
        ([(0, 8, b"zero", b""), (0, 8, b"zero", b"")], "overlap", START + 48),
        ([(0, 8, b"zero", b""), (8, 0, b"zero", b"")], "overflow", START + 56),
        ([(0, 8, b"zero", b""), (8, U64, b"zero", b"")], "overflow", START + 48),
    ],
)
def test_gaps_between_targets_are_not_encoded(targets, rule, offset):
    assert refused(rule, codec.encode_targets, targets).offset == offset
    assert codec.encode_targets(targets, strict=False)


@pytest.mark.parametrize(
    "field, most", [("dev", U64), ("flags", U32), ("event_nr", U32), ("target_count", U32)]
)
@pytest.mark.parametrize("beyond", [0, 1, 2**64])
def test_numbers_beyond_their_field_are_refused(field, most, beyond):
    assert codec.encode(VERSION, **{field: most})
    for value in (most + 1 + beyond, -1 - beyond):
        with pytest.raises(InvalidValue) as caught:
            codec.encode(VERSION, **{field: value})
        assert caught.value.option == field


@pytest.mark.parametrize("value", [-1, U64 + 1, 2**200])
def test_sectors_beyond_their_field_are_refused(value):
    for targets, option in (([(value, 1, b"zero", b"")], "start"), ([(0, value, b"zero", b"")], "length")):
        with pytest.raises(InvalidValue) as caught:
            codec.encode_targets(targets)
        assert caught.value.option == option
    with pytest.raises(InvalidValue) as caught:
        codec.encode_message(value, b"hello")
    assert caught.value.option == "sector"


@pytest.mark.parametrize(
    "fields, option",
    [
        ({"name": b"n" * 128}, "name"),
        ({"name": b"a\0b"}, "name"),
        ({"name": b"\xff" * 128}, "name"),
        ({"uuid": b"u" * 129}, "uuid"),
        ({"uuid": b"\0"}, "uuid"),
    ],
)
def test_texts_that_are_too_long_are_refused(fields, option):
    with pytest.raises(InvalidValue) as caught:
        codec.encode(VERSION, **fields)
    assert caught.value.option == option
    assert codec.decode_header(codec.encode(VERSION, name=b"n" * 127, uuid=b"u" * 128)).name == b"n" * 127


@pytest.mark.parametrize(
    "line, option",
    [
        ((0, 1, b"k" * 16, b""), "target"),
        ((0, 1, b"", b""), "target"),
        ((0, 1, b"a\0", b""), "target"),
        ((0, 1, b"zero", b"\0"), "params"),
    ],
)
def test_targets_that_cannot_be_written_are_refused(line, option):
    with pytest.raises(InvalidValue) as caught:
        codec.encode_targets([(0, 1, b"zero", b""), line])
    assert caught.value.option == option


def test_limits_of_a_request(monkeypatch):
    refused("count", codec.encode_targets, [])
    refused("count", codec.encode_targets, [(0, 1, b"zero", b"")] * (codec.MAX_TARGETS + 1))
    refused("size", codec.encode, VERSION, b"", b"", 0, 0, 0, 0, b"", codec.MAX_BUFFER - START + 1)
    # Instead of 4 GiB of parameters, the limit is lowered
    monkeypatch.setattr(codec, "_NEXT_MAX", 64)
    assert codec.encode_targets([(0, 1, b"zero", b"p" * 23)])
    refused("overflow", codec.encode_targets, [(0, 1, b"zero", b"p" * 24)])


def test_messages_and_texts():
    assert codec.encode_message(U64, b"create_thin 0") == b"\xff" * 8 + b"create_thin 0\0"
    assert codec.encode_text(b"new name") == b"new name\0"
    for wrong in (b"", b"a\0b"):
        with pytest.raises(InvalidValue, match="message"):
            codec.encode_message(0, wrong)


@given(st.integers(0, 4095), st.integers(0, 2**20 - 1))
def test_device_numbers(major, minor):
    """For these numbers, huge_encode_dev equals the encoding of the C library."""
    assert codec.decode_dev(codec.encode_dev(major, minor)) == (major, minor)
    assert codec.encode_dev(major, minor) == os.makedev(major, minor)


# What the kernel answers


@given(
    names,
    uuids,
    u64,
    u32,
    u32,
    st.integers(-(2**31), 2**31 - 1),
    st.integers(0, codec.MAX_TARGETS),
    st.sampled_from([codec.HEADER_ALONE, codec.HEADER]),
    st.binary(max_size=8),
)
def test_a_header_alone(name, uuid, dev, flags, event, opens, count, size, guard):
    """
    If no data follows the header, the kernel reports a size of 305 bytes (offsetof data) or 312 (sizeof).
    """
    head = codec.decode_header(
        header(
            size=size,
            count=count,
            opens=opens,
            flags=flags,
            event=event,
            dev=dev,
            name=name,
            uuid=uuid,
            guard=guard,
        )
    )
    assert head == codec.Header(VERSION, size, START, count, opens, flags, event, dev, name, uuid)


@pytest.mark.parametrize("size", [codec.HEADER_ALONE, codec.HEADER])
def test_answers_without_data(size):
    buffer = header(size=size)
    assert decode_status(buffer) == []
    assert decode_names(buffer) == []
    assert decode_versions(buffer) == {}
    refused("size", decode_deps, buffer)
    refused("size", decode_status, changed(buffer, "=I", 20, 1))
    refused("size", codec.decode_table_request, changed(buffer, "=I", 20, 1))


@given(
    st.lists(
        st.builds(TargetLine, st.integers(0, 2**63), st.integers(0, 2**63 - 1), kinds, text), max_size=5
    ),
    st.binary(max_size=64),
)
def test_a_table_that_the_kernel_prints(targets, guard):
    assert decode_status(status_answer(targets, guard=guard)) == targets


entries_with_uuid = st.lists(st.builds(NameEntry, st.integers(1, U64), names, u32, uuids), max_size=5)


@given(entries_with_uuid, st.binary(max_size=64))
def test_names_with_uuids(entries, guard):
    assert decode_names(names_answer(entries, guard=guard)) == entries


@given(entries_with_uuid, st.sampled_from(["old", "event", "uuid"]), st.booleans())
def test_names_of_every_kernel(entries, layout, with_uuid):
    """
    Values that the kernel does not report are None. Kernels with only the event number write 0 where the
    flags are now.
    """
    expected = [
        NameEntry(
            entry.dev,
            entry.name,
            None if layout == "old" else entry.event_nr,
            entry.uuid if layout == "uuid" and with_uuid else None,
        )
        for entry in entries
    ]
    assert decode_names(names_answer(entries, layout), with_uuid) == expected


@pytest.mark.parametrize("length", range(1, 34))
def test_the_number_behind_a_name_is_aligned(length):
    """
    Each length of a name, and so each padding. Rows are aligned to multiples of 8 of the address, not
    relative to the name.
    """
    entries = [
        NameEntry(1, b"n" * length, 7, b"LVM-" + b"u" * length),
        NameEntry(2, b"m" * length, 8, b""),
        NameEntry(3, b"l" * length, 9, b"u" * length),
    ]
    assert decode_names(names_answer(entries)) == entries


def test_no_mapped_device_at_all():
    assert decode_names(header(bytes(16))) == []


@given(
    st.lists(
        st.tuples(st.text("abcxyz019-", min_size=1, max_size=15), st.tuples(u32, u32, u32)),
        max_size=6,
        unique_by=lambda row: row[0],
    )
)
def test_versions(versions):
    assert decode_versions(versions_answer(versions)) == dict(versions)


@given(st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 2**20 - 1)), max_size=6))
def test_deps(numbers):
    data = struct.pack("=II", len(numbers), 0) + b"".join(
        struct.pack("=Q", codec.encode_dev(*number)) for number in numbers
    )
    assert decode_deps(header(data)) == numbers


# Each rule, broken on purpose

TWO = [TargetLine(0, 8, b"linear", b"7:0 0"), TargetLine(8, 8, b"zero", b"")]
SECOND = START + 48


def test_the_buffer_used_to_test_the_rules_is_valid():
    assert codec.decode_table_request(request(TWO))[1] == TWO
    assert (
        codec.decode_table_request(request(TWO))[1][1].start
        == struct.unpack_from("=Q", request(TWO), SECOND)[0]
    )
    assert decode_status(status_answer(TWO)) == TWO


@pytest.mark.parametrize(
    "rule, form, place, values",
    [
        ("version", "=I", 0, (5,)),
        ("version", "=I", 0, (0,)),
        ("size", "=I", 12, (len(request(TWO)) + 1,)),
        ("size", "=I", 12, (311,)),
        ("size", "=I", 12, (304,)),
        ("size", "=I", 12, (U32,)),
        ("size", "=I", 12, (SECOND + 40,)),
        ("data_start", "=I", 16, (304,)),
        ("data_start", "=I", 16, (0,)),
        ("data_start", "=I", 16, (len(request(TWO)) + 8,)),
        ("data_start", "=I", 16, (U32,)),
        ("alignment", "=I", 16, (316,)),
        ("count", "=I", 20, (0,)),
        ("count", "=I", 20, (codec.MAX_TARGETS + 1,)),
        ("count", "=I", 20, (U32,)),
        ("next", "=I", 20, (3,)),
        ("nul", "=128s", 48, (b"n" * 128,)),
        ("text", "=128s", 48, (b"n\0m",)),
        ("nul", "=129s", 176, (b"u" * 129,)),
        ("text", "=129s", 176, (b"u\0\0\1",)),
        ("gap", "=Q", START, (1,)),
        ("gap", "=Q", SECOND, (9,)),
        ("gap", "=Q", SECOND, (2**63,)),
        ("overlap", "=Q", SECOND, (7,)),
        ("overlap", "=Q", SECOND, (0,)),
        ("overflow", "=QQ", START, (2**63, 2**63)),
        ("overflow", "=QQ", SECOND, (8, U64)),
        ("overflow", "=Q", START + 8, (0,)),
        ("alignment", "=I", START + 20, (52,)),
        ("overlap", "=I", START + 20, (40,)),
        ("overlap", "=I", START + 20, (0,)),
        ("next", "=I", START + 20, (2**31,)),
        ("next", "=I", START + 20, (U32 - 7,)),
        ("next", "=I", START + 20, (len(request(TWO)) - START,)),
        ("text", "=16s", START + 24, (b"",)),
        ("text", "=16s", START + 24, (b"linear\0x",)),
        ("nul", "=16s", START + 24, (b"k" * 16,)),
        ("nul", "=8s", SECOND + 40, (b"p" * 8,)),
    ],
)
def test_rule(rule, form, place, values):
    refused(rule, codec.decode_table_request, changed(request(TWO), form, place, *values))


def test_next_in_the_last_spec_is_ignored():
    assert codec.decode_table_request(changed(request(TWO), "=I", SECOND + 20, 3))[1] == TWO


def test_a_buffer_shorter_than_the_header():
    for size in range(0, START, 13):
        assert refused("size", codec.decode_header, bytearray(size)).offset == size


@pytest.mark.parametrize(
    "rule, form, place, values",
    [
        ("next", "=I", 20, (3,)),
        ("size", "=I", 12, (START + 40,)),
        ("alignment", "=I", START + 20, (47,)),
        ("overlap", "=I", START + 20, (40,)),
        ("next", "=I", START + 20, (96,)),
        ("text", "=16s", START + 24, (b"",)),
        ("nul", "=1s", len(status_answer(TWO, guard=b"")) - 1, (b"x",)),
        ("overflow", "=QQ", START, (U64, 1)),
    ],
)
def test_rule_of_a_status_answer(rule, form, place, values):
    refused(rule, decode_status, changed(status_answer(TWO), form, place, *values))


LISTED = [
    NameEntry(codec.encode_dev(253, 0), b"web1-root", 3, b"RACEFREE-1"),
    NameEntry(codec.encode_dev(253, 1), b"b", 0, b""),
]
FIRST_ROW = struct.unpack_from("=I", names_answer(LISTED), START + 8)[0]


@pytest.mark.parametrize(
    "rule, form, place, values",
    [
        ("alignment", "=I", START + 8, (FIRST_ROW + 4,)),
        ("overlap", "=I", START + 8, (16,)),
        ("overlap", "=I", START + 8, (FIRST_ROW - 8,)),
        ("next", "=I", START + 8, (2**20,)),
        ("next", "=I", START + 8, (U32 - 7,)),
        ("size", "=I", 12, (START + 11,)),
        ("nul", "=I", 12, (START + 16,)),
        ("nul", "=12s", START + FIRST_ROW + 12, (b"n" * 12,)),
    ],
)
def test_rule_of_a_list_of_names(rule, form, place, values):
    assert decode_names(names_answer(LISTED)) == LISTED
    refused(rule, decode_names, changed(names_answer(LISTED), form, place, *values))


def test_a_uuid_without_a_terminating_nul():
    buffer = names_answer(LISTED[:1])
    place = buffer.index(b"RACEFREE-1") + 10
    buffer[place : len(buffer) - len(GUARD)] = b"x" * (len(buffer) - len(GUARD) - place)
    refused("nul", decode_names, buffer)


def test_rules_of_versions_and_deps():
    good = versions_answer([("linear", (1, 4, 0)), ("zero", (1, 1, 0))])
    assert decode_versions(good) == {"linear": (1, 4, 0), "zero": (1, 1, 0)}
    for rule, form, place, value in (
        ("alignment", "=I", START, 25),
        ("overlap", "=I", START, 16),
        ("next", "=I", START, 2**20),
        ("size", "=I", 12, START + 15),
        ("nul", "=I", 12, START + 16),
    ):
        refused(rule, decode_versions, changed(good, form, place, value))
    deps = header(struct.pack("=IIQ", 1, 0, codec.encode_dev(253, 300)))
    assert decode_deps(deps) == [(253, 300)]
    for count in (2, U32):
        refused("count", decode_deps, changed(deps, "=I", START, count))
    refused("size", decode_deps, changed(deps, "=I", 12, START + 7))


# Damage


def survives(decode, buffer, trace=b"\xa5\xa5"):
    """
    Decode, or raise an error of the collection. Nothing beyond data_size (which contains ``trace``) is
    returned.
    """
    try:
        answer = decode(buffer)
    except BlockError:
        return None
    size = struct.unpack_from("=I", buffer, 12)[0]
    if size <= len(buffer) - len(GUARD):
        assert trace not in texts(answer), "bytes from behind the data"
    return answer


def texts(answer):
    """All texts of an answer, as bytes."""
    if isinstance(answer, bytes):
        return answer
    if isinstance(answer, str):
        return answer.replace("\ufffd", "\xa5").encode("latin-1", "replace")
    if isinstance(answer, (tuple, list)):
        return b"|".join(texts(part) for part in answer)
    return b""


def corruptions(buffer, chance=None):
    """Corrupt each byte: flip every bit, and set extreme values. With ``chance``, only some positions."""
    for place in range(len(buffer) - len(GUARD)):
        if chance is not None and chance.random() > 0.02:
            continue
        for value in {buffer[place] ^ (1 << bit) for bit in range(8)} | {0, 1, 0x28, 0x7F, 0xFF}:
            if value != buffer[place]:
                copy = bytearray(buffer)
                copy[place] = value
                yield copy


DECODERS = {
    "request": (codec.decode_table_request, bytearray(request(TWO)) + GUARD),
    "status": (decode_status, status_answer(TWO)),
    "names": (decode_names, names_answer(LISTED)),
    "names-old": (decode_names, names_answer(LISTED, "old")),
    "versions": (
        lambda buffer: list(decode_versions(buffer).items()),
        versions_answer([("linear", (1, 4, 0)), ("zero", (1, 1, 0))]),
    ),
    "deps": (
        decode_deps,
        header(struct.pack("=IIQQ", 2, 0, codec.encode_dev(253, 300), codec.encode_dev(7, 1))),
    ),
}


@pytest.mark.parametrize("what", DECODERS)
def test_every_single_byte_corruption(what):
    decode, good = DECODERS[what]
    accepted = refusals = 0
    for copy in corruptions(good):
        if survives(decode, copy) is None:
            refusals += 1
        else:
            accepted += 1
    assert accepted and refusals


def test_corruptions_of_a_large_table():
    chance = random.Random(20261121)  # the same positions each time
    targets, place = [], 0
    for number in range(60):
        targets.append(TargetLine(place, number + 1, b"linear", b"253:%d %d" % (number, number * 8)))
        place += number + 1
    for copy in corruptions(bytearray(request(targets)) + GUARD, chance):
        decoded = survives(codec.decode_table_request, copy)
        if decoded is not None:
            # an accepted buffer is a valid table, and can be encoded again
            assert codec.decode_table_request(request(decoded[1]))[1] == decoded[1]


@settings(max_examples=300)
@given(st.data())
def test_damage_in_several_places(data):
    decode, good = DECODERS[data.draw(st.sampled_from(sorted(DECODERS)))]
    buffer = bytearray(good)
    for dummy in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(buffer) - len(GUARD) - 8))
        form, values = data.draw(st.sampled_from([("=B", st.integers(0, 255)), ("=I", u32), ("=Q", u64)]))
        struct.pack_into(form, buffer, place, data.draw(values))
    survives(decode, buffer, GUARD[:31])


@settings(max_examples=300)
@given(st.binary(max_size=200), st.integers(0, 4), u32, u32, u32)
def test_random_bytes(data, major, size, start, count):
    buffer = header(data, version=(major, 0, 0), size=size, start=start, count=count)
    for decode, dummy in DECODERS.values():
        survives(decode, buffer, GUARD[:31])


@settings(max_examples=300)
@given(st.binary(max_size=200), st.integers(0, 5))
def test_random_bytes_after_a_valid_header(data, count):
    buffer = header(data, count=count)
    for decode, dummy in DECODERS.values():
        survives(decode, buffer, GUARD[:31])


@pytest.mark.parametrize("what", DECODERS)
def test_every_truncation(what):
    """data_size truncated at each byte, with the guard in place of the rest."""
    decode, good = DECODERS[what]
    for size in range(START, len(good) - len(GUARD)):
        copy = changed(good, "=I", 12, size)
        copy[size:] = (GUARD * 10)[: len(copy) - size]
        survives(decode, copy)


# One level up: the calls around the codec, with the ioctl replaced


class Kernel:
    """
    A replacement for fcntl.ioctl. ``answer(request code, buffer)`` may change the buffer or raise an error.
    Requests are recorded.
    """

    def __init__(self, answer):
        self.answer = answer
        self.sent = []

    def ioctl(self, fd, code, buffer):
        self.sent.append((code, bytes(buffer), buffer))
        self.answer(code, buffer)


@pytest.fixture
def control(monkeypatch):
    def make(answer):
        kernel = Kernel(answer)
        monkeypatch.setattr(_control, "fcntl", kernel)
        opened = object.__new__(_control.Control)
        opened.fd = -1
        return opened, kernel

    return make


def put(buffer, answer):
    buffer[: len(answer)] = answer


def test_a_request_is_repeated_with_a_larger_buffer(control):
    """A table of more than 16 KiB, which no test host has."""
    targets = [TargetLine(number * 8, 8, b"linear", b"253:0 %d" % number) for number in range(1500)]
    whole = status_answer(targets, guard=b"", name=b"big")

    def answer(code, buffer):
        if len(buffer) < len(whole):
            struct.pack_into("=I", buffer, 28, uapi.lib.DM_BUFFER_FULL_FLAG)
        else:
            put(buffer, whole)

    opened, kernel = control(answer)
    status, lines = opened.table(_control.by_name("big"))
    assert lines == targets and status.name == "big"
    sizes = [len(raw) for dummy, raw, dummy in kernel.sent]
    assert len(sizes) > 1 and sizes == sorted(sizes)
    assert {code for code, dummy, dummy in kernel.sent} == {uapi.lib.DM_TABLE_STATUS}


@pytest.mark.parametrize("fails", [False, True])
def test_a_key_does_not_stay_in_the_buffer(control, fails):
    key = b"c0ffee" * 10

    def answer(code, buffer):
        if code != uapi.lib.DM_TABLE_LOAD:
            return
        assert key in buffer
        if fails:
            raise OSError(errno.EINVAL, "Invalid argument")

    opened, kernel = control(answer)
    load = [(0, 8, b"crypt", b"aes-xts-plain64 " + key + b" 0 7:0 0")]
    if fails:
        with pytest.raises(KernelError) as caught:
            opened.load(_control.by_name("x"), load, secure=True)
        assert key.decode() not in str(caught.value) and caught.value.errno == errno.EINVAL
    else:
        opened.load(_control.by_name("x"), load, secure=True)
    code, raw, buffer = kernel.sent[0]
    assert code == uapi.lib.DM_TABLE_LOAD and codec.decode_header(raw).flags & uapi.lib.DM_SECURE_DATA_FLAG
    assert key not in buffer


def test_requests_are_valid_and_ask_for_the_lowest_version(control):
    opened, kernel = control(lambda code, buffer: None)
    opened.load(_control.by_number(253, 300), TWO, read_only=True)
    code, raw, dummy = kernel.sent[0]
    head, lines = codec.decode_table_request(raw)
    assert code == uapi.lib.DM_TABLE_LOAD and lines == TWO
    assert (
        head.version == (4, 3, 0)
        and codec.decode_dev(head.dev) == (253, 300)
        and head.flags == uapi.lib.DM_READONLY_FLAG
    )
    assert not head.name and not head.uuid


def test_no_device_at_the_address(control):
    def answer(code, buffer):
        raise OSError(errno.ENXIO, "No such device or address")

    with pytest.raises(DeviceGone, match="253:7"):
        control(answer)[0].status(_control.by_number(253, 7))


def test_a_kernel_without_any_mapped_device(control):
    for size in (codec.HEADER_ALONE, codec.HEADER):
        opened, dummy = control(lambda code, buffer, size=size: struct.pack_into("=I", buffer, 12, size))
        assert opened.list_devices() == []
