#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot_stores
short_description: Record which image each snapshot's store belongs to, and refuse another one
version_added: 0.1.0
description:
  - A persistent snapshot's store, the C(cow) of a C(snapshot) target, holds what differs from its image, and nothing tells it which image that is. Over
    another image, or one that was changed since, a guest reads a mixture of both, and no error is reported.
  - This module keeps a record beside each store, C(PATH.image), with the image's path, size, modification time and SHA-256 checksum. It fails for
    a store that holds changes of another image.
  - The image is read when the record is made, once for all stores of a task, and again only when its path, size or modification time has
    changed. Then an image with the same contents is accepted, and the record brought up to date.
  - Neither stores nor images are written.
  - The role P(racefree.block.guest_disks#role) uses what this module does for the disks of guests.
author:
  - The racefree.block contributors (@racefree)
extends_documentation_fragment:
  - racefree.block.block
  - racefree.block.block.many
seealso:
  - module: racefree.block.libvirt_disks
options:
  stores:
    description:
      - The stores.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description:
          - The store, a file. It need not be there yet.
        type: path
        required: true
      image:
        description:
          - The image that it is to be a store of, a file.
        type: path
        required: true
      adopt:
        description:
          - Whether a store that holds changes, and has no record, is taken for one of this image.
        type: bool
        default: false
"""

EXAMPLES = r"""
- name: Have two stores that know their image
  racefree.block.snapshot_stores:
    stores:
      - {path: /srv/guests/web1.cow, image: /srv/golden/debian.raw}
      - {path: /srv/guests/web2.cow, image: /srv/golden/debian.raw}
  register: known

- name: Have a guest's disk be that snapshot, of the very image
  racefree.block.libvirt_disk:
    domain: web1
    vdev: xvda
    source:
      table:
        - start: 0
          length: "{{ known.stores[0].store.image.size // 512 }}"
          target: snapshot
          origin: {file: /srv/golden/debian.raw, read_only: true, mtime_ns: "{{ known.stores[0].store.image.mtime_ns }}"}
          cow: {file: /srv/guests/web1.cow}
          persistence: P
          chunk_size: 8
"""

RETURN = r"""
stores:
  description: How each entry of O(stores) went, in their order.
  returned: always
  type: list
  elements: dict
  contains:
    changed:
      description: Whether the record was changed.
      returned: always
      type: bool
    failed:
      description: V(true) for an entry that failed; C(msg) and C(error) have the reason.
      returned: when the entry failed
      type: bool
    msg:
      description: What went wrong, as text.
      returned: when the entry failed
      type: str
    rolled_back:
      description: >-
        V(true) for an entry that was fine, and of which nothing is left, since another one failed: it was rolled back, or not begun.
        What cannot be rolled back has C(changed=true) instead, and a warning says what it is.
      returned: when O(on_error=rollback) and another entry failed
      type: bool
    store:
      description: The store and its image.
      returned: when the entry succeeded
      type: dict
      contains:
        path:
          description: The store.
          type: str
          sample: /srv/guests/web1.cow
        image:
          description: The image.
          type: dict
          contains:
            path:
              description: Its path.
              type: str
              sample: /srv/golden/debian.raw
            size:
              description: Its size in bytes.
              type: int
              sample: 1073741824
            mtime_ns:
              description: When it was last changed, in nanoseconds since the epoch. C(mtime_ns) of a file source asks for it.
              type: int
              sample: 1764039633123456789
            sha256:
              description: Its SHA-256 checksum. V(null) in check mode when it is not read yet.
              type: str
    error:
      description: What went wrong, as data.
      returned: when the entry failed
      type: dict
      contains:
        kind:
          description: The kind of error.
          type: str
          sample: WrongDevice
        message:
          description: What was tried and what happened.
          type: str
        device:
          description: The device, file or name concerned.
          type: str
        errno:
          description: The name of the kernel's error number, or of the one that fits the kind best.
          type: str
          sample: EIO
        hint:
          description: What to do about it.
          type: str
"""

from ansible_collections.racefree.block.plugins.module_utils._module.runner import run_many
from ansible_collections.racefree.block.plugins.module_utils._module.snapshot_stores import StoreItem


def main():
    run_many(StoreItem, "stores")


if __name__ == "__main__":
    main()
