# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Device-mapper tables, and the keys of their targets."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  table:
    description:
      - The table, as lines in the format of C(dmsetup table) (start, length, target and parameters), as
        dictionaries with the following keys, or as a list of both.
      - For a file in the table, a loop device is created. It is removed together with the mapped device
        unless O(persist=true).
      - Required for a device that does not exist yet. If not given, an existing device keeps its table.
    type: raw
    suboptions:
      start:
        description:
          - Where in the device the target begins, in sectors of 512 bytes. The first target starts at 0, and
            each other target where the one before it ends.
        type: int
        required: true
      length:
        description:
          - Length of the target in sectors of 512 bytes.
        type: int
        required: true
      target:
        description:
          - The target type. The other keys are the fields of this target. C(docs/device-mapper-tables.md) of
            the collection has an example for each target type. The filter
            P(racefree.block.dm_targets#filter) shows the fields of a line.
          - >-
            A field that is a device is C(MAJOR:MINOR) or a source (see
            O(racefree.block.xen_vbd#module:source)), such as an absolute path, V(diskseq:42),
            V(file:/srv/a.raw) or C({path: /dev/vg/a, uuid: LVM-4711}). In a line, a source with several keys
            is one word of JSON.
        type: str
        required: true
  keys:
    description:
      - Keys for C(crypt) and C(integrity) targets, as hexadecimal text. A target refers to a key as
        C(var:NAME) in place of the key, for example V(internal_hash:hmac(sha256\):var:NAME). This also works
        in a table that is nested in a device field.
      - Keys never appear in logs, diffs or return values. A plaintext key in O(table) is refused.
      - A C(crypt) target can use a key from the kernel's keyring instead, which the table names as
        C(:SIZE:TYPE:DESCRIPTION). The key is looked up in root's user keyring (C(@u)), where
        M(racefree.block.kernel_key) puts it, and in the session keyring.
    type: dict
"""
