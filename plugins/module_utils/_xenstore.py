# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
XenStore, with a deadline on every call, conflict retries and values checked before they are sent.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The protocol is pyxs's; its waiting is not (see ``_xenstore_wire``). Specification: docs/misc/xenstore.txt of Xen.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import re
import traceback

from ._deadline import Deadline, pauses
from ._errors import InvalidValue, NotSupported, XenStoreError
from ._xenstore_wire import PAYLOAD_MAX, Packet, Refused, Wire, default_path

try:
    import pyxs
    from pyxs.client import Op, next_rq_id
except ImportError:
    pyxs = None
    PYXS_IMPORT_ERROR = traceback.format_exc()
else:
    PYXS_IMPORT_ERROR = None

PATH_MAX = 3072  # XENSTORE_ABS_PATH_MAX, in bytes
_DIRECTORY_PART = 22  # XS_DIRECTORY_PART, which pyxs does not know
_PATH = re.compile(r"/(?:[A-Za-z0-9_@-]+(?:/[A-Za-z0-9_@-]+)*)?\Z")
_VALUE = re.compile(r"[ -~]*\Z")
_PERMISSION = re.compile(r"[nrwb][0-9]{1,5}\Z")

_MEANING = {
    "EACCES": "access is refused by the node's permissions",
    "EPERM": "this domain is not privileged to do that",
    "ENOENT": "there is no such node",
    "EQUOTA": "a quota of xenstored is reached",
    "ENOSPC": "a quota of xenstored is reached",
    "E2BIG": "the request or its answer is too large for xenstored",
    "EINVAL": "xenstored finds the request invalid",
    "ENOSYS": "this xenstored does not know the request",
    "EAGAIN": "others changed the same nodes meanwhile",
    "EBUSY": "xenstored is busy with the connection's other requests",
    "EROFS": "xenstored is read-only",
    "ENOMEM": "xenstored is out of memory",
}
_HINTS = {
    "EQUOTA": "Remove nodes that are not needed, or raise the quota of xenstored",
    "ENOSPC": "Remove nodes that are not needed, or raise the quota of xenstored",
    "EACCES": "Run this as root in domain 0",
}


class NodeError(XenStoreError):
    """What xenstored itself answered; its errno is about the node, that of a plain XenStoreError about the connection."""


class _Nodes:
    """The operations on nodes, the same outside and inside of a transaction. Paths are absolute, values printable ASCII."""

    def _execute(self, doing, path, op, *payload):
        raise NotImplementedError

    def _pipeline(self, requests):
        raise NotImplementedError

    def read(self, path):
        """The node's value, or None when there is no node. Bytes that are not ASCII come as ``\\xNN``; NULs are kept."""
        check_path(path)
        try:
            return _text(self._execute("to read", path, Op.READ, _nul(path)))
        except NodeError as error:
            if error.errno == errno.ENOENT:
                return None
            raise

    def read_many(self, paths):
        """A dictionary of the values of many nodes, None for those that do not exist."""
        paths = list(dict.fromkeys(paths))
        for path in paths:
            check_path(path)
        result = {}
        for path, reply in zip(paths, self._pipeline([("to read", path, Op.READ, _nul(path)) for path in paths])):
            if isinstance(reply, NodeError):
                if reply.errno != errno.ENOENT:
                    raise reply
                result[path] = None
            else:
                result[path] = _text(reply)
        return result

    def write(self, path, value):
        """Set the node's value, making it and its parents if need be. InvalidValue before anything is sent."""
        self._execute("to write", path, Op.WRITE, _write_payload(path, value))

    def write_many(self, values):
        """Set many nodes, ``{path: value}``, in order."""
        self._all([("to write", path, Op.WRITE, _write_payload(path, value)) for path, value in dict(values).items()])

    def mkdir(self, path):
        """Make the node with an empty value unless it is there."""
        self._execute("to make", check_path(path), Op.MKDIR, _nul(path))

    def remove(self, path):
        """Remove the node and all below it; False when it, or its parent, was not there."""
        check_path(path)
        if path == "/":
            raise InvalidValue("path", path, "the root of XenStore cannot be removed")
        try:
            # XS_RM is content with a node that is not there, as long as the parent is.
            existed = self.exists(path)
            self._execute("to remove", path, Op.RM, _nul(path))
        except NodeError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return existed

    def exists(self, path):
        return self.read(path) is not None

    def list(self, path):
        """The names of the node's children, or None when there is no node."""
        check_path(path)
        try:
            names = self._execute("to list", path, Op.DIRECTORY, _nul(path))
        except NodeError as error:
            if error.errno == errno.ENOENT:
                return None
            if error.errno != errno.E2BIG:
                raise
            return self._list_parts(path)
        return [_text(name) for name in names.split(b"\0") if name]

    def list_many(self, paths):
        """A dictionary of the children of many nodes, None for those that do not exist."""
        paths = list(dict.fromkeys(paths))
        for path in paths:
            check_path(path)
        result = {}
        for path, reply in zip(paths, self._pipeline([("to list", path, Op.DIRECTORY, _nul(path)) for path in paths])):
            if not isinstance(reply, NodeError):
                result[path] = [_text(name) for name in reply.split(b"\0") if name]
            elif reply.errno == errno.ENOENT:
                result[path] = None
            elif reply.errno == errno.E2BIG:
                result[path] = self._list_parts(path)
            else:
                raise reply
        return result

    def _list_parts(self, path):
        """
        The children in several answers (XS_DIRECTORY_PART): a generation, names, and an empty name at the end.

        When the generation changes the node was changed meanwhile, and it begins anew.
        """
        generation, names = None, b""
        while True:
            try:
                reply = self._execute("to list", path, _DIRECTORY_PART, _nul(path) + _nul(str(len(names))))
            except NodeError as error:
                if error.errno not in (errno.ENOSYS, errno.EINVAL):
                    raise
                raise NotSupported(
                    "the node has more children than this xenstored can list", device=path, errno=errno.E2BIG,
                    hint="A xenstored with XS_DIRECTORY_PART lists them: the C xenstored of Xen 4.9 or newer",
                )
            now, separator, part = reply.partition(b"\0")
            if not separator:
                raise XenStoreError("xenstored gave a list without its end", device=path, errno=errno.EPROTO)
            if names and now != generation:
                generation, names = None, b""
                continue
            generation, names = now, names + part
            if not part or names.endswith(b"\0\0") or names == b"\0":
                return [_text(name) for name in names.split(b"\0") if name]

    def get_perms(self, path):
        """The permissions as a list of strings like ``n0`` (owner first) or ``r5``; None when there is no node."""
        check_path(path)
        try:
            reply = self._execute("for the permissions of", path, Op.GET_PERMS, _nul(path))
        except NodeError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return [_text(entry) for entry in reply.split(b"\0") if entry]

    def set_perms(self, path, permissions):
        """Set the permissions; the first one names the owner and what everybody else may do."""
        self._execute("to set the permissions of", path, Op.SET_PERMS, _perms_payload(path, permissions))

    def lay(self, nodes):
        """Write many nodes in order, each ``(path, value or None for a directory, permissions or None for its parent's)``."""
        requests = []
        for path, value, permissions in nodes:
            if value is None:
                requests.append(("to make", check_path(path), Op.MKDIR, _nul(path)))
            else:
                requests.append(("to write", path, Op.WRITE, _write_payload(path, value)))
            if permissions is not None:
                requests.append(("to set the permissions of", path, Op.SET_PERMS, _perms_payload(path, permissions)))
        self._all(requests)

    def remove_empty_parents(self, path):
        """Remove the parents of ``path`` that are left without value and children, upwards (libxl__xs_path_cleanup)."""
        parent = path.rpartition("/")[0]
        while parent and self.read(parent) == "" and self.list(parent) == []:
            self.remove(parent)
            parent = parent.rpartition("/")[0]

    def _all(self, requests):
        for reply in self._pipeline(requests):
            if isinstance(reply, NodeError):
                raise reply


class Store(_Nodes):
    """
    A connection to xenstored, made at the first call; a context manager. For one thread.

    ``timeout`` limits every single call, in seconds; :meth:`within` and :meth:`transaction` limit several together.
    ``socket_path`` is the daemon's socket or the kernel's xenbus device; by default the usual places are tried.
    Raises NotSupported without pyxs; DeadlineExceeded when the daemon does not answer; XenStoreError for what it answers and
    when it cannot be reached. After a lost connection the next call outside of a transaction makes a new one.
    """

    def __init__(self, timeout=10.0, socket_path=None):
        if pyxs is None:
            raise NotSupported(
                "the Python library pyxs is missing on this host",
                hint="Install python3-pyxs (Debian) or pyxs from PyPI for the Python that Ansible uses there",
            )
        self.timeout = timeout
        self._path = socket_path
        self._deadline = Deadline(None)
        self._client = None

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        """Close the connection; never waits. A transaction under way is dropped by xenstored."""
        client, self._client = self._client, None
        if client is not None:
            client.router.terminate()

    @property
    def limit(self):
        """The Deadline that holds for all calls together now."""
        return self._deadline

    @contextlib.contextmanager
    def within(self, deadline):
        """All calls in this context together end by ``deadline`` (a Deadline, or seconds), whatever held before."""
        before, self._deadline = self._deadline, Deadline.of(deadline)
        try:
            yield self._deadline
        finally:
            self._deadline = before

    def transaction(self, function, deadline=None):
        """
        Run ``function(transaction)`` and commit; its result is returned.

        When others changed the same nodes meanwhile it is run again, after a pause of random length, until ``deadline`` (a
        Deadline, or seconds; by default the connection's timeout): so it must have no other effects. Whatever it raises ends
        the transaction without any change.
        """
        with self.within(self._deadline.sooner(self.timeout) if deadline is None else deadline) as limit:
            tries = 0
            for pause in pauses(0.002, 0.1, jitter=0.9):
                tries += 1
                try:
                    return self._try_transaction(function)
                except NodeError as error:
                    if error.errno != errno.EAGAIN:
                        raise
                    if limit.left() <= pause:
                        raise XenStoreError(
                            f"the transaction met changes by others {tries} times within {limit.seconds or 0:g} s and was given up; "
                            "nothing was written", errno=errno.EAGAIN, hint="Something writes the same nodes all the time",
                        )
                limit.sleep(pause)
        raise AssertionError

    def _try_transaction(self, function):
        transaction = Transaction(self)
        try:
            result = function(transaction)
        except BaseException:
            transaction.abandon()
            raise
        transaction.commit()
        return result

    def connect(self):
        """Connect now rather than at the first call, to fail early."""
        self._connected("to connect")

    def _connected(self, doing):
        limit = self._deadline.sooner(self.timeout)
        client = self._client
        if client is None or not client.router.is_connected:
            wire = Wire(self._path or default_path())
            wire.deadline = limit
            client = pyxs.Client(router=wire)
            client.connect()
            self._client = client
        self.arm(doing, limit)
        return client

    def arm(self, doing, limit=None):
        """Set what the next request is about and by when it must be answered."""
        limit = limit or self._deadline.sooner(self.timeout)
        if limit.expired:
            raise limit.exceeded(f"the XenStore, before it was asked {doing}")
        wire = self._client.router
        wire.doing, wire.deadline = doing, limit

    def _execute(self, doing, path, op, *payload):
        return execute(self._connected(f"{doing} {path}"), doing, path, op, *payload)

    def _pipeline(self, requests):
        return pipeline(self, self._connected("to serve several requests"), requests)


class Transaction(_Nodes):
    """What :meth:`Store.transaction` hands to its function; the same methods as the Store's."""

    def __init__(self, store):
        self._store = store
        # A pyxs client has one transaction; its copy shares the connection.
        self._client = copy.copy(store._connected("to start a transaction"))  # pylint: disable=protected-access
        try:
            self._client.transaction()
        except Refused as refusal:
            raise _error("to start a transaction", None, refusal.name) from refusal

    def commit(self):
        """Make the changes; XenStoreError with EAGAIN when others changed the same nodes meanwhile."""
        self._store.arm("to commit a transaction")
        self._end(b"T")

    def abandon(self):
        """Drop the changes; an error of this is of no interest, as the daemon drops them with the connection too."""
        if not self._client.router.is_connected:
            return
        try:
            self._store.arm("to drop a transaction")
            self._end(b"F")
        except Exception:  # pylint: disable=broad-exception-caught
            self._client.router.terminate()

    def _end(self, how):
        try:
            self._client.ack(Op.TRANSACTION_END, how + b"\0")
        except Refused as refusal:
            raise _error("to commit a transaction", None, refusal.name) from refusal
        finally:
            self._client.tx_id = 0

    def _execute(self, doing, path, op, *payload):
        self._store.arm(f"{doing} {path}")
        return execute(self._client, doing, path, op, *payload)

    def _pipeline(self, requests):
        return pipeline(self._store, self._client, requests)


def execute(client, doing, path, op, *payload):
    """One request through the pyxs client; the answer's payload with its NULs, which pyxs would strip."""
    try:
        if op in Op:
            client.execute_command(op, *payload)
        else:
            data = b"".join(payload)
            client.router.send(Packet(op, next_rq_id(), client.tx_id, len(data), data)).get()
    except Refused as refusal:
        raise _error(doing, path, refusal.name) from refusal
    return client.router.reply.payload


def pipeline(store, client, requests):
    """Many requests without waiting for each answer: a list of payloads, and of NodeErrors where one was refused."""
    replies, step = [], client.router.at_once
    for start in range(0, len(requests), step):
        some = requests[start:start + step]
        store.arm(f"{some[0][0]} {some[0][1]} and {len(some) - 1} more" if len(some) > 1 else f"{some[0][0]} {some[0][1]}")
        pending = [
            client.router.send(Packet(op, next_rq_id(), client.tx_id, len(payload), payload)) for doing, path, op, payload in some
        ]
        for (doing, path, op, payload), answer in zip(some, pending):
            try:
                replies.append(answer.get().payload)
            except Refused as refusal:
                replies.append(_error(doing, path, refusal.name))
    return replies


def check_path(path, option="path"):
    """An absolute XenStore path as it is, or InvalidValue."""
    if not isinstance(path, str) or len(path) > PATH_MAX or not _PATH.match(path):
        raise InvalidValue(
            option, path if len(str(path)) < 200 else str(path)[:200] + "...",
            f"an absolute XenStore path of at most {PATH_MAX} letters, digits and -_@/, with no empty part",
        )
    return path


def check_value(value, option="value"):
    """A value that XenStore's users can all read, as it is: printable ASCII; InvalidValue otherwise."""
    if not isinstance(value, str) or not _VALUE.match(value):
        raise InvalidValue(option, value, "XenStore values are printable ASCII text here")
    return value


def _write_payload(path, value):
    data = _nul(check_path(path)) + check_value(value, option=path).encode("ascii")
    if len(data) > PAYLOAD_MAX:
        raise InvalidValue(path, value[:60] + "...", f"path and value together take at most {PAYLOAD_MAX - 1} bytes")
    # Path and value in one argument: pyxs 0.4.1 refuses an empty argument.
    return data


def _perms_payload(path, permissions):
    check_path(path)
    if not permissions:
        raise InvalidValue("permissions", permissions, "at least the owner's entry")
    for entry in permissions:
        if not isinstance(entry, str) or not _PERMISSION.match(entry):
            raise InvalidValue("permissions", entry, "n, r, w or b and a domain id, such as n0 or r5")
    data = _nul(path) + b"".join(_nul(entry) for entry in permissions)
    if len(data) > PAYLOAD_MAX:
        raise InvalidValue("permissions", f"{len(permissions)} entries", f"they take at most {PAYLOAD_MAX} bytes with the path")
    return data


def _nul(text):
    return text.encode("ascii") + b"\0"


def _text(data):
    return data.decode("ascii", "backslashreplace")


def _error(doing, path, name):
    number = getattr(errno, name, None)
    meaning = _MEANING.get(name, "xenstored refused it")
    if number is None:
        meaning += f" ({name})"
    tried = f"{doing} {path or ''}".rstrip()
    return NodeError(f"XenStore was asked {tried}: {meaning}", device=path, errno=number, hint=_HINTS.get(name))
