#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: device_info
short_description: Tell the identity of loop and device-mapper devices, who uses them, and what the host offers
version_added: 0.1.0
description:
  - Lists all bound loop devices and all device-mapper devices with their identity, settings, and the devices above and below each.
  - Tells what the kernel, Xen and libvirt of the host offer to this collection.
author:
  - The racefree.block contributors (@racefree)
extends_documentation_fragment:
  - racefree.block.block.info
seealso:
  - module: racefree.block.loop_device
  - module: racefree.block.dm_device
options:
  diskseq:
    description:
      - Only the device that has this disk sequence number. The list is empty when no device has it.
    type: int
  path:
    description:
      - Only the block device at this path, of any kind. The list is empty when there is none.
    type: path
  features:
    description:
      - Whether to tell the host's features, too.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: See what is there
  racefree.block.device_info:
  register: found

- name: Loop devices whose file was deleted
  ansible.builtin.debug:
    msg: "{{ found.devices | selectattr('kind', 'eq', 'loop') | selectattr('backing_file', 'search', ' \\(deleted\\)$') }}"

- name: Which device is this?
  racefree.block.device_info:
    diskseq: 42
    features: false
"""

RETURN = r"""
devices:
  description:
    - The devices, each with the values of RV(racefree.block.loop_device#module:device) or RV(racefree.block.dm_device#module:device), and those below.
  returned: success
  type: list
  elements: dict
  contains:
    kind:
      description: What kind of device it is. V(other) only for one that was asked for by path or number.
      type: str
      choices: [loop, dm, other]
    path:
      description: The node's path. V(null) when the node is missing, or is another device's.
      type: str
      sample: /dev/loop7
    name:
      description: The kernel's name of the device.
      type: str
      sample: loop7
    major:
      description: Major number.
      type: int
    minor:
      description: Minor number.
      type: int
    diskseq:
      description: The disk sequence number.
      type: int
    boot_id:
      description: The boot that the disk sequence number is of, for where it is kept. Numbers begin anew with the next boot.
      type: str
      sample: 8b2f4c3e-6d1a-4f0e-9c57-1d2e3f405162
    partition:
      description: The number of the partition that it is, none for a whole disk. A partition has its disk's disk sequence number.
      type: int
    by_diskseq:
      description: The link that udev makes for the disk sequence number and the partition, where udev has that rule.
      type: str
    size:
      description: Size in bytes.
      type: int
    sector_size:
      description: Logical sector size in bytes.
      type: int
    read_only:
      description: Whether the device is read-only.
      type: bool
    mapper_path:
      description: The link that udev makes for a mapped device's name. V(null) when it does not lead there.
      returned: for mapped devices
      type: str
      sample: /dev/mapper/web1-root
    mapper_name:
      description: A mapped device's name.
      returned: for mapped devices
      type: str
      sample: web1-root
    uuid:
      description: A mapped device's uuid.
      returned: for mapped devices
      type: str
    table:
      description: A mapped device's live table in dmsetup's lines, without keys. V(null) when it has a target that this collection does not know.
      returned: for mapped devices
      type: list
      elements: str
      sample: ["0 2097152 linear 7:7 0"]
    suspended:
      description: Whether a mapped device is suspended.
      returned: for mapped devices
      type: bool
    open_count:
      description: How many others have a mapped device open.
      returned: for mapped devices
      type: int
    status:
      description: What each target of a mapped device says of its state, in dmsetup's lines.
      returned: for mapped devices
      type: list
      elements: str
      sample: ["0 2097152 snapshot-merge 16/2097152 16"]
    sealed:
      description: Whether nobody else can open a loop or mapped device.
      returned: for loop and mapped devices
      type: bool
    seal:
      description: The seal of a device that nobody else can open, V(null) when there is none.
      type: dict
      contains:
        age:
          description: For how many seconds it has been sealed.
          type: int
        refused:
          description: >-
            How many attempts to open it were refused. An C(access) and a mount count, too, and what udev tries.
          type: int
    holders:
      description: The devices that stand on this one, with C(name) and C(diskseq).
      type: list
      elements: dict
    slaves:
      description: The devices that this one stands on, with C(name) and C(diskseq).
      type: list
      elements: dict
    used_by:
      description: What is known to use the device, like names of devices above it and mount points.
      type: list
      elements: str
features:
  description: What the host offers.
  returned: success and O(features=true)
  type: dict
  contains:
    kernel:
      description: >-
        The kernel's release, and whether it has disk sequence numbers and loop devices, whether devices can be sealed (C(seals)); and whether
        cffi is installed.
      type: dict
    device_mapper:
      description: Interface version, loaded targets with their versions, and whether the strict interface version 5 is there. V(null) without device-mapper.
      type: dict
    udev:
      description: Whether udev is running.
      type: bool
    xen:
      description:
        - Xen's version, whether this is domain 0, whether blkback is there, and the XenStore daemon's socket. V(null) when not on Xen.
        - C(blkback_diskseq) tells whether blkback itself refuses a device that has another disk sequence number, which no released kernel does.
          It is V(null) while no guest has a disk to tell it by.
      type: dict
    libvirt:
      description: Versions of libvirt's binding and of the daemon for Xen. V(null) when the binding is not installed.
      type: dict
"""

from ansible_collections.racefree.block.plugins.module_utils._module.device_info import ARGUMENTS, collect
from ansible_collections.racefree.block.plugins.module_utils._module.runner import run_info


def main():
    run_info(collect, ARGUMENTS)


if __name__ == "__main__":
    main()
