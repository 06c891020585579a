# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
A connection to xenstored that applies a deadline to all I/O. It replaces pyxs's router thread.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

pyxs's ``Client`` accepts any object as its ``router``. Its own router waits without limit: if the daemon
hangs, dies during a request or answers a different request, the caller hangs for ever. This one sends and
receives in the calling thread on a non-blocking file descriptor. After anything other than a valid reply the
stream cannot be trusted, so the connection is closed immediately. Message format:
xen/include/public/io/xs_wire.h.
"""

from __future__ import annotations

# The module socket wraps these in enumerations, and creating those takes longer than a run of the hotplug
# script.
import _socket as socket
import _struct as struct
import errno
import os
import select
import stat

from .._base import gone
from .._base.deadline import Deadline, pauses
from .._base.errors import XenStoreError
from .._base.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Callable, TypeVar

    from .._base.errors import DeadlineExceeded

    A = TypeVar("A")
    T = TypeVar("T")

PAYLOAD_MAX = 4096  # XENSTORE_PAYLOAD_MAX, in bytes
_HEADER = struct.Struct("=IIII")
_WATCH_EVENT = 15
_ERROR = 16
_HINT = (
    "Check that this is a Xen host's domain 0 and that xenstored runs and answers: "
    "xenstore-ls -s / 2>&1 | head"
)


class Refused(Exception):
    """xenstored returned an error; ``name`` is the name that it sent, such as ``EACCES``."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Packet(Record):
    """
    A message with the same fields as pyxs's Packet, which unlike that may carry any operation
    (XS_DIRECTORY_PART).
    """

    op: int
    rq_id: int
    tx_id: int
    size: int
    payload: bytes


def default_path() -> str:
    """
    The path that libxenstore would use: the socket, or the kernel's device if the daemon runs in another
    domain.
    """
    socket_path = os.environ.get("XENSTORED_PATH") or os.path.join(
        os.environ.get("XENSTORED_RUNDIR") or "/run/xenstored", "socket"
    )
    for path in (socket_path, "/dev/xen/xenbus", "/proc/xen/xenbus"):
        if gone.exists(path):
            return path
    raise XenStoreError(
        f"xenstored cannot be reached: there is no {socket_path} and no /dev/xen/xenbus",
        hint=_HINT,
        errno=errno.ENOENT,
    )


class Wire:
    """
    The connection, with the interface of a pyxs router: ``send(packet)`` returns an object whose ``get()``
    returns the reply.

    xenstored replies in the order of the requests, so several can be in flight. ``deadline`` applies to every
    wait after it is set.
    """

    # Requests in flight at once. Data in flight must fit into the socket buffers, or both sides could block
    # on each other.
    AT_ONCE = 32

    def __init__(self, path: str) -> None:
        self.path = path
        self.at_once = self.AT_ONCE
        self.connection = path
        self.deadline = Deadline(None)
        self.doing = "to connect"
        self.reply: Packet | None = None
        self._socket: socket.socket | None = None
        self._fd = -1
        self._received = b""

    # Called by pyxs's Client.

    @property
    def is_connected(self) -> bool:
        return self._fd >= 0

    def start(self) -> None:
        """Connect, within the deadline."""
        try:
            kind = os.stat(self.path).st_mode
            if stat.S_ISSOCK(kind):
                self._connect_socket()
            else:
                # The kernel keeps the request in one buffer, which the next write reuses
                # (drivers/xen/xenbus/xenbus_dev_frontend.c), so only one request may be in flight.
                self.at_once = 1
                self._fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            self.terminate()
            raise XenStoreError(
                f"xenstored cannot be reached: {error.strerror}",
                device=self.path,
                errno=error.errno,
                hint=_HINT,
            ) from error

    def terminate(self) -> None:
        """Close the connection. Sends nothing, so it never waits."""
        self._received = b""
        fd, self._fd = self._fd, -1
        sock, self._socket = self._socket, None
        if sock is not None:
            sock.close()
        elif fd >= 0:
            os.close(fd)

    def send(self, packet: Packet) -> _Answer:
        """Send one request. The reply is read by ``get()`` of the returned object."""
        self._check_connected()
        self._guarded(self._send_all, packet)
        return _Answer(self, packet)

    def exchange(self, packets: Sequence[Packet]) -> list[bytes | Refused]:
        """
        Send at most ``at_once`` requests and read their replies. Returns a list of payloads, with a Refused
        for each refused request.
        """
        self._check_connected()
        return self._guarded(self._exchange, packets)

    # Used by _Answer and internally.

    def receive(self, request: Packet) -> Packet:
        """
        Read the reply to ``request``. Raises Refused if it is an error, otherwise XenStoreError or
        DeadlineExceeded.
        """
        packet = self.reply = self._guarded(self._receive, request)
        if packet.op == _ERROR:
            raise _refused(packet)
        return packet

    def _exchange(self, packets: Sequence[Packet]) -> list[bytes | Refused]:
        self._send_all(*packets)
        answers = [self._receive(packet) for packet in packets]
        return [_refused(answer) if answer.op == _ERROR else answer.payload for answer in answers]

    def _receive(self, request: Packet) -> Packet:
        """Read one reply. Data of later replies received with it is kept for the next call."""
        while True:
            while len(self._received) < _HEADER.size:
                self._receive_more()
            op, rq_id, tx_id, size = _HEADER.unpack_from(self._received)
            if size > PAYLOAD_MAX:
                raise self._nonsense(f"a message of {size} bytes")
            end = _HEADER.size + size
            while len(self._received) < end:
                self._receive_more()
            payload, self._received = self._received[_HEADER.size : end], self._received[end:]
            if op == _WATCH_EVENT:
                # This client sets no watch. Ignore an event that a daemon sends anyway.
                continue
            if rq_id != request.rq_id:
                raise self._nonsense(f"an answer to request {rq_id} instead of {request.rq_id}")
            if op not in (request.op, _ERROR):
                raise self._nonsense(f"an answer of type {op} to a request of type {request.op}")
            return Packet._make((op, rq_id, tx_id, size, payload))

    def _check_connected(self) -> None:
        if not self.is_connected:
            raise XenStoreError("the connection to xenstored is closed", device=self.path)

    def _nonsense(self, what: str) -> XenStoreError:
        return XenStoreError(
            f"xenstored sent {what} when it was asked {self.doing}", device=self.path, errno=errno.EPROTO
        )

    def _guarded(self, function: Callable[[A], T], argument: A) -> T:
        try:
            return function(argument)
        except BaseException as error:
            # Part of a message may be in flight in either direction, so later replies could not be matched.
            self.terminate()
            if isinstance(error, OSError):
                raise XenStoreError(
                    f"the connection to xenstored was lost when it was asked {self.doing}; "
                    "whether the request took effect is not known",
                    device=self.path,
                    errno=error.errno,
                    hint=_HINT,
                ) from error
            raise

    def _connect_socket(self) -> None:
        pause = pauses()
        sock = self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        self._fd = sock.fileno()
        while True:
            try:
                sock.connect(self.path)
                return
            except BlockingIOError as error:
                # EAGAIN: the daemon's backlog is full (unix(7)), which poll(2) cannot wait for.
                if self.deadline.expired:
                    self.terminate()
                    raise self._late() from error
                self.deadline.sleep(next(pause))

    def _send_all(self, *packets: Any) -> None:
        view = memoryview(
            b"".join(
                [
                    part
                    for packet in packets
                    for part in (
                        _HEADER.pack(packet.op, packet.rq_id, packet.tx_id, len(packet.payload)),
                        packet.payload,
                    )
                ]
            )
        )
        while view:
            try:
                if self._socket is None:
                    sent = os.write(self._fd, view)
                else:
                    sent = self._socket.send(view, socket.MSG_NOSIGNAL)
                view = view[sent:]
            except BlockingIOError:
                self._wait(select.POLLOUT)

    def _receive_more(self) -> None:
        try:
            part = os.read(self._fd, _HEADER.size + PAYLOAD_MAX)
        except BlockingIOError:
            self._wait(select.POLLIN)
            return
        if not part:
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        self._received += part

    def _wait(self, event: int) -> None:
        poll = select.poll()
        poll.register(self._fd, event)
        left = self.deadline.left()
        if not poll.poll(None if left == float("inf") else left * 1000):
            raise self._late()

    def _late(self) -> DeadlineExceeded:
        return self.deadline.exceeded(
            f"xenstored when it was asked {self.doing}", device=self.path, hint=_HINT
        )


def _refused(packet: Packet) -> Refused:
    return Refused(packet.payload.split(b"\0")[0].decode("ascii", "backslashreplace"))


class _Answer:
    """The pending reply to one request."""

    __slots__ = ("_request", "_wire")

    def __init__(self, wire: Wire, request: Packet) -> None:
        self._wire = wire
        self._request = request

    def get(self) -> Packet:
        return self._wire.receive(self._request)
