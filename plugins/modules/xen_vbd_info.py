#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: xen_vbd_info
short_description: Return the disks of running Xen guests, and the devices that blkback has open for them
version_added: 1.0.0
description:
  - Lists the disks that blkback serves to the running guests of this host, whichever tool attached them. For
    each disk, it returns the device that blkback really has open, and whether that is the device that was
    meant.
  - Opens no device, so a dead disk or a missing device node does not stop it.
author:
  - The racefree.block contributors (@racefree)
extends_documentation_fragment:
  - racefree.block.block.info
requirements:
  - pyxs (Debian's package is python3-pyxs)
seealso:
  - module: racefree.block.xen_vbd
  - module: racefree.block.device_info
  - plugin: racefree.block.stack_tree
    plugin_type: filter
options:
  domain:
    description:
      - Only the disks of this running guest, given by its name, ID or UUID. The task fails if no such guest
        runs.
    type: str
  vdev:
    description:
      - Only disks with this name in the guest, such as V(xvda).
    type: str
"""

EXAMPLES = r"""
- name: List the disks of all guests
  racefree.block.xen_vbd_info:
  register: disks

- name: Fail if a guest has another device than the one that was meant
  ansible.builtin.assert:
    that: wrong | length == 0
    fail_msg: "{{ wrong | map(attribute='problem') | join('; ') }}"
  vars:
    wrong: "{{ disks.vbds | rejectattr('problem', 'none') }}"

- name: Look at one disk of one guest
  racefree.block.xen_vbd_info:
    domain: web1
    vdev: xvda
"""

RETURN = r"""
vbds:
  description: >-
    The disks, sorted by the guest's ID and the disk's number. If nodes of a disk in XenStore are invalid,
    C(problem) says which, and all values that are read from the nodes are V(null).
  returned: success
  type: list
  elements: dict
  contains:
    domain:
      description: Name of the guest. V(null) if it has none (yet).
      returned: success
      type: str
      sample: web1
    uuid:
      description: UUID of the guest. V(null) if the guest is being created or destroyed.
      returned: success
      type: str
      sample: 0c2c8a52-6b3b-4d63-9d0f-6cbd2b0f2c11
    domid:
      description: ID of the guest. It can later belong to another guest.
      returned: success
      type: int
      sample: 3
    vdev:
      description: Name of the disk in the guest. V(null) if nodes of the disk in XenStore are invalid.
      returned: success
      type: str
      sample: xvda
    devid:
      description: Device number of the disk in the guest.
      returned: success
      type: int
      sample: 51712
    mode:
      description: Whether the guest may only read (V(r)) or also write (V(w)).
      returned: success
      type: str
      sample: w
    device_type:
      description: What kind of device the guest sees.
      returned: success
      type: str
      sample: disk
    path:
      description: The path that was written to XenStore for other tools to show. Only a label.
      returned: success
      type: str
      sample: /dev/dm-3
    params:
      description: The target as C(xl block-list) shows it.
      returned: success
      type: str
      sample: /dev/dm-3
    script:
      description: The hotplug script of the disk.
      returned: success
      type: str
      sample: /etc/xen/scripts/block-racefree
    major:
      description: Major number that was passed to blkback.
      returned: success
      type: int
      sample: 253
    minor:
      description: Minor number that was passed to blkback.
      returned: success
      type: int
      sample: 3
    diskseq:
      description: >-
        Disk sequence number that was written to XenStore. V(null) for a disk that was attached by a tool that
        does not write it, such as Xen's own hotplug script.
      returned: success
      type: int
      sample: 42
    state:
      description: State of the backend (4 is connected).
      returned: success
      type: int
      sample: 4
    frontend_state:
      description: State of the frontend (4 is connected).
      returned: success
      type: int
      sample: 4
    connected:
      description: Whether the guest is connected to the disk.
      returned: success
      type: bool
      sample: true
    device:
      description: The device that blkback has open. V(null) if it has none open.
      returned: success
      type: dict
      contains:
        name:
          description: The kernel's name for the device.
          returned: success
          type: str
          sample: dm-3
        major:
          description: Major number.
          returned: success
          type: int
          sample: 253
        minor:
          description: Minor number.
          returned: success
          type: int
          sample: 3
        diskseq:
          description: The disk sequence number; for a partition, of its disk.
          returned: success
          type: int
          sample: 42
        size:
          description: Size in bytes.
          returned: success
          type: int
          sample: 1073741824
        read_only:
          description: Whether the device is read-only.
          returned: success
          type: bool
          sample: false
    intended:
      description:
        - Whether blkback has the device open whose number and disk sequence number were written to XenStore.
        - V(null) if it has no device open, or if no disk sequence number was written.
      returned: success
      type: bool
      sample: true
    size:
      description: >-
        Size in bytes that the backend has told the guest. It differs from the size of the device if that has
        grown and the backend has not noticed yet. V(null) before the guest is connected.
      returned: success
      type: int
      sample: 1073741824
    statistics:
      description: Counters since the disk was attached. V(null) if blkback does not serve the disk any more.
      returned: success
      type: dict
      sample:
        read_requests: 812
        write_requests: 97
        flush_requests: 12
        discard_requests: 0
        out_of_requests: 0
        bytes_read: 21299200
        bytes_written: 1908736
    problem:
      description: >-
        What is wrong with the disk, such as another device than the intended one, an error of the backend, or
        an invalid node in XenStore. V(null) if nothing is.
      returned: success
      type: str
      sample: "blkback has 253:7 (diskseq 51) open, but the nodes name 253:3 (diskseq 42)"
error:
  description: The error as structured data.
  returned: failure
  type: dict
  contains:
    kind:
      description: Kind of the error.
      returned: failure
      type: str
      sample: GuestError
    device:
      description: The device, file, guest, key or program that the error is about. V(null) if there is none.
      returned: failure
      type: str
      sample: web1
    errno:
      description: >-
        Name of the kernel's error number. If the error did not come from the kernel, the name that fits its
        kind best.
      returned: failure
      type: str
      sample: ESRCH
    hint:
      description: What to do about it.
      returned: failure
      type: str
      sample: "Look at the guest (xl list, xenstore-ls) and at its console"
"""

from ansible_collections.racefree.block.plugins.module_utils._module.runner import run_info
from ansible_collections.racefree.block.plugins.module_utils._module.xen_vbd_info import ARGUMENTS, collect


def main():
    run_info(collect, ARGUMENTS)


if __name__ == "__main__":
    main()
