#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: loop_devices
short_description: Make, change and remove many loop devices in one go
version_added: 0.1.0
description:
  - Does for a list what M(racefree.block.loop_device) does for one device, in one process.
  - Everything is checked before the first device is changed. When one entry fails, the others are rolled back unless O(on_error) says otherwise.
author:
  - The racefree.block contributors (@racefree)
extends_documentation_fragment:
  - racefree.block.block
  - racefree.block.block.many
seealso:
  - module: racefree.block.loop_device
options:
  devices:
    description:
      - The devices, each with the options of M(racefree.block.loop_device).
    type: list
    elements: dict
    required: true
    suboptions:
      backing_file:
        description:
          - Absolute path of the regular file.
          - When a device still has a file that was at this path before, because that was deleted or another one was renamed over it, the task
            fails and names that device. Remove it by its disk sequence number.
          - Required when O(devices[].state=present).
        type: path
      path:
        description:
          - The loop device to remove, like V(/dev/loop7). Only with O(devices[].state=absent), instead of O(devices[].backing_file).
          - Such a name can move to another device; say O(devices[].diskseq) as well.
        type: path
      diskseq:
        description:
          - Alone, with O(devices[].state=absent), the device to remove. When no device has this number any more, nothing is changed.
          - Beside O(devices[].backing_file) or O(devices[].path) it is a guard. The task fails, with nothing done, unless the device still
            has this disk sequence number.
        type: int
      offset:
        description:
          - Where in the file the device begins, in bytes. A multiple of 512.
        type: int
        default: 0
      size:
        description:
          - Size of the device in bytes, a multiple of the sector size. V(0) is all of the file behind O(devices[].offset).
        type: int
        default: 0
      sector_size:
        description:
          - Logical sector size in bytes, a power of 2 from 512 to the page size. The kernel's default is 512.
          - It cannot be changed while the device is bound.
        type: int
      read_only:
        description:
          - Whether the device is read-only. It cannot be changed while the device is bound.
        type: bool
        default: false
      direct_io:
        description:
          - Whether the file is read and written without the page cache. When not given, it stays as it is.
          - The kernel ignores in silence what the file system cannot do. This module fails instead.
        type: bool
      partitions:
        description:
          - Whether the kernel looks for partitions. When not given, it stays as it is. It cannot be switched off while the device is bound.
        type: bool
      format:
        description:
          - Says on purpose that the file is a disk byte for byte, although it begins as an image of another format does
            (qcow2, VMDK, VHD, VHDX, VDI, QED, Parallels, DMG, Bochs, cloop). A new device over such a file
            is refused otherwise; convert it with C(qemu-img convert -O raw).
          - A guest can write such bytes into a disk of its own, so say it for the disks of guests.
          - A file is never opened as another format.
        type: str
        choices: [raw]
      overlap:
        description:
          - Whether a new device may write a part of the file that another loop device writes too. It is refused otherwise, as with
            C(losetup --nooverlap), and that device is named. One that goes with its last user is waited for, 5 s at most.
        type: bool
        default: false
      trusted_path:
        description:
          - Whether it is an error that somebody else than root can make the path lead to another file, by a directory on the way that others can
            write, or a symbolic link of theirs. With V(false) that is a warning, which names the place.
        type: bool
        default: false
      allow_shrink:
        description:
          - Whether a device follows its file when that was cut while it was bound. Otherwise that is an error, since who uses the device may need
            what was behind the new end.
        type: bool
        default: false
      persist:
        description:
          - With V(true), the device stays until it is removed.
          - With V(false), it goes with its last user. See O(devices[].hold).
        type: bool
        default: true
      hold:
        description:
          - With O(devices[].persist=false), for how many seconds a device that the task has made or changed is held open for its first user to come.
            After that it goes by itself if nobody has opened it. Until then it is in use, also for O(devices[].state=absent).
        type: int
        default: 60
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
        type: int
        default: 10
      state:
        description:
          - Whether the device is to be there.
          - With V(absent) and O(devices[].backing_file) the device that has this O(devices[].offset) and O(devices[].size) is
            removed. Another one that has some of the same bytes stays, as after the file has grown under a device of a given
            size; a warning names it.
        type: str
        choices: [present, absent]
        default: present
"""

EXAMPLES = r"""
- name: Have a loop device for every disk of every guest
  racefree.block.loop_devices:
    devices: "{{ guest_images | map(attribute='path') | map('regex_replace', '^(.*)$', '{backing_file: \\1}') | map('from_yaml') }}"

- name: Have two loop devices, or none
  racefree.block.loop_devices:
    devices:
      - backing_file: /srv/guests/web1.raw
      - backing_file: /srv/images/golden.raw
        read_only: true
    on_error: rollback
  register: disks

- name: Remove them again
  racefree.block.loop_devices:
    devices:
      - {path: "{{ disks.devices[0].device.path }}", diskseq: "{{ disks.devices[0].device.diskseq }}", state: absent}
      - {path: "{{ disks.devices[1].device.path }}", diskseq: "{{ disks.devices[1].device.diskseq }}", state: absent}
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
      description: The loop device. V(null) when O(devices[].state=absent), or in check mode when there is none yet.
      returned: when the entry succeeded
      type: dict
      contains:
        path:
          description: The node's path. It names this device only for as long as the device lives.
          type: str
          sample: /dev/loop7
        name:
          description: The kernel's name of the device.
          type: str
          sample: loop7
        major:
          description: Major number.
          type: int
          sample: 7
        minor:
          description: Minor number.
          type: int
          sample: 7
        diskseq:
          description: The disk sequence number, which the kernel gives to no other device until the next boot.
          type: int
          sample: 42
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
          sample: /dev/disk/by-diskseq/42
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
        backing_file:
          description: The backing file's path as the kernel tells it.
          type: str
          sample: /srv/guests/web1.raw
        offset:
          description: Where in the file the device begins, in bytes.
          type: int
        size_limit:
          description: The size that the device was limited to, in bytes; V(0) for all of the file.
          type: int
        direct_io:
          description: Whether the page cache is left out.
          type: bool
        partitions:
          description: Whether the kernel looks for partitions.
          type: bool
        persist:
          description: Whether the device stays when its last user goes.
          type: bool
    gone:
      description: >-
        sealed:
          description: Whether nobody else can open the device.
          type: bool
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
          sample: WrongDevice
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
"""

from ansible_collections.racefree.block.plugins.module_utils._module.loop_device import LoopItem
from ansible_collections.racefree.block.plugins.module_utils._module.runner import run_many


def main():
    run_many(LoopItem)


if __name__ == "__main__":
    main()
