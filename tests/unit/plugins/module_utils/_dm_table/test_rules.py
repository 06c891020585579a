# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules for whole tables and for their devices."""

from __future__ import annotations

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import TableError
from ansible_collections.racefree.block.plugins.module_utils._dm_table import (
    Context,
    DeviceFacts,
    Limits,
    parse_table,
)


def errors_of(value, context=None):
    with pytest.raises(TableError) as caught:
        parse_table(value, context=context)
    return [(entry["line"], entry["field"]) for entry in caught.value.errors]


def rule_of(value, context=None):
    with pytest.raises(TableError) as caught:
        parse_table(value, context=context)
    return caught.value.errors[0]["rule"]


def known(**devices):
    """A context in which the paths /dev/NAME have these facts."""
    return Context(devices=lambda slot: devices.get(slot.text.rpartition("/")[2]), read_only=False)


@pytest.mark.parametrize(
    "value, expected",
    [
        ("", [(None, "table")]),
        ("\n # nothing\n", [(None, "table")]),
        ([], [(None, "table")]),
        (None, [(None, "table")]),
        (7, [(None, "table")]),
        ([7], [(1, "table")]),
        ([None, "0 8 zero"], [(1, "table")]),
        ("0", [(1, "length"), (1, "target")]),
        ("0 8", [(1, "target")]),
        ("x 8 zero", [(1, "start")]),
        ("0 0 zero", [(1, "length")]),
        ("0 -8 zero", [(1, "length")]),
        ("0 8 unknown", [(1, "target")]),
        ("0 8 0123456789abcdef", [(1, "target")]),
        ("0 8 ZERO", [(1, "target")]),
        ("1 8 zero", [(1, "start")]),
        ("0 8 zero\n9 8 zero", [(2, "start")]),
        ("0 8 zero\n7 8 zero", [(2, "start")]),
        ("8 8 zero\n0 8 zero", [(1, "start"), (2, "start")]),
        ("0 8 zero\n\n# comment\n9 8 zero", [(4, "start")]),
        ("0 8 zero\x00", [(1, "line")]),
        ("0 8 zero\x1b[0m", [(1, "line")]),
        ("0 8 zero\u00a0", [(1, "target")]),
        ("0 18014398509481984 zero", [(1, "length")]),
        ("0 18014398509481983 zero\n18014398509481983 1 zero", [(2, "length")]),
        ("0 8 zero x\n9 8 error", [(1, "parameters"), (2, "start")]),
        ("0 8 thin-pool /dev/a /dev/b 128 0\n8 8 zero", [(1, "target")]),
        ("0 8 zero\n8 8 multipath 0 0 0 0", [(2, "target")]),
        ("0 8 zoned /dev/a\n8 8 zoned /dev/b", [(1, "target")]),
    ],
)
def test_whole_table(value, expected):
    assert errors_of(value) == expected


def test_message_has_line_and_caret():
    with pytest.raises(TableError) as caught:
        parse_table("0 8 zero\n8 8 linear /dev/a 5x")
    lines = str(caught.value).split("\n")
    assert lines == [
        "the table is not valid: 1 error",
        "line 2: linear: offset 5x: must be a whole number of sectors from 0 to 18014398509481983",
        "    8 8 linear /dev/a 5x",
        "                      ^",
    ]
    assert caught.value.errors == [
        {
            "line": 2,
            "target": "linear",
            "field": "offset",
            "value": "5x",
            "rule": "must be a whole number of sectors from 0 to 18014398509481983",
            "column": 18,
            "text": "8 8 linear /dev/a 5x",
        }
    ]


def test_caret_in_a_long_line_and_many_errors():
    line = "0 8 switch 40 8 0 " + " ".join(f"/dev/{number} 0" for number in range(39)) + " /dev/x y"
    with pytest.raises(TableError) as caught:
        parse_table("\n".join([line] * 30))
    text = str(caught.value).split("\n")
    caret = text.index(next(part for part in text if part.strip() == "^"))
    assert text[caret - 1][text[caret].index("^")] == "y"
    assert text[-1].startswith("and ")
    assert len(caught.value.errors) == 59


def test_count_limit(monkeypatch):
    monkeypatch.setattr(Limits, "TARGETS", 3)
    parse_table(["0 1 zero", "1 1 zero", "2 1 zero"])
    assert errors_of(["0 1 zero", "1 1 zero", "2 1 zero", "3 1 zero"]) == [(None, "table")]


@pytest.mark.parametrize("read_only, good", [(True, True), (False, False), (None, True)])
def test_verity_needs_a_read_only_table(read_only, good):
    line = "0 8 verity 1 /dev/a /dev/b 4096 4096 1 0 md5 " + "0" * 32 + " -"
    if good:
        parse_table(line, context=Context(read_only=read_only))
    else:
        assert errors_of(line, Context(read_only=read_only)) == [(1, "target")]


def test_thin_pool_cannot_be_read_only():
    line = "0 8 thin-pool /dev/a /dev/b 128 0"
    assert errors_of(line, Context(read_only=True)) == [(1, "target")]


def test_several_verity_targets_only_in_6_1():
    line = "verity 1 /dev/a /dev/b 4096 4096 1 0 md5 " + "0" * 32 + " -"
    lines = [f"0 8 {line}", f"8 8 {line}"]
    parse_table(lines, context=Context(kernels=("6.1",), read_only=True))
    assert errors_of(lines, Context(kernels=("6.1", "6.12"), read_only=True)) == [(1, "target")]


def test_immutable_targets_must_be_alone_in_6_1():
    line = "0 8 verity 1 /dev/a /dev/b 4096 4096 1 0 md5 " + "0" * 32 + " -"
    with pytest.raises(TableError) as caught:
        parse_table([line, "8 8 zero"], context=Context(kernels=("6.1",), read_only=True))
    assert [(entry["line"], entry["rule"]) for entry in caught.value.errors] == [
        (1, "cannot be combined with other target types")
    ]


def test_gaps_and_overlaps_are_distinguished():
    assert rule_of("0 8 zero\n9 8 zero") == "must be 8, where line 1 ends: there is a gap"
    assert rule_of("0 8 zero\n7 8 zero") == "must be 8, where line 1 ends: the targets overlap"
    assert rule_of("1 8 zero") == "must be 0, because this is the first target"


def test_a_bad_line_does_not_stop_the_check_of_devices():
    context = known(small=DeviceFacts(8, 0, 10))
    assert errors_of("0 8 linear x 0\n8 8 linear /dev/small 8", context) == [(1, "device"), (2, "device")]


def test_host_without_the_target():
    context = Context(targets={"linear": (1, 4, 0)})
    parse_table("0 8 linear /dev/a 0", context=context)
    assert errors_of("0 8 zero", context) == [(1, "target")]


@pytest.mark.parametrize(
    "line, field, rule",
    [
        ("0 8 linear /dev/small 993", "device", "sectors from sector"),
        ("0 8 linear /dev/small 1000", "device", "sectors from sector"),
        ("0 8 linear /dev/small 18014398509481983", "device", "sectors from sector"),
        ("0 8 linear /dev/big 4", "device", "multiple of the logical block"),
        ("0 12 linear /dev/big 8", "device", "multiple of the logical block"),
        ("0 1024 striped 2 8 /dev/small 500 /dev/small 0", "stripes[0].device", "sectors from sector"),
        ("0 1008 delay /dev/small 0 0 /dev/big 0 0", "read.device", "sectors from sector"),
        ("0 8 linear /dev/frozen 0", "device", "a writable device"),
        ("0 8 snapshot /dev/small /dev/same P 16", "cow", "a different device from"),
        ("0 8 snapshot /dev/small /dev/big P 4", "chunk_size", "logical block of cow"),
        ("0 8 thin-pool /dev/small /dev/same 128 0", "data", "a different device from"),
        ("0 8 thin /dev/small 0", "pool", "mapped device"),
        (
            "0 16 crypt aes-cbc-plain " + "0" * 32 + " 0 /dev/small 4 1 sector_size:4096",
            "device",
            "multiple of the logical block",
        ),
        ("0 12 snapshot /dev/small /dev/big P 16", "origin", "multiple of the logical block"),
        ("0 1024 raid raid1 1 0 2 - /dev/small - /dev/big", "members[0].data", "sectors from sector"),
        ("0 8 mirror disk 2 /dev/empty 2 2 /dev/huge 0 /dev/huge2 0", "log_device", "at least"),
        (
            "0 8 verity 1 /dev/big /dev/small 512 512 8 0 made-up 00 -",
            "data_block_size",
            "logical block of data",
        ),
        ("0 64 writecache s /dev/small /dev/big 512 0", "block_size", "logical block of cache"),
        (
            "0 64 writecache s /dev/small /dev/other 512 2 start_sector 1000",
            "start_sector",
            "in the cache device",
        ),
        ("0 64 writecache s /dev/small /dev/same 512 0", "cache", "a different device from"),
        ("0 64 cache /dev/meta /dev/small /dev/other 1024 0 smq 0", "block_size", "size of the cache device"),
        ("0 64 cache /dev/small /dev/same /dev/other 64 0 smq 0", "cache", "a different device from"),
        ("0 64 clone /dev/small /dev/same /dev/other 8", "destination", "a different device from"),
        ("0 64 era /dev/small /dev/same 8", "origin", "a different device from"),
        ("0 64 log-writes /dev/small /dev/same", "log_device", "a different device from"),
        ("0 64 ebs /dev/big 4 1", "offset", "logical block"),
        ("0 64 raid raid1 1 0 2 - /dev/small - /dev/same", "members[1].data", "a different device from"),
        (
            "0 64 raid raid4 3 8 journal_dev /dev/small 2 - /dev/other - /dev/meta",
            "journal_dev",
            "8192 sectors",
        ),
        ("0 64 integrity /dev/small 0 4 J 1 meta_device:/dev/same", "meta_device", "a different device from"),
        ("0 8000000 mirror disk 2 /dev/tiny 2 2 /dev/huge 0 /dev/huge2 0", "log_device", "at least"),
    ],
)
def test_devices(line, field, rule):
    context = known(
        small=DeviceFacts(8, 0, 1000),
        same=DeviceFacts(8, 0, 1000),
        other=DeviceFacts(8, 1, 1000),
        meta=DeviceFacts(8, 2, 1000),
        big=DeviceFacts(8, 3, 100000, 4096),
        frozen=DeviceFacts(8, 4, 1000, read_only=True),
        tiny=DeviceFacts(8, 5, 100),
        empty=DeviceFacts(8, 8, 0),
        huge=DeviceFacts(8, 6, 1 << 40),
        huge2=DeviceFacts(8, 7, 1 << 40),
    )
    with pytest.raises(TableError) as caught:
        parse_table(line, context=context)
    found = [entry for entry in caught.value.errors if entry["field"] == field and rule in entry["rule"]]
    assert found, caught.value
    assert found[0]["column"] is not None or field == "cache"


def test_a_hash_tree_that_does_not_fit():
    facts = {"a": DeviceFacts(8, 0, 1 << 20), "b": DeviceFacts(8, 1, 8)}
    # 200 blocks of 4 KiB: 128 digests fit in a block, so there are two hash blocks and one above them.
    line = "0 1600 verity 1 /dev/a /dev/b 4096 4096 200 {0} sha256 " + "0" * 64 + " -"
    context = Context(devices=lambda slot: facts[slot.text[-1]], read_only=True)
    assert errors_of(line.format(0), context) == [(1, "hash")]
    facts["b"] = DeviceFacts(8, 1, 24)
    parse_table(line.format(0), context=context)
    assert errors_of(line.format(1), context) == [(1, "hash")]


def test_good_devices():
    facts = {
        "a": DeviceFacts(8, 0, 1000),
        "b": DeviceFacts(8, 16, 8000, 4096),
        "p": DeviceFacts(253, 0, 1000, dm_uuid=""),
    }
    context = Context(devices=lambda slot: facts.get(slot.text[-1]), read_only=False)
    parse_table("0 8 linear /dev/a 992\n8 7992 linear /dev/b 8\n8000 8 linear /dev/gone 5", context=context)
    parse_table("0 8 thin /dev/p 0", context=context)
    parse_table("0 1000 raid raid1 1 0 2 - /dev/a - /dev/b", context=context)
    facts["b"] = DeviceFacts(8, 16, 0)
    parse_table("0 8 linear /dev/b 100", context=context)


def test_a_read_only_table_accepts_read_only_devices():
    context = Context(devices=lambda slot: DeviceFacts(7, 0, 1000, read_only=True), read_only=True)
    parse_table("0 8 linear /dev/a 0", context=context)


def test_facts_are_queried_once_per_device():
    asked = []

    def devices(slot):
        asked.append(slot.text)
        return DeviceFacts(8, 0, 1 << 30)

    parse_table(
        "\n".join(f"{8 * number} 8 linear /dev/a 0" for number in range(50)), context=Context(devices=devices)
    )
    assert asked == ["/dev/a"]


def test_targets_end_on_a_logical_block():
    facts = {"a": DeviceFacts(8, 0, 1000), "b": DeviceFacts(8, 16, 8000, 4096)}
    context = Context(devices=lambda slot: facts[slot.text[-1]], read_only=False)
    parse_table("0 8 linear /dev/a 0\n8 8 linear /dev/b 0", context=context)
    assert errors_of("0 4 linear /dev/a 0\n4 8 linear /dev/b 0", context) == [(2, "start")]
    assert errors_of("0 8 linear /dev/b 0\n8 4 linear /dev/a 0", context) == [(2, "length")]


def test_no_loops():
    facts = DeviceFacts(253, 1, 1000, dm_uuid="x", stack={(253, 0), (8, 0)})
    parse_table("0 8 linear /dev/a 0", context=Context(devices=lambda slot: facts, device=(253, 5)))
    for device in ((253, 0), (253, 1)):
        assert errors_of("0 8 linear /dev/a 0", Context(devices=lambda slot: facts, device=device)) == [
            (1, "device")
        ]


def test_structured_errors_have_paths():
    value = [
        {
            "start": 0,
            "length": 16,
            "target": "striped",
            "chunk_size": 8,
            "stripes": [{"device": "/dev/a", "offset": 0}, {"device": "x", "of": 1}],
        }
    ]
    assert errors_of(value) == [(1, "stripes[1].of"), (1, "stripes[1].device"), (1, "stripes[1].offset")]
    assert errors_of([{"length": 8, "target": "zero"}]) == [(1, "start")]
    assert errors_of([{"start": 0, "length": True, "target": "zero"}]) == [(1, "length")]
    assert errors_of([{"start": 0, "length": 8}]) == [(1, "target")]
    assert errors_of([{"start": 0, "length": 8, "target": "zero", "device": "/dev/a"}]) == [(1, "device")]
    assert errors_of([{"start": 0, "length": 8, "target": "linear", "offset": 0}]) == [(1, "device")]
    assert "quotes" in rule_of([{"start": 0, "length": 8, "target": "linear", "device": 15184, "offset": 0}])


def test_forms_can_be_mixed_and_numbers_can_be_text():
    table = parse_table(
        [
            "0 8 zero # comment\n",
            {"start": "8", "length": "8", "target": "linear", "device": {"diskseq": 42}, "offset": "1"},
        ]
    )
    assert table.lines() == ["0 8 zero", "8 8 linear diskseq:42 1"]
    assert parse_table("0 8 zero\r\n8 8 error\t\r\n").lines() == ["0 8 zero", "8 8 error"]
