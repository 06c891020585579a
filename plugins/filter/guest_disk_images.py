# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: guest_disk_images
author:
  - The racefree.block contributors (@racefree)
short_description: List the images to convert for guests' disks
version_added: 1.0.0
description:
  - Lists the images of other formats that guests' disks are snapshots of, each once, as options for
    M(racefree.block.golden_image).
positional: _input
options:
  _input:
    description:
      - Guests and their disks, as the role P(racefree.block.guest_disks#role) takes them.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Convert the images
  racefree.block.golden_image:
    path: "{{ item.path }}"
    image: "{{ item.image }}"
    format: "{{ item.format }}"
    backing: "{{ item.backing }}"
    memory: "{{ item.memory | default(omit) }}"
    timeout: "{{ item.timeout | default(omit) }}"
  loop: "{{ guests | racefree.block.guest_disk_images }}"
"""

RETURN = r"""
_value:
  description: One dictionary of options for each image.
  type: list
  elements: dict
"""

from ansible.errors import AnsibleFilterError
from ansible_collections.racefree.block.plugins.module_utils._base.errors import BlockError
from ansible_collections.racefree.block.plugins.module_utils._guest_disks import plan


def guest_disk_images(value):
    """The images to convert."""
    try:
        return plan.images_of(value)
    except BlockError as error:
        raise AnsibleFilterError(f"guest_disk_images: {error}") from error


class FilterModule:
    """Jinja2 filter for guests' disks."""

    def filters(self):
        return {"guest_disk_images": guest_disk_images}
