# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes of a thin pool."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  volumes:
    description:
      - Volumes that should or should not exist in a thin pool. Volumes that are not listed here are left
        unchanged. In M(racefree.block.dm_device), they are possible only with C(state=present), and for a
        device whose table is one C(thin-pool) target.
      - A pool of LVM is refused, because LVM assigns the numbers of its volumes itself. C(lvcreate) and
        C(lvremove) make and remove them.
      - Each volume is used through its own mapped device with a C(thin) target.
      - The kernel does not list the volumes of a pool. To find out whether a volume exists, the task creates
        a mapped device for it and removes it at once, which changes nothing in the pool.
    type: list
    elements: dict
    suboptions:
      id:
        description:
          - Number of the volume in its pool, from 0 to 16777215.
        type: int
        required: true
      snapshot_of:
        description:
          - The volume to create this one from, as a snapshot, if this one does not exist yet. That volume
            must exist in the pool or be listed before this one.
          - Mapped devices that use that volume are suspended meanwhile, so that the snapshot is consistent.
            They are resumed even if the task is killed.
          - The kernel does not record what a volume was created from. An existing volume is not checked.
        type: int
      state:
        description:
          - Whether the volume should exist. A volume that a mapped device uses is not deleted, and the task
            fails.
          - Volumes are deleted only after everything else in the task has succeeded. If the task fails,
            volumes that it created are deleted again.
        type: str
        choices: [present, absent]
        default: present
"""
