#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: golden_image
short_description: Convert a qcow2, VMDK or VHDX image to a raw golden image, once
version_added: 1.0.0
description:
  - Converts an image of another format with C(qemu-img) to a raw image, which snapshots for guests can then
    use.
  - An image is converted once. Beside the raw image, C(PATH.source) records what it was made from, with the
    SHA-256 checksum of each file. A second run does not read the image again unless it was touched since. If
    its contents are still the same, only the record is updated. If they are not, or if O(path) was written
    to or replaced, the task fails, because snapshots of guests may need the raw image.
  - The record has the checksum of the raw image, too. It is read again if its inode number or change time
    (ctime) is another one, as after C(cp -p) or C(chmod), or if the record is of version 1.0.0. With the same
    contents, it is accepted without a change of the task.
  - The format is never guessed. The task fails if the contents of O(image) are not of the given O(format).
  - The raw image gets its name when it is complete and on the disk. Until then it has a name that ends with
    C(.unfinished). It is removed after an error. If the task is killed, C(qemu-img) is killed, too, and the
    next run on the same host removes the file. An existing file is never replaced.
  - Several hosts can share the directory. If two of them make the same raw image at once, one makes it. On
    the other one the task fails and changes nothing, and succeeds when it is run again.
  - The record gets its name right after the image. If the task is killed in between, the next run on the same
    host completes it. Until then, the task fails on other hosts.
  - C(qemu-img) gets the opened files that were checked, and opens no others. It runs with limits on time and
    memory.
  - Ansible shows nothing of a module before it ends. So the module writes its progress to the system's log,
    one line for every 10 percent (C(journalctl -t racefree.block.golden_image -f)).
  - The role P(racefree.block.guest_disks#role) uses this module.
author:
  - The racefree.block contributors (@racefree)
extends_documentation_fragment:
  - racefree.block.block
requirements:
  - qemu-img (Debian's package is qemu-utils)
seealso:
  - module: racefree.block.snapshot_stores
options:
  path:
    description:
      - Absolute path of the raw image. Its directory must exist.
      - It is made with mode C(0600). Holes of the image remain holes.
    type: path
    required: true
  image:
    description:
      - Absolute path of the image to convert. Nothing may write to it meanwhile.
      - It can be removed after it was converted.
    type: path
    required: true
  format:
    description:
      - The format of O(image).
    type: str
    choices: [qcow2, vmdk, vhdx]
    required: true
  backing:
    description:
      - Whether to read other files of this host that O(image) names. These are a backing file, an external
        data file of a qcow2 image, or the files that the descriptor of a VMDK image names. Without this
        option such an image is refused, because whoever made it chose the names.
      - The result lists these files. Relative names are relative to the directory of the image that names
        them. A backing file must have its format stated in the image.
    type: bool
    default: false
  timeout:
    description:
      - How many seconds the conversion may take. If another run converts to the same O(path), this one waits
        for it up to one minute longer.
    type: int
    default: 3600
  memory:
    description:
      - Limit for the address space of C(qemu-img), at least V(128M).
    type: str
    default: 1G
"""

EXAMPLES = r"""
- name: Convert a cloud image
  racefree.block.golden_image:
    path: /srv/golden/debian-13.raw
    image: /srv/images/debian-13-generic-amd64.qcow2
    format: qcow2
  register: made

- name: Convert a disk that VMware keeps in two files, disk.vmdk and disk-flat.vmdk
  racefree.block.golden_image:
    path: /srv/golden/appliance.raw
    image: /srv/images/disk.vmdk
    format: vmdk
    backing: true
    memory: 2G
    timeout: 14400
"""

RETURN = r"""
golden:
  description: The raw image. In check mode, what is known of it.
  returned: success
  type: dict
  contains:
    path:
      description: Its path.
      returned: success
      type: str
      sample: /srv/golden/debian-13.raw
    exists:
      description: Whether it exists. V(false) in check mode if it would be made.
      returned: success
      type: bool
      sample: true
    size:
      description: >-
        Its size in bytes, also if it does not exist yet.
      returned: success
      type: int
      sample: 3221225472
    mtime_ns:
      description: >-
        Its modification time, in nanoseconds since the epoch. V(null) if it does not exist yet.
      returned: success
      type: int
      sample: 1764039633123456789
    made_from:
      description: The files that were read, the image itself first.
      returned: success
      type: list
      elements: dict
      contains:
        path:
          description: Path of the file.
          returned: success
          type: str
          sample: /srv/images/debian-13-generic-amd64.qcow2
        format:
          description: Its format.
          returned: success
          type: str
          sample: qcow2
        size:
          description: Its size in bytes.
          returned: success
          type: int
          sample: 334495744
        mtime_ns:
          description: Its modification time, in nanoseconds since the epoch.
          returned: success
          type: int
          sample: 1764039600123456789
        sha256:
          description: Its SHA-256 checksum. V(null) in check mode if it was not read yet.
          returned: success
          type: str
          sample: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
error:
  description: The error as structured data.
  returned: failure
  type: dict
  contains:
    kind:
      description: Kind of the error.
      returned: failure
      type: str
      sample: WrongDevice
    device:
      description: The device, file, guest, key or program that the error is about. V(null) if there is none.
      returned: failure
      type: str
      sample: /srv/golden/debian-13.raw
    errno:
      description: >-
        Name of the kernel's error number. If the error did not come from the kernel, the name that fits its
        kind best.
      returned: failure
      type: str
      sample: ENODEV
    hint:
      description: What to do about it.
      returned: failure
      type: str
      sample: "Give another path for a new golden image, and keep this file while guests use it"
"""

from ansible_collections.racefree.block.plugins.module_utils._module.golden_image import GoldenItem
from ansible_collections.racefree.block.plugins.module_utils._module.runner import run_one


def main():
    run_one(GoldenItem)


if __name__ == "__main__":
    main()
