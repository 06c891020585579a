# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Which files the loop devices of others are over, although the storage of some may have failed or not answer.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

To tell which file it has, the loop driver asks the file system, and waits for it (vfs_getattr in
loop_get_status). Local file systems answer from memory. Those with servers are asked by a child process.
"""

from __future__ import annotations

import os

from .._base import gone
from .._base.deadline import Deadline
from .._base.errors import KernelError
from . import bound, loop, sysfs
from . import mounts as _mounts
from .in_time import each_in_time

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from typing import Any

    # A name, and the disk sequence number.
    Key = tuple[str, "str | None"]


# Seconds within which storage must answer; seconds for which file systems that did not are not asked again;
# and those file systems, as {st_dev: until when}.
_ANSWER_SECONDS, _SILENT_SECONDS = 2, 60
_SILENT: dict[int, Deadline] = {}
_DELETED = " (deleted)"


class LoopFiles:
    """
    The files of loop devices. File systems with servers are asked once about all loop devices over them, by
    one child process (and one more for each that does not answer).
    """

    def __init__(self) -> None:
        self._table: list[tuple[str, int, str]] | None = None
        # By name and disk sequence number, which changes whenever another file is bound.
        self._known: dict[Key, dict[str, Any] | tuple[int, ...]] = {}

    def status(self, name: str) -> dict[str, Any] | tuple[int, ...] | None:
        """
        Like :func:`_block.loop.read_status`. If the storage of the file does not answer, or answers with an
        error: the st_dev of each file system that the file may be on. Raises KernelError, and
        DeadlineExceeded, if these are not known either.
        """
        if self._table is None:
            self._table = _mounts.read()
        path = _path_of(name)
        if path is None or not _mounts.servers_at(path, self._table):
            return loop.read_status(name)
        key = _key_of(name)
        if key not in self._known:
            self._ask_all(name)
        # It may have been bound to another file meanwhile.
        return self._known[key] if key in self._known else loop.read_status(name)

    def _ask_all(self, wanted: str) -> None:
        """Ask about the loop device ``wanted``, and about all others that are not known."""
        self._table = table = _mounts.read()
        found = {name: (path, _mounts.servers_at(path, table)) for name, path in bound.read_paths().items()}
        keys = {_key_of(name): where for name, where in found.items() if where[1]}
        todo = {key: where for key, where in keys.items() if key not in self._known}
        while todo:
            silent = {key for key, where in todo.items() if all(map(_is_silent, where[1]))}
            self._known.update((key, todo.pop(key)[1]) for key in silent)
            for asked, answered, answer in each_in_time(_look, list(todo.items()), _ANSWER_SECONDS):
                key, (path, servers) = asked
                del todo[key]
                if not answered:
                    self._note_silent(key, path, servers, key[0] == wanted)
                    # If the file system is silent, the others over it are not asked.
                    break
                self._note(key, servers, answer, key[0] == wanted)

    def _note(self, key: Key, servers: tuple[int, ...], answer: tuple[Any, ...], is_wanted: bool) -> None:
        status, error, is_at_path = answer
        if error is None:
            # While a file is being bound, the device has none yet, but has its number already.
            if status is not None:
                self._known[key] = status
        elif is_at_path:
            self._known[key] = servers
        elif is_wanted:
            message, device, number, hint = error
            raise KernelError(message, device=device, errno=number, hint=hint)

    def _note_silent(self, key: Key, path: str, servers: tuple[int, ...], is_wanted: bool) -> None:
        ((dummy, answered, is_there),) = each_in_time(_is_there, [path], _ANSWER_SECONDS)
        if not answered or is_there:
            self._known[key] = servers
            if not answered:
                _SILENT.update((server, Deadline(_SILENT_SECONDS)) for server in servers)
        elif is_wanted:
            raise Deadline(_ANSWER_SECONDS).exceeded(
                "the loop device's status, which its storage does not give", device=f"/dev/{key[0]}"
            )


def _look(asked: tuple[Key, tuple[str, tuple[int, ...]]]) -> tuple[Any, ...]:
    """
    ``(status or None, error, whether the file may be at its path)``, in the child. ``error``: None, or the
    parts of a KernelError.
    """
    (name, dummy), (path, dummy2) = asked
    try:
        return loop.read_status(name), None, True
    except KernelError as error:
        told = (error.message, f"/dev/{name}", error.errno, error.hint)
        return None, told, loop.is_no_answer(error) and _is_there(path)


def _is_there(path: str) -> bool:
    """
    Whether the file of a loop device may be where the kernel reports it. A path of another mount namespace,
    or below a mount that was taken away, usually leads nowhere.
    """
    try:
        os.lstat(os.path.dirname(path) if path.endswith(_DELETED) else path)
    except OSError as error:
        # If it fails for another reason, this storage does not answer either.
        return error.errno not in gone.PATH
    return True


def _is_silent(server: int) -> bool:
    return server in _SILENT and not _SILENT[server].expired


def _path_of(name: str) -> str | None:
    return sysfs.read(f"/sys/block/{name}/loop/backing_file")


def _key_of(name: str) -> Key:
    return name, sysfs.read(f"/sys/block/{name}/diskseq")
