# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: dm_targets
author:
  - The racefree.block contributors (@racefree)
short_description: Convert a device-mapper table to structured data
version_added: 1.0.0
description:
  - Checks a device-mapper table and returns its targets as structured data, one dictionary for each target.
    Fields that are not set are left out.
  - Fails for an invalid table, and reports the line, the field and the rule of every error.
  - Keys are not hidden. Use C(no_log) for a table that contains keys.
positional: _input
options:
  _input:
    description:
      - The table, as text with one target per line, or as a list of such lines and of dictionaries with the
        keys V(start), V(length), V(target) and the fields of the target.
    type: raw
    required: true
  kernels:
    description:
      - Kernels that must all accept the table.
      - Without this option, one known kernel that accepts the table is enough.
      - Without this option, there is a warning for a table that would crash or hang some kernel. With it, the
        table is invalid if it would crash or hang one of these kernels.
    type: list
    elements: str
    choices:
      - '6.1'
      - '6.12'
      - '7.2'
  read_only:
    description:
      - Whether the table will be loaded read-only.
      - Without this option, this is not checked.
    type: bool
seealso:
  - plugin: racefree.block.dm_lines
    plugin_type: filter
  - plugin: racefree.block.valid_dm_table
    plugin_type: test
"""

EXAMPLES = r"""
- name: Look at the first target of a table
  ansible.builtin.debug:
    msg: "{{ (table | racefree.block.dm_targets)[0].device }}"
    # diskseq:42
  vars:
    table: |
      0 2048 linear diskseq:42 0
      2048 2048 zero
"""

RETURN = r"""
_value:
  description:
    - The targets in order.
    - Each target also has the fields of its type.
  type: list
  elements: dict
  contains:
    start:
      description: Where the target begins, in sectors of 512 bytes.
      type: int
    length:
      description: How long the target is, in sectors of 512 bytes.
      type: int
    target:
      description: The target type.
      type: str
"""

from ansible.errors import AnsibleFilterError
from ansible_collections.racefree.block.plugins.module_utils._base.errors import TableError
from ansible_collections.racefree.block.plugins.plugin_utils._dm_table import parse


def dm_targets(value, kernels=None, read_only=None):
    """The table in structured form."""
    try:
        return parse(value, kernels, read_only).to_list()
    except (TableError, ValueError) as error:
        raise AnsibleFilterError(f"dm_targets: {error}") from error


class FilterModule:
    """Jinja2 filter for device-mapper tables."""

    def filters(self):
        return {"dm_targets": dm_targets}
