# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Loop devices of this machine that the code under test attaches and finds."""

from __future__ import annotations

from ansible_collections.racefree.block.plugins.module_utils._block import backing as _backing
from ansible_collections.racefree.block.plugins.module_utils._block import bind, loop_index


def attach(path, **options):
    with _backing.Backing(path, options.get("read_only", False)) as backing:
        return bind.attach(backing, **options)


def find(path, offset=0, size=0):
    """The minor numbers of the loop devices found for the file."""
    with _backing.Backing(path, read_only=True) as backing:
        found = loop_index.find(backing, offset, size)
    for device, dummy in found:
        device.close()
    return [device.id.minor for device, dummy in found]
