# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Locks between processes of one program, each with a deadline."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time

from common import program
from common.errors import Failed
from common.progress import say


@contextlib.contextmanager
def locked(name, seconds, purpose):
    """
    Hold the lock ``name``; yields its descriptor. A child may inherit it, so that the lock lasts until the
    child has ended, too.

    Raises Failed when another process holds it for longer than ``seconds``.
    """
    program.locks().mkdir(parents=True, exist_ok=True)
    fd = os.open(program.locks() / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + seconds
        told = False
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Failed(
                        f"timed out after {seconds:g} s waiting for another {program.name} to {purpose}"
                    ) from None
                if not told:
                    say(f"waiting for another {program.name} to {purpose}")
                    told = True
                time.sleep(0.2)
        yield fd
    finally:
        os.close(fd)
