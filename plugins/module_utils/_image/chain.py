# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Open an image and every file that it names, and describe them to qemu-img by their held descriptors.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

QEMU would open what an image names by itself: any path of the host, or a network address. It gets a
complete description instead, a tree of block nodes (BlockdevOptions in qapi/block-core.json of QEMU) in which
each file is ``/proc/self/fd/N``, and ``backing: null`` where there is none. So the files that were checked
are those that are read, and no others.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os

from .._base.errors import InvalidValue, KernelError, WrongDevice
from .._base.record import Record
from .._block import backing as _backing
from .._block import new_loop
from . import header as _header
from . import qcow2, vhdx, vmdk
from .header import Header, Named, wrong

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from typing import Any

    from .._base.deadline import Deadline


FORMATS = {_header.QCOW2: qcow2.parse, _header.VMDK: vmdk.parse, _header.VHDX: vhdx.parse}
_PIECE = 1 << 20
# How many images may stand on each other.
_DEEPEST = 32
_ROLES = {"backing": "backing file", "data": "data file", "extent": "file with its data"}


class State(Record):
    """
    A file as it was read: ``size`` in bytes, times in nanoseconds since the epoch, SHA-256 (None: not read).
    """

    path: str
    format: str
    size: int
    inode: int
    mtime_ns: int
    ctime_ns: int
    sha256: str | None = None

    def is_untouched(self, now: State) -> bool:
        """Whether ``now`` is the same file, and nobody has changed it since."""
        return self[:-1] == now[:-1]


class Chain(contextlib.ExitStack):
    """
    A context with an open image and the files that it names. ``files``: the image first, in the order in
    which they are named; ``size``: of its disk in bytes; ``node``: plain data for qemu-img, which needs the
    ``descriptors``.

    InvalidValue for an image that is not of this format, that is damaged, or that names files although they
    may not be read (``may_read_others``). Raises KernelError.
    """

    def __init__(self, path: str, form: str, may_read_others: bool) -> None:
        super().__init__()
        self.files: list[tuple[_backing.Backing, str]] = []
        self.descriptors: list[int] = []
        self._may_read_others = may_read_others
        self._seen: set[tuple[int, int]] = set()
        try:
            self.size, self.node = self._image(path, form, 0)
        except BaseException:
            self.close()
            raise

    def states(self) -> list[State]:
        """The files as they are now, without checksums."""
        return [_state_of(file, form) for file, form in self.files]

    def read_whole(self, limit: Deadline) -> list[State]:
        """The files with their checksums. DeadlineExceeded; WrongDevice if one changes meanwhile."""
        found = [
            state._replace(sha256=checksum(file.fd, file.path, file.size, limit))
            for state, (file, dummy) in zip(self.states(), self.files)
        ]
        self.check_unchanged(found)
        return found

    def check_unchanged(self, before: list[State]) -> None:
        """WrongDevice if one of the files was changed since it was read."""
        for old, now in zip(before, self.states()):
            if not old.is_untouched(now):
                raise WrongDevice(
                    "it was written to while it was read",
                    device=old.path,
                    hint="Convert an image only while nothing writes to it. No image was made from it",
                )

    def paths_shown(self, text: str) -> str:
        """A message of qemu-img, with the files' paths in place of descriptors."""
        # The longest numbers first: /proc/self/fd/1 is the beginning of /proc/self/fd/12.
        for file, dummy in sorted(self.files, key=lambda row: -row[0].fd):
            text = text.replace(_path_of(file.fd), file.path)
        return text

    def _image(self, path: str, form: str, depth: int) -> tuple[int, dict[str, Any]]:
        """``(bytes of its disk, its node)`` of an image that is not raw."""
        file = self._open(path, form)
        found = new_loop.format_of(file)
        if found != form:
            what = f"an image of the format {found}" if found else "a raw disk, or of an unknown format"
            raise wrong(path, f"is not an image of the format {form}: from its contents, it is {what}")
        header = FORMATS[form](lambda at, length: _read(file, at, length), path)
        if header.named and not self._may_read_others:
            raise _not_allowed(header, path)
        node: dict[str, Any] = {"driver": form, "file": _file_node(file.fd)}
        if form != _header.VHDX:
            node["backing"] = None
        extents = []
        for named in header.named:
            other = self._path_of(named, path)
            if named.role == "backing":
                node["backing"] = self._backing_node(other, named, path, depth)
            elif named.role == "data":
                node["data-file"] = _file_node(self._open(other, named.format).fd)
            else:
                extents.append(_path_of(self._extent(other, named)))
        if extents:
            node["file"] = _file_node(self._descriptor(vmdk.descriptor(header, extents)))
        return header.size, node

    def _backing_node(self, path: str, named: Named, above: str, depth: int) -> dict[str, Any]:
        if depth >= _DEEPEST:
            raise wrong(above, f"belongs to a chain of more than {_DEEPEST} backing files")
        if named.format == _header.RAW:
            return {"driver": _header.RAW, "file": _file_node(self._open(path, _header.RAW).fd)}
        if named.format not in FORMATS:
            raise _unknown_format(named, above)
        return self._image(path, named.format, depth + 1)[1]

    def _extent(self, path: str, named: Named) -> int:
        file = self._open(path, named.format)
        if named.format == _header.VMDK:
            vmdk.parse_extent(lambda at, length: _read(file, at, length), path)
        return file.fd

    def _open(self, path: str, form: str) -> _backing.Backing:
        file = self.enter_context(_backing.Backing(path, read_only=True, option="image"))
        if (file.device, file.inode) in self._seen:
            raise wrong(path, "is named twice by one image, or depends on itself")
        self._seen.add((file.device, file.inode))
        self.files.append((file, form))
        self.descriptors.append(file.fd)
        return file

    def _descriptor(self, text: bytes) -> int:
        fd = os.memfd_create("descriptor", os.MFD_CLOEXEC)
        self.callback(os.close, fd)
        # QEMU reads whole sectors.
        os.write(fd, text.ljust((len(text) + 511) // 512 * 512, b"\0"))
        self.descriptors.append(fd)
        return fd

    @staticmethod
    def _path_of(named: Named, above: str) -> str:
        """
        The path of a file that the image ``above`` names. InvalidValue for a name that QEMU does not take for
        a path: ``nbd://...``, ``json:{...}``.
        """
        if ":" in named.name.partition("/")[0]:
            raise wrong(above, f"names {named.name} as its {_ROLES[named.role]}, which is not a file's path")
        return os.path.join(os.path.dirname(above), named.name)


def _not_allowed(header: Header, path: str) -> InvalidValue:
    named = header.named[0]
    rest = f", and {len(header.named) - 1} more" if len(header.named) > 1 else ""
    return wrong(
        path,
        f"names another file of this host, {named.name} (its {_ROLES[named.role]}){rest}",
        "Set backing=true if the image may read it; otherwise give an image that is complete by itself",
    )


def _unknown_format(named: Named, path: str) -> InvalidValue:
    said = f"of the format {named.format}" if named.format else "without a format, which is never guessed"
    return wrong(
        path,
        f"names the backing file {named.name} {said}",
        f"The format must be {', '.join(FORMATS)} or raw. State it in the image: qemu-img rebase -u -F "
        "FORMAT -b FILE IMAGE",
    )


def _file_node(fd: int) -> dict[str, Any]:
    return {"driver": "file", "filename": _path_of(fd)}


def _path_of(fd: int) -> str:
    return f"/proc/self/fd/{fd}"


def _state_of(file: _backing.Backing, form: str) -> State:
    there = os.fstat(file.fd)
    return State(file.path, form, there.st_size, there.st_ino, there.st_mtime_ns, there.st_ctime_ns)


def _read(file: _backing.Backing, at: int, length: int) -> bytes:
    try:
        return os.pread(file.fd, length, at)
    except (OSError, OverflowError) as error:
        if isinstance(error, OverflowError):
            raise wrong(file.path, f"refers to byte {at} of itself, which no file can have") from error
        raise KernelError.from_oserror(error, "read the image", device=file.path) from error


def checksum(fd: int, path: str, size: int, limit: Deadline) -> str:
    """
    SHA-256 of an open file. ``path`` and ``size`` (bytes): for messages. DeadlineExceeded, KernelError.

    Holes are not read: an image can be much larger than what it holds, and that takes most of the time.
    """
    summed, zeros, at = hashlib.sha256(), bytes(_PIECE), 0
    while True:
        try:
            hole = _hole(fd, at)
            piece = zeros[:hole] if hole else os.pread(fd, _PIECE, at)
        except OSError as error:
            raise KernelError.from_oserror(error, "read the image", device=path) from error
        if not piece:
            return summed.hexdigest()
        summed.update(piece)
        at += len(piece)
        if limit.expired:
            raise limit.exceeded(
                f"its checksum; {at} of {size} bytes were read",
                device=path,
                hint="Set a longer timeout",
            )


def _hole(fd: int, at: int) -> int:
    """How many bytes from here on are a hole; 0 also where the file system does not tell. OSError."""
    try:
        return os.lseek(fd, at, os.SEEK_DATA) - at
    except OSError as error:
        if error.errno == errno.ENXIO:
            # There is no more data.
            return max(0, os.fstat(fd).st_size - at)
        if error.errno == errno.EINVAL:
            return 0
        raise
