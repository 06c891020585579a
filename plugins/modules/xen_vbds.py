#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: xen_vbds
short_description: Attach many disks to running Xen guests at once, or detach them
version_added: 0.1.0
description:
  - Does for a list what M(racefree.block.xen_vbd) does for one disk, in one process and over one connection
    to XenStore.
  - All entries are checked before the first disk is attached or detached. If one entry fails, the others are
    rolled back unless O(on_error=keep).
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
          - Name, ID or UUID of the running guest.
        type: str
        required: true
      vdev:
        description:
          - Name of the disk in the guest, like V(xvda), V(xvdb1), V(hda), V(sda), V(d3) or a device number
            like V(51712).
        type: str
        required: true
      source:
        description:
          - The device. Required if O(vbds[].state=attached). Text such as V(diskseq:42), V(path:/dev/vg/a),
            V(file:/srv/a.raw) or an absolute path of a block device, or a dictionary of one of the following
            forms.
          - With C(diskseq), the disk that has this disk sequence number, and optionally C(partition), a
            partition of that disk, and C(boot_id), the boot in which the number is valid. A number of another
            boot is refused. As text, these are V(diskseq:42-part1) and V(diskseq:42@BOOT).
          - With C(path), a block device, and optionally the C(uuid) (of a mapped device) and the C(diskseq)
            that it must have.
          - With C(file), a loop device for this file, which is created if it does not exist. Optional are
            C(offset), C(size) (bytes) or C(partition), C(read_only), C(direct_io), C(sector_size), and
            C(mtime_ns), the modification time (nanoseconds) that a read-only file must have. A file that
            begins with the signature of an image format (qcow2, VMDK, VHD, VHDX, VDI, QED, Parallels, DMG,
            Bochs, cloop) is refused unless C(format=raw) confirms that it is a raw disk image. With
            C(overlap=true), or with O(vbds[].shared), another device may write to the same part of the file.
            With C(trusted_path=true), a path that a user other than root can redirect is an error instead of
            a warning.
          - With C(table), a mapped device, which is created if it does not exist, and optionally its C(name),
            C(uuid) and C(read_only). See O(racefree.block.dm_device#module:table).
          - If O(vbds[].state=detached), this is a check. The disk is only detached if it is this source.
        type: raw
      size:
        description:
          - The size that the disk is to have, in bytes or like V(20G), for a O(vbds[].source) with C(file)
            and without C(size). A smaller file is made larger; the new part has no blocks yet. If the guest
            has the disk already, its device grows, and the guest sees the new size while it runs. A file that
            is larger is an error, because nothing is ever made smaller.
          - A disk also grows without this option if it is shorter than what O(vbds[].source) says. That is so
            if its file or logical volume was made larger, if C(size) in O(vbds[].source) is larger than
            before, or if a table is longer. Nothing may use the new part yet.
          - The task waits until blkback has told the guest the new size, for at most O(vbds[].timeout)
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
      diskseq:
        description:
          - A check. The task fails without changing anything unless the disk, or the device at the path of
            the source, has this disk sequence number.
        type: int
      diskseq_form:
        description:
          - How the disk sequence number of a new disk is passed to the backend. Released versions of blkback
            ignore all of these forms except V(diskseq@number), which they refuse. Modified versions may
            expect one of the forms that were proposed for it.
          - With V(diskseq), V(physical-device-uuid), V(physical-device-luid) or V(physical-device-uid), in a
            XenStore node of this name.
          - With V(diskseq@number), in front of the number in the node C(physical-device).
          - Disks that libvirt attaches only support V(diskseq).
        type: str
        choices: [diskseq, diskseq@number, physical-device-uuid, physical-device-luid, physical-device-uid]
        default: diskseq
      shared:
        description:
          - Whether several guests may use the disk even if one of them writes to it. The guests must
            coordinate their writes, as cluster file systems do.
        type: bool
        default: false
      replace:
        description:
          - Whether to replace a disk that the guest has as O(vbds[].vdev) and that is another one, has
            another mode or another device type. Without it, this is an error.
          - The new device is opened or created, held and checked first, also for use by other guests. Then
            the guest is asked to release the old disk, and has O(vbds[].timeout) seconds for it. If it does
            not answer, the request is withdrawn, and nothing was changed. Then the new disk is attached. If
            that fails, the old disk is attached again, with its seal, and the error says so.
          - The guest has no disk there for a moment. B(Unmount it in the guest first). Current versions of
            Linux (6.1 and 6.12 were tried) release a disk even if it is mounted, and the file system then
            gets I/O errors. Old versions refuse until it is unmounted; that request cannot be withdrawn, and
            the error says so.
          - A table of O(vbds[].source) that is not a device yet must not use storage of the old disk.
          - If the task is killed, the guest may have no disk there. Running it again attaches the new one.
          - If O(vbds[].sealed) is not given, the new disk is sealed if the old one was.
        type: bool
        default: false
      persist:
        description:
          - Whether a loop or mapped device that is created for O(vbds[].source) is kept when the guest no
            longer uses it, until it is removed or the host boots. The role racefree.block.boot_devices makes
            devices at each boot.
          - With V(false), the device is removed when blkback closes it, so nothing is left over when the
            guest ends. blkback keeps the device open as long as the guest has the disk, also while a guest
            disconnects and connects again, as some do when they boot.
        type: bool
        default: true
      sealed:
        description:
          - With V(true), the device is sealed as soon as blkback has opened it. Nobody, not even root, can
            open a sealed device, so C(mount), C(blkid), C(kpartx) and udev's rules fail with C(EPERM). The
            guest uses it as before. The seal is lifted when the disk is detached, also when the guest ends.
          - With V(false), the seal is lifted that this option has set. Seals that others have set stay, such
            as the option C(sealed) of M(racefree.block.dm_device). If not given, an existing disk keeps its
            seal, and a new disk has none.
          - Requires a kernel with CONFIG_CGROUP_BPF, control groups of version 2, and a file system of type
            bpf at C(/sys/fs/bpf). If something is missing, the task fails before anything is changed.
          - See C(docs/sealed-devices.md) of the collection for the limitations.
        type: bool
      sealed_below:
        description:
          - With V(true), the loop and mapped devices below the device are sealed with it, but not what is
            below a logical volume of LVM. They are released with it, unless somebody else has sealed them.
            Requires O(vbds[].sealed=true).
          - With V(false), the seals are lifted that this option has set. If not given, they stay.
        type: bool
      wait_connected:
        description:
          - Whether to wait until the guest has connected to the disk, instead of only until blkback has
            opened the device.
        type: bool
        default: false
      force:
        description:
          - With O(vbds[].state=detached), whether to detach the disk without the guest's cooperation. The
            guest then gets I/O errors.
        type: bool
        default: false
      toolstack:
        description:
          - Which toolstack attaches and detaches the disk. libvirt lists and detaches only disks that it
            attached itself.
          - With V(xenstore), the module writes the nodes to XenStore in one transaction, as C(xl) does.
          - With V(libvirt), libvirt attaches the device by its path. The device is held open meanwhile, and
            afterwards the module verifies which device blkback has opened. The check for other users of the
            storage cannot be part of a transaction then, so it is made before and after.
          - With V(auto), libvirt is used for a guest that libvirt runs, and XenStore for all others.
        type: str
        choices: [auto, xenstore, libvirt]
        default: auto
      timeout:
        description:
          - How many seconds to wait for blkback or the guest.
        type: int
        default: 30
      state:
        description:
          - Whether the guest should have the disk.
        type: str
        choices: [attached, detached]
        default: attached
"""

EXAMPLES = r"""
- name: Attach the disks of a guest
  racefree.block.xen_vbds:
    vbds:
      - {domain: web1, vdev: xvdb, source: "file:/srv/guests/web1-data.raw"}
      - {domain: web1, vdev: xvdc, source: "file:/srv/images/golden.raw", mode: r}

- name: Detach a disk from every guest, and go on if one does not answer
  racefree.block.xen_vbds:
    vbds:
      - {domain: web1, vdev: xvdc, state: detached}
      - {domain: web2, vdev: xvdc, state: detached}
    on_error: keep

- name: Attach disks with options of their own
  racefree.block.xen_vbds:
    vbds:
      - domain: web1
        vdev: xvdd
        source: {path: /dev/mapper/web1-data}
        diskseq: "{{ data.device.diskseq }}"
        diskseq_form: diskseq
        toolstack: xenstore
        wait_connected: true
        timeout: 60
      - domain: web1
        vdev: xvde
        source: {file: /srv/iso/debian.iso}
        mode: r
        device_type: cdrom
        shared: true
        sealed: true
        sealed_below: true
        persist: false
      - domain: web1
        vdev: xvdb
        source: {file: /srv/guests/web1-new.raw}
        replace: true
      - domain: web1
        vdev: xvdc
        source: {file: /srv/guests/web1-data.raw}
        size: 40GiB

- name: Take a disk away from a guest that does not release it
  racefree.block.xen_vbds:
    vbds:
      - {domain: web1, vdev: xvdd, state: detached, force: true}
"""

RETURN = r"""
vbds:
  description: The result of each entry of O(vbds), in the same order.
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
        xvda of web1: the guest has another disk there: /dev/loop3 (diskseq 41), params /dev/loop3. Detach it
        first with state=detached, or say replace: true
    rolled_back:
      description: >-
        V(true) for an entry without an error of its own that was rolled back, or not started, because another
        entry failed. What cannot be rolled back has C(changed=true) instead, and a warning says what it is.
      returned: when O(on_error=rollback) and another entry failed
      type: bool
      sample: true
    vbd:
      description: >-
        The guest's disk. V(null) if O(vbds[].state=detached), or in check mode if it is not attached yet.
      returned: when the entry succeeded
      type: dict
      contains:
        domain:
          description: Name of the guest.
          type: str
          sample: web1
        uuid:
          description: UUID of the guest.
          type: str
          sample: 0c2c8a52-6b3b-4d63-9d0f-6cbd2b0f2c11
        domid:
          description: ID of the guest.
          type: int
          sample: 5
        vdev:
          description: Name of the disk in the guest.
          type: str
          sample: xvda
        devid:
          description: Device number of the disk in the guest.
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
          description: The path that was written to XenStore for other tools to show.
          type: str
          sample: /dev/dm-3
        params:
          description: The target as C(xl block-list) shows it.
          type: str
          sample: /dev/dm-3
        major:
          description: Major number of the device that was passed to blkback.
          type: int
          sample: 253
        minor:
          description: Minor number of the device that was passed to blkback.
          type: int
          sample: 3
        diskseq:
          description: Disk sequence number that was written to XenStore.
          type: int
          sample: 42
        state:
          description: State of the backend (4 is connected).
          type: int
          sample: 4
        frontend_state:
          description: State of the frontend (4 is connected).
          type: int
          sample: 4
        connected:
          description: Whether the guest is connected to the disk.
          type: bool
          sample: true
        sealed:
          description: Whether the device is sealed for this disk, so that nobody else can open it.
          type: bool
          sample: false
    device:
      description: >-
        The identity of the device behind the disk. V(null) if O(vbds[].state=detached), or in check mode if
        the disk is not attached yet.
      returned: when the entry succeeded
      type: dict
      contains:
        path:
          description:
            - Path of the device node. It refers to this device only as long as the device exists.
            - V(null) if the node is missing or belongs to another device.
          type: str
          sample: /dev/loop7
        name:
          description: The kernel's name for the device.
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
          sample: "Detach it first with state=detached, or say replace: true"
"""

from ansible_collections.racefree.block.plugins.module_utils._module.runner import run_many
from ansible_collections.racefree.block.plugins.module_utils._module.xen_vbd import VbdItem


def main():
    run_many(VbdItem, "vbds")


if __name__ == "__main__":
    main()
