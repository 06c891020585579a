# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of mapped devices."""

from __future__ import annotations

from ansible_collections.racefree.block.plugins.doc_fragments.device import ModuleDocFragment as Device
from ansible_collections.racefree.block.plugins.doc_fragments.sealed_below import (
    ModuleDocFragment as SealedBelow,
)
from ansible_collections.racefree.block.plugins.doc_fragments.table import ModuleDocFragment as Table
from ansible_collections.racefree.block.plugins.doc_fragments.volumes import ModuleDocFragment as Volumes
from ansible_collections.racefree.block.plugins.plugin_utils._fragments import in_list


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  name:
    description:
      - Name of the device, as in C(/dev/mapper/NAME). 1 to 127 letters, digits and characters out of
        C(#+-.:=@_), and not V(control), V(.) or V(..).
      - Required unless O(state=absent).
    type: str
  uuid:
    description:
      - Device-mapper UUID of the device, up to 128 characters. If not given, a new device gets a unique one.
      - A device that has this UUID and another name is renamed to O(name). If a device has this name and
        another UUID, or none, it is left unchanged and the task fails. The kernel sets a UUID by name only,
        so it could set it on another device that has taken the name meanwhile, and a UUID cannot be removed.
    type: str
  read_only:
    description:
      - Whether the device is read-only. If O(table) is not given, an existing device keeps its setting, and
        this option has no effect.
    type: bool
    default: false
  allow_shrink:
    description:
      - Whether the new table may be shorter than the live one while the device is in use, for example
        mounted. Otherwise the task fails, because users of the device would get I/O errors beyond the new
        end.
    type: bool
    default: false
  noflush:
    description:
      - Whether outstanding I/O stays queued while the table is changed, instead of being completed first.
    type: bool
    default: false
  nolockfs:
    description:
      - Whether a file system on the device is left as it is while the table is changed, instead of being
        frozen first.
    type: bool
    default: false
  udev:
    description:
      - With V(hidden), udev's rules are told to ignore the device, so no links are created for it and it is
        not probed.
      - It applies when the task creates the device or changes its table, and is not compared with an
        existing device.
    type: str
    choices: [full, hidden]
    default: full
  state:
    description:
      - Whether the device should exist and be active, exist and be suspended, or not exist.
    type: str
    choices: [present, suspended, absent]
    default: present
"""

    # As entries of a list.
    MANY: str = in_list(
        "devices",
        DOCUMENTATION,
        Device.DOCUMENTATION,
        SealedBelow.DOCUMENTATION,
        Table.DOCUMENTATION,
        Volumes.DOCUMENTATION,
    )
