# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation that is in both a singular and a plural module must be identical."""

from __future__ import annotations

import re

import pytest
import yaml
from ansible_collections.racefree.block.tests.unit.docs import pages

# When an entry of a plural module has a value that the singular module returns.
RETURNED = {"success": "when the entry succeeded", "failure": "when the entry failed"}


def told(value, listed):
    """Texts without line breaks, and with option paths as in the singular module; values without samples."""
    if isinstance(value, dict):
        keys = [key for key in value if key != "sample" or "description" not in value]
        return {key: told(value[key], listed) for key in keys}
    if isinstance(value, list):
        return [told(inner, listed) for inner in value]
    if isinstance(value, str):
        return re.sub(r"\s+", " ", value).replace(f"O({listed}[].", "O(").strip()
    return value


def in_entries(values):
    """Return values of a singular module, as an entry of a plural module has them."""
    found = {}
    for name, value in values.items():
        found[name] = {**value, "returned": RETURNED.get(value["returned"], value["returned"])}
        if "contains" in value:
            found[name]["contains"] = in_entries(value["contains"])
    return found


@pytest.mark.parametrize("plural", pages.PLURALS)
def test_suboptions_match_the_singular_modules_options(plural):
    singular, listed = pages.PLURALS[plural]
    suboptions = pages.options_of(plural)[listed]["suboptions"]
    assert told(suboptions, listed) == told(pages.options_of(singular), listed)


@pytest.mark.parametrize("plural", pages.PLURALS)
def test_entries_return_what_the_singular_module_returns(plural):
    singular, listed = pages.PLURALS[plural]
    rows = told(pages.returned_by(plural)[listed]["contains"], listed)
    expected = in_entries(told(pages.returned_by(singular), listed))
    for name, value in expected.items():
        assert rows.pop(name) == value, name
    assert rows.keys() <= {"changed", "failed", "msg", "rolled_back"}


def test_the_action_group_has_all_modules():
    runtime = yaml.safe_load((pages.TOP / "meta" / "runtime.yml").read_text("utf-8"))
    assert runtime["action_groups"]["block"] == pages.MODULES
