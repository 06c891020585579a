# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: guest_disk_files
author:
  - The racefree.block contributors (@racefree)
short_description: Files of guests' disks
version_added: 0.1.0
description:
  - Lists the files that guests' disks and their thin pools are kept in, or, with O(sizes), those that have to be made or to grow.
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
      - Bytes of the files that are there, by path.
      - With this option only files that have to be made or to grow are listed. It fails for files that would have to be cut.
    type: dict
  identities:
    description:
      - What tells that two paths lead to one file, by path. That is device and inode, as C(stat) prints them with C(%d:%i), and for a file that is
        not there the path without symbolic links, as C(realpath) prints it with C(--canonicalize-missing).
      - With this option a file is one whichever symbolic or hard link leads to it, and a file that two disks would have is refused.
        Paths that are not in it are compared as they are written.
    type: dict
"""

EXAMPLES = r"""
- name: Show the files
  ansible.builtin.debug:
    msg: "{{ guests | racefree.block.guest_disk_files | map(attribute='path') }}"
"""

RETURN = r"""
_value:
  description: Dictionaries with V(path), V(size) in bytes or none, V(exact), V(image), V(state), V(remove) (a list of paths) and V(label).
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
