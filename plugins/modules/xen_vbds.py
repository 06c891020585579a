#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: xen_vbds
short_description: Attach many disks to running Xen guests at once, or detach them
version_added: 1.0.0
description:
  - Does for a list what M(racefree.block.xen_vbd) does for one disk, in one process and over one connection
    to XenStore.
  - All entries are checked before the first disk is attached or detached. If one entry fails, the others are
    rolled back unless O(on_error=keep).
author:
  - The racefree.block contributors (@racefree)
extends_documentation_fragment:
  - racefree.block.block
  - racefree.block.block.many
  - racefree.block.xen_vbd.many
seealso:
  - module: racefree.block.xen_vbd
requirements:
  - Xen with xen-blkback in domain 0
  - pyxs (Debian's package is python3-pyxs)
  - for guests that libvirt runs, libvirt-python (Debian's package is python3-libvirt)
options:
  vbds:
    description:
      - The disks, each with the options of M(racefree.block.xen_vbd).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Attach the disks of a guest
  racefree.block.xen_vbds:
    vbds:
      - {domain: web1, vdev: xvdb, source: "file:/srv/guests/web1-data.raw"}
      - {domain: web1, vdev: xvdc, source: "file:/srv/images/golden.raw", mode: r}

- name: Detach a disk from every guest, and go on if one does not answer
  racefree.block.xen_vbds:
    vbds:
      - {domain: web1, vdev: xvdc, state: detached}
      - {domain: web2, vdev: xvdc, state: detached}
    on_error: keep

- name: Attach disks with options of their own
  racefree.block.xen_vbds:
    vbds:
      - domain: web1
        vdev: xvdd
        source: {path: /dev/mapper/web1-data}
        diskseq: "{{ data.device.diskseq }}"
        diskseq_form: diskseq
        toolstack: xenstore
        wait_connected: true
        timeout: 60
      - domain: web1
        vdev: xvde
        source: {file: /srv/iso/debian.iso}
        mode: r
        device_type: cdrom
        shared: true
        sealed: true
        sealed_below: true
        persist: false
      - domain: web1
        vdev: xvdb
        source: {file: /srv/guests/web1-new.raw}
        replace: true
      - domain: web1
        vdev: xvdc
        source: {file: /srv/guests/web1-data.raw}
        size: 40GiB

- name: Take a disk away from a guest that does not release it
  racefree.block.xen_vbds:
    vbds:
      - {domain: web1, vdev: xvdd, state: detached, force: true}
"""

RETURN = r"""
vbds:
  description: The result of each entry of O(vbds), in the same order.
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
        xvda of web1: the guest has another disk there: /dev/loop3 (diskseq 41), params /dev/loop3. Detach it
        first with state=detached, or set replace=true
    rolled_back:
      description: >-
        V(true) for an entry without an error of its own that was rolled back, or not started, because another
        entry failed. What cannot be rolled back has C(changed=true) instead, and a warning says what it is.
      returned: when O(on_error=rollback) and another entry failed
      type: bool
      sample: true
    vbd:
      description: >-
        The guest's disk. V(null) if O(vbds[].state=detached), or in check mode if it is not attached yet.
      returned: when the entry succeeded
      type: dict
      contains:
        domain:
          description: Name of the guest.
          returned: when the entry succeeded
          type: str
          sample: web1
        uuid:
          description: UUID of the guest.
          returned: when the entry succeeded
          type: str
          sample: 0c2c8a52-6b3b-4d63-9d0f-6cbd2b0f2c11
        domid:
          description: ID of the guest.
          returned: when the entry succeeded
          type: int
          sample: 5
        vdev:
          description: Name of the disk in the guest.
          returned: when the entry succeeded
          type: str
          sample: xvda
        devid:
          description: Device number of the disk in the guest.
          returned: when the entry succeeded
          type: int
          sample: 51712
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
        path:
          description: The path that was written to XenStore for other tools to show.
          returned: when the entry succeeded
          type: str
          sample: /dev/dm-3
        params:
          description: The target as C(xl block-list) shows it.
          returned: when the entry succeeded
          type: str
          sample: /dev/dm-3
        major:
          description: Major number of the device that was passed to blkback.
          returned: when the entry succeeded
          type: int
          sample: 253
        minor:
          description: Minor number of the device that was passed to blkback.
          returned: when the entry succeeded
          type: int
          sample: 3
        diskseq:
          description: Disk sequence number that was written to XenStore.
          returned: when the entry succeeded
          type: int
          sample: 42
        state:
          description: State of the backend (4 is connected).
          returned: when the entry succeeded
          type: int
          sample: 4
        frontend_state:
          description: State of the frontend (4 is connected).
          returned: when the entry succeeded
          type: int
          sample: 4
        connected:
          description: Whether the guest is connected to the disk.
          returned: when the entry succeeded
          type: bool
          sample: true
        sealed:
          description: Whether the device is sealed for this disk, so that nobody else can open it.
          returned: when the entry succeeded
          type: bool
          sample: false
    device:
      description: >-
        The identity of the device behind the disk. V(null) if O(vbds[].state=detached), or in check mode if
        the disk is not attached yet.
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
    replaced:
      description: >-
        The disk that was replaced. V(null) if none was, or in check mode.
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
          sample: "Detach it first with state=detached, or set replace=true"
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

from ansible_collections.racefree.block.plugins.module_utils._module.runner import run_many
from ansible_collections.racefree.block.plugins.module_utils._module.xen_vbd import VbdItem


def main():
    run_many(VbdItem, "vbds")


if __name__ == "__main__":
    main()
