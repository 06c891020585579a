# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: guest_disk_entries
author:
  - The racefree.block contributors (@racefree)
short_description: Convert guests' disks to entries for libvirt_disks
version_added: 1.0.0
description:
  - Converts a list of guests and their disks to entries for M(racefree.block.libvirt_disks).
  - An entry for a disk to remove has the disk's file as
    O(racefree.block.libvirt_disks#module:disks[].source), so that the disk is not removed if another one has
    taken its place.
positional: _input
options:
  _input:
    description:
      - Guests and their disks, as the role P(racefree.block.guest_disks#role) takes them.
    type: list
    elements: dict
    required: true
  state:
    description:
      - Whether to return the disks that guests should have, or those that they should not have.
    type: str
    choices: [present, absent]
    default: present
  sizes:
    description:
      - Sizes in bytes of the existing files and images, by path. The filter fails if the file of a disk that
        a guest should have is missing here.
      - Needed with O(state=absent), too, for snapshots and encrypted disks. Without it, their entries name
        only the file, and M(racefree.block.libvirt_disks) refuses to remove a disk with another recipe.
    type: dict
  check_mode:
    description:
      - Whether to leave out disks that cannot be checked yet. The file of such a disk, its image, or a file
        of its thin pool does not exist or is too small for the pool; or its file has to grow, and is empty or
        not a whole number of sectors.
    type: bool
    default: false
  mtimes:
    description:
      - Modification times of images in nanoseconds, by path. The disks of such an image are refused once it
        has been changed again.
    type: dict
  common:
    description:
      - Options for every entry, such as V(uri).
    type: dict
"""

EXAMPLES = r"""
- name: Remove the disks that are marked as absent
  racefree.block.libvirt_disks:
    disks: "{{ guests | racefree.block.guest_disk_entries(state='absent', sizes=sizes_of_files) }}"
"""

RETURN = r"""
_value:
  description: One entry for each disk.
  type: list
  elements: dict
"""

from ansible.errors import AnsibleFilterError
from ansible_collections.racefree.block.plugins.module_utils._base.errors import BlockError
from ansible_collections.racefree.block.plugins.module_utils._guest_disks import plan


def guest_disk_entries(value, state="present", sizes=None, common=None, check_mode=False, mtimes=None):
    """The entries of the disks."""
    try:
        return plan.entries_of(value, state, sizes, common, check_mode, mtimes)
    except BlockError as error:
        raise AnsibleFilterError(f"guest_disk_entries: {error}") from error


class FilterModule:
    """Jinja2 filter for guests' disks."""

    def filters(self):
        return {"guest_disk_entries": guest_disk_entries}
