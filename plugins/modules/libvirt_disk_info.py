#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: libvirt_disk_info
short_description: Return the disks of libvirt domains, their recipes, and the devices made for them
version_added: 1.0.0
description:
  - Lists the disks of one domain or of all domains, as the definition and the running guest have them, with
    the recipes that M(racefree.block.libvirt_disk) has stored.
  - For a disk with a recipe, returns the device that was made for it, if it exists.
author:
  - The racefree.block contributors (@racefree)
extends_documentation_fragment:
  - racefree.block.block.info
requirements:
  - libvirt-python (Debian's package is python3-libvirt)
seealso:
  - module: racefree.block.libvirt_disk
  - module: racefree.block.xen_vbd_info
  - module: racefree.block.device_info
options:
  domain:
    description:
      - Only the disks of this domain, given by its name or UUID. The task fails if there is no such domain.
    type: str
  uri:
    description:
      - The connection URI of libvirt's driver.
    type: str
    default: xen:///system
  timeout:
    description:
      - For how many seconds libvirt may take.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: List the disks of all domains
  racefree.block.libvirt_disk_info:
  register: found

- name: Fail if a running guest has another disk than its definition describes
  ansible.builtin.assert:
    that: wrong | length == 0
    fail_msg: "{{ wrong | map(attribute='problem') | join('; ') }}"
  vars:
    wrong: "{{ found.disks | rejectattr('problem', 'none') }}"

- name: Show which files the disks of a QEMU guest come from
  racefree.block.libvirt_disk_info:
    domain: web1
    uri: qemu:///system
    timeout: 10
"""

RETURN = r"""
disks:
  description: The disks, by the name of the domain and in the order of its definition.
  returned: success
  type: list
  elements: dict
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
      sample: 0c2c8a52-6b3b-4d63-9d0f-6cbd2b0f2c11
    running:
      description: Whether the domain is running.
      returned: success
      type: bool
      sample: true
    persistent:
      description: Whether libvirt keeps the domain's definition when the guest ends.
      returned: success
      type: bool
      sample: true
    vdev:
      description: Name of the disk in the guest.
      returned: success
      type: str
      sample: xvda
    config:
      description: The disk in the definition, for the guest's next start. V(null) if it is not there.
      returned: success
      type: dict
      contains: &side
        path:
          description: Path, name or address of the disk's source. V(null) for an empty drive.
          returned: success
          type: str
          sample: /dev/mapper/racefree-0c2c8a52-6b3b-4d63-9d0f-6cbd2b0f2c11-xvda
        type:
          description: Kind of the source, in libvirt's words.
          returned: success
          type: str
          sample: block
        driver:
          description: Name of the driver. V(null) if the definition does not name one.
          returned: success
          type: str
          sample: phy
        format:
          description: Format of the image. V(null) if the definition does not name one.
          returned: success
          type: str
          sample: raw
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
        shared:
          description: Whether other guests may use the same storage.
          returned: success
          type: bool
          sample: false
        bus:
          description: The bus of the disk.
          returned: success
          type: str
          sample: xen
        has_recipe:
          description: Whether a recipe is stored for the disk.
          returned: success
          type: bool
          sample: true
    live:
      description: The disk of the running guest. V(null) if the guest has none or does not run.
      returned: success
      type: dict
      contains: *side
    recipe:
      description: >-
        The source of the disk as it is stored: the recipe of the running guest if it has one, otherwise the
        definition's. V(null) for a disk without a recipe. See O(racefree.block.libvirt_disk#module:source).
        A disk that is sealed while the guest has it also has C(sealed), and C(sealed_below).
      returned: success
      type: dict
      sample:
        file: /srv/guests/web1.raw
        format: raw
    device:
      description: >-
        The mapped device that was made for a disk with a recipe. V(null) if there is none, as while the guest
        does not run.
      returned: success
      type: dict
      contains:
        path:
          description:
            - Path of the device node. It refers to this device only as long as the device exists.
            - V(null) if the node is missing or belongs to another device.
          returned: success
          type: str
          sample: /dev/dm-3
        name:
          description: The kernel's name for the device.
          returned: success
          type: str
          sample: dm-3
        major:
          description: Major number.
          returned: success
          type: int
          sample: 253
        minor:
          description: Minor number.
          returned: success
          type: int
          sample: 3
        diskseq:
          description: >-
            Disk sequence number. The kernel does not give it to another device until the next boot.
          returned: success
          type: int
          sample: 42
        boot_id:
          description: >-
            ID of the boot in which the disk sequence number is valid, to be stored together with the number.
            Disk sequence numbers start again at every boot.
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
            The symbolic link that udev creates for the disk sequence number and the partition, if udev has a
            rule for it. udev creates and removes it with a delay.
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
    problem:
      description: >-
        What is wrong with the disk: the running guest has another disk than the definition describes, a
        recipe cannot be read or has no disk, or another device has the name that belongs to this disk.
        V(null) if nothing is.
      returned: success
      type: str
      sample: >-
        there is a recipe for it, but its source is /dev/vg0/other instead of
        /dev/mapper/racefree-0c2c8a52-6b3b-4d63-9d0f-6cbd2b0f2c11-xvda
error:
  description: The error as structured data.
  returned: failure
  type: dict
  contains:
    kind:
      description: Kind of the error.
      returned: failure
      type: str
      sample: GuestError
    device:
      description: The device, file, guest, key or program that the error is about. V(null) if there is none.
      returned: failure
      type: str
      sample: web1
    errno:
      description: >-
        Name of the kernel's error number. If the error did not come from the kernel, the name that fits its
        kind best.
      returned: failure
      type: str
      sample: ESRCH
    hint:
      description: What to do about it.
      returned: failure
      type: str
      sample: "virsh -c xen:///system list --all shows those it knows"
"""

from ansible_collections.racefree.block.plugins.module_utils._module.libvirt_disk_info import (
    ARGUMENTS,
    collect,
)
from ansible_collections.racefree.block.plugins.module_utils._module.runner import run_info


def main():
    run_info(collect, ARGUMENTS)


if __name__ == "__main__":
    main()
