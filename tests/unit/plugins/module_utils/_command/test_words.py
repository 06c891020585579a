# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Placeholders for devices in the words of a command."""

from __future__ import annotations

import re

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import InvalidValue
from ansible_collections.racefree.block.plugins.module_utils._command import words
from hypothesis import given
from hypothesis import strategies as st

TEXTS = {"disk": "/a", "key": "/b"}


@pytest.mark.parametrize(
    ("word", "filled"),
    [
        ("{disk}", "/a"),
        ("if={disk},key={key}", "if=/a,key=/b"),
        ("{{disk}}", "{disk}"),
        ("{{other}}", "{other}"),
        ("{{{disk}}}", "{{disk}}"),
        ('{"file": {"name": "{disk}"}}', '{"file": {"name": "/a"}}'),
        ('{"a": {"b": 1}}', '{"a": {"b": 1}}'),
        ("{}", "{}"),
        ("{ disk }", "{ disk }"),
        ("${disk}", "${disk}"),
        ("a{2}", "a{2}"),
        ("{print $1}", "{print $1}"),
        ("{disk", "{disk"),
        ("", ""),
    ],
)
def test_what_a_word_becomes(word, filled):
    command = words.Words(["tool", "{disk}{key}", word], TEXTS)
    assert command.filled(TEXTS) == ["tool", "/a/b", filled]


def test_numbers_are_placeholders_of_the_program_only():
    assert words.Words(["t", "{1}{disk}{{1}}"], ["1"], words.NUMBER).filled({"1": "/a"}) == [
        "t",
        "/a{disk}{1}",
    ]


@pytest.mark.parametrize(
    ("argv", "names", "wanted"),
    [
        ([], ["disk"], "argv (none): must have at least one word"),
        ([""], [], "argv[0] (empty): must be a program, not a device"),
        (["{disk}"], ["disk"], "argv[0] {disk}: must be a program, not a device"),
        (
            ["t", "{dsik}", "{disk}"],
            ["disk"],
            "argv[1] {dsik}: names no device; devices has disk. Write {{dsik}}",
        ),
        (["t", "x"], ["disk"], "devices.disk (not shown): is not used: no word of argv has {disk}"),
        (["t", "{{disk}}"], ["disk"], "is not used"),
        (["t", "${disk}"], ["disk"], "is not used"),
        (["t", "a\0b", "{disk}"], ["disk"], "argv[1]"),
        (["t", "\ud800", "{disk}"], ["disk"], "must have only characters"),
        (["t", 5, "{disk}"], ["disk"], "argv[1] 5: must be text"),
    ],
)
def test_what_is_refused(argv, names, wanted):
    with pytest.raises(InvalidValue, match=re.escape(wanted)):
        words.Words(argv, names)


@given(st.lists(st.text('{}disk$ke1y" ', max_size=12), max_size=4))
def test_a_word_without_a_placeholder_keeps_everything_but_doubled_braces(texts):
    """What is no placeholder and no doubled one is never changed."""
    texts = [text for text in texts if not re.search(r"\{\w+\}", text)]
    assert words.Words(["t", "{disk}", *texts], ["disk"]).filled({"disk": "x"})[2:] == texts
