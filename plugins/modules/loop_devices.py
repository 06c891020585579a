#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: loop_devices
short_description: Create, change and remove many loop devices at once
version_added: 1.0.0
description:
  - Does for a list what M(racefree.block.loop_device) does for one device, in one process.
  - All entries are checked before the first device is changed. If one entry fails, the others are rolled back
    unless O(on_error=keep).
author:
  - The racefree.block contributors (@racefree)
extends_documentation_fragment:
  - racefree.block.block
  - racefree.block.block.many
  - racefree.block.loop_device.many
seealso:
  - module: racefree.block.loop_device
options:
  devices:
    description:
      - The devices, each with the options of M(racefree.block.loop_device).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Create a loop device for every disk of every guest
  racefree.block.loop_devices:
    devices: >-
      {{ guest_images | map(attribute='path')
         | map('regex_replace', '^(.*)$', '{backing_file: \1}') | map('from_yaml') }}

- name: Create two loop devices, or none
  racefree.block.loop_devices:
    devices:
      - backing_file: /srv/guests/web1.raw
      - backing_file: /srv/images/golden.raw
        read_only: true
    on_error: rollback
  register: disks

- name: Remove both devices
  racefree.block.loop_devices:
    devices:
      - path: "{{ disks.devices[0].device.path }}"
        diskseq: "{{ disks.devices[0].device.diskseq }}"
        state: absent
      - path: "{{ disks.devices[1].device.path }}"
        diskseq: "{{ disks.devices[1].device.diskseq }}"
        state: absent

- name: Create devices with options of their own
  racefree.block.loop_devices:
    devices:
      - backing_file: /srv/guests/web1.raw
        offset: 1MiB
        size: 512MiB
        sector_size: 4096
        overlap: true
        partitions: true
      - backing_file: /srv/guests/web2.raw
        direct_io: true
        format: raw
        trusted_path: true
        sealed: true
      - backing: {path: /dev/vg/web4}
        sector_size: 4096
      - backing_file: /srv/guests/web3.raw
        allow_shrink: true
        persist: false
        hold: 300

- name: Remove devices when their last users close them
  racefree.block.loop_devices:
    devices:
      - backing_file: /srv/guests/web2.raw
        state: absent
        deferred: true
        timeout: 30
"""

RETURN = r"""
devices:
  description: The result of each entry of O(devices), in the same order.
  returned: always, except when the task as a whole failed, for example because storage did not answer
  type: list
  elements: dict
  contains:
    changed:
      description: Whether the entry was changed.
      returned: always
      type: bool
      sample: true
    failed:
      description: V(true) for an entry that failed. The reason is in C(msg) and C(error).
      returned: when the entry failed
      type: bool
      sample: true
    msg:
      description: The error message.
      returned: when the entry failed
      type: str
      sample: >-
        /dev/loop7: it is in use by mount /mnt. End that use first, or set deferred=true to have it
        detached when its last user closes it
    rolled_back:
      description: >-
        V(true) for an entry without an error of its own that was rolled back, or not started, because another
        entry failed. What cannot be rolled back has C(changed=true) instead, and a warning says what it is.
      returned: when O(on_error=rollback) and another entry failed
      type: bool
      sample: true
    device:
      description: >-
        The loop device. V(null) if O(devices[].state=absent), or in check mode if it does not exist yet.
      returned: when the entry succeeded
      type: dict
      contains:
        path:
          description:
            - Path of the device node. It refers to this device only as long as the device exists.
            - V(null) if the node is missing or belongs to another device.
          returned: when the entry succeeded
          type: str
          sample: /dev/loop7
        name:
          description: The kernel's name for the device.
          returned: when the entry succeeded
          type: str
          sample: loop7
        major:
          description: Major number.
          returned: when the entry succeeded
          type: int
          sample: 7
        minor:
          description: Minor number.
          returned: when the entry succeeded
          type: int
          sample: 7
        diskseq:
          description: >-
            Disk sequence number. The kernel does not give it to another device until the next boot.
          returned: when the entry succeeded
          type: int
          sample: 42
        boot_id:
          description: >-
            ID of the boot in which the disk sequence number is valid, to be stored together with the number.
            Disk sequence numbers start again at every boot.
          returned: when the entry succeeded
          type: str
          sample: 8b2f4c3e-6d1a-4f0e-9c57-1d2e3f405162
        partition:
          description: >-
            Partition number. V(null) for a whole disk. A partition has the disk sequence number of its disk.
          returned: when the entry succeeded
          type: int
          sample: 1
        by_diskseq:
          description: >-
            The symbolic link that udev creates for the disk sequence number and the partition, if udev has a
            rule for it. udev creates and removes it with a delay.
          returned: when the entry succeeded
          type: str
          sample: /dev/disk/by-diskseq/42
        size:
          description: Size in bytes.
          returned: when the entry succeeded
          type: int
          sample: 1073741824
        sector_size:
          description: Logical sector size in bytes.
          returned: when the entry succeeded
          type: int
          sample: 512
        read_only:
          description: Whether the device is read-only.
          returned: when the entry succeeded
          type: bool
          sample: false
        backing_file:
          description: >-
            Path of the backing file as the kernel reports it. V(null) if the device is over a block device.
          returned: when the entry succeeded
          type: str
          sample: /srv/guests/web1.raw
        backing:
          description: The block device below. V(null) if the device is over a file.
          returned: when the entry succeeded
          type: dict
          contains:
            name:
              description: The kernel's name for the device. V(null) if the disk was unplugged.
              returned: when the entry succeeded
              type: str
              sample: dm-3
            major:
              description: Major number.
              returned: when the entry succeeded
              type: int
              sample: 253
            minor:
              description: Minor number.
              returned: when the entry succeeded
              type: int
              sample: 3
            diskseq:
              description: Disk sequence number.
              returned: when the entry succeeded
              type: int
              sample: 41
            partition:
              description: Partition number. V(null) for a whole disk.
              returned: when the entry succeeded
              type: int
              sample: 1
        offset:
          description: Where in the file the device begins, in bytes.
          returned: when the entry succeeded
          type: int
          sample: 0
        size_limit:
          description: Size limit in bytes. V(0) if the device extends to the end of the file.
          returned: when the entry succeeded
          type: int
          sample: 0
        direct_io:
          description: Whether the device bypasses the page cache.
          returned: when the entry succeeded
          type: bool
          sample: true
        partitions:
          description: Whether the kernel scans the device for partitions.
          returned: when the entry succeeded
          type: bool
          sample: false
        partition_table:
          description: >-
            Format of the partition table. V(null) if there is none, or one that only the kernel knows.
          returned: when O(devices[].partitions=true)
          type: str
          choices: [gpt, dos]
          sample: gpt
        partition_list:
          description:
            - The partitions that the kernel has, and those in the table that it does not have.
          returned: when O(devices[].partitions=true)
          type: list
          elements: dict
          contains:
            number:
              description: Number of the partition.
              returned: when O(devices[].partitions=true)
              type: int
              sample: 1
            path:
              description: >-
                Path of its device node. V(null) if the kernel does not have this partition, or if the node is
                missing or belongs to another device.
              returned: when O(devices[].partitions=true)
              type: str
              sample: /dev/loop7p1
            start:
              description: Where on the disk it begins, in bytes.
              returned: when O(devices[].partitions=true)
              type: int
              sample: 1048576
            size:
              description: Size in bytes.
              returned: when O(devices[].partitions=true)
              type: int
              sample: 1072693248
            type:
              description: >-
                Its type in the table, a GUID, or a number such as V(0x83). V(null) if the table does not
                have this partition.
              returned: when O(devices[].partitions=true)
              type: str
              sample: 0fc63daf-8483-4772-8e79-3d69d8477de4
            uuid:
              description: >-
                Its UUID, as in C(/dev/disk/by-partuuid). V(null) if the table does not have this partition.
              returned: when O(devices[].partitions=true)
              type: str
              sample: 2a4e7d3c-51f8-4f0e-9d55-0c1b2a394857
            problem:
              description: >-
                Why it must not be used, such as V(it overlaps partition 2). V(null) if nothing is wrong with
                it.
              returned: when O(devices[].partitions=true)
              type: str
              sample: it overlaps partition 2
        persist:
          description: Whether the device is kept when its last user closes it.
          returned: when the entry succeeded
          type: bool
          sample: true
        sealed:
          description: Whether the device is sealed, so that nobody else can open it.
          returned: when the entry succeeded
          type: bool
          sample: false
    gone:
      description: >-
        Whether the device no longer exists. V(false) if its last user has not closed it yet, if an error kept
        it from being removed, and in check mode if it exists.
      returned: when O(devices[].state=absent)
      type: bool
      sample: true
    error:
      description: The error as structured data.
      returned: when the entry failed
      type: dict
      contains:
        kind:
          description: Kind of the error.
          returned: when the entry failed
          type: str
          sample: DeviceBusy
        device:
          description: >-
            The device, file, guest, key or program that the error is about. V(null) if there is none.
          returned: when the entry failed
          type: str
          sample: /dev/loop7
        errno:
          description: >-
            Name of the kernel's error number. If the error did not come from the kernel, the name that fits
            its kind best.
          returned: when the entry failed
          type: str
          sample: EBUSY
        hint:
          description: What to do about it.
          returned: when the entry failed
          type: str
          sample: "End that use first, or set deferred=true to have it detached when its last user closes it"
error:
  description: The error as structured data.
  returned: when the task as a whole failed. The error of an entry is in that entry.
  type: dict
  contains:
    kind:
      description: Kind of the error.
      returned: when the task as a whole failed
      type: str
      sample: DeadlineExceeded
    device:
      description: The device, file, guest, key or program that the error is about. V(null) if there is none.
      returned: when the task as a whole failed
      type: str
      sample: /srv/guests/web1.raw
    errno:
      description: >-
        Name of the kernel's error number. If the error did not come from the kernel, the name that fits its
        kind best.
      returned: when the task as a whole failed
      type: str
      sample: ETIMEDOUT
    hint:
      description: What to do about it.
      returned: when the task as a whole failed
      type: str
      sample: "Look for a hanging disk or network in the kernel log, and run the task again"
"""

from ansible_collections.racefree.block.plugins.module_utils._module.loop_device import LoopItem
from ansible_collections.racefree.block.plugins.module_utils._module.runner import run_many


def main():
    run_many(LoopItem)


if __name__ == "__main__":
    main()
