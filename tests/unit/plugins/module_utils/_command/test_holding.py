# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A process that holds descriptors until another one has ended."""

from __future__ import annotations

import os
import subprocess
import time

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import KernelError
from ansible_collections.racefree.block.plugins.module_utils._command import holding


def at_end(pipe: int, seconds: float) -> bool:
    """Whether all other ends of the pipe are closed within that time."""
    os.set_blocking(pipe, False)
    end = time.monotonic() + seconds
    while True:
        try:
            return os.read(pipe, 1) == b""
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(0.01)


def test_it_holds_until_the_process_ends_and_nothing_else():
    reader, writer = os.pipe()
    other, unrelated = os.pipe()
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            holder, released = holding.hold_until_ended([writer], process.pid)
            assert os.path.exists(f"/proc/{holder}/fd/{writer}")
            os.close(writer)
            os.close(unrelated)
            assert at_end(other, 5), "it holds a descriptor that it was not given"
            assert not at_end(reader, 0.2) and not at_end(released, 0)
        finally:
            process.kill()
        os.set_blocking(released, True)
        assert os.read(released, 1) == b""
        # Whoever sees the end of that pipe finds the descriptors closed.
        assert at_end(reader, 0)
    for fd in (reader, other, released):
        os.close(fd)
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as children:
        assert children.read().split() == []


def test_a_process_that_is_gone():
    process = subprocess.Popen(["true"])
    process.wait()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(KernelError, match="ESRCH"):
        holding.hold_until_ended([0], process.pid)
    assert len(os.listdir("/proc/self/fd")) == before
