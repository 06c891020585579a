# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
How xl is called, with a script in its place. What xl itself does is tested on emulated hosts
(tests/host/test_xl_disk.py).
"""

from __future__ import annotations

import os
import signal
import time

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    DeadlineExceeded,
    GuestError,
    NotSupported,
)
from ansible_collections.racefree.block.plugins.module_utils._xl import xl_command


@pytest.fixture
def xl(tmp_path, monkeypatch):
    """A function that makes a script with these lines the program xl; the directory for its files."""
    monkeypatch.setattr(xl_command, "_PATH", f"{tmp_path}:{xl_command._PATH}")

    def write(*lines):
        file = tmp_path / "xl"
        file.write_text("\n".join(("#!/bin/sh", *lines, "")), encoding="utf-8")
        file.chmod(0o755)
        return tmp_path

    return write


def test_words_and_environment(xl):
    place = xl('echo "$*" "$LC_ALL" >"${0%/*}/said"')
    xl_command.attach(3, "vdev=xvdb", "xvdb", 5)
    xl_command.detach(3, 51728, "xvdb", 5)
    assert (place / "said").read_text() == "block-detach 3 51728 C\n"


def test_its_message_is_part_of_the_error(xl):
    xl("echo one; echo two >&2; exit 3")
    with pytest.raises(GuestError, match="xl block-attach failed: one two"):
        xl_command.attach(3, "vdev=xvdb", "xvdb", 5)
    xl("exit 3")
    with pytest.raises(GuestError, match="without a message"):
        xl_command.attach(3, "vdev=xvdb", "xvdb", 5)


def test_missing_or_slow(xl, tmp_path, monkeypatch):
    monkeypatch.setattr(xl_command, "LEAST_SECONDS", 0.2)
    xl("exec sleep 60")
    with pytest.raises(DeadlineExceeded):
        xl_command.detach(3, 51728, "xvdb", 0.2)
    monkeypatch.setattr(xl_command, "_PATH", f"{tmp_path}/none")
    with pytest.raises(NotSupported, match="xl is missing"):
        xl_command.detach(3, 51728, "xvdb", 5)


@pytest.mark.parametrize("whole_group", [False, True])
def test_it_goes_on_when_its_caller_is_killed(xl, whole_group):
    """Otherwise a disk could be left half attached."""
    place = xl(
        'touch "${0%/*}/started"',
        'while [ ! -e "${0%/*}/go" ]; do sleep 0.02; done',
        "echo a word",
        "echo another",
        'touch "${0%/*}/done"',
    )
    pid = os.fork()
    if not pid:
        os.setpgid(0, 0)
        xl_command.attach(3, "vdev=xvdb", "xvdb", 30)
        os._exit(0)
    wait_for(place / "started")
    (os.killpg if whole_group else os.kill)(pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    (place / "go").touch()
    wait_for(place / "done")


def wait_for(path):
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end, f"timed out after 20 s waiting for {path}"
        time.sleep(0.01)
