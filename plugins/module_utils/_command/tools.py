# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What tools do with the path of a device, and so which path each of them gets. Pure data.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The rows were seen with strace: ``tests/kernel/tool_paths.py`` runs each tool. docs/device-command.md shows
the same table.
"""

from __future__ import annotations

import os
from typing import NamedTuple

# ``/proc/self/fd/N`` of a descriptor that the command inherits. It leads to the held device as long as the
# tool itself, or a child that has inherited the descriptor, opens it.
DESCRIPTOR = "descriptor"
# ``/dev/disk/by-diskseq/N`` of the role block_names. It leads to this device or to none, in every process,
# and is unchanged by realpath(3).
BY_DISKSEQ = "by_diskseq"
# The number of the inherited descriptor, for tools that take one.
NUMBER = "number"
STYLES = (DESCRIPTOR, BY_DISKSEQ, NUMBER)

_OPENS = "opens it"
_RESOLVES = "resolves links first: /proc/self/fd/N becomes /dev/loopN"
_ANOTHER = "passes it to another process"


class Tool(NamedTuple):
    """
    ``style``: the path that it gets, DESCRIPTOR or BY_DISKSEQ. ``claims``: whether it, or the kernel for it,
    opens the device exclusively, so that it fails if somebody else has done so. ``needs_node``: it gets a
    descriptor although it resolves links first, so the node at the end must lead to the held device.
    """

    names: tuple[str, ...]
    style: str
    does: str
    claims: bool = False
    needs_node: bool = False


TOOLS = (
    Tool(("cryptsetup",), DESCRIPTOR, _OPENS, True),
    Tool(("integritysetup",), DESCRIPTOR, _OPENS, True),
    Tool(("mkfs.ext4", "mkfs.ext3", "mkfs.ext2", "mke2fs"), DESCRIPTOR, _OPENS, True),
    Tool(("mkfs.xfs",), DESCRIPTOR, _OPENS, True),
    Tool(("mkfs.btrfs",), DESCRIPTOR, _OPENS, True),
    Tool(("mkfs.vfat", "mkfs.fat"), DESCRIPTOR, _OPENS, True),
    Tool(("e2fsck", "fsck.ext4"), DESCRIPTOR, _OPENS, True),
    Tool(("tune2fs", "e2label"), DESCRIPTOR, _OPENS),
    Tool(("resize2fs",), DESCRIPTOR, _OPENS, True),
    Tool(("xfs_repair",), DESCRIPTOR, _OPENS, True),
    Tool(("mount",), BY_DISKSEQ, _RESOLVES, True),
    Tool(("mkswap",), DESCRIPTOR, _OPENS, True),
    # The kernel refuses a path that it was told to forget meanwhile (swapon in mm/swapfile.c, d_unlinked), as
    # names by disk sequence number are after a while.
    Tool(("swapon",), DESCRIPTOR, "resolves links to /dev/loopN, which is held; see below", True, True),
    Tool(("losetup",), BY_DISKSEQ, _RESOLVES),
    Tool(("lvm", "pvcreate"), BY_DISKSEQ, "takes only names that its own scan finds; see below", True),
    Tool(("mdadm",), DESCRIPTOR, _OPENS, True),
    Tool(("dmsetup",), DESCRIPTOR, "the kernel opens it for this process", True),
    Tool(("blkid",), BY_DISKSEQ, _RESOLVES),
    Tool(("wipefs",), DESCRIPTOR, _OPENS, True),
    Tool(("parted",), BY_DISKSEQ, _RESOLVES),
    Tool(("sgdisk",), DESCRIPTOR, _OPENS),
    Tool(("blockdev",), DESCRIPTOR, _OPENS),
    Tool(("dd",), DESCRIPTOR, _OPENS),
    Tool(("cp",), DESCRIPTOR, _OPENS),
    Tool(("qemu-img",), DESCRIPTOR, _OPENS),
    Tool(("virsh",), BY_DISKSEQ, _ANOTHER),
    Tool(("xl",), BY_DISKSEQ, _ANOTHER),
)
# An unknown tool may resolve the path, close the descriptor or pass the path to another process, where
# /proc/self/fd/N can be another device. A name by disk sequence number is never another device.
UNKNOWN = Tool((), BY_DISKSEQ, "is not known")


def find(program: str) -> Tool:
    """The row of a program, given by its name or path; UNKNOWN if there is none."""
    name = os.path.basename(program)
    return next((tool for tool in TOOLS if name in tool.names), UNKNOWN)
