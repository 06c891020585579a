# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Slots, printing, data for the kernel, secrets, and comparison with what the kernel prints back."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import pytest
from ansible_collections.racefree.block.plugins.module_utils import _dm_table
from ansible_collections.racefree.block.plugins.module_utils._base.errors import InvalidValue, TableError
from ansible_collections.racefree.block.plugins.module_utils._dm_table import (
    TARGETS,
    Context,
    DeviceFacts,
    Table,
    format_table,
    parse_table,
    redact,
)
from ansible_collections.racefree.block.plugins.module_utils._dm_table.grammar.text import escape

KEY = "00112233445566778899aabbccddeeff" * 2


def one(line):
    return parse_table(line).targets[0]


def test_targets_are_typed_and_immutable():
    target = one("0 8 linear /dev/a 5")
    assert (target.start, target.length, target.type, target.device, target.offset, target.end) == (
        0,
        8,
        "linear",
        "/dev/a",
        5,
        8,
    )
    assert target == TARGETS["linear"](0, 8, device="/dev/a", offset=5)
    assert target != target.replace(offset=6)
    assert target != one("0 8 zero")
    assert hash(target) == hash(one("0 8 linear /dev/a 5"))
    assert pickle.loads(pickle.dumps(target)) == target
    with pytest.raises(AttributeError):
        target.offset = 6
    with pytest.raises(AttributeError):
        del target.offset
    with pytest.raises(TypeError):
        TARGETS["linear"](0, 8, device="/dev/a")
    with pytest.raises(TypeError):
        TARGETS["linear"](0, 8, device="/dev/a", offset=0, other=1)
    with pytest.raises(AttributeError):
        parse_table("0 8 zero").targets = ()


def test_constructed_tables_are_validated():
    linear = TARGETS["linear"]
    assert Table([linear(0, 8, device="/dev/a", offset=0)]).validate().length == 8
    with pytest.raises(TableError) as caught:
        Table([linear(0, 8, device="/dev/a", offset=0), linear(9, 8, device="x", offset=-1)]).validate()
    assert [(error["line"], error["field"]) for error in caught.value.errors] == [
        (2, "device"),
        (2, "offset"),
        (2, "start"),
    ]


@pytest.mark.parametrize(
    "written, value",
    [
        ("8:0", "8:0"),
        ("08:00", "8:0"),
        ("/dev/a\\ b", "/dev/a b"),
        ("/dev/a\\\\b", "/dev/a\\b"),
        ("/dev/\\x\\#1", "/dev/x#1"),
        ("diskseq:42", "diskseq:42"),
        ("file:/srv/a.raw", "file:/srv/a.raw"),
        ("file:/srv/\u00e4.raw", "file:/srv/\u00e4.raw"),
        ("path:/dev/vg/a", "path:/dev/vg/a"),
        ('{"diskseq":42}', "diskseq:42"),
        ('{"path":"/dev/a","uuid":"x\\ y"}', {"path": "/dev/a", "uuid": "x y"}),
        ('{"table":["0\\ 8\\ zero"]}', {"table": ["0 8 zero"]}),
    ],
)
def test_slots_in_lines(written, value):
    target = one(f"0 8 linear {written} 0")
    assert target.device == value
    assert parse_table(format_table(Table([target]))).targets == (target,)
    assert parse_table([target.to_dict()]).targets == (target,)


@pytest.mark.parametrize(
    "plain, value",
    [
        ({"diskseq": 42}, "diskseq:42"),
        ({"path": "/dev/a"}, "path:/dev/a"),
        ({"file": "/srv/a.raw"}, "file:/srv/a.raw"),
        ({"file": "/srv/a b.raw", "offset": 4096}, {"file": "/srv/a b.raw", "offset": 4096}),
        ({"path": "/dev/a", "diskseq": 3}, {"path": "/dev/a", "diskseq": 3}),
        (
            {"table": [{"start": 0, "length": 8, "target": "zero"}], "name": "x"},
            {"table": [{"start": 0, "length": 8, "target": "zero"}], "name": "x"},
        ),
    ],
)
def test_slots_in_structured_form(plain, value):
    table = parse_table([{"start": 0, "length": 8, "target": "linear", "device": plain, "offset": 0}])
    assert table.targets[0].device == value
    assert parse_table(format_table(table)) == table
    assert parse_table(table.to_list()) == table


def test_a_source_is_not_shared_with_the_caller():
    source = {"file": "/srv/a.raw", "offset": 4096}
    table = parse_table([{"start": 0, "length": 8, "target": "linear", "device": source, "offset": 0}])
    source["offset"] = 0
    assert table.targets[0].device["offset"] == 4096


def test_devices_in_order_with_access_and_area():
    table = parse_table(
        "0 16 striped 2 8 /dev/a 0 /dev/b 64\n16 8 snapshot /dev/o /dev/c P 16\n24 8 thin /dev/p 1 /dev/x"
    )
    assert [(index, *slot) for index, slot in table.devices()] == [
        (0, "stripes[0].device", "/dev/a", "rw", (0, 8), False),
        (0, "stripes[1].device", "/dev/b", "rw", (64, 8), False),
        (1, "origin", "/dev/o", "r", (0, 8), False),
        (1, "cow", "/dev/c", "rw", None, True),
        (2, "pool", "/dev/p", "rw", None, False),
        (2, "origin", "/dev/x", "r", None, False),
    ]
    assert [slot.access for index, slot in table.devices(read_only=True)] == ["r"] * 6
    assert [
        slot.access
        for index, slot in parse_table("0 8 snapshot-merge /dev/o /dev/c P 16").devices(read_only=True)
    ] == ["w", "r"]
    pool = parse_table("0 8 thin-pool /dev/m /dev/d 128 0 1 read_only")
    assert [slot.access for index, slot in pool.devices()] == ["r", "rw"]


def test_with_devices():
    table = parse_table("0 8 linear diskseq:42 0\n8 8 linear 8:1 3\n16 8 delay /dev/a 0 1 path:/dev/b 0 2")
    numbers = {"diskseq:42": (7, 3), "/dev/a": "8:16", "/dev/b": DeviceFacts(8, 32, 100)}
    resolved = table.with_devices(numbers)
    assert resolved.lines() == ["0 8 linear 7:3 0", "8 8 linear 8:1 3", "16 8 delay 8:16 0 1 8:32 0 2"]
    assert table.with_devices(lambda slot: (9, len(slot.text))).lines()[0] == "0 8 linear 9:10 0"
    assert resolved.kernel_targets() == [
        (0, 8, b"linear", b"7:3 0"),
        (8, 8, b"linear", b"8:1 3"),
        (16, 8, b"delay", b"8:16 0 1 8:32 0 2"),
    ]
    with pytest.raises(InvalidValue):
        table.kernel_targets()
    with pytest.raises(InvalidValue):
        table.with_devices({})
    for answer in ("x", (1, 2, 3), (4096, 0), (-1, 0), 7):
        with pytest.raises(InvalidValue):
            table.with_devices(lambda slot, answer=answer: answer)


@pytest.mark.parametrize(
    "line",
    [
        f"0 8 crypt aes-xts-plain64 {KEY} 0 /dev/a 0",
        f"0 8 crypt aes-xts-plain64 {KEY} x /dev/a 0",
        f"0 8 crypt aes-xts-plain64 {KEY}0 0 /dev/a 0",
        f"0 8 crypt aes-xts-plain64 {KEY}zz 0 /dev/a 0",
        f"0 8 crypt aes-other-plain64-x {KEY} 0 x",
        f"0 8 crypt {KEY} aes-xts-plain64 0 /dev/a 0",
        f"0 8 crypt aes-xts-plain64 0 {KEY} /dev/a 0",
        f"0 8 linear {KEY} 0",
        f"9 8 crypt aes-xts-plain64 {KEY}",
        f"0 8 cript aes-xts-plain64 {KEY} 0 /dev/a 0",
        f"0 8 integrity /dev/a 0 - J 1 internal_hash:hmac(sha256):{KEY}",
        f"0 8 integrity /dev/a 0 - J 3 internal_hash:hmac(sha256):{KEY}0",
        [
            {
                "start": 0,
                "length": 8,
                "target": "crypt",
                "cipher": "aes-xts-plain64",
                "key": KEY,
                "iv_offset": 0,
                "device": "/dev/a",
                "offset": 0,
            }
        ],
        [
            {
                "start": 9,
                "length": 8,
                "target": "crypt",
                "cipher": "aes-xts-plain64",
                "key": KEY + "z",
                "iv_offset": 0,
                "device": "/dev/a",
                "offset": "x",
            }
        ],
        [{"start": 0, "length": 8, "target": "cript", "key": KEY}],
    ],
)
def test_keys_are_never_shown(line):
    try:
        table = parse_table(line)
    except TableError as error:
        shown = str(error) + repr(error.errors) + repr(error.as_dict())
    else:
        assert KEY in format_table(table)[0]
        shown = (
            repr(table)
            + repr(table.targets)
            + repr(table.redacted().lines())
            + repr(table.redacted().to_list())
        )
        shown += repr(
            table.same_as(
                parse_table(line if isinstance(line, list) else line.replace("0011", "1111"))
            ).differences
        )
    assert KEY[8:24] not in shown


def test_short_keys_are_not_shown_either():
    for line in (
        "0 8 crypt a-b-c secret",
        "0 8 crypt a-b-c secret 0 /dev/a 0",
        "0 8 crypt aes-cbc-plain secret 0 /dev/a 0",
        "0 8 crypt aes-cbc-plain secret",
        "9 8 crypt aes-cbc-plain secret 0 /dev/a x",
        "0 8 integrity /dev/a x 4 J 1 journal_mac:crc32:secret",
        "0 8 integrity x 0 4 J 1 journal_mac:crc32:secret",
    ):
        with pytest.raises(TableError) as caught:
            parse_table(line)
        assert "secret" not in str(caught.value) + repr(caught.value.errors)


@pytest.mark.parametrize(
    "line",
    [
        "x 8 crypt aes-cbc-plain SHORT 0 /dev/a 0",
        "0 x crypt aes-cbc-plain SHORT 0 /dev/a 0",
        "0 8 crypt aes-cbc-plain SHORT 0 /dev/a 0\v",
        "x 8 integrity /dev/a 0 - J 1 internal_hash:hmac(md5):SHORT",
        "0 8 integrity /dev/a 0 - J 9 journal_mac:hmac(md5):SHORT \x01",
    ],
)
def test_an_error_before_the_key_does_not_show_it(line):
    with pytest.raises(TableError) as caught:
        parse_table(line.replace("SHORT", "c0ffee"))
    assert "c0ffee" not in str(caught.value) + repr(caught.value.errors)


NESTED = (
    f"0 8 crypt aes-xts-plain64 {KEY} 0 /dev/a 0",
    f"0 8 integrity /dev/a 0 - J 1 internal_hash:hmac(sha256):{KEY}",
    {
        "start": 0,
        "length": 8,
        "target": "crypt",
        "cipher": "aes-xts-plain64",
        "key": KEY,
        "iv_offset": 0,
        "device": "/dev/a",
        "offset": 0,
    },
    [
        {
            "start": 0,
            "length": 8,
            "target": "linear",
            "device": {"table": [f"0 8 crypt aes-xts-plain64 {KEY} 0 /dev/a 0"]},
            "offset": 0,
        }
    ],
    f"0 8 crypt none {KEY}",
    [{"start": 0, "length": 8, "target": "cript", "key": KEY}],
    {"wrong": KEY},
)


@pytest.mark.parametrize("nested", NESTED)
@pytest.mark.parametrize("form", ["dictionary", "JSON in a line", "list of devices"])
@pytest.mark.parametrize("end", [8, 9])
def test_keys_of_a_table_in_a_slot_are_never_shown(nested, form, end):
    source = {"table": nested if isinstance(nested, (str, list)) else [nested], "name": "inner"}
    if form == "dictionary":
        lines = [{"start": end - 8, "length": 8, "target": "linear", "device": source, "offset": 0}]
    elif form == "JSON in a line":
        lines = [f"{end - 8} 8 linear {escape(json.dumps(source))} 0"]
    else:
        lines = [
            {
                "start": end - 8,
                "length": 8,
                "target": "striped",
                "chunk_size": 8,
                "stripes": [{"device": source, "offset": 0}] * (end - 7),
            }
        ]
    try:
        table = parse_table(lines)
    except TableError as error:
        assert end == 9
        shown = str(error) + repr(error.errors)
    else:
        shown = repr(table) + repr(table.redacted().lines()) + repr(table.redacted().to_list())
        shown += repr([redact.shown(slot) for _index, slot in table.devices()]) + repr(
            parse_table("0 8 linear /dev/b 0").same_as(table).differences
        )
        assert KEY in table.lines()[0] and "{...}" in repr(table) and "inner" in table.redacted().lines()[0]
        with pytest.raises(InvalidValue) as caught:
            table.with_devices({})
        shown += str(caught.value)
        with pytest.raises(InvalidValue) as caught:
            table.kernel_targets()
        shown += str(caught.value)
    assert KEY not in shown and KEY[8:24] not in shown


def test_a_table_in_a_slot_without_a_key_is_shown_unchanged():
    source = {"table": ["0 8 crypt aes-cbc-plain :32:logon:a:b 0 /dev/a 0"]}
    table = parse_table([{"start": 0, "length": 8, "target": "linear", "device": source, "offset": 0}])
    assert table.redacted() == table


def test_an_invalid_slot_shows_nothing_that_may_be_a_key():
    with pytest.raises(TableError) as caught:
        parse_table('0 8 linear {"table":["0\\ 8\\ crypt\\ aes-cbc-plain\\ c0ffee"} 0')
    assert "c0ffee" not in str(caught.value) + repr(caught.value.errors)


def test_the_description_of_a_keyring_key_is_shown():
    assert ":32:logon:a:b" in repr(parse_table("0 8 crypt aes-cbc-plain :32:logon:a:b 0 /dev/a 0"))


# A line as written, and as the kernel prints it back (with numbers in place of names).
PRINTED = [
    ("0 8 linear /dev/a 0", "0 8 linear 8:0 0"),
    ("0 8 linear path:/dev/a 0", "0 8 linear 8:0 0"),
    ("0 8 flakey /dev/a 0 5 5", "0 8 flakey 8:0 0 5 5 2 error_reads error_writes"),
    ("0 8 flakey /dev/a 0 5 5", "0 8 flakey 8:0 0 5 5 0 "),
    (
        "0 8 flakey /dev/a 0 5 5 7 CORRUPT_BIO_BYTE 1 R 1 0 random_read_corrupt 0",
        "0 8 flakey 8:0 0 5 5 5 corrupt_bio_byte 1 r 1 0",
    ),
    ("0 8 snapshot /dev/a /dev/b p 16", "0 8 snapshot 8:0 8:16 P 16"),
    ("0 8 snapshot /dev/a /dev/b PO 0 0", "0 8 snapshot 8:0 8:16 PO 32"),
    ("0 8 thin-pool /dev/a /dev/b 128 0", "0 8 thin-pool 8:0 8:16 128 0 0 "),
    (
        "0 8 thin-pool /dev/a /dev/b 128 0 2 error_if_no_space SKIP_BLOCK_ZEROING",
        "0 8 thin-pool 8:0 8:16 128 0 2 skip_block_zeroing error_if_no_space ",
    ),
    (
        f"0 8 crypt aes-xts-plain64 {KEY.upper()} 0 /dev/a 0 2 sector_size:512 allow_discards",
        f"0 8 crypt aes-xts-plain64 {KEY} 0 8:0 0 1 allow_discards",
    ),
    ("0 8 crypt aes-cbc-plain :32:logon:a:b 0 /dev/a 0", "0 8 crypt aes-cbc-plain :32:logon:a:b 0 8:0 0"),
    (
        "0 64 mirror core 1 8 2 /dev/a 0 /dev/b 0 2 keep_log handle_errors",
        "0 64 mirror core 1 8 2 8:0 0 8:16 0 2 handle_errors keep_log",
    ),
    (
        "0 64 raid raid1 8 64 daemon_sleep 5 write_mostly 1 sync max_write_behind 512 2 - /dev/a - /dev/b",
        "0 64 raid raid1 8 0 sync daemon_sleep 5 write_mostly 1 max_write_behind 256 2 - 8:0 - 8:16",
    ),
    ("0 64 cache /dev/a /dev/b /dev/c 64 0 default 0", "0 64 cache 8:0 8:16 8:32 64 1 writeback smq 0"),
    (
        "0 64 writecache S /dev/a /dev/b 4096 2 metadata_only cleaner",
        "0 64 writecache s 8:0 8:16 4096 2 cleaner metadata_only",
    ),
    (
        "0 8 integrity /dev/a 0 - J 1 internal_hash:crc32c",
        "0 8 integrity 8:0 0 4 J 6 journal_sectors:88 interleave_sectors:32768 buffer_sectors:128 "
        "journal_watermark:50 commit_time:10000 internal_hash:crc32c",
    ),
    (
        "0 8 multipath 2 queue_mode mq 2 emc 1 1 1 round-robin 0 1 1 /dev/a 1000",
        "0 8 multipath 0 1 emc 1 1 round-robin 0 1 1 8:0 1 ",
    ),
    ("0 8 multipath 0 0 1 1 service-time 0 1 0 /dev/a", "0 8 multipath 0 0 1 1 service-time 0 1 2 8:0 1 1 "),
    ("0 8 delay /dev/a 0 1 /dev/b 0 2", "0 8 delay 8:0 0 1 8:16 0 2"),
    ("0 64 ebs /dev/a 0 1", "0 64 ebs 8:0 0 1"),
]
NUMBERS = {"/dev/a": "8:0", "/dev/b": "8:16", "/dev/c": "8:32"}


@pytest.mark.parametrize("written, printed", PRINTED)
def test_comparison_with_the_table_printed_by_the_kernel(written, printed):
    table, kernel = parse_table(written), parse_table(printed)
    comparison = kernel.same_as(table, devices=NUMBERS)
    assert comparison, comparison
    assert not comparison.unknown


def test_a_hidden_key_compares_as_unknown():
    table = parse_table(f"0 8 crypt aes-xts-plain64 {KEY} 0 8:0 0")
    hidden = parse_table(f"0 8 crypt aes-xts-plain64 {'0' * 64} 0 8:0 0")
    comparison = hidden.same_as(table)
    assert comparison and comparison.unknown == [(1, "key")]
    shorter = parse_table(f"0 8 crypt aes-cbc-plain64 {'0' * 48} 0 8:0 0")
    assert not shorter.same_as(parse_table(f"0 8 crypt aes-cbc-plain64 {KEY} 0 8:0 0"))


def test_differences_name_field_old_and_new():
    old = parse_table("0 8 linear 8:0 0\n8 8 zero\n16 8 zero")
    new = parse_table("0 8 linear 8:0 5\n8 8 error")
    comparison = old.same_as(new)
    assert not comparison
    assert comparison.differences == [
        {"line": 1, "target": "linear", "field": "offset", "old": 0, "new": 5},
        {"line": 2, "target": "error", "field": "target", "old": "8 8 zero", "new": "8 8 error"},
        {"line": 3, "target": "zero", "field": "target", "old": "16 8 zero", "new": None},
    ]
    stripes = parse_table("0 16 striped 2 8 8:0 0 8:1 0").same_as(parse_table("0 16 striped 2 8 8:0 0 8:2 8"))
    assert [(entry["field"], entry["old"], entry["new"]) for entry in stripes.differences] == [
        ("stripes[1].device", "8:1", "8:2"),
        ("stripes[1].offset", 0, 8),
    ]
    keys = parse_table(f"0 8 crypt aes-xts-plain64 {KEY} 0 8:0 0").same_as(
        parse_table(f"0 8 crypt aes-xts-plain64 {KEY[::-1]} 0 8:0 0")
    )
    assert [(entry["field"], entry["old"], entry["new"]) for entry in keys.differences] == [
        ("key", "<hidden>", "<hidden>")
    ]


def test_import_loads_few_targets():
    code = (
        "import sys; import ansible_collections.racefree.block.plugins.module_utils._dm_table as table; "
        "print([name for name in sys.modules if name.startswith(table.__name__) and "
        "name.rpartition('.')[2] in "
        "('raid', 'crypt', 'multipath', 'verity')])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "[]"
    assert set(_dm_table.TARGETS) == {kind.TYPE for kind in _dm_table.TARGETS.values()}
    assert len(_dm_table.TARGETS) == 28
    assert all(len(name) <= 15 for name in _dm_table.TARGETS)
    assert Context().read_only is False


@pytest.mark.parametrize("value", ["0 8 linear 7:0 0 \t", "0 8 linear 7:0 0 \r\n", ["0 8 linear 7:0 0  \n"]])
def test_trailing_blanks_are_ignored(value):
    assert parse_table(value).lines() == ["0 8 linear 7:0 0"]


@pytest.mark.parametrize("pad", ["", " ", " \t "])
def test_an_escaped_trailing_blank_counts(pad):
    for value in ("0 8 thin /pool 0 /origin\\ " + pad, ["0 8 thin /pool 0 /origin\\ " + pad + "# text"]):
        table = parse_table(value)
        assert table.targets[0].origin == "/origin "
        assert parse_table(table.lines()) == table
    # two backslashes are one character, so the blank is not escaped
    assert parse_table("0 8 thin /pool 0 /origin\\\\ " + pad).targets[0].origin == "/origin\\"


def test_a_line_of_an_unknown_type_shows_no_key():
    short = escape(json.dumps({"table": ["0 8 integrity /dev/a 0 - J 1 internal_hash:hmac(sha256):c0ffee"]}))
    line = f"0 8 cript {'ab' * 16} {short} 0"
    shown = _dm_table.hide_in_line(line)
    assert (
        "ab" not in shown
        and "c0ffee" not in shown
        and len(shown) == len(line)
        and shown.startswith("0 8 cript ***")
    )
