# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
A connection to xenstored, with deadlines for calls and with transactions that are retried.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import errno
import time

from .._base.deadline import Deadline, pauses, random
from .._base.errors import XenStoreError
from .nodes import TRANSACTION_END, TRANSACTION_START, NodeError, Nodes, pipeline, refused
from .wire import Packet, Refused, Wire, default_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, TypeVar

    from .nodes import Reply, Request

    T = TypeVar("T")
    Self = TypeVar("Self", bound="Session")


class Session(Nodes):
    """
    A connection to xenstored, opened by the first call; a context manager. Not thread-safe.

    ``timeout`` limits each call, in seconds; :meth:`within` and :meth:`transaction` limit several calls
    together. ``socket_path`` is the daemon's socket or the kernel's xenbus device; by default the usual paths
    are tried. Raises DeadlineExceeded if the daemon does not answer, and XenStoreError if it returns an error
    or cannot be reached. After a lost connection, the next call outside a transaction reconnects.
    """

    def __init__(self, timeout: float = 10.0, socket_path: str | None = None) -> None:
        self.timeout = timeout
        self._path = socket_path
        self._deadline = Deadline(None)
        self._wire: Wire | None = None
        self._requests = 0

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; never waits. xenstored aborts an open transaction."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.terminate()

    @property
    def limit(self) -> Deadline:
        """The Deadline that currently applies to all calls together."""
        return self._deadline

    def within(self, deadline: Deadline | float | None) -> _Within:
        """
        A context manager: all calls inside must end by ``deadline`` (a Deadline, or seconds from now),
        whatever limit applied before.
        """
        return _Within(self, Deadline.of(deadline))

    def swap_limit(self, deadline: Deadline) -> Deadline:
        """Set the Deadline that applies to all calls together, and return the previous one."""
        before, self._deadline = self._deadline, deadline
        return before

    def transaction(
        self, function: Callable[[Transaction], T], deadline: Deadline | float | None = None
    ) -> T:
        """
        Run ``function(transaction)``, commit, and return the function's result.

        If the commit conflicts with another writer, the function is run again after a random pause, until
        ``deadline`` (a Deadline, or seconds from now; by default the session's timeout). It must therefore
        have no other side effects. An exception aborts the transaction. The pause grows with the duration of
        a try: of concurrent transactions only the first to commit succeeds, and long ones that are retried at
        once would keep conflicting.
        """
        with self.within(self._deadline.sooner(self.timeout) if deadline is None else deadline) as limit:
            tries = 0
            for pause in pauses(0.002, 0.1, jitter=0.9):
                tries += 1
                began = time.monotonic()
                try:
                    return self._try_transaction(function)
                except NodeError as error:
                    if error.errno != errno.EAGAIN:
                        raise
                    pause = max(pause, random() * (time.monotonic() - began))
                    if limit.left() <= pause:
                        raise XenStoreError(
                            f"the transaction conflicted with other writers {tries} times "
                            f"within {limit.seconds or 0:g} s and was abandoned; nothing was written",
                            errno=errno.EAGAIN,
                            hint="Find out what keeps writing the same nodes",
                        ) from None
                limit.sleep(pause)
        raise AssertionError

    def _try_transaction(self, function: Callable[[Transaction], T]) -> T:
        transaction = Transaction(self)
        try:
            result = function(transaction)
        except BaseException:
            transaction.abandon()
            raise
        transaction.commit()
        return result

    def connect(self) -> None:
        """Connect now rather than at the first call, to fail early."""
        self.connected("to connect")

    def connected(self, doing: str) -> Wire:
        """Connect if necessary, and return the Wire, armed for the next request."""
        limit = self._deadline.sooner(self.timeout)
        if not self.is_connected:
            wire = Wire(self._path or default_path())
            wire.deadline = limit
            self._start(wire)
            self._wire = wire
        return self.arm(doing, limit)

    @property
    def is_connected(self) -> bool:
        return self._wire is not None and self._wire.is_connected

    def arm(self, doing: str, limit: Deadline | None = None) -> Wire:
        """Set the description and deadline of the next request. Returns the Wire, which must be connected."""
        limit = limit or self._deadline.sooner(self.timeout)
        if limit.expired:
            raise limit.exceeded(f"XenStore, which was not yet asked {doing}")
        if self._wire is None:
            raise AssertionError
        self._wire.doing, self._wire.deadline = doing, limit
        return self._wire

    def ask(self, tx_id: int, doing: str, path: str | None, op: int, payload: bytes) -> bytes:
        """
        Send one request on the existing connection. Returns the reply's payload with its NULs. Raises
        NodeError if it is refused.
        """
        if self._wire is None:
            raise AssertionError
        try:
            return self._wire.send(Packet(op, self.next_id(), tx_id, len(payload), payload)).get().payload
        except Refused as refusal:
            raise refused(doing, path, refusal.name) from refusal

    def ask_all(self, tx_id: int, requests: list[Request]) -> list[Reply]:
        """Send many requests on the existing connection. Returns a list of payloads and NodeErrors."""
        if self._wire is None:
            raise AssertionError
        return pipeline(self._wire, self.arm, tx_id, self.next_id, requests)

    def next_id(self) -> int:
        """The id of the next request."""
        self._requests = self._requests + 1 & 0xFFFFFFFF
        return self._requests

    def _start(self, wire: Wire) -> None:
        wire.start()

    def _execute(self, doing: str, path: str, op: int, *payload: bytes) -> bytes:
        self.connected(f"{doing} {path}")
        return self.ask(0, doing, path, op, b"".join(payload))

    def _pipeline(self, requests: list[Request]) -> list[Reply]:
        self.connected("to serve several requests")
        return self.ask_all(0, requests)


class _Within:
    """The context manager returned by :meth:`Session.within`."""

    def __init__(self, session: Session, deadline: Deadline) -> None:
        self._session = session
        self._deadline = deadline

    def __enter__(self) -> Deadline:
        deadline, self._deadline = self._deadline, self._session.swap_limit(self._deadline)
        return deadline

    def __exit__(self, *exc: object) -> None:
        self._session.swap_limit(self._deadline)


class Transaction(Nodes):
    """Passed to the function of :meth:`Session.transaction`; has the same node operations as the Session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        session.connected("to start a transaction")
        answer = session.ask(0, "to start a transaction", None, TRANSACTION_START, b"\0")
        self._id = int(answer.rstrip(b"\0"))

    def commit(self) -> None:
        """Commit. Raises NodeError with EAGAIN if another writer changed the same nodes meanwhile."""
        self._session.arm("to commit a transaction")
        self._end(b"T")

    def abandon(self) -> None:
        """Abort the transaction. An error only closes the connection, which makes the daemon abort it too."""
        if not self._session.is_connected:
            return
        try:
            self._session.arm("to drop a transaction")
            self._end(b"F")
        except Exception:  # pylint: disable=broad-exception-caught
            self._session.close()

    def _end(self, how: bytes) -> None:
        self._session.ask(self._id, "to commit a transaction", None, TRANSACTION_END, how + b"\0")

    def _execute(self, doing: str, path: str, op: int, *payload: bytes) -> bytes:
        self._session.arm(f"{doing} {path}")
        return self._session.ask(self._id, doing, path, op, b"".join(payload))

    def _pipeline(self, requests: list[Request]) -> list[Reply]:
        return self._session.ask_all(self._id, requests)
