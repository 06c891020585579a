# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Device-mapper tables on the controller, where the kernel that will load them is not known.

Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from ansible.utils.display import Display
from ansible_collections.racefree.block.plugins.module_utils._dm_table import Context, parse_table


def parse(value, kernels=None, read_only=None):
    """
    The valid table that ``value`` describes; what would stop a kernel, while no ``kernels`` are named, is a
    warning. Raises TableError, and ValueError for a kernel that is not known.
    """
    return parse_table(value, context=Context(kernels=kernels, read_only=read_only, warn=Display().warning))
