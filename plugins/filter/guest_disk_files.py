# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: guest_disk_files
author:
  - The racefree.block contributors (@racefree)
short_description: List the files of guests' disks
version_added: 1.0.0
description:
  - Lists the files of guests' disks and of their thin pools. With O(sizes), lists only files that have to be
    created or enlarged.
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
      - Sizes in bytes of the existing files, by path.
      - With this option, only files that have to be created or enlarged are listed. The filter fails for
        files that would have to be made smaller.
    type: dict
  identities:
    description:
      - For each path, a value that identifies its file, to find out whether two paths lead to one file. For
        an existing file this is its device and inode number, as C(stat) prints them with C(%d:%i). For a file
        that does not exist it is the path without symbolic links, as C(realpath) prints it with
        C(--canonicalize-missing).
      - With this option, paths are compared by these values, and two disks that would have the same file are
        refused. Paths that are not in it are compared as text.
    type: dict
"""

EXAMPLES = r"""
- name: Show the files
  ansible.builtin.debug:
    msg: "{{ guests | racefree.block.guest_disk_files | map(attribute='path') }}"
"""

RETURN = r"""
_value:
  description: >-
    Dictionaries with V(path), V(size) in bytes or none, V(exact), V(image), V(converted)
    (what the image is made from, or none), V(state), V(remove) (a list of paths) and V(label).
  type: list
  elements: dict
"""

from ansible.errors import AnsibleFilterError
from ansible_collections.racefree.block.plugins.module_utils._base.errors import BlockError
from ansible_collections.racefree.block.plugins.module_utils._guest_disks import plan


def guest_disk_files(value, sizes=None, identities=None):
    """The files of the disks."""
    try:
        files = plan.files_of(value, identities)
        return files if sizes is None else plan.to_resize(files, sizes, identities)
    except BlockError as error:
        raise AnsibleFilterError(f"guest_disk_files: {error}") from error


class FilterModule:
    """Jinja2 filter for guests' disks."""

    def filters(self):
        return {"guest_disk_files": guest_disk_files}
