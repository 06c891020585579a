# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Return values that several modules share are documented with the same texts. ansible-core 2.19 has no
fragments for return values, so each module has a copy. Copies in plural modules: test_documentation.py.
"""

from __future__ import annotations

import re
import types

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base import errors
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.tests.unit.docs import pages

# The values whose parts are the same wherever they are, with a module and path that has them.
SHARED = {
    "error": ("loop_device", "error"),
    "space": ("device_info", "devices.space"),
    "backing": ("loop_device", "device.backing"),
    "partition_list": ("loop_device", "device.partition_list"),
    "replaced": ("xen_vbd", "replaced"),
}
IDENTITY = ("loop_device", "device")
ENTRY = ("changed", "failed", "msg", "rolled_back")
LISTS = {**{plural: listed for plural, (_one, listed) in pages.PLURALS.items()}, "snapshot_stores": "stores"}


def facts(value):
    """What must be the same: all but the sample, and when it is returned."""
    described = value["description"]
    texts = [described] if isinstance(described, str) else described
    kind = {key: value.get(key) for key in ("type", "elements", "choices")}
    return {"description": [re.sub(r"\s+", " ", text).strip() for text in texts], **kind}


def parts(module, path):
    """{name: facts} of the values in a value."""
    found = dict(pages.walk(pages.returned_by(module), "contains"))[path]
    return {name: facts(value) for name, value in found["contains"].items()}


def containers():
    """(module, path, names of the parts) of every value that has parts, in all modules."""
    for module in pages.MODULES:
        for path, value in pages.walk(pages.returned_by(module), "contains"):
            if "contains" in value:
                yield module, path, set(value["contains"])


def shared():
    for module, path, _names in containers():
        if path.rpartition(".")[2] in SHARED:
            yield module, path


def identities():
    for module, path, names in containers():
        if {"boot_id", "by_diskseq"} <= names:
            yield module, path


def test_shared_values_have_the_same_texts_everywhere():
    assert len(list(shared())) > 20
    for module, path in shared():
        expected = parts(*SHARED[path.rpartition(".")[2]])
        found = parts(module, path)
        # Only invalid tables have this one.
        found.pop("errors", None)
        assert found == expected, (module, path)


def test_identities_of_devices_have_the_same_texts_everywhere():
    number = types.SimpleNamespace(major=7, minor=7, diskseq=42)
    held = types.SimpleNamespace(
        id=number,
        has_node=True,
        path="/dev/loop7",
        name="loop7",
        size=512,
        logical_block=512,
        read_only=False,
    )
    held._partition_and_link = lambda: (None, None)
    names = set(_device.Device.as_dict(held))
    expected = {name: value for name, value in parts(*IDENTITY).items() if name in names}
    assert set(expected) == names
    assert len(list(identities())) > 8
    for module, path in identities():
        found = {name: value for name, value in parts(module, path).items() if name in names}
        assert found == expected, (module, path)


def test_entries_of_lists_have_the_same_texts_everywhere():
    expected = {name: parts("loop_devices", "devices")[name] for name in ENTRY}
    for module, listed in LISTS.items():
        found = parts(module, listed)
        assert {name: found[name] for name in ENTRY} == expected, module


@pytest.mark.parametrize("module", ["loop_device", "dm_device"])
def test_device_info_has_the_values_of_the_modules_that_make_devices(module):
    found = parts("device_info", "devices")
    for name, expected in parts(module, "device").items():
        # Here it can say more, of other kinds of devices.
        found[name]["description"] = found[name]["description"][: len(expected["description"])]
        assert found[name] == expected, name


@pytest.mark.parametrize("module", pages.MODULES)
def test_every_module_documents_its_error(module):
    """A module over a list has one for each entry, and one for the task as a whole."""
    values = dict(pages.walk(pages.returned_by(module), "contains"))
    for path in ["error"] + ([f"{LISTS[module]}.error"] if module in LISTS else []):
        assert {f"{path}.{key}" for key in errors.BlockError("text").as_dict()} <= set(values), path
