# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Locks between processes: every other holder here is a separate process."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base import locks as _locks
from ansible_collections.racefree.block.plugins.module_utils._base import run_directory
from ansible_collections.racefree.block.plugins.module_utils._base.deadline import Deadline
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    InvalidValue,
    KernelError,
    WrongDevice,
)
from ansible_collections.racefree.block.plugins.module_utils._block import backing
from ansible_collections.racefree.block.plugins.module_utils._process import holder as _holder

A, B, C = (_locks.Lock(f"test {name}", f"the thing {name}") for name in "abc")
# Seconds: more than any child needs, but short enough for failing tests to end.
PLENTY = 20


@pytest.fixture(autouse=True)
def own_locks(tmp_path, monkeypatch):
    """Locks in a directory of the test."""
    monkeypatch.setattr(_locks, "DIRECTORY", str(tmp_path / "locks"))
    _locks._STATE.clear()
    yield
    _locks._STATE.clear()


class Child:
    """
    A process that calls ``function(say)`` and then waits to be killed. :meth:`hear` returns what it passed to
    ``say(text)``.
    """

    def __init__(self, function):
        self.reading, writing = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                function(lambda text: os.write(writing, text.encode() + b"\n"))
                signal.pause()
            finally:
                os._exit(1)
        os.close(writing)

    def hear(self, seconds=PLENTY):
        """The next message, or None if there is none in that time."""
        if not select.select([self.reading], [], [], seconds)[0]:
            return None
        return os.read(self.reading, 65536).decode().strip()

    def end(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.reading)


@pytest.fixture
def child():
    with contextlib.ExitStack() as stack:

        def start(function):
            started = Child(function)
            stack.callback(started.end)
            return started

        yield start


def holder(*locks):
    def function(say):
        _locks.held(locks)
        say("held")

    return function


def taker(*locks):
    """Says ``yes`` or ``no`` for each lock: whether it could be taken without waiting."""

    def function(say):
        mine = _locks.Locks()
        say(" ".join("yes" if mine.try_take(lock) else "no" for lock in locks))

    return function


def test_only_one_process_has_the_lock(child):
    with _locks.held([A]):
        assert child(taker(A, B)).hear() == "no yes"
    assert child(taker(A)).hear() == "yes"


def test_a_lock_is_released_when_its_process_ends():
    other = Child(holder(A))
    assert other.hear() == "held"
    with pytest.raises(_locks.Unavailable):
        _locks.held([A], Deadline(0))
    other.end()
    _locks.held([A], Deadline(PLENTY)).close()


def test_waiting_for_a_lock(child):
    with _locks.held([A]):
        waiting = child(lambda say: (say("wait"), _locks.held([A], Deadline(PLENTY)), say("held")))
        assert waiting.hear() == "wait"
        assert waiting.hear(0.2) is None
    assert waiting.hear() == "held"


def test_the_error_names_the_process_that_has_the_lock(child):
    other = child(holder(A))
    assert other.hear() == "held"
    with pytest.raises(_locks.Unavailable) as caught:
        _locks.held([A], Deadline(0))
    text = str(caught.value)
    assert f"process {other.pid} (" in text and "python" in text and "the thing a" in text
    assert caught.value.lock == A and text.startswith("timed out after 0 s waiting for process")


def test_all_locks_of_a_list_are_released_if_one_times_out(child):
    other = child(holder(C))
    assert other.hear() == "held"
    mine = _locks.held([B])
    with pytest.raises(_locks.Unavailable):
        mine.take([A, B, C], Deadline(0))
    assert mine.has(B) and not mine.has(A)
    assert child(taker(A, B)).hear() == "yes no"
    mine.close()
    assert child(taker(B)).hear() == "yes"


def test_lists_in_opposite_orders_do_not_deadlock(child):
    """Two processes repeatedly take the same locks, listed in opposite orders."""

    def both_ways(order):
        def function(say):
            for dummy in range(300):
                _locks.held(order, Deadline(PLENTY)).close()
            say("done")

        return function

    first, second = child(both_ways([A, B, C])), child(both_ways([C, B, A]))
    assert first.hear(2 * PLENTY) == second.hear(2 * PLENTY) == "done"


def test_children_do_not_inherit_locks(child):
    """Neither a forked child that continues, nor one that holds devices, inherits or releases locks."""
    mine = _locks.held([A])
    forked = child(lambda say: (mine.close(), say("closed")))
    assert forked.hear() == "closed"
    assert child(taker(A)).hear() == "no"
    with _holder.hold([], PLENTY):
        mine.close()
        assert child(taker(A)).hear() == "yes"


def test_a_lock_taken_twice_must_be_released_twice(child):
    with _locks.held([A]):
        with _locks.held([A, A]):
            pass
        assert child(taker(A)).hear() == "no"
    assert child(taker(A)).hear() == "yes"


def test_locks_exclude_other_threads(child):
    found = []
    mine = _locks.held([A])

    def in_thread():
        other = _locks.Locks()
        found.append(other.try_take(A))
        with pytest.raises(_locks.Unavailable, match="another thread"):
            other.take([A], Deadline(0))

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    assert found == [False]
    assert child(taker(A)).hear() == "no"
    mine.close()


def test_a_file_is_locked_by_its_inode(tmp_path, child):
    path, link, hard, other = (str(tmp_path / name) for name in ("file", "link", "hard", "other"))
    for name in (path, other):
        with open(name, "wb"):
            pass
    os.symlink(path, link)
    os.link(path, hard)
    with _locks.held(_locks.of_file(path)):
        assert (
            child(taker(*_locks.of_file(link), *_locks.of_file(hard), *_locks.of_file(other))).hear()
            == "no no yes"
        )
    assert [lock.name for lock in _locks.of_file(path)] == [lock.name for lock in _locks.of_file(hard)]


@pytest.mark.parametrize("path", ["missing", "file/below", "dangling", "loop", "x" * 300])
def test_a_path_that_leads_to_no_file_has_no_lock(tmp_path, path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert _locks.of_file(str(tmp_path / path)) == []


def test_a_path_that_cannot_be_examined_is_an_error(tmp_path, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(_locks.os, "stat", denied)
    with pytest.raises(KernelError, match="EACCES"):
        _locks.of_file(str(tmp_path / "x"))


def test_the_lock_file_is_accessible_to_its_owner_only(tmp_path):
    before = os.umask(0)
    try:
        with _locks.held([A]):
            assert os.stat(_locks.DIRECTORY).st_mode & 0o777 == 0o700
            assert os.stat(f"{_locks.DIRECTORY}/bytes").st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


def test_a_symbolic_link_instead_of_the_lock_file_is_refused(tmp_path):
    os.mkdir(_locks.DIRECTORY, 0o700)
    os.symlink(tmp_path / "elsewhere", f"{_locks.DIRECTORY}/bytes")
    with pytest.raises((KernelError, WrongDevice)):
        _locks.held([A])
    assert not os.path.lexists(tmp_path / "elsewhere")


def test_many_at_once(child):
    locks = [_locks.Lock(f"test {number}", str(number)) for number in range(2000)]
    with _locks.held(locks):
        assert set(child(taker(*locks)).hear().split()) == {"no"}
    assert set(child(taker(*locks)).hear().split()) == {"yes"}


def test_a_removed_lock_file_is_recreated_by_a_process_without_locks(child):
    with _locks.held([A]):
        os.unlink(f"{_locks.DIRECTORY}/bytes")
        with pytest.raises(WrongDevice, match="removed or replaced"):
            _locks.held([B])
    with _locks.held([A, B]):
        assert child(lambda say: say(str(_locks.Locks().try_take(A)))).hear() == "False"


def test_waiting_continues_in_the_new_file_when_the_lock_file_is_removed(child):
    def holds(say):
        _locks.held([A])
        say("has it")

    assert child(holds).hear() == "has it"
    os.unlink(f"{_locks.DIRECTORY}/bytes")
    assert child(holds).hear() == "has it", "the file is another one"
    with pytest.raises(_locks.Unavailable):
        _locks.held([A], Deadline(0))


def test_the_directory_is_checked_even_if_the_lock_file_exists():
    _locks.held([A]).close()
    real = f"{_locks.DIRECTORY}.real"
    os.rename(_locks.DIRECTORY, real)
    os.symlink(real, _locks.DIRECTORY)
    with pytest.raises(WrongDevice, match="not a directory"):
        _locks.held([A])


def test_no_other_code_opens_the_lock_file_by_any_path(child, tmp_path, monkeypatch):
    monkeypatch.setattr(run_directory, "LOCK_FILE", f"{_locks.DIRECTORY}/bytes")
    with _locks.held([A]):
        os.link(f"{_locks.DIRECTORY}/bytes", tmp_path / "image.raw")
        os.symlink(f"{_locks.DIRECTORY}/bytes", tmp_path / "link.raw")
        for path in (f"{_locks.DIRECTORY}/bytes", tmp_path / "image.raw", tmp_path / "link.raw"):
            with pytest.raises(InvalidValue, match="lock file"):
                backing.Backing(str(path), read_only=True)
        assert child(lambda say: say(str(_locks.Locks().try_take(A)))).hear() == "False"


def test_taking_many_locks_stops_at_the_first_that_another_run_has(child):
    locks = sorted((_locks.Lock(f"many {number}", "it") for number in range(9)), key=lambda lock: lock.offset)
    other = child(holder(locks[5]))
    assert other.hear() == "held"
    assert _locks._state().take_many([lock.offset for lock in locks]) == 5
    assert child(taker(*locks[:6])).hear() == "no no no no no no"
    _locks._state().release_many([lock.offset for lock in locks[:5]])
    with pytest.raises(_locks.Unavailable):
        _locks.held(locks, Deadline(0))
    assert child(taker(*locks)).hear() == "yes yes yes yes yes no yes yes yes", (
        "none of a list that is not had"
    )
