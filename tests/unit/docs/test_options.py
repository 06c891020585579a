# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documented options: they are what the modules accept, with types and true defaults at each level."""

from __future__ import annotations

import ast
import collections
import typing

import pytest
import yaml
from ansible_collections.racefree.block.plugins.module_utils._base import values
from ansible_collections.racefree.block.plugins.module_utils._source import spec
from ansible_collections.racefree.block.tests.unit.docs import pages

SOURCES = {"xen_vbd": "source", "libvirt_disk": "source", "xl_disk": "source", "loop_device": "backing"}
RECORDS = {
    "diskseq": spec.DiskseqSource,
    "path": spec.PathSource,
    "file": spec.FileSource,
    "table": spec.TableSource,
}


def facts(option, inner):
    """What documentation and argument spec both say of an option; ``inner``: the name of its sub-options."""
    return {
        "type": option.get("type", "str"),
        "elements": option.get("elements"),
        "required": option.get("required", False),
        "default": option.get("default"),
        "choices": sorted(option.get("choices") or []),
        "inner": sorted(option.get(inner) or []) if option.get("type") != "raw" else [],
    }


def all_facts(options, inner):
    """{path: facts} of options and sub-options, except for what is in raw ones."""
    found = {}
    for path, option in pages.walk(options, inner):
        parents = [path[:at] for at, character in enumerate(path) if character == "."]
        if not any(found.get(above, {"type": "raw"})["type"] == "raw" for above in parents):
            found[path] = facts(option, inner)
    return found


@pytest.mark.parametrize("module", pages.MODULES)
def test_documented_options_are_those_of_the_argument_spec(module, monkeypatch):
    accepted = pages.argument_spec(module, monkeypatch)
    assert all_facts(pages.options_of(module), "suboptions") == all_facts(accepted, "options")


@pytest.mark.parametrize("module", pages.MODULES)
def test_every_option_has_a_type_and_a_description(module):
    for path, option in pages.walk(pages.options_of(module), "suboptions"):
        assert option.get("type"), path
        assert option.get("description"), path


@pytest.mark.parametrize("module", pages.MODULES)
def test_raw_options_say_which_keys_they_have(module):
    for path, option in pages.walk(pages.options_of(module), "suboptions"):
        if option["type"] == "raw":
            # A table can have sources in it, which can have tables.
            assert option.get("suboptions") or path.endswith(("source.table", "pool.table")), path


@pytest.mark.parametrize("module", SOURCES)
def test_the_keys_of_a_source_are_those_that_its_parser_accepts(module):
    documented = set(pages.options_of(module)[SOURCES[module]]["suboptions"])
    kinds = [kind for kind in RECORDS if kind in documented]
    assert kinds == [kind for kind in RECORDS if kind != "table" or SOURCES[module] == "source"]
    assert documented == {key for kind in kinds for key in RECORDS[kind]._fields}


def test_the_parser_has_the_documented_defaults_of_a_file_source():
    documented = pages.options_of("xen_vbd")["source"]["suboptions"]
    source = spec.parse({"file": "/srv/a.raw"})
    for key in spec.FileSource._fields[1:]:
        default = documented[key].get("default")
        if documented[key]["type"] == "str" and default is not None:
            default = values.bytes_or_0(default, key)
        assert default == getattr(source, key), key


def test_the_parser_has_the_documented_types_of_sources():
    documented = pages.options_of("xen_vbd")["source"]["suboptions"]
    sizes = {"offset", "size", "sector_size"}
    for kind, record in RECORDS.items():
        for key, hint in typing.cast("dict[str, str]", record.__annotations__).items():
            expected = "raw" if key == "table" else "str" if key in sizes else hint.partition(" ")[0]
            assert documented[key]["type"] == expected, (kind, key)


def written():
    """(file, YAML) of each text in the sources that documents options."""
    for path in [*pages.TOP.glob("plugins/doc_fragments/*.py"), *pages.TOP.glob("plugins/modules/*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and "\noptions:\n" in str(node.value):
                yield path.name, yaml.safe_load(node.value)


def test_no_paragraph_about_an_option_is_written_twice():
    places = collections.defaultdict(list)
    for name, document in written():
        for path, option in pages.walk(document["options"], "suboptions"):
            for text in option.get("description") or []:
                places[text].append((name, path))
    assert len(places) > 200
    assert {text: found for text, found in places.items() if len(text) > 80 and len(found) > 1} == {}


def test_a_wrong_default_is_found():
    documented = {"devices": {"type": "list", "elements": "dict", "suboptions": {"hold": {"default": 30}}}}
    accepted = {"devices": {"type": "list", "elements": "dict", "options": {"hold": {"default": 60}}}}
    assert all_facts(documented, "suboptions") != all_facts(accepted, "options")
    accepted["devices"]["options"]["hold"]["default"] = 30
    assert all_facts(documented, "suboptions") == all_facts(accepted, "options")
