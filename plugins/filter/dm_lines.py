# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: dm_lines
author:
  - The racefree.block contributors (@racefree)
short_description: Format a device-mapper table as lines
version_added: 1.0.0
description:
  - Checks a device-mapper table and returns it as lines in the format of C(dmsetup table), with options in
    the kernel's order.
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
