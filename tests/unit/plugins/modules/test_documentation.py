# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation that is in both a singular and a plural module must be identical."""

from __future__ import annotations

import importlib
import os
import re

import pytest
import yaml

MODULES = "ansible_collections.racefree.block.plugins.modules"
ROOT = os.path.dirname(importlib.import_module(MODULES + ".device_info").__file__)
NAMES = sorted(name[:-3] for name in os.listdir(ROOT) if name.endswith(".py") and name != "__init__.py")
PLURALS = {
    "loop_devices": ("loop_device", "devices"),
    "dm_devices": ("dm_device", "devices"),
    "xen_vbds": ("xen_vbd", "vbds"),
    "libvirt_disks": ("libvirt_disk", "disks"),
    "xl_disks": ("xl_disk", "disks"),
}


def documentation(name, what="DOCUMENTATION"):
    return yaml.safe_load(getattr(importlib.import_module(f"{MODULES}.{name}"), what))


def told(text, listed):
    """A description without line breaks, and with option paths as in the singular module."""
    return re.sub(r"\s+", " ", text).replace(f"O({listed}[].", "O(")


@pytest.mark.parametrize("plural", PLURALS)
def test_suboptions_match_the_singular_modules_options(plural):
    singular, listed = PLURALS[plural]
    options = documentation(singular)["options"]
    suboptions = documentation(plural)["options"][listed]["suboptions"]
    assert list(suboptions) == list(options)
    for name, option in options.items():
        copy = dict(suboptions[name])
        assert [told(line, listed) for line in copy.pop("description")] == [
            told(line, listed) for line in option["description"]
        ], name
        assert copy == {key: value for key, value in option.items() if key != "description"}, name


@pytest.mark.parametrize("plural", PLURALS)
def test_entries_return_what_the_singular_module_returns(plural):
    singular, listed = PLURALS[plural]
    rows = documentation(plural, "RETURN")[listed]["contains"]
    for name, value in documentation(singular, "RETURN").items():
        assert list(rows[name].get("contains", ())) == list(value.get("contains", ())), name


def test_the_action_group_has_all_modules():
    with open(os.path.join(ROOT, "..", "..", "meta", "runtime.yml"), encoding="utf-8") as runtime:
        assert yaml.safe_load(runtime)["action_groups"]["block"] == NAMES
