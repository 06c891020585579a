# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Operations on XenStore nodes, independent of the connection: checks, payloads, replies and errors.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Specification: docs/misc/xenstore.txt of Xen. The operation numbers are those of
xen/include/public/io/xs_wire.h.
"""

from __future__ import annotations

import errno

from .._base import digits, gone
from .._base.errors import InvalidValue, NotSupported, XenStoreError
from .wire import PAYLOAD_MAX, Packet, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, Callable, Union

    from .wire import Wire

    # (description of the request for messages, path, operation, payload)
    Request = tuple[str, str, int, bytes]
    Reply = Union[bytes, "NodeError"]
    # Aliases, since Nodes has a method named list.
    Names = list[str]
    Requests = list[Request]
    Replies = list[Reply]

PATH_MAX = 3072  # XENSTORE_ABS_PATH_MAX, in bytes
(
    DIRECTORY,
    READ,
    GET_PERMS,
    TRANSACTION_START,
    TRANSACTION_END,
    WRITE,
    MKDIR,
    RM,
    SET_PERMS,
    DIRECTORY_PART,
) = 1, 2, 3, 6, 7, 11, 12, 13, 14, 22
_PATH_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_@/")

_MEANING = {
    "EACCES": "access is refused by the node's permissions",
    "EPERM": "this domain is not privileged to do that",
    "ENOENT": "there is no such node",
    "EQUOTA": "a quota of xenstored is reached",
    "ENOSPC": "a quota of xenstored is reached",
    "E2BIG": "the request or its answer is too large for xenstored",
    "EINVAL": "xenstored finds the request invalid",
    "ENOSYS": "this xenstored does not know the request",
    "EAGAIN": "other writers changed the same nodes in the meantime",
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
    """
    An error that xenstored returned. Its errno is about the node, whereas that of a plain XenStoreError is
    about the connection.
    """


class Nodes:
    """
    The operations on nodes, the same inside and outside a transaction. Paths are absolute; values that are
    written must be printable ASCII.
    """

    def _execute(self, doing: str, path: str, op: int, *payload: bytes) -> bytes:
        raise NotImplementedError

    def _pipeline(self, requests: Requests) -> Replies:
        raise NotImplementedError

    def read(self, path: str) -> str | None:
        """
        The node's value, or None if the node does not exist. Non-ASCII bytes are returned as ``\\xNN``; NULs
        are kept.
        """
        check_path(path)
        try:
            return decode(self._execute("to read", path, READ, _nul(path)))
        except NodeError as error:
            if error.errno in gone.XENSTORE:
                return None
            raise

    def read_many(self, paths: Iterable[str]) -> dict[str, str | None]:
        """Read many nodes: a dictionary of their values, None for nodes that do not exist."""
        return self.list_and_read((), paths)[1]

    def write(self, path: str, value: str) -> None:
        """
        Set the node's value; the node and its parents are created if needed. Raises InvalidValue before
        anything is sent.
        """
        self._execute("to write", path, WRITE, _write_payload(path, value))

    def write_many(self, values: Mapping[str, str]) -> None:
        """Set the values of many nodes, ``{path: value}``, in order."""
        self._all(
            [("to write", path, WRITE, _write_payload(path, value)) for path, value in dict(values).items()]
        )

    def mkdir(self, path: str) -> None:
        """Create the node with an empty value unless it exists."""
        self._execute("to make", check_path(path), MKDIR, _nul(path))

    def remove(self, path: str) -> bool:
        """Remove the node and everything below it. Returns False if it, or its parent, did not exist."""
        check_path(path)
        if path == "/":
            raise InvalidValue("path", path, "is the root of XenStore, which cannot be removed")
        try:
            # XS_RM succeeds for a missing node if its parent exists, so check first.
            existed = self.exists(path)
            self._execute("to remove", path, RM, _nul(path))
        except NodeError as error:
            if error.errno in gone.XENSTORE:
                return False
            raise
        return existed

    def exists(self, path: str) -> bool:
        return self.read(path) is not None

    def list(self, path: str) -> Names | None:
        """The names of the node's children, or None if the node does not exist."""
        check_path(path)
        try:
            names = self._execute("to list", path, DIRECTORY, _nul(path))
        except NodeError as error:
            if error.errno in gone.XENSTORE:
                return None
            if error.errno != errno.E2BIG:
                raise
            return self._list_parts(path)
        return [decode(name) for name in names.split(b"\0") if name]

    def list_many(self, paths: Iterable[str]) -> dict[str, Names | None]:
        """List many nodes: a dictionary of their children's names, None for nodes that do not exist."""
        return self.list_and_read(paths, ())[0]

    def list_and_read(
        self, directories: Iterable[str], paths: Iterable[str]
    ) -> tuple[dict[str, Names | None], dict[str, str | None]]:
        """``(list_many(directories), read_many(paths))`` in one pipelined batch."""
        requests = [
            ("to list", check_path(path), DIRECTORY, _nul(path)) for path in dict.fromkeys(directories)
        ]
        listed = len(requests)
        requests += [("to read", check_path(path), READ, _nul(path)) for path in dict.fromkeys(paths)]
        children: dict[str, Names | None] = {}
        values: dict[str, str | None] = {}
        for index, (request, reply) in enumerate(zip(requests, self._pipeline(requests))):
            path, is_list = request[1], index < listed
            if not isinstance(reply, NodeError):
                if is_list:
                    children[path] = [decode(name) for name in reply.split(b"\0") if name]
                else:
                    values[path] = decode(reply)
            elif is_list and reply.errno == errno.E2BIG:
                children[path] = self._list_parts(path)
            elif reply.errno not in gone.XENSTORE:
                raise reply
            elif is_list:
                children[path] = None
            else:
                values[path] = None
        return children, values

    def _list_parts(self, path: str) -> Names:
        """
        List the children in several parts (XS_DIRECTORY_PART). Each reply holds a generation count and names;
        an empty name marks the end.

        If the generation changes, the node was changed meanwhile, and the listing starts again.
        """
        generation, names = None, b""
        while True:
            try:
                reply = self._execute("to list", path, DIRECTORY_PART, _nul(path) + _nul(str(len(names))))
            except NodeError as error:
                if error.errno not in (errno.ENOSYS, errno.EINVAL):
                    raise
                raise NotSupported(
                    "the node has more children than this xenstored can list",
                    device=path,
                    errno=errno.E2BIG,
                    hint="A xenstored with XS_DIRECTORY_PART lists them: the C xenstored of Xen 4.9 or newer",
                ) from None
            now, separator, part = reply.partition(b"\0")
            if not separator:
                raise XenStoreError("xenstored sent an unterminated list", device=path, errno=errno.EPROTO)
            if names and now != generation:
                generation, names = None, b""
                continue
            generation, names = now, names + part
            if not part or names.endswith(b"\0\0") or names == b"\0":
                return [decode(name) for name in names.split(b"\0") if name]

    def get_perms(self, path: str) -> Names | None:
        """
        The permissions as a list of strings such as ``n0`` (owner first) or ``r5``; None if the node does not
        exist.
        """
        check_path(path)
        try:
            reply = self._execute("for the permissions of", path, GET_PERMS, _nul(path))
        except NodeError as error:
            if error.errno in gone.XENSTORE:
                return None
            raise
        return [decode(entry) for entry in reply.split(b"\0") if entry]

    def set_perms(self, path: str, permissions: Sequence[str]) -> None:
        """Set the permissions. The first entry names the owner and the access of all domains not listed."""
        self._execute("to set the permissions of", path, SET_PERMS, _perms_payload(path, permissions))

    def lay(self, nodes: Iterable[tuple[str, str | None, Sequence[str] | None]]) -> None:
        """
        Write many nodes in order, each ``(path, value or None for a directory, permissions or None to inherit
        the parent's)``.
        """
        requests = []
        for path, value, permissions in nodes:
            if value is None:
                requests.append(("to make", check_path(path), MKDIR, _nul(path)))
            else:
                requests.append(("to write", path, WRITE, _write_payload(path, value)))
            if permissions is not None:
                requests.append(
                    ("to set the permissions of", path, SET_PERMS, _perms_payload(path, permissions))
                )
        self._all(requests)

    def remove_empty_parents(self, path: str) -> None:
        """
        Remove ``path``'s parents, upwards, as long as they have neither value nor children
        (libxl__xs_path_cleanup).
        """
        parent = path.rpartition("/")[0]
        while parent and self.read(parent) == "" and self.list(parent) == []:
            self.remove(parent)
            parent = parent.rpartition("/")[0]

    def _all(self, requests: Requests) -> None:
        for reply in self._pipeline(requests):
            if isinstance(reply, NodeError):
                raise reply


def pipeline(
    wire: Wire, arm: Callable[[str], object], tx_id: int, next_id: Callable[[], int], requests: list[Request]
) -> list[Reply]:
    """
    Send many requests without waiting for each reply. Returns a list of payloads, with a NodeError for each
    refused request.

    ``arm(doing)`` is called before each batch; ``next_id()`` returns the next request's id.
    """
    replies, step = [], wire.at_once
    for start in range(0, len(requests), step):
        some = requests[start : start + step]
        arm(
            f"{some[0][0]} {some[0][1]} and {len(some) - 1} more"
            if len(some) > 1
            else f"{some[0][0]} {some[0][1]}"
        )
        answers = wire.exchange(
            [Packet._make((op, next_id(), tx_id, len(payload), payload)) for doing, path, op, payload in some]
        )
        replies += [
            refused(doing, path, answer.name) if isinstance(answer, Refused) else answer
            for (doing, path, op, payload), answer in zip(some, answers)
        ]
    return replies


def check_path(path: Any, option: str = "path") -> str:
    """Return an absolute XenStore path unchanged. Raises InvalidValue."""
    if not isinstance(path, str) or len(path) > PATH_MAX or not _is_path(path):
        raise InvalidValue(
            option,
            path if len(str(path)) < 200 else str(path)[:200] + "...",
            f"must be an absolute XenStore path of at most {PATH_MAX} letters, digits and -_@/, "
            "with no empty part",
        )
    return path


def _is_path(path: str) -> bool:
    return path == "/" or (
        path[:1] == "/" and path[-1] != "/" and "//" not in path and _PATH_CHARACTERS.issuperset(path)
    )


def check_value(value: Any, option: str = "value") -> str:
    """
    Return a value unchanged if it is printable ASCII, which every XenStore client can read. Raises
    InvalidValue.
    """
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        raise InvalidValue(option, value, "must be printable ASCII text")
    return value


def _write_payload(path: str, value: str) -> bytes:
    data = _nul(check_path(path)) + check_value(value, option=path).encode("ascii")
    if len(data) > PAYLOAD_MAX:
        raise InvalidValue(
            path,
            value[:60] + "...",
            f"is too long: path and value together take at most {PAYLOAD_MAX - 1} bytes",
        )
    # Path and value in one argument, as pyxs 0.4.1 rejects an empty argument.
    return data


def _perms_payload(path: str, permissions: Sequence[str]) -> bytes:
    check_path(path)
    if not permissions:
        raise InvalidValue("permissions", permissions, "must be at least the owner's entry")
    for entry in permissions:
        if (
            not isinstance(entry, str)
            or entry[:1] not in ("n", "r", "w", "b")
            or not digits.is_decimal(entry[1:], 5)
        ):
            raise InvalidValue("permissions", entry, "must be n, r, w or b and a domain id, such as n0 or r5")
    data = _nul(path) + b"".join(_nul(entry) for entry in permissions)
    if len(data) > PAYLOAD_MAX:
        raise InvalidValue(
            "permissions",
            f"{len(permissions)} entries",
            f"are too many: they take at most {PAYLOAD_MAX} bytes with the path",
        )
    return data


def _nul(text: str) -> bytes:
    return text.encode("ascii") + b"\0"


def decode(data: bytes) -> str:
    return data.decode("ascii", "backslashreplace")


def refused(doing: str, path: str | None, name: str) -> NodeError:
    number = getattr(errno, name, None)
    meaning = _MEANING.get(name, "xenstored refused it")
    if number is None:
        meaning += f" ({name})"
    tried = f"{doing} {path or ''}".rstrip()
    return NodeError(
        f"XenStore was asked {tried}: {meaning}", device=path, errno=number, hint=_HINTS.get(name)
    )
