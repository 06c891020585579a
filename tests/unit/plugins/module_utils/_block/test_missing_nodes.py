# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Devices whose node in /dev is missing or belongs to another device: they are found in sysfs and opened anyway,
or an error names the node.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    DeadlineExceeded,
    DeviceGone,
    KernelError,
    WrongDevice,
)
from ansible_collections.racefree.block.plugins.module_utils._block import backing as _backing
from ansible_collections.racefree.block.plugins.module_utils._block import (
    bind,
    bound,
    loop,
    loop_index,
    node,
    sysfs,
)
from ansible_collections.racefree.block.plugins.module_utils._block import detach as _detach
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.plugins.modules import device_info, loop_device
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices, own_dev
from ansible_collections.racefree.block.tests.unit.plugins.module_utils._module.test_runner import run

# Not a loop device's number: opening that would create the device.
NOBODYS = os.makedev(4000, 1)


class Disk:
    """A bound loop device, and another one whose node can replace its own."""

    def __init__(self, place):
        self.image = loopdevices.image(place, "disk", content=b"disk")
        self.other_fd, self.other = loopdevices.bind_free(loopdevices.image(place, "other"))
        fd, self.number = loopdevices.bind_free(self.image, flags=0)
        self.node, self.diskseq = f"/dev/loop{self.number}", loopdevices.diskseq_of(fd)
        os.close(fd)

    def close(self):
        os.close(self.other_fd)
        if loopdevices.bound_files(self.image):
            fd = os.open(self.node, os.O_RDONLY)
            fcntl.ioctl(fd, loopdevices.LOOP_CLR_FD)
            os.close(fd)

    @property
    def is_bound(self):
        return bool(loopdevices.bound_files(self.image))

    def open(self, **options):
        return _device.open_diskseq(self.diskseq, **options)


@pytest.fixture
def disk(place):
    made = Disk(place)
    yield made
    made.close()


def missing(disk):
    pass


def another_disks(disk):
    os.mknod(disk.node, stat.S_IFBLK | 0o600, os.makedev(7, disk.other))


def nobodys(disk):
    """A node with a number that no device has."""
    os.mknod(disk.node, stat.S_IFBLK | 0o600, NOBODYS)


def a_file(disk):
    with open(disk.node, "xb"):
        pass


def a_fifo(disk):
    os.mkfifo(disk.node)


def a_link(disk):
    os.symlink(f"loop{disk.other}", disk.node)


FOREIGN = [another_disks, nobodys, a_file, a_fifo, a_link]
LOST = [missing, *FOREIGN]
each_way = pytest.mark.parametrize("way", LOST, ids=lambda way: way.__name__)


def without_node(disk, way, function, **options):
    """The result of ``function()`` in a /dev in which the disk's node is missing or wrong in that way."""

    def work():
        if os.path.lexists(disk.node):
            os.unlink(disk.node)
        way(disk)
        before = sorted(os.listdir("/dev"))
        value = function()
        assert sorted(os.listdir("/dev")) == before, "no node of ours is left, and none is taken away"
        return value

    return own_dev.run(work, **options)


@each_way
def test_open_by_diskseq_and_by_number(disk, way):
    def look():
        for ask in (disk.open, lambda **more: _device.open_number(7, disk.number, **more)):
            with ask() as device, ask(writable=True) as again:
                assert device.id.diskseq == again.id.diskseq == disk.diskseq
                assert os.pread(device.fd, 4, 0) == b"disk"
                assert not device.has_node and device.as_dict()["path"] is None
        return device.name

    assert without_node(disk, way, look) == f"loop{disk.number}"


@each_way
def test_open_by_the_path_of_the_missing_node(disk, way):
    """
    The kernel's name of a device means that device. A node of another device does not change that, and a
    missing node does not mean that the device is gone.
    """
    link = f"{os.path.dirname(disk.image)}/link"
    os.symlink(disk.node, link)

    def look(path):
        with _device.open_path(path) as device:
            return device.id.diskseq

    for path in (disk.node, link):
        if way is missing:
            assert without_node(disk, way, lambda path=path: look(path)) == disk.diskseq
        else:

            def refused(path=path):
                try:
                    look(path)
                except DeviceGone:
                    raise
                except Exception as error:
                    return str(error)

            expected = (
                "must be a block device"
                if way in (a_file, a_fifo)
                else f"mknod {disk.node} b 7 {disk.number}"
            )
            assert expected in without_node(disk, way, refused)


def test_a_node_of_no_device(disk):
    """Outside /dev, or with a name that is not the kernel's, a node means no device."""

    def look():
        os.mknod("/dev/mine", stat.S_IFBLK | 0o600, NOBODYS)
        try:
            _device.open_path("/dev/mine")
        except DeviceGone as error:
            return error.errno_name
        finally:
            os.unlink("/dev/mine")

    assert without_node(disk, missing, look) == "ENXIO"


@each_way
def test_the_bound_device_of_a_file_is_found(disk, way):
    def look():
        with _backing.Backing(disk.image) as backing:
            found = loop_index.find(backing)
        for device, dummy in found:
            device.close()
        files = {(backing.device, backing.inode)}
        return [device.id.diskseq for device, dummy in found], bound.bound_numbers(files)

    assert without_node(disk, way, look) == ([disk.diskseq], [disk.number])


@each_way
@pytest.mark.parametrize("by", ["diskseq", "backing_file", "path"])
def test_absent_removes_the_device_or_fails(disk, way, by):
    arguments = {by: {"diskseq": disk.diskseq, "backing_file": disk.image, "path": disk.node}[by]}
    result = without_node(disk, way, lambda: run(loop_device.main, state="absent", **arguments))[0]
    if by == "path" and way is not missing:
        assert result["failed"] and disk.node in result["msg"] and disk.is_bound
    else:
        assert result["changed"] and result["gone"] and not disk.is_bound


@each_way
def test_present_creates_no_second_device(disk, way):
    result = without_node(disk, way, lambda: run(loop_device.main, backing_file=disk.image))[0]
    assert result["failed"] and f"mknod {disk.node} b 7 {disk.number}" in result["msg"]
    assert set(loopdevices.bound_files(disk.image)) == {disk.number}


@each_way
def test_device_info_lists_the_device(disk, way):
    def look(**arguments):
        result = run(device_info.main, diff=False, features=False, **arguments)[0]
        return [device for device in result["devices"] if device["diskseq"] == disk.diskseq]

    for arguments in ({}, {"diskseq": disk.diskseq}):
        found = without_node(disk, way, lambda arguments=arguments: look(**arguments))
        shown = [(row["name"], row["path"], row["backing_file"]) for row in found]
        assert shown == [(f"loop{disk.number}", None, disk.image)]


@each_way
def test_detach_restores_a_device_in_use(disk, way):
    def detach():
        holder = os.open(f"/proc/self/fd/{user}", os.O_RDONLY)
        try:
            _detach.detach(disk.open(), timeout=0.1)
        except Exception as error:
            return str(error)
        finally:
            os.close(holder)

    user = os.open(disk.node, os.O_RDONLY)
    try:
        assert "it is in use" in without_node(disk, way, detach)
        with disk.open() as device:
            assert not loop.info(device).autoclear
    finally:
        os.close(user)


def test_device_nodes_cannot_be_opened(disk):
    """The error names the node, and what to do."""

    def look():
        try:
            disk.open()
        except KernelError as error:
            return str(error)

    told = without_node(disk, missing, look, nodev=True)
    assert told.startswith(f"{disk.node}: its node in /dev is missing")
    assert f"mknod {disk.node} b 7 {disk.number}" in told


def test_private_nodes_of_killed_processes_are_removed(disk):
    def look():
        for name, age in (("old", 3600), ("new", 0)):
            os.mkdir(f"{node._DIRECTORY}{name}")
            os.mknod(f"{node._DIRECTORY}{name}/node", stat.S_IFBLK, os.makedev(7, 0))
            os.utime(f"{node._DIRECTORY}{name}", (time.time() - age,) * 2)
        disk.open().close()
        left = [name for name in os.listdir("/dev") if name.startswith(".racefree-")]
        node._remove(f"{node._DIRECTORY}new")
        return left

    assert without_node(disk, missing, look) == [".racefree-new"]


# A free number


def attach_on(number, path, seconds=20):
    """Bind this loop device, as if it were the next free one."""

    class Control(bind._Control):
        def free_number(self):
            return number

    real, bind._Control = bind._Control, Control
    try:
        with _backing.Backing(path) as backing, bind.attach(backing, seconds=seconds) as device:
            there = os.stat(device.path)
            return device.name, device.path, there.st_rdev == device.id.rdev, device.as_dict()["path"]
    finally:
        bind._Control = real


def test_a_free_number_without_a_node_gets_one(place):
    path = loopdevices.image(place, "disk")
    with loopdevices.own_number() as number, loopdevices.at_most(15):

        def attach():
            os.unlink(f"/dev/loop{number}")
            return attach_on(number, path)

        assert own_dev.run(attach) == (f"loop{number}", f"/dev/loop{number}", True, f"/dev/loop{number}")


def test_a_free_number_when_no_node_can_be_created(place):
    path = loopdevices.image(place, "disk")
    with loopdevices.own_number() as number, loopdevices.at_most(15):

        def attach():
            os.unlink(f"/dev/loop{number}")
            own_dev.read_only()
            try:
                attach_on(number, path)
            except KernelError as error:
                return str(error)

        assert f"mknod /dev/loop{number} b 7 {number}" in own_dev.run(attach)


@pytest.mark.parametrize("way", FOREIGN, ids=lambda way: way.__name__)
def test_a_free_number_with_a_wrong_node(disk, place, way):
    """The error comes at once, not after the time limit, and nothing is bound through the wrong node."""
    path = loopdevices.image(place, "new")
    with loopdevices.own_number() as number, loopdevices.at_most(15):
        disk.node = f"/dev/loop{number}"

        def attach():
            os.unlink(disk.node)
            way(disk)
            try:
                attach_on(number, path)
            except (KernelError, WrongDevice) as error:
                return str(error)

        assert disk.node in own_dev.run(attach)
    disk.node = f"/dev/loop{disk.number}"
    assert not loopdevices.bound_files(path)


def test_a_removed_number_leaves_no_node(place):
    """The device is gone, and so is its node. A node created meanwhile would stay."""
    path = loopdevices.image(place, "disk")

    def attach():
        try:
            attach_on(1 << 18, path, seconds=0.2)
        except DeadlineExceeded:
            return os.path.lexists(f"/dev/loop{1 << 18}")

    assert own_dev.run(attach) is False


# Errors of sysfs


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.EIO, errno.ENOMEM])
def test_an_error_does_not_count_as_gone(disk, monkeypatch, number):
    """For each call that examines something: the error names what could not be examined."""

    def fails(path, *words, **more):
        raise OSError(number, os.strerror(number), path)

    base = f"/sys/dev/block/7:{disk.number}"
    for name, ask in (
        ("readlink", lambda: sysfs.kernel_name(7, disk.number)),
        ("stat", bound.bound_numbers),
        ("listdir", lambda: _device.open_diskseq(disk.diskseq)),
        ("open", lambda: loop.read_status(f"loop{disk.number}")),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fails)
            with pytest.raises(KernelError) as caught:
                ask()
            assert caught.value.errno == number
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fails)
        for ask in (
            lambda: sysfs.read(base + "/diskseq"),
            lambda: sysfs.diskseq_of(7, disk.number),
            lambda: _device.open_diskseq(disk.diskseq),
        ):
            with pytest.raises(KernelError) as caught:
                ask()
            assert caught.value.errno == number


def test_without_sysfs_no_device_counts_as_gone(disk):
    def look():
        own_dev.hide("/sys")
        told = []
        for ask in (
            disk.open,
            lambda: _device.open_number(7, disk.number),
            lambda: sysfs.diskseq_of(7, disk.number),
            bound.bound_numbers,
        ):
            try:
                ask()
                told.append("an answer")
            except KernelError as error:
                told.append(error.message)
        return set(told)

    assert own_dev.run(look) == {"sysfs, which lists the devices, is not mounted"}
