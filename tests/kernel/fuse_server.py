# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
A FUSE file system with one file of zeros, ``disk.raw``: ``fuse_server.py MOUNT_POINT BYTES``. Prints a line
when it is mounted. Structures are those of include/uapi/linux/fuse.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

LOOKUP, FORGET, GETATTR, OPEN, READ, RELEASE, FLUSH, INIT, OPENDIR = 1, 2, 3, 14, 15, 18, 25, 26, 27
RELEASEDIR, BATCH_FORGET = 29, 42
FILE = 2
HEADER = struct.Struct("=IIQQ")


def attributes(node, size):
    mode, size = (0o100644, size) if node == FILE else (0o40755, 0)
    return struct.pack("=6Q10I", node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def answer(operation, node, body, size):
    """``(errno, body)``; None if no answer is expected."""
    if operation in (FORGET, BATCH_FORGET):
        return None
    if operation == INIT:
        return 0, struct.pack("=IIIIHHIIHHII6I", 7, 31, 65536, 0, 10, 10, 65536, 1, 16, 0, 0, 0, *[0] * 6)
    if operation == LOOKUP:
        is_there = body.rstrip(b"\0") == b"disk.raw"
        return (0, struct.pack("=QQQQII", FILE, *[0] * 5) + attributes(FILE, size)) if is_there else (2, b"")
    if operation == GETATTR:
        return 0, struct.pack("=QII", 0, 0, 0) + attributes(node, size)
    if operation in (OPEN, OPENDIR):
        return 0, struct.pack("=QII", 1, 0, 0)
    if operation == READ:
        dummy, offset, wanted = struct.unpack_from("=QQI", body)
        return 0, bytes(max(0, min(wanted, size - offset)))
    return (0 if operation in (RELEASE, FLUSH, RELEASEDIR) else errno.ENOSYS), b""


def main(point, size):
    handle = os.open("/dev/fuse", os.O_RDWR)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={handle},rootmode=40000,user_id=0,group_id=0"
    if libc.mount(b"test", point.encode(), b"fuse", 0, options.encode()):
        raise OSError(ctypes.get_errno(), "mount", point)
    print("mounted", flush=True)
    while True:
        request = os.read(handle, 2**20)
        dummy, operation, unique, node = HEADER.unpack_from(request)
        found = answer(operation, node, request[40:], size)
        if found is not None:
            number, body = found
            os.write(handle, struct.pack("=IiQ", 16 + len(body), -number, unique) + body)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
