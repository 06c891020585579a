# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import KernelError
from ansible_collections.racefree.block.plugins.module_utils._process import identity
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import own_dev


@pytest.fixture
def child():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def test_a_process_is_killed(child):
    started = identity.start_time(child.pid)
    assert identity.end(child.pid, str(int(started) + 1)) is True
    assert child.poll() is None, "another start time is another process"
    assert identity.end(child.pid, started) is True and child.wait(30) == -9
    assert identity.start_time(child.pid) is None and identity.end(child.pid, started) is True


def test_out_of_descriptors_no_process_has_ended(child):
    """Otherwise the process would seem to have ended, and what it holds would seem to be free."""
    started, limit = identity.start_time(child.pid), resource.getrlimit(resource.RLIMIT_NOFILE)
    first_free = os.dup(0)
    os.close(first_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first_free, limit[1]))
    try:
        for ask in (lambda: identity.start_time(child.pid), lambda: identity.end(child.pid, started)):
            with pytest.raises(KernelError, match="EMFILE"):
                ask()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert child.poll() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace needs root")
def test_without_proc_no_process_has_ended():
    def ask():
        own_dev.hide("/proc")
        try:
            return identity.start_time(1)
        except KernelError as error:
            return str(error)

    assert "cannot look at /proc/1/stat" in own_dev.run(ask)
