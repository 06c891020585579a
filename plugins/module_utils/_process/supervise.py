# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Run a function in a child process, with a time limit that also holds if the function hangs in the kernel.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A system call that never returns cannot be interrupted from inside the process, and programs that read this
process's output wait until every process that has it open has ended. So a child without that output does the
work, and is abandoned at the time limit. It is killed when this process ends, so that it does not work in
parallel with the next caller.
"""

from __future__ import annotations

import json
import os
import select
import signal

from .._base.deadline import Deadline
from .._base.errors import BlockError
from .._kernel import uapi

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn


# This byte never occurs in JSON.
_TOLD = b"\0"


def supervised(
    function: Callable[..., Any], seconds: float, what: str, on_told: Callable[[], object] | None = None
) -> Any:
    """
    Return the result of ``function()`` (plain data), or raise BlockError with the error that it raised.
    Raises DeadlineExceeded after ``seconds``; ``what`` completes its message "timed out after 5 s waiting for
    ...".

    The child is then killed; if it does not exit, it is not waited for. With ``on_told``, ``function`` is
    called with a callback: when the child calls it, ``on_told()`` is called in this process. For example,
    this releases a lock that an abandoned child must not keep.
    """
    limit = Deadline(seconds)
    reader, writer = os.pipe()
    parent, child = os.getpid(), os.fork()
    if not child:
        _run(
            function if on_told is None else lambda: function(lambda: os.write(writer, _TOLD)), writer, parent
        )
    os.close(writer)
    try:
        answer = _read_all(reader, limit, on_told)
    finally:
        os.close(reader)
    if answer is None:
        os.kill(child, signal.SIGKILL)
        _reap(child, Deadline(1))
        raise limit.exceeded(what)
    if not answer:
        status = os.waitpid(child, 0)[1]
        raise BlockError(
            "the worker process exited without reporting a result "
            f"(status {os.waitstatus_to_exitcode(status)})"
        )
    # The child may hang while it closes its files.
    _reap(child, Deadline(1))
    result = json.loads(answer)
    if "error" in result:
        raise BlockError(result["error"])
    return result["value"]


def _run(function: Callable[..., Any], writer: int, parent: int) -> NoReturn:
    """Runs in the child; never returns."""
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        try:
            _die_with(parent)
            result = {"value": function()}
        except BlockError as error:
            result = {"error": str(error)}
        except Exception as error:  # pylint: disable=broad-exception-caught
            result = {"error": f"unexpected {type(error).__name__}: {error}"}
        data = json.dumps(result).encode()
        while data:
            data = data[os.write(writer, data) :]
    finally:
        os._exit(0)


def _die_with(parent: int) -> None:
    uapi.require()
    uapi.lib.prctl(uapi.lib.PR_SET_PDEATHSIG, uapi.ffi.cast("unsigned long", signal.SIGKILL))
    # The parent may have ended before that.
    if os.getppid() != parent:
        os._exit(1)


def _read_all(reader: int, limit: Deadline, on_told: Callable[[], object] | None) -> bytes | None:
    """
    Read until the other end is closed; None if the limit is reached first. Calls ``on_told()`` for each _TOLD
    byte.
    """
    parts: list[bytes] = []
    while True:
        if not select.select([reader], [], [], limit.left())[0]:
            return None
        part = os.read(reader, 65536)
        if not part:
            return b"".join(parts)
        for dummy in range(part.count(_TOLD)):
            if on_told is not None:
                on_told()
        parts.append(part.replace(_TOLD, b""))


def _reap(child: int, limit: Deadline) -> None:
    while not limit.expired and os.waitpid(child, os.WNOHANG) == (0, 0):
        limit.sleep(0.01)
