#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: libvirt_disk
short_description: Add, change or remove a disk of a libvirt domain
version_added: 1.0.0
description:
  - Writes a disk into the definition of a domain as a recipe, so that the guest gets the right device at
    every start. A definition alone can only name a path. libvirt opens that path late, and it may lead to
    another device by then.
  - The recipe is kept in the definition's C(<metadata>). The path in C(<source>) is used by this disk of this
    domain only. When the domain starts, the collection's hook for libvirt creates and verifies the device at
    that path. If that is not possible, the hook refuses the start.
  - The rest of the definition is left unchanged. What libvirt adds to it or writes in another form does not
    count as a change.
author:
  - The racefree.block contributors (@racefree)
extends_documentation_fragment:
  - racefree.block.block
  - racefree.block.libvirt_disk
  - racefree.block.guest_disk
  - racefree.block.sealed_below
  - racefree.block.guest_disk.recipe
  - racefree.block.source
requirements:
  - libvirt-python (Debian's package is python3-libvirt)
  - for O(live=true) with Xen, xen-blkback in domain 0, and pyxs (Debian's package is python3-pyxs)
  - for domains to start, the collection's hook, installed by the role C(xen_host) or C(kvm_host)
seealso:
  - module: racefree.block.libvirt_disks
  - module: racefree.block.xen_vbd
notes:
  - Diffs only show the disk and its recipe, never the rest of the definition, which may contain passwords.
  - A plaintext key in a table is refused, because many users can read definitions.
"""

EXAMPLES = r"""
- name: Give a guest an image as the disk that it starts with
  racefree.block.libvirt_disk:
    domain: web1
    vdev: xvda
    source: {file: /srv/guests/web1.raw}

- name: Attach a logical volume, now and at every start
  racefree.block.libvirt_disk:
    domain: web1
    vdev: xvdb
    source: {path: /dev/vg0/web1-data}
    live: true

- name: Give the guest another disk in the same place, now and from the next start on
  racefree.block.libvirt_disk:
    domain: web1
    vdev: xvdb
    source: {file: /srv/guests/web1-data-new.raw}
    live: true
    replace: true

- name: Grow the disk to 20 GiB, in the running guest too
  racefree.block.libvirt_disk:
    domain: web1
    vdev: xvda
    source: {file: /srv/guests/web1.raw}
    size: 20G
    live: true

- name: Attach a disk to a guest of QEMU, now and at every start
  racefree.block.libvirt_disk:
    uri: qemu:///system
    domain: web2
    vdev: vdb
    source: {file: /srv/guests/web2-data.raw}
    live: true

- name: Insert a CD into the drive of a running guest of QEMU
  racefree.block.libvirt_disk:
    domain: web1
    vdev: sdb
    device_type: cdrom
    mode: r
    source: {file: /srv/iso/debian-13.iso}
    uri: qemu:///system
    live: true

- name: Eject it
  racefree.block.libvirt_disk:
    domain: web1
    vdev: sdb
    device_type: cdrom
    state: empty
    uri: qemu:///system
    live: true

- name: Remove it from the definition
  racefree.block.libvirt_disk:
    domain: web1
    vdev: xvdb
    state: absent

- name: Add a CD image, which other guests may read too, to the definition only
  racefree.block.libvirt_disk:
    uri: xen:///system
    domain: web1
    vdev: xvdd
    bus: xen
    source: {file: /srv/iso/debian.iso}
    mode: r
    device_type: cdrom
    shared: true
    config: true
    timeout: 60

- name: Add a disk that nobody on the host can open while the guest runs
  racefree.block.libvirt_disk:
    domain: web1
    vdev: xvde
    source: {file: /srv/guests/web1-secret.raw}
    sealed: true
    sealed_below: true
"""

RETURN = r"""
disk:
  description: The disk as it is defined. V(null) if O(state=absent).
  returned: success
  type: dict
  contains:
    domain:
      description: Name of the domain.
      returned: success
      type: str
      sample: web1
    uuid:
      description: UUID of the domain.
      returned: success
      type: str
      sample: 4dea22b3-1d52-d8f3-2516-782e98ab3fa0
    vdev:
      description: Name of the disk in the guest.
      returned: success
      type: str
      sample: xvda
    path:
      description: The path in the definition. A device is there only while the guest is starting or running.
      returned: success
      type: str
      sample: /dev/mapper/racefree-4dea22b3-1d52-d8f3-2516-782e98ab3fa0-xvda
    mode:
      description: Whether the guest may only read (V(r)) or also write (V(w)).
      returned: success
      type: str
      sample: w
    device_type:
      description: What kind of device the guest sees.
      returned: success
      type: str
      sample: disk
    recipe:
      description:
        - The recipe that is kept in the definition, or with O(config=false) in the definition of the running
          domain. V(null) with O(state=empty), and if none can be kept there.
      returned: success
      type: str
      sample: '{"file": "/srv/guests/web1.raw", "format": "raw"}'
    running:
      description: Whether the domain was running.
      returned: success
      type: bool
      sample: true
device:
  description:
    - The identity of the device that the running guest has. V(null) if O(live=false), if the domain is not
      running, and in check mode if there is none yet.
  returned: success
  type: dict
  contains:
    path:
      description:
        - Path of the device node. It refers to this device only as long as the device exists.
        - V(null) if the node is missing or belongs to another device.
      returned: success
      type: str
      sample: /dev/dm-7
    name:
      description: The kernel's name for the device.
      returned: success
      type: str
      sample: dm-7
    major:
      description: Major number.
      returned: success
      type: int
      sample: 253
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
replaced:
  description: >-
    The disk, or the medium of a CD drive of QEMU, that was replaced. V(null) if none was, or in check mode.
    The C(path) of a medium is that of the definition, where the new medium is now.
  returned: success
  type: dict
  contains:
    path:
      description: Path of its device. V(null) if the guest was releasing it already.
      returned: success
      type: str
      sample: /dev/loop3
    diskseq:
      description: Disk sequence number of its device. V(null) if the guest was releasing it already.
      returned: success
      type: int
      sample: 41
    params:
      description: The target as C(xl block-list) or C(virsh domblklist) showed it.
      returned: success
      type: str
      sample: /dev/loop3
    mode:
      description: Whether the guest could only read it (V(r)) or also write to it (V(w)).
      returned: success
      type: str
      sample: w
    device_type:
      description: What kind of device the guest saw.
      returned: success
      type: str
      sample: disk
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
      sample: xvda of web1
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
      sample: >-
        Remove it first with state=absent, or set replace=true, or set live=false, so that the new disk is
        used from the next start on
"""

from ansible_collections.racefree.block.plugins.module_utils._module.libvirt_disk import DiskItem
from ansible_collections.racefree.block.plugins.module_utils._module.runner import run_one


def main():
    run_one(DiskItem)


if __name__ == "__main__":
    main()
