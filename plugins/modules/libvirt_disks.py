#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: libvirt_disks
short_description: Add, change or remove many disks of libvirt domains in one go
version_added: 0.1.0
description:
  - Does for a list what M(racefree.block.libvirt_disk) does for one disk, in one process. All disks of one domain are defined at once.
  - Everything is checked before the first definition is changed. When one entry fails, what was changed is taken back unless O(on_error)
    says otherwise.
author:
  - The racefree.block contributors (@racefree)
extends_documentation_fragment:
  - racefree.block.block
  - racefree.block.block.many
seealso:
  - module: racefree.block.libvirt_disk
requirements:
  - libvirt-python (Debian's package is python3-libvirt)
  - for running domains, Xen with xen-blkback in domain 0, and pyxs (Debian's package is python3-pyxs)
  - for domains to start, the collection's hook in C(/etc/libvirt/hooks/libxl.d)
options:
  disks:
    description:
      - The disks, each with the options of M(racefree.block.libvirt_disk).
    type: list
    elements: dict
    required: true
    suboptions:
      domain:
        description:
          - The domain's name or uuid. It need not run.
        type: str
        required: true
      vdev:
        description:
          - The disk in the guest, like V(xvda), V(vda), V(hda) or V(sda). For Xen, a device number like V(51712) is understood too.
        type: str
        required: true
      source:
        description:
          - The recipe, required when O(disks[].state=present). Text such as V(file:/srv/a.raw), V(path:/dev/vg/a) or an absolute path of a block
            device, or a dictionary of one of these forms.
          - With C(file), a loop device over this file, found or made; and optionally C(offset), C(size) (bytes), C(read_only), C(direct_io),
            C(sector_size), C(mtime_ns), the modification time (nanoseconds) that a read-only file must have, and
            C(format=raw). A file that begins as an image of another format does (qcow2, VMDK, VHD, VHDX,
            VDI, QED, Parallels, DMG, Bochs, cloop) is refused
            unless that says that it is a disk byte for byte. With C(overlap=true), or with O(disks[].shared), another
            device may write the same part of the file. With C(trusted_path=true), a path that somebody
            else than root can redirect is an error instead of a warning. It is kept in the recipe once the file was found to be raw, so that
            nothing that the guest writes into its disk keeps it from starting.
          - With C(path), a block device, and optionally the C(uuid) (of a mapped device, such as a logical volume) that it must have. When it is left
            out, the uuid that the device has now is kept with the path.
          - With C(table), a mapped device, found or made; and optionally its C(name), C(uuid) and C(read_only). See
            O(racefree.block.dm_device#module:table).
          - The same snapshot or thin volume as before is never made shorter, encrypted or not.
          - Disk sequence numbers mean nothing after the next boot, so V(diskseq:42) is possible only with O(disks[].config=false). With the C(boot_id)
            that was returned beside it, as V(diskseq:42@BOOT), a number can be kept, and a start after the next boot of the host is refused.
          - So do names that are given to whichever device comes first, such as C(/dev/loop7), C(/dev/dm-3), C(/dev/block/253:3) and those in
            C(/dev/disk/by-diskseq). Other paths without a uuid are warned of, but for those in C(/dev/disk/by-id) and C(/dev/disk/by-path); labels
            and uuids of file systems are written by whoever writes the disk.
          - When O(disks[].state=absent), a guard. Only a disk with this recipe is removed.
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
      bus:
        description:
          - The bus that the disk is on, like V(xen), V(virtio), V(ide), V(scsi) or V(sata). By default libvirt chooses by the name in
            O(disks[].vdev), and a disk that is there already stays on its bus.
        type: str
      shared:
        description:
          - Whether the disk may be used by several guests of which one writes. They must agree on who writes what, as cluster file systems do.
        type: bool
        default: false
      config:
        description:
          - Whether to change the definition, which counts from the domain's next start on.
        type: bool
        default: true
      live:
        description:
          - Whether to change the running domain too, if it runs. Only for Xen.
          - With O(disks[].config=false), the domain must be running.
          - The recipe goes into the definition of the running domain too, so that the domain can be saved and restored, also after a boot of the host.
            With O(disks[].config=false) that is left out, with a warning, when the source could mean another disk by then.
        type: bool
        default: false
      uri:
        description:
          - The libvirt driver to connect to, like V(xen:///system) or V(qemu:///system).
        type: str
        default: xen:///system
      timeout:
        description:
          - For how many seconds to wait for libvirt, and for blkback or the guest when O(disks[].live=true).
        type: int
        default: 60
      state:
        description:
          - Whether the domain is to have the disk.
        type: str
        choices: [present, absent]
        default: present
"""

EXAMPLES = r"""
- name: Have two guests start with their disks
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
"""

RETURN = r"""
disks:
  description: How each entry of O(disks) went, in their order.
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
    disk:
      description: The disk as it is defined. V(null) when O(disks[].state=absent).
      returned: when the entry succeeded
      type: dict
      contains:
        domain:
          description: The domain's name.
          type: str
          sample: web1
        uuid:
          description: The domain's uuid.
          type: str
          sample: 4dea22b3-1d52-d8f3-2516-782e98ab3fa0
        vdev:
          description: The disk's name in the guest.
          type: str
          sample: xvda
        path:
          description: The path in the definition. Something is there only while the guest runs or starts.
          type: str
          sample: /dev/mapper/racefree-4dea22b3-1d52-d8f3-2516-782e98ab3fa0-xvda
        mode:
          description: Whether the guest may only read (V(r)) or also write (V(w)).
          type: str
          sample: w
        device_type:
          description: What kind of device the guest sees.
          type: str
          sample: disk
        recipe:
          description:
            - The recipe as it is kept in the definition, or with O(disks[].config=false) in that of the running domain. V(null) when none can be kept there.
          type: str
          sample: '{"file": "/srv/guests/web1.raw"}'
        running:
          description: Whether the domain was running.
          type: bool
    device:
      description:
        - The identity of the device that the running guest has. V(null) when O(disks[].live=false), when the domain does not run, and in check mode when there
          is none yet.
      returned: when the entry succeeded
      type: dict
      contains:
        path:
          description:
            - The node's path. It names this device only for as long as the device lives.
            - V(null) when the node is missing, or is another device's.
          type: str
          sample: /dev/dm-7
        name:
          description: The kernel's name of the device.
          type: str
          sample: dm-7
        major:
          description: Major number.
          type: int
          sample: 253
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

from ansible_collections.racefree.block.plugins.module_utils._module.libvirt_disk import DiskItem
from ansible_collections.racefree.block.plugins.module_utils._module.runner import run_many


def main():
    run_many(DiskItem, "disks")


if __name__ == "__main__":
    main()
