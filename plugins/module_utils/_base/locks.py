# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Locks between runs of the collection on one host: who looks for a device and makes it has the lock of what it
stands on.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A lock is one byte of one file: a record lock (fcntl(2), F_SETLK) at an offset that is a hash of what is
locked, 62 bits. Such a lock ends with its process, no child gets it by fork(2) or execve(2), the kernel tells
which process has it, and no files are left over. Two things whose hashes are the same would wait for each
other, no more. All record locks of a process on a file end when it closes any descriptor of that file, so
nothing else may open this one; and the kernel does not part the threads of a process, which is done here.
"""

from __future__ import annotations

import _struct as struct  # the module struct adds nothing but a file to be found and read
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
# For how long another run is waited for.
SECONDS = 60
# struct flock (<asm-generic/fcntl.h>) as fcntl(2) takes it: type, whence, start, length, pid.
_FLOCK = struct.Struct("@hhqqi")
_TAKEN = (errno.EAGAIN, errno.EACCES)
# A path that leads to no file: whoever opens it says so.
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
_WORD = 64
# How often the file may be exchanged while it is opened.
_TRIES = 10


class Lock(Record):
    """
    What is locked: ``name`` identifies it, ``label`` names it in messages and completes "to finish with ...".
    """

    name: str
    label: str

    @property
    def offset(self) -> int:
        """The byte in the file: FNV-1a, 64 bits, of the name, without the two highest bits."""
        value = 0xCBF29CE484222325
        for byte in os.fsencode(self.name):
            value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
        return value & (1 << 62) - 1


def of_inode(device: int, inode: int, path: str) -> Lock:
    """The lock of the file with this ``st_dev`` and ``st_ino``."""
    return Lock(f"file {device} {inode}", f"the file {path}")


def of_file(path: str) -> list[Lock]:
    """
    A list with the lock of the file that the path leads to now, empty when it leads to none; KernelError when
    that cannot be told.
    """
    try:
        there = os.stat(path)
    except OSError as error:
        if error.errno in _NO_FILE:
            return []
        raise KernelError.from_oserror(error, f"look at {path}", device=path) from error
    return [of_inode(there.st_dev, there.st_ino, path)]


def of_vbd(domid: int, devid: int, title: str) -> Lock:
    """The lock of one disk of one running guest, which ``title`` tells."""
    return Lock(f"vbd {domid} {devid}", f"the disk {title}")


def of_mapped(name: str | None, uuid: str | None) -> list[Lock]:
    """A list with the locks of a mapped device's name and uuid, as far as they are given."""
    locks = [Lock(f"dm name {name}", f"the mapped device {name}")] if name else []
    return locks + ([Lock(f"dm uuid {uuid}", f"the mapped device with the uuid {uuid}")] if uuid else [])


class Locks:
    """
    The locks of one run, each taken once however often it is asked for; a context, which leaves none behind.

    Several runs in one process are parted by their threads: a thread that has a lock already gets it again.
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
        Have all of them, in one order whatever the list's is, within ``limit`` (a Deadline; SECONDS unless
        given).

        Raises Unavailable; none of the list is kept then but what was there before.
        """
        limit = limit or Deadline(SECONDS)
        taken: list[Lock] = []
        try:
            wanted = {lock.name: lock for lock in locks if not self.has(lock)}
            rows = sorted((lock.offset, lock.name) for lock in wanted.values())
            while len(taken) < len(rows):
                # Most are free, and a process that asks another one for them does so once.
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
        """Whether it is had now, without waiting."""
        if not self.has(lock):
            if not _state().take(lock.offset):
                return False
            self._mine[lock.name] = lock
        return True

    def release(self, locks: Iterable[Lock]) -> None:
        """Let go of those of the list that are had."""
        mine = [lock for lock in locks if self._mine.pop(lock.name, None) is not None]
        if mine:
            _state().release_many([lock.offset for lock in mine])

    def close(self) -> None:
        self.release(list(self._mine.values()))


class Unavailable(DeviceBusy):
    """Another run has the lock ``lock`` for longer than it is waited for."""

    def __init__(self, lock: Lock, seconds: float, who: str) -> None:
        super().__init__(
            f"timed out after {seconds:g} s waiting for {who} to finish with {lock.label}",
            hint="Two runs never work on the same object at once. Try again when the other one has ended",
        )
        self.lock = lock


def held(locks: Iterable[Lock], limit: Deadline | None = None) -> Locks:
    """A context that has the locks, as of :meth:`Locks.take`."""
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
    The descriptor of this process, open while it has locks, and which of its threads has which byte, and how
    often.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._guard = _thread.allocate_lock()
        self._owners: dict[int, list[int]] = {}
        self._fd = -1
        self._file: tuple[int, int] | None = None

    def take(self, offset: int) -> bool:
        """Whether this thread has the byte now."""
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
        How many of them this thread has now, up to the first one that somebody else has; on an error none.
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
                # It was taken before a fork, by the parent, which has it.
                return
            owner[1] -= 1
            if not owner[1]:
                del self._owners[offset]
                self._set(fcntl.LOCK_UN, offset)
                self._close_unused()

    def holder(self, offset: int) -> str:
        """Who has the byte, for people."""
        with self._guard:
            if offset in self._owners:
                return "another thread of this process"
            self._need_file()
            try:
                wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0)
                found = _FLOCK.unpack(fcntl.fcntl(self._fd, fcntl.F_GETLK, wanted))
            except OSError as error:
                return f"another process, of which is not known which ({error.strerror}),"
            finally:
                self._close_unused()
        return "a process that has just ended" if found[0] == fcntl.F_UNLCK else _describe(found[4])

    def _take_byte(self, offset: int) -> bool:
        """
        Whether it is had, in the file that the next run opens; WrongDevice when that is no more the one with
        the others of this process.
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
            "the file was removed or exchanged while this run has locks in it",
            device=f"{DIRECTORY}/bytes",
            hint="Have nothing clean up that directory, and try again",
        )

    def _is_current(self) -> bool:
        """Whether the path leads to the file still."""
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
    """This process's _State; a child that was forked has one of its own, since it has no locks."""
    if not _STATE or _STATE[0].pid != os.getpid():
        # The descriptor that was copied by the fork is left open: closing it is nobody's business there.
        _STATE[:] = [_State()]
    return _STATE[0]


def use(state: _State) -> None:
    """
    Have the locks of this process, which was forked just now, be those of ``state``: another process's (a
    _State's methods).
    """
    _STATE[:] = [state]


def take_here(offset: int) -> bool:
    """Whether this process has the byte now, for a child that works for it."""
    return _state().take(offset)


def release_here(offset: int) -> None:
    """Let go of a byte that was taken by :func:`take_here`."""
    _state().release(offset)


def take_many_here(offsets: Sequence[int]) -> int:
    """
    How many of them this process has now, up to the first one that another has; for a child, as
    :func:`take_here`.
    """
    return _state().take_many(offsets)


def release_many_here(offsets: Sequence[int]) -> None:
    """Let go of bytes that were taken by :func:`take_many_here` or :func:`take_here`."""
    _state().release_many(offsets)


def holder_of(offset: int) -> str:
    """Who has the byte, for people."""
    return _state().holder(offset)


def _open() -> int:
    path = f"{DIRECTORY}/bytes"
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        # Whatever is there: a file in a directory of somebody else's has nobody's locks.
        run_directory.make(DIRECTORY)
        return os.open(path, flags, 0o600)
    except OSError as error:
        raise KernelError.from_oserror(error, f"open {path}", device=path) from error


def _describe(pid: int) -> str:
    """
    The process and the beginning of its command line, which tells an Ansible module's name; arguments may
    hold what is nobody's business.
    """
    if pid <= 0:
        return "a process of another PID namespace"
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(4096).split(b"\0")
    except OSError:  # it has ended meanwhile, or is hidden from us; its number is known all the same
        words = []
    shown = words[:2] if len(words) > 1 and words[1].startswith(b"/") else words[:1]
    text = " ".join(os.fsdecode(word)[-_WORD:] for word in shown)
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return f"process {pid} ({text})" if text else f"process {pid}"
