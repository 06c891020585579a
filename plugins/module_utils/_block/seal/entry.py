# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Entries of the two maps that the program reads: seals by device number, and passes of single threads.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Pure. LAYOUT is the version of the layouts and part of the names of the pinned maps. Raise it when a layout
changes.
"""

from __future__ import annotations

import struct

from ..._base.record import Record

LAYOUT = 1
# Capacity of the maps: sealed devices and partitions, and concurrent opens with a pass. The kernel
# preallocates about 100 bytes for each.
MOST_SEALS, MOST_PASSES = 16384, 1024
# struct bpf_cgroup_dev_ctx has major and minor as 32 bits each.
NUMBER = struct.Struct("=II")
_SEAL = struct.Struct("=QQQQ")
_PASS_KEY = struct.Struct("=QII")
_PASS = struct.Struct("=Q16s")
# Byte offsets: in a seal, the counter of refused opens; in a pass, its end and the thread's name.
REFUSED_AT = 16
PASS_END_AT, PASS_NAME_AT = 0, 8
SEAL_SIZE, PASS_KEY_SIZE, PASS_SIZE = _SEAL.size, _PASS_KEY.size, _PASS.size
NAME_SIZE = 16
_WITH_DISK, _WITH_REMOVAL = 1, 2


class Seal(Record):
    """
    The seal of one device or partition: its ``diskseq``; ``since``, the time of sealing in seconds of
    CLOCK_BOOTTIME; ``refused``, the number of refused opens; ``with_disk``, true for a partition that was
    sealed because its disk is; ``with_removal``, true if it was sealed together with a deferred removal.
    """

    diskseq: int
    since: int
    refused: int = 0
    with_disk: bool = False
    with_removal: bool = False

    def encoded(self) -> bytes:
        flags = (_WITH_DISK if self.with_disk else 0) | (_WITH_REMOVAL if self.with_removal else 0)
        return _SEAL.pack(self.diskseq, self.since, self.refused, flags)


def seal_of(value: bytes) -> Seal:
    diskseq, since, refused, flags = _SEAL.unpack(value)
    return Seal(diskseq, since, refused, bool(flags & _WITH_DISK), bool(flags & _WITH_REMOVAL))


class Pass(Record):
    """
    Permission for one thread to open one sealed device. It is valid until ``end``, in nanoseconds of
    CLOCK_MONOTONIC, and only while the thread's name (comm) is ``name``, at most 15 bytes. The collection
    uses random names, so that nobody can guess them.
    """

    end: int
    name: bytes

    def encoded(self) -> bytes:
        return _PASS.pack(self.end, self.name)


def pass_key(process: int, thread: int, major: int, minor: int) -> bytes:
    """
    The key of a pass: the thread's IDs in the initial PID namespace (bpf_get_current_pid_tgid), and the
    device number.
    """
    return _PASS_KEY.pack(process << 32 | thread, major, minor)


def end_of_pass(value: bytes) -> int:
    end: int = _PASS.unpack(value)[0]
    return end
