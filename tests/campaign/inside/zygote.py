# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
A process that has imported everything, and starts runs in milliseconds (engine.c).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import signal
import struct
from typing import Any, Callable

_BODY = ctypes.CFUNCTYPE(ctypes.c_int)
_LENGTH = struct.Struct("=I")
_HALF = 1 << 20


class Zygote:
    """
    ``start(order)`` runs ``play(order)`` in a separate process, a child of this one. ``order`` and the return
    value of ``play`` are plain data. ``answer()``: that return value, None unless ``play`` returned. One run
    at a time.

    ``seconds``: a run is killed by SIGALRM after this time.
    """

    def __init__(self, play: Callable[[Any], Any], seconds: int) -> None:
        self._play, self._seconds = play, seconds
        self._shared = mmap.mmap(-1, 2 * _HALF)
        self._orders, self._pids = os.pipe(), os.pipe()
        self._pid = os.fork()
        if not self._pid:
            self._serve()
        os.close(self._orders[0])
        os.close(self._pids[1])

    def start(self, order: Any, traced: bool = False) -> int:
        """
        Start a run; returns its process ID. If traced, the process has called PTRACE_TRACEME, and stops
        before anything else.
        """
        self._put(0, order)
        self._put(_HALF, None)
        os.write(self._orders[1], b"t" if traced else b"r")
        data = os.read(self._pids[0], 4)
        if len(data) != 4:
            raise RuntimeError(f"no run can be started: {os.waitpid(self._pid, 0)}")
        pid = struct.unpack("=i", data)[0]
        assert isinstance(pid, int)
        return pid

    def answer(self) -> Any:
        return self._get(_HALF)

    def close(self) -> None:
        os.close(self._orders[1])
        os.close(self._pids[0])
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)

    def _put(self, at: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self._shared[at : at + 4] = _LENGTH.pack(len(data))
        self._shared[at + 4 : at + 4 + len(data)] = data

    def _get(self, at: int) -> Any:
        length = _LENGTH.unpack(self._shared[at : at + 4])[0]
        return json.loads(self._shared[at + 4 : at + 4 + length])

    def _serve(self) -> None:
        """In the new process: never returns."""
        try:
            os.close(self._orders[1])
            os.close(self._pids[0])
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            library = ctypes.CDLL(os.environ.get("RACEFREE_ENGINE", "/root/site/tests/campaign_engine.so"))
            code = library.serve(self._orders[0], self._pids[1], self._seconds, _BODY(self._run))
            os.write(2, f"runs cannot be started: {os.strerror(code)}\n".encode())
        finally:
            os._exit(1)

    def _run(self) -> int:
        """In the process of a run."""
        try:
            self._put(_HALF, self._play(self._get(0)))
            return 0
        except BaseException as problem:
            os.write(2, f"a run ended with {type(problem).__name__}: {problem}\n".encode())
            return 1
