# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: guest_disk_entries
author:
  - The racefree.block contributors (@racefree)
short_description: Guests' disks as libvirt_disks takes them
version_added: 0.1.0
description:
  - Turns a list of guests and their disks into what M(racefree.block.libvirt_disks) takes.
  - The entry of a disk that a guest is not to have carries its file as O(racefree.block.libvirt_disks#module:disks[].source), so that another
    disk that is there by now is not removed.
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
      - Whether to list the disks that guests are to have, or those that they are not to have.
    type: str
    choices: [present, absent]
    default: present
  sizes:
    description:
      - Bytes of the files and images that are there, by path. It fails for a disk that a guest is to have and whose file is not among them.
    type: dict
  check_mode:
    description:
      - Whether to leave out the disks whose files are not there yet, or are yet to grow.
    type: bool
    default: false
  mtimes:
    description:
      - When images were last changed, in nanoseconds, by path. Disks of an image that is among them are refused once that has changed again.
    type: dict
  common:
    description:
      - Options for every entry, such as V(uri).
    type: dict
"""

EXAMPLES = r"""
- name: Remove the disks that are marked as absent
  racefree.block.libvirt_disks:
    disks: "{{ guests | racefree.block.guest_disk_entries(state='absent') }}"
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
