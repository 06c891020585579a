# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Resident service that runs the hotplug script's ``add``, which saves starting an interpreter and importing
modules. Those take longer than everything else.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The script writes a line, ``PID FORM XENBUS_PATH``, to the FIFO ``calls``, and reads from the FIFO ``alive``,
to which nothing is ever written and which reaches end of file when this process exits. The service answers by
a signal: SIGUSR1 if the disk is connected, SIGUSR2 if not.

Each call has its own thread. A keeper process (``_hotplug.keeper``), forked before any thread starts, holds a
copy of each device's descriptor.
"""

from __future__ import annotations

import _signal as signal  # see _hotplug.worker
import _socket as socket
import _thread
import os
import select
import sys

from .._base import gone, run_directory
from .._base.deadline import Deadline
from .._base.errors import GuestError, InvalidValue
from .._base.files import write_whole
from .._block import node
from .._block.seal import blkback, reason_text, seals
from .._dm import control
from .._process import descriptors, open_files
from .._xen import vdev
from . import add, recipe_target
from .keeper import BEGIN, DEVICE, END, KEEP, Keeper, encoded
from .script import LONGEST, SECONDS, parse_path
from .worker import ENDED, Link, ancillary_of, failure_of, silent_storage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Callable, TypeVar

    from .._block.device import Device
    from .._xen.vbd_key import Key
    from .._xenstore.session import Session, Transaction
    from .worker import Ancillary

    T = TypeVar("T")

DIRECTORY = "/run/racefree-block/service"
# Descriptor numbers by which script and service recognise each other (proc(5), /proc/PID/fd): that of
# ``alive`` here, which no other file of this process uses, and that of ``calls`` in the script.
ALIVE_FD = 60
_SCRIPT_FD = 3
# Modules that a call imports late. They are loaded here in advance, so that replacing the library on disk has
# no effect.
PRELOADED = (blkback, control, node, open_files, reason_text, recipe_target, seals, vdev)
_LINE = 512
_PRINTING = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
# How often the answering signal is repeated. The script may miss one that arrives just before its read.
_AGAIN_SECONDS = 0.02
# How long other calls wait for their turn while the current call makes no progress.
_TURN_SECONDS = 1.0
# The interpreter's switch interval (sys.setswitchinterval). A long one does no harm: each thread releases the
# interpreter within a few milliseconds anyway, for a system call.
_SWITCH_SECONDS = 0.05


def serve(directory: str = DIRECTORY) -> None:
    """Serve until SIGTERM or until the keeper exits, then finish the calls in progress."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    descriptors.raise_limit()
    run_directory.make(directory)
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    keeper = os.fork()
    if not keeper:
        mine.close()
        Keeper(its).run()
    its.close()
    calls = _open_fifo(f"{directory}/calls")
    alive = _open_fifo(f"{directory}/alive")
    os.dup2(alive, ALIVE_FD, inheritable=False)
    os.close(alive)
    _Service(keeper, mine, calls, f"{directory}/server").run()


def _open_fifo(path: str) -> int:
    try:
        os.mkfifo(path, 0o600)
    except FileExistsError:
        pass
    return os.open(path, os.O_RDWR | os.O_CLOEXEC)


class _Turns:
    """
    Lets one call work at a time, except while it waits for blkback.

    Threads that compete for the interpreter take twice as long for the same work, and of concurrent
    transactions only the first to commit succeeds. But a call that hangs does not block the others for longer
    than _TURN_SECONDS.
    """

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._taken = 0

    def take(self, limit: Deadline) -> _thread.LockType | None:
        """
        Acquire the turn: the lock, which the caller releases, or None if the caller may go on without it.
        """
        while True:
            lock, taken = self._lock, self._taken
            if lock.acquire(timeout=max(0, min(limit.left(), _TURN_SECONDS))):
                self._taken += 1
                return lock
            if limit.expired:
                return None
            if self._taken == taken:
                # The holder may hang for ever. Later calls use a new lock.
                self._lock = _thread.allocate_lock()
                return None


class _Call(Link):
    """A call in progress: the Link that its worker thread uses."""

    def __init__(
        self, number: int, key: Key, form: str, pid: int, pidfd: int, keeper: socket.socket, turns: _Turns
    ) -> None:
        super().__init__()
        self.number = number
        self.key = key
        self.form = form
        self.pid = pid
        self.pidfd = pidfd
        self.limit = Deadline(LONGEST)
        self.was_shared = False
        self._keeper = keeper
        self._turns = turns
        self._turn: _thread.LockType | None = None
        # Whoever acquires it sends the answer.
        self.answering = _thread.allocate_lock()
        self._recording = _thread.allocate_lock()

    @property
    def is_alone(self) -> bool:
        """
        Whether nobody waits for the result any more: the script was killed, or was told that the call timed
        out.
        """
        return self.is_given_up or _has_ended(self.pidfd)

    def share(self, device: Device) -> None:
        self.tell(DEVICE, ancillary_of(device))
        self.was_shared = True

    def record(self, key: Key, facts: dict[str, str]) -> None:
        """
        Write the state file, unless the call was given up: then the file would be orphaned, or overwrite a
        later call's.
        """
        with self._recording:
            if self.is_given_up:
                raise GuestError("the script has given up in the meantime", device=key.backend)
            super().record(key, facts)

    def give_up(self) -> None:
        with self._recording:
            self.is_given_up = True

    def transaction(self, store: Session, function: Callable[[Transaction], T], limit: Deadline) -> T:
        """Run ``store.transaction`` in this call's turn, and end the turn afterwards."""
        self.take_turn(limit)
        try:
            return super().transaction(store, function, limit)
        finally:
            self.end_turn()

    def take_turn(self, limit: Deadline) -> None:
        if self._turn is None:
            self._turn = self._turns.take(limit)

    def end_turn(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.release()

    def tell(self, kind: bytes, ancillary: Iterable[Ancillary] = ()) -> None:
        try:
            self._keeper.sendmsg([encoded(kind, self.number, self.key)], ancillary)
        except OSError as error:
            # ENDED means that the keeper was killed.
            if error.errno not in ENDED:
                raise


class _Service:
    def __init__(self, keeper_pid: int, keeper: socket.socket, calls: int, said: str) -> None:
        self.keeper_pid = keeper_pid
        self.keeper = keeper
        self.calls = calls
        self.said = said
        self.running: dict[int, _Call] = {}
        self.turns = _Turns()
        self.taken = 0
        self.rest = b""
        self.is_ending = False
        # ``spare``: descriptors that are closed when none is left for answering a call. ``late``: lines of
        # calls for which not even these sufficed.
        self.spare: list[int] = []
        self.late: list[bytes] = []
        # Calls that no thread could be started for, with the reason.
        self.refused: dict[int, tuple[_Call, str]] = {}

    def run(self) -> None:
        signal.signal(signal.SIGTERM, self._end)
        # Before the script knows of this service: its first call may already need them.
        self._keep_spare()
        write_whole(self.said, f"{os.getpid()}\n")
        poll = select.poll()
        poll.register(self.calls, select.POLLIN)
        while not self.is_ending or self.running or self.refused:
            self._keep_spare()
            # poll is restarted after a signal (PEP 475).
            self._take(bool(poll.poll(_AGAIN_SECONDS * 1000 if self.refused or self.late else 1000)))
            if not self.is_ending and os.waitpid(self.keeper_pid, os.WNOHANG)[0]:
                # Nobody holds a second copy of the devices now. End; whoever started this process starts
                # another one.
                self._end()
            for call in [call for call in list(self.running.values()) if call.limit.expired]:
                self._give_up(call)
            for number, (call, error) in list(self.refused.items()):
                if self._answer_once(call, error):
                    del self.refused[number]
                    os.close(call.pidfd)

    def _end(self, *dummy: object) -> None:
        self.is_ending = True
        try:
            os.unlink(self.said)
        except FileNotFoundError:
            pass

    def _take(self, has_more: bool) -> None:
        lines, self.late = self.late, []
        if has_more:
            *more, self.rest = (self.rest + os.read(self.calls, 65536)).split(b"\n")
            self.rest = self.rest[:_LINE]
            lines += more
        for line in lines:
            try:
                number, form, path = line.decode().split(" ")
                pid, key = int(number), parse_path(path)
            except (ValueError, InvalidValue):
                # Not a line that the script writes.
                continue
            try:
                self._begin(line, pid, form, key)
            except (OverflowError, ProcessLookupError):
                # The process does not exist, so nobody waits for an answer.
                continue

    def _begin(self, line: bytes, pid: int, form: str, key: Key) -> None:
        """Start a thread for the call. Raises ProcessLookupError if the calling process has ended."""
        pidfd, problem = self._pidfd(pid)
        if pidfd is None:
            self.late.append(line)
            return
        if not _has_open(pid, self.calls) or _has_ended(pidfd):
            os.close(pidfd)
            return
        self.taken += 1
        call = _Call(self.taken, key, form, pid, pidfd, self.keeper, self.turns)
        if problem is None:
            self.running[call.number] = call
            call.tell(BEGIN)
            try:
                _thread.start_new_thread(self._work, (call,))
                return
            except RuntimeError as error:
                del self.running[call.number]
                call.tell(END)
                problem = str(error)
        words = f"block-racefree: add {key.backend}: the service cannot work on it: {problem}\n"
        _print_there(pid, pidfd, words, self.spare)
        self.refused[call.number] = call, problem

    def _keep_spare(self) -> None:
        """Reserve two descriptors: one for a pidfd, one for the script's standard error."""
        while len(self.spare) < 2:
            fd = _or_none(lambda: os.dup(self.calls))
            if fd is None:
                return
            self.spare.append(fd)

    def _pidfd(self, pid: int) -> tuple[int | None, str | None]:
        """
        Open a pidfd: ``(pidfd, None)``, or ``(pidfd, reason)`` if a spare descriptor had to be closed for it,
        or ``(None, reason)`` if none could be opened at all. Raises ProcessLookupError if the process has
        ended.
        """
        try:
            return os.pidfd_open(pid), None
        except OSError as error:
            if error.errno in gone.PROCESS:
                raise
            problem = error.strerror or str(error)
        if self.spare:
            os.close(self.spare.pop())
        return _or_none(lambda: os.pidfd_open(pid)), problem

    def _work(self, call: _Call) -> None:
        call.take_turn(call.limit)
        error = failure_of(lambda: add.add(call.key, SECONDS, call.form, call))
        call.end_turn()
        call.tell(KEEP if error is not None and call.needed and call.was_shared else END)
        if call.answering.acquire(False):
            self._answer(call, error)

    def _give_up(self, call: _Call) -> None:
        """Answer a call whose thread hangs in storage. If the thread continues later, it ends by itself."""
        if call.answering.acquire(False):
            call.give_up()
            _thread.start_new_thread(self._say_late, (call,))

    def _say_late(self, call: _Call) -> None:
        error = str(silent_storage(call.limit))
        untold = failure_of(lambda: add.give_up(call.key, error, call.was_shared))
        if untold is not None:
            error += f". It could not be written to the node hotplug-error: {untold}"
        self._answer(call, error)

    def _answer(self, call: _Call, error: str | None) -> None:
        if error is not None:
            _print_there(
                call.pid, call.pidfd, f"block-racefree: add {call.key.backend}: {error}\n", self.spare
            )
        limit = Deadline(10)
        while not self._answer_once(call, error) and not limit.expired:
            _wait_end(call.pidfd, _AGAIN_SECONDS)
        self.running.pop(call.number, None)
        os.close(call.pidfd)

    @staticmethod
    def _answer_once(call: _Call, error: str | None) -> bool:
        """Signal the script, and return whether it has already ended."""
        if _has_ended(call.pidfd):
            return True
        try:
            signal.pidfd_send_signal(call.pidfd, signal.SIGUSR1 if error is None else signal.SIGUSR2)
        except ProcessLookupError:
            return True
        return False


def _or_none(function: Callable[[], int]) -> int | None:
    """The descriptor that ``function()`` returns, or None if it raises OSError, for whatever reason."""
    try:
        return function()
    except OSError:
        return None


def _has_open(pid: int, fifo: int) -> bool:
    """
    Whether the process is the script: nobody else has the FIFO open at this descriptor number. The caller
    holds a pidfd and checks it afterwards, so that the PID cannot have been reused.
    """
    found = os.fstat(fifo)
    try:
        theirs = os.stat(f"/proc/{pid}/fd/{_SCRIPT_FD}")
    except OSError:
        # Never signal a process that cannot be identified as the script.
        return False
    return (theirs.st_dev, theirs.st_ino) == (found.st_dev, found.st_ino)


def _has_ended(pidfd: int) -> bool:
    return _wait_end(pidfd, 0)


def _wait_end(pidfd: int, seconds: float) -> bool:
    """
    Wait up to ``seconds`` and return whether the process has ended (its pidfd is readable then,
    pidfd_open(2)).
    """
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _print_there(pid: int, pidfd: int, text: str, spare: list[int]) -> None:
    """
    Write ``text`` to the script's standard error, if that can be opened; libxl itself reads the node
    hotplug-error. ``pidfd`` identifies the script, as its PID may be reused once it has ended.

    A descriptor of the list ``spare`` is closed for it if there is no other.
    """
    path = f"/proc/{pid}/fd/2"
    fd = _or_none(lambda: os.open(path, _PRINTING))
    if fd is None and spare:
        os.close(spare.pop())
        fd = _or_none(lambda: os.open(path, _PRINTING))
    if fd is None:
        return
    try:
        # If the process has not ended by now, the PID was still the script's when the file was opened.
        if not _has_ended(pidfd):
            os.write(fd, text.encode(errors="replace"))
    except OSError:
        # The exit code reports the failure anyway.
        pass
    finally:
        os.close(fd)
