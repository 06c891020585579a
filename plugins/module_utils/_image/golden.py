# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Golden images that were made from images of other formats: the record of what each was made from, and its
file, which appears whole or not at all.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A new image is written under a name that no other run uses. Then the record is written, and then the image
gets its own name, by a link: unlike a rename, that never replaces another file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets

from .._base import files as _files
from .._base.errors import DeviceBusy, InvalidValue, KernelError
from .._base.files import open_regular, write_whole
from .._base.record import Record
from .chain import State

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Iterator

# Suffix of the record beside a golden image.
RECORD = ".source"
_UNFINISHED = ".unfinished"
_MOST_BYTES = 1 << 20


class Golden(Record):
    """
    A golden image: ``size`` in bytes and ``mtime_ns``, and what it was made from, the image first.
    """

    size: int
    mtime_ns: int
    made_from: tuple[State, ...]


def look(path: str) -> tuple[int, int] | None:
    """``(size, mtime_ns)`` of the file; None if there is none. Raises InvalidValue or KernelError."""
    try:
        fd = open_regular(path, "path")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KernelError.from_oserror(error, f"open {path}", device=path) from error
    try:
        there = os.fstat(fd)
        return there.st_size, there.st_mtime_ns
    finally:
        os.close(fd)


def read_record(path: str) -> Golden | None:
    """
    What is recorded for the golden image at a path, or None. InvalidValue for a malformed record,
    KernelError.
    """
    record = path + RECORD
    try:
        with open(open_regular(record, "path"), "rb") as file:
            plain = json.loads(file.read(_MOST_BYTES))
        rows = [State(**row) for row in plain["made_from"]]
        if not rows or not all(isinstance(row.sha256, str) for row in rows):
            raise ValueError("made_from is empty or has no checksum")
        return Golden(int(plain["size"]), int(plain["mtime_ns"]), tuple(rows))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KernelError.from_oserror(error, "read what the image was made from", device=record) from error
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        wrong = f"has a record that cannot be read, {record}: {error}"
        raise InvalidValue(
            "path", path, wrong, hint="If it is not a record of this collection, move it away"
        ) from error


def write_record(path: str, golden: Golden) -> None:
    """Record what the golden image at a path was made from, atomically. Raises KernelError."""
    rows = [row._asdict() for row in golden.made_from]
    plain = {"size": golden.size, "mtime_ns": golden.mtime_ns, "made_from": rows}
    try:
        text = json.dumps(plain, indent=1) + "\n"
        write_whole(path + RECORD, text, _own_name(path), sync=True)
    except OSError as error:
        raise KernelError.from_oserror(error, "record what it was made from", device=path + RECORD) from error


def unfinished(path: str) -> list[str]:
    """The paths of files that killed runs of this host have left. Raises KernelError."""
    directory, name = os.path.split(_own_prefix(path))
    try:
        names = os.listdir(directory)
    except OSError as error:
        raise KernelError.from_oserror(error, "list the directory", device=directory) from error
    return [
        os.path.join(directory, each)
        for each in sorted(names)
        if each.startswith(name) and each.endswith(_UNFINISHED)
    ]


def remove_unfinished(path: str) -> None:
    """Remove those files. The caller holds the lock of this golden image. Raises KernelError."""
    for left in unfinished(path):
        _unlink(left)


class New:
    """The file of a new golden image, under another name: ``fd``. :meth:`name_it` gives it its own name."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._temporary = _own_name(path)
        try:
            self.fd = os.open(
                self._temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
        except OSError as error:
            raise KernelError.from_oserror(error, "make the image", device=self._temporary) from error

    def finish(self) -> tuple[int, int]:
        """Write it to the disk; ``(size, mtime_ns)``. Raises KernelError."""
        try:
            os.fsync(self.fd)
            there = os.fstat(self.fd)
        except OSError as error:
            raise KernelError.from_oserror(error, "write the image to the disk", device=self.path) from error
        return there.st_size, there.st_mtime_ns

    def name_it(self) -> None:
        """DeviceBusy if there is a file of that name by now, KernelError."""
        with _directory(self.path) as directory:
            try:
                # A link to the open file itself (AT_SYMLINK_FOLLOW), not to what has its name now.
                name = os.path.basename(self.path)
                os.link(f"/proc/self/fd/{self.fd}", name, src_dir_fd=directory, dst_dir_fd=directory)
                self._remove()
                os.fsync(directory)
            except FileExistsError as error:
                raise DeviceBusy(
                    "another process made it meanwhile",
                    device=self.path,
                    errno=errno.EEXIST,
                    hint="Nothing was replaced. Run the task again",
                ) from error
            except OSError as error:
                raise KernelError.from_oserror(error, "give the image its name", device=self.path) from error

    def close(self) -> None:
        """Close it, and remove it unless it has its own name."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)
            self._remove()

    def _remove(self) -> None:
        _unlink(self._temporary)


def remove(path: str, record: Golden | None) -> None:
    """Remove a golden image that was just made, and put its earlier record back. Raises KernelError."""
    _unlink(path)
    if record is None:
        _unlink(path + RECORD)
    else:
        write_record(path, record)


@contextlib.contextmanager
def _directory(path: str) -> Iterator[int]:
    above = os.path.dirname(path)
    try:
        fd = os.open(above, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError.from_oserror(error, "open the directory", device=above) from error
    try:
        yield fd
    finally:
        os.close(fd)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise KernelError.from_oserror(error, f"remove {path}", device=path) from error


def _own_prefix(path: str) -> str:
    # A file of another host, with a shared file system, may be in use.
    host = hashlib.sha256(os.uname().nodename.encode()).hexdigest()[:8]
    return f"{path}.{host}-"


def _own_name(path: str) -> str:
    return f"{_own_prefix(path)}{secrets.token_hex(8)}{_UNFINISHED}"


def check_path(path: str) -> None:
    """InvalidValue unless a golden image can have this path."""
    _files.check_path(path, "path", "an absolute path of a regular file")
    if path.endswith(("/", "/.", "/..", RECORD, _UNFINISHED)):
        raise InvalidValue("path", path, f"must be a file's path that does not end with {RECORD}")
