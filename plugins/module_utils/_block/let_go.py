# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Ask the service of /dev/disk/by-diskseq to release a disk before the disk is removed.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The service keeps a disk open for a while after its name was used (``_by_diskseq/pins``), and a removal would
have to wait for that. The removal itself checks whether the disk is in use, so nothing depends on the answer.
"""

from __future__ import annotations

from .._base import run_directory

SOCKET = f"{run_directory.ROOT}/by-diskseq/socket"
# Seconds to wait for the service, which answers within half of that time.
_PATIENCE = 1.0


def ask(diskseq: int) -> bool:
    """Whether the service answered that it holds nothing of the disk any more."""
    import socket  # takes long to import, and only removals need it

    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as service:
            service.settimeout(_PATIENCE)
            service.connect(SOCKET)
            service.send(str(diskseq).encode("ascii"))
            return service.recv(64) == b"0"
    except OSError:
        # The service is not running, or does not respond.
        return False
