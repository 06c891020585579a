# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of the modules for disks of guests."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  size:
    description:
      - The size that the disk should have, in bytes or like V(20G), for a O(source) with O(source.file) and
        without O(source.size), O(source.partition) and O(source.read_only), and with O(mode=w). A smaller
        file is made larger; the new part has no blocks yet. A file that is larger is an error, because
        nothing is ever made smaller.
      - If a running guest has the disk, it grows there, too, and the guest sees the new size while it runs.
        M(racefree.block.libvirt_disk) and M(racefree.block.xl_disk) do this only with C(live=true).
      - Such a disk also grows without this option if it is shorter than what O(source) says. That is so if
        its file or logical volume was made larger, if O(source.size) is larger than before, or if a table is
        longer. Nothing may use the new part yet.
      - The task waits until the backend (blkback or QEMU) has told the guest the new size, for at most
        O(timeout) seconds. Otherwise it fails, and the device keeps its new size. The guest's file system
        does not grow by itself. See C(docs/grow-a-disk.md) of the collection.
    type: str
  mode:
    description:
      - Whether the guest may only read (V(r)) or also write (V(w)).
    type: str
    choices: [r, w]
    default: w
  device_type:
    description:
      - What kind of device the guest sees. A disk with V(cdrom) needs O(mode=r).
    type: str
    choices: [disk, cdrom]
    default: disk
  shared:
    description:
      - Whether several guests may use the disk even if one of them writes to it. Each guest's disk must have
        this option. The guests must coordinate their writes, as cluster file systems do.
      - A file can then have several loop devices that write to it, as with O(source.overlap=true).
    type: bool
    default: false
  replace:
    description:
      - Whether to replace a disk that the running guest has as O(vdev) and that is another one, has another
        mode or another device type. Without it, this is an error. M(racefree.block.libvirt_disk) and
        M(racefree.block.xl_disk) require C(live=true).
      - The new disk is opened or created, held and checked first. Then the guest is asked to release the old
        disk, and has O(timeout) seconds for it. If it does not answer, the request is withdrawn, and nothing
        was changed. QEMU cannot withdraw it, so its guest may still release the disk later, and the error
        says so. Then the new disk is attached. If that fails, the old disk is attached again, with its recipe
        and its seal, and the error says so.
      - The guest has no disk there for a moment. B(Unmount it in the guest first). See
        C(docs/replacing-disks.md) of the collection for what a guest does that uses the disk, for what is
        refused, and for tasks that are killed.
      - If O(sealed) is not given, the new disk is sealed if the old one was.
    type: bool
    default: false
  sealed:
    description:
      - With V(true), the device is sealed as soon as blkback has opened it. Nobody, not even root, can open a
        sealed device, so C(mount), C(blkid), C(kpartx) and udev's rules fail with C(EPERM). The guest uses it
        as before. The seal is lifted when the disk is detached, also when the guest ends. Only for Xen,
        because nothing tells when QEMU has opened a disk, and when it has closed it.
      - With V(false), the seal that this option has set is lifted. Seals that others have set stay, such as
        that of the option C(sealed) of M(racefree.block.dm_device). If not given, an existing disk keeps its
        seal, also in its recipe, and a new disk has none.
      - The recipes of M(racefree.block.libvirt_disk) and M(racefree.block.xl_disk) keep this option, so the
        disk is sealed at every start of the guest. M(racefree.block.xl_disk) changes only the recipe, not the
        seal of a disk that a guest has.
      - Requires a kernel with CONFIG_CGROUP_BPF, control groups of version 2, and a file system of type bpf
        at C(/sys/fs/bpf). If something is missing, the task fails before anything is changed.
      - See C(docs/sealed-devices.md) of the collection for the limitations. For example, HVM guests that
        C(xl) starts cannot have sealed disks, because their device model opens the disks, too.
    type: bool
"""

    # The source of a disk that is kept as a recipe.
    RECIPE = r"""
options:
  source:
    description:
      - The source of the disk, which is kept as its recipe. Required if O(state=present). Text, or a
        dictionary with one of O(source.file), O(source.path), O(source.table) and O(source.diskseq).
      - With O(source.file), the recipe keeps O(source.format=raw) once the file was found to be raw, so that
        nothing that the guest writes to its disk can prevent its next start.
      - With O(source.path), the current UUID of the device is kept with the path if O(source.uuid) is not
        given.
      - A disk sequence number is valid until the next boot only, so a recipe can have O(source.diskseq) only
        together with O(source.boot_id). The guest cannot start with it after the next boot of the host.
      - Names that the kernel gives to whichever device comes first are refused too, such as C(/dev/loop7),
        C(/dev/dm-3), C(/dev/block/253:3) and those in C(/dev/disk/by-diskseq). For other paths without a UUID
        there is a warning, except for those in C(/dev/disk/by-id) and C(/dev/disk/by-path). Labels and UUIDs
        of file systems are not reliable, because whoever can write to a disk can set them.
      - A snapshot or thin volume that the disk has already, encrypted or not, is never made shorter.
      - If O(state=absent), this is a check. The disk is only removed if it has this recipe.
"""
