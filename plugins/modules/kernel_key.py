#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kernel_key
short_description: Add a key for encrypted devices to the kernel's keyring, or remove it
version_added: 1.0.0
description:
  - Adds a key to root's user keyring (C(@u)), or removes it. A C(crypt) target can name the key as
    C(:SIZE:TYPE:DESCRIPTION), both in O(racefree.block.dm_device#module:table) and in the definition of a
    guest that M(racefree.block.libvirt_disk) writes. While the collection's modules and its hook for libvirt
    load a table, they link that keyring into their own, so the key is found however they were started.
  - The keyring is kept in the kernel's memory and is lost at every boot. Add the keys again after a boot,
    before guests start.
  - The payload never appears in arguments of programs, logs, diffs or return values.
  - The role P(racefree.block.guest_disks#role) uses this module for the disks of guests.
author:
  - The racefree.block contributors (@racefree)
extends_documentation_fragment:
  - racefree.block.block
notes:
  - Only the kernel can read the payload of a logon key. To detect later whether a key has the wanted payload,
    a second key named C(racefree.block:TYPE:DESCRIPTION) is kept beside it, with a salted hash that only root
    can read. The payload must be a random key, as C(dm-crypt) uses it, and not a passphrase. If somebody else
    changes the payload of the key afterwards, this is not detected.
  - A device that is in use has its own copy of the key, and keeps working when the key is removed or changed.
seealso:
  - module: racefree.block.dm_device
  - module: racefree.block.libvirt_disk
options:
  description:
    description:
      - Description by which the key is found. It must not contain spaces. With O(type=logon), it has the form
        C(PREFIX:NAME).
    type: str
    required: true
  type:
    description:
      - Type of the key. Only the kernel can read a V(logon) key. Root can read a V(user) key.
    type: str
    choices: [logon, user]
    default: logon
  payload:
    description:
      - The key itself, as hexadecimal text. Required if O(state=present).
      - For V(aes-xts-plain64), the key has 32 or 64 bytes.
    type: str
  state:
    description:
      - Whether the key should exist.
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
- name: Add the key of a guest
  racefree.block.kernel_key:
    description: guests:web1
    payload: "{{ vault_web1_key }}"
  register: web1_key

- name: Add an encrypted disk that is created at every start of the guest
  racefree.block.libvirt_disk:
    domain: web1
    vdev: xvdb
    source:
      table:
        - start: 0
          length: 2097152
          target: crypt
          cipher: aes-xts-plain64
          key: "{{ web1_key.key.table_key }}"
          iv_offset: 0
          device: {file: /srv/guests/web1-secret.raw}
          offset: 0

- name: Remove the key
  racefree.block.kernel_key:
    description: guests:web1
    state: absent

- name: Add a key that no program can read back
  racefree.block.kernel_key:
    description: guests:web2
    payload: "{{ vault_web2_key }}"
    type: logon
"""

RETURN = r"""
key:
  description: The key, without its payload. V(null) if O(state=absent).
  returned: success
  type: dict
  contains:
    type:
      description: Type of the key.
      returned: success
      type: str
      sample: logon
    description:
      description: Description of the key.
      returned: success
      type: str
      sample: guests:web1
    serial:
      description: Serial number that the kernel gave the key. V(null) in check mode if it does not exist yet.
      returned: success
      type: int
      sample: 268812043
    size:
      description: Size of the payload in bytes.
      returned: success
      type: int
      sample: 64
    table_key:
      description: How a C(crypt) target names the key.
      returned: success
      type: str
      sample: ":64:logon:guests:web1"
error:
  description: The error as structured data.
  returned: failure
  type: dict
  contains:
    kind:
      description: Kind of the error.
      returned: failure
      type: str
      sample: KernelError
    device:
      description: The device, file, guest, key or program that the error is about. V(null) if there is none.
      returned: failure
      type: str
      sample: guests:web1
    errno:
      description: >-
        Name of the kernel's error number. If the error did not come from the kernel, the name that fits its
        kind best.
      returned: failure
      type: str
      sample: EDQUOT
    hint:
      description: What to do about it.
      returned: failure
      type: str
      sample: "Make room there, and try again"
"""

from ansible_collections.racefree.block.plugins.module_utils._module.kernel_key import KeyItem
from ansible_collections.racefree.block.plugins.module_utils._module.runner import run_one


def main():
    run_one(KeyItem)


if __name__ == "__main__":
    main()
