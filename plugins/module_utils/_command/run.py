# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Run a command with a time limit, and end all that it has started when the time is over.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The command has a session of its own. While it runs, this process adopts what the command's processes leave
(PR_SET_CHILD_SUBREAPER), so that processes that have left the session are found, too. If the command ends in
time, processes that it has left in the background go on, like those of any command.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import selectors
import signal
import subprocess
import time
from typing import IO, NamedTuple

from .._base import gone
from .._base.deadline import Deadline, pauses
from .._base.errors import DeadlineExceeded, KernelError

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

# Seconds between two looks at the command. The module's parent process takes a child that does nothing for
# minutes for one that hangs.
_TICK = 0.25
# Seconds for the command to end by itself after SIGTERM, and for everything to end after SIGKILL.
_TERM_SECONDS, _KILL_SECONDS = 2.0, 5.0
_PR_SET_CHILD_SUBREAPER = 36  # include/uapi/linux/prctl.h
_PIECE = 1 << 16


class Ended(NamedTuple):
    """
    How a command ended: ``rc`` is its exit code, or the negative number of the signal that killed it; None if
    its time was over. ``start`` and ``end`` in seconds since the epoch.
    """

    rc: int | None
    stdout: bytes
    stderr: bytes
    start: float
    end: float
    # The error if its time was over.
    error: DeadlineExceeded | None = None


class Job(NamedTuple):
    """
    A command: ``program`` is the path that is executed. ``stdin``: what it reads, or None for nothing.
    ``inherited``: descriptors that it gets under the same numbers.
    """

    program: str
    words: list[str]
    environment: Mapping[str, str]
    directory: str | None = None
    stdin: bytes | None = None
    inherited: Sequence[int] = ()


def run(job: Job, seconds: float, on_started: Callable[[int], Collection[int]] = lambda pid: ()) -> Ended:
    """
    Run the command, and call ``on_started(pid)``, which returns the processes that it has started itself.
    KernelError if the command cannot be started.

    After ``seconds`` its processes get SIGTERM, and two seconds later SIGKILL.
    """
    others = _children()
    start, limit = time.time(), Deadline(seconds)
    with _adopting():
        with _started(job) as process:
            try:
                others.update(on_started(process.pid))
                out, err = _talk(process, job.stdin, limit)
                error = None
                if process.poll() is None:
                    error = limit.exceeded(
                        f"{job.words[0]} to end",
                        hint="The command and all processes that it started were ended; "
                        "what it has written stays. Set a longer timeout if it needs more time",
                    )
                    _end_all(process, others, error)
                    out, err = out + _rest(process.stdout), err + _rest(process.stderr)
            except BaseException:
                _end_all(process, others)
                raise
    return Ended(None if error else process.returncode, out, err, start, time.time(), error)


@contextlib.contextmanager
def _started(job: Job) -> Iterator[subprocess.Popen[bytes]]:
    try:
        # AnsibleModule.run_command has no time limit.
        process = subprocess.Popen(  # pylint: disable=ansible-bad-function
            job.words,
            executable=job.program,
            stdin=subprocess.DEVNULL if job.stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=job.directory,
            env=job.environment,
            pass_fds=job.inherited,
            start_new_session=True,
        )
    except OSError as error:
        raise KernelError.from_oserror(error, f"start {job.program}", device=job.program) from error
    try:
        yield process
    finally:
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                # What the command has not read is lost with it.
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def _talk(process: subprocess.Popen[bytes], stdin: bytes | None, limit: Deadline) -> tuple[bytes, bytes]:
    """Pass the input, and collect the output until the process ends or the time is over."""
    parts: dict[object, list[bytes]] = {process.stdout: [], process.stderr: []}
    with selectors.DefaultSelector() as selector:
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                selector.register(stream, selectors.EVENT_READ)
        left = memoryview(stdin or b"")
        if process.stdin is not None:
            selector.register(process.stdin, selectors.EVENT_WRITE)
        while process.poll() is None and not limit.expired:
            if not selector.get_map():
                limit.sleep(_TICK / 10)
            for key, dummy in selector.select(min(_TICK, limit.left())):
                if key.fileobj is process.stdin:
                    left = _write(process, left, selector)
                    continue
                piece = _read(key.fd)
                if piece == b"":
                    selector.unregister(key.fileobj)
                elif piece:
                    parts[key.fileobj].append(piece)
    if process.poll() is not None:
        # Processes in the background may keep the pipes open, so their ends are not waited for.
        for stream in (process.stdout, process.stderr):
            parts[stream].append(_rest(stream))
    return b"".join(parts[process.stdout]), b"".join(parts[process.stderr])


def _write(
    process: subprocess.Popen[bytes], left: memoryview, selector: selectors.BaseSelector
) -> memoryview:
    stream = process.stdin
    if stream is None:
        return left
    try:
        left = left[os.write(stream.fileno(), left[:_PIECE]) :] if left else left
    except BlockingIOError:
        return left
    except BrokenPipeError:
        # The command has closed its input, or has ended.
        left = left[:0]
    if not left:
        selector.unregister(stream)
        stream.close()
    return left


def _read(fd: int) -> bytes | None:
    """A piece of the output, empty at its end, None if there is nothing now."""
    try:
        return os.read(fd, _PIECE)
    except BlockingIOError:
        return None


def _rest(stream: IO[bytes] | None) -> bytes:
    """What can be read without waiting."""
    parts = []
    while stream is not None and not stream.closed:
        piece = _read(stream.fileno())
        if not piece:
            break
        parts.append(piece)
    return b"".join(parts)


# The end of all that the command has started


@contextlib.contextmanager
def _adopting() -> Iterator[None]:
    """Processes whose parent ends become children of this process."""
    _set_adopting(1)
    try:
        yield
    finally:
        _set_adopting(0)


def _set_adopting(wanted: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, wanted, 0, 0, 0):
        number = ctypes.get_errno()
        raise KernelError("cannot adopt the processes of a command (prctl)", errno=number)


def _end_all(
    process: subprocess.Popen[bytes], others: set[int], error: DeadlineExceeded | None = None
) -> None:
    """
    End the process and all that it has started, by SIGTERM and then SIGKILL. ``others``: children of this
    process that are not its own. Those that do not end are added to the message of ``error``.
    """
    if process.returncode is None:
        # The process is not waited for before the last signal, so that its ID is not reused.
        _signal(process.pid, signal.SIGTERM)
        limit = Deadline(_TERM_SECONDS)
        for pause in pauses():
            if _has_ended(process.pid) or limit.expired:
                break
            limit.sleep(pause)
        _signal(process.pid, signal.SIGKILL)
    limit = Deadline(_KILL_SECONDS)
    left: set[int] = set()
    for pause in pauses():
        left = _children() - others
        for pid in left:
            # Children of this process: their IDs are not reused before they are waited for.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            _reap(process, pid)
        if not left or limit.expired:
            break
        limit.sleep(pause)
    if left and error is not None:
        error.message += f"; processes that still wait in the kernel: {', '.join(map(str, sorted(left)))}"


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _signal(group: int, number: int) -> None:
    """Send a signal to the process group, if it still exists."""
    try:
        os.killpg(group, number)
    except OSError as error:
        if error.errno not in (errno.ESRCH, errno.EPERM):
            raise KernelError.from_oserror(error, f"end the command (process group {group})") from error


def _reap(process: subprocess.Popen[bytes], pid: int) -> None:
    if pid == process.pid:
        process.poll()
    else:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def _children() -> set[int]:
    """The children of this process, also those that have ended and were not waited for."""
    found = set()
    own = str(os.getpid())
    for name in gone.list_directory("/proc", ()):
        if name.isdigit() and _parent_of(name) == own:
            found.add(int(name))
    return found


def _parent_of(pid: str) -> str | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[1].decode("ascii")
    except OSError as error:
        if error.errno in gone.PROC_FILE:
            return None
        raise gone.not_seen(error, f"/proc/{pid}/stat") from error
