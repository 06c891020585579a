# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of disks of libvirt's domains."""

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
      - Name or UUID of the domain. It need not be running.
    type: str
    required: true
  vdev:
    description:
      - Name of the disk in the guest, like V(xvda), V(vda), V(hda) or V(sda). For Xen, a device number like
        V(51712) is accepted too.
    type: str
    required: true
  bus:
    description:
      - The bus that the disk is attached to, like V(xen), V(virtio), V(ide), V(scsi) or V(sata). If not
        given, libvirt chooses it by the name in O(vdev), and an existing disk keeps its bus.
    type: str
  config:
    description:
      - Whether to change the definition, which takes effect at the domain's next start.
      - V(false) requires O(live=true). O(source) may then have O(source.diskseq) without O(source.boot_id).
    type: bool
    default: true
  live:
    description:
      - Whether to change the running domain too, if it is running. Only for V(xen:///system) and
        V(qemu:///system).
      - A CD of a running guest of Xen can only be changed without libvirt, see
        M(racefree.block.xen_vbd).
      - With O(config=false), the domain must be running.
      - The recipe is also added to the definition of the running domain, so that the domain can be saved and
        restored, even after a boot of the host. With O(config=false), no recipe is added, and there is a
        warning, if the source could refer to another disk by then.
    type: bool
    default: false
  uri:
    description:
      - The libvirt driver to connect to, like V(xen:///system) or V(qemu:///system).
    type: str
    default: xen:///system
  timeout:
    description:
      - How many seconds to wait for libvirt, and with O(live=true) for blkback, QEMU or the guest.
    type: int
    default: 60
  state:
    description:
      - Whether the domain should have the disk.
      - With V(empty), the drive is there and has no medium. Possible only with O(device_type=cdrom), and for
        guests whose drives QEMU serves. With O(live=true), a running guest of QEMU is asked to release the
        medium.
      - The CD drive of a running guest of QEMU cannot be removed with O(live=true). Use V(empty).
    type: str
    choices: [present, absent, empty]
    default: present
"""

    # As entries of a list.
    MANY: str = in_list(
        "disks",
        DOCUMENTATION,
        GuestDisk.DOCUMENTATION,
        SealedBelow.DOCUMENTATION,
        GuestDisk.RECIPE,
        Source.DOCUMENTATION,
    )
