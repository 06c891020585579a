# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Programs and tests that run away from a checkout say where the collection is before they import it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[2]
FILES = sorted(
    str(path.relative_to(TESTS))
    for folder in ("kernel", "host", "campaign")
    for path in (TESTS / folder).rglob("*.py")
    if "sys.path.insert(" in path.read_text(encoding="utf-8")
)


def _lines(tree, wanted):
    return [node.lineno for node in ast.walk(tree) if wanted(node)]


def _says_where(node):
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "sys.path.insert"


def _imports(node):
    names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
    names += [each.name for each in node.names] if isinstance(node, ast.Import) else []
    return any(name.partition(".")[0] in ("ansible", "ansible_collections") for name in names)


@pytest.mark.parametrize("file", FILES)
def test_the_collection_is_imported_after_its_path_is_set(file):
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    # One that is only in the text of another program's code says nothing of this one.
    known = _lines(tree, _says_where)
    assert not known or not [line for line in _lines(tree, _imports) if line < min(known)]
