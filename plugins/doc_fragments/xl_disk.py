# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of disks of guests that xl starts."""

from __future__ import annotations

from ansible_collections.racefree.block.plugins.doc_fragments.guest_disk import ModuleDocFragment as GuestDisk
from ansible_collections.racefree.block.plugins.doc_fragments.sealed_below import (
    ModuleDocFragment as SealedBelow,
)
from ansible_collections.racefree.block.plugins.doc_fragments.source import ModuleDocFragment as Source
from ansible_collections.racefree.block.plugins.plugin_utils._fragments import in_list


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  domain:
    description:
      - Name of the guest. Its configuration is C(/etc/xen/DOMAIN.cfg), unless O(config_file) says otherwise.
      - Required if O(config_file) is not given, or if the configuration does not name the guest.
    type: str
  config_file:
    description:
      - The guest's configuration. It must exist. A symbolic link stays one.
    type: path
  vdev:
    description:
      - Name of the disk in the guest, like V(xvda), V(hda) or V(sda), or its number, like V(51712).
      - If the configuration has a disk with this name already, in any form, it is replaced.
    type: str
    required: true
  recipe:
    description:
      - Name of the recipe. By default, the one that the disk has in the configuration, or else C(GUEST-VDEV),
        such as C(web1-xvda). Needed only if the guest's name has characters other than letters, digits and
        C(._+-).
    type: str
  live:
    description:
      - Whether the running guest gets or loses the disk now, too. C(xl) attaches and detaches it, so it keeps
        the disk for a reboot and for C(xl save).
      - If the guest has the disk already, it grows if it is shorter than what O(source) and O(size) say.
        Another disk there is an error, unless O(replace=true).
      - With O(state=absent), the guest is asked to release the disk, and has O(timeout) seconds for it.
      - It is not an error if the guest does not run.
      - Requires pyxs (Debian's package is python3-pyxs), and to attach a disk, the collection's hotplug
        script.
    type: bool
    default: false
  timeout:
    description:
      - With O(live=true), how many seconds the guest has to release a disk; and how many to wait
        for its reads and writes to end before its disk grows, and then for blkback to tell it the new size.
    type: int
    default: 60
  state:
    description:
      - Whether the configuration should have the disk.
      - With V(absent), the recipe is removed, too, unless it was written by hand, or a running guest still
        has the disk. Such a guest needs the recipe if it reboots. There is a warning then.
    type: str
    choices: [present, absent]
    default: present
"""

    # As entries of a list.
    MANY: str = in_list(
        "disks",
        DOCUMENTATION,
        GuestDisk.DOCUMENTATION,
        SealedBelow.DOCUMENTATION,
        GuestDisk.RECIPE,
        Source.DOCUMENTATION,
    )
