#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: thin_volumes
short_description: Have volumes in a thin pool, whether the pool is live or not
version_added: 0.1.0
description:
  - Makes and deletes volumes of a thin pool. A pool that is not live is brought up for the time of the task, and goes again with its last user,
    so that guests whose definitions name the pool's table make it when they start.
  - A pool whose table is larger than before grows. It is never cut. A new pool is made when its metadata begins with zeros; anything else that is
    kept there is refused.
  - M(racefree.block.dm_device) does the same for a pool that is to stay live.
  - The role P(racefree.block.guest_disks#role) uses what this module does for the disks of guests.
author:
  - The racefree.block contributors (@racefree)
extends_documentation_fragment:
  - racefree.block.block
seealso:
  - module: racefree.block.dm_device
options:
  pool:
    description:
      - The pool. A dictionary with C(path) and C(uuid), of a pool that is live.
      - Or one with C(table), which is one C(thin-pool) target, C(name) and C(uuid). See O(racefree.block.dm_device#module:table).
    type: raw
    required: true
  volumes:
    description:
      - Volumes that the pool is to have, or not to have. Volumes that are not named are left alone.
      - A pool does not list its volumes. Each one named is asked for, which takes a mapped device for a moment and changes nothing in the pool.
    type: list
    elements: dict
    required: true
    suboptions:
      id:
        description:
          - Number of the volume in its pool, from 0 to 16777215.
        type: int
        required: true
      snapshot_of:
        description:
          - The volume to make it from, as a snapshot, when it is not there yet. The pool has that volume, or it stands before this one in the list.
          - Mapped devices that have that volume active are suspended meanwhile.
          - Nothing tells later of what a volume was made. One that is there is not looked at any further.
        type: int
      state:
        description:
          - Whether the volume is to be there. One that a mapped device uses is not deleted, and the task fails.
          - Volumes are deleted when all else in the task has succeeded. Volumes that were made are deleted again when the task fails.
        type: str
        choices: [present, absent]
        default: present
  timeout:
    description:
      - For how many seconds to wait for outstanding reads and writes to end, where the pool grows or a snapshot is made.
    type: int
    default: 10
"""

EXAMPLES = r"""
- name: Have two volumes in a pool over two files
  racefree.block.thin_volumes:
    pool:
      name: guests
      uuid: RACEFREE-POOL-guests
      table: "0 41943040 thin-pool file:/srv/pool.meta file:/srv/pool.data 128 0"
    volumes:
      - {id: 1}
      - {id: 2, snapshot_of: 1}

- name: Delete one of a pool that is live
  racefree.block.thin_volumes:
    pool: {path: /dev/mapper/pool0, uuid: POOL-4711}
    volumes:
      - {id: 2, state: absent}
"""

RETURN = r"""
volumes:
  description: The volumes of O(volumes) as they are after the task, or would be.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: Number of the volume.
      type: int
      sample: 1
    state:
      description: V(present) or V(absent).
      type: str
      sample: present
error:
  description: What went wrong, as data.
  returned: failure
  type: dict
  contains:
    kind:
      description: The kind of error.
      type: str
      sample: DeviceBusy
    message:
      description: What was tried and what happened.
      type: str
    device:
      description: The device, file or name concerned.
      type: str
    errno:
      description: The name of the kernel's error number, or of the one that fits the kind best.
      type: str
      sample: EBUSY
    hint:
      description: What to do about it.
      type: str
"""

from ansible_collections.racefree.block.plugins.module_utils._module.runner import run_one
from ansible_collections.racefree.block.plugins.module_utils._module.thin_volumes import VolumesItem


def main():
    run_one(VolumesItem)


if __name__ == "__main__":
    main()
