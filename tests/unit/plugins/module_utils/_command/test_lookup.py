# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The program of a command."""

from __future__ import annotations

import os

import pytest
from ansible_collections.racefree.block.plugins.module_utils._command import lookup


@pytest.fixture
def place(tmp_path):
    """A directory that contains a program, a file that is not executable, and a directory."""
    for name, mode in (("tool", 0o755), ("text", 0o644)):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(mode)
    (tmp_path / "folder").mkdir()
    return str(tmp_path)


def test_by_name_by_path_and_from_another_directory(place):
    assert lookup.find_program("tool", f"/nonexistent:{place}") == f"{place}/tool"
    assert lookup.find_program(f"{place}/tool", "") == f"{place}/tool"
    assert lookup.find_program("./tool", "", place) == f"{place}/tool"


@pytest.mark.parametrize(
    ("word", "errno", "words"),
    [
        ("no-such-tool", "ENOENT", "is not installed in any directory of PATH"),
        ("/no/such/tool", "ENOENT", "there is no such file"),
        ("text", "EACCES", "it cannot be executed"),
        ("folder", "EACCES", "it cannot be executed"),
    ],
)
def test_what_is_no_program(place, word, errno, words):
    with pytest.raises(lookup.NoProgram, match=words) as caught:
        lookup.find_program(word, place)
    assert caught.value.errno_name == errno and word in str(caught.value)


def test_tools_of_the_system_are_found_without_a_path_to_them(monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin")
    assert lookup.environment_of({})["PATH"] == "/usr/bin:/usr/local/sbin:/usr/sbin:/sbin"
    assert lookup.environment_of({"PATH": "/x"})["PATH"] == "/x"
    assert lookup.environment_of({"A": "b"})["A"] == "b" and "A" not in os.environ
