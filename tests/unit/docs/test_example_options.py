# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Examples of modules: every option is in one, and every task has a name."""

from __future__ import annotations

import ast
import pathlib

import pytest
import yaml

PLUGINS = pathlib.Path(__file__).resolve().parents[3] / "plugins"
MODULES = sorted(path.stem for path in (PLUGINS / "modules").glob("*.py"))


def texts(path):
    """{name: YAML} of the assignments of texts in a file, also those in classes."""
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    found = [node for node in nodes if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)]
    return {
        node.targets[0].id: yaml.safe_load(node.value.value)
        for node in found
        if isinstance(node.value.value, str) and node.targets[0].id.isupper()
    }


def options_of(module):
    """The options of a module with those of its fragments, sub-options as ``devices.name``."""
    document = texts(PLUGINS / "modules" / f"{module}.py")["DOCUMENTATION"]
    options = dict(document.get("options") or {})
    for name in document.get("extends_documentation_fragment") or []:
        file, _dot, part = name.removeprefix("racefree.block.").partition(".")
        path = PLUGINS / "doc_fragments" / f"{file}.py"
        if path.is_file():
            options.update(texts(path)[part.upper() or "DOCUMENTATION"].get("options") or {})
    return set(flat(options, "suboptions"))


def flat(options, below, prefix=""):
    """The names of options or return values, and of those below them."""
    for name, option in options.items():
        yield prefix + name
        yield from flat(option.get(below) or {}, below, f"{prefix}{name}.")


def used(value, prefix=""):
    """The keys of a task's arguments, those in lists and dictionaries as ``devices.name``."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield f"{prefix}{key}"
            yield from used(below, f"{prefix}{key}.")
    elif isinstance(value, list):
        for below in value:
            yield from used(below, prefix)


def tasks_of(examples):
    """All tasks, also those in blocks and plays."""
    for task in examples:
        yield task
        for key in ("tasks", "block", "rescue", "always", "pre_tasks"):
            yield from tasks_of(task.get(key) or [])


@pytest.mark.parametrize("module", MODULES)
def test_every_option_is_in_an_example(module):
    examples = list(tasks_of(texts(PLUGINS / "modules" / f"{module}.py")["EXAMPLES"]))
    shown = set(used([task.get(f"racefree.block.{module}") for task in examples]))
    assert sorted(options_of(module) - shown) == []


@pytest.mark.parametrize("module", MODULES)
def test_every_task_has_a_name(module):
    examples = tasks_of(texts(PLUGINS / "modules" / f"{module}.py")["EXAMPLES"])
    assert [task for task in examples if not task.get("name")] == []


def test_an_option_that_no_example_shows_is_found():
    options = {"name": {}, "devices": {"suboptions": {"size": {}, "path": {}}}}
    shown = set(used([{"name": "a", "devices": [{"size": 1}]}, None]))
    assert set(flat(options, "suboptions")) - shown == {"devices.path"}
