#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dm_table
short_description: Check a device-mapper table against a host, and normalise it
version_added: 0.1.0
description:
  - Holds a table against the host's kernel, its targets and its devices, and tells everything that is wrong, each error with its line, field, rule and place.
  - Changes nothing. The kernel loads its module of a target type that the table names, if it has not done so yet.
author:
  - The racefree.block contributors (@racefree)
extends_documentation_fragment:
  - racefree.block.block.info
seealso:
  - module: racefree.block.dm_device
  - plugin: racefree.block.valid_dm_table
    plugin_type: test
  - plugin: racefree.block.dm_lines
    plugin_type: filter
  - plugin: racefree.block.dm_targets
    plugin_type: filter
options:
  table:
    description:
      - The table, as for O(racefree.block.dm_device#module:table).
    type: raw
    required: true
  keys:
    description:
      - Keys for C(crypt) and C(integrity) targets, as for O(racefree.block.dm_device#module:keys). They are in no log or return value.
    type: dict
  read_only:
    description:
      - Whether the table is to be loaded read-only.
    type: bool
    default: false
  name:
    description:
      - Name of an existing mapped device that the table is for. It must not stand on itself then, and a target type that cannot be exchanged has to stay.
    type: str
  kernels:
    description:
      - Kernels beside that of the host that have to take the table, too.
    type: list
    elements: str
    choices: ['6.1', '6.12', '7.2']
    default: []
  fail:
    description:
      - Whether the task fails for a table that is not valid. With V(false), see RV(valid).
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Refuse to go on with a table that this host would not take
  racefree.block.dm_table:
    table: "0 2097152 linear diskseq:{{ disk.device.diskseq }} 0"

- name: See what is wrong with it
  racefree.block.dm_table:
    table:
      - {start: 0, length: 2097152, target: linear, device: {file: /srv/guests/web1.raw}, offset: 0}
      - "2097152 2097152 zero"
    kernels: ["6.12"]
    fail: false
  register: checked

- name: Show it
  ansible.builtin.debug:
    var: checked.errors
  when: not checked.valid
"""

RETURN = r"""
valid:
  description: Whether the host would take the table, as far as that can be told without trying.
  returned: success
  type: bool
errors:
  description: Everything that is wrong with the table. A device that cannot be had is one error among the others, with the reason in its rule.
  returned: success
  type: list
  elements: dict
  contains:
    line:
      description: The line or list entry, from 1. V(null) for what concerns no single one.
      type: int
    target:
      description: The target type.
      type: str
    field:
      description: The field.
      type: str
    value:
      description: What was found there. Keys are not shown.
      type: raw
    rule:
      description: What would be right.
      type: str
    column:
      description: Where in the line, from 0.
      type: int
    text:
      description: The line, without keys.
      type: str
lines:
  description: The table in dmsetup's lines, without keys. Devices are numbers if all of them are there. V(null) for a table that is not valid.
  returned: success
  type: list
  elements: str
  sample: ["0 2097152 linear 7:7 0"]
targets:
  description: The same as structured data. V(null) for a table that is not valid.
  returned: success
  type: list
  elements: dict
devices:
  description: The device slots of the table in order. V(null) for a table that is not valid.
  returned: success
  type: list
  elements: dict
  contains:
    target:
      description: Which target of the table, from 1.
      type: int
    field:
      description: The field.
      type: str
    written:
      description: The device as it stands in the table.
      type: str
    access:
      description: What the kernel will open it for; V(r), V(w) or V(rw).
      type: str
    device:
      description: The device's identity, as RV(racefree.block.dm_device#module:device). V(null) for a file that has no loop device yet.
      type: dict
error:
  description: What went wrong, as data. As RV(racefree.block.dm_device#module:error).
  returned: failure
  type: dict
"""

from ansible_collections.racefree.block.plugins.module_utils._module.dm_table import ARGUMENTS, collect
from ansible_collections.racefree.block.plugins.module_utils._module.runner import run_info


def main():
    run_info(collect, ARGUMENTS)


if __name__ == "__main__":
    main()
