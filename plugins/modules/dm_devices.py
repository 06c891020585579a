#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dm_devices
short_description: Create, change and remove many device-mapper devices at once
version_added: 0.1.0
description:
  - Does for a list what M(racefree.block.dm_device) does for one device, in one process and with one udev
    cookie.
  - Devices of the list can be stacked on each other, in any order. A device that the table of another entry
    names by its path in C(/dev/mapper), or as V(dm:NAME,UUID), is created before the other one. Devices that
    are removed are removed from the top of the stack downwards. To make an upper device stop using a lower
    one and to remove the lower one takes two tasks.
  - All entries are checked before the first device is changed. If one entry fails, the others are rolled back
    unless O(on_error=keep).
author:
  - The racefree.block contributors (@racefree)
extends_documentation_fragment:
  - racefree.block.block
  - racefree.block.block.many
seealso:
  - module: racefree.block.dm_device
options:
  devices:
    description:
      - The devices, each with the options of M(racefree.block.dm_device).
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Name of the device, as in C(/dev/mapper/NAME). 1 to 127 letters, digits and characters out of
            C(#+-.:=@_), and not V(control), V(.) or V(..).
          - Required unless O(devices[].state=absent).
        type: str
      uuid:
        description:
          - Device-mapper UUID of the device, up to 128 characters. If not given, a new device gets a unique
            one.
          - A device that has this UUID and another name is renamed to O(devices[].name). If a device has this
            name and another UUID, or none, it is left unchanged and the task fails. The kernel sets a UUID by
            name only, so it could set it on another device that has taken the name meanwhile, and a UUID
            cannot be removed.
        type: str
      diskseq:
        description:
          - On its own, with O(devices[].state=absent), this selects the device to remove. If no device has
            this number any more, nothing is changed.
          - Together with O(devices[].name) or O(devices[].uuid), this is a check. The task fails without
            changing anything unless the device has this disk sequence number.
        type: int
      table:
        description:
          - The table, as lines in the format of C(dmsetup table) (start, length, target and parameters, in
            sectors of 512 bytes), as dictionaries with C(start), C(length), C(target) and the target's own
            fields, or as a list of both.
          - A device in the table is C(MAJOR:MINOR), an absolute path, V(diskseq:42), V(file:/srv/a.raw),
            V(dm:NAME,UUID), or a dictionary. The dictionary has C(diskseq); or C(path) and optionally the
            C(uuid) or C(diskseq) that the device must have; or C(file) and optionally C(offset), C(size) or
            C(partition), C(read_only), C(direct_io), C(sector_size), C(mtime_ns), C(format=raw), C(overlap)
            and C(trusted_path) (see O(racefree.block.xen_vbd#module:source)); or C(table) and optionally
            C(name), C(uuid) and C(read_only).
          - For a file, a loop device is created. It is removed together with the mapped device unless
            O(devices[].persist=true).
          - Required for a device that does not exist yet. If not given, an existing device keeps its table.
        type: raw
      keys:
        description:
          - Keys for C(crypt) and C(integrity) targets, as hexadecimal text. A target refers to a key as
            C(var:NAME) in place of the key, for example V(internal_hash:hmac(sha256\):var:NAME). This also
            works in a table that is nested in a device field.
          - Keys never appear in logs, diffs or return values. A plaintext key in O(devices[].table) is
            refused.
          - A C(crypt) target can use a key from the kernel's keyring instead, which the table names as
            C(:SIZE:TYPE:DESCRIPTION). The key is looked up in root's user keyring (C(@u)), where
            M(racefree.block.kernel_key) puts it, and in the session keyring.
        type: dict
      volumes:
        description:
          - Volumes that should or should not exist in a thin pool. Only for a device whose table is one
            C(thin-pool) target, with O(devices[].state=present). Volumes that are not listed here are left
            unchanged.
          - Each volume is used through its own mapped device with a C(thin) target.
          - The kernel does not list the volumes of a pool. To find out whether a volume exists, the task
            creates a mapped device for it and removes it at once, which changes nothing in the pool.
        type: list
        elements: dict
        suboptions:
          id:
            description:
              - Number of the volume in its pool, from 0 to 16777215.
            type: int
            required: true
          snapshot_of:
            description:
              - The volume to create this one from, as a snapshot, if this one does not exist yet. That volume
                must exist in the pool or be listed before this one.
              - Mapped devices that use that volume are suspended meanwhile, so that the snapshot is
                consistent. They are resumed even if the task is killed.
              - The kernel does not record what a volume was created from. An existing volume is not checked.
            type: int
          state:
            description:
              - Whether the volume should exist. A volume that a mapped device uses is not deleted, and the
                task fails.
              - Volumes are deleted only after everything else in the task has succeeded. If the task fails,
                volumes that it created are deleted again.
            type: str
            choices: [present, absent]
            default: present
      read_only:
        description:
          - Whether the device is read-only.
        type: bool
        default: false
      allow_shrink:
        description:
          - Whether the new table may be shorter than the live one while the device is in use, for example
            mounted. Otherwise the task fails, because users of the device would get I/O errors behind the new
            end.
        type: bool
        default: false
      persist:
        description:
          - With V(true), the device is kept until it is removed or the host boots, and so are loop devices
            that were created for files in its table. The role racefree.block.boot_devices makes devices at
            each boot.
          - With V(false), the kernel removes the device when its last user closes it. See O(devices[].hold).
        type: bool
        default: true
      hold:
        description:
          - With O(devices[].persist=false), for how many seconds a device that the task created or changed is
            held open, so that its first user has time to open it. After that it is removed unless somebody
            has opened it. Until then it counts as in use, also for O(devices[].state=absent).
        type: int
        default: 60
      noflush:
        description:
          - Whether outstanding I/O stays queued while the table is changed, instead of being completed first.
        type: bool
        default: false
      nolockfs:
        description:
          - Whether a file system on the device is left as it is while the table is changed, instead of being
            frozen first.
        type: bool
        default: false
      udev:
        description:
          - With V(hidden), udev's rules are told to ignore the device, so no links are created for it and it
            is not probed.
        type: str
        choices: [full, hidden]
        default: full
      deferred:
        description:
          - With O(devices[].state=absent), whether a device that is in use is removed once its last user
            closes it. With V(false), such a device is left unchanged and the task fails.
        type: bool
        default: false
      sealed:
        description:
          - With V(true), the device is sealed. Nobody, not even root, can open a sealed device until the seal
            is lifted or the device is removed. Processes that have it open already can go on using it. New
            opens fail with C(EPERM), for example by C(mount), C(blkid), C(dmsetup) and udev's probers. The
            modules of this collection can still open it.
          - With V(false), the seal is lifted. If not given, an existing device keeps its seal, and a new
            device has none.
          - With O(devices[].state=absent), this requires O(devices[].deferred=true), and no new
            process can open the device before its last user closes it. If the removal is cancelled by
            O(devices[].state=present), the seal is lifted too, unless O(devices[].sealed=true).
          - Requires a kernel with CONFIG_CGROUP_BPF, control groups of version 2, and a file system of type
            bpf at C(/sys/fs/bpf). The task must run on the host itself, not in a container.
          - See C(docs/sealed-devices.md) of the collection for the limitations.
        type: bool
      sealed_below:
        description:
          - With V(true), the loop and mapped devices below the device are sealed with it, but not what is
            below a logical volume of LVM. Devices that a new table adds are sealed too. Requires
            O(devices[].sealed=true).
          - With V(false), the seals are lifted that this option has set. If not given, they stay.
        type: bool
      timeout:
        description:
          - With O(devices[].state=absent), how many seconds to wait for processes that have the device open
            only briefly, such as udev.
          - When the device is suspended, also briefly to change its table or to take a snapshot of one of its
            O(devices[].volumes), how many seconds to wait for outstanding I/O to complete, at least 1. If it
            does not complete, the task fails and the device is unchanged.
        type: int
        default: 10
      state:
        description:
          - Whether the device should exist and be active, exist and be suspended, or not exist.
        type: str
        choices: [present, suspended, absent]
        default: present
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
  returned: always
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
        web1-root: it is in use by mount /mnt. End that use first, or say deferred=true to have it go with
        its last user
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
          type: str
          sample: /dev/dm-3
        name:
          description: The kernel's name for the device.
          type: str
          sample: dm-3
        mapper_path:
          description: >-
            The symbolic link that udev creates for the name of the mapped device. V(null) if it does not lead
            to this device.
          type: str
          sample: /dev/mapper/web1-root
        mapper_name:
          description: Name of the mapped device.
          type: str
          sample: web1-root
        uuid:
          description: UUID of the mapped device.
          type: str
          sample: RACEFREE-4711-281937-5b1d7c9e
        major:
          description: Major number.
          type: int
          sample: 253
        minor:
          description: Minor number.
          type: int
          sample: 3
        diskseq:
          description: >-
            Disk sequence number. The kernel does not give it to another device until the next boot.
          type: int
          sample: 43
        boot_id:
          description: >-
            ID of the boot in which the disk sequence number is valid, to be stored together with the number.
            Disk sequence numbers start again at every boot.
          type: str
          sample: 8b2f4c3e-6d1a-4f0e-9c57-1d2e3f405162
        partition:
          description: >-
            Partition number. V(null) for a whole disk. A partition has the disk sequence number of its disk.
          type: int
          sample: 1
        by_diskseq:
          description: >-
            The symbolic link that udev creates for the disk sequence number and the partition, if udev has a
            rule for it. udev creates and removes it with a delay.
          type: str
          sample: /dev/disk/by-diskseq/43
        size:
          description: Size in bytes.
          type: int
          sample: 1073741824
        sector_size:
          description: Logical sector size in bytes.
          type: int
          sample: 512
        read_only:
          description: Whether the device is read-only.
          type: bool
          sample: false
        table:
          description: >-
            The live table in the format of C(dmsetup table), without keys. V(null) if it has a target type
            that this collection does not know.
          type: list
          elements: str
          sample: ["0 2097152 linear 7:7 0"]
        suspended:
          description: Whether the device is suspended.
          type: bool
          sample: false
        persist:
          description: Whether the device is kept when its last user closes it.
          type: bool
          sample: true
        sealed:
          description: Whether the device is sealed, so that nobody else can open it.
          type: bool
          sample: false
        open_count:
          description: How many times the device is open, not counting this module.
          type: int
          sample: 1
        status:
          description: Status of each target, in the format of C(dmsetup status).
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
          type: str
          sample: DeviceBusy
        device:
          description: The device, file or name concerned.
          type: str
          sample: web1-root
        errno:
          description: >-
            Name of the kernel's error number. If the error did not come from the kernel, the name that fits
            its kind best.
          type: str
          sample: EBUSY
        hint:
          description: What to do about it.
          type: str
          sample: "End that use first, or say deferred=true to have it go with its last user"
        errors:
          description: >-
            For an invalid table, each error with its line (from 1), field, value, rule and column (from 0).
          type: list
          elements: dict
          sample: [{line: 2, field: offset, value: 5x, rule: must be a whole number of sectors, column: 11}]
"""

from ansible_collections.racefree.block.plugins.module_utils._module.dm_device import DmItem
from ansible_collections.racefree.block.plugins.module_utils._module.runner import run_many


def main():
    run_many(DmItem)


if __name__ == "__main__":
    main()
