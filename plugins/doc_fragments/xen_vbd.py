# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of disks of running guests of Xen."""

from __future__ import annotations

from ansible_collections.racefree.block.plugins.doc_fragments.guest_disk import ModuleDocFragment as GuestDisk
from ansible_collections.racefree.block.plugins.doc_fragments.sealed_below import (
    ModuleDocFragment as SealedBelow,
)
from ansible_collections.racefree.block.plugins.doc_fragments.source import ModuleDocFragment as Source
from ansible_collections.racefree.block.plugins.plugin_utils._fragments import in_list


class ModuleDocFragment:
    DOCUMENTATION = r"""
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
      - The device. Required if O(state=attached). Text, or a dictionary with one of O(source.diskseq),
        O(source.path), O(source.file) and O(source.table).
      - If O(state=detached), this is a check. The disk is only detached if it is this source, with whatever
        mode. It cannot be checked, and the task fails, while the backend has no device open for the disk.
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
  persist:
    description:
      - Whether a loop or mapped device that is created for O(source) is kept when the guest no longer uses
        it, until it is removed or the host boots. The role P(racefree.block.boot_devices#role) makes
        devices at each boot.
      - With V(false), the device is removed when blkback closes it, so nothing is left over when the guest
        ends. blkback keeps the device open as long as the guest has the disk, also while a guest disconnects
        and connects again, as some do when they boot.
    type: bool
    default: true
  wait_connected:
    description:
      - Whether to wait until the guest has connected to a new disk that is attached through XenStore, instead
        of only until blkback has opened the device.
      - It has no effect on a disk that libvirt attaches (see O(toolstack)), or that the guest already has.
    type: bool
    default: false
  force:
    description:
      - With O(state=detached), whether to detach the disk without the guest's cooperation. The guest then
        gets I/O errors.
      - libvirt is told only with O(toolstack=libvirt). It takes the disk away after 10 s. If that fails, the
        disk is taken away through XenStore, and the task fails because libvirt may still list it. With
        O(toolstack=auto), XenStore is used at once, and libvirt goes on listing a disk that it attached.
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
      - With V(auto), libvirt is used for a guest that libvirt runs, and XenStore for all others. If libvirt
        has running guests but does not tell whether it runs this one, for example because its daemon or its
        Python library is missing, the task fails.
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

    # As entries of a list.
    MANY: str = in_list(
        "vbds", DOCUMENTATION, GuestDisk.DOCUMENTATION, SealedBelow.DOCUMENTATION, Source.DOCUMENTATION
    )
