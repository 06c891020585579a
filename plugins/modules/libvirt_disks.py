#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: libvirt_disks
short_description: Add, change or remove many disks of libvirt domains at once
version_added: 1.0.0
description:
  - Does for a list what M(racefree.block.libvirt_disk) does for one disk, in one process. All disks of one
    domain are changed in one step.
  - All entries are checked before the first definition is changed. If one entry fails, the others are rolled
    back unless O(on_error=keep).
author:
  - The racefree.block contributors (@racefree)
extends_documentation_fragment:
  - racefree.block.block
  - racefree.block.block.many
  - racefree.block.libvirt_disk.many
seealso:
  - module: racefree.block.libvirt_disk
requirements:
  - libvirt-python (Debian's package is python3-libvirt)
  - for O(disks[].live=true) with Xen, xen-blkback in domain 0, and pyxs (Debian's package is python3-pyxs)
  - for domains to start, the collection's hook, installed by the role C(xen_host) or C(kvm_host)
options:
  disks:
    description:
      - The disks, each with the options of M(racefree.block.libvirt_disk).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Give two guests the disks that they start with
  racefree.block.libvirt_disks:
    disks:
      - domain: web1
        vdev: xvda
        source: {file: /srv/guests/web1.raw}
      - domain: web1
        vdev: xvdb
        source: {path: /dev/vg0/web1-data}
      - domain: web2
        vdev: xvda
        source: {file: /srv/guests/web2.raw}

- name: Add a CD image and a sealed disk, and remove a third disk, in the running guest too
  racefree.block.libvirt_disks:
    disks:
      - domain: web1
        uri: xen:///system
        vdev: xvdd
        bus: xen
        source: {file: /srv/iso/debian.iso}
        mode: r
        device_type: cdrom
        shared: true
        config: true
      - domain: web1
        vdev: xvde
        source: {file: /srv/guests/web1-secret.raw}
        sealed: true
        sealed_below: true
      - domain: web1
        vdev: xvdf
        state: absent
        live: true
        timeout: 60
    on_error: keep

- name: Grow one disk of a running guest, and replace another
  racefree.block.libvirt_disks:
    disks:
      - domain: web1
        vdev: xvda
        source: {file: /srv/guests/web1.raw}
        size: 40GiB
        live: true
      - domain: web1
        vdev: xvdb
        source: {file: /srv/guests/web1-new.raw}
        replace: true
        live: true
"""

RETURN = r"""
disks:
  description: The result of each entry of O(disks), in the same order.
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
        xvda of web1: the guest has another disk there: /dev/dm-7 (diskseq 42), params
        /dev/mapper/racefree-4dea22b3-1d52-d8f3-2516-782e98ab3fa0-xvda. Remove it first with state=absent, or
        set replace=true, or set live=false, so that the new disk is used from the next start on
    rolled_back:
      description: >-
        V(true) for an entry without an error of its own that was rolled back, or not started, because another
        entry failed. What cannot be rolled back has C(changed=true) instead, and a warning says what it is.
      returned: when O(on_error=rollback) and another entry failed
      type: bool
      sample: true
    disk:
      description: The disk as it is defined. V(null) if O(disks[].state=absent).
      returned: when the entry succeeded
      type: dict
      contains:
        domain:
          description: Name of the domain.
          returned: when the entry succeeded
          type: str
          sample: web1
        uuid:
          description: UUID of the domain.
          returned: when the entry succeeded
          type: str
          sample: 4dea22b3-1d52-d8f3-2516-782e98ab3fa0
        vdev:
          description: Name of the disk in the guest.
          returned: when the entry succeeded
          type: str
          sample: xvda
        path:
          description: >-
            The path in the definition. A device is there only while the guest is starting or running.
          returned: when the entry succeeded
          type: str
          sample: /dev/mapper/racefree-4dea22b3-1d52-d8f3-2516-782e98ab3fa0-xvda
        mode:
          description: Whether the guest may only read (V(r)) or also write (V(w)).
          returned: when the entry succeeded
          type: str
          sample: w
        device_type:
          description: What kind of device the guest sees.
          returned: when the entry succeeded
          type: str
          sample: disk
        recipe:
          description:
            - The recipe that is kept in the definition, or with O(disks[].config=false) in the definition of
              the running domain. V(null) with O(disks[].state=empty), and if none can be kept
              there.
          returned: when the entry succeeded
          type: str
          sample: '{"file": "/srv/guests/web1.raw", "format": "raw"}'
        running:
          description: Whether the domain was running.
          returned: when the entry succeeded
          type: bool
          sample: true
    device:
      description:
        - The identity of the device that the running guest has. V(null) if O(disks[].live=false), if the
          domain is not running, and in check mode if there is none yet.
      returned: when the entry succeeded
      type: dict
      contains:
        path:
          description:
            - Path of the device node. It refers to this device only as long as the device exists.
            - V(null) if the node is missing or belongs to another device.
          returned: when the entry succeeded
          type: str
          sample: /dev/dm-7
        name:
          description: The kernel's name for the device.
          returned: when the entry succeeded
          type: str
          sample: dm-7
        major:
          description: Major number.
          returned: when the entry succeeded
          type: int
          sample: 253
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
    replaced:
      description: >-
        The disk, or the medium of a CD drive of QEMU, that was replaced. V(null) if none was, or in check
        mode. The C(path) of a medium is that of the definition, where the new medium is now.
      returned: when the entry succeeded
      type: dict
      contains:
        path:
          description: Path of its device. V(null) if the guest was releasing it already.
          returned: when the entry succeeded
          type: str
          sample: /dev/loop3
        diskseq:
          description: Disk sequence number of its device. V(null) if the guest was releasing it already.
          returned: when the entry succeeded
          type: int
          sample: 41
        params:
          description: The target as C(xl block-list) or C(virsh domblklist) showed it.
          returned: when the entry succeeded
          type: str
          sample: /dev/loop3
        mode:
          description: Whether the guest could only read it (V(r)) or also write to it (V(w)).
          returned: when the entry succeeded
          type: str
          sample: w
        device_type:
          description: What kind of device the guest saw.
          returned: when the entry succeeded
          type: str
          sample: disk
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
          sample: xvda of web1
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
          sample: >-
            Remove it first with state=absent, or set replace=true, or set live=false, so that the new disk is
            used from the next start on
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

from ansible_collections.racefree.block.plugins.module_utils._module.libvirt_disk import DiskItem
from ansible_collections.racefree.block.plugins.module_utils._module.runner import run_many


def main():
    run_many(DiskItem, "disks")


if __name__ == "__main__":
    main()
