#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: libvirt_disks
short_description: Add, change or remove many disks of libvirt domains at once
version_added: 0.1.0
description:
  - Does for a list what M(racefree.block.libvirt_disk) does for one disk, in one process. All disks of one
    domain are changed in one step.
  - All entries are checked before the first definition is changed. If one entry fails, the others are rolled
    back unless O(on_error=keep).
author:
  - The racefree.block contributors (@racefree)
extends_documentation_fragment:
  - racefree.block.block
  - racefree.block.block.many
seealso:
  - module: racefree.block.libvirt_disk
requirements:
  - libvirt-python (Debian's package is python3-libvirt)
  - for running domains of Xen, xen-blkback in domain 0, and pyxs (Debian's package is python3-pyxs)
  - for domains to start, the collection's hook, installed by the role C(xen_host) or C(kvm_host)
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
          - Name or UUID of the domain. It need not be running.
        type: str
        required: true
      vdev:
        description:
          - Name of the disk in the guest, like V(xvda), V(vda), V(hda) or V(sda). For Xen, a device number
            like V(51712) is accepted too.
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
            keeps C(format=raw) once the file was found to be raw, so that nothing that the guest writes to
            its disk can prevent its next start. With C(overlap=true), or with O(disks[].shared), another
            device may write to the same part of the file. With C(trusted_path=true), a path that a user other
            than root can redirect is an error instead of a warning.
          - With C(path), a block device, and optionally the C(uuid) (of a mapped device, such as a logical
            volume) that it must have. If C(uuid) is not given, the current UUID of the device is kept with
            the path.
          - With C(table), a mapped device, which is created if it does not exist, and optionally its C(name),
            C(uuid) and C(read_only). See O(racefree.block.dm_device#module:table).
          - A snapshot or thin volume that the disk has already, encrypted or not, is never made shorter.
          - A disk sequence number is valid until the next boot only, so V(diskseq:42) requires
            O(disks[].config=false). With the C(boot_id) that was returned together with it, as
            V(diskseq:42@BOOT), a number can be kept. The guest cannot start with it after the next boot of
            the host.
          - Names that the kernel gives to whichever device comes first are refused too, such as
            C(/dev/loop7), C(/dev/dm-3), C(/dev/block/253:3) and those in C(/dev/disk/by-diskseq). For other
            paths without a UUID there is a warning, except for those in C(/dev/disk/by-id) and
            C(/dev/disk/by-path). Labels and UUIDs of file systems are not reliable, because whoever can write
            to a disk can set them.
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
          - The bus that the disk is attached to, like V(xen), V(virtio), V(ide), V(scsi) or V(sata). If not
            given, libvirt chooses it by the name in O(disks[].vdev), and an existing disk keeps its bus.
        type: str
      shared:
        description:
          - Whether several guests may use the disk even if one of them writes to it. The guests must
            coordinate their writes, as cluster file systems do.
        type: bool
        default: false
      config:
        description:
          - Whether to change the definition, which takes effect at the domain's next start.
        type: bool
        default: true
      live:
        description:
          - Whether to change the running domain too, if it is running. Only for V(xen:///system) and
            V(qemu:///system).
          - With O(disks[].config=false), the domain must be running.
          - The recipe is also added to the definition of the running domain, so that the domain can be saved
            and restored, even after a boot of the host. With O(disks[].config=false), no recipe is added, and
            there is a warning, if the source could refer to another disk by then.
        type: bool
        default: false
      replace:
        description:
          - Whether to replace a disk that the running guest has as O(disks[].vdev) and that is another one,
            has another mode or another device type. Without it, this is an error. Requires
            O(disks[].live=true). Only for Xen.
          - The new source is opened or created, held and checked first. Then the guest is asked to release
            the old disk, and has O(disks[].timeout) seconds for it. If it does not answer, the request is
            withdrawn, and nothing was changed. Then the new disk is attached. If that, or the change of the
            definition, fails, the old disk is attached again, with its recipe and its seal, and the error
            says so.
          - The guest has no disk there for a moment. B(Unmount it in the guest first). See
            C(docs/replacing-disks.md) of the collection for what a guest does that uses the disk, and for
            what is refused.
          - If O(disks[].sealed) is not given, the new disk is sealed if the old one was.
        type: bool
        default: false
      sealed:
        description:
          - With V(true), the device is sealed when the domain runs and blkback has opened it. Nobody, not
            even root, can open a sealed device, so C(mount), C(blkid), C(kpartx) and udev's rules fail with
            C(EPERM). The guest uses it as before. The seal is lifted when the disk is detached, also when the
            guest ends.
          - With V(false), the seal is lifted that this option has set. Seals that others have set stay, such
            as the option C(sealed) of M(racefree.block.dm_device). If not given, an existing disk keeps its
            seal, and a new disk has none.
          - The recipe keeps this option, so the disk is sealed at every start. Only for Xen.
          - Requires a kernel with CONFIG_CGROUP_BPF, control groups of version 2, and a file system of type
            bpf at C(/sys/fs/bpf). If something is missing, the task fails before anything is changed.
          - See C(docs/sealed-devices.md) of the collection for the limitations.
        type: bool
      sealed_below:
        description:
          - With V(true), the loop and mapped devices below the device are sealed with it, but not what is
            below a logical volume of LVM. They are released with it, unless somebody else has sealed them.
            Requires O(disks[].sealed=true).
          - With V(false), the seals are lifted that this option has set. If not given, they stay.
        type: bool
      uri:
        description:
          - The libvirt driver to connect to, like V(xen:///system) or V(qemu:///system).
        type: str
        default: xen:///system
      timeout:
        description:
          - How many seconds to wait for libvirt, and with O(disks[].live=true) for blkback, QEMU or
            the guest.
        type: int
        default: 60
      state:
        description:
          - Whether the domain should have the disk.
          - With V(empty), the drive is there and has no medium. Possible only with
            O(disks[].device_type=cdrom), and for guests whose drives QEMU serves. With O(disks[].live=true),
            a running guest of QEMU is asked to release the medium.
        type: str
        choices: [present, absent, empty]
        default: present
"""

EXAMPLES = r"""
- name: Let two guests start with their disks
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

- name: Add a CD image and a sealed disk, and remove a third, also from the running guest
  racefree.block.libvirt_disks:
    disks:
      - domain: web1
        uri: xen:///system
        vdev: xvdd
        bus: xen
        source: {file: /srv/iso/debian.iso}
        mode: r
        device_type: cdrom
        shared: true
        config: true
      - domain: web1
        vdev: xvde
        source: {file: /srv/guests/web1-secret.raw}
        sealed: true
        sealed_below: true
      - domain: web1
        vdev: xvdf
        state: absent
        live: true
        timeout: 60
    on_error: keep

- name: Let a disk of a running guest grow, and another take the place of a second one
  racefree.block.libvirt_disks:
    disks:
      - domain: web1
        vdev: xvda
        source: {file: /srv/guests/web1.raw}
        size: 40GiB
        live: true
      - domain: web1
        vdev: xvdb
        source: {file: /srv/guests/web1-new.raw}
        replace: true
        live: true
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
      sample: >-
        web1: the guest has a disk xvda already. Remove it first: say
        state=absent first, or live: false
    rolled_back:
      description: >-
        V(true) for an entry without an error of its own that was rolled back, or not started, because another
        entry failed. What cannot be rolled back has C(changed=true) instead, and a warning says what it is.
      returned: when O(on_error=rollback) and another entry failed
      type: bool
      sample: true
    disk:
      description: The disk as it is defined. V(null) if O(disks[].state=absent).
      returned: when the entry succeeded
      type: dict
      contains:
        domain:
          description: Name of the domain.
          type: str
          sample: web1
        uuid:
          description: UUID of the domain.
          type: str
          sample: 4dea22b3-1d52-d8f3-2516-782e98ab3fa0
        vdev:
          description: Name of the disk in the guest.
          type: str
          sample: xvda
        path:
          description: >-
            The path in the definition. A device is there only while the guest is starting or running.
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
            - The recipe that is kept in the definition, or with O(disks[].config=false) in the definition of
              the running domain. V(null) if none can be kept there.
          type: str
          sample: '{"file": "/srv/guests/web1.raw"}'
        running:
          description: Whether the domain was running.
          type: bool
          sample: true
    device:
      description:
        - The identity of the device that the running guest has. V(null) if O(disks[].live=false), if the
          domain is not running, and in check mode if there is none yet.
      returned: when the entry succeeded
      type: dict
      contains:
        path:
          description:
            - Path of the device node. It refers to this device only as long as the device exists.
            - V(null) if the node is missing or belongs to another device.
          type: str
          sample: /dev/dm-7
        name:
          description: The kernel's name for the device.
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
          description: >-
            Disk sequence number. The kernel does not give it to another device until the next boot.
          type: int
          sample: 42
        boot_id:
          description: >-
            ID of the boot in which the disk sequence number is valid, to be stored together with the number.
            Disk sequence numbers start again at every boot.
          type: str
          sample: 8b2f4c3e-6d1a-4f0e-9c57-1d2e3f405162
        partition:
          description: >-
            Partition number. V(null) for a whole disk. A partition has the disk sequence number of its disk.
          type: int
          sample: 1
        by_diskseq:
          description: >-
            The symbolic link that udev creates for the disk sequence number and the partition, if udev has a
            rule for it. udev creates and removes it with a delay.
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
          description: The target as C(virsh domblklist) showed it.
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
          sample: web1
        errno:
          description: >-
            Name of the kernel's error number. If the error did not come from the kernel, the name that fits
            its kind best.
          type: str
          sample: EBUSY
        hint:
          description: What to do about it.
          type: str
          sample: "Remove it first with state=absent, or say replace: true, or live: false"
"""

from ansible_collections.racefree.block.plugins.module_utils._module.libvirt_disk import DiskItem
from ansible_collections.racefree.block.plugins.module_utils._module.runner import run_many


def main():
    run_many(DiskItem, "disks")


if __name__ == "__main__":
    main()
