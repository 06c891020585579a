#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: xl_disks
short_description: Add, change or remove many disks of guests that xl starts
version_added: 1.0.0
description:
  - Does for a list what M(racefree.block.xl_disk) does for one disk, in one process. All disks of one guest
    are changed in one step.
  - All entries are checked before the first configuration is changed. If one entry fails, the others are
    rolled back unless O(on_error=keep).
author:
  - The racefree.block contributors (@racefree)
extends_documentation_fragment:
  - racefree.block.block
  - racefree.block.block.many
  - racefree.block.xl_disk.many
seealso:
  - module: racefree.block.xl_disk
requirements:
  - for guests to start, the collection's hotplug script (role P(racefree.block.xen_host#role))
options:
  disks:
    description:
      - The disks, each with the options of M(racefree.block.xl_disk).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Give two guests the disks that they start with
  racefree.block.xl_disks:
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

- name: Add a CD image and a sealed disk, and remove a third disk
  racefree.block.xl_disks:
    disks:
      - config_file: /etc/xen/web1.cfg
        vdev: xvdd
        recipe: debian-iso
        source: {file: /srv/iso/debian.iso}
        mode: r
        device_type: cdrom
        shared: true
      - config_file: /etc/xen/web1.cfg
        vdev: xvde
        source: {file: /srv/guests/web1-secret.raw}
        sealed: true
        sealed_below: true
      - config_file: /etc/xen/web1.cfg
        vdev: xvdf
        state: absent
    on_error: keep

- name: Grow the disk of a running guest
  racefree.block.xl_disks:
    disks:
      - domain: web1
        vdev: xvda
        source: {file: /srv/guests/web1.raw}
        size: 40GiB
        live: true
        timeout: 60

- name: Give two running guests other data disks
  racefree.block.xl_disks:
    disks:
      - domain: web1
        vdev: xvdb
        source: {file: /srv/guests/web1-new.raw}
        live: true
        replace: true
      - domain: web2
        vdev: xvdb
        source: {file: /srv/guests/web2-new.raw}
        live: true
        replace: true
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
      sample: "/etc/xen/web1.cfg: somebody changed the configuration meanwhile. Run the task again"
    rolled_back:
      description: >-
        V(true) for an entry without an error of its own that was rolled back, or not started, because another
        entry failed. What cannot be rolled back has C(changed=true) instead, and a warning says what it is.
      returned: when O(on_error=rollback) and another entry failed
      type: bool
      sample: true
    disk:
      description: The disk as the configuration has it. V(null) if O(disks[].state=absent).
      returned: when the entry succeeded
      type: dict
      contains:
        domain:
          description: Name of the guest.
          returned: when the entry succeeded
          type: str
          sample: web1
        config_file:
          description: Path of the configuration.
          returned: when the entry succeeded
          type: str
          sample: /etc/xen/web1.cfg
        vdev:
          description: Name of the disk in the guest.
          returned: when the entry succeeded
          type: str
          sample: xvda
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
          description: Name of the recipe.
          returned: when the entry succeeded
          type: str
          sample: web1-xvda
        recipe_file:
          description: The file in which it is kept.
          returned: when the entry succeeded
          type: str
          sample: /etc/racefree-block/recipes/web1-xvda.json
        source:
          description: The source that is kept in the recipe.
          returned: when the entry succeeded
          type: dict
          sample: {"file": "/srv/guests/web1.raw", "format": "raw"}
        sealed:
          description: Whether the disk is sealed while a guest has it.
          returned: when the entry succeeded
          type: bool
          sample: false
        text:
          description: The disk in the language of C(xl), for C(xl block-attach).
          returned: when the entry succeeded
          type: str
          sample: vdev=xvda,access=w,script=block-racefree,target=recipe:web1-xvda
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
          sample: /etc/xen/web1.cfg
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
          sample: "Run the task again"
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
from ansible_collections.racefree.block.plugins.module_utils._module.xl_disk import XlDiskItem


def main():
    run_many(XlDiskItem, "disks")


if __name__ == "__main__":
    main()
