# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
XenStore through pyxs, with a deadline for every call, retried transactions, and values checked before they
are sent.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

pyxs implements the protocol, but ``_xenstore.wire`` does the waiting. Specification: docs/misc/xenstore.txt
of Xen.
"""

from __future__ import annotations

import copy
import traceback
from typing import Any

from .._base.errors import NotSupported
from .nodes import refused
from .session import Session
from .wire import Packet, Refused, Wire

try:
    import pyxs
    from pyxs.client import Op, next_rq_id
except ImportError:
    pyxs = None
    PYXS_IMPORT_ERROR: str | None = traceback.format_exc()
else:
    PYXS_IMPORT_ERROR = None


class Store(Session):
    """
    A Session whose requests are built by pyxs.

    Raises NotSupported if pyxs is missing.
    """

    def __init__(self, timeout: float = 10.0, socket_path: str | None = None) -> None:
        if pyxs is None:
            raise NotSupported(
                "the Python library pyxs is missing on this host",
                hint="Install python3-pyxs (Debian) or pyxs from PyPI for the Python that Ansible uses there",
            )
        super().__init__(timeout, socket_path)
        self._client: Any = None

    def _start(self, wire: Wire) -> None:
        self._client = pyxs.Client(router=wire)
        self._client.connect()

    def next_id(self) -> int:
        return int(next_rq_id())

    def ask(self, tx_id: int, doing: str, path: str | None, op: int, payload: bytes) -> bytes:
        client = copy.copy(self._client)
        client.tx_id = tx_id
        return execute(client, doing, path, op, payload)


def execute(client: Any, doing: str, path: str | None, op: int, *payload: bytes) -> bytes:
    """
    Execute one request through the pyxs client. Returns the reply's payload with its NULs, which pyxs would
    strip.
    """
    try:
        if op in Op:
            client.execute_command(op, *payload)
        else:
            data = b"".join(payload)
            client.router.send(Packet(op, next_rq_id(), client.tx_id, len(data), data)).get()
    except Refused as refusal:
        raise refused(doing, path, refusal.name) from refusal
    answer: bytes = client.router.reply.payload
    return answer
