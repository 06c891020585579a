# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of modules: return values have samples of their type, and tasks in examples have names."""

from __future__ import annotations

import ast
import pathlib

import pytest
import yaml

MODULES = sorted((pathlib.Path(__file__).resolve().parents[3] / "plugins" / "modules").glob("*.py"))
TYPES = {"bool": bool, "dict": dict, "int": int, "list": list, "str": str}


def documentation(path, name):
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == name:
            return yaml.safe_load(node.value.value)
    raise AssertionError(f"{path} has no {name}")


def leaves(values, above=""):
    """(name, description of the value) of all return values that contain no others."""
    for name, value in values.items():
        if "contains" in value:
            yield from leaves(value["contains"], f"{above}{name}.")
        else:
            yield f"{above}{name}", value


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_return_values_have_samples_of_their_type(path):
    for name, value in leaves(documentation(path, "RETURN")):
        assert "sample" in value, name
        expected = TYPES.get(value["type"])
        assert expected is None or isinstance(value["sample"], expected), name
        assert not (expected is int and isinstance(value["sample"], bool)), name
        assert "choices" not in value or value["sample"] in value["choices"], name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_tasks_in_examples_have_names(path):
    tasks = documentation(path, "EXAMPLES")
    assert tasks
    assert [task for task in tasks if not task.get("name")] == []
