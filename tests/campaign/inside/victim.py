# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Modules, and existing tools, as victims: each run is a process that can be stopped, killed, or given wrong
results of system calls.

Most runs of a module are started by a Zygote, which has already imported everything: the module's main() runs
completely, with its work in the same process. A cold run is started as Ansible starts it: as a separate
program that imports what it needs, and does the work in a child process. One of these two processes is
stopped or killed.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import random
import sys
import tempfile
from typing import Any, Callable

import ptrace
from ansible.module_utils.testing import patch_module_args
from ansible_collections.racefree.block.plugins.module_utils._base import late
from ansible_collections.racefree.block.plugins.module_utils._module import worker
from zygote import Zygote

MODULES = "ansible_collections.racefree.block.plugins.modules."
# Seconds after which a run counts as hanging: longer than the 60 s that it may wait for udev, or for another
# run.
HANGING = 150
NAMES = (
    "loop_device",
    "loop_devices",
    "dm_device",
    "dm_devices",
    "thin_volumes",
    "snapshot_stores",
    "kernel_key",
)
_COLD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cold.py")
_zygotes: list[Zygote] = []
# The random numbers for the runs' seeds.
_seeds = random.Random(1)

Answer = dict[str, Any]


def seed(value: float) -> None:
    """Seed the random numbers of all runs from here on."""
    _seeds.seed(value)


def load_all(lanes: int = 1, names: tuple[str, ...] = ()) -> None:
    """Import what the victims will need, and start ``lanes`` zygotes, for as many concurrent runs."""
    for name in (*NAMES, *names):
        importlib.import_module(MODULES + name)
    # The work runs in the process that is stopped, killed or given wrong results.
    worker.IN_PROCESS = True
    # Create objects that are cached, so that every run finds them.
    _play(
        {
            "module": "loop_device",
            "arguments": {"backing_file": "/var/tmp/none", "state": "absent"},
            "seed": 1,
        }
    )
    _play({"module": "dm_device", "arguments": {"name": "campaign-none", "state": "absent"}, "seed": 1})
    _load_late()
    for _lane in range(lanes):
        _zygotes.append(Zygote(_play, HANGING))


def _load_late() -> None:
    """Import what the loaded modules would import at its first use, and so on."""
    before = 0
    while before != len(sys.modules):
        before = len(sys.modules)
        found = [value for each in list(sys.modules.values()) for value in vars(each).values()]
        for value in found:
            if isinstance(value, late.Module):
                str(value.__name__)


def _play(order: Answer) -> Answer | None:
    """In the process of a run."""
    if "program" in order:
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.execvp(order["program"][0], order["program"])
    random.seed(order["seed"])
    output = io.StringIO()
    with (
        patch_module_args(order["arguments"]),
        contextlib.redirect_stdout(output),
        contextlib.suppress(SystemExit),
    ):
        sys.modules[MODULES + order["module"]].main()
    return _last(output.getvalue())


def _last(text: str) -> Answer | None:
    with contextlib.suppress(IndexError, ValueError):
        found: Answer = json.loads(text.strip().splitlines()[-1])
        return found
    return None


class _Victim:
    """``plainly()``, ``stopped(count, decide)`` and ``killed(count)`` each make one run; see ptrace.py."""

    which = 0

    def begin(self, traced: bool) -> int:
        """Start the process. If it is to be traced, it stops itself first."""
        raise NotImplementedError

    def stopped(
        self, count: int, decide: Callable[[int, int], int | None], every: bool = True
    ) -> tuple[bool, int, int]:
        return ptrace.stopped(self._traced(), self.which, count, decide, every)

    def killed(self, count: int, every: bool = False) -> tuple[bool, int]:
        return ptrace.killed(self._traced(), self.which, count, every)

    def _traced(self) -> int:
        pid = self.begin(True)
        _same, status = os.waitpid(pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            raise RuntimeError(f"a run ended before it began: {status}")
        return pid


class Program(_Victim):
    """An existing tool; its exit code is its answer."""

    def __init__(self, *command: str) -> None:
        self.command = command

    def begin(self, traced: bool) -> int:
        return _zygotes[0].start({"program": self.command}, traced)


class Run(_Victim):
    """One run of a module. ``answer``: the module's result after it has ended, or None."""

    def __init__(self, module: str, arguments: Answer, lane: int = 0) -> None:
        self.module = module
        self.arguments = dict(arguments, _ansible_check_mode=False, _ansible_remote_tmp="/tmp")
        self.zygote = _zygotes[lane]
        self.said: Answer | None = None

    def begin(self, traced: bool) -> int:
        return self.zygote.start(
            {"module": self.module, "arguments": self.arguments, "seed": _seeds.random()}, traced
        )

    def cold(self, which: int) -> ColdRun:
        """The same run, from a cold start."""
        return ColdRun(self.module, self.arguments, which)

    def plainly(self) -> Answer | None:
        """Run it without interference; returns the answer."""
        os.waitpid(self.begin(False), 0)
        return self.answer()

    def answer(self) -> Answer | None:
        """The module's answer; None if it has printed none, or only a part."""
        if self.said is None:
            self.said = self.zygote.answer()
        return self.said


class ColdRun(Run):
    """
    The same run from a cold start. ``which``: 0 the module's own process, 1 the child that does its work.
    """

    def __init__(self, module: str, arguments: Answer, which: int = 1) -> None:
        super().__init__(module, arguments)
        self.which = which
        self.output = tempfile.TemporaryFile()

    def begin(self, traced: bool) -> int:
        order = json.dumps(
            {"module": self.module, "arguments": self.arguments, "traced": traced, "seconds": HANGING}
        )
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-B", _COLD, order],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, self.output.fileno(), 1)],
        )

    def answer(self) -> Answer | None:
        if self.said is None:
            self.output.seek(0)
            self.said = _last(self.output.read().decode(errors="replace"))
        return self.said


def run(module: str, **arguments: Any) -> Answer | None:
    """Run a module without interference; returns the answer."""
    return Run(module, arguments).plainly()


def is_ok(answer: Answer | None) -> bool:
    return answer is not None and not answer.get("failed")


def words(answer: Answer | None) -> str:
    """A short version of the error message of a failed run."""
    return "no answer" if answer is None else str(answer.get("msg"))[:200]
