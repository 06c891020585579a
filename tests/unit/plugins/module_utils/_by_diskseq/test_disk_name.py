# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names in /dev/disk/by-diskseq: one spelling for each number."""

from __future__ import annotations

import pytest
from ansible_collections.racefree.block.plugins.module_utils._by_diskseq.disk_name import DiskName, parse
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", (1, 0)),
        ("42", (42, 0)),
        ("18446744073709551615", (2**64 - 1, 0)),
        ("42p1", (42, 1)),
        ("42-part1", (42, 1)),
        ("42-part128", (42, 128)),
    ],
)
def test_valid_names(text: str, expected: tuple[int, int]) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "042",
        "00",
        "18446744073709551616",
        "99999999999999999999999",
        "-1",
        "+1",
        " 1",
        "1 ",
        "1\n",
        "1.0",
        "0x2a",
        "4_2",
        "\u0661",
        "\uff11",
        "1p",
        "1p0",
        "1p01",
        "1-part",
        "1-part0",
        "1-part01",
        "1part1",
        "1-p1",
        "p1",
        "1p1p1",
        "1p1-part1",
        "1P1",
        "a",
        ".",
        "..",
        "1/2",
        "1\0",
        "1p1\n",
    ],
)
def test_invalid_names(text: str) -> None:
    assert parse(text) is None


@given(st.integers(1, 2**64 - 1), st.integers(0, 99999))
def test_formatted_names_are_parsed_back(diskseq: int, partition: int) -> None:
    name = DiskName(diskseq, partition)
    assert str(name) in name.spellings
    assert {parse(text) for text in name.spellings} == {name}


@given(st.text(st.sampled_from("0123456789p-art"), max_size=12))
def test_no_other_text_is_a_name(text: str) -> None:
    name = parse(text)
    assert name is None or text in name.spellings
