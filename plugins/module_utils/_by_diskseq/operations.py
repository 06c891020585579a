# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The file system at /dev/disk/by-diskseq: handlers of FUSE requests, with the library pyfuse3.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Any

from .._base.errors import BlockError
from . import hold, node_id
from .disk_files import ANSWER, Caller, DiskFiles, Entry, silent
from .disk_name import DiskName, parse
from .forgetter import Forgetter
from .library import Operations, pyfuse3, trio
from .workers import Job


class DiskOperations(Operations):  # type: ignore[misc]
    """
    pyfuse3's handlers. ``late`` is the number of lookups whose device has not answered within the first wait.
    """

    def __init__(self, files: DiskFiles) -> None:
        super().__init__()
        self._files = files
        self.forgetter: Forgetter | None = None
        self.late = 0
        self._listings: dict[int, list[tuple[str, Entry]]] = {}
        self._last = 0

    async def lookup(self, parent_inode: int, name: bytes, ctx: Any) -> Any:
        spelled = os.fsdecode(name)
        disk_name = parse(spelled)
        if parent_inode != node_id.ROOT or disk_name is None:
            raise pyfuse3.FUSEError(errno.ENOENT)
        try:
            found = self._files.look_up(disk_name, _caller(ctx))
            if isinstance(found, Job):
                await self._wait(found, disk_name)
                found = self._files.held(disk_name, found)
        except BlockError as error:
            raise pyfuse3.FUSEError(hold.errno_of(error)) from None
        if self.forgetter is not None and not node_id.is_shown(found.node):
            self.forgetter.looked_up(spelled)
        return attributes_of(found)

    async def _wait(self, job: Job, name: DiskName) -> None:
        if job.wait():
            return
        ended, token = trio.Event(), trio.lowlevel.current_trio_token()
        job.when_done(lambda: token.run_sync_soon(ended.set))
        self.late += 1
        try:
            with trio.move_on_after(ANSWER):
                await ended.wait()
        finally:
            self.late -= 1
        if not job.done:
            raise silent(name)

    async def getattr(self, inode: int, ctx: Any) -> Any:
        if inode == node_id.ROOT:
            return directory_attributes(inode)
        try:
            return attributes_of(self._files.look_at(inode, _caller(ctx)))
        except BlockError as error:
            raise pyfuse3.FUSEError(hold.errno_of(error)) from None

    async def forget(self, inode_list: list[tuple[int, int]]) -> None:
        for inode, count in inode_list:
            self._files.pins.forget(inode, count)

    async def opendir(self, inode: int, ctx: Any) -> Any:
        try:
            listing = await trio.to_thread.run_sync(self._files.listed)
        except BlockError as error:
            raise pyfuse3.FUSEError(hold.errno_of(error)) from None
        self._last += 1
        self._listings[self._last] = listing
        return self._last

    async def readdir(self, fh: int, start_id: int, token: Any) -> None:
        listing = self._listings[fh]
        for index in range(start_id, len(listing)):
            name, entry = listing[index]
            if not pyfuse3.readdir_reply(token, os.fsencode(name), attributes_of(entry), index + 1):
                return

    async def releasedir(self, fh: int) -> None:
        del self._listings[fh]

    async def statfs(self, ctx: Any) -> Any:
        return no_space()


def _caller(ctx: Any) -> Caller:
    return Caller(ctx.uid, ctx.gid, ctx.pid)


def attributes_of(entry: Entry) -> Any:
    """Convert an Entry for the library. Timeouts are 0: the kernel caches nothing beyond the request."""
    shown = pyfuse3.EntryAttributes()
    shown.entry_timeout = shown.attr_timeout = 0
    shown.st_ino = entry.node
    shown.st_mode, shown.st_uid, shown.st_gid, shown.st_rdev = entry.attributes
    return shown


def directory_attributes(inode: int) -> Any:
    """Attributes of a directory that everybody may list."""
    shown = pyfuse3.EntryAttributes()
    shown.entry_timeout = shown.attr_timeout = 0
    shown.st_ino = inode
    shown.st_mode = stat.S_IFDIR | 0o755
    shown.st_nlink = 2
    return shown


def no_space() -> Any:
    """The answer to statfs(2)."""
    data = pyfuse3.StatvfsData()
    data.f_bsize = data.f_frsize = 4096
    data.f_namemax = 255
    return data
