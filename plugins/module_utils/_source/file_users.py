# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Who has a file open as a disk now: loop devices, and QEMU and its tools.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._base.deadline import Deadline, pauses
from .._block import new_loop
from .._process import open_files

if TYPE_CHECKING:
    from .resources import Resources

    # st_dev and st_ino.
    File = tuple[int, int]

# Seconds for a loop device to go whose last user has just ended.
_GOING_SECONDS = 5


def find(resources: Resources, files: set[File]) -> dict[File, str]:
    """
    ``{file: its first user, as text}``. Waits for loop devices that are about to go. Raises KernelError if
    that cannot be seen.
    """
    found = _qemus(files)
    for file in files - set(found):
        user = _loop_over(resources, file)
        if user is not None:
            found[file] = user
    return found


def _qemus(files: set[File]) -> dict[File, str]:
    found: dict[File, str] = {}
    for what, qemu in open_files.qemus_with({("file", *file) for file in files}):
        found.setdefault(what[1:], f"{qemu.name} (process {qemu.pid})")
    return found


def _loop_over(resources: Resources, file: File) -> str | None:
    limit = Deadline(_GOING_SECONDS)
    for pause in pauses():
        resources.loops.forget()
        rows = resources.loops.over(file, with_going=True)
        try:
            if not rows:
                return None
            if limit.expired or not all(new_loop.is_going(*row) for row in rows):
                return f"{rows[0][0].path} (losetup --list {rows[0][0].path})"
        finally:
            for device, dummy in rows:
                device.close()
        limit.sleep(pause)
    raise AssertionError
