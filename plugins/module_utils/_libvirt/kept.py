# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Connections to libvirt that stay open between calls, for runs that work with many domains: to open one takes
half as long as to read a domain's definition.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import os
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .handles import Connection

_CLOSING_SECONDS = 5


class KeptConnections:
    """
    A context. Until it is left, connections are kept in this process; a forked child opens its own, because
    they cannot share one.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._free: dict[str, Connection] = {}
        self._before: KeptConnections | None = None

    def __enter__(self) -> KeptConnections:
        self._before = _innermost[0]
        _innermost[0] = self
        return self

    def __exit__(self, *exc: object) -> None:
        _innermost[0] = self._before
        if self.is_mine and self._free:
            # libvirt waits for the daemon without a limit. A thread that is given up ends with the process.
            thread = threading.Thread(target=self._close, daemon=True, name="libvirt")
            thread.start()
            thread.join(_CLOSING_SECONDS)

    @property
    def is_mine(self) -> bool:
        """Whether this process made it, and not the one that it was forked from."""
        return self._pid == os.getpid()

    def take(self, uri: str) -> Connection | None:
        """A connection that nobody uses, or None. It may have been closed by the daemon."""
        return self._free.pop(uri, None)

    def put(self, uri: str, connection: Connection) -> bool:
        """Keep the connection, if there is none yet; whether it is kept."""
        return self._free.setdefault(uri, connection) is connection

    def _close(self) -> None:
        while self._free:
            self._free.popitem()[1].close()


_innermost: list[KeptConnections | None] = [None]


def current() -> KeptConnections | None:
    """The innermost context of this process, or None."""
    found = _innermost[0]
    return found if found is not None and found.is_mine else None
