# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation fragments that are made from others."""

from __future__ import annotations

import pytest
import yaml
from ansible_collections.racefree.block.plugins.plugin_utils import _fragments

SIZE = r"""
options:
  size:
    description:
      - Size of O(file), unless O(state=absent).
    type: str
"""
MORE = r"""
options:
  size:
    description: Not used.
    default: "0"
  source:
    description: "See O(ns.name.other#module:source.file) and O(source.file=/a#b)."
    type: raw
    suboptions:
      file:
        description:
          - A file.
          - Beside O(source.path), it is ignored.
        type: str
      path:
        description: Instead of O(source.file).
        type: str
"""


@pytest.fixture
def entries():
    return yaml.safe_load(_fragments.in_list("disks", SIZE, MORE))["options"]["disks"]["suboptions"]


def test_names_of_options_get_the_name_of_the_list(entries):
    assert entries["size"]["description"] == ["Size of O(disks[].file), unless O(disks[].state=absent)."]
    assert entries["source"]["suboptions"]["path"]["description"] == ["Instead of O(disks[].source.file)."]


def test_names_of_other_plugins_options_stay(entries):
    expected = "See O(ns.name.other#module:source.file) and O(disks[].source.file=/a#b)."
    assert entries["source"]["description"] == [expected]


def test_the_first_fragment_wins_for_each_key_of_an_option(entries):
    assert entries["size"]["type"] == "str"
    assert entries["size"]["default"] == "0"


def test_keys_get_the_name_of_the_other_option():
    fragment = yaml.safe_dump({"options": {"source": yaml.safe_load(MORE)["options"]["source"]}})
    made = yaml.safe_load(_fragments.keys_as("pool", fragment, ["path", "file"]))["options"]["pool"]
    assert made["type"] == "raw"
    assert made["suboptions"]["path"]["description"] == ["Instead of O(pool.file)."]
    assert made["suboptions"]["file"]["description"] == ["A file.", "Beside O(pool.path), it is ignored."]


def test_paragraphs_about_keys_that_are_left_out_are_left_out():
    fragment = yaml.safe_dump({"options": {"source": yaml.safe_load(MORE)["options"]["source"]}})
    made = yaml.safe_load(_fragments.keys_as("pool", fragment, ["file"]))["options"]["pool"]["suboptions"]
    assert made == {"file": {"description": ["A file."], "type": "str"}}
