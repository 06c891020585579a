# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""docs/guarantees.md: every guarantee names a test that shows it, and every test that is named exists."""

from __future__ import annotations

import ast
import pathlib
import re

import pytest

DOCS = pathlib.Path(__file__).resolve().parents[3] / "docs"
PAGE = (DOCS / "guarantees.md").read_text("utf-8")
LINK = re.compile(r"\[(test_\w+\.py)::(\w+)\]\(([^)]+)\)")


def rows():
    """(what the row is about, its column "Shown by") of every table."""
    lines = [line for line in PAGE.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [(each[0], each[3]) for each in cells if each[3] != "Shown by" and set(each[0]) - {"-"}]


def functions(path):
    tree = ast.parse(path.read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_there_are_tables_with_five_columns():
    assert len(rows()) > 25
    assert {line.count("|") for line in PAGE.splitlines() if line.startswith("|")} == {6}


@pytest.mark.parametrize(("subject", "shown_by"), rows())
def test_every_guarantee_names_a_test(subject, shown_by):
    assert LINK.search(shown_by), subject


@pytest.mark.parametrize(("file", "name", "target"), sorted(set(LINK.findall(PAGE))))
def test_every_test_that_is_named_exists(file, name, target):
    path = (DOCS / target).resolve()
    assert path.name == file
    assert name in functions(path)


def test_nothing_else_looks_like_a_test():
    """The name of a test outside of a link would not be checked."""
    assert LINK.sub("", PAGE).count("::") == 0
