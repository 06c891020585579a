#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dm_table
short_description: Validate a device-mapper table against a host, and normalise it
version_added: 1.0.0
description:
  - Checks a table against the host's kernel, its targets and its devices, and returns all errors, each with
    its line, field, rule and position.
  - Changes nothing, except that the kernel loads the module of a target type that the table names, if it is
    not loaded yet.
author:
  - The racefree.block contributors (@racefree)
extends_documentation_fragment:
  - racefree.block.block.info
  - racefree.block.table
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
      - The table, as for O(racefree.block.dm_device#module:table). No device is created for a file in it.
    required: true
  keys:
    description:
      - Keys for C(crypt) and C(integrity) targets, as for O(racefree.block.dm_device#module:keys). They never
        appear in logs or return values.
  read_only:
    description:
      - Whether the table will be loaded read-only.
    type: bool
    default: false
  name:
    description:
      - Name of an existing mapped device that the table is for. Then it is also checked that the device is
        not stacked on itself, and that a target type which cannot be replaced is kept.
    type: str
  kernels:
    description:
      - Other kernels that must accept the table too, besides the host's kernel.
    type: list
    elements: str
    choices: ['6.1', '6.12', '7.2']
    default: []
  fail:
    description:
      - Whether the task fails for an invalid table. With V(false), see RV(valid).
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Fail for a table that this host would not accept
  racefree.block.dm_table:
    table: "0 2097152 linear diskseq:{{ disk.device.diskseq }} 0"

- name: Find out what is wrong with a table
  racefree.block.dm_table:
    table:
      - {start: 0, length: 2097152, target: linear, device: {file: /srv/guests/web1.raw}, offset: 0}
      - "2097152 2097152 zero"
    kernels: ["6.12"]
    fail: false
  register: checked

- name: Show the errors
  ansible.builtin.debug:
    var: checked.errors
  when: not checked.valid

- name: Check the next table of an encrypted device, which is read-only
  racefree.block.dm_table:
    name: web1-secret
    table: "0 2097152 crypt aes-xts-plain64 var:data 0 /dev/vg/web1 0"
    keys: {data: "{{ vault_web1_key }}"}
    read_only: true
"""

RETURN = r"""
valid:
  description: Whether the host would accept the table, as far as this can be determined without loading it.
  returned: success
  type: bool
  sample: true
errors:
  description: >-
    All errors of the table. A device that cannot be opened is one of these errors, with the reason in its
    C(rule).
  returned: success
  type: list
  elements: dict
  contains:
    line:
      description: The line or list entry, from 1. V(null) for an error that does not belong to a single line.
      returned: success
      type: int
      sample: 2
    target:
      description: The target type.
      returned: success
      type: str
      sample: linear
    field:
      description: The field.
      returned: success
      type: str
      sample: offset
    value:
      description: The value that is wrong. Keys are not shown.
      returned: success
      type: raw
      sample: 5x
    rule:
      description: What is required.
      returned: success
      type: str
      sample: must be a whole number of sectors from 0 to 18014398509481983
    column:
      description: Position in the line, from 0.
      returned: success
      type: int
      sample: 18
    text:
      description: The line, without keys.
      returned: success
      type: str
      sample: 8 8 linear /dev/a 5x
lines:
  description: >-
    The table in the format of C(dmsetup table), without keys. Devices are shown as numbers if all of them
    exist. V(null) for an invalid table.
  returned: success
  type: list
  elements: str
  sample: ["0 2097152 linear 7:7 0"]
targets:
  description: The table as structured data. V(null) for an invalid table.
  returned: success
  type: list
  elements: dict
  sample: [{start: 0, length: 2097152, target: linear, device: /dev/vg/a, offset: 0}]
devices:
  description: The devices that the table names, in order. V(null) for an invalid table.
  returned: success
  type: list
  elements: dict
  contains:
    target:
      description: Position of the target in the table, from 1.
      returned: success
      type: int
      sample: 1
    field:
      description: The field.
      returned: success
      type: str
      sample: device
    value:
      description: The device as the table names it.
      returned: success
      type: str
      sample: /dev/vg/a
    access:
      description: How the kernel will open it, V(r), V(w) or V(rw).
      returned: success
      type: str
      sample: rw
    device:
      description: >-
        The device's identity, as RV(racefree.block.xen_vbd#module:device). V(null) for a file that has no
        loop device yet.
      returned: success
      type: dict
      sample: {path: /dev/dm-1, major: 253, minor: 1, diskseq: 41}
error:
  description: The error as structured data.
  returned: failure
  type: dict
  contains:
    kind:
      description: Kind of the error.
      returned: failure
      type: str
      sample: DeviceGone
    device:
      description: The device, file, guest, key or program that the error is about. V(null) if there is none.
      returned: failure
      type: str
      sample: web1
    errno:
      description: >-
        Name of the kernel's error number. If the error did not come from the kernel, the name that fits its
        kind best.
      returned: failure
      type: str
      sample: ENODEV
    hint:
      description: What to do about it.
      returned: failure
      type: str
      sample: "Leave name out for a device that is not there yet"
    errors:
      description: >-
        For an invalid table, each error with its line (from 1), target, field, value, rule, column (from 0)
        and text, and, if only some kernels refuse it or would stop, C(kernels) or C(stops).
      returned: failure
      type: list
      elements: dict
      sample:
        - line: 2
          target: linear
          field: offset
          value: 5x
          rule: must be a whole number of sectors from 0 to 18014398509481983
          column: 18
          text: 8 8 linear /dev/a 5x
"""

from ansible_collections.racefree.block.plugins.module_utils._module.dm_table import ARGUMENTS, collect
from ansible_collections.racefree.block.plugins.module_utils._module.runner import run_info


def main():
    run_info(collect, ARGUMENTS)


if __name__ == "__main__":
    main()
