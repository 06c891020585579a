# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Calls that may hang in the kernel: a child process makes them, and is abandoned if one takes too long.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The child has only a pipe open, so it keeps nothing busy while it hangs. Once the kernel answers and nobody
reads the pipe, the child exits.
"""

from __future__ import annotations

import _struct as struct
import errno
import marshal
import os
import select

from .._base.deadline import Deadline
from .._base.errors import BlockError, KernelError

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, NoReturn, TypeVar

    _Key = TypeVar("_Key")


_LENGTH = struct.Struct("=I")


def each_in_time(
    function: Callable[[Any], Any], keys: Iterable[_Key], seconds: float
) -> Iterator[tuple[_Key, bool, Any]]:
    """
    Yield ``(key, answered, value)`` for each key: the result of ``function(key)`` (numbers, texts, and
    containers of them), or False and None if it takes longer than ``seconds``.

    If the function raises a BlockError, this ends with a KernelError that has the same message and errno.
    """
    keys = list(keys)
    while keys:
        answers = _Answers(function, keys)
        try:
            while keys:
                found = answers.next(Deadline(seconds))
                key = keys.pop(0)
                yield (key, False, None) if found is None else (key, True, found[0])
                if found is None:
                    # A new process handles the remaining keys.
                    break
        finally:
            answers.close()


class _Answers:
    """The child process that calls the function, and its answers."""

    def __init__(self, function: Callable[[Any], Any], keys: list[Any]) -> None:
        self._data = b""
        try:
            self._reader, writer = os.pipe()
        except OSError as error:
            raise KernelError.from_oserror(error, "make a pipe to a process that looks at devices") from error
        try:
            child = os.fork()
        except OSError as error:
            os.close(self._reader)
            os.close(writer)
            raise KernelError.from_oserror(error, "start a process that looks at devices") from error
        if not child:
            _look_at(function, keys, writer)
        os.close(writer)
        # This child has already exited. The grandchild makes the calls, and is not waited for.
        os.waitpid(child, 0)

    def close(self) -> None:
        os.close(self._reader)

    def next(self, limit: Deadline) -> tuple[Any, ...] | None:
        """``(value,)``, or None if the deadline expires first."""
        while True:
            known = len(self._data) >= _LENGTH.size
            end = _LENGTH.size + _LENGTH.unpack_from(self._data)[0] if known else 0
            if known and len(self._data) >= end:
                answer: tuple[Any, ...] = marshal.loads(self._data[_LENGTH.size : end])
                self._data = self._data[end:]
                if answer[0] is not None:
                    message, device, number, hint = answer[0]
                    raise KernelError(message, device=device, errno=number, hint=hint)
                return answer[1:]
            if not select.select([self._reader], [], [], limit.left())[0]:
                return None
            part = os.read(self._reader, 65536)
            if not part:
                raise BlockError("the process that looked at devices was killed", errno=errno.ESRCH)
            self._data += part


def _look_at(function: Callable[[Any], Any], keys: list[Any], writer: int) -> NoReturn:
    """Runs in the child and the grandchild; never returns."""
    try:
        if not os.fork():
            if writer != 3:
                os.dup2(writer, 3)
            os.closerange(4, os.sysconf("SC_OPEN_MAX"))
            os.closerange(0, 3)
            for key in keys:
                _send(function, key)
    finally:
        os._exit(0)


def _send(function: Callable[[Any], Any], key: Any) -> None:
    answer: tuple[Any, ...]
    try:
        answer = (None, function(key))
    except BlockError as error:
        answer = (
            (error.message, None if error.device is None else str(error.device), error.errno, error.hint),
        )
    data = marshal.dumps(answer)
    os.write(3, _LENGTH.pack(len(data)) + data)
