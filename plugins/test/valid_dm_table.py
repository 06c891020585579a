# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: valid_dm_table
author:
  - The racefree.block contributors (@racefree)
short_description: Test whether a device-mapper table is valid
version_added: 1.0.0
description:
  - Checks a device-mapper table on the controller, without access to a host.
  - What depends on the host, such as the sizes of devices and the target types of its kernel, is not checked.
  - To see what is wrong with a table, use the filter P(racefree.block.dm_targets#filter). It fails with the
    line, the field and the rule of every error.
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
  - plugin: racefree.block.dm_lines
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Refuse an invalid table before any host is changed
  ansible.builtin.assert:
    that:
      - root_table is racefree.block.valid_dm_table
  vars:
    root_table: |
      0 2097152 linear diskseq:42 0
      2097152 2097152 linear /dev/vg/more 0

- name: Require a table that the kernels of all hosts accept
  ansible.builtin.assert:
    that:
      - test_table is racefree.block.valid_dm_table(kernels=['6.1', '6.12'])
"""

RETURN = r"""
_value:
  description: Whether the table is valid.
  type: bool
"""

from ansible.errors import AnsibleFilterError
from ansible_collections.racefree.block.plugins.module_utils._base.errors import TableError
from ansible_collections.racefree.block.plugins.plugin_utils._dm_table import parse


def valid_dm_table(value, kernels=None, read_only=None):
    """True when the table is valid."""
    try:
        parse(value, kernels, read_only)
    except ValueError as error:
        raise AnsibleFilterError(f"valid_dm_table: {error}") from error
    except TableError:
        return False
    return True


class TestModule:
    """Jinja2 test for device-mapper tables."""

    def tests(self):
        return {"valid_dm_table": valid_dm_table}
