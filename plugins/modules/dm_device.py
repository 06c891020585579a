#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dm_device
short_description: Create, change and remove a device-mapper device, and return its identity
version_added: 1.0.0
description:
  - Creates a mapped device from a table, and returns its identity. This includes its disk sequence number,
    which the kernel does not give to another device until the next boot.
  - The whole table is checked against this host's kernel and its target types before it is loaded, also in
    check mode. If the kernel module of a target type is not loaded yet, the check makes the kernel load it.
    The devices in the table are opened, verified and held open until the kernel has opened them.
  - If the task fails or its process is killed before it is done, the kernel removes the new device by itself.
author:
  - The racefree.block contributors (@racefree)
extends_documentation_fragment:
  - racefree.block.block
  - racefree.block.dm_device
  - racefree.block.device
  - racefree.block.sealed_below
  - racefree.block.table
  - racefree.block.volumes
seealso:
  - module: racefree.block.dm_devices
  - module: racefree.block.loop_device
  - module: racefree.block.device_info
"""

EXAMPLES = r"""
- name: Create a device for the first GiB of a file
  racefree.block.dm_device:
    name: web1-root
    table:
      - {start: 0, length: 2097152, target: linear, device: {file: /srv/guests/web1.raw}, offset: 0}
  register: root

- name: The same in the format of dmsetup, on a loop device that was created before
  racefree.block.dm_device:
    name: web1-root
    table: "0 2097152 linear diskseq:{{ disk.device.diskseq }} 0"

- name: Create an encrypted device
  racefree.block.dm_device:
    name: web1-secret
    table:
      - start: 0
        length: 2097152
        target: crypt
        cipher: aes-xts-plain64
        key: var:data
        iv_offset: 0
        device: {file: /srv/guests/web1-secret.raw}
        offset: 0
    keys:
      data: "{{ vault_web1_key }}"

- name: Create a thin pool with a volume and a snapshot of that volume
  racefree.block.dm_device:
    name: pool
    table: "0 209715200 thin-pool /dev/vg/pool-meta /dev/vg/pool-data 128 0"
    volumes:
      - {id: 0}
      - {id: 1, snapshot_of: 0}

- name: Create devices for both
  racefree.block.dm_devices:
    devices:
      - {name: web1-root, table: "0 20971520 thin /dev/mapper/pool 0"}
      - {name: web1-backup, table: "0 20971520 thin /dev/mapper/pool 1", read_only: true}

- name: Create a disk whose changes are written to a snapshot store
  racefree.block.dm_device:
    name: web1-trial
    table: "0 2097152 snapshot /dev/vg/web1 /dev/vg/web1-changes P 8"

- name: Later, to merge the changes into the disk, stop using the snapshot
  racefree.block.dm_device:
    name: web1-trial
    state: absent

- name: Merge them. The device web1 shows the merged content at once, also if it was a snapshot-origin before
  racefree.block.dm_device:
    name: web1
    table: "0 2097152 snapshot-merge /dev/vg/web1 /dev/vg/web1-changes P 8"

- name: Wait until they are merged, when the store contains nothing but its own metadata
  racefree.block.device_info:
    path: /dev/mapper/web1
    features: false
  register: web1
  until: web1.devices[0].status[0].split()[3].split('/')[0] == web1.devices[0].status[0].split()[4]
  retries: 600
  delay: 5

- name: Stop using the store
  racefree.block.dm_device:
    name: web1
    table: "0 2097152 linear /dev/vg/web1 0"

- name: Remove the device, but only if it is still the one that was created above
  racefree.block.dm_device:
    name: web1-root
    diskseq: "{{ root.device.diskseq }}"
    state: absent

- name: Create a read-only view with a UUID of its own, which udev ignores
  racefree.block.dm_device:
    name: web1-view
    uuid: backup-web1-view
    table: "0 2097152 linear /dev/vg/web1 0"
    read_only: true
    udev: hidden

- name: Create a device that is removed with its last user, who has five minutes to open it
  racefree.block.dm_device:
    name: web1-once
    table: "0 2097152 linear file:/srv/guests/web1.raw 0"
    persist: false
    hold: 300

- name: Shorten a device that is in use, without waiting for its I/O and without freezing its file system
  racefree.block.dm_device:
    name: web1-root
    table: "0 1048576 linear file:/srv/guests/web1.raw 0"
    allow_shrink: true
    noflush: true
    nolockfs: true
    timeout: 30

- name: Let nobody open the device of a running guest, nor what is below it
  racefree.block.dm_device:
    name: web1-root
    sealed: true
    sealed_below: true

- name: Remove the device when its last user closes it, and let nobody else open it until then
  racefree.block.dm_device:
    name: web1-root
    state: absent
    deferred: true
    sealed: true

- name: Delete a volume of a thin pool
  racefree.block.dm_device:
    name: pool
    volumes:
      - {id: 1, state: absent}
"""

RETURN = r"""
device:
  description: The mapped device. V(null) if O(state=absent), or in check mode if it does not exist yet.
  returned: success
  type: dict
  contains:
    path:
      description:
        - Path of the device node. It refers to this device only as long as the device exists.
        - V(null) if the node is missing or belongs to another device.
      returned: success
      type: str
      sample: /dev/dm-3
    name:
      description: The kernel's name for the device.
      returned: success
      type: str
      sample: dm-3
    mapper_path:
      description: >-
        The symbolic link that udev creates for the name of the mapped device. V(null) if it does not lead to
        this device.
      returned: success
      type: str
      sample: /dev/mapper/web1-root
    mapper_name:
      description: Name of the mapped device.
      returned: success
      type: str
      sample: web1-root
    uuid:
      description: UUID of the mapped device.
      returned: success
      type: str
      sample: RACEFREE-cc6904f4ce9add8ffdd444b97c8347a6
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
      description: Disk sequence number. The kernel does not give it to another device until the next boot.
      returned: success
      type: int
      sample: 43
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
      sample: /dev/disk/by-diskseq/43
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
    table:
      description: >-
        The live table in the format of C(dmsetup table), without keys. V(null) if it has a target type that
        this collection does not know.
      returned: success
      type: list
      elements: str
      sample: ["0 2097152 linear 7:7 0"]
    suspended:
      description: Whether the device is suspended.
      returned: success
      type: bool
      sample: false
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
    open_count:
      description: How many times the device is open, not counting this module.
      returned: success
      type: int
      sample: 1
    status:
      description: Status of each target, in the format of C(dmsetup status).
      returned: success
      type: list
      elements: str
      sample: ["0 2097152 snapshot-merge 16/2097152 16"]
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
      sample: /dev/dm-3
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
      sample: "End that use first, or set deferred=true to have it removed when its last user closes it"
    errors:
      description: >-
        For an invalid table, each error with its line (from 1), target, field, value, rule, column (from 0)
        and text, and, if only some kernels refuse it or would stop, C(kernels) or C(stops).
      returned: failure
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
"""

from ansible_collections.racefree.block.plugins.module_utils._module.dm_device import DmItem
from ansible_collections.racefree.block.plugins.module_utils._module.runner import run_one


def main():
    run_one(DmItem)


if __name__ == "__main__":
    main()
