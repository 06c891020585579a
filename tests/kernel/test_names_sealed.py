# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Names of sealed devices: they exist, and opening them fails as opening the node does.
"""

from __future__ import annotations

import os
import subprocess

import pytest
from conftest import read_device, run_module
from names_service import service
from sealing import is_refused, nothing_sealed

pytest.importorskip("pyfuse3")
pytestmark = pytest.mark.usefixtures(nothing_sealed.__name__)


@pytest.fixture
def names():
    with service("--grace-ms", "20") as started:
        yield started
        assert started.stop() == 0
        assert started.said() == ""


def test_a_sealed_mapped_device(names, name, cleanup):
    cleanup(dm=name)
    device = run_module("dm_device", name=name, table="0 2048 zero", sealed=True)["device"]
    path = names.path(device["diskseq"])
    assert os.lstat(path).st_rdev == os.makedev(device["major"], device["minor"])
    assert str(device["diskseq"]) in os.listdir(names.mount)
    for flags in (os.O_RDONLY, os.O_RDWR):
        assert is_refused(path, flags) and is_refused(device["path"], flags)
    # A mapped device over the name is refused, too.
    table = f"0 8 linear {path} 0"
    assert subprocess.run(
        ["dmsetup", "create", f"{name}-2", "--table", table], check=False, capture_output=True
    ).returncode
    assert names.no_pins()
    # The collection itself can open it by its name.
    assert run_module("device_info", path=path)["devices"][0]["diskseq"] == device["diskseq"]
    run_module("dm_device", name=name, sealed=False)
    assert read_device(path, 0, 4) == bytes(4) and names.no_pins()


def test_sealed_while_its_name_is_open(names, image, cleanup):
    path = image(content=b"hello")
    cleanup(loop=path)
    device = run_module("loop_device", backing_file=path)["device"]
    name = names.path(device["diskseq"])
    with open(name, "rb") as opened:
        run_module("loop_device", backing_file=path, sealed=True)
        assert is_refused(name) and opened.read(5) == b"hello"
    # The removal does not wait for the name.
    assert run_module("loop_device", backing_file=path, state="absent")["gone"]
    assert not os.path.exists(name) and names.no_pins()
