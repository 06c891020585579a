# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
udev cookies with real semaphores. Only the check whether udevd is running is simulated, because a build
machine has no udevd.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import KernelError
from ansible_collections.racefree.block.plugins.module_utils._dm import udev as _udev
from ansible_collections.racefree.block.plugins.module_utils._kernel import uapi
from ansible_collections.racefree.block.plugins.module_utils._source import resources

KEY = 0x0D4D0000


@pytest.fixture(autouse=True)
def nothing_left(monkeypatch):
    monkeypatch.setattr(_udev, "is_running", lambda: True)
    yield
    assert not made_here(), "a semaphore was left"


def made_here():
    """Semaphores with the key of a cookie that this process created."""
    found = []
    with open("/proc/sysvipc/sem", encoding="ascii") as table:
        columns = next(table).split()
        for line in table:
            row = dict(zip(columns, (int(word) for word in line.split())))
            if row["key"] & 0xFFFF0000 == KEY and row["uid"] == os.geteuid() and row["semid"] in _known:
                found.append(row)
    return found


_known = set()


def cookie_number(event_nr):
    return event_nr & 0xFFFF


def semaphore(event_nr):
    found = uapi.lib.semget(KEY | cookie_number(event_nr), 1, 0)
    if found >= 0:
        _known.add(found)
    return found


def value(event_nr):
    return uapi.lib.semctl(semaphore(event_nr), 0, uapi.lib.GETVAL)


def complete(event_nr):
    """Like ``dmsetup udevcomplete``."""
    operation = uapi.ffi.new("struct sembuf *", {"sem_num": 0, "sem_op": -1, "sem_flg": uapi.lib.IPC_NOWAIT})
    assert uapi.lib.semtimedop(semaphore(event_nr), operation, 1, uapi.ffi.NULL) == 0


def test_the_semaphores_count():
    with _udev.Cookie() as cookie:
        first = cookie.next()
        assert value(first) == 2, "one for the event, one for the batch that is not complete"
        second = cookie.next(_udev.HIDDEN)
        assert cookie_number(first) == cookie_number(second) != 0 and value(first) == 3
        assert first >> 16 == 0x40 and second >> 16 == 0x4F
        cookie.not_sent()
        assert value(first) == 2
        complete(first)
        assert value(first) == 1
        assert cookie.wait(0) is True
        assert value(first) == 1, "ready for the next batch"
    assert semaphore(first) == -1


def test_the_semaphore_is_accessible_to_its_owner_only():
    with _udev.Cookie() as cookie:
        event_nr = cookie.next()
        with open("/proc/sysvipc/sem", encoding="ascii") as table:
            row = [line.split() for line in table if line.split()[1] == str(semaphore(event_nr))][0]
        assert row[2] == "600" and row[3] == str(_udev._SEMAPHORES)


def test_the_wait_ends_at_the_deadline():
    with _udev.Cookie() as cookie:
        event_nr = cookie.next()
        for seconds in (0, 0.2):
            began = time.monotonic()
            assert cookie.wait(seconds) is False
            assert seconds <= time.monotonic() - began < seconds + 2
        assert value(event_nr) == 2, "what did not come can still come"
        complete(event_nr)
        assert cookie.wait(0) is True


def test_nothing_to_wait_for():
    with _udev.Cookie() as cookie:
        assert cookie.wait(0) is True
        event_nr = cookie.next()
        cookie.not_sent()
        assert cookie.wait(0) is True and value(event_nr) == 1


@pytest.mark.parametrize("events", [1, 5])
def test_the_wait_ends_when_udev_has_answered(events):
    with _udev.Cookie() as cookie:
        numbers = [cookie.next() for dummy in range(events)]

        def udev():
            for number in numbers:
                time.sleep(0.05)
                complete(number)

        thread = threading.Thread(target=udev)
        began = time.monotonic()
        thread.start()
        assert cookie.wait(30) is True
        assert events * 0.05 <= time.monotonic() - began < 10
        thread.join()


def test_a_real_udevcomplete():
    if not shutil.which("dmsetup"):
        pytest.skip("dmsetup is missing: apt-get install dmsetup")
    if not os.path.exists("/sys/class/misc/device-mapper"):
        pytest.skip(
            "without device-mapper in the kernel, dmsetup takes cookies for unsupported and leaves them alone"
        )
    with _udev.Cookie() as cookie:
        event_nr = cookie.next()
        assert cookie.wait(0) is False
        done = subprocess.run(
            ["dmsetup", "udevcomplete", str(event_nr)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert done.returncode == 0, done.stdout.decode()
        assert value(event_nr) == 1 and cookie.wait(0) is True


def test_one_batch_after_another():
    with _udev.Cookie() as cookie:
        for dummy in range(3):
            event_nr = cookie.next()
            assert cookie.wait(0) is False
            complete(event_nr)
            assert cookie.wait(1) is True


def test_a_signal_does_not_end_the_wait():
    with _udev.Cookie() as cookie:
        cookie.next()
        heard = []
        before = signal.signal(signal.SIGALRM, lambda *what: heard.append(time.monotonic()))
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
            began = time.monotonic()
            assert cookie.wait(0.4) is False
            assert time.monotonic() - began >= 0.39
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert heard


def test_the_semaphore_is_removed_after_an_exception():
    with pytest.raises(ZeroDivisionError), _udev.Cookie() as cookie:
        event_nr = cookie.next()
        assert semaphore(event_nr) >= 0
        raise ZeroDivisionError
    assert semaphore(event_nr) == -1
    cookie.__exit__(None, None, None)


@pytest.mark.parametrize("first", ["next", "not_sent", "wait"])
def test_a_cookie_that_was_removed_by_another_process(first):
    """Like ``dmsetup udevcomplete_all``: no error, as a device may be suspended. Nothing is waited for."""
    with _udev.Cookie() as cookie:
        event_nr = cookie.next()
        uapi.lib.semctl(semaphore(event_nr), 0, uapi.lib.IPC_RMID)
        if first == "not_sent":
            cookie.not_sent()
        if first != "wait":
            assert cookie.next(_udev.HIDDEN) & 0xFFFF == 0
        assert not cookie.wait(1)
        assert not cookie.wait(1)


def test_a_key_in_use_is_not_taken(monkeypatch):
    with _udev.Cookie() as first:
        taken = cookie_number(first.next())
        free = next(number for number in range(1, 0xFFFF) if uapi.lib.semget(KEY | number, 1, 0) < 0)
        numbers = [taken, taken, free]
        monkeypatch.setattr(_udev.random, "randint", lambda low, high: numbers.pop(0))
        with _udev.Cookie() as second:
            assert cookie_number(second.next()) == free and not numbers
        assert value(taken) == 2
        monkeypatch.setattr(_udev.random, "randint", lambda low, high: taken)
        with pytest.raises(KernelError, match="udevcookies"):
            _udev.Cookie().__enter__()
        assert value(taken) == 2


def test_without_udevd_nothing_is_created_or_waited_for(monkeypatch):
    monkeypatch.setattr(_udev, "is_running", lambda: False)
    with _udev.Cookie() as cookie:
        # the flag is still needed: a later coldplug would drop the device
        assert cookie.next() == 0x400000 and cookie.next(_udev.HIDDEN) == 0x4F0000
        cookie.not_sent()
        began = time.monotonic()
        assert cookie.wait(60) is True
        assert time.monotonic() - began < 1


def test_a_run_has_one_cookie():
    with resources.Resources() as host:
        assert host.settle(0) is True, "nothing was done"
        event_nr = host.cookie.next()
        assert host.cookie is host.cookie
        assert host.settle(0) is False
        complete(event_nr)
        assert host.settle(1) is True
    assert semaphore(event_nr) == -1


LEFT = """
import os, signal, sys
from ansible_collections.racefree.block.plugins.module_utils._dm import udev as _dm_udev
_dm_udev.is_running = lambda: True
with _dm_udev.Cookie() as cookie:
    print(cookie.next(), flush=True)
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)
    # The first process of a PID namespace cannot kill itself.
    os._exit(1)
"""


def test_semaphores_of_killed_processes_are_removed():
    path = os.path.abspath(os.path.join(os.path.dirname(_udev.__file__), *[".."] * 6))
    with subprocess.Popen(
        [sys.executable, "-c", LEFT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=dict(os.environ, PYTHONPATH=path),
    ) as other:
        event_nr = int(other.stdout.readline())
        with _udev.Cookie():
            assert semaphore(event_nr) >= 0, "its process lives"
        other.stdin.close()
        assert other.wait(30) == -signal.SIGKILL
    assert semaphore(event_nr) >= 0
    with _udev.Cookie():
        assert semaphore(event_nr) == -1


OTHER_NAMESPACES = [
    pytest.param(["--pid"], id="PID namespace"),
    pytest.param(["--pid", "--mount-proc"], id="PID namespace with its own /proc"),
    pytest.param(["--time", "--boottime", "1000"], id="time namespace"),
]


@pytest.mark.parametrize("options", OTHER_NAMESPACES)
def test_a_cookie_of_another_pid_namespace_is_left_unchanged(options):
    """Here, its PID belongs to another process or to none, so whether it has ended is unknown."""
    path = os.path.abspath(os.path.join(os.path.dirname(_udev.__file__), *[".."] * 6))
    command = ["unshare", "--fork", *options, sys.executable, "-c", LEFT]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=dict(os.environ, PYTHONPATH=path),
    ) as other:
        first = other.stdout.readline()
        if not first:
            assert other.wait(30)
            pytest.skip("this user may not make such a namespace")
        event_nr = int(first)
        with _udev.Cookie():
            assert semaphore(event_nr) >= 0
        other.stdin.close()
        other.wait(30)
    with _udev.Cookie():
        assert semaphore(event_nr) >= 0
    uapi.lib.semctl(semaphore(event_nr), 0, uapi.lib.IPC_RMID)


def test_semaphores_of_other_programs_are_not_removed():
    """
    libdm's cookies are single semaphores, which do not identify their process. A set without an owner is
    still being created.
    """
    free = (number for number in range(1, 0xFFFF) if uapi.lib.semget(KEY | number, 1, 0) < 0)
    made = [
        uapi.lib.semget(KEY | next(free), count, 0o600 | uapi.lib.IPC_CREAT | uapi.lib.IPC_EXCL)
        for count in (1, _udev._SEMAPHORES)
    ]
    try:
        _udev.reap()
        assert min(made) >= 0 and all(uapi.lib.semctl(one, 0, uapi.lib.GETVAL) == 0 for one in made)
    finally:
        for one in made:
            uapi.lib.semctl(one, 0, uapi.lib.IPC_RMID)


def test_a_semaphore_set_without_a_creator_is_removed_later(monkeypatch):
    free = next(number for number in range(1, 0xFFFF) if uapi.lib.semget(KEY | number, 1, 0) < 0)
    made = uapi.lib.semget(KEY | free, _udev._SEMAPHORES, 0o600 | uapi.lib.IPC_CREAT | uapi.lib.IPC_EXCL)
    monkeypatch.setattr(_udev, "_SECONDS_TO_SIGN", -5)
    _udev.reap()
    assert uapi.lib.semctl(made, 0, uapi.lib.GETVAL) == -1
