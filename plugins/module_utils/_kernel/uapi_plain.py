# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The kernel's structures and numbers of block and loop devices without cffi. Made by tools/uapi/generate from
tools/uapi/uapi.h: change those.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Xen waits for its hotplug script, and loading cffi takes a good part of that time. Each structure is a format
of the module struct, and the names of its fields in order.
"""

from __future__ import annotations

LOOP_SET_FD = 0x4C00
LOOP_CLR_FD = 0x4C01
LOOP_SET_STATUS64 = 0x4C04
LOOP_GET_STATUS64 = 0x4C05
LOOP_CHANGE_FD = 0x4C06
LOOP_SET_CAPACITY = 0x4C07
LOOP_SET_DIRECT_IO = 0x4C08
LOOP_SET_BLOCK_SIZE = 0x4C09
LOOP_CONFIGURE = 0x4C0A
LOOP_CTL_ADD = 0x4C80
LOOP_CTL_REMOVE = 0x4C81
LOOP_CTL_GET_FREE = 0x4C82
LO_FLAGS_READ_ONLY = 1
LO_FLAGS_AUTOCLEAR = 4
LO_FLAGS_PARTSCAN = 8
LO_FLAGS_DIRECT_IO = 16
LO_NAME_SIZE = 64
LO_KEY_SIZE = 32
BLKROGET = 0x125E
BLKSSZGET = 0x1268
BLKPBSZGET = 0x127B
BLKGETSIZE64 = 0x80081272
BLKGETDISKSEQ = 0x80081280
LOOP_INFO64 = "=QQQQQIIII64s64s32s16s"
LOOP_INFO64_FIELDS = (
    "lo_device",
    "lo_inode",
    "lo_rdevice",
    "lo_offset",
    "lo_sizelimit",
    "lo_number",
    "lo_encrypt_type",
    "lo_encrypt_key_size",
    "lo_flags",
    "lo_file_name",
    "lo_crypt_name",
    "lo_encrypt_key",
    "lo_init",
)
LOOP_CONFIG = "=II" + LOOP_INFO64[1:] + "64s"
LOOP_CONFIG_FIELDS = (
    "fd",
    "block_size",
    *LOOP_INFO64_FIELDS,
    "__reserved",
)
