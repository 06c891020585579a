#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: xen_vbd
short_description: Attach a disk to a running Xen guest, or detach it
version_added: 0.1.0
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
options:
  domain:
    description:
      - Name, ID or UUID of the running guest.
    type: str
    required: true
  vdev:
    description:
      - Name of the disk in the guest, like V(xvda), V(xvdb1), V(hda), V(sda), V(d3) or a device number like
        V(51712).
    type: str
    required: true
  source:
    description:
      - The device. Required if O(state=attached). Text such as V(diskseq:42), V(path:/dev/vg/a),
        V(file:/srv/a.raw) or an absolute path of a block device, or a dictionary of one of the following
        forms.
      - With C(diskseq), the disk that has this disk sequence number, and optionally C(partition), a partition
        of that disk, and C(boot_id), the boot in which the number is valid. A number of another boot is
        refused. As text, these are V(diskseq:42-part1) and V(diskseq:42@BOOT).
      - With C(path), a block device, and optionally the C(uuid) (of a mapped device) and the C(diskseq) that
        it must have.
      - With C(file), a loop device for this file, which is created if it does not exist. Optional are
        C(offset), C(size) (bytes) or C(partition), C(read_only), C(direct_io), C(sector_size), and
        C(mtime_ns), the modification time (nanoseconds) that a read-only file must have. A file that begins
        with the signature of an image format (qcow2, VMDK, VHD, VHDX, VDI, QED, Parallels, DMG, Bochs, cloop)
        is refused unless C(format=raw) confirms that it is a raw disk image. With C(overlap=true), or with
        O(shared), another device may write to the same part of the file. With C(trusted_path=true), a path
        that a user other than root can redirect is an error instead of a warning.
      - With C(table), a mapped device, which is created if it does not exist, and optionally its C(name),
        C(uuid) and C(read_only). See O(racefree.block.dm_device#module:table).
      - If O(state=detached), this is a check. The disk is only detached if it is this source.
    type: raw
  size:
    description:
      - The size that the disk is to have, in bytes or like V(20G), for a O(source) with C(file) and without
        C(size). A smaller file is made larger; the new part has no blocks yet. If the guest has the disk
        already, its device grows, and the guest sees the new size while it runs. A file that is larger is an
        error, because nothing is ever made smaller.
      - A disk also grows without this option if it is shorter than what O(source) says. That is so if its
        file or logical volume was made larger, if C(size) in O(source) is larger than before, or if a table
        is longer. Nothing may use the new part yet.
      - The task waits until blkback has told the guest the new size, for at most O(timeout) seconds.
        Otherwise it fails, and the device keeps its new size. The guest's file system does not grow by
        itself. See C(docs/grow-a-disk.md) of the collection.
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
      - A check. The task fails without changing anything unless the disk, or the device at the path of the
        source, has this disk sequence number.
    type: int
  diskseq_form:
    description:
      - How the disk sequence number of a new disk is passed to the backend. Released versions of blkback
        ignore all of these forms except V(diskseq@number), which they refuse. Modified versions may expect
        one of the forms that were proposed for it.
      - With V(diskseq), V(physical-device-uuid), V(physical-device-luid) or V(physical-device-uid), in a
        XenStore node of this name.
      - With V(diskseq@number), in front of the number in the node C(physical-device).
      - Disks that libvirt attaches only support V(diskseq).
    type: str
    choices: [diskseq, diskseq@number, physical-device-uuid, physical-device-luid, physical-device-uid]
    default: diskseq
  shared:
    description:
      - Whether several guests may use the disk even if one of them writes to it. The guests must coordinate
        their writes, as cluster file systems do.
    type: bool
    default: false
  replace:
    description:
      - Whether to replace a disk that the guest has as O(vdev) and that is another one, has another mode or
        another device type. Without it, this is an error.
      - The new device is opened or created, held and checked first, also for use by other guests. Then the
        guest is asked to release the old disk, and has O(timeout) seconds for it. If it does not answer, the
        request is withdrawn, and nothing was changed. Then the new disk is attached. If that fails, the old
        disk is attached again, with its seal, and the error says so.
      - The guest has no disk there for a moment. B(Unmount it in the guest first). Current versions of Linux
        (6.1 and 6.12 were tried) release a disk even if it is mounted, and the file system then gets I/O
        errors. Old versions refuse until it is unmounted; that request cannot be withdrawn, and the error
        says so.
      - A table of O(source) that is not a device yet must not use storage of the old disk.
      - If the task is killed, the guest may have no disk there. Running it again attaches the new one.
      - If O(sealed) is not given, the new disk is sealed if the old one was.
    type: bool
    default: false
  persist:
    description:
      - Whether a loop or mapped device that is created for O(source) is kept when the guest no longer uses
        it, until it is removed or the host boots. The role racefree.block.boot_devices makes devices at each
        boot.
      - With V(false), the device is removed when blkback closes it, so nothing is left over when the guest
        ends. blkback keeps the device open as long as the guest has the disk, also while a guest disconnects
        and connects again, as some do when they boot.
    type: bool
    default: true
  sealed:
    description:
      - With V(true), the device is sealed as soon as blkback has opened it. Nobody, not even root, can open a
        sealed device, so C(mount), C(blkid), C(kpartx) and udev's rules fail with C(EPERM). The guest uses it
        as before. The seal is lifted when the disk is detached, also when the guest ends.
      - With V(false), the seal is lifted that this option has set. Seals that others have set stay, such as
        the option C(sealed) of M(racefree.block.dm_device). If not given, an existing disk keeps its seal,
        and a new disk has none.
      - Requires a kernel with CONFIG_CGROUP_BPF, control groups of version 2, and a file system of type bpf
        at C(/sys/fs/bpf). If something is missing, the task fails before anything is changed.
      - See C(docs/sealed-devices.md) of the collection for the limitations.
    type: bool
  sealed_below:
    description:
      - With V(true), the loop and mapped devices below the device are sealed with it, but not what is below a
        logical volume of LVM. They are released with it, unless somebody else has sealed them. Requires
        O(sealed=true).
      - With V(false), the seals are lifted that this option has set. If not given, they stay.
    type: bool
  wait_connected:
    description:
      - Whether to wait until the guest has connected to the disk, instead of only until blkback has opened
        the device.
    type: bool
    default: false
  force:
    description:
      - With O(state=detached), whether to detach the disk without the guest's cooperation. The guest then
        gets I/O errors.
    type: bool
    default: false
  toolstack:
    description:
      - Which toolstack attaches and detaches the disk. libvirt lists and detaches only disks that it attached
        itself.
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

- name: Let the disk of a running guest grow to 20 GiB, and its file with it
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
    The identity of the device behind the disk. V(null) if O(state=detached), or in check mode if the disk is
    not attached yet.
  returned: success
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
      description: Disk sequence number. The kernel does not give it to another device until the next boot.
      type: int
      sample: 42
    boot_id:
      description: >-
        ID of the boot in which the disk sequence number is valid, to be stored together with the number. Disk
        sequence numbers start again at every boot.
      type: str
      sample: 8b2f4c3e-6d1a-4f0e-9c57-1d2e3f405162
    partition:
      description: >-
        Partition number. V(null) for a whole disk. A partition has the disk sequence number of its disk.
      type: int
      sample: 1
    by_diskseq:
      description: >-
        The symbolic link that udev creates for the disk sequence number and the partition, if udev has a rule
        for it. udev creates and removes it with a delay.
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
  returned: failure
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
        Name of the kernel's error number. If the error did not come from the kernel, the name that fits its
        kind best.
      type: str
      sample: EBUSY
    hint:
      description: What to do about it.
      type: str
      sample: "Detach it first with state=detached, or say replace: true"
"""

from ansible_collections.racefree.block.plugins.module_utils._module.runner import run_one
from ansible_collections.racefree.block.plugins.module_utils._module.xen_vbd import VbdItem


def main():
    run_one(VbdItem)


if __name__ == "__main__":
    main()
