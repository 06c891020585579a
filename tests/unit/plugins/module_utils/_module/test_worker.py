# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
A module's work in a separate process. Storage that does not respond: tests/kernel/test_silent_storage.py.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base import locks as _locks
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    BlockError,
    DeadlineExceeded,
    DeviceBusy,
    InvalidValue,
)
from ansible_collections.racefree.block.plugins.module_utils._module import worker as _worker
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices

ROOM = "ansible_collections.racefree.block.plugins.module_utils"
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.fixture(autouse=True)
def in_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr(_worker, "IN_PROCESS", False)
    monkeypatch.setattr(_locks, "DIRECTORY", str(tmp_path / "locks"))
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


def raising(error):
    raise error


def test_the_result_is_returned():
    result = _worker.run(lambda: {"pid": os.getpid(), "big": ["x" * 1000] * 2000, "\udcff": (1, {2})}, 5)
    assert (
        result["pid"] != os.getpid() and result["big"] == ["x" * 1000] * 2000 and result["\udcff"] == [1, [2]]
    )
    with pytest.raises(ChildProcessError):
        os.waitpid(result["pid"], os.WNOHANG)


@pytest.mark.parametrize(
    "error, kind, word",
    [
        (DeviceBusy("taken", device="/dev/x", hint="Wait"), "DeviceBusy", "taken"),
        (InvalidValue("size", 1, "2"), "InvalidValue", "size"),
        (OSError(5, "Input/output error"), "KernelError", "EIO"),
    ],
)
def test_errors_are_raised(error, kind, word):
    raised = _worker.run(lambda: raising(error), 5)["raised"]
    assert raised["error"]["kind"] == kind and word in raised["msg"]


def test_an_unexpected_exception():
    raised = _worker.run(lambda: 1 / 0, 5)["raised"]
    assert "unexpected ZeroDivisionError" in raised["msg"] and "Traceback" in raised["exception"]


def test_a_killed_worker():
    with pytest.raises(BlockError, match="was killed"):
        _worker.run(lambda: os.kill(os.getpid(), signal.SIGKILL), 5)


def test_a_worker_that_answers_and_exits_between_two_polls(monkeypatch):
    """The parent finds the pipe empty, and then that the child has exited. The child answered in between."""
    really = os.waitid

    def late(kind, pid, options):
        really(kind, pid, os.WEXITED | os.WNOWAIT)
        return really(kind, pid, options)

    monkeypatch.setattr(_worker, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(_worker.os, "waitid", late)
    assert _worker.run(lambda: time.sleep(0.2) or {"answer": 1}, 5) == {"answer": 1}


def test_a_grandchild_is_not_waited_for():
    """A process that the child started keeps the pipe open, and is not waited for."""

    def leave_one():
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
        return child

    child = _worker.run(leave_one, 5)
    os.kill(child, signal.SIGKILL)


def test_the_worker_prints_nothing(capfd):
    _worker.run(lambda: [os.write(1, b"word"), os.write(2, b"word")], 5)
    assert capfd.readouterr() == ("", "")


def test_the_parent_holds_the_locks(tmp_path):
    """The parent holds the locks, so they are released with it, even if its child hangs."""
    lock = _locks.Lock("a", "a")

    def holder():
        with _locks.held([lock]):
            return subprocess.run(
                [
                    sys.executable,
                    "-c",
                    (
                        f"from {ROOM}._base import locks as _lock\n"
                        f"_lock.DIRECTORY = {_locks.DIRECTORY!r}\n"
                        "lock = _lock.Lock('a', 'a')\n"
                        "print(_lock.Locks().try_take(lock), _lock.holder_of(lock.offset))\n"
                    ),
                ],
                env=ENVIRONMENT,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            ).stdout

    text = _worker.run(holder, 30)
    assert text.startswith(f"False process {os.getpid()} ")
    with _locks.Locks() as locks:
        assert locks.try_take(lock)


def test_more_locks_than_fit_into_one_message():
    """The parent takes and releases 9,000 locks."""
    locks = [_locks.Lock(f"many {number}", "it") for number in range(9000)]

    def work():
        with _locks.held(locks) as mine:
            return {"had": sum(map(mine.has, locks))}

    for dummy in range(2):
        assert _worker.run(work, 30) == {"had": 9000}
    with _locks.held(locks):
        pass


def test_a_lock_that_another_run_has():
    def second():
        with _locks.held([_locks.Lock("a", "the thing a")], _locks.Deadline(0.1)):
            return None

    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            (
                f"import sys\nfrom {ROOM}._base import locks as _lock\n"
                f"_lock.DIRECTORY = {_locks.DIRECTORY!r}\n"
                "locks = _lock.Locks()\nlocks.take([_lock.Lock('a', 'a')])\n"
                "print('has it', flush=True)\nsys.stdin.read()\n"
            ),
        ],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as first:
        first.stdout.readline()
        raised = _worker.run(second, 5)["raised"]
        assert f"process {first.pid} " in raised["msg"] and "the thing a" in raised["msg"]
        first.stdin.close()


def test_the_worker_is_killed_with_its_parent(tmp_path):
    """If the module is killed, its work ends."""
    code = (
        f"import os, time\nfrom {ROOM}._module import worker as _module_worker\n"
        f"path = {str(tmp_path / 'pid')!r}\n"
        "def work():\n    os.write(1, b'')\n"
        "    open(path + '.new', 'w').write(str(os.getpid())); os.rename(path + '.new', path)\n"
        "    time.sleep(100)\n"
        "_module_worker.run(work, 5)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], env=ENVIRONMENT) as parent:
        end = time.monotonic() + 20
        while not (tmp_path / "pid").exists():
            assert time.monotonic() < end and parent.poll() is None
            time.sleep(0.01)
        worker = int((tmp_path / "pid").read_text())
        handle = os.pidfd_open(worker)
        parent.kill()
    try:
        with loopdevices.at_most(10):
            signal.pidfd_send_signal(handle, 0)
            while True:
                signal.pidfd_send_signal(handle, 0)
                time.sleep(0.01)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def test_a_worker_that_hangs_in_the_kernel(monkeypatch):
    """The parent of a vfork(2) child that does not exit is in state D. This needs no hanging storage."""

    def hang():
        if ctypes.CDLL(None).vfork() == 0:
            time.sleep(10)
            os._exit(0)

    started = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="process [0-9]+ waits in the kernel") as caught:
        _worker.run(hang, 1)
    assert "run the task again" in caught.value.hint and time.monotonic() - started > 1
