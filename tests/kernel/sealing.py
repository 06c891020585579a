# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Shared by the tests of seals.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base import locks as _locks
from ansible_collections.racefree.block.plugins.module_utils._base.deadline import Deadline
from ansible_collections.racefree.block.plugins.module_utils._block.seal import (
    attachment,
    keeper,
    place,
    seals,
)
from conftest import state_of, wait_until


@pytest.fixture
def nothing_sealed():
    """
    Make sure that a file system of type bpf is mounted, and that nothing is sealed before and after a test.
    """
    mount_bpf()
    assert not os.path.exists(place.DIRECTORY)
    yield
    wait_until(lambda: seals.reap() >= 0 and not os.path.exists(place.DIRECTORY), 10)


def mount_bpf() -> None:
    if not os.path.ismount(place.BPF_FS):
        subprocess.run(["mount", "-t", "bpf", "bpf", place.BPF_FS], check=True)


def is_refused(path, flags=os.O_RDONLY):
    """Whether open(2) fails with EPERM. Any other error is raised."""
    try:
        os.close(os.open(path, flags))
    except PermissionError as error:
        assert error.errno == errno.EPERM
        return True
    return False


@contextlib.contextmanager
def no_keeper() -> Iterator[None]:
    """
    Hold the keeper's lock, so that other processes start no keeper, which takes a second. This process must
    not seal anything meanwhile.
    """
    with _locks.Locks() as locks:
        # A keeper that has just cleared away the last seal holds it for a moment.
        locks.take([keeper.LOCK], Deadline(20))
        yield


def keeper_pid() -> int | None:
    """The PID of the process that holds the keeper's lock, or None."""
    with _locks.Locks() as locks:
        if locks.try_take(keeper.LOCK):
            return None
        words = _locks.holder_of(keeper.LOCK.offset).split()
    # If it has just ended, there is no PID in the text.
    return int(words[1]) if words[0] == "process" else None


@contextlib.contextmanager
def stopped_keeper() -> Iterator[None]:
    """The keeper is stopped, at a moment when it does not hold the lock of the seals."""
    pid = keeper_pid()
    assert pid is not None
    try:
        while True:
            os.kill(pid, signal.SIGSTOP)
            # Until it has been scheduled again, it can still take the lock.
            while state_of(pid) != "T":
                time.sleep(0.001)
            with _locks.Locks() as locks:
                if locks.try_take(attachment.LOCK):
                    break
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.01)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
