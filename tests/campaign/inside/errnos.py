# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Which system call of a run fails with which errno, in each round of the family errors.
"""

from __future__ import annotations

import errno
import functools
import random

ERRORS = (
    errno.EINTR,
    errno.EAGAIN,
    errno.EBUSY,
    errno.ENOMEM,
    errno.EIO,
    errno.ENOSPC,
    errno.EMFILE,
    errno.EACCES,
)
# No module makes more system calls than this in any job.
MOST_CALLS = 800


@functools.cache
def order(seed, title):
    """
    [(the number of a system call, from 1 on, an errno)] of this job: all of them once, in a random order.
    """
    pairs = [(count, error) for count in range(1, MOST_CALLS + 1) for error in ERRORS]
    random.Random(f"{seed} {title}").shuffle(pairs)
    return pairs
