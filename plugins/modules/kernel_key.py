#!/usr/bin/python
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kernel_key
short_description: Have a key in the kernel's keyring, for encrypted devices
version_added: 0.1.0
description:
  - Adds a key to root's user keyring (C(@u)), or removes it. There it is found by a C(crypt) target that names it as C(:SIZE:TYPE:DESCRIPTION), in
    O(racefree.block.dm_device#module:table) and in a guest's definition that M(racefree.block.libvirt_disk) writes. The collection's modules
    and its hook for libvirt link that keyring into their own while they load a table, so it does not matter how they were started.
  - The keyring is in the kernel's memory and gone after a boot. Add the keys again then, before guests start.
  - The payload is in no argument of a program, log, diff or return value.
  - The role P(racefree.block.guest_disks#role) uses what this module does for the disks of guests.
author:
  - The racefree.block contributors (@racefree)
extends_documentation_fragment:
  - racefree.block.block
notes:
  - A logon key cannot be read by anybody but the kernel. To know later whether it has the payload that is wanted, a second key is kept beside it
    with a salted hash, C(racefree.block:TYPE:DESCRIPTION), which only root can read. The payload is to be a random key, as C(dm-crypt) takes it, and not a
    passphrase. Another payload that somebody else gives the same key afterwards is not noticed.
  - A device that is in use has its own copy of the key, and goes on when the key is removed or changed.
seealso:
  - module: racefree.block.dm_device
  - module: racefree.block.libvirt_disk
options:
  description:
    description:
      - The key's description, by which it is found. Of the form C(PREFIX:NAME) when O(type=logon), and without spaces.
    type: str
    required: true
  type:
    description:
      - The key's type. A V(logon) key can be used by the kernel only, a V(user) key can be read by root.
    type: str
    choices: [logon, user]
    default: logon
  payload:
    description:
      - The key itself, in hexadecimal, as text. Required with O(state=present).
      - For V(aes-xts-plain64) it has 32 or 64 bytes.
    type: str
  state:
    description:
      - Whether the key is to be there.
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
- name: Have a guest's key
  racefree.block.kernel_key:
    description: guests:web1
    payload: "{{ vault_web1_key }}"
  register: web1_key

- name: Have an encrypted disk that is made at every start of the guest
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
"""

RETURN = r"""
key:
  description: The key, without its payload. V(null) when O(state=absent).
  returned: success
  type: dict
  contains:
    type:
      description: Its type.
      type: str
      sample: logon
    description:
      description: Its description.
      type: str
      sample: guests:web1
    serial:
      description: The number that the kernel has given it. V(null) in check mode when it is not there yet.
      type: int
      sample: 268812043
    size:
      description: Bytes of its payload.
      type: int
      sample: 64
    table_key:
      description: How a C(crypt) target names it.
      type: str
      sample: ":64:logon:guests:web1"
error:
  description: What went wrong, as data.
  returned: failure
  type: dict
  contains:
    kind:
      description: The kind of error.
      type: str
      sample: KernelError
    message:
      description: What was tried and what happened.
      type: str
    device:
      description: The key concerned.
      type: str
    errno:
      description: The name of the kernel's error number, or of the one that fits the kind best.
      type: str
      sample: EDQUOT
    hint:
      description: What to do about it.
      type: str
"""

from ansible_collections.racefree.block.plugins.module_utils._module.kernel_key import KeyItem
from ansible_collections.racefree.block.plugins.module_utils._module.runner import run_one


def main():
    run_one(KeyItem)


if __name__ == "__main__":
    main()
