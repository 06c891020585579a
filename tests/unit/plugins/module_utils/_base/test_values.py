# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Numbers, sizes, booleans and option names."""

from __future__ import annotations

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base import values
from ansible_collections.racefree.block.plugins.module_utils._base.errors import InvalidValue


@pytest.mark.parametrize(
    "text, size",
    [
        (512, 512),
        ("1024", 1024),
        ("10G", 10 << 30),
        ("10 g", 10 << 30),
        ("2MiB", 2 << 20),
        ("2mb", 2 << 20),
        ("1T", 1 << 40),
        ("512B", 512),
        ("512 iB", 512),
        ("999999999999999 k", 999999999999999 << 10),
    ],
)
def test_sizes(text, size):
    assert values.bytes_of(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "G",
        "0",
        0,
        -512,
        1.5,
        True,
        None,
        "+512",
        "1P",
        "10GB ",
        " 10G",
        "10Gi",
        "1_024",
        "\u0661024",
        "10 G B",
        "1024\n",
        "9" * 16,
        511,
    ],
)
def test_invalid_sizes_are_refused(text):
    with pytest.raises(InvalidValue, match="must be a (number of bytes|multiple of 512 bytes)"):
        values.bytes_of(text)


def test_offsets_and_sizes_that_may_be_0():
    for value in (0, "0", "0K", "00"):
        assert values.bytes_or_0(value, "offset") == 0
    assert values.bytes_or_0("1MiB", "offset") == 1 << 20 and values.bytes_or_0(511, "offset") == 511
    assert values.bytes_or_0(2**63 - 1, "size") == 2**63 - 1
    for value in (-1, "1.5G", "G", True, None, "9" * 20, "1P"):
        with pytest.raises(InvalidValue, match="offset.*must be a number of bytes, or .* with K, M, G or T"):
            values.bytes_or_0(value, "offset")


@pytest.mark.parametrize("function", [values.bytes_of, values.bytes_or_0, values.boolean, values.whole])
@pytest.mark.parametrize("value", [{"table": ["0 8 crypt aes-xts-plain64 KEY 0 /dev/a 0"]}, ["KEY"]])
def test_a_table_in_place_of_a_value_is_not_shown(function, value):
    with pytest.raises(InvalidValue, match=r"\(not shown\)") as caught:
        function(value, "option")
    assert "KEY" not in str(caught.value)


def test_whole_numbers():
    assert [values.whole(value, "id") for value in (0, "0", "007", 10**14)] == [0, 0, 7, 10**14]
    assert values.whole("24", "id", 24) == 24
    for value in (-1, "-1", "", " 1", "1.0", True, None, 10**15, "x"):
        with pytest.raises(InvalidValue, match="must be a whole number"):
            values.whole(value, "id")
    with pytest.raises(InvalidValue, match="from 0 to 24"):
        values.whole(25, "id", 24)


def test_booleans():
    assert all(
        values.boolean(value, "x") is True for value in (True, 1, 1.0, "yes", " On", "TRUE", "1", "t", "y")
    )
    assert all(
        values.boolean(value, "x") is False for value in (False, 0, "no", "off", "False ", "0", "f", "n")
    )
    for value in (None, 2, "", "maybe", [], {}, ["yes"]):
        with pytest.raises(InvalidValue, match="must be true or false"):
            values.boolean(value, "x")


def test_unknown_keys_are_refused_without_showing_their_values():
    values.check_keys({"a": 1, "b": None, "c": None}, "disk", ("a", "b"), {"c"})
    for key, value in (("c", 1), ("d", None), ("d", "secret")):
        with pytest.raises(InvalidValue) as caught:
            values.check_keys({"a": 1, key: value}, "disk", ("a", "b"), {"c"})
        text = str(caught.value)
        assert text.startswith(f"disk.{key} (not shown): there is no such option") and "a, b" in text
        assert "secret" not in text
