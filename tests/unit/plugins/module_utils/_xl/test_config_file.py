# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading and replacing the file of a configuration, on the file system of this machine."""

from __future__ import annotations

import os
import stat

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    DeviceBusy,
    InvalidValue,
    KernelError,
)
from ansible_collections.racefree.block.plugins.module_utils._xl import config_file


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "web1.cfg"
    path.write_bytes(b"name = 'web1'\n")
    return path


def test_owner_mode_and_attributes_stay(file):
    os.chmod(file, 0o640)
    if os.geteuid() == 0:
        os.chown(file, 12, 34)
    os.setxattr(file, "user.note", b"kept")
    old = config_file.read(str(file), "config_file")
    new = config_file.write(old, b"name = 'web2'\n", "config_file")
    there = os.stat(file)
    assert file.read_bytes() == new.text == b"name = 'web2'\n"
    assert stat.S_IMODE(there.st_mode) == 0o640 and (there.st_uid, there.st_gid) == old.there[4:6]
    assert os.getxattr(file, "user.note") == b"kept"
    assert there.st_ino != old.there.st_ino and os.listdir(file.parent) == ["web1.cfg"]


def test_a_symbolic_link_is_kept(file, tmp_path):
    link = tmp_path / "auto"
    link.symlink_to("web1.cfg")
    config_file.write(config_file.read(str(link), "config_file"), b"", "config_file")
    assert link.is_symlink() and file.read_bytes() == b""
    assert config_file.lock_of(str(link))[0].name == config_file.lock_of(str(file))[0].name


@pytest.mark.parametrize("change", ["content", "replaced", "gone"])
def test_a_concurrent_change_is_not_overwritten(file, change):
    old = config_file.read(str(file), "config_file")
    if change == "content":
        file.write_bytes(b"name = 'mine'\n")
    elif change == "replaced":
        (file.parent / "new").write_bytes(old.text)
        os.rename(file.parent / "new", file)
    else:
        file.unlink()
    names = sorted(os.listdir(file.parent))
    with pytest.raises(KernelError if change == "gone" else DeviceBusy):
        config_file.write(old, b"", "config_file")
    assert sorted(os.listdir(file.parent)) == names
    assert change == "gone" or file.read_bytes() != b""


def test_the_temporary_file_of_a_killed_run_is_removed(file):
    for name in (".web1.cfg.racefree-1-00000000", ".web2.cfg.racefree-1-00000000", "web1.cfg.racefree-1"):
        (file.parent / name).write_bytes(b"")
    config_file.write(config_file.read(str(file), "config_file"), b"x = 1\n", "config_file")
    assert sorted(os.listdir(file.parent)) == [
        ".web2.cfg.racefree-1-00000000",
        "web1.cfg",
        "web1.cfg.racefree-1",
    ]


def test_files_that_cannot_be_replaced(file, tmp_path):
    with pytest.raises(KernelError, match="read the configuration.*ENOENT.*config_file"):
        config_file.read(str(tmp_path / "none.cfg"), "config_file")
    with pytest.raises(InvalidValue, match="is a directory, and must be a regular file"):
        config_file.read(str(tmp_path), "config_file")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InvalidValue, match="is a FIFO"):
        config_file.read(str(tmp_path / "fifo"), "config_file")
    os.link(file, tmp_path / "other")
    with pytest.raises(InvalidValue, match="has several hard links"):
        config_file.read(str(file), "config_file")
