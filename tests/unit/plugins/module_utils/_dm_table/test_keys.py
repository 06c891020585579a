# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import InvalidValue
from ansible_collections.racefree.block.plugins.module_utils._dm_table import parse_table
from ansible_collections.racefree.block.plugins.module_utils._dm_table.grammar.slot import slot_text
from ansible_collections.racefree.block.plugins.module_utils._dm_table.grammar.text import escape
from ansible_collections.racefree.block.plugins.module_utils._dm_table.keys import with_keys

KEY = "00112233445566778899aabbccddeeff" * 2
KEYS = {"data": KEY}


def crypt(key):
    return {
        "start": 0,
        "length": 8,
        "target": "crypt",
        "cipher": "aes-xts-plain64",
        "key": key,
        "iv_offset": 0,
        "device": "/dev/a",
        "offset": 0,
    }


def crypt_line(key):
    return f"0 8 crypt aes-xts-plain64 {key} 0 /dev/a 0"


def integrity(key, option="internal_hash"):
    return {
        "start": 0,
        "length": 8,
        "target": "integrity",
        "device": "/dev/a",
        "offset": 0,
        "tag_size": 32,
        "mode": "J",
        option: f"hmac(sha256):{key}",
    }


def integrity_line(key, option="internal_hash"):
    return f"0 8 integrity /dev/a 0 32 J 1 {option}:hmac(sha256):{key}"


def linear(nested):
    return {"start": 0, "length": 8, "target": "linear", "device": {"table": nested}, "offset": 0}


def linear_line(nested):
    return f"0 8 linear {escape(slot_text({'table': nested}))} 0"


def deep(nested):
    return {
        "start": 0,
        "length": 8,
        "target": "striped",
        "chunk_size": 8,
        "stripes": [{"device": {"table": nested, "name": "a"}, "offset": 0}],
    }


PLACES = [
    crypt,
    crypt_line,
    integrity,
    integrity_line,
    lambda key: integrity(key, "journal_crypt"),
    lambda key: integrity_line(key, "journal_crypt"),
    lambda key: integrity(key, "journal_mac"),
    lambda key: integrity_line(key, "journal_mac"),
    lambda key: linear([crypt(key)]),
    lambda key: linear(crypt_line(key)),
    lambda key: linear([integrity_line(key)]),
    lambda key: linear_line([crypt(key)]),
    lambda key: linear_line(crypt_line(key)),
    lambda key: linear_line([integrity(key)]),
    lambda key: deep([deep([linear_line([crypt(key)])])]),
    lambda key: dict(linear([]), device=json.dumps({"table": [crypt(key)]})),
    lambda key: linear("# a comment\n" + crypt_line(key) + "\n"),
]


@pytest.mark.parametrize("place", PLACES)
def test_keys_are_inserted_wherever_a_key_is_allowed(place):
    assert parse_table(with_keys([place("var:data")], KEYS)) == parse_table([place(KEY)])
    assert parse_table(with_keys([place("var:data")], {"data": f" {KEY}\n"})) == parse_table([place(KEY)])


@pytest.mark.parametrize("place", PLACES)
def test_a_plain_text_key_is_refused_and_not_shown(place):
    with pytest.raises(InvalidValue, match="var:NAME") as caught:
        with_keys([place(KEY)], {})
    assert KEY[:16] not in str(caught.value)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "bad",
    [
        "c0ffee c0ffee",
        "c0ffe",
        "c0ffee\tx",
        "c0ffee\\",
        "coffee",
        "",
        " ",
        "\u0661\u0662",
        "c0ffee\n0 8 zero",
        12,
        None,
        ["c0ffee"],
        "var:data",
    ],
)
def test_an_invalid_key_is_refused_by_its_name(place, bad):
    with pytest.raises(InvalidValue, match=r"keys\.data.*hexadecimal") as caught:
        with_keys([place("var:data")], {"data": bad})
    assert "c0ff" not in str(caught.value) and "coff" not in str(caught.value)


def test_the_option_keys_can_name_a_keyring_key():
    ring = ":64:logon:guests:web1"
    assert parse_table(with_keys([crypt_line("var:data")], {"data": ring})) == parse_table([crypt_line(ring)])
    with pytest.raises(InvalidValue, match=r"keys\.data"):
        with_keys([integrity("var:data")], {"data": ring})


@pytest.mark.parametrize(
    "line",
    [
        "0 8 linear /dev/a\\ b 0 # a comment",
        {"start": 0, "length": 8, "target": "zero"},
        crypt_line(":64:logon:a"),
        crypt("-"),
        "0 8 integrity /dev/a 0 - J 1 internal_hash:crc32c",
        "",
        "0 8",
        "0 8 linear {broken 0",
        '0 8 linear {"diskseq":4} 0',
        linear(7),
        linear({"a": 1}),
        crypt(None),
    ],
)
def test_tables_without_keys_are_unchanged(line):
    assert with_keys([line], {}) == [line]


def test_missing_and_unused_keys_are_refused():
    with pytest.raises(InvalidValue, match="data, more"):
        with_keys([linear([crypt("var:none")])], {"data": KEY, "more": KEY})
    with pytest.raises(InvalidValue, match="keys more: is not used"):
        with_keys([linear([crypt("var:data")])], {"data": KEY, "more": KEY})


def test_tables_nested_too_deeply():
    table = []
    for _level in range(2000):
        table = [linear(table)]
    with pytest.raises(InvalidValue, match="too many tables inside tables"):
        with_keys(table, {})
