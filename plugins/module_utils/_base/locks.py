# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Locks between concurrent runs of the collection on one host. A run that looks for a device and creates it
holds the lock of the underlying object.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A lock is one byte of one file: a record lock (fcntl(2), F_SETLK) at an offset that is a 62-bit hash of the
locked object's name. Such a lock is released when its process exits, is not inherited through fork(2) or
execve(2), the kernel reports which process holds it, and no stale files remain. Two objects with the same
hash would merely wait for each other. When a process closes any file descriptor of the file, it loses all its
record locks on it, so nothing else may open this file. The kernel does not distinguish the threads of a
process; this module does.
"""

from __future__ import annotations

import _struct as struct  # the module struct only adds another file to find and read
import _thread
import errno
import fcntl
import os

from . import run_directory
from .deadline import Deadline, pauses
from .errors import DeviceBusy, KernelError, WrongDevice
from .record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DIRECTORY = os.path.dirname(run_directory.LOCK_FILE)
# Seconds to wait for another run.
SECONDS = 60
# struct flock (<asm-generic/fcntl.h>) for fcntl(2): type, whence, start, length, pid.
_FLOCK = struct.Struct("@hhqqi")
_TAKEN = (errno.EAGAIN, errno.EACCES)
# The path leads to no file. Opening it later reports the error.
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
_WORD = 64
# How often opening is retried if the file is replaced meanwhile.
_TRIES = 10


class Lock(Record):
    """
    A lock. ``name`` identifies the object; ``label`` names it in messages and completes "to finish with ...".
    """

    name: str
    label: str

    @property
    def offset(self) -> int:
        """The byte's offset in the file: 64-bit FNV-1a of the name, without the two highest bits."""
        value = 0xCBF29CE484222325
        for byte in os.fsencode(self.name):
            value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
        return value & (1 << 62) - 1


def of_inode(device: int, inode: int, path: str) -> Lock:
    """The lock of the file with this ``st_dev`` and ``st_ino``."""
    return Lock(f"file {device} {inode}", f"the file {path}")


def of_loop(number: int, diskseq: int, path: str) -> Lock:
    """The lock of a loop device that cannot tell which file it has."""
    return Lock(f"loop {number} {diskseq}", f"the loop device {path}")


def of_file(path: str) -> list[Lock]:
    """
    A list with the lock of the file that the path currently leads to, empty if there is no file. Raises
    KernelError if this cannot be determined.
    """
    try:
        there = os.stat(path)
    except OSError as error:
        if error.errno in _NO_FILE:
            return []
        raise KernelError.from_oserror(error, f"look at {path}", device=path) from error
    return [of_inode(there.st_dev, there.st_ino, path)]


def of_name(kind: str, path: str, words: str) -> list[Lock]:
    """
    A list with the lock of a name in a directory, whether or not a file has that name; empty if there is no
    such directory. ``kind``: of the things that exclude each other. Raises KernelError if this cannot be
    determined.
    """
    try:
        above = os.stat(os.path.dirname(path))
    except OSError as error:
        if error.errno in _NO_FILE:
            return []
        raise KernelError.from_oserror(error, f"look at {path}", device=path) from error
    return [Lock(f"{kind} {above.st_dev} {above.st_ino} {os.path.basename(path)}", words)]


def of_vbd(domid: int, devid: int, title: str) -> Lock:
    """The lock of one disk of one running guest. ``title`` describes the disk in messages."""
    return Lock(f"vbd {domid} {devid}", f"the disk {title}")


def of_mapped(name: str | None, uuid: str | None) -> list[Lock]:
    """A list with the locks of a mapped device's name and UUID, as far as they are given."""
    locks = [Lock(f"dm name {name}", f"the mapped device {name}")] if name else []
    return locks + ([Lock(f"dm uuid {uuid}", f"the mapped device with the uuid {uuid}")] if uuid else [])


class Locks:
    """
    The locks of one run, each taken only once; a context manager that releases them all.

    Runs in one process are told apart by their threads: a thread can take a lock again that it already holds.
    """

    def __init__(self) -> None:
        self._mine: dict[str, Lock] = {}

    def __enter__(self) -> Locks:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def has(self, lock: Lock) -> bool:
        return lock.name in self._mine

    def take(self, locks: Iterable[Lock], limit: Deadline | None = None) -> None:
        """
        Take all the locks, always in the same order, within ``limit`` (a Deadline; by default SECONDS).

        Raises Unavailable; locks that this call took are released then.
        """
        limit = limit or Deadline(SECONDS)
        taken: list[Lock] = []
        try:
            wanted = {lock.name: lock for lock in locks if not self.has(lock)}
            rows = sorted((lock.offset, lock.name) for lock in wanted.values())
            while len(taken) < len(rows):
                # Most locks are free, so take as many as possible at once: in a child process each call is a
                # request to its parent.
                count = _state().take_many([offset for offset, dummy in rows[len(taken) :]])
                for dummy, name in rows[len(taken) : len(taken) + count]:
                    self._mine[name] = wanted[name]
                    taken.append(wanted[name])
                if len(taken) < len(rows):
                    lock = wanted[rows[len(taken)][1]]
                    _wait(lock, limit)
                    self._mine[lock.name] = lock
                    taken.append(lock)
        except BaseException:
            self.release(taken)
            raise

    def try_take(self, lock: Lock) -> bool:
        """Take the lock without waiting; whether it is held now."""
        if not self.has(lock):
            if not _state().take(lock.offset):
                return False
            self._mine[lock.name] = lock
        return True

    def release(self, locks: Iterable[Lock]) -> None:
        """Release those of the locks that are held."""
        mine = [lock for lock in locks if self._mine.pop(lock.name, None) is not None]
        if mine:
            _state().release_many([lock.offset for lock in mine])

    def close(self) -> None:
        self.release(list(self._mine.values()))


class Unavailable(DeviceBusy):
    """Another run held the lock ``lock`` until the wait timed out."""

    def __init__(self, lock: Lock, seconds: float, who: str) -> None:
        super().__init__(
            f"timed out after {seconds:g} s waiting for {who} to finish with {lock.label}",
            hint="Two runs never work on the same object at once. Try again when the other one has ended",
        )
        self.lock = lock


def held(locks: Iterable[Lock], limit: Deadline | None = None) -> Locks:
    """A context manager that holds the locks, taken as by :meth:`Locks.take`."""
    taken = Locks()
    taken.take(locks, limit)
    return taken


def _wait(lock: Lock, limit: Deadline) -> None:
    offset = lock.offset
    for pause in pauses(0.001):
        if _state().take(offset):
            return
        if limit.expired:
            raise Unavailable(lock, limit.seconds or 0, _state().holder(offset))
        limit.sleep(pause)


class _State:
    """
    The process's lock file descriptor, open while it holds locks, and for each locked byte the thread that
    holds it and how often it took it.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._guard = _thread.allocate_lock()
        self._owners: dict[int, list[int]] = {}
        self._fd = -1
        self._file: tuple[int, int] | None = None

    def take(self, offset: int) -> bool:
        """Take the byte for this thread without waiting; whether it is held now."""
        me = _thread.get_ident()
        with self._guard:
            owner = self._owners.get(offset)
            if owner is not None and owner[0] != me:
                return False
            if owner is None:
                if not self._take_byte(offset):
                    self._close_unused()
                    return False
                owner = self._owners[offset] = [me, 0]
            owner[1] += 1
            return True

    def take_many(self, offsets: Sequence[int]) -> int:
        """
        Take bytes for this thread, up to the first that somebody else holds; the number taken. On an error,
        those taken are released.
        """
        for number, offset in enumerate(offsets):
            try:
                if not self.take(offset):
                    return number
            except BaseException:
                self.release_many(offsets[:number])
                raise
        return len(offsets)

    def release_many(self, offsets: Sequence[int]) -> None:
        for offset in offsets:
            self.release(offset)

    def release(self, offset: int) -> None:
        with self._guard:
            owner = self._owners.get(offset)
            if owner is None:
                # The lock was taken before a fork, and the parent still holds it.
                return
            owner[1] -= 1
            if not owner[1]:
                del self._owners[offset]
                self._set(fcntl.LOCK_UN, offset)
                self._close_unused()

    def holder(self, offset: int) -> str:
        """Describe who holds the byte, for messages."""
        with self._guard:
            if offset in self._owners:
                return "another thread of this process"
            self._need_file()
            try:
                wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0)
                found = _FLOCK.unpack(fcntl.fcntl(self._fd, fcntl.F_GETLK, wanted))
            except OSError as error:
                return f"another process, which could not be identified ({error.strerror}),"
            finally:
                self._close_unused()
        return "a process that has just ended" if found[0] == fcntl.F_UNLCK else _describe(found[4])

    def _take_byte(self, offset: int) -> bool:
        """
        Lock the byte in the file that the path currently leads to; whether it is held now. Raises WrongDevice
        if the file was replaced while this process holds other locks in it.
        """
        for dummy in range(_TRIES):
            self._need_file()
            try:
                if not self._set(fcntl.LOCK_EX | fcntl.LOCK_NB, offset):
                    if self._is_current():
                        return False
                elif self._is_current():
                    return True
            except BaseException:
                self._close_unused()
                raise
            if self._owners:
                self._set(fcntl.LOCK_UN, offset)
                break
            self._close_unused()
        raise WrongDevice(
            "the file was removed or replaced while this run holds locks in it",
            device=f"{DIRECTORY}/bytes",
            hint="Make sure that nothing cleans up that directory, and try again",
        )

    def _is_current(self) -> bool:
        """Whether the path still leads to the open file."""
        try:
            there = os.lstat(f"{DIRECTORY}/bytes")
        except FileNotFoundError:
            return False
        except OSError as error:
            raise KernelError.from_oserror(error, "look at it", device=f"{DIRECTORY}/bytes") from error
        return (there.st_dev, there.st_ino) == self._file

    def _need_file(self) -> None:
        if self._fd < 0:
            self._fd = _open()
            own = os.fstat(self._fd)
            self._file = own.st_dev, own.st_ino

    def _close_unused(self) -> None:
        if not self._owners and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _set(self, how: int, offset: int) -> bool:
        try:
            fcntl.lockf(self._fd, how, 1, offset, os.SEEK_SET)
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            raise KernelError.from_oserror(error, "lock", device=DIRECTORY) from error
        return True


_STATE: list[_State] = []


def _state() -> _State:
    """This process's _State. A forked child gets a new one, as it inherits no locks."""
    if not _STATE or _STATE[0].pid != os.getpid():
        # Leave the inherited file descriptor open; nothing in the child needs it closed.
        _STATE[:] = [_State()]
    return _STATE[0]


def use(state: _State) -> None:
    """
    In a newly forked process, use ``state``, an object with _State's methods, to take locks in another
    process.
    """
    _STATE[:] = [state]


def take_here(offset: int) -> bool:
    """Take the byte in this process, on behalf of a child; whether it is held now."""
    return _state().take(offset)


def release_here(offset: int) -> None:
    """Release a byte that was taken by :func:`take_here`."""
    _state().release(offset)


def take_many_here(offsets: Sequence[int]) -> int:
    """
    Take bytes on behalf of a child, as :func:`take_here`, up to the first that another process holds; the
    number taken.
    """
    return _state().take_many(offsets)


def release_many_here(offsets: Sequence[int]) -> None:
    """Release bytes that were taken by :func:`take_many_here` or :func:`take_here`."""
    _state().release_many(offsets)


def holder_of(offset: int) -> str:
    """Describe who holds the byte, for messages."""
    return _state().holder(offset)


def _open() -> int:
    path = f"{DIRECTORY}/bytes"
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        # Check the directory before every open: a file in another user's directory must not be used for
        # locks.
        run_directory.make(DIRECTORY)
        return os.open(path, flags, 0o600)
    except OSError as error:
        raise KernelError.from_oserror(error, f"open {path}", device=path) from error


def _describe(pid: int) -> str:
    """
    The process and the first words of its command line, which include an Ansible module's name. Other
    arguments are left out, as they may contain secrets.
    """
    if pid <= 0:
        return "a process of another PID namespace"
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(4096).split(b"\0")
    except OSError:  # it has ended meanwhile or is hidden; report its PID only
        words = []
    shown = words[:2] if len(words) > 1 and words[1].startswith(b"/") else words[:1]
    text = " ".join(os.fsdecode(word)[-_WORD:] for word in shown)
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return f"process {pid} ({text})" if text else f"process {pid}"
