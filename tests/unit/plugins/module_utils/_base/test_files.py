# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files that are written atomically."""

from __future__ import annotations

import os
import resource
import signal

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.files import write_whole


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize("temporary", [None, ".x"])
def test_a_file_is_replaced(tmp_path, temporary, sync):
    path = tmp_path / "record"
    for text in ("first\n", "", "\u00e4\udcff" * 50000):
        write_whole(str(path), text, temporary and str(tmp_path / temporary), sync)
        assert path.read_bytes() == text.encode("utf-8", "surrogateescape")
        assert path.stat().st_mode & 0o7777 == 0o600
        assert os.listdir(tmp_path) == ["record"]


def test_a_temporary_file_of_a_killed_run_is_replaced_not_written_to(tmp_path):
    path, other = tmp_path / "record", tmp_path / "other"
    other.write_text("kept")
    os.symlink(other, tmp_path / "record.new")
    write_whole(str(path), "text")
    assert (path.read_text(), other.read_text(), path.is_symlink()) == ("text", "kept", False)


def test_a_failed_write_leaves_the_file_unchanged(tmp_path):
    path = tmp_path / "record"
    path.write_text("before")
    child = os.fork()
    if not child:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            write_whole(str(path), "x" * 10000)
        except OSError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["record"]
