# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: guest_disk_stores
author:
  - The racefree.block contributors (@racefree)
short_description: List the snapshot stores of guests' disks
version_added: 1.0.0
description:
  - Lists the stores of the snapshots that guests should have, with their images, as entries for
    M(racefree.block.snapshot_stores).
positional: _input
options:
  _input:
    description:
      - Guests and their disks, as the role P(racefree.block.guest_disks#role) takes them.
    type: list
    elements: dict
    required: true
  sizes:
    description:
      - Sizes in bytes of the existing images, by path.
      - With this option, stores are left out whose image has yet to be converted.
    type: dict
"""

EXAMPLES = r"""
- name: Record the images of the stores
  racefree.block.snapshot_stores:
    stores: "{{ guests | racefree.block.guest_disk_stores }}"
"""

RETURN = r"""
_value:
  description: One entry for each store.
  type: list
  elements: dict
"""

from ansible.errors import AnsibleFilterError
from ansible_collections.racefree.block.plugins.module_utils._base.errors import BlockError
from ansible_collections.racefree.block.plugins.module_utils._guest_disks import plan


def guest_disk_stores(value, sizes=None):
    """The stores of the snapshots."""
    try:
        return plan.stores_of(value, sizes)
    except BlockError as error:
        raise AnsibleFilterError(f"guest_disk_stores: {error}") from error


class FilterModule:
    """Jinja2 filter for guests' disks."""

    def filters(self):
        return {"guest_disk_stores": guest_disk_stores}
