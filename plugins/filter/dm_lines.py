# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: dm_lines
author:
  - The racefree.block contributors (@racefree)
short_description: Lines of a device-mapper table
version_added: 0.1.0
description:
  - Checks a device-mapper table and returns it as lines in the form in which C(dmsetup) prints them, with options in the kernel's order.
  - Fails with the line, the field and the rule of every error when the table is not valid.
  - Keys stay as they are, use C(no_log) where a table has some.
positional: _input
options:
  _input:
    description:
      - The table, as text with one target per line, or as a list of such lines and of dictionaries with the keys V(start), V(length), V(target) and
        the fields of the target.
    type: raw
    required: true
  kernels:
    description:
      - Kernels that all have to take the table.
      - Without this option it is enough that one known kernel takes it.
      - Without this option there is a warning for a table that would stop some kernel. With it, such a table is
        not valid for a kernel that it stops.
    type: list
    elements: str
    choices:
      - '6.1'
      - '6.12'
      - '7.2'
  read_only:
    description:
      - Whether the table is going to be loaded read-only.
      - Without this option nothing is refused for that reason.
    type: bool
seealso:
  - plugin: racefree.block.dm_targets
    plugin_type: filter
  - plugin: racefree.block.valid_dm_table
    plugin_type: test
"""

EXAMPLES = r"""
- name: Print a table as dmsetup would
  ansible.builtin.debug:
    msg: "{{ table | racefree.block.dm_lines }}"
    # ['0 2048 linear diskseq:42 0']
  vars:
    table:
      - start: 0
        length: 2048
        target: linear
        device:
          diskseq: 42
        offset: 0
"""

RETURN = r"""
_value:
  description: One line for each target.
  type: list
  elements: str
"""

from ansible.errors import AnsibleFilterError
from ansible_collections.racefree.block.plugins.module_utils._base.errors import TableError
from ansible_collections.racefree.block.plugins.module_utils._dm_table import format_table
from ansible_collections.racefree.block.plugins.plugin_utils._dm_table import parse


def dm_lines(value, kernels=None, read_only=None):
    """The table as lines."""
    try:
        return format_table(parse(value, kernels, read_only))
    except (TableError, ValueError) as error:
        raise AnsibleFilterError(f"dm_lines: {error}") from error


class FilterModule:
    """Jinja2 filter for device-mapper tables."""

    def filters(self):
        return {"dm_lines": dm_lines}
