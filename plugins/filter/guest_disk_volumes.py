# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: guest_disk_volumes
author:
  - The racefree.block contributors (@racefree)
short_description: List the thin volumes of guests' disks
version_added: 1.0.0
description:
  - Lists the thin pools of guests' disks, each with the volumes that should or should not exist in it, for
    M(racefree.block.thin_volumes).
positional: _input
options:
  _input:
    description:
      - Guests and their disks, as the role P(racefree.block.guest_disks#role) takes them.
    type: list
    elements: dict
    required: true
  states:
    description:
      - Whether to list volumes that guests should have (V(present)), those to be removed (V(absent)), or
        both.
    type: list
    elements: str
    choices: [present, absent]
    default: [present, absent]
"""

EXAMPLES = r"""
- name: Create the volumes
  racefree.block.thin_volumes:
    pool: "{{ item.pool }}"
    volumes: "{{ item.volumes }}"
  loop: "{{ guests | racefree.block.guest_disk_volumes(states=['present']) }}"
"""

RETURN = r"""
_value:
  description: One entry for each pool, with V(pool), V(volumes) and V(label).
  type: list
  elements: dict
"""

from ansible.errors import AnsibleFilterError
from ansible_collections.racefree.block.plugins.module_utils._base.errors import BlockError
from ansible_collections.racefree.block.plugins.module_utils._guest_disks import plan


def guest_disk_volumes(value, states=("present", "absent")):
    """The pools and their volumes."""
    try:
        return plan.volumes_of(value, states)
    except BlockError as error:
        raise AnsibleFilterError(f"guest_disk_volumes: {error}") from error


class FilterModule:
    """Jinja2 filter for guests' disks."""

    def filters(self):
        return {"guest_disk_volumes": guest_disk_volumes}
