# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The file below a loop device: only regular files are opened."""

from __future__ import annotations

import errno
import os
import subprocess

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    InvalidValue,
    KernelError,
    NotSupported,
)
from ansible_collections.racefree.block.plugins.module_utils._block import backing as _backing
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices

pytestmark = pytest.mark.usefixtures("no_descriptor_leaks")


@pytest.mark.parametrize(
    "name, content, word",
    [
        ("none", None, "does not exist"),
        ("dir", "dir", "directory"),
        ("fifo", "fifo", "FIFO"),
        ("/dev/zero", None, "character device"),
        ("socket", "socket", "socket"),
        ("link", "link", "FIFO"),
    ],
)
def test_only_regular_files_are_accepted(tmp_path, name, content, word):
    path = os.path.join(str(tmp_path), name)
    loopdevices.special_file(path, content)
    for read_only in (False, True):
        with loopdevices.at_most(5), pytest.raises(InvalidValue) as caught:
            _backing.Backing(path, read_only, option="source.file")
        assert word in str(caught.value) and caught.value.option == "source.file"


def test_files_that_are_not_regular_are_never_opened(tmp_path, monkeypatch):
    """A watchdog would start its countdown, and a tape would rewind."""
    opened, really = [], os.open

    def count(path, flags, *more, **named):
        opened.append((path, flags & os.O_PATH))
        return really(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", count)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InvalidValue):
        _backing.Backing(str(tmp_path / "fifo"))
    assert opened == [(str(tmp_path / "fifo"), os.O_PATH)]


def test_invalid_paths():
    for value in (None, 1, "", "disk.raw", "/srv/\0", "/srv/\udfff"):
        with pytest.raises(InvalidValue):
            _backing.Backing(value)


@pytest.mark.parametrize(
    "number, kind",
    [
        (errno.EINVAL, NotSupported),
        (errno.EOPNOTSUPP, NotSupported),
        (errno.EMFILE, KernelError),
        (errno.EIO, KernelError),
        (errno.EACCES, KernelError),
    ],
)
def test_only_two_errors_mean_that_there_is_no_direct_io(tmp_path, monkeypatch, number, kind):
    path = loopdevices.image(tmp_path, "disk")
    really = os.open

    def refuse(path, flags, *more, **named):
        if flags & os.O_DIRECT:
            raise OSError(number, os.strerror(number))
        return really(path, flags, *more, **named)

    with _backing.Backing(path) as backing:
        monkeypatch.setattr(os, "open", refuse)
        with pytest.raises(kind) as caught:
            _backing.check_direct_io(backing)
        monkeypatch.undo()
    assert caught.value.__class__ is kind and path in str(caught.value)
    assert ("direct I/O is not possible" in str(caught.value)) is (kind is NotSupported)


def test_a_file_that_is_being_executed_cannot_be_opened_for_writing(tmp_path):
    path = tmp_path / "program"
    with open("/bin/sleep", "rb") as source:
        path.write_bytes(source.read())
    path.chmod(0o700)
    with subprocess.Popen([path, "30"]) as process:
        try:
            with pytest.raises(InvalidValue, match="ETXTBSY.*read_only=true"):
                _backing.Backing(str(path))
            _backing.Backing(str(path), read_only=True).close()
        finally:
            process.kill()
