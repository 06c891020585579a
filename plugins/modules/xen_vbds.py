#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: xen_vbds
short_description: Give running Xen guests many disks in one go, or take them back
version_added: 0.1.0
description:
  - Does for a list what M(racefree.block.xen_vbd) does for one disk, in one process and over one connection to XenStore.
  - Everything is checked before the first disk is attached or detached. When one entry fails, what was attached is taken back unless O(on_error)
    says otherwise.
author:
  - The racefree.block contributors (@racefree)
extends_documentation_fragment:
  - racefree.block.block
  - racefree.block.block.many
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
    suboptions:
      domain:
        description:
          - The running guest's name, id or uuid.
        type: str
        required: true
      vdev:
        description:
          - The disk in the guest, like V(xvda), V(xvdb1), V(hda), V(sda), V(d3) or a device number like V(51712).
        type: str
        required: true
      source:
        description:
          - The device, required when O(vbds[].state=attached). Text such as V(diskseq:42), V(path:/dev/vg/a), V(file:/srv/a.raw) or an
            absolute path of a
            block device, or a dictionary of one of these forms.
          - With C(diskseq), the disk that has this number, or with C(partition) beside it that partition of the disk. A C(boot_id) beside it says
            which boot the number is of, and another boot's is refused. As text V(diskseq:42-part1) and V(diskseq:42@BOOT).
          - With C(path), a block device, and optionally the C(uuid) (of a mapped device) and the C(diskseq) that it must have.
          - With C(file), a loop device over this file, found or made; and optionally C(offset), C(size) (bytes), C(read_only), C(direct_io),
            C(sector_size), C(mtime_ns), the modification time (nanoseconds) that a read-only file must have, and
            C(format=raw). A file that begins as an image of another format does (qcow2, VMDK, VHD, VHDX,
            VDI, QED, Parallels, DMG, Bochs, cloop) is refused
            unless that says that it is a disk byte for byte. With C(overlap=true), or with O(vbds[].shared), another
            device may write the same part of the file. With C(trusted_path=true), a path that somebody
            else than root can redirect is an error instead of a warning.
          - With C(table), a mapped device, found or made; and optionally its C(name), C(uuid) and C(read_only).
            See O(racefree.block.dm_device#module:table).
          - When O(vbds[].state=detached), a guard. Only a disk that is this source is detached.
        type: raw
      mode:
        description:
          - Whether the guest may only read (V(r)) or also write (V(w)).
        type: str
        choices: [r, w]
        default: w
      device_type:
        description:
          - What kind of device the guest sees.
        type: str
        choices: [disk, cdrom]
        default: disk
      diskseq:
        description:
          - A guard. The task fails, with nothing done, unless the disk, or the device at the source's path, has this disk sequence number.
        type: int
      diskseq_form:
        description:
          - How a new disk's sequence number is told to the backend. A released blkback looks at none of these nodes; others may want one of those
            that were proposed for it.
          - With V(diskseq), V(physical-device-uuid), V(physical-device-luid) or V(physical-device-uid), in a node of this name.
          - With V(diskseq@number), in front of the number in the node C(physical-device). A released blkback refuses that.
          - Not for disks that libvirt attaches.
        type: str
        choices: [diskseq, diskseq@number, physical-device-uuid, physical-device-luid, physical-device-uid]
        default: diskseq
      shared:
        description:
          - Whether the disk may be used by several guests of which one writes. They must agree on who writes what, as cluster file systems do.
        type: bool
        default: false
      persist:
        description:
          - Whether a loop or mapped device that is made for O(vbds[].source) stays when the guest no longer uses it.
          - With V(false), it goes when blkback closes it, so nothing is left behind whenever the guest goes. blkback keeps it while the guest has the
            disk, also when a guest disconnects to connect again, as some do when they boot.
        type: bool
        default: true
      wait_connected:
        description:
          - Whether to wait until the guest uses the disk, and not only until blkback has opened the device.
        type: bool
        default: false
      force:
        description:
          - With O(vbds[].state=detached), whether to take the disk without asking the guest, which then gets I/O errors.
        type: bool
        default: false
      toolstack:
        description:
          - Through whom the disk is attached and detached. libvirt lists and detaches only the disks that it attached itself.
          - With V(xenstore), the nodes are written to XenStore, as C(xl) does, in one transaction.
          - With V(libvirt), libvirt is asked to do it with the path of the device, which is held meanwhile, and what it did is proved afterwards.
            It cannot be part of one transaction with the check for sharing, which is made before and after instead.
          - With V(auto), it is libvirt for a guest that libvirt runs, and XenStore for others.
        type: str
        choices: [auto, xenstore, libvirt]
        default: auto
      timeout:
        description:
          - For how many seconds to wait for blkback or the guest.
        type: int
        default: 30
      state:
        description:
          - Whether the guest is to have the disk.
        type: str
        choices: [attached, detached]
        default: attached
"""

EXAMPLES = r"""
- name: Give a guest its disks
  racefree.block.xen_vbds:
    vbds:
      - {domain: web1, vdev: xvdb, source: "file:/srv/guests/web1-data.raw"}
      - {domain: web1, vdev: xvdc, source: "file:/srv/images/golden.raw", mode: r}

- name: Take a disk back from every guest, and go on when one does not answer
  racefree.block.xen_vbds:
    vbds:
      - {domain: web1, vdev: xvdc, state: detached}
      - {domain: web2, vdev: xvdc, state: detached}
    on_error: keep
"""

RETURN = r"""
vbds:
  description: How each entry of O(vbds) went, in their order.
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
    vbd:
      description: The guest's disk. V(null) when O(vbds[].state=detached), or in check mode when there is none yet.
      returned: when the entry succeeded
      type: dict
      contains:
        domain:
          description: The guest's name.
          type: str
          sample: web1
        uuid:
          description: The guest's uuid.
          type: str
        domid:
          description: The guest's id.
          type: int
          sample: 5
        vdev:
          description: The disk's name in the guest.
          type: str
          sample: xvda
        devid:
          description: The disk's number in the guest.
          type: int
          sample: 51712
        mode:
          description: Whether the guest may only read (V(r)) or also write (V(w)).
          type: str
          sample: w
        device_type:
          description: What kind of device the guest sees.
          type: str
          sample: disk
        path:
          description: The path that was written for other tools to show.
          type: str
          sample: /dev/dm-3
        params:
          description: The target as C(xl block-list) shows it.
          type: str
          sample: /dev/dm-3
        major:
          description: Major number of the device that blkback was given.
          type: int
        minor:
          description: Minor number of the device that blkback was given.
          type: int
        diskseq:
          description: The disk sequence number that was written.
          type: int
        state:
          description: State of the backend (4 is connected).
          type: int
          sample: 4
        frontend_state:
          description: State of the frontend (4 is connected).
          type: int
          sample: 4
        connected:
          description: Whether the guest uses the disk.
          type: bool
    device:
      description: The identity of the device behind the disk. V(null) when O(vbds[].state=detached), or in check mode when there is none yet.
      returned: when the entry succeeded
      type: dict
      contains:
        path:
          description:
            - The node's path. It names this device only for as long as the device lives.
            - V(null) when the node is missing, or is another device's.
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
    error:
      description: What went wrong, as data.
      returned: when the entry failed
      type: dict
      contains:
        kind:
          description: The kind of error.
          type: str
          sample: DeadlineExceeded
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

from ansible_collections.racefree.block.plugins.module_utils._module.runner import run_many
from ansible_collections.racefree.block.plugins.module_utils._module.xen_vbd import VbdItem


def main():
    run_many(VbdItem, "vbds")


if __name__ == "__main__":
    main()
