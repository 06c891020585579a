# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Make a backing file larger. It is never made smaller.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import fcntl
import os

from .._base.deadline import Deadline, pauses
from .._base.errors import KernelError
from .backing import Backing

_LOCK_SECONDS = 60


def enlarge(backing: Backing, size: int) -> None:
    """
    Make the open file, which must be writable, at least ``size`` bytes long. The new part has no blocks yet.

    The file is locked meanwhile as flock(1) does, because the role guest_disks makes files larger too, and
    reads their size before. Raises KernelError or DeadlineExceeded.
    """
    limit = Deadline(_LOCK_SECONDS)
    try:
        for pause in pauses():
            try:
                fcntl.flock(backing.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if limit.expired:
                    waited_for = "another program to unlock the file (flock)"
                    raise limit.exceeded(waited_for, device=backing.path) from error
            limit.sleep(pause)
        try:
            if os.fstat(backing.fd).st_size < size:
                os.ftruncate(backing.fd, size)
        finally:
            fcntl.flock(backing.fd, fcntl.LOCK_UN)
    except OSError as error:
        raise KernelError.from_oserror(error, "make the file larger", device=backing.path) from error
