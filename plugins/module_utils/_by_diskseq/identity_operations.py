# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The file system at /dev/racefree: handlers of FUSE requests, with the library pyfuse3.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

These files hold nothing: they are links to names in the other file system, which hold their devices. Inode
numbers are assigned at lookup and released when the kernel has forgotten them.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Any

from .._base.errors import BlockError
from . import hold, node_id
from .forgetter import Forgetter
from .identity_tree import Found, IdentityTree
from .library import Operations, pyfuse3
from .operations import directory_attributes, no_space


class IdentityOperations(Operations):  # type: ignore[misc]
    """pyfuse3's handlers. ``disks`` is the mount point of by-diskseq."""

    def __init__(self, tree: IdentityTree, disks: str) -> None:
        super().__init__()
        self._tree = tree
        self._disks = disks
        self.forgetter: Forgetter | None = None
        # Inode numbers, their paths, and the kernel's lookup count of each.
        self._paths = {node_id.ROOT: ""}
        self._nodes = {"": node_id.ROOT}
        self._counts: dict[int, int] = {}
        self._last = node_id.ROOT
        self._listings: dict[int, tuple[str, list[str]]] = {}

    async def lookup(self, parent_inode: int, name: bytes, ctx: Any) -> Any:
        path = self._inside(self._path(parent_inode), os.fsdecode(name))
        found = self._find(path)
        node = self._node(path)
        self._counts[node] = self._counts.get(node, 0) + 1
        if self.forgetter is not None and not found.is_directory:
            self.forgetter.looked_up(path)
        return self._attributes(node, found)

    async def getattr(self, inode: int, ctx: Any) -> Any:
        return self._attributes(inode, self._find(self._path(inode)))

    async def readlink(self, inode: int, ctx: Any) -> bytes:
        found = self._find(self._path(inode))
        if found.disk is None:
            raise pyfuse3.FUSEError(errno.EINVAL)
        return os.fsencode(self._target(found))

    async def forget(self, inode_list: list[tuple[int, int]]) -> None:
        for inode, count in inode_list:
            if inode == node_id.ROOT:
                continue
            self._counts[inode] = self._counts.get(inode, 0) - count
            if self._counts[inode] <= 0:
                del self._counts[inode]
                path = self._paths.pop(inode, None)
                if path is not None:
                    del self._nodes[path]

    async def opendir(self, inode: int, ctx: Any) -> Any:
        path = self._path(inode)
        try:
            names = self._tree.listed(path)
        except BlockError as error:
            raise pyfuse3.FUSEError(hold.errno_of(error)) from None
        self._last += 1
        self._listings[self._last] = path, names
        return self._last

    async def readdir(self, fh: int, start_id: int, token: Any) -> None:
        path, names = self._listings[fh]
        for index in range(start_id, len(names)):
            inside = self._inside(path, names[index])
            try:
                found = self._tree.find(inside)
            except BlockError:
                # A lookup of the name itself reports the error.
                continue
            if found is None:
                continue
            node = self._node(inside)
            if not pyfuse3.readdir_reply(
                token, os.fsencode(names[index]), self._attributes(node, found), index + 1
            ):
                self._drop_unknown(node)
                return
            self._counts[node] = self._counts.get(node, 0) + 1
            if self.forgetter is not None and not found.is_directory:
                self.forgetter.looked_up(inside)

    async def releasedir(self, fh: int) -> None:
        del self._listings[fh]

    async def statfs(self, ctx: Any) -> Any:
        return no_space()

    def is_known(self, path: str) -> bool:
        """Whether the kernel knows a file with this path."""
        node = self._nodes.get(path)
        return node is not None and self._counts.get(node, 0) > 0

    def place_of(self, path: str) -> tuple[int, bytes] | None:
        """
        The directory's inode number and the name in it, for a notification to the kernel. None if the
        directory is not known.
        """
        parent, dummy, name = path.rpartition("/")
        node = self._nodes.get(parent)
        return None if node is None else (node, os.fsencode(name))

    def _path(self, inode: int) -> str:
        path = self._paths.get(inode)
        if path is None:
            raise pyfuse3.FUSEError(errno.ESTALE)
        return path

    @staticmethod
    def _inside(path: str, name: str) -> str:
        return f"{path}/{name}" if path else name

    def _find(self, path: str) -> Found:
        try:
            found = self._tree.find(path)
        except BlockError as error:
            raise pyfuse3.FUSEError(hold.errno_of(error)) from None
        if found is None:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return found

    def _node(self, path: str) -> int:
        node = self._nodes.get(path)
        if node is None:
            self._last += 1
            node = self._last
            self._nodes[path], self._paths[node] = node, path
        return node

    def _drop_unknown(self, node: int) -> None:
        if self._counts.get(node, 0) <= 0:
            del self._nodes[self._paths.pop(node)]

    def _target(self, found: Found) -> str:
        return f"{self._disks}/{found.disk}"

    def _attributes(self, node: int, found: Found) -> Any:
        shown = directory_attributes(node)
        if not found.is_directory:
            shown.st_mode = stat.S_IFLNK | 0o777
            shown.st_nlink = 1
            shown.st_size = len(self._target(found))
        return shown
