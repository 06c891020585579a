#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: xen_vbd
short_description: Attach a disk to a running Xen guest, or detach it
version_added: 1.0.0
description:
  - Attaches a block device of domain 0 to a running guest through XenStore and xen-blkback. The device is
    opened and verified first, and held open until blkback has opened it. So the guest cannot get another
    device that has taken the same name or number meanwhile.
  - C(xl) lists the disk and can detach it. For a guest that libvirt runs, C(virsh) does too.
  - If one guest can write to a disk, other guests cannot get it, not even through other loop or device-mapper
    devices on the same storage, unless O(shared=true).
author:
  - The racefree.block contributors (@racefree)
extends_documentation_fragment:
  - racefree.block.block
  - racefree.block.xen_vbd
  - racefree.block.guest_disk
  - racefree.block.sealed_below
  - racefree.block.source
requirements:
  - Xen with xen-blkback in domain 0
  - pyxs (Debian's package is python3-pyxs)
  - for guests that libvirt runs, libvirt-python (Debian's package is python3-libvirt)
seealso:
  - module: racefree.block.xen_vbds
  - module: racefree.block.loop_device
  - module: racefree.block.dm_device
notes:
  - The disk is attached to the running guest. It is not written to the guest's configuration.
  - Until blkback has opened the device, a separate process holds it open, so killing the module does no harm.
"""

EXAMPLES = r"""
- name: Attach a device that was created before
  racefree.block.xen_vbd:
    domain: web1
    vdev: xvda
    source: {diskseq: "{{ root.device.diskseq }}"}
    mode: w

- name: Attach an image, with a loop device that is removed when the guest ends
  racefree.block.xen_vbd:
    domain: web1
    vdev: xvdb
    source: {file: /srv/guests/web1-data.raw}
    persist: false

- name: Attach the first partition of a disk whose number was stored, unless the host has booted since
  racefree.block.xen_vbd:
    domain: web1
    vdev: xvdf
    source:
      diskseq: "{{ stored.diskseq }}"
      boot_id: "{{ stored.boot_id }}"
      partition: 1

- name: Attach a part of a file that other devices use, too, if nobody but root can redirect its path
  racefree.block.xen_vbd:
    domain: web1
    vdev: xvdg
    source:
      file: /srv/guests/web1-parts.raw
      offset: 1MiB
      size: 512MiB
      sector_size: 4K
      direct_io: true
      format: raw
      overlap: true
      trusted_path: true

- name: Attach an image that must not have changed since its checksum was verified
  racefree.block.xen_vbd:
    domain: web1
    vdev: xvdh
    source:
      file: /srv/images/appliance.raw
      read_only: true
      mtime_ns: "{{ golden.golden.mtime_ns }}"
    mode: r

- name: Attach a mapped device, which is created if it does not exist
  racefree.block.xen_vbd:
    domain: web1
    vdev: xvdi
    source:
      name: web1-both
      uuid: web1-both
      table:
        - {start: 0, length: 2097152, target: linear, device: {file: /srv/guests/a.raw}, offset: 0}
        - {start: 2097152, length: 2097152, target: linear, device: {file: /srv/guests/b.raw}, offset: 0}
    persist: false

- name: Grow the disk of a running guest, and its file, to 20 GiB
  racefree.block.xen_vbd:
    domain: web1
    vdev: xvdb
    source: {file: /srv/guests/web1-data.raw}
    size: 20G

- name: Attach a disk that nobody on the host can open while the guest has it
  racefree.block.xen_vbd:
    domain: web1
    vdev: xvdb
    source: {file: /srv/guests/web1-data.raw}
    persist: false
    sealed: true

- name: Give the guest another disk in the same place, in one step
  racefree.block.xen_vbd:
    domain: web1
    vdev: xvdb
    source: {file: /srv/guests/web1-data-new.raw}
    persist: false
    replace: true

- name: Change the CD of a paravirtual guest
  racefree.block.xen_vbd:
    domain: web1
    vdev: xvdc
    source: {file: /srv/iso/debian-13.iso}
    device_type: cdrom
    mode: r
    persist: false
    replace: true

- name: Detach the disk when the guest agrees
  racefree.block.xen_vbd:
    domain: web1
    vdev: xvdb
    state: detached
    timeout: 20

- name: Attach a device only if it is still the one that was created, and wait until the guest uses it
  racefree.block.xen_vbd:
    domain: web1
    vdev: xvdd
    source: {path: /dev/mapper/web1-data}
    diskseq: "{{ data.device.diskseq }}"
    diskseq_form: diskseq
    toolstack: xenstore
    wait_connected: true

- name: Attach an image that several guests read, and seal what is below it
  racefree.block.xen_vbd:
    domain: web1
    vdev: xvde
    source: {file: /srv/iso/debian.iso}
    mode: r
    shared: true
    sealed: true
    sealed_below: true

- name: Take a disk away from a guest that does not release it
  racefree.block.xen_vbd:
    domain: web1
    vdev: xvdd
    state: detached
    force: true
"""

RETURN = r"""
vbd:
  description: The guest's disk. V(null) if O(state=detached), or in check mode if it is not attached yet.
  returned: success
  type: dict
  contains:
    domain:
      description: Name of the guest.
      returned: success
      type: str
      sample: web1
    uuid:
      description: UUID of the guest.
      returned: success
      type: str
      sample: 0c2c8a52-6b3b-4d63-9d0f-6cbd2b0f2c11
    domid:
      description: ID of the guest.
      returned: success
      type: int
      sample: 5
    vdev:
      description: Name of the disk in the guest.
      returned: success
      type: str
      sample: xvda
    devid:
      description: Device number of the disk in the guest.
      returned: success
      type: int
      sample: 51712
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
    path:
      description: The path that was written to XenStore for other tools to show.
      returned: success
      type: str
      sample: /dev/dm-3
    params:
      description: The target as C(xl block-list) shows it.
      returned: success
      type: str
      sample: /dev/dm-3
    major:
      description: Major number of the device that was passed to blkback.
      returned: success
      type: int
      sample: 253
    minor:
      description: Minor number of the device that was passed to blkback.
      returned: success
      type: int
      sample: 3
    diskseq:
      description: Disk sequence number that was written to XenStore.
      returned: success
      type: int
      sample: 42
    state:
      description: State of the backend (4 is connected).
      returned: success
      type: int
      sample: 4
    frontend_state:
      description: State of the frontend (4 is connected).
      returned: success
      type: int
      sample: 4
    connected:
      description: Whether the guest is connected to the disk.
      returned: success
      type: bool
      sample: true
    sealed:
      description: Whether the device is sealed for this disk, so that nobody else can open it.
      returned: success
      type: bool
      sample: false
device:
  description: >-
    The identity of the device behind the disk. V(null) if O(state=detached), or in check mode if the disk is
    not attached yet.
  returned: success
  type: dict
  contains:
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
replaced:
  description: >-
    The disk that was replaced. V(null) if none was, or in check mode.
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
      sample: "Detach it first with state=detached, or set replace=true"
"""

from ansible_collections.racefree.block.plugins.module_utils._module.runner import run_one
from ansible_collections.racefree.block.plugins.module_utils._module.xen_vbd import VbdItem


def main():
    run_one(VbdItem)


if __name__ == "__main__":
    main()
