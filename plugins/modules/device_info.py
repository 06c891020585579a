#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: device_info
short_description: >-
  Return the identity of loop and device-mapper devices, what uses them, and the features of the host
version_added: 1.0.0
description:
  - Lists all bound loop devices and all device-mapper devices, each with its identity, its settings, and the
    devices directly above and below it.
  - Reports which features of the kernel, Xen and libvirt are available on the host.
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
      - Only the block device at this path, of any kind. The list is empty when there is none. Not together
        with O(diskseq).
    type: path
  partitions:
    description:
      - Whether to read the partition tables of the devices, and to return their partitions.
    type: bool
    default: false
  warn_percent:
    description:
      - Warn about each snapshot store and thin pool that is at least this full, in percent (1 to 100), and
        about those that no longer work. RV(nearly_full) has the same texts.
    type: int
  features:
    description:
      - Whether to report the host's features too.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: List the devices of the host
  racefree.block.device_info:
  register: found

- name: Show loop devices whose file was deleted
  ansible.builtin.debug:
    msg: "{{ loops | selectattr('backing_file', 'search', ' \\(deleted\\)$') }}"
  vars:
    loops: "{{ found.devices | selectattr('kind', 'eq', 'loop') }}"

- name: List the partitions of a disk
  racefree.block.device_info:
    path: /dev/sdb
    partitions: true
    features: false
  register: disk

- name: Fail if a snapshot store or a thin pool is nearly full
  racefree.block.device_info:
    warn_percent: 80
    features: false
  register: found
  failed_when: found.nearly_full | length > 0

- name: Find a device by its disk sequence number
  racefree.block.device_info:
    diskseq: 42
    features: false
"""

RETURN = r"""
devices:
  description:
    - The devices, each with the values of RV(racefree.block.loop_device#module:device) or
      RV(racefree.block.dm_device#module:device), and others.
  returned: success
  type: list
  elements: dict
  contains:
    kind:
      description: >-
        Kind of the device. V(other) only occurs for a device that was selected by O(path) or O(diskseq).
      returned: success
      type: str
      sample: loop
      choices: [loop, dm, other]
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
      returned: for loop devices
      type: str
      sample: /srv/guests/web1.raw
    backing:
      description: The block device below. V(null) if the device is over a file.
      returned: for loop devices
      type: dict
      contains:
        name:
          description: The kernel's name for the device. V(null) if the disk was unplugged.
          returned: for loop devices
          type: str
          sample: dm-3
        major:
          description: Major number.
          returned: for loop devices
          type: int
          sample: 253
        minor:
          description: Minor number.
          returned: for loop devices
          type: int
          sample: 3
        diskseq:
          description: Disk sequence number.
          returned: for loop devices
          type: int
          sample: 41
        partition:
          description: Partition number. V(null) for a whole disk.
          returned: for loop devices
          type: int
          sample: 1
    offset:
      description: Where in the file the device begins, in bytes.
      returned: for loop devices
      type: int
      sample: 0
    size_limit:
      description: Size limit in bytes. V(0) if the device extends to the end of the file.
      returned: for loop devices
      type: int
      sample: 0
    direct_io:
      description: Whether the device bypasses the page cache.
      returned: for loop devices
      type: bool
      sample: true
    partitions:
      description: Whether the kernel scans the device for partitions.
      returned: for loop devices
      type: bool
      sample: false
    mapper_path:
      description: >-
        The symbolic link that udev creates for the name of the mapped device. V(null) if it does not lead to
        this device.
      returned: for mapped devices
      type: str
      sample: /dev/mapper/web1-root
    mapper_name:
      description: Name of the mapped device.
      returned: for mapped devices
      type: str
      sample: web1-root
    uuid:
      description: UUID of the mapped device.
      returned: for mapped devices
      type: str
      sample: RACEFREE-cc6904f4ce9add8ffdd444b97c8347a6
    table:
      description: >-
        The live table in the format of C(dmsetup table), without keys. V(null) if it has a target type that
        this collection does not know.
      returned: for mapped devices
      type: list
      elements: str
      sample: ["0 2097152 linear 7:7 0"]
    suspended:
      description: Whether the device is suspended.
      returned: for mapped devices
      type: bool
      sample: false
    open_count:
      description: How many times the device is open, not counting this module.
      returned: for mapped devices
      type: int
      sample: 1
    status:
      description: Status of each target, in the format of C(dmsetup status).
      returned: for mapped devices
      type: list
      elements: str
      sample: ["0 2097152 snapshot-merge 16/2097152 16"]
    space:
      description: How full a snapshot's store or a thin pool is. V(null) for other mapped devices.
      returned: for mapped devices
      type: dict
      contains:
        kind:
          description: V(store) for a snapshot, V(pool) for a thin pool.
          returned: for mapped devices
          type: str
          choices: [store, pool]
          sample: store
        used:
          description: Bytes in use. For a store, this includes its metadata.
          returned: for mapped devices
          type: int
          sample: 805306368
        size:
          description: Size in bytes.
          returned: for mapped devices
          type: int
          sample: 1073741824
        percent:
          description: The same in percent, with one decimal.
          returned: for mapped devices
          type: float
          sample: 75.0
        metadata:
          description: C(used), C(size) and C(percent) of a pool's metadata. V(null) for a store.
          returned: for mapped devices
          type: dict
          sample: {used: 1048576, size: 8388608, percent: 12.5}
    persist:
      description: Whether the device is kept when its last user closes it.
      returned: for loop and mapped devices
      type: bool
      sample: true
    sealed:
      description: Whether the device is sealed, so that nobody else can open it.
      returned: for loop and mapped devices
      type: bool
      sample: false
    seal:
      description: The seal of a sealed device. V(null) if the device is not sealed.
      returned: success
      type: dict
      contains:
        age:
          description: For how many seconds the device has been sealed.
          returned: success
          type: int
          sample: 3600
        refused:
          description: >-
            How many attempts to open the device were refused, including those of udev, mounts and calls of
            C(access).
          returned: success
          type: int
          sample: 4
        reasons:
          description: >-
            Why it is sealed. V(own) is its own option C(sealed). V(vbd 5 51712) is the disk with this device
            number of the guest with this ID. V(below 253:3 42 own) is the option C(sealed_below) of the
            device 253:3, with the disk sequence number 42.
          returned: success
          type: list
          elements: str
          sample: [own]
    partition_table:
      description: Format of the partition table. V(null) if there is none, or one that only the kernel knows.
      returned: when O(partitions=true)
      type: str
      choices: [gpt, dos]
      sample: gpt
    partition_list:
      description:
        - The partitions that the kernel has, and those in the table that it does not have.
        - The kernel reads no partition table of a mapped device, so its partitions have no path.
        - V(null) if the device cannot be read.
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
    partition_error:
      description: Why the partition table cannot be read. V(null) if it was read.
      returned: when O(partitions=true)
      type: str
      sample: it is suspended, so its partition table cannot be read
    holders:
      description: >-
        The devices directly above this one, each with C(name) and C(diskseq). This includes loop devices over
        this device.
      returned: success
      type: list
      elements: dict
      sample: [{name: dm-3, diskseq: 43}]
    slaves:
      description: The devices directly below this one, each with C(name) and C(diskseq).
      returned: success
      type: list
      elements: dict
      sample: [{name: loop7, diskseq: 42}]
    used_by:
      description: Known users of the device, such as names of devices above it and mount points.
      returned: success
      type: list
      elements: str
      sample: [dm-3]
nearly_full:
  description: Texts about stores and pools that are at least O(warn_percent) full, or no longer work.
  returned: success
  type: list
  elements: str
  sample: ["the snapshot store of web1 is 91.4 % full: 981467136 of 1073741824 bytes"]
features:
  description: Features of the host.
  returned: success and O(features=true)
  type: dict
  contains:
    kernel:
      description: >-
        The kernel's release, whether it supports disk sequence numbers, loop devices and sealed devices
        (C(seals)), and whether cffi is installed.
      returned: success and O(features=true)
      type: dict
      sample: {release: 6.12.48+deb13-amd64, diskseq: true, loop: true, cffi: true, seals: true}
    device_mapper:
      description: >-
        Interface version, loaded targets with their versions, and whether the strict interface version 5 is
        supported. V(null) without device-mapper.
      returned: success and O(features=true)
      type: dict
      sample: {version: 4.48.0, targets: {linear: 1.5.0, striped: 1.7.0}, strict_version_5: false}
    udev:
      description: Whether udev is running.
      returned: success and O(features=true)
      type: bool
      sample: true
    xen:
      description:
        - Xen's version, whether this is domain 0, whether blkback is available, and the socket of the
          XenStore daemon. V(null) when not on Xen.
        - C(blkback_diskseq) is whether blkback itself refuses a device that has another disk sequence number
          than the one in XenStore. No released kernel does that. V(null) as long as no guest has a disk,
          because it cannot be determined then.
      returned: success and O(features=true)
      type: dict
      sample:
        {version: 4.20.0, domain_0: true, blkback: true, blkback_diskseq: false, xenstored_socket:
        /run/xenstored/socket}
    libvirt:
      description: >-
        Versions of libvirt's Python binding and of the libvirt daemon for Xen. V(null) if the binding is not
        installed.
      returned: success and O(features=true)
      type: dict
      sample: {binding: 11.3.0, daemon: 11.3.0}
error:
  description: The error as structured data.
  returned: failure
  type: dict
  contains:
    kind:
      description: Kind of the error.
      returned: failure
      type: str
      sample: KernelError
    device:
      description: The device, file, guest, key or program that the error is about. V(null) if there is none.
      returned: failure
      type: str
      sample: /dev/sdb
    errno:
      description: >-
        Name of the kernel's error number. If the error did not come from the kernel, the name that fits its
        kind best.
      returned: failure
      type: str
      sample: EIO
    hint:
      description: What to do about it.
      returned: failure
      type: str
      sample: "Look for the device's error in the kernel's log (dmesg)"
"""

from ansible_collections.racefree.block.plugins.module_utils._module.device_info import ARGUMENTS, collect
from ansible_collections.racefree.block.plugins.module_utils._module.runner import run_info


def main():
    run_info(collect, ARGUMENTS)


if __name__ == "__main__":
    main()
