#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: libvirt_disk_info
short_description: Return the disks of libvirt domains, their recipes, and the devices made for them
version_added: 0.1.0
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
      type: str
      sample: web1
    uuid:
      description: UUID of the domain.
      type: str
      sample: 0c2c8a52-6b3b-4d63-9d0f-6cbd2b0f2c11
    running:
      description: Whether the domain is running.
      type: bool
      sample: true
    persistent:
      description: Whether libvirt keeps the domain's definition when the guest ends.
      type: bool
      sample: true
    vdev:
      description: Name of the disk in the guest.
      type: str
      sample: xvda
    config:
      description: The disk in the definition, for the guest's next start. V(null) if it is not there.
      type: dict
      contains: &side
        path:
          description: Path, name or address of the disk's source. V(null) for an empty drive.
          type: str
          sample: /dev/mapper/racefree-0c2c8a52-6b3b-4d63-9d0f-6cbd2b0f2c11-xvda
        type:
          description: Kind of the source, in libvirt's words.
          type: str
          sample: block
        driver:
          description: Name of the driver. V(null) if the definition does not name one.
          type: str
          sample: phy
        format:
          description: Format of the image. V(null) if the definition does not name one.
          type: str
          sample: raw
        mode:
          description: Whether the guest may only read (V(r)) or also write (V(w)).
          type: str
          sample: w
        device_type:
          description: What kind of device the guest sees.
          type: str
          sample: disk
        shared:
          description: Whether other guests may use the same storage.
          type: bool
          sample: false
        bus:
          description: The bus of the disk.
          type: str
          sample: xen
        has_recipe:
          description: Whether a recipe is stored for the disk.
          type: bool
          sample: true
    live:
      description: The disk of the running guest. V(null) if the guest has none or does not run.
      type: dict
      contains: *side
    recipe:
      description: >-
        The source of the disk as it is stored: the recipe of the running guest if it has one, otherwise the
        definition's. V(null) for a disk without a recipe. See O(racefree.block.libvirt_disk#module:source).
        A disk that is sealed while the guest has it also has C(sealed), and C(sealed_below).
      type: dict
      sample:
        file: /srv/guests/web1.raw
    device:
      description: >-
        The mapped device that was made for a disk with a recipe. V(null) if there is none, as while the guest
        does not run.
      type: dict
      contains:
        path:
          description: Path of the device node. V(null) if the node is missing or belongs to another device.
          type: str
          sample: /dev/dm-3
        name:
          description: The kernel's name for the device.
          type: str
          sample: dm-3
        major:
          description: Major number.
          type: int
          sample: 253
        minor:
          description: Minor number.
          type: int
          sample: 3
        diskseq:
          description: Disk sequence number.
          type: int
          sample: 42
        boot_id:
          description: ID of the boot in which the disk sequence number is valid.
          type: str
          sample: 8b2f4c3e-6d1a-4f0e-9c57-1d2e3f405162
        partition:
          description: V(null), as this is a whole disk.
          type: int
          sample: 1
        by_diskseq:
          description: The symbolic link that udev creates for the disk sequence number, if it does.
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
          sample: false
    problem:
      description: >-
        What is wrong with the disk: the running guest has another disk than the definition describes, a
        recipe cannot be read or has no disk, or another device has the name that belongs to this disk.
        V(null) if nothing is.
      type: str
      sample: "there is a recipe for it, but its source is /dev/vg0/other"
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
