#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: thin_volumes
short_description: Create and delete volumes of a thin pool, whether the pool is active or not
version_added: 1.0.0
description:
  - Creates and deletes volumes of a thin pool. A pool that is not active is activated for the duration of the
    task, and removed again when its last user closes it. Use it for pools that guests activate themselves
    when they start, because their definitions contain the table of the pool.
  - A pool whose table is longer than before grows. A pool is never made smaller. A new pool is created if its
    metadata device begins with zeros. Any other content of the metadata device is refused.
  - M(racefree.block.dm_device) does the same for a pool that should stay active.
  - The role P(racefree.block.guest_disks#role) uses this module for the disks of guests.
author:
  - The racefree.block contributors (@racefree)
extends_documentation_fragment:
  - racefree.block.block
  - racefree.block.volumes
  - racefree.block.source.pool
seealso:
  - module: racefree.block.dm_device
options:
  pool:
    description:
      - The pool. Either a dictionary with O(pool.path) and O(pool.uuid), for a pool that is active.
      - Or a dictionary with O(pool.table) (one C(thin-pool) target), O(pool.name) and O(pool.uuid). All three
        are required then.
    required: true
  volumes:
    required: true
  warn_percent:
    description:
      - Warn if the pool's data or metadata are at least this full, in percent (1 to 100).
    type: int
  timeout:
    description:
      - How many seconds to wait for outstanding I/O to complete when the pool grows or a snapshot is taken.
    type: int
    default: 10
"""

EXAMPLES = r"""
- name: Create two volumes in a pool on two files
  racefree.block.thin_volumes:
    pool:
      name: guests
      uuid: RACEFREE-POOL-guests
      table: "0 41943040 thin-pool file:/srv/pool.meta file:/srv/pool.data 128 0"
    volumes:
      - {id: 1}
      - {id: 2, snapshot_of: 1}

- name: Delete a volume of an active pool
  racefree.block.thin_volumes:
    pool: {path: /dev/mapper/pool0, uuid: POOL-4711}
    volumes:
      - {id: 2, state: absent}

- name: Take a snapshot of a volume that is in use, and wait longer for its outstanding I/O
  racefree.block.thin_volumes:
    pool: {path: /dev/mapper/pool0, uuid: POOL-4711}
    volumes:
      - {id: 3, snapshot_of: 1}
    timeout: 60

- name: Warn if a pool is 80 percent full
  racefree.block.thin_volumes:
    pool: {path: /dev/mapper/pool0, uuid: POOL-4711}
    volumes: []
    warn_percent: 80
"""

RETURN = r"""
space:
  description: How full the pool is. V(null) if it does not exist.
  returned: success
  type: dict
  contains:
    kind:
      description: V(store) for a snapshot, V(pool) for a thin pool.
      returned: success
      type: str
      choices: [store, pool]
      sample: pool
    used:
      description: Bytes in use. For a store, this includes its metadata.
      returned: success
      type: int
      sample: 805306368
    size:
      description: Size in bytes.
      returned: success
      type: int
      sample: 1073741824
    percent:
      description: The same in percent, with one decimal.
      returned: success
      type: float
      sample: 75.0
    metadata:
      description: C(used), C(size) and C(percent) of a pool's metadata. V(null) for a store.
      returned: success
      type: dict
      sample: {used: 1048576, size: 8388608, percent: 12.5}
volumes:
  description: The volumes of O(volumes) as they are after the task, or would be in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: Number of the volume.
      returned: success
      type: int
      sample: 1
    state:
      description: V(present) or V(absent).
      returned: success
      type: str
      sample: present
error:
  description: The error as structured data.
  returned: failure
  type: dict
  contains:
    kind:
      description: Kind of the error.
      returned: failure
      type: str
      sample: DeviceBusy
    device:
      description: The device, file, guest, key or program that the error is about. V(null) if there is none.
      returned: failure
      type: str
      sample: guests
    errno:
      description: >-
        Name of the kernel's error number. If the error did not come from the kernel, the name that fits its
        kind best.
      returned: failure
      type: str
      sample: EBUSY
    hint:
      description: What to do about it.
      returned: failure
      type: str
      sample: "Remove that first; nothing was done"
"""

from ansible_collections.racefree.block.plugins.module_utils._module.runner import run_one
from ansible_collections.racefree.block.plugins.module_utils._module.thin_volumes import VolumesItem


def main():
    run_one(VolumesItem)


if __name__ == "__main__":
    main()
