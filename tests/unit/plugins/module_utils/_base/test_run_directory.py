# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import ast
import os
import stat
from pathlib import Path

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base import run_directory
from ansible_collections.racefree.block.plugins.module_utils._base.errors import KernelError, WrongDevice


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(run_directory, "ROOT", str(tmp_path / "racefree-block"))
    return tmp_path / "racefree-block"


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def make(path, umask):
    before = os.umask(umask)
    try:
        run_directory.make(str(path))
    finally:
        os.umask(before)


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777])
def test_the_mode_does_not_depend_on_the_umask(root, umask):
    make(root / "libvirt", umask)
    assert (mode(root), mode(root / "libvirt")) == (0o755, 0o700)


def test_a_wrong_mode_is_corrected(root):
    (root / "libvirt").mkdir(parents=True)
    root.chmod(0o777)
    (root / "libvirt").chmod(0o777)
    make(root / "libvirt", 0o022)
    assert (mode(root), mode(root / "libvirt")) == (0o755, 0o700)


def test_parent_directories_are_left_unchanged(root, tmp_path):
    tmp_path.chmod(0o1777)
    make(root / "libvirt", 0)
    assert mode(tmp_path) == 0o1777


def test_a_symbolic_link_instead_of_the_directory(root, tmp_path):
    root.mkdir()
    (tmp_path / "elsewhere").mkdir(mode=0o755)
    (root / "libvirt").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WrongDevice, match="not a directory"):
        make(root / "libvirt", 0)
    assert mode(tmp_path / "elsewhere") == 0o755


def test_a_file_instead_of_the_directory(root):
    root.mkdir()
    (root / "libvirt").write_text("")
    with pytest.raises(WrongDevice, match="not a directory"):
        make(root / "libvirt", 0)
    with pytest.raises(KernelError, match="ENOTDIR"):
        make(root / "libvirt" / "below", 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user(root):
    (root / "libvirt").mkdir(parents=True)
    os.chown(root / "libvirt", 65534, 65534)
    with pytest.raises(WrongDevice, match="belongs to the user 65534"):
        make(root / "libvirt", 0)
    assert os.stat(root / "libvirt").st_uid == 65534


def test_no_other_code_creates_directories():
    """
    Any other mkdir would depend on the umask. Exceptions are directories that only root needs (_block.node,
    _block.seal.attachment), and the mount point of a file system (_by_diskseq.mount_point).
    """
    library = Path(run_directory.__file__).parents[1]
    calls = [
        f"{path.relative_to(library)}:{node.lineno}"
        for path in sorted(library.rglob("*.py"))
        if path.name not in ("run_directory.py", "node.py", "attachment.py", "mount_point.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
        and node.attr in ("mkdir", "makedirs")
    ]
    assert calls == []
