# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which loop devices are asked, how often, and what counts; the storage is played."""

from __future__ import annotations

import errno
import os
import time

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import DeadlineExceeded, KernelError
from ansible_collections.racefree.block.plugins.module_utils._block import (
    bound,
    loop,
    loop_files,
    mounts,
    sysfs,
)

MOUNTS = [("/", 1, "ext4"), ("/a", 2, "nfs4"), ("/b", 3, "nfs4")]


class Host:
    """Loop devices by their names: the path of the file, and what they answer."""

    def __init__(self):
        self.paths, self.answers, self.forks, self.diskseq = {}, {}, 0, "1"

    def add(self, name, path, answer):
        self.paths[name], self.answers[name] = path, answer

    def read(self, path):
        name = path.split("/")[3]
        return self.paths.get(name) if path.endswith("backing_file") else self.diskseq

    def read_status(self, name):
        answer = self.answers[name]
        if answer == "silent":
            time.sleep(600)
        if isinstance(answer, OSError):
            raise loop._no_status(answer, f"/dev/{name}", 7) from answer
        return answer

    def lstat(self, path):
        if "nowhere" in path:
            raise FileNotFoundError(errno.ENOENT, "nowhere")
        if "silent" in path:
            time.sleep(600)


@pytest.fixture
def host(monkeypatch):
    played, real = Host(), loop_files.each_in_time

    def counted(*words):
        played.forks += 1
        return real(*words)

    for module, name, value in (
        (bound, "read_paths", lambda: dict(played.paths)),
        (sysfs, "read", played.read),
        (mounts, "read", lambda: MOUNTS),
        (loop, "read_status", played.read_status),
        (os, "lstat", played.lstat),
        (loop_files, "each_in_time", counted),
        (loop_files, "_ANSWER_SECONDS", 0.3),
        (loop_files, "_SILENT", {}),
    ):
        monkeypatch.setattr(module, name, value)
    return played


FAILED = loop.NoAnswer(errno.ENOTCONN, "dead")


def test_local_files_need_no_child(host):
    host.add("loop0", "/x", {"lo_inode": 4})
    host.add("loop1", "/x2", FAILED)
    host.add("loop2", None, None)
    files = loop_files.LoopFiles()
    assert files.status("loop0") == {"lo_inode": 4} and files.status("loop2") is None
    with pytest.raises(KernelError, match="/dev/loop1: .*has failed"):
        files.status("loop1")
    assert not host.forks


def test_one_child_asks_all_of_those_with_servers(host):
    for at in range(4):
        host.add(f"loop{at}", f"/a/{at}", {"lo_inode": at})
    host.add("loop4", "/b/4", FAILED)
    files = loop_files.LoopFiles()
    assert [files.status(f"loop{at}") for at in range(5)] == [*({"lo_inode": at} for at in range(4)), (3,)]
    assert host.forks == 1
    host.diskseq, host.answers["loop2"] = "2", {"lo_inode": 9}
    assert files.status("loop2") == {"lo_inode": 9}, "it has another file now"


def test_silent_storage_is_waited_for_once(host):
    for at in range(3):
        host.add(f"loop{at}", f"/a/silent{at}", "silent")
    host.add("loop3", "/b/3", {"lo_inode": 3})
    started = time.monotonic()
    for files in loop_files.LoopFiles(), loop_files.LoopFiles():
        assert [files.status(f"loop{at}") for at in range(4)] == [(2,), (2,), (2,), {"lo_inode": 3}]
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("answer, error", [(FAILED, KernelError), ("silent", DeadlineExceeded)])
def test_a_path_that_leads_nowhere_tells_no_file_system(host, answer, error):
    host.add("loop0", "/a/nowhere", answer)
    host.add("loop1", "/a/nowhere/x (deleted)", answer)
    host.add("loop2", "/a/there/nowhere (deleted)", answer)
    host.add("loop3", "/a/3", {"lo_inode": 3})
    files = loop_files.LoopFiles()
    # Others are not stopped.
    assert files.status("loop3") == {"lo_inode": 3}
    for name in ("loop0", "loop1"):
        if not (answer == "silent" and name == "loop1"):
            with pytest.raises(error, match=f"/dev/{name}: "):
                files.status(name)
    assert files.status("loop2") == (2,)


def test_other_errors_are_not_taken_for_dead_storage(host):
    host.add("loop0", "/a/0", OSError(errno.EACCES, "no"))
    host.add("loop1", "/a/1", None)
    files = loop_files.LoopFiles()
    assert files.status("loop1") is None
    with pytest.raises(KernelError) as caught:
        files.status("loop0")
    assert caught.value.errno == errno.EACCES
