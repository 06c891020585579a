# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Golden images that were made from images of other formats: the record of what each was made from, and its
file, which appears whole or not at all.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A new image and its record are written under names that no other run uses. Then the image gets its own name,
by a link: unlike a rename, that never replaces another file. So only one of several hosts that share the
directory gets the name, and only that one then renames its record into place. If it is killed in between, the
image is still known by its first name, and the next run puts the record into place.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets

from .._base import files as _files
from .._base import gone
from .._base.errors import DeviceBusy, InvalidValue, KernelError, WrongDevice
from .._base.files import open_regular, write_whole
from .._base.record import Record
from . import chain
from .chain import State

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .._base.deadline import Deadline

# Suffix of the record beside a golden image.
RECORD = ".source"
_UNFINISHED = ".unfinished"
# Suffix of the record of a new image, until it is in its place.
_NEW_RECORD = RECORD + _UNFINISHED
_MOST_BYTES = 1 << 20


class File(Record):
    """A file as it is now: ``size`` in bytes, times in nanoseconds since the epoch."""

    size: int
    mtime_ns: int
    inode: int
    ctime_ns: int


class Golden(Record):
    """
    A golden image: ``size`` in bytes and ``mtime_ns``, and what it was made from, the image first.

    Older versions recorded no more. ``ctime_ns`` is also None until the run that made the image, whose links
    change it, is done.
    """

    size: int
    mtime_ns: int
    made_from: tuple[State, ...]
    sha256: str | None = None
    inode: int | None = None
    ctime_ns: int | None = None

    def looks_like(self, there: File) -> bool:
        """Whether it has the size and modification time of the file. Another file can have them, too."""
        return (self.size, self.mtime_ns) == (there.size, there.mtime_ns)

    def is_untouched(self, there: File) -> bool:
        """Whether it is that file, and nobody has changed it since."""
        is_same = self.looks_like(there) and self.inode == there.inode
        return is_same and self.ctime_ns in (None, there.ctime_ns)


class Pending(Record):
    """
    A record that is not in its place: its path, and whether it is one of this host.
    """

    record: str
    golden: Golden
    is_own: bool


def look(path: str) -> File | None:
    """The file as it is now; None if there is none. Raises InvalidValue or KernelError."""
    with _opened(path) as fd:
        return None if fd is None else _file(fd, path)


def read_whole(path: str, limit: Deadline) -> tuple[File, str] | None:
    """
    The file with its SHA-256; None if there is none. WrongDevice if it changes meanwhile, DeadlineExceeded,
    InvalidValue, KernelError.
    """
    with _opened(path) as fd:
        if fd is None:
            return None
        there = _file(fd, path)
        summed = chain.checksum(fd, path, there.size, limit)
        if _file(fd, path) != there:
            raise WrongDevice(
                "it was written to while it was read",
                device=path,
                hint="A golden image must not change once snapshots of it exist",
            )
        return there, summed


def as_it_is(path: str, golden: Golden) -> Golden | None:
    """
    The golden image with the change time that its file has now, after links to it were made or removed. None
    if another file is there. Raises InvalidValue or KernelError.
    """
    there, golden = look(path), golden._replace(ctime_ns=None)
    if there is None or not golden.is_untouched(there):
        return None
    return golden._replace(ctime_ns=there.ctime_ns)


def read_record(path: str) -> Golden | None:
    """
    What is recorded for the golden image at a path, or None. InvalidValue for a malformed record,
    KernelError.
    """
    return _read(path + RECORD, path)


def write_record(path: str, golden: Golden) -> None:
    """Record what the golden image at a path was made from, atomically. Raises KernelError."""
    _write(path + RECORD, path, golden)


def pending(path: str) -> Pending | None:
    """
    The record of the image at a path if it is not in its place: the run that made the image, of this or
    another host, is not done or was killed. Raises KernelError, InvalidValue for a malformed record.
    """
    directory, name = os.path.split(path)
    pattern = re.compile(re.escape(name) + r"\.[0-9a-f]{8}-[0-9a-f]{16}" + re.escape(_NEW_RECORD))
    for record in _listed(directory, lambda each: pattern.fullmatch(each) is not None):
        # The same file: while it has this name, no other file can get its inode number.
        if _is_same(record[: -len(_NEW_RECORD)] + _UNFINISHED, path):
            golden = _read(record, path)
            if golden is not None:
                return Pending(record, golden, record.startswith(_own_prefix(path)))
    return None


def put_record(path: str, record: str) -> None:
    """Put the record of the golden image at a path into its place. Raises KernelError."""
    with _directory(path) as directory:
        _put(path, record, directory)


def unfinished(path: str) -> list[str]:
    """The paths of files that killed runs of this host have left. Raises KernelError."""
    directory, name = os.path.split(_own_prefix(path))
    return _listed(directory, lambda each: each.startswith(name) and each.endswith(_UNFINISHED))


def remove_unfinished(path: str) -> None:
    """Remove those files. The caller holds the lock of this golden image. Raises KernelError."""
    for left in unfinished(path):
        _unlink(left)


class New:
    """
    The file of a new golden image, under another name: ``fd``. :meth:`name_it` gives it its own name.
    ``is_named``: it may have its own name; ``is_recorded``: and what it was made from is recorded.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.is_named = self.is_recorded = False
        self._temporary = _own_name(path)
        self._record = self._temporary[: -len(_UNFINISHED)] + _NEW_RECORD
        try:
            self.fd = os.open(
                self._temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
        except OSError as error:
            raise KernelError.from_oserror(error, "make the image", device=self._temporary) from error

    def finish(self, limit: Deadline) -> tuple[File, str]:
        """Write it to the disk; the file as it is then, and its SHA-256. DeadlineExceeded, KernelError."""
        try:
            os.fsync(self.fd)
            made = _file(self.fd, self.path)
        except OSError as error:
            raise KernelError.from_oserror(error, "write the image to the disk", device=self.path) from error
        return made, chain.checksum(self.fd, self.path, made.size, limit)

    def name_it(self, golden: Golden) -> None:
        """
        Give it its own name, and record what it was made from. DeviceBusy if there is a file of that name by
        now, which is left as it is, with its record; KernelError.
        """
        _write(self._record, self.path, golden)
        with _directory(self.path) as directory:
            _sync(self.path, directory)
            self._link(directory)
            _sync(self.path, directory)
            _put(self.path, self._record, directory)
        self.is_recorded = True

    def _link(self, directory: int) -> None:
        # Set before the call: if it is not known whether the link was made, what proves it must stay.
        self.is_named = True
        try:
            # A link to the open file itself (AT_SYMLINK_FOLLOW), not to what has its name now.
            name = os.path.basename(self.path)
            os.link(f"/proc/self/fd/{self.fd}", name, src_dir_fd=directory, dst_dir_fd=directory)
        except FileExistsError as error:
            # A file server that repeats a request finds the link that the first one made.
            self.is_named = _is_same(self._temporary, self.path)
            if not self.is_named:
                raise DeviceBusy(
                    "another process made it meanwhile",
                    device=self.path,
                    errno=errno.EEXIST,
                    hint="Nothing was replaced. Run the task again",
                ) from error
        except OSError as error:
            self.is_named = False
            raise KernelError.from_oserror(error, "give the image its name", device=self.path) from error

    def close(self) -> None:
        """
        Close it, and remove its other name and record. They stay if it has its own name without a record: the
        next run then records what it was made from.
        """
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)
            if self.is_named is self.is_recorded:
                _unlink(self._record)
                _unlink(self._temporary)


def remove(path: str, made: Golden, record: Golden | None) -> None:
    """
    Remove a golden image that was just made, and put its earlier record back. DeviceBusy if another file has
    its name by now, KernelError.
    """
    if as_it_is(path, made) is None or read_record(path) != made:
        raise DeviceBusy(
            "another process has replaced it, or its record, meanwhile",
            device=path,
            hint="They were left as they are",
        )
    _unlink(path)
    if record is None:
        _unlink(path + RECORD)
    else:
        write_record(path, record)


def _read(record: str, path: str) -> Golden | None:
    try:
        with open(open_regular(record, "path"), "rb") as file:
            plain = json.loads(file.read(_MOST_BYTES))
        rows = [State(**row) for row in plain["made_from"]]
        if not rows or not all(isinstance(row.sha256, str) for row in rows):
            raise ValueError("made_from is empty or has no checksum")
        found = Golden(int(plain["size"]), int(plain["mtime_ns"]), tuple(rows))
        if plain.get("sha256") is None:
            return found
        ctime = plain["ctime_ns"]
        return found._replace(
            sha256=str(plain["sha256"]),
            inode=int(plain["inode"]),
            ctime_ns=None if ctime is None else int(ctime),
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KernelError.from_oserror(error, "read what the image was made from", device=record) from error
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        wrong = f"has a record that cannot be read, {record}: {error}"
        raise InvalidValue(
            "path", path, wrong, hint="If it is not a record of this collection, move it away"
        ) from error


def _write(record: str, path: str, golden: Golden) -> None:
    plain = dict(golden._asdict(), made_from=[row._asdict() for row in golden.made_from])
    try:
        text = json.dumps(plain, indent=1) + "\n"
        write_whole(record, text, _own_name(path), sync=True)
    except OSError as error:
        raise KernelError.from_oserror(error, "record what it was made from", device=record) from error


def _put(path: str, record: str, directory: int) -> None:
    try:
        os.rename(record, path + RECORD)
    except OSError as error:
        raise KernelError.from_oserror(
            error,
            "record what the image was made from",
            device=path,
            hint="The image is whole. Run the task again, which then records it",
        ) from error
    _sync(path, directory)


def _sync(path: str, directory: int) -> None:
    try:
        os.fsync(directory)
    except OSError as error:
        raise KernelError.from_oserror(error, "write its directory to the disk", device=path) from error


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int | None]:
    """A context with the opened file; None if there is none."""
    try:
        fd = open_regular(path, "path")
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        raise KernelError.from_oserror(error, f"open {path}", device=path) from error
    try:
        yield fd
    finally:
        os.close(fd)


def _file(fd: int, path: str) -> File:
    try:
        there = os.fstat(fd)
    except OSError as error:
        raise KernelError.from_oserror(error, "look at the image", device=path) from error
    return File(there.st_size, there.st_mtime_ns, there.st_ino, there.st_ctime_ns)


def _listed(directory: str, is_wanted: Callable[[str], bool]) -> list[str]:
    try:
        names = os.listdir(directory)
    except OSError as error:
        raise KernelError.from_oserror(error, "list the directory", device=directory) from error
    return [os.path.join(directory, name) for name in sorted(names) if is_wanted(name)]


def _is_same(one: str, other: str) -> bool:
    """Whether these paths are names of one file. KernelError if this cannot be known."""
    path = one
    try:
        first = os.stat(path, follow_symlinks=False)
        path = other
        return os.path.samestat(first, os.stat(path, follow_symlinks=False))
    except OSError as error:
        if error.errno in gone.PATH:
            return False
        raise gone.not_seen(error, path) from error


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
