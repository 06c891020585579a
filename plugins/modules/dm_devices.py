#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dm_devices
short_description: Create, change and remove many device-mapper devices at once
version_added: 1.0.0
description:
  - Does for a list what M(racefree.block.dm_device) does for one device, in one process and with one udev
    cookie.
  - Devices of the list can be stacked on each other, in any order. A device that the table of another entry
    names by its path in C(/dev/mapper), or as V(dm:NAME,UUID), is created before the other one. Devices that
    are removed are removed from the top of the stack downwards. It takes two tasks to make an upper device
    stop using a lower one, and to remove the lower one.
  - All entries are checked before the first device is changed. If one entry fails, the others are rolled back
    unless O(on_error=keep).
author:
  - The racefree.block contributors (@racefree)
extends_documentation_fragment:
  - racefree.block.block
  - racefree.block.block.many
  - racefree.block.dm_device.many
seealso:
  - module: racefree.block.dm_device
options:
  devices:
    description:
      - The devices, each with the options of M(racefree.block.dm_device).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Create the devices of a guest
  racefree.block.dm_devices:
    devices:
      - name: web1-root
        table: 0 2097152 linear file:/srv/guests/web1.raw 0
      - name: web1-data
        table: 0 4194304 linear file:/srv/guests/web1-data.raw 0

- name: Remove them, and go on with the others if one is in use
  racefree.block.dm_devices:
    devices:
      - {name: web1-root, state: absent}
      - {name: web1-data, state: absent}
    on_error: keep

- name: Create an encrypted device, and a thin pool with a volume and a snapshot of it
  racefree.block.dm_devices:
    devices:
      - name: web1-secret
        uuid: guests-web1-secret
        table: "0 2097152 crypt aes-xts-plain64 var:data 0 file:/srv/guests/web1-secret.raw 0"
        keys: {data: "{{ vault_web1_key }}"}
        sealed: true
        sealed_below: true
        udev: hidden
      - name: pool
        table: "0 209715200 thin-pool /dev/vg/pool-meta /dev/vg/pool-data 128 0"
        volumes:
          - {id: 0}
          - {id: 1, snapshot_of: 0}
          - {id: 2, state: absent}

- name: Create devices that are removed with their last user
  racefree.block.dm_devices:
    devices:
      - name: web1-once
        table: 0 2097152 linear file:/srv/guests/web1.raw 0
        read_only: true
        persist: false
        hold: 300

- name: Shorten a device that is in use, without waiting for its I/O and without freezing its file system
  racefree.block.dm_devices:
    devices:
      - name: web1-root
        table: 0 1048576 linear file:/srv/guests/web1.raw 0
        diskseq: "{{ root.device.diskseq }}"
        allow_shrink: true
        noflush: true
        nolockfs: true
        timeout: 30

- name: Remove devices when their last users close them
  racefree.block.dm_devices:
    devices:
      - {name: web1-root, state: absent, deferred: true}
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
        /dev/dm-3: web1-root is in use by dm-4. End that use first, or set deferred=true to have it
        removed when its last user closes it
    rolled_back:
      description: >-
        V(true) for an entry without an error of its own that was rolled back, or not started, because another
        entry failed. What cannot be rolled back has C(changed=true) instead, and a warning says what it is.
      returned: when O(on_error=rollback) and another entry failed
      type: bool
      sample: true
    device:
      description: >-
        The mapped device. V(null) if O(devices[].state=absent), or in check mode if it does not exist yet.
      returned: when the entry succeeded
      type: dict
      contains:
        path:
          description:
            - Path of the device node. It refers to this device only as long as the device exists.
            - V(null) if the node is missing or belongs to another device.
          returned: when the entry succeeded
          type: str
          sample: /dev/dm-3
        name:
          description: The kernel's name for the device.
          returned: when the entry succeeded
          type: str
          sample: dm-3
        mapper_path:
          description: >-
            The symbolic link that udev creates for the name of the mapped device. V(null) if it does not lead
            to this device.
          returned: when the entry succeeded
          type: str
          sample: /dev/mapper/web1-root
        mapper_name:
          description: Name of the mapped device.
          returned: when the entry succeeded
          type: str
          sample: web1-root
        uuid:
          description: UUID of the mapped device.
          returned: when the entry succeeded
          type: str
          sample: RACEFREE-cc6904f4ce9add8ffdd444b97c8347a6
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
          description: >-
            Disk sequence number. The kernel does not give it to another device until the next boot.
          returned: when the entry succeeded
          type: int
          sample: 43
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
          sample: /dev/disk/by-diskseq/43
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
        table:
          description: >-
            The live table in the format of C(dmsetup table), without keys. V(null) if it has a target type
            that this collection does not know.
          returned: when the entry succeeded
          type: list
          elements: str
          sample: ["0 2097152 linear 7:7 0"]
        suspended:
          description: Whether the device is suspended.
          returned: when the entry succeeded
          type: bool
          sample: false
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
        open_count:
          description: How many times the device is open, not counting this module.
          returned: when the entry succeeded
          type: int
          sample: 1
        status:
          description: Status of each target, in the format of C(dmsetup status).
          returned: when the entry succeeded
          type: list
          elements: str
          sample: ["0 2097152 snapshot-merge 16/2097152 16"]
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
          sample: /dev/dm-3
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
          sample: "End that use first, or set deferred=true to have it removed when its last user closes it"
        errors:
          description: >-
            For an invalid table, each error with its line (from 1), target, field, value, rule, column (from
            0) and text, and, if only some kernels refuse it or would stop, C(kernels) or C(stops).
          returned: when the entry failed
          type: list
          elements: dict
          sample:
            - line: 2
              target: linear
              field: offset
              value: 5x
              rule: must be a whole number of sectors from 0 to 18014398509481983
              column: 18
              text: 8 8 linear /dev/a 5x
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

from ansible_collections.racefree.block.plugins.module_utils._module.dm_device import DmItem
from ansible_collections.racefree.block.plugins.module_utils._module.runner import run_many


def main():
    run_many(DmItem)


if __name__ == "__main__":
    main()
