#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: loop_device
short_description: Create, change and remove a loop device, and return its identity
version_added: 1.0.0
description:
  - Binds a file or a block device to a loop device, and returns the device's identity. This includes its disk
    sequence number, which the kernel does not give to another device until the next boot.
  - A loop device is identified by the device and inode number of its backing file, its offset and its size,
    not by the path of the file. So a second run finds the device of the first run, whichever path is given.
  - If the task fails or its process is killed before it is done, the kernel removes the new device by itself.
author:
  - The racefree.block contributors (@racefree)
extends_documentation_fragment:
  - racefree.block.block
  - racefree.block.loop_device
  - racefree.block.device
  - racefree.block.source.backing
seealso:
  - module: racefree.block.loop_devices
  - module: racefree.block.dm_device
  - module: racefree.block.device_info
"""

EXAMPLES = r"""
- name: Create a loop device for an image
  racefree.block.loop_device:
    backing_file: /srv/guests/web1.raw
  register: disk

- name: Show which device it is
  ansible.builtin.debug:
    msg: "{{ disk.device.path }} has the disk sequence number {{ disk.device.diskseq }}"

- name: Create a read-only loop device for the second MiB of a file, without the page cache
  racefree.block.loop_device:
    backing_file: /srv/images/parts.raw
    offset: 1MiB
    size: 1MiB
    read_only: true
    direct_io: true

- name: Give a guest's logical volume sectors of 4096 bytes
  racefree.block.loop_device:
    backing: {path: /dev/mapper/vg-web3, uuid: "{{ web3_uuid }}"}
    sector_size: 4K

- name: Create a read-only view of the first GiB of a disk
  racefree.block.loop_device:
    backing: {diskseq: "{{ disk.device.diskseq }}"}
    size: 1G
    read_only: true

- name: Create a loop device with partitions, and read its table again if it has changed
  racefree.block.loop_device:
    backing_file: /srv/images/appliance.raw
    partitions: true
  register: appliance

- name: Show the partitions
  ansible.builtin.debug:
    msg: "{{ item.path }} has {{ item.size }} bytes, and the UUID {{ item.uuid }}"
  loop: "{{ appliance.device.partition_list }}"
  loop_control:
    label: "{{ item.number }}"

- name: Remove the device, but only if it is still the one that was created above
  racefree.block.loop_device:
    path: "{{ disk.device.path }}"
    diskseq: "{{ disk.device.diskseq }}"
    state: absent

- name: Create a device that is removed when its last user closes it, or after two minutes without a user
  racefree.block.loop_device:
    backing_file: /srv/guests/web2.raw
    persist: false
    hold: 120

- name: Create a device with sectors of 4 KiB over a part of a file that another device uses, too
  racefree.block.loop_device:
    backing_file: /srv/guests/web1.raw
    offset: 1MiB
    size: 512MiB
    sector_size: 4096
    overlap: true

- name: Create a device over a file that is a guest's disk, and whose first bytes look like another format
  racefree.block.loop_device:
    backing_file: /srv/guests/web2.raw
    format: raw
    trusted_path: true
    sealed: true

- name: Make the device smaller, because its file was truncated, although it is in use
  racefree.block.loop_device:
    backing_file: /srv/guests/web2.raw
    allow_shrink: true
    timeout: 30

- name: Remove the device when its last user closes it
  racefree.block.loop_device:
    backing_file: /srv/guests/web2.raw
    state: absent
    deferred: true
"""

RETURN = r"""
device:
  description: The loop device. V(null) if O(state=absent), or in check mode if it does not exist yet.
  returned: success
  type: dict
  contains:
    path:
      description:
        - Path of the device node. It refers to this device only as long as the device exists.
        - V(null) if the node is missing or belongs to another device.
      returned: success
      type: str
      sample: /dev/loop7
    name:
      description: The kernel's name for the device.
      returned: success
      type: str
      sample: loop7
    major:
      description: Major number.
      returned: success
      type: int
      sample: 7
    minor:
      description: Minor number.
      returned: success
      type: int
      sample: 7
    diskseq:
      description: Disk sequence number. The kernel does not give it to another device until the next boot.
      returned: success
      type: int
      sample: 42
    boot_id:
      description: >-
        ID of the boot in which the disk sequence number is valid, to be stored together with the number. Disk
        sequence numbers start again at every boot.
      returned: success
      type: str
      sample: 8b2f4c3e-6d1a-4f0e-9c57-1d2e3f405162
    partition:
      description: >-
        Partition number. V(null) for a whole disk. A partition has the disk sequence number of its disk.
      returned: success
      type: int
      sample: 1
    by_diskseq:
      description: >-
        The symbolic link that udev creates for the disk sequence number and the partition, if udev has a rule
        for it. udev creates and removes it with a delay.
      returned: success
      type: str
      sample: /dev/disk/by-diskseq/42
    size:
      description: Size in bytes.
      returned: success
      type: int
      sample: 1073741824
    sector_size:
      description: Logical sector size in bytes.
      returned: success
      type: int
      sample: 512
    read_only:
      description: Whether the device is read-only.
      returned: success
      type: bool
      sample: false
    backing_file:
      description: >-
        Path of the backing file as the kernel reports it. V(null) if the device is over a block device.
      returned: success
      type: str
      sample: /srv/guests/web1.raw
    backing:
      description: The block device below. V(null) if the device is over a file.
      returned: success
      type: dict
      contains:
        name:
          description: The kernel's name for the device. V(null) if the disk was unplugged.
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
          description: Disk sequence number.
          returned: success
          type: int
          sample: 41
        partition:
          description: Partition number. V(null) for a whole disk.
          returned: success
          type: int
          sample: 1
    offset:
      description: Where in the file the device begins, in bytes.
      returned: success
      type: int
      sample: 0
    size_limit:
      description: Size limit in bytes. V(0) if the device extends to the end of the file.
      returned: success
      type: int
      sample: 0
    direct_io:
      description: Whether the device bypasses the page cache.
      returned: success
      type: bool
      sample: true
    partitions:
      description: Whether the kernel scans the device for partitions.
      returned: success
      type: bool
      sample: false
    partition_table:
      description: Format of the partition table. V(null) if there is none, or one that only the kernel knows.
      returned: when O(partitions=true)
      type: str
      choices: [gpt, dos]
      sample: gpt
    partition_list:
      description:
        - The partitions that the kernel has, and those in the table that it does not have.
      returned: when O(partitions=true)
      type: list
      elements: dict
      contains:
        number:
          description: Number of the partition.
          returned: when O(partitions=true)
          type: int
          sample: 1
        path:
          description: >-
            Path of its device node. V(null) if the kernel does not have this partition, or if the node is
            missing or belongs to another device.
          returned: when O(partitions=true)
          type: str
          sample: /dev/loop7p1
        start:
          description: Where on the disk it begins, in bytes.
          returned: when O(partitions=true)
          type: int
          sample: 1048576
        size:
          description: Size in bytes.
          returned: when O(partitions=true)
          type: int
          sample: 1072693248
        type:
          description: >-
            Its type in the table, a GUID, or a number such as V(0x83). V(null) if the table does not have
            this partition.
          returned: when O(partitions=true)
          type: str
          sample: 0fc63daf-8483-4772-8e79-3d69d8477de4
        uuid:
          description: >-
            Its UUID, as in C(/dev/disk/by-partuuid). V(null) if the table does not have this partition.
          returned: when O(partitions=true)
          type: str
          sample: 2a4e7d3c-51f8-4f0e-9d55-0c1b2a394857
        problem:
          description: >-
            Why it must not be used, such as V(it overlaps partition 2). V(null) if nothing is wrong with it.
          returned: when O(partitions=true)
          type: str
          sample: it overlaps partition 2
    persist:
      description: Whether the device is kept when its last user closes it.
      returned: success
      type: bool
      sample: true
    sealed:
      description: Whether the device is sealed, so that nobody else can open it.
      returned: success
      type: bool
      sample: false
gone:
  description: >-
    Whether the device no longer exists. V(false) if its last user has not closed it yet, if an error kept it
    from being removed, and in check mode if it exists.
  returned: when O(state=absent)
  type: bool
  sample: true
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
      sample: /dev/loop7
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
      sample: "End that use first, or set deferred=true to have it detached when its last user closes it"
"""

from ansible_collections.racefree.block.plugins.module_utils._module.loop_device import LoopItem
from ansible_collections.racefree.block.plugins.module_utils._module.runner import run_one


def main():
    run_one(LoopItem)


if __name__ == "__main__":
    main()
