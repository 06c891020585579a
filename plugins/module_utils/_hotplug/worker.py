# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The two processes of the hotplug script: one works, the other watches over it, and each has the device when
the other is killed.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A call into storage that does not answer cannot be interrupted, not even by SIGKILL, so the process that libxl
waits for makes none. And between the write of a device's number to XenStore and blkback's open, an open
descriptor is all that keeps the number from being given to another device: the worker passes a copy to the
watcher first. ``_process.supervise`` and ``_process.holder`` do the same with more comfort; here that would
take longer than all the rest.
"""

from __future__ import annotations

# what the modules signal and socket add are enumerations, which take longer to make than all the rest
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

# Seconds for which a device is kept when blkback neither opens it nor lets go of the vbd.
_KEPT = 120.0
LOOK_SECONDS = 0.25
# Seconds that a killed worker has for its end; one that hangs in the kernel needs longer.
_DYING = 1.0
_LONGEST = 4096
# How a message begins: a descriptor comes with it, the work is done, it failed, it failed and the worker
# keeps the device.
_DEVICE, _DONE, _FAILED, _KEEPING = b"d", b"o", b"f", b"k"
# What sendmsg answers when the other end's process has ended (unix(7)).
ENDED = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)
# In place of a descriptor that could not be taken.
_NONE_LEFT = -1


class Link:
    """
    What the worker has of the watcher; without a connection there is none.

    While ``needed`` is set the device that was shared must not be let go of: blkback may be about to open it.
    """

    def __init__(self, connection: socket.socket | None = None, parent: int | None = None) -> None:
        self.needed = False
        # A worker that is given up is killed.
        self.is_given_up = False
        self._connection = connection
        self._parent = parent
        self._fd: int | None = None

    @property
    def is_alone(self) -> bool:
        """Whether the watcher, for which libxl waits, was killed."""
        return self._parent is not None and os.getppid() != self._parent

    def share(self, device: Device) -> None:
        """
        Have the watcher keep the Device too; a descriptor on its way is open already (unix(7), SCM_RIGHTS).
        """
        if self._connection is not None:
            self._fd = os.dup(device.fd)
            self._say(_DEVICE, ancillary_of(device))

    def record(self, key: Key, facts: dict[str, str]) -> None:
        """``_hotplug.state.write``."""
        state.write(key, facts)

    def transaction(self, store: Session, function: Callable[[Transaction], T], limit: Deadline) -> T:
        """``store.transaction``, which others may have reason to wait with."""
        return store.transaction(function, limit)

    def end(self, error: str | None, sysfs: str) -> None:
        """Tell how it ended, and keep the device if need be."""
        keeping = error is not None and self.needed and self._fd is not None
        self._say(
            _DONE if error is None else (_KEEPING if keeping else _FAILED) + error.encode()[: _LONGEST - 1]
        )
        if keeping and self._fd is not None:
            _keep(self._fd, sysfs)

    def _say(self, message: bytes, ancillary: Iterable[Ancillary] = ()) -> None:
        assert self._connection is not None
        try:
            self._connection.sendmsg([message], ancillary)
        except OSError as error:
            # Otherwise the watcher was killed.
            if error.errno not in ENDED:
                raise


def run(
    work: Callable[[Link], object], key: Key, seconds: float, give_up: Callable[[BaseException, bool], object]
) -> None:
    """
    ``work(link)`` in a process of its own; BlockError with what it raised.

    When the worker cannot say what went wrong, since it was killed, or takes longer than ``seconds``,
    ``give_up(error, was_shared)`` is called before the error is raised.
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
            # What it has open may be what does not answer, and keep it from ending.
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
    The worker's last message; the descriptor that it shared goes to the list ``shared``, or _NONE_LEFT when
    it could not be taken.
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
        # Whatever comes of it, the worker goes on as if it had been taken.
        shared.append(_NONE_LEFT)
        shared[:] = [fd_of(ancillary)]


def _work(work: Callable[[Link], object], link: Link, sysfs: str) -> None:
    """In the worker; never returns."""
    try:
        leave_terminal()
        link.end(failure_of(lambda: work(link)), sysfs)
    finally:
        os._exit(0)


def failure_of(function: Callable[[], object]) -> str | None:
    """What went wrong in ``function()``, as a text, or None."""
    try:
        function()
    except (BlockError, OSError) as raised:
        return str(raised)
    except BaseException as raised:  # pylint: disable=broad-exception-caught
        return f"ended by {type(raised).__name__}: {raised}"
    return None


def leave_terminal() -> None:
    """
    What interrupts the script from a terminal must not end this process too, and whoever reads what the
    script prints must not wait for it.
    """
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)


def ancillary_of(device: Device) -> list[Ancillary]:
    """What sendmsg passes a copy of the Device's descriptor with (unix(7), SCM_RIGHTS)."""
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, device.fd.to_bytes(4, "little"))]


def fd_of(ancillary: Sequence[tuple[int, int, bytes]]) -> int:
    """The descriptor that recvmsg got; BlockError when there was none left for it (unix(7), MSG_CTRUNC)."""
    if not ancillary:
        raise BlockError(
            "the watcher process cannot hold the device: it is out of file descriptors",
            errno=errno.EMFILE,
        )
    return int.from_bytes(ancillary[0][2], "little")


def silent_storage(limit: Deadline) -> DeadlineExceeded:
    """The error of who waited for it."""
    return limit.exceeded(
        "the storage to answer, which cannot be interrupted",
        hint="See the kernel's messages (dmesg) of this host, and what its disks do",
    )


def worker_killed() -> BlockError:
    """The error of who stands in for it."""
    return BlockError("the worker process was killed")


def keeping_limit() -> Deadline:
    """The Deadline for a device that is kept from now on."""
    return Deadline(_KEPT)


def may_be_opened(sysfs: str, limit: Deadline) -> bool:
    """Whether blkback may yet open the device that is kept for the vbd."""
    if limit.expired:
        return False
    try:
        return gone.exists(sysfs, gone.SYSFS) and not gone.exists(f"{sysfs}/physical_device", gone.SYSFS)
    except KernelError:
        # It is kept rather than let go of, until the limit.
        return True


def _keep(fd: int, sysfs: str) -> None:
    """
    Have nothing but the descriptor, until blkback has the device or nothing to do with the vbd; never
    returns.
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
    """Wait a moment for the end of a child that was killed."""
    limit = Deadline(_DYING)
    while os.waitpid(pid, os.WNOHANG) == (0, 0) and not limit.expired:
        time.sleep(0.01)
