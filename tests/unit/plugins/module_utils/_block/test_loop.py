# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real loop devices: what they report, and settings that can be changed."""

from __future__ import annotations

import errno
import os

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    DeviceGone,
    KernelError,
    NotSupported,
)
from ansible_collections.racefree.block.plugins.module_utils._block import backing as _backing
from ansible_collections.racefree.block.plugins.module_utils._block import (
    bind,
    bound,
    loop,
)
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.attached_loops import attach, find

pytestmark = pytest.mark.usefixtures("no_descriptor_leaks")


SIZE = 65536


def test_attach_and_info(place):
    path = loopdevices.image(place, "disk", content=b"hello")
    with attach(path) as device:
        there = os.stat(path)
        info = loop.info(device)
        assert info == loop.LoopInfo(device.id.minor, there.st_dev, there.st_ino, 0, 0, loopdevices.AUTOCLEAR)
        assert (info.read_only, info.autoclear, info.partitions, info.direct_io) == (
            False,
            True,
            False,
            False,
        )
        assert loop.is_loop(device) and loop.backing_path(device) == path
        assert (device.size, device.logical_block, device.writable) == (SIZE, 512, True)
        assert device.id.minor in bound.bound_numbers()
        assert os.pread(device.fd, 5, 0) == b"hello"
        os.pwrite(device.fd, b"HELLO", 0)
        os.fsync(device.fd)
    with open(path, "rb") as file:
        assert file.read(5) == b"HELLO"
    assert loopdevices.nothing_bound(place), "it goes with its last user"


def test_direct_io(tmp_path):
    loopdevices.need_loop()
    path = loopdevices.image(tmp_path, "disk")
    with _backing.Backing(path) as backing:
        try:
            _backing.check_direct_io(backing)
        except NotSupported:
            pytest.skip("the file system of the temporary directory has no direct I/O")
        with bind.attach(backing, direct_io=True, sector_size=4096) as device:
            assert loop.info(device).direct_io
            loop.set_direct_io(device, False)
            assert not loop.info(device).direct_io
            loop.set_direct_io(device, True)
            assert loop.info(device).direct_io
    assert loopdevices.nothing_bound(tmp_path)


def test_autoclear(place):
    path = loopdevices.image(place, "disk")
    device = attach(path)
    identity = device.id
    assert loop.info(device).autoclear
    for wanted in (False, False, True, True, False):
        loop.set_autoclear(device, wanted)
        assert loop.info(device).autoclear == wanted
        assert loopdevices.diskseq_of(device.fd) == identity.diskseq
    device.close()
    assert find(path) == [identity.minor], "without autoclear it stays"
    with _device.open_diskseq(identity.diskseq) as device:
        loop.set_autoclear(device, True)
    assert loopdevices.nothing_bound(place)


def test_partitions_can_be_enabled(place):
    with attach(loopdevices.image(place, "disk")) as device:
        loop.set_partitions(device)
        assert loop.info(device).partitions and loop.info(device).autoclear


def test_capacity_follows_the_file(place):
    path = loopdevices.image(place, "disk")
    with attach(path) as device:
        os.truncate(path, 2 * SIZE)
        assert device.size == SIZE
        loop.set_capacity(device)
        assert device.size == 2 * SIZE
        assert loopdevices.diskseq_of(device.fd) == device.id.diskseq


def test_info_of_a_loop_device_without_a_file(place):
    with loopdevices.own_number() as number, _device.open_path(f"/dev/loop{number}") as device:
        with pytest.raises(DeviceGone, match="no file is bound"):
            loop.info(device)
        assert loop.backing_path(device) is None and number not in bound.bound_numbers()


def test_errors_name_the_call_and_the_errno(place, monkeypatch):
    with loopdevices.own_number() as number, _device.open_path(f"/dev/loop{number}") as device:
        for function in (
            loop.set_capacity,
            loop.set_partitions,
            lambda unbound: loop.set_autoclear(unbound, True),
        ):
            with pytest.raises(KernelError) as caught:
                function(device)
            assert (
                caught.value.errno == errno.ENXIO
                and "ENXIO" in str(caught.value)
                and device.path in str(caught.value)
            )


def test_a_partition_is_not_a_loop_device():
    """With max_part, the partitions of loop devices have their major number."""
    number = _device.DeviceId(_device.LOOP_MAJOR, 17, 5)
    for name, expected in (("loop2", True), ("loop2p1", False)):
        assert loop.is_loop(_device.Device(-1, number, name)) is expected
