#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: unused_storage
short_description: Remove files that were disks of guests, unless somebody uses them
version_added: 1.0.0
description:
  - Removes files, and fails before anything is removed if one of them is still in use or needed. It is if a
    loop device or a process of QEMU has it, or if it is named by a recipe in C(/etc/racefree-block/recipes),
    by a configuration of C(xl) in C(/etc/xen) or C(/etc/xen/auto), by the roles
    P(racefree.block.boot_devices#role) and P(racefree.block.encrypted_swap#role) for the next boot, or, with
    O(uri), by a definition of libvirt or a running guest. Files are compared by their inodes, whatever paths
    lead to them.
  - Fails, too, if one of these cannot be read.
  - Thin volumes are checked in the same way. M(racefree.block.thin_volumes) deletes them, and refuses those
    that a device uses.
  - The role P(racefree.block.guest_disks#role) uses this module for C(remove_file) and C(remove_volume).
author:
  - The racefree.block contributors (@racefree)
extends_documentation_fragment:
  - racefree.block.block
  - racefree.block.source.pool
notes:
  - Guests whose configuration is elsewhere are found only while they run.
  - A volume of one of libvirt's storage pools (C(type='volume')) is found only while the guest runs. So is
    the backing file of an image in another format, such as qcow2, unless a definition of libvirt names it.
seealso:
  - module: racefree.block.thin_volumes
  - module: racefree.block.libvirt_disks
  - module: racefree.block.xl_disks
options:
  files:
    description:
      - The files to remove. One that does not exist is no change. Of a symbolic link, the link is removed,
        and only if nobody uses the file that it leads to.
    type: list
    elements: path
  pool:
    description:
      - The pool of thin volumes that are to be deleted, as M(racefree.block.thin_volumes) takes it. Its
        O(pool.uuid), O(pool.name) and O(pool.path) are compared with what others name.
  volumes:
    description:
      - The numbers of these volumes. They are only checked. Required with O(pool).
    type: list
    elements: int
  going:
    description:
      - Disks that are removed from their guests before the storage is. In check mode, what names the storage
        for one of them is ignored. Otherwise they must be removed already, so this makes no difference.
    type: list
    elements: dict
    default: []
    suboptions:
      domain:
        description:
          - The guest's name or UUID.
        type: str
        required: true
      vdev:
        description:
          - The name of the disk in the guest.
        type: str
        required: true
  live:
    description:
      - Whether the disks in O(going) will also be detached from running guests. Then, in check mode, it is
        not checked who has the files open.
    type: bool
    default: false
  uri:
    description:
      - The libvirt connection URI. Without it, libvirt is not asked.
    type: str
  timeout:
    description:
      - How many seconds to wait for libvirt.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Remove the file of a guest that is gone, if no other guest has it
  racefree.block.unused_storage:
    files: [/srv/guests/old1.raw]
    uri: xen:///system

- name: See whether the file could be removed, once the disk is removed from its guest
  racefree.block.unused_storage:
    files: [/srv/guests/old2.raw]
    going:
      - {domain: old2, vdev: xvda}
    live: true
    uri: qemu:///system
    timeout: 30
  check_mode: true

- name: Check that no configuration of xl and no recipe names a thin volume
  racefree.block.unused_storage:
    pool: {path: /dev/mapper/guests, uuid: RACEFREE-POOL-guests}
    volumes: [2, 3]
"""

RETURN = r"""
files:
  description: The files that were removed, or that would be in check mode.
  returned: success
  type: list
  elements: str
  sample: [/srv/guests/old1.raw]
error:
  description: The error as structured data.
  returned: failure
  type: dict
  contains:
    kind:
      description: Kind of the error.
      returned: failure
      type: str
      sample: DeviceBusy
    device:
      description: The device, file, guest, key or program that the error is about. V(null) if there is none.
      returned: failure
      type: str
      sample: /srv/guests/old1.raw
    errno:
      description: >-
        Name of the kernel's error number. If the error did not come from the kernel, the name that fits its
        kind best.
      returned: failure
      type: str
      sample: EBUSY
    hint:
      description: What to do about it.
      returned: failure
      type: str
      sample: "Nothing was removed. End that use, or remove the disk there"
"""

from ansible_collections.racefree.block.plugins.module_utils._module.runner import run_one
from ansible_collections.racefree.block.plugins.module_utils._module.unused_storage import UnusedStorageItem


def main():
    run_one(UnusedStorageItem)


if __name__ == "__main__":
    main()
