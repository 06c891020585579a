# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The file that an area is on: checked, created and resized before a loop device is made for it.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The lock of the file's inode is taken before anything is checked, and kept until the resources are closed, so
no other run makes a loop device for it meanwhile.
"""

from __future__ import annotations

import os

from .._base import files as _files
from .._base import gone, locks
from .._base.errors import KernelError, WrongDevice
from .._block import loop, new_loop
from .._source import area as _area
from .._source import files
from . import contents, users

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Collection

    from .._block.backing import Backing
    from .._block.device import Device
    from .._source.resources import Resources
    from .._source.spec import FileSource
    from .config import Config


class Prepared:
    """The locked file ``identity`` (st_dev, st_ino), and the ``part`` of it (``_block.new_loop.Area``)."""

    def __init__(self, identity: tuple[int, int], part: new_loop.Area) -> None:
        self.identity = identity
        self.part = part


def prepare(resources: Resources, source: FileSource, wanted: Config) -> Prepared:
    """
    Lock the file, and refuse one that somebody uses. With a size, create or resize it, and allocate all of
    its blocks. Raises InvalidValue, DeviceBusy, WrongDevice, KernelError.
    """
    if wanted.size is None:
        with files.backing_of(source, read_only=True) as backing:
            found = Prepared((backing.device, backing.inode), part_of(source, backing))
            _lock(resources, found.identity, source.file)
            users.refuse_file(resources, found.identity, source.file, found.part)
        return found
    handle = _open(source.file)
    try:
        there = os.fstat(handle)
        found = Prepared((there.st_dev, there.st_ino), new_loop.Area())
        _lock(resources, found.identity, source.file)
        users.refuse_file(resources, found.identity, source.file, found.part)
        _resize(handle, source.file, wanted)
    finally:
        os.close(handle)
    return found


def check(resources: Resources, source: FileSource, wanted: Config, ours: Collection[str]) -> None:
    """
    Raise what :func:`prepare` would raise, without changing anything. A file that does not exist passes: its
    file system may not be mounted yet. ``ours``: as for ``users.refuse_file``.
    """
    if not gone.exists(source.file):
        return
    with files.backing_of(source, read_only=True) as backing:
        part = new_loop.Area() if wanted.size is not None else part_of(source, backing)
        users.refuse_file(resources, (backing.device, backing.inode), source.file, part, ours)
        if backing.size and not part.offset and not wanted.overwrite:
            contents.refuse(backing.fd, source.file)


def check_made(
    resources: Resources, source: FileSource, prepared: Prepared, device: Device, is_new: bool
) -> None:
    """
    Look again after the loop device was made: this run has made it (``is_new``), it has the prepared file,
    and nobody else has a part of it. Raises DeviceBusy, WrongDevice, KernelError.
    """
    status = loop.info(device)
    if (status.backing_device, status.backing_inode) != prepared.identity:
        raise WrongDevice(
            "the file was replaced while the area was started", device=source.file, hint="Start it again"
        )
    users.refuse_file(
        resources, prepared.identity, source.file, prepared.part, allowed=[device.id] if is_new else ()
    )


def part_of(source: FileSource, backing: Backing) -> new_loop.Area:
    """The part of the open file that the source means."""
    source = _area.of_source(source, backing)
    return new_loop.Area(source.offset, source.size)


def _lock(resources: Resources, identity: tuple[int, int], path: str) -> None:
    """Lock the inode of the open file. WrongDevice if the path leads to another one by then."""
    resources.locks.take([locks.of_inode(*identity, path)])
    try:
        there = os.stat(path)
    except OSError as error:
        raise KernelError.from_oserror(error, f"look at {path}", device=path) from error
    if (there.st_dev, there.st_ino) != identity:
        raise WrongDevice("the file was replaced meanwhile", device=path, hint="Start the area again")


def _open(path: str) -> int:
    """Open the file, or create it. A symbolic link is refused, because the file is resized by root."""
    try:
        if gone.exists(path, follow_symlinks=False):
            return _files.open_regular(path, "source.file", os.O_RDWR, follow_symlinks=False)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise KernelError.from_oserror(error, f"open or create {path}", device=path) from error


def _resize(handle: int, path: str, wanted: Config) -> None:
    """Give the open file its size, and allocate all of its blocks."""
    if wanted.size is None:
        raise AssertionError
    size = os.fstat(handle).st_size
    # Also a file that has its size: allocating the blocks of a sparse one can fill the file system.
    if size and not wanted.overwrite:
        contents.refuse(handle, path)
    try:
        if size != wanted.size:
            os.ftruncate(handle, wanted.size)
        os.posix_fallocate(handle, 0, wanted.size)
    except OSError as error:
        raise KernelError.from_oserror(
            error, f"allocate {wanted.size} bytes in {path}", device=path
        ) from error
