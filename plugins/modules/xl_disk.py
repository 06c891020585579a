#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: xl_disk
short_description: Add, change or remove a disk of a guest that xl starts
version_added: 1.0.0
description:
  - Writes a disk into the configuration of a guest of C(xl), such as C(/etc/xen/web1.cfg), as the name of a
    recipe, so that the guest gets the right device at every start. The recipe says what the disk is. It is
    kept in a file of its own, C(/etc/racefree-block/recipes/NAME.json), that only root can read and change.
  - When the guest starts, the collection's hotplug script creates and verifies the devices of the recipe. If
    that is not possible, the guest does not start, and C(xl) prints the reason. The devices are removed with
    the guest.
  - All other bytes of the configuration are left unchanged. A disk that was added and is removed leaves the
    file as it was before.
  - A configuration that C(xl) would refuse, or that can be misread, is refused with the number of the line
    and the reason. Examples are two assignments to C(disk), of which C(xl) uses only the last one, and line
    ends of Windows.
author:
  - The racefree.block contributors (@racefree)
extends_documentation_fragment:
  - racefree.block.block
  - racefree.block.xl_disk
  - racefree.block.guest_disk
  - racefree.block.sealed_below
  - racefree.block.guest_disk.recipe
  - racefree.block.source
requirements:
  - for guests to start, the collection's hotplug script (role P(racefree.block.xen_host#role))
seealso:
  - module: racefree.block.xl_disks
  - module: racefree.block.xen_vbd
  - module: racefree.block.libvirt_disk
notes:
  - A change of the configuration has an effect when C(xl create) is run the next time. When a guest reboots,
    C(xl) uses the configuration with which the guest was created. A changed recipe is used at every start,
    including a reboot.
  - With O(live=true), a running guest gets the disk now, too.
  - A plaintext key in a table is refused. A recipe names a key in the kernel's keyring instead.
  - Diffs only show the disk and its recipe.
"""

EXAMPLES = r"""
- name: Give a guest an image as the disk that it starts with
  racefree.block.xl_disk:
    domain: web1
    vdev: xvda
    source: {file: /srv/guests/web1.raw}

- name: The same with a configuration somewhere else, and a logical volume
  racefree.block.xl_disk:
    config_file: /srv/xen/web1.cfg
    vdev: xvdb
    source: {path: /dev/vg0/web1-data}

- name: The same, and attach it to the running guest now
  racefree.block.xl_disk:
    domain: web1
    vdev: xvdb
    source: {path: /dev/vg0/web1-data}
    live: true

- name: Grow the disk to 20 GiB, in the running guest too
  racefree.block.xl_disk:
    domain: web1
    vdev: xvda
    source: {file: /srv/guests/web1.raw}
    size: 20G
    live: true

- name: Give the running guest another disk in the same place
  racefree.block.xl_disk:
    domain: web1
    vdev: xvdb
    source: {file: /srv/guests/web1-data-new.raw}
    live: true
    replace: true

- name: Remove it
  racefree.block.xl_disk:
    config_file: /srv/xen/web1.cfg
    vdev: xvdb
    state: absent

- name: Add a CD image under a recipe name of your own
  racefree.block.xl_disk:
    config_file: /etc/xen/web1.cfg
    vdev: xvdd
    recipe: debian-iso
    source: {file: /srv/iso/debian.iso}
    mode: r
    device_type: cdrom
    shared: true

- name: Add a disk that nobody on the host can open while the guest runs
  racefree.block.xl_disk:
    config_file: /etc/xen/web1.cfg
    vdev: xvde
    source: {file: /srv/guests/web1-secret.raw}
    sealed: true
    sealed_below: true

- name: Grow the disk of a running guest
  racefree.block.xl_disk:
    domain: web1
    vdev: xvda
    source: {file: /srv/guests/web1.raw}
    size: 40GiB
    live: true
    timeout: 60
"""

RETURN = r"""
disk:
  description: The disk as the configuration has it. V(null) if O(state=absent).
  returned: success
  type: dict
  contains:
    domain:
      description: Name of the guest.
      returned: success
      type: str
      sample: web1
    config_file:
      description: Path of the configuration.
      returned: success
      type: str
      sample: /etc/xen/web1.cfg
    vdev:
      description: Name of the disk in the guest.
      returned: success
      type: str
      sample: xvda
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
      description: Name of the recipe.
      returned: success
      type: str
      sample: web1-xvda
    recipe_file:
      description: The file in which it is kept.
      returned: success
      type: str
      sample: /etc/racefree-block/recipes/web1-xvda.json
    source:
      description: The source that is kept in the recipe.
      returned: success
      type: dict
      sample: {"file": "/srv/guests/web1.raw", "format": "raw"}
    sealed:
      description: Whether the disk is sealed while a guest has it.
      returned: success
      type: bool
      sample: false
    text:
      description: The disk in the language of C(xl), for C(xl block-attach).
      returned: success
      type: str
      sample: vdev=xvda,access=w,script=block-racefree,target=recipe:web1-xvda
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
      sample: /etc/xen/web1.cfg
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
      sample: "Run the task again"
"""

from ansible_collections.racefree.block.plugins.module_utils._module.runner import run_one
from ansible_collections.racefree.block.plugins.module_utils._module.xl_disk import XlDiskItem


def main():
    run_one(XlDiskItem)


if __name__ == "__main__":
    main()
