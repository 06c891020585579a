#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: xl_disks
short_description: Add, change or remove many disks of guests that xl starts
version_added: 0.1.0
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
    suboptions:
      domain:
        description:
          - Name of the guest. Its configuration is C(/etc/xen/DOMAIN.cfg), unless O(disks[].config_file) says
            otherwise.
          - Required if O(disks[].config_file) is not given, or if the configuration does not name the guest.
        type: str
      config_file:
        description:
          - The guest's configuration. It must exist. A symbolic link stays one.
        type: path
      vdev:
        description:
          - Name of the disk in the guest, like V(xvda), V(hda) or V(sda), or its number, like V(51712).
          - If the configuration has a disk with this name already, in any form, it is replaced.
        type: str
        required: true
      source:
        description:
          - The source of the disk, which is kept as its recipe. Required if O(disks[].state=present). Text
            such as V(file:/srv/a.raw), V(path:/dev/vg/a) or an absolute path of a block device, or a
            dictionary of one of the following forms.
          - With C(file), a loop device for this file, which is created if it does not exist. Optional are
            C(offset), C(size) (bytes) or C(partition), C(read_only), C(direct_io), C(sector_size), and
            C(mtime_ns), the modification time (nanoseconds) that a read-only file must have. A file that
            begins with the signature of an image format (qcow2, VMDK, VHD, VHDX, VDI, QED, Parallels, DMG,
            Bochs, cloop) is refused unless C(format=raw) confirms that it is a raw disk image. The recipe
            keeps C(format=raw) once the file was found to be raw. With C(overlap=true), or with
            O(disks[].shared), another device may write to the same part of the file. With
            C(trusted_path=true), a path that a user other than root can redirect is an error instead of a
            warning.
          - With C(path), a block device, and optionally the C(uuid) (of a mapped device, such as a logical
            volume) that it must have. If C(uuid) is not given, the current UUID of the device is kept with
            the path.
          - With C(table), a mapped device, which is created when the guest starts, and optionally its
            C(name), C(uuid) and C(read_only). See O(racefree.block.dm_device#module:table).
          - A snapshot or thin volume that the disk has already, encrypted or not, is never made shorter.
          - A disk sequence number is valid until the next boot only, so V(diskseq:42) is refused. With the
            C(boot_id) that was returned together with it, as V(diskseq:42@BOOT), a number can be kept. The
            guest cannot start with it after the next boot of the host.
          - Names that the kernel gives to whichever device comes first are refused too, such as
            C(/dev/loop7), C(/dev/dm-3), C(/dev/block/253:3) and those in C(/dev/disk/by-diskseq). For other
            paths without a UUID there is a warning, except for those in C(/dev/disk/by-id) and
            C(/dev/disk/by-path).
          - If O(disks[].state=absent), this is a check. The disk is only removed if it has this recipe.
        type: raw
      size:
        description:
          - The size that the disk is to have, in bytes or like V(20G), for a O(disks[].source) with C(file)
            and without C(size). A smaller file is made larger; the new part has no blocks yet. A file that is
            larger is an error, because nothing is ever made smaller.
          - With O(disks[].live=true), the disk of a running guest grows, and the guest sees the new size
            while it runs. Without this option it also grows, if it is shorter than what O(disks[].source)
            says. That is so if its file or logical volume was made larger, if C(size) in O(disks[].source) is
            larger than before, or if a table is longer. Nothing may use the new part yet.
          - The task waits until blkback has told the guest the new size, for at most O(disks[].timeout)
            seconds. Otherwise it fails, and the device keeps its new size. The guest's file system does not
            grow by itself. See C(docs/grow-a-disk.md) of the collection.
        type: str
      recipe:
        description:
          - Name of the recipe. By default, the one that the disk has in the configuration, or else
            C(GUEST-VDEV), such as C(web1-xvda). Needed only if the guest's name has characters other than
            letters, digits and C(._+-).
        type: str
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
      shared:
        description:
          - Whether several guests may use the disk even if one of them writes to it. Each of them has a
            recipe that says so. The guests must coordinate their writes, as cluster file systems do.
        type: bool
        default: false
      live:
        description:
          - Whether the running guest gets or loses the disk now, too. C(xl) attaches and detaches it, so it
            keeps the disk for a reboot and for C(xl save).
          - If the guest has the disk already, it grows if it is shorter than what O(disks[].source) and
            O(disks[].size) say. Another disk there is an error, unless O(disks[].replace=true).
          - With O(disks[].state=absent), the guest is asked to release the disk, and has O(disks[].timeout)
            seconds for it.
          - It is not an error if the guest does not run.
          - Requires pyxs (Debian's package is python3-pyxs), and to attach a disk, the collection's hotplug
            script.
        type: bool
        default: false
      replace:
        description:
          - Whether to replace a disk that the running guest has as O(disks[].vdev) and that is another one,
            has another mode or another device type. Without it, this is an error. Requires
            O(disks[].live=true).
          - The new disk is made and checked first. Then the guest is asked to release the old disk, and has
            O(disks[].timeout) seconds for it. If it does not answer, the request is withdrawn, and nothing
            was changed. Then the new disk is attached. If that fails, the old disk is attached again, with
            its recipe and its line in the configuration, and the error says so.
          - The guest has no disk there for a moment. B(Unmount it in the guest first). See
            C(docs/replacing-disks.md) of the collection for what a guest does that uses the disk, and for
            what is refused.
        type: bool
        default: false
      sealed:
        description:
          - With V(true), the recipe has the hotplug script seal the device as soon as blkback has opened it.
            Nobody, not even root, can open a sealed device, so C(mount), C(blkid), C(kpartx) and udev's rules
            fail with C(EPERM). The guest uses it as before. The seal is lifted when the disk is detached,
            also when the guest ends.
          - If not given, an existing recipe is left as it is. The disk of a running guest is not changed.
          - HVM guests cannot have sealed disks, because their device model opens the disks too.
          - See C(docs/sealed-devices.md) of the collection for what is required, and for the limitations.
        type: bool
      sealed_below:
        description:
          - With V(true), the loop and mapped devices below the device are sealed with it, but not what is
            below a logical volume of LVM. Requires O(disks[].sealed=true).
          - If not given, an existing recipe is left as it is.
        type: bool
      timeout:
        description:
          - With O(disks[].live=true), how many seconds the guest has to release a disk; and how many to wait
            for its reads and writes to end before its disk grows, and then for blkback to tell it the new
            size.
        type: int
        default: 60
      state:
        description:
          - Whether the configuration should have the disk.
          - With V(absent), the recipe is removed, too, unless it was written by hand, or a running guest
            still has the disk. Such a guest needs the recipe if it reboots. There is a warning then.
        type: str
        choices: [present, absent]
        default: present
"""

EXAMPLES = r"""
- name: Let two guests start with their disks
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

- name: Add a CD image and a sealed disk, and remove a third
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

- name: Let the disks of a running guest grow
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
  returned: always
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
          type: str
          sample: web1
        config_file:
          description: Path of the configuration.
          type: str
          sample: /etc/xen/web1.cfg
        vdev:
          description: Name of the disk in the guest.
          type: str
          sample: xvda
        mode:
          description: Whether the guest may only read (V(r)) or also write (V(w)).
          type: str
          sample: w
        device_type:
          description: What kind of device the guest sees.
          type: str
          sample: disk
        recipe:
          description: Name of the recipe.
          type: str
          sample: web1-xvda
        recipe_file:
          description: The file in which it is kept.
          type: str
          sample: /etc/racefree-block/recipes/web1-xvda.json
        source:
          description: The source that is kept in the recipe.
          type: dict
          sample: {"file": "/srv/guests/web1.raw", "format": "raw"}
        sealed:
          description: Whether the disk is sealed while a guest has it.
          type: bool
          sample: false
        text:
          description: The disk in the language of C(xl), for C(xl block-attach).
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
          type: str
          sample: /dev/loop3
        diskseq:
          description: Disk sequence number of its device. V(null) if the guest was releasing it already.
          type: int
          sample: 41
        params:
          description: The target as C(xl block-list) showed it.
          type: str
          sample: /dev/loop3
        mode:
          description: Whether the guest could only read it (V(r)) or also write to it (V(w)).
          type: str
          sample: w
        device_type:
          description: What kind of device the guest saw.
          type: str
          sample: disk
    error:
      description: The error as structured data.
      returned: when the entry failed
      type: dict
      contains:
        kind:
          description: Kind of the error.
          type: str
          sample: DeviceBusy
        device:
          description: The device, file or name concerned.
          type: str
          sample: /etc/xen/web1.cfg
        errno:
          description: >-
            Name of the kernel's error number. If the error did not come from the kernel, the name that fits
            its kind best.
          type: str
          sample: EBUSY
        hint:
          description: What to do about it.
          type: str
          sample: "Run the task again"
"""

from ansible_collections.racefree.block.plugins.module_utils._module.runner import run_many
from ansible_collections.racefree.block.plugins.module_utils._module.xl_disk import XlDiskItem


def main():
    run_many(XlDiskItem, "disks")


if __name__ == "__main__":
    main()
