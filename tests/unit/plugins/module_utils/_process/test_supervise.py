# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base import locks as _locks
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    BlockError,
    DeadlineExceeded,
    DeviceBusy,
)
from ansible_collections.racefree.block.plugins.module_utils._process import identity
from ansible_collections.racefree.block.plugins.module_utils._process.supervise import supervised


@pytest.fixture(autouse=True)
def descriptors():
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_result():
    assert supervised(lambda: ["a", {"b": 1}], 30, "nothing") == ["a", {"b": 1}]
    assert supervised(lambda: "x" * 1000000, 30, "nothing") == "x" * 1000000
    assert supervised(os.getpid, 30, "nothing") != os.getpid()


def test_errors():

    def busy():
        raise DeviceBusy("it is in use", device="/dev/x", hint="Wait")

    with pytest.raises(BlockError, match="/dev/x: it is in use. Wait"):
        supervised(busy, 30, "nothing")
    with pytest.raises(BlockError, match="unexpected ZeroDivisionError"):
        supervised(lambda: 1 // 0, 30, "nothing")
    with pytest.raises(BlockError, match="without reporting a result"):
        supervised(lambda: os.kill(os.getpid(), signal.SIGKILL), 30, "nothing")


def test_a_hang(tmp_path):

    def hang():
        (tmp_path / "pid").write_text(str(os.getpid()))
        # Block every signal that could interrupt it.
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
        time.sleep(100)

    with pytest.raises(DeadlineExceeded, match="timed out after 1 s waiting for the disks"):
        supervised(hang, 1, "the disks")
    assert identity.start_time((tmp_path / "pid").read_text()) is None


def test_an_abandoned_child_has_no_lock_of_its_parent():
    """
    When the child reports, the parent releases a lock at once. If the child hangs instead, the lock is
    released when the parent releases it.
    """
    lock = _locks.Lock(f"test of {os.getpid()}", "the test")

    def others_can_have_it():
        return supervised(lambda: _locks.Locks().try_take(lock), 30, "a look")

    def work(told):
        before = others_can_have_it()
        told()
        # The report arrives before the work ends, however long the work takes.
        for dummy in range(3000):
            if others_can_have_it():
                return [before, True]
            time.sleep(0.01)
        return [before, False]

    locks = _locks.held([lock])
    assert supervised(work, 60, "nothing", locks.close) == [False, True]
    with _locks.held([lock]), pytest.raises(DeadlineExceeded):
        supervised(lambda told: time.sleep(100), 0.5, "nothing", os.getpid)
    assert others_can_have_it()


def test_the_child_is_killed_with_its_parent(tmp_path):
    """If the hook's own process is killed, its child must not continue."""

    def work():
        (tmp_path / "pid").write_text(str(os.getpid()))
        time.sleep(100)

    parent = os.fork()
    if not parent:
        try:
            supervised(work, 90, "nothing")
        finally:
            os._exit(0)
    end = time.monotonic() + 10
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < end
        time.sleep(0.01)
    child = (tmp_path / "pid").read_text()
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    while identity.start_time(child) is not None and _state(child) != "Z":
        assert time.monotonic() < end, "the child is still there"
        time.sleep(0.01)


def _state(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            return stat.read().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_readers_of_its_output_do_not_wait_for_orphaned_children(tmp_path):
    """Like libvirt, which reads the hook's standard error until its end."""
    reader, writer = os.pipe()
    kept = os.dup(2)
    os.dup2(writer, 2)
    try:
        supervised(lambda: subprocess.Popen(["sleep", "5"]).pid, 30, "nothing")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(writer)
    os.set_blocking(reader, False)
    # The end of the file, and not "no data yet".
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_the_child_is_killed():
    process = subprocess.Popen(["sleep", "100"])
    started = identity.start_time(process.pid)
    try:
        # Another process may have the PID by now: it is not killed.
        assert identity.end(process.pid, str(int(started) + 1)) and process.poll() is None
        assert identity.end(process.pid, started)
        assert process.wait(10) == -signal.SIGKILL
        assert identity.end(process.pid, started)
    finally:
        process.kill()
        process.wait()
