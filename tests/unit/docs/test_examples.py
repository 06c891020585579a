# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Examples in guides and READMEs: they are valid YAML, and use modules, options, filters, roles and variables
that exist.
"""

from __future__ import annotations

import pathlib
import re

import pytest
import yaml
from ansible_collections.racefree.block.tests.unit.docs import pages

TOP = pathlib.Path(__file__).resolve().parents[3]
PREFIX = "racefree.block."
FILES = [
    TOP / "README.md",
    *sorted((TOP / "docs").glob("*.md")),
    *sorted((TOP / "roles").glob("*/README.md")),
]
BLOCK = re.compile(r"^( *)(`{3,})yaml\n(.*?)^\1\2$", re.MULTILINE | re.DOTALL)


def examples():
    for path in FILES:
        for found in BLOCK.finditer(path.read_text("utf-8")):
            line = path.read_text("utf-8")[: found.start()].count("\n") + 1
            text = "\n".join(each.removeprefix(found.group(1)) for each in found.group(3).splitlines())
            yield pytest.param(text, id=f"{path.relative_to(TOP)}:{line}")


def options(module):
    return set(pages.options_of(module))


def variables(role):
    text = (TOP / "roles" / role / "meta" / "argument_specs.yml").read_text("utf-8")
    return set(yaml.safe_load(text)["argument_specs"]["main"]["options"])


def dictionaries(data):
    """Every dictionary in the data."""
    if isinstance(data, dict):
        yield data
    for inner in data.values() if isinstance(data, dict) else data if isinstance(data, list) else []:
        yield from dictionaries(inner)


def wrong_in(each):
    """What does not exist of what a task or a role's entry names."""
    for key, value in each.items():
        module = str(key).removeprefix(PREFIX)
        if module != key and not (TOP / "plugins" / "modules" / f"{module}.py").exists():
            yield key
        elif module != key:
            yield from (f"{key}: {option}" for option in sorted(set(value or {}) - options(module)))
    role = str(each.get("role") or each.get("ansible.builtin.include_role", {}).get("name"))
    if role.startswith(PREFIX):
        role = role.removeprefix(PREFIX)
        given = {key for key in [*each, *each.get("vars", {})] if key.startswith(f"{role}_")}
        yield from (f"{role}: {name}" for name in sorted(given - variables(role)))


@pytest.mark.parametrize("text", list(examples()))
def test_what_an_example_names_exists(text):
    data = yaml.safe_load(text)
    assert [wrong for each in dictionaries(data) for wrong in wrong_in(each)] == []
    for name in re.findall(r"\| racefree\.block\.(\w+)", text):
        assert (TOP / "plugins" / "filter" / f"{name}.py").exists()
    for name in re.findall(r"is racefree\.block\.(\w+)", text):
        assert (TOP / "plugins" / "test" / f"{name}.py").exists()


def test_there_are_examples():
    assert len(list(examples())) > 50


@pytest.mark.parametrize(
    "text",
    [
        "- racefree.block.loop_devise: {backing_file: /a}",
        "- racefree.block.loop_device: {image: /a}",
        "- role: racefree.block.xen_host\n  vars: {xen_host_no: 1}",
    ],
)
def test_what_does_not_exist_is_found(text):
    with pytest.raises(AssertionError, match="=="):
        test_what_an_example_names_exists(text)
