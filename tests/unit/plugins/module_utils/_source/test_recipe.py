# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    BlockError,
    DefinitionError,
    InvalidValue,
)
from ansible_collections.racefree.block.plugins.module_utils._source import recipe, spec
from hypothesis import given
from hypothesis import strategies as st

KEY = "00" * 32
BOOT = "11111111-2222-3333-4444-555555555555"
CRYPT = {
    "start": 0,
    "length": 8,
    "target": "crypt",
    "cipher": "aes-xts-plain64",
    "key": KEY,
    "iv_offset": 0,
    "device": "/dev/vg/a",
    "offset": 0,
}


def linear(device):
    return [{"start": 0, "length": 8, "target": "linear", "device": device, "offset": 0}]


@pytest.mark.parametrize(
    "value, text",
    [
        ("file:/srv/a.raw", '{"file": "/srv/a.raw"}'),
        (
            {"file": "/\u00fc'\".raw", "size": 512, "offset": 1024, "read_only": True},
            '{"file": "/\\u00fc\'\\".raw", "offset": 1024, "read_only": true, "size": 512}',
        ),
        ({"path": "/dev/mapper/a", "uuid": "LVM-x"}, '{"path": "/dev/mapper/a", "uuid": "LVM-x"}'),
        ("/dev/racefree/dm-uuid/x", '{"path": "/dev/racefree/dm-uuid/x"}'),
        ("/dev/racefree/link/vg/a", '{"path": "/dev/racefree/link/vg/a"}'),
        ({"table": linear({"file": "/a"}), "name": "n"}, None),
        ({"table": "0 8 linear /dev/vg/a 0"}, '{"table": "0 8 linear /dev/vg/a 0"}'),
    ],
)
def test_a_recipe_is_parsed_back(value, text):
    source = spec.parse(value)
    found = recipe.text_of(source)
    assert text in (None, found) and found.isascii() and found.isprintable()
    assert recipe.parse(found) == source


@pytest.mark.parametrize("seal", [recipe.Seal(), recipe.Seal(True), recipe.Seal(True, True)])
def test_a_seal_is_kept_beside_the_source(seal):
    source = spec.parse("file:/srv/a.raw")
    text = recipe.text_of(source, seal)
    assert (recipe.parse(text), recipe.seal_of(text)) == (source, seal)
    assert seal.sealed == ("sealed" in text)


@pytest.mark.parametrize(
    "value, words",
    [
        ("diskseq:42", ["diskseq:42", "every boot"]),
        ("diskseq:42-part1", ["diskseq:42-part1", "every boot", "boot_id"]),
        ({"path": "/dev/vg/a", "diskseq": 42}, ["source.diskseq", "uuid instead"]),
        ("/dev/loop7", ["/dev/loop7", "whichever device comes first"]),
        ("/dev/dm-3", ["whichever device comes first"]),
        ("//dev/./x/../loop7", ["whichever device comes first"]),
        ("/dev/disk/by-diskseq/42", ["every boot"]),
        ("/dev//disk/../disk/by-diskseq/42-part1", ["every boot"]),
        ("/dev/racefree/link/disk/by-diskseq/42", ["every boot"]),
        ("/dev/block/253:4", ["whichever device comes first"]),
        ({"path": "/dev/block/253:4", "uuid": "LVM-x"}, ["whichever device comes first"]),
        ({"table": linear("diskseq:7")}, ["every boot"]),
        ({"table": linear("7:1")}, ["every boot"]),
        ({"table": linear({"path": "/dev/vg/a", "diskseq": 1})}, ["every boot"]),
        ({"table": linear("/dev/./loop7")}, ["table", "whichever device comes first"]),
        ({"table": linear({"path": "/dev/block/7:1"})}, ["table", "whichever device comes first"]),
        ({"table": "0 8 linear /dev/disk/by-diskseq/4 0"}, ["table", "every boot"]),
        ({"table": "0 8 linear /dev//dm-1 0"}, ["table", "whichever device comes first"]),
        ({"table": [CRYPT]}, ["no key"]),
        ({"table": f"0 8 crypt aes-xts-plain64 {KEY} 0 /dev/vg/a 0"}, ["no key"]),
    ],
)
def test_a_diskseq_without_its_boot_is_refused(value, words):
    with pytest.raises(InvalidValue) as caught:
        recipe.text_of(spec.parse(value))
    for word in words:
        assert word in str(caught.value)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        f"diskseq:42@{BOOT}",
        {"diskseq": 42, "partition": 1, "boot_id": BOOT},
        {"path": "/dev/loop7", "diskseq": 4, "boot_id": BOOT},
        {"table": linear(f"diskseq:7@{BOOT}")},
        {"table": linear({"path": "/dev/vg/a", "diskseq": 1, "boot_id": BOOT})},
    ],
)
def test_a_diskseq_is_kept_with_its_boot(value):
    source = spec.parse(value)
    text = recipe.text_of(source)
    assert BOOT in text and recipe.parse(text) == source and recipe.boot_of(source) == BOOT


def test_other_sources_are_kept_without_a_boot():
    for value in ("file:/a", {"table": linear("/dev/vg/a")}, {"path": "/dev/vg/a", "uuid": "LVM-x"}):
        assert recipe.boot_of(spec.parse(value)) is None


@pytest.mark.parametrize(
    "path, mapped, uuid, words",
    [
        ("/dev/disk/by-id/wwn-0x5", False, None, None),
        ("/dev/disk/by-path/pci-0-part1", False, None, None),
        ("/dev/mapper/a", True, "LVM-x", None),
        ("/dev/racefree/link/disk/by-id/wwn-0x5", False, None, None),
        ("/dev/racefree/dm-uuid/LVM-x", True, "LVM-x", None),
        ("/dev/racefree/link/disk/by-uuid/5", False, None, "by-id"),
        ("/dev/racefree/dm-name/a", True, None, "make it with a uuid"),
        ("/dev/sda", False, None, "by-id"),
        ("/dev/disk/by-id/../by-label/root", False, None, "by-id"),
        ("/dev/disk/by-uuid/5", False, None, "by-id"),
        ("/dev/disk/by-partlabel/a", False, None, "by-id"),
        ("/dev/mapper/a", True, None, "make it with a uuid"),
        ("/dev/disk/by-id/dm-name-a", True, None, "make it with a uuid"),
    ],
)
def test_names_that_another_device_may_get(path, mapped, uuid, words):
    doubt = recipe.doubt(path, mapped, uuid)
    assert doubt is None if words is None else words in doubt and path in doubt


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "[]",
        "null",
        '{"file": "relative"}',
        '{"file": "/a", "path": "/b"}',
        '{"file": "/a", "more": 1}',
        "{",
        '{"file": NaN}',
        "[" * 5000,
        '{"diskseq": 4}',
        '{"file": "/a"}' + " " * 70000,
        '{"file": "/a", "sealed": 1}',
        '{"file": "/a", "sealed_below": "yes"}',
    ],
)
def test_invalid_recipes(text):
    with pytest.raises(BlockError) as caught:
        recipe.parse(text, "xvda of web1")
    assert "xvda of web1" in str(caught.value)


def test_a_recipe_that_is_too_long():
    with pytest.raises(InvalidValue, match="65536"):
        recipe.text_of(spec.parse("file:/" + "a" * 70000))


def test_without_guards():
    image = {"file": "/g", "read_only": True, "mtime_ns": 5}
    origin = {
        "table": [{"start": 0, "length": 8, "target": "linear", "device": image, "offset": 0}],
        "read_only": True,
    }
    line = {
        "start": 0,
        "length": 8,
        "target": "snapshot",
        "origin": origin,
        "cow": {"file": "/c"},
        "persistence": "P",
        "chunk_size": 8,
    }
    one, two = (
        {"table": [line], "name": "n"},
        {
            "table": [
                dict(
                    line,
                    origin=dict(origin, table=[dict(origin["table"][0], device=dict(image, mtime_ns=6))]),
                )
            ],
            "name": "n",
        },
    )
    one, two = spec.parse(one), spec.parse(two)
    assert one != two and recipe.without_guards(one) == recipe.without_guards(two)
    assert recipe.parse(recipe.text_of(one)) == one
    assert recipe.without_guards(spec.parse(image)) == spec.FileSource("/g", read_only=True)
    path = spec.parse("/dev/vg/a")
    assert recipe.without_guards(path) == path


def snapshot(length=16, cow="/c", origin="/g"):
    return {
        "table": [
            {
                "start": 0,
                "length": length,
                "target": "snapshot",
                "origin": {"file": origin, "read_only": True},
                "cow": {"file": cow},
                "persistence": "P",
                "chunk_size": 8,
            }
        ]
    }


def thin(length=16, number=1, pool_length=2048, uuid="P"):
    pool = {"name": "p", "uuid": uuid, "table": f"0 {pool_length} thin-pool file:/m file:/d 128 0"}
    return {"table": [{"start": 0, "length": length, "target": "thin", "pool": pool, "id": number}]}


def encrypted(source):
    line = {
        "start": 0,
        "target": "crypt",
        "cipher": "aes-xts-plain64",
        "key": ":64:logon:a:b",
        "iv_offset": 0,
        "device": source,
        "offset": 0,
    }
    return {"table": [dict(line, length=source["table"][0]["length"])]}


@pytest.mark.parametrize(
    "kept, wanted, cut",
    [
        (snapshot(), snapshot(8), 16),
        (snapshot(), snapshot(8, origin="/h"), 16),
        (snapshot(), snapshot(), None),
        (snapshot(8), snapshot(), None),
        (snapshot(), snapshot(8, cow="/d"), None),
        (thin(), thin(8), 16),
        (thin(), thin(8, pool_length=4096), 16),
        (thin(), thin(8, number=2), None),
        (thin(), thin(8, uuid="Q"), None),
        (thin(), thin(32), None),
        ({"table": "0 16 thin path:/dev/mapper/p 1"}, {"table": "0 8 thin /dev/mapper/p 1"}, 16),
        (encrypted(thin()), encrypted(thin(8)), 16),
        (thin(), snapshot(8), None),
        ({"table": linear("/dev/vg/a")}, {"table": "0 4 linear /dev/vg/a 0"}, None),
        ({"table": "0 8 zero\n8 8 zero"}, {"table": "0 8 zero"}, None),
        ("file:/a", thin(8), None),
        (thin(), "file:/a", None),
    ],
)
def test_cut(kept, wanted, cut):
    assert recipe.cut_of(spec.parse(kept), spec.parse(wanted)) == cut


@given(st.text(max_size=50), st.integers(0, 2**40), st.booleans())
def test_any_file(name, size, read_only):
    try:
        source = spec.parse({"file": "/" + name, "size": size, "read_only": read_only})
    except InvalidValue:
        return
    assert recipe.parse(recipe.text_of(source)) == source


@given(st.text(max_size=200))
def test_any_text(text):
    with pytest.raises((DefinitionError, InvalidValue)):
        recipe.parse(text + "}")
