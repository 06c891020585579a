# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Run a module's work in a child process, which is abandoned when it hangs in the kernel.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A system call that waits for storage which does not respond cannot be interrupted, not even by SIGKILL, and
Ansible waits for the module's process. So a child process does all the work, without access to the module's
output, and the parent makes no system call on storage. The parent serves the child, reports to Ansible, and
holds the locks of the run (``_base.locks``), which are therefore released when the task ends, not when the
storage responds. An abandoned child is killed: it does nothing after the call that it hangs in. Devices that
this call creates are removed with the child, and those that were about to become persistent are listed in the
journal (``_source.journal``).
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import select
import signal
import socket
import struct
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from .._base import locks as _locks
from .._base.deadline import Deadline
from .._base.errors import BlockError, DeadlineExceeded, of_oserror

# A module's work; returns plain data.
Body = Callable[[], dict[str, Any]]
# For tests that inspect the process which does the work: run the work in the test's own process.
IN_PROCESS = False
# Seconds between two checks of the child, and the number of seconds for which a child that is not waiting for
# storage may make no progress. No wait of the library is longer.
_LOOK_SECONDS = 0.25
_LONGEST_STILL = 180
# Seconds for the child to exit after it has answered or was killed. Closing its files may hang.
_ENDING_SECONDS = 1
# The length precedes the answer, because processes that the child started may keep the pipe's write end open.
_LENGTH = struct.Struct("=Q")
_TAKE, _TAKE_MANY, _RELEASE, _HOLDER = b"t", b"T", b"r", b"h"
# Bytes in one message: a letter and up to 4096 offsets of 8 bytes each.
_MESSAGE = 1 + 8 * 4096
# What the child is working on, for the parent's error message: a NUL-terminated text in shared memory.
_TITLE_BYTES = 4096
_title: mmap.mmap | None = None


def run(body: Body, patience: float) -> dict[str, Any]:
    """
    Return what ``body()`` returns (plain data), or ``{"raised": arguments of fail_json}`` if it raised.

    ``patience``: how many seconds a system call on storage may take.
    """
    if IN_PROCESS:
        return _outcome_of(body)
    global _title
    _title = mmap.mmap(-1, _TITLE_BYTES)
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reader, writer = os.pipe()
    lifeline, alive = os.pipe()
    parent, child = os.getpid(), os.fork()
    if not child:
        for fd in (mine.fileno(), reader, alive):
            os.close(fd)
        _work(body, its, writer, lifeline, parent)
    for fd in (writer, lifeline):
        os.close(fd)
    its.close()
    try:
        answer = _serve(child, mine, reader, patience)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        # The child closes its files before the module ends, if possible.
        _reap(child, Deadline(_ENDING_SECONDS))
        mine.close()
        os.close(reader)
        os.close(alive)
    if not answer:
        raise BlockError(
            "the process that worked on it was killed",
            hint="Run the task again: what it left half done is rolled back first",
        )
    outcome: dict[str, Any] = json.loads(answer)
    return outcome


def works_on(title: str) -> None:
    """
    Record what this process is working on. The parent's error names it if it abandons the process. An empty
    text: nothing in particular.
    """
    if _title is not None:
        data = title.encode(errors="surrogateescape")[: _TITLE_BYTES - 1] + b"\0"
        _title[: len(data)] = data


def _outcome_of(body: Body) -> dict[str, Any]:
    try:
        return body()
    except BlockError as error:
        return {"raised": {"msg": str(error), "error": error.as_dict()}}
    except OSError as error:
        found = of_oserror(error)
        return {"raised": {"msg": str(found), "error": found.as_dict(), "exception": traceback.format_exc()}}
    except Exception as error:
        text = f"unexpected {type(error).__name__}: {error}"
        return {"raised": {"msg": text, "exception": traceback.format_exc()}}


# The child


def _work(body: Body, locks: socket.socket, writer: int, lifeline: int, parent: int) -> NoReturn:
    """Never returns."""
    try:
        _die_with(parent, lifeline)
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        _locks.use(_Locks(locks))  # type: ignore[arg-type]  # it has the methods that are called
        data = json.dumps(_outcome_of(body), default=_plain).encode()
        data = _LENGTH.pack(len(data)) + data
        while data:
            data = data[os.write(writer, data) :]
    finally:
        os._exit(0)


def _plain(value: object) -> list[Any] | str:
    """Convert a value as Ansible's own encoder does."""
    return list(value) if isinstance(value, (set, frozenset)) else str(value)


def _die_with(parent: int, lifeline: int) -> None:
    """
    Let the kernel kill this process when the other end of the pipe, which only the parent has, is closed
    (fcntl(2), F_SETSIG; pipe_release in fs/pipe.c). prctl(2) would be simpler, but cannot be called without
    cffi.
    """
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    # The parent may have ended before that.
    if os.getppid() != parent:
        os._exit(1)


class _Locks:
    """The parent's locks, as the child uses them: the methods that ``_base.locks`` calls."""

    def __init__(self, connection: socket.socket) -> None:
        self.pid = os.getpid()
        self._connection = connection

    def take(self, offset: int) -> bool:
        return self._ask(_TAKE, [offset]) == b"y"

    def take_many(self, offsets: list[int]) -> int:
        """Take only as many locks as fit into one message. The caller continues with the others."""
        return int(self._ask(_TAKE_MANY, offsets[: _MESSAGE // 8]))

    def release(self, offset: int) -> None:
        self.release_many([offset])

    def release_many(self, offsets: list[int]) -> None:
        for start in range(0, len(offsets), _MESSAGE // 8):
            self._ask(_RELEASE, offsets[start : start + _MESSAGE // 8])

    def holder(self, offset: int) -> str:
        return self._ask(_HOLDER, [offset]).decode(errors="replace")

    def _ask(self, what: bytes, offsets: list[int]) -> bytes:
        self._connection.sendall(what + struct.pack(f"={len(offsets)}q", *offsets))
        answer = self._connection.recv(4096)
        if answer[:1] == b"e":
            raise BlockError(answer[1:].decode(errors="replace"))
        return answer


# The parent


def _serve(child: int, connection: socket.socket, reader: int, patience: float) -> bytes:
    """The child's answer, in bytes. Empty if it ended without an answer. DeadlineExceeded if it hangs."""
    data, seen, since, ended = b"", None, time.monotonic(), False
    while True:
        ready = select.select([connection.fileno(), reader], [], [], 0 if ended else _LOOK_SECONDS)[0]
        if reader in ready:
            part = os.read(reader, 1 << 20)
            data += part
            if not part:
                return b""
            if len(data) >= _LENGTH.size and len(data) >= _LENGTH.size + _LENGTH.unpack_from(data)[0]:
                return data[_LENGTH.size :]
        elif connection.fileno() in ready:
            request = connection.recv(_MESSAGE)
            if request:
                connection.sendall(_answer(request))
            else:
                # The child has closed its socket and is about to exit.
                time.sleep(0.001)
        if ready:
            seen = None
            continue
        if ended:
            return b""
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            # It may have answered since the last look at the pipe, so look once more.
            ended = True
            continue
        now, in_storage = _standing(child)
        if now != seen:
            seen, since = now, time.monotonic()
        limit = patience if in_storage else max(patience, _LONGEST_STILL)
        if time.monotonic() - since > limit:
            raise _hanging(child, limit)


def _answer(request: bytes) -> bytes:
    what, offsets = request[:1], list(struct.unpack(f"={len(request) // 8}q", request[1:]))
    try:
        if what == _TAKE:
            return b"y" if _locks.take_here(offsets[0]) else b"n"
        if what == _TAKE_MANY:
            return b"%d" % _locks.take_many_here(offsets)
        if what == _RELEASE:
            _locks.release_many_here(offsets)
            return b"y"
        return _locks.holder_of(offsets[0]).encode(errors="replace")[:4000]
    except BlockError as error:
        return b"e" + str(error).encode(errors="replace")[:4000]


def _standing(pid: int) -> tuple[tuple[list[bytes], list[bytes]], bool]:
    """
    A value that changes whenever the process does anything, and whether it is in uninterruptible sleep
    (proc_pid_stat(5): state D), as in system calls on storage.
    """
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    with open(f"/proc/{pid}/status", "rb") as file:
        switches = [line for line in file if b"ctxt_switches" in line]
    return (fields[11:13], switches), fields[0] == b"D"


def _hanging(pid: int, seconds: float) -> DeadlineExceeded:
    with open(f"/proc/{pid}/wchan", encoding="ascii", errors="replace") as file:
        where = file.read().strip()
    where = f" ({where})" if where not in ("", "0") else ""
    title = b"" if _title is None else _title[:].partition(b"\0")[0]
    return DeadlineExceeded(
        f"the storage to answer, for which process {pid} waits in the kernel{where}",
        seconds,
        device=title.decode(errors="replace") or None,
        hint="That process ends when the storage responds, and may still complete its current system call "
        "then. Look at the kernel's log (dmesg), and run the task again once the storage responds: it first "
        "rolls back what was left incomplete",
    )


def _reap(pid: int, limit: Deadline) -> None:
    while os.waitpid(pid, os.WNOHANG) == (0, 0) and not limit.expired:
        time.sleep(0.002)
