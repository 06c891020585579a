# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Numeric limits of tables.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Sources: ``drivers/md/dm-table.c`` (dm_table_add_target), ``drivers/md/dm-ioctl.c`` and
``include/uapi/linux/dm-ioctl.h``.
"""

from __future__ import annotations


class Limits:
    """Limits of the kernel interface. Sectors are always 512 bytes."""

    # LLONG_MAX >> SECTOR_SHIFT: no target may extend beyond this sector.
    SECTORS = 18014398509481983
    # DM_MAX_TARGETS: TABLE_LOAD returns EOVERFLOW for more targets.
    TARGETS = 1048576
    # dm_target_spec.target_type has 16 bytes including the NUL.
    TYPE_LENGTH = 15
    MAJOR = 4095
    MINOR = 1048575
    # The ioctl's data_size is at most 2^30, which limits a parameter string.
    PARAMS = (1 << 30) - 1024
    PATH = 4095
    U16 = (1 << 16) - 1
    U32 = (1 << 32) - 1
    U64 = (1 << 64) - 1
    INT = (1 << 31) - 1
