# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Kill a process, or one that it forked, after its n-th system call (ptrace(2)).

strace's injection counts the calls of each name, and always meets the first process that makes so many of them.
"""

from __future__ import annotations

import ctypes
import os
import signal

_LIBRARY = ctypes.CDLL(os.path.join(os.path.dirname(os.path.abspath(__file__)), "kill_at.so"), use_errno=True)
_TRACEME = 0


def run_killed(function, which, count, every=False):
    """
    Run ``function()`` in a child, which ends with the number that it returns, and kill the ``which``-th process of it (0: the child itself, 1:
    the first that it forks) right after its system call ``count``; 0: before the first. Counted are those that change anything that outlives
    the process, so that each state that can be left is met once; or ``every`` one.

    ``(whether one was killed, exit code or minus the signal of the child)``. Those that are left then go on untraced.
    """
    child = os.fork()
    if not child:
        code = 255
        try:
            ctypes.CDLL(None).ptrace(_TRACEME, 0, None, None)
            os.kill(os.getpid(), signal.SIGSTOP)
            code = function()
        finally:
            os._exit(code)
    os.waitpid(child, 0)
    status = ctypes.c_int()
    killed = _LIBRARY.kill_at(child, which, ctypes.c_long(count), int(every), ctypes.byref(status))
    if killed == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return bool(killed), os.waitstatus_to_exitcode(status.value)
