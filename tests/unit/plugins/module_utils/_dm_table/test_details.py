# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Less common spellings that must be accepted, error messages, and differences between tables."""

from __future__ import annotations

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import TableError
from ansible_collections.racefree.block.plugins.module_utils._dm_table import (
    TARGETS,
    Context,
    DeviceFacts,
    parse_table,
)
from ansible_collections.racefree.block.plugins.module_utils._dm_table.grammar.fields import Number
from ansible_collections.racefree.block.plugins.module_utils._dm_table.grammar.target import Target

KEY16 = "0123456789abcdef" * 2
KEY32 = KEY16 * 2
VERITY = f"0 8 verity 1 /dev/a /dev/b 4096 4096 1 0 sha256 {KEY32} -"

GOOD = [
    f"0 8 crypt aes {KEY16} 0 /dev/a 0",
    f"0 8 crypt aes-plain {KEY16} 0 /dev/a 0",
    f"0 8 crypt aes-ecb {KEY16} 0 /dev/a 0",
    f"0 8 crypt capi:ecb(aes) {KEY16} 0 /dev/a 0",
    f"0 8 crypt capi:xts-aes-made-up-plain64 {KEY16} 0 /dev/a 0",
    "0 8 crypt cipher_null-ecb - 0 /dev/a 0",
    f"0 8 crypt aes:64-cbc-lmk {KEY16 * 64} 0 /dev/a 0",
    f"0 8 crypt aes-cbc-tcw {KEY32} 0 /dev/a 0",
    f"0 8 crypt aes-xts-plain64 {KEY32} 0 /dev/a 0 0",
    "0 8 crypt aes-xts-plain64 :32:user:x 0 /dev/a 0",
    "0 8 crypt aes-xts-plain64 :32:encrypted:x 0 /dev/a 0",
    "0 8 crypt aes-xts-plain64 :64:trusted:x 0 /dev/a 0",
    "0 16 snapshot /dev/a /dev/b PO 0",
    "0 64 raid raid1 3 0 delta_disks -1 2 - /dev/a - /dev/b",
    "0 64 raid raid1 3 0 delta_disks +1 2 - /dev/a - /dev/b",
    "0 64 raid raid1 3 0 delta_disks 2 2 - /dev/a - /dev/b",
    "0 64 raid raid1 1 7 2 - /dev/a - -",
    "0 64 raid raid0 3 8 data_offset 32 2 - /dev/a - /dev/b",
    "0 64 raid raid0 3 8 data_offset 0 2 - /dev/a - /dev/b",
    "0 64 raid raid10 6 8 raid10_use_near_sets raid10_format far raid10_copies 2 2 /dev/ma /dev/a /dev/mb "
    "/dev/b",
    "0 64 raid raid4 5 8 journal_dev /dev/j journal_mode WriteBack 3 - /dev/a - /dev/b - /dev/c",
    "0 96 raid raid4 3 8 stripe_cache 512 4 - /dev/a - /dev/b - /dev/c - -",
    "0 64 multipath 0 0 0 0",
    "0 64 multipath 0 0 1 1 io-affinity 0 2 1 /dev/a ff,00000001 /dev/b 2",
    "0 64 multipath 0 0 1 1 historical-service-time 2 1023 5 1 1 /dev/a 2",
    "0 64 multipath 0 0 2 2 round-robin 0 1 0 /dev/a round-robin 0 1 0 /dev/b",
    VERITY + " 8 use_fec_from_device /dev/c fec_blocks 9 fec_start 0 fec_roots 24",
    VERITY + " 2 root_hash_sig_key_desc key:1",
    "0 8 integrity /dev/a 0 - D 2 internal_hash:hmac(sha256):00ff allow_discards_keyed",
    "0 8 integrity /dev/a 0 4 R 1 journal_crypt:ctr(aes):00ff",
    "0 8 integrity /dev/a 0 - I 1 internal_hash:sha256",
    "0 64 mirror core 2 8 sync 9 " + " ".join(f"/dev/{number} 0" for number in range(9)) + " 0",
    "0 64 writecache p /dev/a /dev/b 4096 5 nofua start_sector 8 high_watermark 45",
    "0 64 writecache P /dev/a /dev/b 4096 1 FUA",
    "0 64 clone /dev/a /dev/b /dev/c 8 0 0",
    "\t0  8\tlinear  /dev/a\t 0 ",
]


@pytest.mark.parametrize("line", GOOD)
def test_good_line(line):
    table = parse_table(line)
    assert parse_table(table.lines()) == table
    assert parse_table(table.to_list()) == table
    assert table.same_as(parse_table(table.canonical().lines()))


def entry_of(value, **context):
    with pytest.raises(TableError) as caught:
        parse_table(value, context=Context(**context) if context else None)
    return caught.value.errors[0]


@pytest.mark.parametrize(
    "line, field, rule",
    [
        (f"0 8 crypt aes-c%c-plain {KEY16} 0 /dev/a 0", "cipher", "the mode is a name"),
        (f"0 8 crypt a%s-cbc-plain {KEY16} 0 /dev/a 0", "cipher", "CIPHER[:KEYCOUNT]"),
        (f"0 8 crypt capi:cbc(aes-plain64 {KEY16} 0 /dev/a 0", "cipher", "crypto API"),
        (f"0 8 crypt capi:{'x' * 128}-plain64 {KEY16} 0 /dev/a 0", "cipher", "fewer than 128"),
        (f"0 8 crypt capi:xts(aes) {KEY16} 0 /dev/a 0", "cipher", "only ecb needs no IV"),
        (f"0 8 crypt aes-cbc-essiv:sha\\ 256 {KEY16} 0 /dev/a 0", "cipher", "a cipher:"),
        ("0 8 crypt aes-cbc-plain00 00 0 /dev/a 0", "cipher", "an IV generator"),
        ("0 8 thin-pool /dev/a /dev/b 129 0", "block_size", "from 128 to 2097152, a multiple of 128"),
        (
            "0 8 dust /dev/a 0 513",
            "block_size",
            "a whole number of bytes from 512 to 1073741824, a power of 2",
        ),
        (
            f"0 8 verity 1 /dev/a /dev/b 4096 4096 1 0 {'x' * 128} 00 -",
            "algorithm",
            "the name of a hash algorithm",
        ),
        ("0 64 raid raid1 3 0 delta_disks x 2 - /dev/a - /dev/b", "delta_disks", "a whole number"),
        ("0 8 linear", "device", "is missing"),
        ("0 8 0123456789abcdef", "target", "at most 15 bytes"),
        ("0 8 cript", "target", "a known target type, one of cache, clone, crypt"),
        ("0 8 linear /dev/a 0 x", "parameters", "takes no more words"),
        ("0 8 linear /dev/\u00e4 0", "device", "path:/PATH"),
        ("0 8 linear 8:99999999 0", "device", "MAJ:MIN"),
        ("0 8 linear /dev/" + "x" * 5000 + " 0", "device", "at most 4095 bytes"),
        ("0 8 linear file:/a\x7f 0", "line", "control"),
        ("0 8 thin-pool /dev/a /dev/b 128 0 7 read_only", "#features", "at most 4"),
        ("0 8 thin-pool /dev/a /dev/b 128 0 2 read_only", "#features", "which is 1"),
        ("0 64 cache /dev/a /dev/b /dev/c 64 2 writeback writethrough smq 0", "mode", "or be repeated"),
        ("0 8 flakey /dev/a 0 1 1 2 drop_writes drop_writes", "drop_writes", "must not be repeated"),
    ],
)
def test_rules_say_what_is_allowed(line, field, rule):
    entry = entry_of(line)
    assert (entry["field"], rule in entry["rule"]) == (field, True), entry


def structured(target, **fields):
    return [dict({"start": 0, "length": 64, "target": target}, **fields)]


@pytest.mark.parametrize(
    "value, field, rule",
    [
        (
            structured("crypt", cipher=5, key=KEY16, iv_offset=0, device="/dev/a", offset=0),
            "cipher",
            "CIPHER",
        ),
        (structured("crypt", cipher="aes", key=5, iv_offset=0, device="/dev/a", offset=0), "key", "quotes"),
        (
            structured(
                "crypt", cipher="aes", key=KEY16, iv_offset=0, device="/dev/a", offset=0, integrity="x"
            ),
            "integrity",
            "tag_size",
        ),
        (
            structured(
                "crypt",
                cipher="aes",
                key=KEY16,
                iv_offset=0,
                device="/dev/a",
                offset=0,
                integrity={"tag_size": 0, "profile": "none"},
            ),
            "integrity",
            "480",
        ),
        (
            structured(
                "crypt", cipher="aes", key=KEY16, iv_offset=0, device="/dev/a", offset=0, allow_discards="yes"
            ),
            "allow_discards",
            "true or false",
        ),
        (structured("linear", device=["/dev/a"], offset=0), "device", "a device"),
        (structured("linear", device={}, offset=0), "device", "a device"),
        (structured("linear", device={"diskseq": 1, "x": {1}}, offset=0), "device", "plain data"),
        (structured("linear", device="/dev/a\n", offset=0), "device", "control characters"),
        (structured("linear", device="/dev/a", offset=1.5), "offset", "a whole number"),
        (structured("linear", device="/dev/a", offset=-1), "offset", "a whole number"),
        (structured("delay", read="x"), "read", "a dictionary"),
        (structured("delay"), "read", "is missing"),
        (
            structured(
                "delay",
                read={"device": "/dev/a", "offset": 0, "delay": 0},
                flush={"device": "/dev/a", "offset": 0, "delay": 0},
            ),
            "write",
            "is missing",
        ),
        (structured("striped", chunk_size=8, stripes="x"), "stripes", "a list"),
        (structured("striped", chunk_size=8, stripes=[]), "stripes", "members"),
        (structured("striped", chunk_size=8, stripes=["x"]), "stripes[0]", "a dictionary"),
        (
            structured(
                "cache", metadata="8:0", cache="8:1", origin="8:2", block_size=64, policy="smq", mode="x"
            ),
            "mode",
            "one of writeback",
        ),
        (
            structured("raid", level="raid1", members=[{"data": "8:0"}, {"data": "8:1"}]),
            "chunk_size",
            "is missing",
        ),
        (
            structured(
                "raid", level="raid1", chunk_size=0, members=[{"data": "8:0"}, {"data": "8:1"}], rebuild=1
            ),
            "rebuild",
            "a list",
        ),
        (
            structured(
                "raid",
                level="raid1",
                chunk_size=0,
                members=[{"data": "8:0"}, {"data": "8:1"}],
                write_mostly=[0, 0],
            ),
            "write_mostly",
            "must not repeat",
        ),
        (
            structured(
                "raid", level="raid1", chunk_size=0, members=[{"data": "8:0"}, {"data": "8:1"}], rebuild=["x"]
            ),
            "rebuild[0]",
            "a whole number",
        ),
        (
            structured(
                "mirror",
                log="core",
                log_device="8:0",
                region_size=8,
                mirrors=[{"device": "8:1", "offset": 0}] * 2,
            ),
            "log_device",
            "disk",
        ),
        (
            structured("mirror", log="disk", region_size=8, mirrors=[{"device": "8:1", "offset": 0}] * 2),
            "log_device",
            "disk",
        ),
        (
            structured("mirror", log="core", region_size=8, mirrors=[{"device": "8:1", "offset": 0}]),
            "mirrors",
            "2 to 9 members",
        ),
        (
            structured("integrity", device="8:0", offset=0, tag_size=4, mode="J", internal_hash=5),
            "internal_hash",
            "ALGORITHM",
        ),
        (
            structured("integrity", device="8:0", offset=0, tag_size=4, mode="J", internal_hash="a b"),
            "internal_hash",
            "ALGORITHM",
        ),
        (structured("multipath", groups="x"), "groups", "a list"),
        (structured("multipath", groups=["x"]), "groups[0]", "a dictionary"),
        (
            structured("multipath", groups=[{"selector": "round-robin", "paths": []}]),
            "groups[0].paths",
            "1 to 1024",
        ),
        (
            structured("multipath", groups=[{"selector": "round-robin", "paths": ["x"]}]),
            "groups[0].paths[0]",
            "a dictionary",
        ),
        (
            structured("multipath", groups=[{"selector": "x", "paths": [{"device": "8:0"}]}]),
            "groups[0].selector",
            "one of",
        ),
        (
            structured(
                "multipath",
                groups=[{"selector": "round-robin", "arguments": 5, "paths": [{"device": "8:0"}]}],
            ),
            "groups[0].arguments",
            "a list",
        ),
        (
            structured(
                "multipath",
                groups=[
                    {
                        "selector": "round-robin",
                        "paths": [{"device": "8:0", "arguments": [1]}, {"device": "8:1"}],
                    }
                ],
            ),
            "groups[0].paths",
            "the same number of arguments",
        ),
        (
            structured(
                "multipath",
                handler=["a", ""],
                groups=[{"selector": "round-robin", "paths": [{"device": "8:0"}]}],
            ),
            "handler",
            "words",
        ),
        (
            structured("flakey", device="8:0", offset=0, up_interval=1, down_interval=1, corrupt_bio_byte=5),
            "corrupt_bio_byte",
            "a dictionary",
        ),
        (
            structured(
                "verity",
                version=1,
                data="8:0",
                hash="8:1",
                data_block_size=4096,
                hash_block_size=4096,
                data_blocks=8,
                hash_start=0,
                algorithm="a b",
                root_digest="00",
                salt="-",
            ),
            "algorithm",
            "hash algorithm",
        ),
        (structured("zero", **{"": 1}), "", "is not a field"),
        ([{"start": 0, "length": 8, "target": 5}], "target", "must be a string"),
    ],
)
def test_structured_rules(value, field, rule):
    entry = entry_of(value)
    assert (entry["field"], rule in entry["rule"]) == (field, True), entry


def test_structured_options_are_counted_per_kernel():
    value = structured(
        "flakey",
        device="8:0",
        offset=0,
        up_interval=1,
        down_interval=1,
        drop_writes=True,
        random_read_corrupt=5,
        corrupt_bio_byte={"nth_byte": 1, "direction": "r", "value": 1, "flags": 0},
    )
    parse_table(value, context=Context(kernels=("6.12",)))
    with pytest.raises(TableError) as caught:
        parse_table(value, context=Context(kernels=("6.1",)))
    assert [(entry["field"], entry["kernels"]) for entry in caught.value.errors] == [
        ("random_read_corrupt", ["6.1"]),
        ("#features", ["6.1"]),
    ]


def differences(old, new):
    comparison = parse_table(old).same_as(parse_table(new))
    return [
        (entry["field"], entry["old"], entry["new"]) for entry in comparison.differences
    ], comparison.unknown


@pytest.mark.parametrize(
    "old, new, expected, unknown",
    [
        ("0 8 delay 8:0 0 1", "0 8 delay 8:0 0 2", [("read.delay", 1, 2)], []),
        (
            "0 8 delay 8:0 0 1",
            "0 8 delay 8:0 0 1 8:0 0 2",
            [("write.device", None, "8:0"), ("write.offset", None, 0), ("write.delay", None, 2)],
            [],
        ),
        (
            '0 8 linear {"path":"/dev/a","uuid":"x"} 0',
            '0 8 linear {"path":"/dev/a","uuid":"y"} 0',
            [("device", {"path": "/dev/a", "uuid": "x"}, {"path": "/dev/a", "uuid": "y"})],
            [],
        ),
        ("0 8 snapshot 8:0 8:1 P 16", "0 8 snapshot 8:0 8:1 P 32", [("chunk_size", 16, 32)], []),
        (
            "0 8 snapshot 8:0 8:1 P 16",
            "0 8 snapshot 8:0 8:1 P 16 1 discard_zeroes_cow",
            [("discard_zeroes_cow", None, True)],
            [],
        ),
        (
            "0 8 crypt aes-cbc-plain :32:logon:a 0 8:0 0",
            "0 8 crypt aes-cbc-plain :32:logon:b 0 8:0 0",
            [("key", ":32:logon:a", ":32:logon:b")],
            [],
        ),
        (
            f"0 8 crypt aes-cbc-plain {'0' * 64} 0 8:0 0",
            "0 8 crypt aes-cbc-plain :32:logon:b 0 8:0 0",
            [("key", "<hidden>", ":32:logon:b")],
            [],
        ),
        (
            "0 64 raid raid1 3 0 max_write_behind 100 2 - 8:0 - 8:1",
            "0 64 raid raid1 3 0 max_write_behind 300 2 - 8:0 - 8:1",
            [("max_write_behind", 100, 300)],
            [],
        ),
        (
            "0 64 raid raid5_n 3 8 stripe_cache 256 3 - 8:0 - 8:1 - 8:2",
            "0 64 raid raid5_n 3 8 stripe_cache 512 3 - 8:0 - 8:1 - 8:2",
            [],
            [(1, "stripe_cache")],
        ),
        (
            "0 64 raid raid1 1 0 2 - 8:0 - 8:1",
            "0 64 raid raid1 2 0 sync 2 - 8:0 - 8:1",
            [("sync", None, True)],
            [],
        ),
        (
            "0 8 integrity 8:0 0 4 J 1 journal_sectors:88",
            "0 8 integrity 8:0 0 4 J 1 journal_sectors:100",
            [],
            [(1, "journal_sectors")],
        ),
        (
            "0 8 integrity 8:0 0 4 J 1 commit_time:88",
            "0 8 integrity 8:0 0 4 J 1 commit_time:100",
            [("commit_time", 88, 100)],
            [],
        ),
        (
            "0 8 integrity 8:0 0 4 J 1 internal_hash:crc32c",
            "0 8 integrity 8:0 0 4 J 1 internal_hash:crc32",
            [("internal_hash", "crc32c", "crc32")],
            [],
        ),
        (
            "0 8 integrity 8:0 0 4 J 1 journal_mac:x:0000",
            "0 8 integrity 8:0 0 4 J 1 journal_mac:x:abcd",
            [],
            [(1, "journal_mac")],
        ),
        (
            "0 8 integrity 8:0 0 4 J 1 journal_mac:x:1234",
            "0 8 integrity 8:0 0 4 J 1 journal_mac:x:abcd",
            [("journal_mac", "x:<hidden>", "x:<hidden>")],
            [],
        ),
        (
            "0 8 integrity 8:0 0 4 J 1 internal_hash:crc32c",
            "0 8 integrity 8:0 0 4 J 3 internal_hash:crc32c reset_recalculate recalculate",
            [("reset_recalculate", None, True)],
            [],
        ),
        (
            "0 64 cache 8:0 8:1 8:2 64 0 smq 0",
            "0 64 cache 8:0 8:1 8:2 64 1 writethrough mq 0",
            [("mode", "writeback", "writethrough"), ("policy", "smq", "mq")],
            [],
        ),
        (
            "0 8 multipath 0 0 1 1 service-time 0 1 2 8:0 1 1",
            "0 8 multipath 0 0 1 1 service-time 0 1 2 8:0 9 4",
            [("groups[0].paths[0].arguments", ["1", "1"], ["1", "4"])],
            [],
        ),
        (
            "0 8 multipath 0 0 1 1 historical-service-time 0 1 0 8:0",
            "0 8 multipath 0 0 1 1 historical-service-time 1 900 1 0 8:0",
            [("groups[0].arguments", ["972", "0"], ["900", "0"])],
            [],
        ),
        (
            VERITY + " 6 use_fec_from_device 8:0 fec_blocks 9 fec_roots 2",
            VERITY + " 8 use_fec_from_device 8:0 fec_blocks 9 fec_start 0 fec_roots 2",
            [],
            [],
        ),
    ],
)
def test_differences(old, new, expected, unknown):
    assert differences(old, new) == (expected, unknown)


def test_what_an_immutable_target_can_be_replaced_by():
    pool = parse_table("0 8 thin-pool 8:0 8:1 128 0")
    parse_table("0 16 thin-pool 8:0 8:1 128 0").check_replaces(pool)
    parse_table("0 8 error").check_replaces(pool)
    pool.check_replaces(parse_table("0 8 zero"))
    with pytest.raises(TableError) as caught:
        parse_table("0 8 linear 8:0 0").check_replaces(pool)
    assert "thin-pool" in str(caught.value)


@pytest.mark.parametrize(
    "path", ["file:/srv/\ud800.raw", "file:/\udbff", "path:/dev/\ud800", "/dev/\ud800", "\ud800"]
)
def test_lone_surrogates_are_refused(path):
    for value in (f"0 64 linear {path} 0", structured("linear", device=path, offset=0)):
        with pytest.raises(TableError) as caught:
            parse_table(value)
        assert caught.value.errors[0]["field"] in ("device", "line")


def test_surrogate_escapes_are_allowed_in_paths():
    for device in ("file:/srv/\udc80", {"file": "/srv/\udcff", "size": 512}):
        table = parse_table(structured("linear", device=device, offset=0))
        assert parse_table(table.lines()) == table


def test_options_can_be_omitted_in_a_constructor():
    flakey = TARGETS["flakey"](0, 8, device="8:0", offset=0, up_interval=1, down_interval=1)
    assert (flakey.drop_writes, flakey.corrupt_bio_byte) == (False, None)
    assert TARGETS["thin"](0, 8, pool="8:0", id=1).origin is None
    raid = TARGETS["raid"](0, 8, level="raid1", chunk_size=0, members=())
    assert raid.rebuild == ()
    delay = parse_table("0 8 delay 8:0 0 1").targets[0]
    assert TARGETS["delay"](0, 8, read=delay.read) == delay
    with pytest.raises(TypeError):

        class Clash(Target):
            LAYOUT = (Number("canonical"),)


def test_cache_blocks_are_multiples_of_all_logical_blocks():
    facts = {
        "8:1": DeviceFacts(8, 1, 1 << 20),
        "8:2": DeviceFacts(8, 2, 1 << 20, 4096),
        "8:3": DeviceFacts(8, 3, 1 << 20),
    }
    context = Context(devices=lambda slot: facts[slot.text])
    parse_table("0 64 cache 8:1 8:2 8:3 64 0 smq 0", context=context)
    entry = entry_of("0 60 cache 8:1 8:2 8:3 64 0 smq 0", devices=context.devices)
    assert (entry["field"], "logical block" in entry["rule"]) == ("origin", True)
    entry = entry_of("0 60 era 8:1 8:2 8", devices=context.devices)
    assert (entry["field"], "logical block" in entry["rule"]) == ("length", True)


def test_clone_regions_are_whole_blocks():
    facts = {
        "8:1": DeviceFacts(8, 1, 1 << 20),
        "8:2": DeviceFacts(8, 2, 1 << 20, 8192),
        "8:3": DeviceFacts(8, 3, 1 << 20),
    }
    entry = entry_of("0 64 clone 8:1 8:2 8:3 8", devices=lambda slot: facts[slot.text])
    assert entry["field"] == "region_size"


def test_a_reshaped_raid_has_no_known_areas():
    context = Context(devices=lambda slot: DeviceFacts(8, int(slot.text[-1]), 8))
    assert (
        entry_of("0 64 raid raid1 1 0 2 - 8:0 - 8:1", devices=context.devices)["field"] == "members[0].data"
    )
    parse_table("0 64 raid raid1 3 0 delta_disks 1 2 - 8:0 - 8:1", context=context)


def test_an_escaped_space_at_the_end_of_a_line():
    for text in ("0 8 thin /p 0 /\\ ", "0 8 thin /p 0 /\\  \n", ["0 8 thin /p 0 /\\ "]):
        assert parse_table(text).targets[0].origin == "/ "
    assert parse_table("0 8 thin /p 0 /\\\\ ").targets[0].origin == "/\\"


def test_a_device_that_a_later_target_opens_with_more_access():
    for text, word in (
        ("0 8 snapshot /a /b P 16\n8 8 linear /a 0", "reading"),
        ("0 8 snapshot-merge /a /b P 16\n8 8 linear /a 0", "writing"),
    ):
        with pytest.raises(TableError) as caught:
            parse_table(text)
        assert f"for {word} only" in str(caught.value)
    assert parse_table("0 8 linear /a 0\n8 8 snapshot /a /b P 16")
    mixed = "0 8 linear /a 0\n8 64 cache /m /c /a 64 0 smq 0"
    assert parse_table(mixed)
    with pytest.raises(TableError):
        parse_table(mixed, context=Context(read_only=True))
    with pytest.raises(TableError):
        parse_table("0 8 integrity /a 0 - R 2 internal_hash:crc32c recalculate")
    with pytest.raises(TableError):
        parse_table("0 1024 raid raid10 1 64 2 - /a - /b")


@pytest.mark.parametrize(
    "offset, options, error",
    [
        (0, "", None),
        (1016, "", None),
        (1017, "", "offset"),
        (1 << 32, "", "offset"),
        (16, "1 meta_device:8:2", "offset"),
        (8, "1 meta_device:8:2", None),
    ],
)
def test_the_integrity_superblock_must_be_on_the_device(offset, options, error):
    facts = {"8:1": DeviceFacts(8, 1, 1024), "8:2": DeviceFacts(8, 2, 16)}
    try:
        parse_table(
            f"0 8 integrity 8:1 {offset} 4 D {options or 0}",
            context=Context(devices=lambda slot: facts[slot.text]),
        )
    except TableError as caught:
        assert [row["field"] for row in caught.errors] == [error] and "superblock" in caught.errors[0]["rule"]
    else:
        assert error is None
