# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Examples of modules: every option is in one, and every task has a name."""

from __future__ import annotations

import pytest
from ansible_collections.racefree.block.tests.unit.docs import pages


def options_of(module):
    """The options of a module, sub-options as ``devices.name``, without the keys of raw ones."""
    documented = pages.options_of(module)
    raw = [f"{path}." for path, option in pages.walk(documented, "suboptions") if option["type"] == "raw"]
    return {path for path, _option in pages.walk(documented, "suboptions") if not path.startswith(tuple(raw))}


def keys_of_raw_options():
    """{(table or source, key)}: the raw options are a table or a source, and document the same keys."""
    return {
        ("table" if path.endswith("table") else "source", key)
        for module in pages.MODULES
        for path, option in pages.walk(pages.options_of(module), "suboptions")
        if option["type"] == "raw"
        for key in option.get("suboptions") or {}
    }


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


def shown_by(module):
    """The options that the examples of a module show."""
    examples = tasks_of(pages.examples_of(module))
    return set(used([task.get(f"{pages.PREFIX}{module}") for task in examples]))


@pytest.mark.parametrize("module", pages.MODULES)
def test_every_option_is_in_an_example(module):
    assert sorted(options_of(module) - shown_by(module)) == []


def test_every_key_of_a_raw_option_is_in_an_example_of_a_module():
    shown = {tuple(path.split(".")[-2:]) for module in pages.MODULES for path in shown_by(module)}
    shown |= {("source", path[-1]) for path in shown if path[0] in ("backing", "pool")}
    assert len(keys_of_raw_options()) > 15
    assert sorted(keys_of_raw_options() - shown) == []


@pytest.mark.parametrize("module", pages.MODULES)
def test_every_task_has_a_name(module):
    assert [task for task in tasks_of(pages.examples_of(module)) if not task.get("name")] == []


def test_an_option_that_no_example_shows_is_found():
    options = {"name": {}, "devices": {"suboptions": {"size": {}, "path": {}}}}
    shown = set(used([{"name": "a", "devices": [{"size": 1}]}, None]))
    documented = {path for path, _option in pages.walk(options, "suboptions")}
    assert documented - shown == {"devices.path"}
