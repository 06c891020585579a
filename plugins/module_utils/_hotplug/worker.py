# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Run the hotplug script's ``add`` as two processes, a worker and a watcher. Each holds the device open, so that
either can be killed.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A system call into storage that does not respond cannot be interrupted, not even by SIGKILL. The watcher,
which libxl waits for, therefore makes no such calls. Between the write of the device number to XenStore and
blkback's open, only an open file descriptor keeps the kernel from reusing the number for another device. The
worker therefore passes a copy of its descriptor to the watcher first. ``_process.supervise`` and
``_process.holder`` do the same more comfortably, but using them would take longer than everything else the
script does.
"""

from __future__ import annotations

# The modules signal and socket wrap these in enumerations, and creating those takes longer than everything
# else the script does.
import _signal as signal
import _socket as socket
import errno
import os
import time

from .._base import gone
from .._base.deadline import Deadline
from .._base.errors import BlockError, KernelError
from . import state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Callable, TypeVar

    from .._base.errors import DeadlineExceeded
    from .._block.device import Device
    from .._xen.vbd_key import Key
    from .._xenstore.session import Session, Transaction

    T = TypeVar("T")
    Ancillary = tuple[int, int, bytes]

# Seconds for which the device is held open while blkback neither opens it nor releases the vbd.
_KEPT = 120.0
LOOK_SECONDS = 0.25
# Seconds to wait for a killed worker to exit. A worker that hangs in the kernel takes longer.
_DYING = 1.0
_LONGEST = 4096
# First byte of a message: a descriptor is attached; the work is done; it failed; it failed and the worker
# keeps the device open.
_DEVICE, _DONE, _FAILED, _KEEPING = b"d", b"o", b"f", b"k"
# errno values of sendmsg when the peer process has exited (unix(7)).
ENDED = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)
# Stands for a descriptor that could not be received.
_NONE_LEFT = -1


class Link:
    """
    The worker's connection to the watcher. Without a connection there is no watcher.

    While ``needed`` is set, the shared device must not be released: blkback may be about to open it.
    """

    def __init__(self, connection: socket.socket | None = None, parent: int | None = None) -> None:
        self.needed = False
        # Never set here: a worker that is given up is killed.
        self.is_given_up = False
        self._connection = connection
        self._parent = parent
        self._fd: int | None = None

    @property
    def is_alone(self) -> bool:
        """Whether the watcher, which libxl waits for, was killed."""
        return self._parent is not None and os.getppid() != self._parent

    def share(self, device: Device) -> None:
        """
        Pass a copy of the Device's file descriptor to the watcher. A descriptor in flight already counts as
        open (unix(7), SCM_RIGHTS).
        """
        if self._connection is not None:
            self._fd = os.dup(device.fd)
            self._say(_DEVICE, ancillary_of(device))

    def record(self, key: Key, facts: dict[str, str]) -> None:
        """Write the vbd's state file (``_hotplug.state.write``)."""
        state.write(key, facts)

    def transaction(self, store: Session, function: Callable[[Transaction], T], limit: Deadline) -> T:
        """Run ``store.transaction``; a subclass may wait for its turn first."""
        return store.transaction(function, limit)

    def end(self, error: str | None, sysfs: str) -> None:
        """
        Report the outcome to the watcher. After a failure while the shared device is ``needed``, keep it
        open.
        """
        keeping = error is not None and self.needed and self._fd is not None
        self._say(
            _DONE if error is None else (_KEEPING if keeping else _FAILED) + error.encode()[: _LONGEST - 1]
        )
        if keeping and self._fd is not None:
            _keep(self._fd, sysfs)

    def _say(self, message: bytes, ancillary: Iterable[Ancillary] = ()) -> None:
        if self._connection is None:
            raise AssertionError
        try:
            self._connection.sendmsg([message], ancillary)
        except OSError as error:
            # ENDED means that the watcher was killed.
            if error.errno not in ENDED:
                raise


def run(
    work: Callable[[Link], object], key: Key, seconds: float, give_up: Callable[[BaseException, bool], object]
) -> None:
    """
    Run ``work(link)`` in a child process. Raises BlockError with the text of what it raised.

    If the worker is killed before it reports an outcome, or takes longer than ``seconds``, ``give_up(error,
    was_shared)`` is called before the error is raised.
    """
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = os.getpid()
    worker = os.fork()
    if not worker:
        _work(work, Link(its, parent), key.sysfs)
    its.close()
    shared: list[int] = []
    try:
        message = _hear(mine, Deadline(seconds), shared)
        if message[:1] != _KEEPING:
            # One of its open files may be on the storage that does not respond, and delay its exit.
            _reap(worker)
    except BaseException as error:
        os.kill(worker, signal.SIGKILL)
        _reap(worker)
        give_up(error, bool(shared))
        if shared != [_NONE_LEFT] and shared and not os.fork():
            _keep(shared[0], key.sysfs)
        raise
    finally:
        mine.close()
        for fd in shared:
            if fd != _NONE_LEFT:
                os.close(fd)
    if message != _DONE:
        raise BlockError(message[1:].decode(errors="replace"))


def _hear(connection: socket.socket, limit: Deadline, shared: list[int]) -> bytes:
    """
    The worker's final message. The descriptor that it shared is stored in the list ``shared``, or _NONE_LEFT
    if it could not be received.
    """
    while True:
        connection.settimeout(max(limit.left(), 0.001))
        try:
            message, ancillary = connection.recvmsg(_LONGEST, 64)[:2]
        except socket.timeout:
            raise silent_storage(limit) from None
        if not message:
            raise worker_killed()
        if message != _DEVICE:
            return message
        # If receiving fails, the worker still continues as if it had succeeded, so record that it shared.
        shared.append(_NONE_LEFT)
        shared[:] = [fd_of(ancillary)]


def _work(work: Callable[[Link], object], link: Link, sysfs: str) -> None:
    """The worker's main function; never returns."""
    try:
        leave_terminal()
        link.end(failure_of(lambda: work(link)), sysfs)
    finally:
        os._exit(0)


def failure_of(function: Callable[[], object]) -> str | None:
    """Call ``function()``; the text of the exception that it raised, or None."""
    try:
        function()
    except (BlockError, OSError) as raised:
        return str(raised)
    except BaseException as raised:  # pylint: disable=broad-exception-caught
        return f"ended by {type(raised).__name__}: {raised}"
    return None


def leave_terminal() -> None:
    """
    Detach from the terminal and the standard streams. A signal from the terminal to the script must not end
    this process too, and whoever reads the script's output must not wait for this process to close it.
    """
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)


def ancillary_of(device: Device) -> list[Ancillary]:
    """Ancillary data for sendmsg that passes a copy of the Device's file descriptor (unix(7), SCM_RIGHTS)."""
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, device.fd.to_bytes(4, "little"))]


def fd_of(ancillary: Sequence[tuple[int, int, bytes]]) -> int:
    """
    The file descriptor that recvmsg received. Raises BlockError if none was left for it (unix(7),
    MSG_CTRUNC).
    """
    if not ancillary:
        raise BlockError(
            "the watcher process cannot hold the device: it is out of file descriptors",
            errno=errno.EMFILE,
        )
    return int.from_bytes(ancillary[0][2], "little")


def silent_storage(limit: Deadline) -> DeadlineExceeded:
    """The error to raise after a wait for storage timed out."""
    return limit.exceeded(
        "the storage to answer, which cannot be interrupted",
        hint="See the kernel's messages (dmesg) of this host, and what its disks do",
    )


def worker_killed() -> BlockError:
    """The error that is reported on behalf of a killed worker."""
    return BlockError("the worker process was killed")


def keeping_limit() -> Deadline:
    """A new Deadline for holding a device open for blkback."""
    return Deadline(_KEPT)


def may_be_opened(sysfs: str, limit: Deadline) -> bool:
    """Whether blkback may still open the device that is held for the vbd."""
    if limit.expired:
        return False
    try:
        return gone.exists(sysfs, gone.SYSFS) and not gone.exists(f"{sysfs}/physical_device", gone.SYSFS)
    except KernelError:
        # Sysfs cannot be read: hold the device until the deadline rather than release it.
        return True


def _keep(fd: int, sysfs: str) -> None:
    """
    Close every descriptor except ``fd``, and hold that until blkback has opened the device, the vbd is gone,
    or the deadline has expired. Never returns.
    """
    try:
        os.closerange(0, fd)
        os.closerange(fd + 1, 1 << 16)
        limit = keeping_limit()
        while may_be_opened(sysfs, limit):
            time.sleep(LOOK_SECONDS)
    finally:
        os._exit(0)


def _reap(pid: int) -> None:
    """Wait up to _DYING seconds for a killed child to exit, and reap it."""
    limit = Deadline(_DYING)
    while os.waitpid(pid, os.WNOHANG) == (0, 0) and not limit.expired:
        time.sleep(0.01)
