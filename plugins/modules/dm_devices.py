#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dm_devices
short_description: Make, change and remove many device-mapper devices in one go
version_added: 0.1.0
description:
  - Does for a list what M(racefree.block.dm_device) does for one device, in one process and with one udev cookie.
  - Entries may stand on each other, in any order of the list. A device that another entry's table names by its path in C(/dev/mapper), or as
    V(dm:NAME,UUID), is made before that one. Of those that are removed the upper ones go first. A change that has an upper device let go of a
    lower one, and the lower one's removal, are two tasks.
  - Everything is checked before the first device is changed. When one entry fails, the others are rolled back unless O(on_error) says otherwise.
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
          - Name of the device, as in C(/dev/mapper/NAME). 1 to 127 letters, digits and characters out of C(#+-.:=@_), and not
            V(control), V(.) or V(..).
          - Required unless O(devices[].state=absent).
        type: str
      uuid:
        description:
          - The device's device-mapper uuid, up to 128 characters. When not given, a new device gets one that nobody else has.
          - A device with this uuid and another name is renamed to O(devices[].name). A device with this name and another uuid, or
            none, is left alone, and the task fails. The kernel would give a uuid to whichever device has the name at that moment, and no uuid can
            be taken back.
        type: str
      diskseq:
        description:
          - Alone, with O(devices[].state=absent), the device to remove. When no device has this number any more, nothing is changed.
          - Beside O(devices[].name) or O(devices[].uuid) it is a guard. The task fails, with nothing done, unless the device still has this
            disk sequence number.
        type: int
      table:
        description:
          - The table, in lines as C(dmsetup) takes them (start, length, target and parameters, in sectors of 512 bytes), as dictionaries
            with C(start), C(length), C(target) and the target's own fields, or as a list of both.
          - Where a target takes a device, this is C(MAJOR:MINOR), an absolute path, V(diskseq:42), V(file:/srv/a.raw), V(dm:NAME,UUID), or a dictionary with
            C(diskseq); with C(path) and perhaps the C(uuid) or C(diskseq) that it must have; with C(file) and perhaps C(offset), C(size),
            C(read_only), C(direct_io), C(sector_size), C(mtime_ns), C(format=raw), C(overlap) and
            C(trusted_path) (see O(racefree.block.xen_vbd#module:source)); or with a C(table) and perhaps C(name), C(uuid) and C(read_only).
          - A file gets a loop device, which goes when the mapped device goes unless O(devices[].persist=true) says otherwise.
          - Required for a device that is not there yet. When not given, an existing device keeps its table.
        type: raw
      keys:
        description:
          - Keys for C(crypt) and C(integrity) targets, in hexadecimal, as text. The target names one as C(var:NAME) in the place of its key,
            such as in V(internal_hash:hmac(sha256\):var:NAME), also where it is in a table that stands for a device.
          - They are in no log, diff or return value. A key in clear in O(devices[].table) is refused.
          - A C(crypt) key in the kernel's keyring is named in the table instead, as C(:SIZE:TYPE:DESCRIPTION). It is looked for in
            root's user keyring (C(@u)), where M(racefree.block.kernel_key) puts it, and in the session's.
        type: dict
      volumes:
        description:
          - Volumes that a thin pool is to have, or not to have. Only for a device whose table is one C(thin-pool) target, with O(devices[].state=present).
            Volumes that are not named are left alone.
          - Each is used through a mapped device of its own, with a C(thin) target.
          - A pool does not list its volumes. Each one named is asked for, which takes a mapped device for a moment and changes nothing in the pool.
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
              - The volume to make it from, as a snapshot, when it is not there yet. The pool has that volume, or it stands before this one in the list.
              - Mapped devices that have that volume active are suspended meanwhile, so that the snapshot is of one single moment. They are resumed
                also when the task is killed.
              - Nothing tells later of what a volume was made. One that is there is not looked at any further.
            type: int
          state:
            description:
              - Whether the volume is to be there. One that a mapped device uses is not deleted, and the task fails.
              - Volumes are deleted when all else in the task has succeeded. Volumes that were made are deleted again when the task fails.
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
          - Whether a table may be shorter than the live one while the device is in use, such as mounted. Otherwise that is an error, since who uses the
            device gets errors behind the new end.
        type: bool
        default: false
      persist:
        description:
          - With V(true), the device stays until it is removed, and so do loop devices that were made for files in its table.
          - With V(false), it goes with its last user. See O(devices[].hold).
        type: bool
        default: true
      hold:
        description:
          - With O(devices[].persist=false), for how many seconds a device that the task has made or changed is held open for its first user to come.
            After that it goes by itself if nobody has opened it. Until then it is in use, also for O(devices[].state=absent).
        type: int
        default: 60
      noflush:
        description:
          - Whether a change of the table keeps outstanding reads and writes queued rather than have them end first.
        type: bool
        default: false
      nolockfs:
        description:
          - Whether a change of the table leaves a file system on the device as it is rather than freeze it first.
        type: bool
        default: false
      udev:
        description:
          - With V(hidden), udev's rules are told to leave the device alone; no links are made for it and it is not probed.
        type: str
        choices: [full, hidden]
        default: full
      deferred:
        description:
          - With O(devices[].state=absent), whether a device in use is to go with its last user. With V(false) such a device is left as it
            is, and the task fails.
        type: bool
        default: false
      sealed:
        description:
          - With V(true), nobody can open the device any more, root included, until the seal is lifted or the device is gone. Who has it open goes on using it.
            What opens it again is refused with C(EPERM), such as C(mount), C(blkid), C(dmsetup) and udev's probers.
            The modules of this collection still find it.
          - With V(false), the seal is lifted. When not given, a seal stays as it is, and a new device has none.
          - With O(devices[].state=absent) it is possible only together with O(devices[].deferred=true). Nobody new comes to a device that goes with its last user then.
            When that removal is cancelled, by O(devices[].state=present), the seal is lifted too, unless O(devices[].sealed=true).
          - Needs a kernel with CONFIG_CGROUP_BPF, control groups of version 2 and a file system of type bpf at C(/sys/fs/bpf), and the task has to run on the
            host itself, not in a container.
          - What a seal does not stop is told in C(docs/sealed-devices.md) of the collection.
        type: bool
      timeout:
        description:
          - With O(devices[].state=absent), for how many seconds to wait for those who have the device open for a moment, such as udev.
          - Where the device is suspended, also for a moment for another table or a snapshot of one of its O(devices[].volumes), for how many seconds, at
            least 1, to wait for outstanding reads and writes to end. If they do not, the task fails and the device is as it was.
        type: int
        default: 10
      state:
        description:
          - Whether the device is to be there and live, there and suspended, or not there.
        type: str
        choices: [present, suspended, absent]
        default: present
"""

EXAMPLES = r"""
- name: Have the devices of a guest
  racefree.block.dm_devices:
    devices:
      - name: web1-root
        table: 0 2097152 linear file:/srv/guests/web1.raw 0
      - name: web1-data
        table: 0 4194304 linear file:/srv/guests/web1-data.raw 0

- name: Remove them, and go on with the others when one is in use
  racefree.block.dm_devices:
    devices:
      - {name: web1-root, state: absent}
      - {name: web1-data, state: absent}
    on_error: keep
"""

RETURN = r"""
devices:
  description: How each entry of O(devices) went, in their order.
  returned: always
  type: list
  elements: dict
  contains:
    changed:
      description: Whether the entry was changed.
      returned: always
      type: bool
    failed:
      description: V(true) for an entry that failed; C(msg) and C(error) have the reason.
      returned: when the entry failed
      type: bool
    msg:
      description: What went wrong, as text.
      returned: when the entry failed
      type: str
    rolled_back:
      description: >-
        V(true) for an entry that was fine, and of which nothing is left, since another one failed: it was rolled back, or not begun.
        What cannot be rolled back has C(changed=true) instead, and a warning says what it is.
      returned: when O(on_error=rollback) and another entry failed
      type: bool
    device:
      description: The mapped device. V(null) when O(devices[].state=absent), or in check mode when there is none yet.
      returned: when the entry succeeded
      type: dict
      contains:
        path:
          description:
            - The node's path. It names this device only for as long as the device lives.
            - V(null) when the node is missing, or is another device's.
          type: str
          sample: /dev/dm-3
        name:
          description: The kernel's name of the device.
          type: str
          sample: dm-3
        mapper_path:
          description: The link that udev makes for the mapped device's name. V(null) when it does not lead there.
          type: str
          sample: /dev/mapper/web1-root
        mapper_name:
          description: The mapped device's name.
          type: str
          sample: web1-root
        uuid:
          description: The mapped device's uuid.
          type: str
        major:
          description: Major number.
          type: int
          sample: 253
        minor:
          description: Minor number.
          type: int
          sample: 3
        diskseq:
          description: The disk sequence number, which the kernel gives to no other device until the next boot.
          type: int
          sample: 43
        boot_id:
          description: The boot that the disk sequence number is of, for where it is kept. Numbers begin anew with the next boot.
          type: str
          sample: 8b2f4c3e-6d1a-4f0e-9c57-1d2e3f405162
        partition:
          description: The number of the partition that it is, none for a whole disk. A partition has its disk's disk sequence number.
          type: int
        by_diskseq:
          description: The link that udev makes for the disk sequence number and the partition, where udev has that rule. Made late and removed late.
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
        table:
          description: The live table in dmsetup's lines, without keys. V(null) when it has a target that this collection does not know.
          type: list
          elements: str
          sample: ["0 2097152 linear 7:7 0"]
        suspended:
          description: Whether the device is suspended.
          type: bool
        persist:
          description: Whether the device stays when its last user goes.
          type: bool
        sealed:
          description: Whether nobody else can open the device.
          type: bool
        open_count:
          description: How many others have the device open.
          type: int
        status:
          description: What each target says of its state, in dmsetup's lines.
          type: list
          elements: str
          sample: ["0 2097152 snapshot-merge 16/2097152 16"]
    gone:
      description: >-
        Whether the device is gone. V(false) if its last user has yet to close it, when it was not removed because of an error,
        and in check mode if it is there.
      returned: when O(devices[].state=absent)
      type: bool
    error:
      description: What went wrong, as data.
      returned: when the entry failed
      type: dict
      contains:
        kind:
          description: The kind of error.
          type: str
          sample: TableError
        message:
          description: What was tried and what happened.
          type: str
        device:
          description: The device, file or name concerned.
          type: str
        errno:
          description: The name of the kernel's error number, or of the one that fits the kind best.
          type: str
          sample: EBUSY
        hint:
          description: What to do about it.
          type: str
        errors:
          description: For a table that is not valid, each error with its line (from 1), field, value, rule and column (from 0).
          type: list
          elements: dict
"""

from ansible_collections.racefree.block.plugins.module_utils._module.dm_device import DmItem
from ansible_collections.racefree.block.plugins.module_utils._module.runner import run_many


def main():
    run_many(DmItem)


if __name__ == "__main__":
    main()
