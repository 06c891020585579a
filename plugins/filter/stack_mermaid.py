# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: stack_mermaid
author:
  - The racefree.block contributors (@racefree)
short_description: Draw files, devices and guests' disks as a Mermaid flow chart
version_added: 1.0.0
description:
  - Takes the devices that M(racefree.block.device_info) returns and, if given, the disks that
    M(racefree.block.xen_vbd_info) returns, both from the same host.
positional: _input, vbds
options:
  _input:
    description:
      - The return value RV(racefree.block.device_info#module:devices).
    type: list
    elements: dict
    required: true
  vbds:
    description:
      - The return value RV(racefree.block.xen_vbd_info#module:vbds).
    type: list
    elements: dict
    default: []
seealso:
  - module: racefree.block.device_info
  - module: racefree.block.xen_vbd_info
  - plugin: racefree.block.stack_tree
    plugin_type: filter
  - plugin: racefree.block.stack_dot
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Show the storage of a host
  hosts: xen_hosts
  tasks:
    - name: List the devices
      racefree.block.device_info:
        features: false
      register: found

    - name: List the disks of guests
      racefree.block.xen_vbd_info:
      register: disks

    - name: Write a page with a picture of what stands on what
      ansible.builtin.copy:
        content: |
          ```mermaid
          {{ found.devices | racefree.block.stack_mermaid(disks.vbds) }}
          ```
        dest: /root/storage.md
        mode: "0600"
"""

RETURN = r"""
_value:
  description: >-
    The flow chart as text, for Markdown pages that show Mermaid.
  type: str
"""

from ansible.errors import AnsibleFilterError
from ansible_collections.racefree.block.plugins.plugin_utils import _stack


def stack_mermaid(devices, vbds=()):
    """The graph of ``devices`` and ``vbds`` as text."""
    try:
        return _stack.mermaid(_stack.build(devices, vbds))
    except ValueError as error:
        raise AnsibleFilterError(f"stack_mermaid: {error}") from error


class FilterModule:
    """Jinja2 filter for the results of device_info and xen_vbd_info."""

    def filters(self):
        return {"stack_mermaid": stack_mermaid}
