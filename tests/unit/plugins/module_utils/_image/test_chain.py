# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checksums of images, on real files."""

from __future__ import annotations

import errno
import hashlib
import os

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.deadline import Deadline
from ansible_collections.racefree.block.plugins.module_utils._image import chain

MIB = 2**20
SIZE = 64 * MIB + 5


@pytest.fixture(name="image")
def fixture_image(tmp_path):
    """A descriptor of a file that is a hole but for some data in the middle and at an odd place."""
    fd = os.open(tmp_path / "image", os.O_RDWR | os.O_CREAT)
    os.truncate(fd, SIZE)
    for at in (20 * MIB, 40 * MIB + 12345):
        os.pwrite(fd, b"data" * 1000, at)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("tells_holes", [True, False])
def test_holes_are_not_read(image, tmp_path, monkeypatch, tells_holes):
    """The checksum is the same. A sparse image of a terabyte would take hours."""
    wanted = hashlib.sha256((tmp_path / "image").read_bytes()).hexdigest()
    read, pread = [], os.pread
    monkeypatch.setattr(os, "pread", lambda *words: read.append(words) or pread(*words))

    def refuse(*dummy):
        raise OSError(errno.EINVAL, "no SEEK_DATA")

    if not tells_holes:
        monkeypatch.setattr(os, "lseek", refuse)
    assert chain.checksum(image, "image", SIZE, Deadline(30)) == wanted
    assert (len(read) < 10) is tells_holes


@pytest.mark.parametrize("size", [0, 3 * MIB])
def test_a_file_without_data(image, size):
    os.truncate(image, 0)
    os.truncate(image, size)
    assert chain.checksum(image, "image", size, Deadline(30)) == hashlib.sha256(bytes(size)).hexdigest()
