# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The mount point, without mounting: its lock, and what is in the directory.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    DeviceBusy,
    KernelError,
    NotSupported,
    WrongDevice,
)
from ansible_collections.racefree.block.plugins.module_utils._by_diskseq import mount_point


def test_one_service_per_mount_point(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    held = mount_point.lock(path)
    with pytest.raises(DeviceBusy, match="is already running.*Stop that one"):
        mount_point.lock(path)
    os.close(held)
    os.close(mount_point.lock(path))
    with pytest.raises(KernelError, match="ENOENT"):
        mount_point.lock(str(tmp_path / "no" / "lock"))


def test_the_mounted_file_system_is_found() -> None:
    assert mount_point.mounted("/proc") is not None and mount_point.mounted("/no/such/place") is None


def test_another_file_system_is_left_mounted() -> None:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("FUSE is not available")
    before = mount_point.mounted("/proc")
    with pytest.raises(WrongDevice, match="something else is mounted here.*umount /proc"):
        mount_point.prepare("/proc", "racefree-by-diskseq")
    assert mount_point.mounted("/proc") == before


@pytest.mark.parametrize("path", ["relative", "/a/../b", "/a/", "", "//a/./b"])
def test_a_path_that_is_not_absolute_and_normalised(path: str) -> None:
    with pytest.raises(WrongDevice, match="absolute path"):
        mount_point.prepare(path, "x")


def test_an_error_if_fuse_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(mount_point, "_FUSE", str(tmp_path / "fuse"))
    with pytest.raises(NotSupported, match="modprobe fuse"):
        mount_point.prepare(str(tmp_path / "mount"), "x")
    assert not (tmp_path / "mount").exists()


def test_stale_links_below_the_mount_point_are_removed(tmp_path: Path) -> None:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("FUSE is not available")
    place = tmp_path / "by-diskseq"
    place.mkdir()
    for name in ("1", "2-part1"):
        (place / name).symlink_to("../../loop0")
    mount_point.prepare(str(place), "x")
    assert os.listdir(place) == []
    (place / "1").symlink_to("../../loop0")
    (place / "file").write_text("somebody's")
    with pytest.raises(WrongDevice, match="is not empty.*file"):
        mount_point.prepare(str(place), "x")
    assert sorted(os.listdir(place)) == ["1", "file"]


def test_unmounting_what_is_not_mounted(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="unmount"):
        mount_point.unmount(str(tmp_path))
