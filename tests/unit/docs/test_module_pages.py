# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Documentation of modules: return values say when they are returned, and have samples of their type; tasks in
examples have names.
"""

from __future__ import annotations

import pytest
from ansible_collections.racefree.block.tests.unit.docs import pages

TYPES = {"bool": bool, "dict": dict, "float": float, "int": int, "list": list, "str": str}


@pytest.mark.parametrize("module", pages.MODULES)
def test_return_values_have_samples_of_their_type(module):
    for name, value in pages.walk(pages.returned_by(module), "contains"):
        assert value.get("description"), name
        assert ("sample" in value) != ("contains" in value), name
        if "sample" in value and value["type"] in TYPES:
            assert isinstance(value["sample"], TYPES[value["type"]]), name
            assert value["type"] == "bool" or not isinstance(value["sample"], bool), name
        assert "choices" not in value or value["sample"] in value["choices"], name
        assert value["type"] != "list" or value.get("elements"), name


@pytest.mark.parametrize("module", pages.MODULES)
def test_return_values_say_when_they_are_returned(module):
    values = pages.walk(pages.returned_by(module), "contains")
    assert [name for name, value in values if not value.get("returned")] == []


@pytest.mark.parametrize("module", pages.MODULES)
def test_tasks_in_examples_have_names(module):
    tasks = pages.examples_of(module)
    assert tasks
    assert [task for task in tasks if not task.get("name")] == []
