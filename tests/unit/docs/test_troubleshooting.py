# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
docs/troubleshooting.md: it has every kind of error that the code can report with its default errno and hint,
every errno that has a hint, and no message that the code does not have.
"""

from __future__ import annotations

import ast
import errno
import importlib
import pathlib
import re

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base import errors

TOP = pathlib.Path(__file__).resolve().parents[3]
PAGE = (TOP / "docs" / "troubleshooting.md").read_text("utf-8")
LIBRARY = "ansible_collections.racefree.block.plugins.module_utils"
SECTIONS = {part.split("\n", 1)[0]: part for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]}


PLUGINS = TOP / "plugins" / "module_utils"
TREES = {path: ast.parse(path.read_text("utf-8")) for path in sorted(PLUGINS.rglob("*.py"))}


def kinds():
    """(name, class) of BlockError and of every class that inherits from it, in any file."""
    found = {"BlockError": errors.BlockError}
    classes = [
        (path, node.name, {ast.unparse(base).rpartition(".")[2] for base in node.bases})
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    ]
    before = 0
    while len(found) > before:
        before = len(found)
        for path, name, bases in classes:
            if bases & set(found):
                module = ".".join([LIBRARY, *path.relative_to(PLUGINS).with_suffix("").parts])
                found[name] = getattr(importlib.import_module(module), name)
    return sorted(found.items())


def texts_of(tree):
    """Every text in the code, one for each part of an f-string."""
    constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return {value for value in constants if isinstance(value, str)}


TEXTS = set().union(*map(texts_of, TREES.values()))


def one_line(text):
    return " ".join(text.split())


def messages():
    rows = [line for line in PAGE.splitlines() if line.startswith("| `") and line.count("|") == 4]
    return [re.match(r"\| `([^`]+)`", row).group(1) for row in rows]


def test_kinds_has_the_errors_of_several_rooms():
    assert {"TableError", "Unavailable", "NodeError", "Unexpected"} <= {name for name, _class in kinds()}


@pytest.mark.parametrize(("name", "kind"), kinds())
def test_every_kind_has_a_section_with_its_defaults(name, kind):
    section = one_line(SECTIONS[name])
    if "and has its `errno` and default hint" not in section:
        assert f"`{errno.errorcode[kind.ERRNO]}`" in section
    if "HINT" in vars(kind) and isinstance(kind.HINT, str):
        assert kind.HINT in section


@pytest.mark.parametrize(("number", "hint"), sorted(errors._HINTS.items()))
def test_every_errno_with_a_hint_is_listed(number, hint):
    rows = [line for line in SECTIONS["By errno"].splitlines() if f"`{errno.errorcode[number]}`" in line]
    assert len(rows) == 1
    assert hint in rows[0]


def test_the_hints_for_missing_rights_are_listed():
    assert errors._AS_ROOT in one_line(SECTIONS["By errno"])
    assert errors._NOT_EVEN_ROOT in one_line(SECTIONS["By errno"])


def test_there_are_messages():
    assert len(messages()) > 60


@pytest.mark.parametrize("message", messages())
def test_every_message_is_the_codes(message):
    parts = [part.strip(" ,:;()") for part in message.split("...")]
    missing = [part for part in parts if part and not any(part in text for text in TEXTS)]
    assert missing == []
