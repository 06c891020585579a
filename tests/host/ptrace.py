# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Kill a process, or one that it forked, after its n-th system call, or act while it is stopped before one
(ptrace(2)).

strace's injection counts the calls of each name separately, and always affects the first process that reaches
the count.
"""

from __future__ import annotations

import ctypes
import os
import signal

_LIBRARY = ctypes.CDLL(os.path.join(os.path.dirname(os.path.abspath(__file__)), "kill_at.so"), use_errno=True)
_TRACEME = 0
_DECIDE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_long)


def run_killed(function, which, count, every=False):
    """
    Run ``function()`` in a child, which ends with the number that it returns, and kill the ``which``-th
    process of it (0: the child itself, 1: the first that it forks) right after its system call ``count``; 0:
    before the first. Counted are those that change anything that outlives the process, so that each state
    that can be left is met once; or ``every`` one.

    ``(whether one was killed, exit code or minus the signal of the child)``. Those that are left then go on
    untraced.
    """
    return killed(_child(function), which, count, every)


def killed(child, which, count, every=False):
    """
    As ``run_killed``, of a child that is traced by this process (PTRACE_TRACEME) and has stopped itself.
    """
    done, code, _calls = _run(child, which, count, every, None)
    return done, code


def run_stopped(function, which, count, decide, every=True):
    """
    As ``run_killed``, but the process stands before its call ``count``, from 1, while ``decide(pid, number of
    the call)`` is called here: what that returns, if it is not 0, is the errno that the process gets in place
    of the call.

    ``(whether it came to that, exit code or minus the signal of the child, how many calls were counted)``.
    What ``decide`` raises is raised here, after the process has gone on.
    """
    return stopped(_child(function), which, count, decide, every)


def stopped(child, which, count, decide, every=True):
    """
    As ``run_stopped``, of a child that is traced by this process (PTRACE_TRACEME) and has stopped itself.
    """
    problems = []

    def guarded(pid, number):
        try:
            return decide(pid, number) or 0
        except Exception as problem:
            problems.append(problem)
            return 0

    done = _run(child, which, count, every, _DECIDE(guarded))
    if problems:
        raise problems[0]
    return done


def _child(function):
    """A child that will run this, and has stopped itself before that."""
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
    return child


def _run(child, which, count, every, decide):
    status, calls = ctypes.c_int(), ctypes.c_long()
    done = _LIBRARY.at_call(
        child, which, ctypes.c_long(count), int(every), decide, ctypes.byref(status), ctypes.byref(calls)
    )
    if done == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return bool(done), os.waitstatus_to_exitcode(status.value), calls.value
