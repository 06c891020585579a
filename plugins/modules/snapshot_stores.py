#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: snapshot_stores
short_description: Record which image each snapshot store belongs to, and refuse to use it with another image
version_added: 1.0.0
description:
  - A store of a persistent snapshot, the C(cow) device of a C(snapshot) target, contains the blocks that
    differ from an image, but no information about which image that is. With another image, or with the same
    image after it was changed, a guest reads a mixture of both, and no error is reported.
  - This module keeps a record beside each store, in the file C(PATH.image), with the path, size, modification
    time and SHA-256 checksum of the image. It fails for a store that has changes to another image.
  - The image is read when the record is created, once for all stores of a task. It is read again only if its
    path, size, inode number, modification time or change time (ctime) is another one. If its content is still
    the same, it is accepted and the record is updated. This is not a change of the task if its path, size and
    modification time are the same, too, as after C(chmod), or if the record is of version 1.0.0.
  - Stores and images are never written to.
  - The role P(racefree.block.guest_disks#role) uses this module for the disks of guests.
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
          - The file of the store. It need not exist yet.
        type: path
        required: true
      image:
        description:
          - The file of the image that the store belongs to.
        type: path
        required: true
      adopt:
        description:
          - Whether to accept a store that has changes but no record as a store of this image.
        type: bool
        default: false
      warn_percent:
        description:
          - Warn if the store is at least this full, in percent (1 to 100).
        type: int
      format:
        description:
          - Confirms that the image is a raw disk although it begins with the signature of another format.
            Otherwise such an image is refused, because the guest would read the container instead of the disk
            in it. M(racefree.block.golden_image) converts images of other formats.
        type: str
        choices: [raw]
"""

EXAMPLES = r"""
- name: Record the image of two stores
  racefree.block.snapshot_stores:
    stores:
      - {path: /srv/guests/web1.cow, image: /srv/golden/debian.raw}
      - {path: /srv/guests/web2.cow, image: /srv/golden/debian.raw}
  register: known

- name: Use the snapshot of exactly that image as the disk of a guest
  racefree.block.libvirt_disk:
    domain: web1
    vdev: xvda
    source:
      table:
        - start: 0
          length: "{{ known.stores[0].store.image.size // 512 }}"
          target: snapshot
          origin:
            file: /srv/golden/debian.raw
            read_only: true
            mtime_ns: "{{ known.stores[0].store.image.mtime_ns }}"
          cow: {file: /srv/guests/web1.cow}
          persistence: P
          chunk_size: 8

- name: Use stores that another program has created, and go on with the others if one fails
  racefree.block.snapshot_stores:
    stores:
      - {path: /srv/guests/web3.cow, image: /srv/golden/debian.raw, adopt: true}
    on_error: keep

- name: Confirm that an image is a raw disk although it looks like another format, and warn about a full store
  racefree.block.snapshot_stores:
    stores:
      - {path: /srv/guests/web4.cow, image: /srv/golden/nested.raw, format: raw, warn_percent: 80}
"""

RETURN = r"""
stores:
  description: The result of each entry of O(stores), in the same order.
  returned: always, except when the task as a whole failed, for example because storage did not answer
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
        /srv/guests/web1.cow: it holds changes of /srv/golden/a.raw (1073741824 bytes, SHA-256 9f86...), and
        /srv/golden/b.raw (1073741824 bytes, SHA-256 2c26...) is another image.
        With this image the guest would read a mixture of both. Give the image that the store belongs to, or
        an empty file as the store
    rolled_back:
      description: >-
        V(true) for an entry without an error of its own that was rolled back, or not started, because another
        entry failed. What cannot be rolled back has C(changed=true) instead, and a warning says what it is.
      returned: when O(on_error=rollback) and another entry failed
      type: bool
      sample: true
    store:
      description: The store and its image.
      returned: when the entry succeeded
      type: dict
      contains:
        path:
          description: Path of the store.
          returned: when the entry succeeded
          type: str
          sample: /srv/guests/web1.cow
        record_changed:
          description: >-
            Whether the record of the image was written, or would be without check mode. It is also written,
            with C(changed=false), when another file has the same contents, or when the image's file has got
            another link or mode, so that the next run does not read the whole image again.
          returned: when the entry succeeded
          type: bool
          sample: true
        space:
          description: >-
            How full the store is, as its file says. V(null) for an empty one. A full store loses what is
            written to it.
          returned: when the entry succeeded
          type: dict
          contains:
            kind:
              description: V(store) for a snapshot, V(pool) for a thin pool.
              returned: when the entry succeeded
              type: str
              choices: [store, pool]
              sample: store
            used:
              description: Bytes in use. For a store, this includes its metadata.
              returned: when the entry succeeded
              type: int
              sample: 805306368
            size:
              description: Size in bytes.
              returned: when the entry succeeded
              type: int
              sample: 1073741824
            percent:
              description: The same in percent, with one decimal.
              returned: when the entry succeeded
              type: float
              sample: 75.0
            metadata:
              description: C(used), C(size) and C(percent) of a pool's metadata. V(null) for a store.
              returned: when the entry succeeded
              type: dict
              sample: {used: 1048576, size: 8388608, percent: 12.5}
        image:
          description: The image.
          returned: when the entry succeeded
          type: dict
          contains:
            path:
              description: Path of the image.
              returned: when the entry succeeded
              type: str
              sample: /srv/golden/debian.raw
            size:
              description: Size of the image in bytes.
              returned: when the entry succeeded
              type: int
              sample: 1073741824
            mtime_ns:
              description: >-
                Modification time of the image, in nanoseconds since the epoch. C(mtime_ns) of a file source
                takes this value.
              returned: when the entry succeeded
              type: int
              sample: 1764039633123456789
            sha256:
              description: SHA-256 checksum of the image. V(null) in check mode if the image was not read yet.
              returned: when the entry succeeded
              type: str
              sample: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    error:
      description: The error as structured data.
      returned: when the entry failed
      type: dict
      contains:
        kind:
          description: Kind of the error.
          returned: when the entry failed
          type: str
          sample: WrongDevice
        device:
          description: >-
            The device, file, guest, key or program that the error is about. V(null) if there is none.
          returned: when the entry failed
          type: str
          sample: /srv/guests/web1.cow
        errno:
          description: >-
            Name of the kernel's error number. If the error did not come from the kernel, the name that fits
            its kind best.
          returned: when the entry failed
          type: str
          sample: ENODEV
        hint:
          description: What to do about it.
          returned: when the entry failed
          type: str
          sample: >-
            With this image the guest would read a mixture of both. Give the image that the store belongs
            to, or an empty file as the store
error:
  description: The error as structured data.
  returned: when the task as a whole failed. The error of an entry is in that entry.
  type: dict
  contains:
    kind:
      description: Kind of the error.
      returned: when the task as a whole failed
      type: str
      sample: DeadlineExceeded
    device:
      description: The device, file, guest, key or program that the error is about. V(null) if there is none.
      returned: when the task as a whole failed
      type: str
      sample: /srv/guests/web1.raw
    errno:
      description: >-
        Name of the kernel's error number. If the error did not come from the kernel, the name that fits its
        kind best.
      returned: when the task as a whole failed
      type: str
      sample: ETIMEDOUT
    hint:
      description: What to do about it.
      returned: when the task as a whole failed
      type: str
      sample: "Look for a hanging disk or network in the kernel log, and run the task again"
"""

from ansible_collections.racefree.block.plugins.module_utils._module.runner import run_many
from ansible_collections.racefree.block.plugins.module_utils._module.snapshot_stores import StoreItem


def main():
    run_many(StoreItem, "stores")


if __name__ == "__main__":
    main()
