# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What the host itself uses is refused to guests of Xen, also through another device over the same storage. The
check needs no Xen.
"""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
from typing import NamedTuple

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import DeviceBusy
from ansible_collections.racefree.block.plugins.module_utils._block.device import Device
from ansible_collections.racefree.block.plugins.module_utils._source import resources
from ansible_collections.racefree.block.plugins.module_utils._xen import stack
from ansible_collections.racefree.block.plugins.module_utils._xen.sharing import Sharing
from conftest import open_device, run_module, udev_settle

MIB = 2**20
SECTORS = MIB // 512


class Request(NamedTuple):
    device: Device
    mode: str


def run(*argv, check=True):
    subprocess.run(argv, check=check, timeout=60)


@pytest.fixture(params=["file", "disk"])
def refused(request):
    """
    A function that returns why a device cannot be attached to a guest, or None. With ``disk``, loop devices
    count as disks, of which this kernel has no others.
    """

    def reason(path, mode="w"):
        with resources.Resources() as host, open_device(path) as device:
            questions = stack.questions(host)
            if request.param == "disk":
                questions = questions._replace(loop_of=lambda major, minor: None, others_loop_of=None)
            with Sharing(questions) as sharing:
                try:
                    sharing.prepare(Request(device, mode))
                except DeviceBusy as error:
                    return str(error)
        return None

    return reason


@pytest.fixture
def disk(image, cleanup):
    """A loop device of 32 MiB."""
    path = image("disk.raw", 32 * MIB)
    cleanup(loop=path)
    return run_module("loop_device", backing_file=path)["device"]["path"]


@pytest.fixture
def mapped(name, cleanup):
    """A function that makes a mapped device, given a part of its name and its table; its path."""

    def make(part, table, *options):
        full = f"{name}-{part}"
        run("dmsetup", "create", full, *options, "--table", table)
        cleanup(dm=full)
        udev_settle()
        return f"/dev/mapper/{full}"

    return make


@pytest.fixture
def mounted(tmp_path):
    """A context in which a device, which gets a file system, is mounted."""

    @contextlib.contextmanager
    def mount(path):
        place = tmp_path / "mounted"
        place.mkdir(exist_ok=True)
        run("mkfs.ext4", "-q", "-F", path)
        run("mount", path, str(place))
        try:
            yield
        finally:
            run("umount", str(place))

    return mount


def linear(below, start, size, at=0):
    """A table of ``size`` MiB from ``start`` MiB on."""
    return f"{at * SECTORS} {size * SECTORS} linear {below} {start * SECTORS}"


def test_another_mapped_device_over_the_same_storage_is_mounted(disk, mapped, mounted, refused):
    hosts, ours = mapped("host", linear(disk, 0, 16)), mapped("ours", linear(disk, 8, 8))
    beside = mapped("beside", linear(disk, 16, 8))
    number = os.path.basename(os.path.realpath(hosts))
    assert refused(ours) is None
    with mounted(hosts):
        reason = refused(ours)
        assert f"this host itself uses the storage, as /dev/{number} ({os.path.basename(hosts)})" in reason
        assert refused(beside) is None and refused(ours, "r") is None
    # It exists, and nobody uses it.
    assert refused(ours) is None


def test_what_is_mounted_is_higher_up(disk, mapped, mounted, refused):
    """Above another device, over a part that the guest has or does not have."""
    ours = mapped("ours", linear(disk, 0, 8))
    whole = mapped("whole", linear(disk, 0, 32))
    same, other = mapped("same", linear(whole, 4, 8)), mapped("other", linear(whole, 16, 8))
    with mounted(other):
        assert refused(ours) is None
    with mounted(same):
        assert os.path.basename(same) in refused(ours)


@pytest.mark.parametrize("refused", ["file"], indirect=True)
def test_above_another_loop_device_of_the_same_file(tmp_path, image, cleanup, mapped, mounted, refused):
    path = image("two.raw", 32 * MIB)
    cleanup(loop=path)
    loops = [
        subprocess.run(
            ["losetup", "--show", "--find", path], check=True, capture_output=True, text=True
        ).stdout.strip()
        for dummy in range(2)
    ]
    ours, hosts = mapped("ours", linear(loops[0], 0, 16)), mapped("host", linear(loops[1], 8, 16))
    beside = mapped("beside", linear(loops[0], 24, 8))
    with mounted(hosts):
        assert os.path.basename(hosts) in refused(ours) and refused(beside) is None
    assert refused(ours) is None


@pytest.mark.parametrize("refused", ["file"], indirect=True)
def test_above_a_loop_device_over_a_mapped_device(disk, mapped, mounted, refused):
    below = mapped("below", linear(disk, 0, 32))
    made = run_module("loop_device", backing={"path": below})["device"]["path"]
    try:
        ours, hosts = mapped("ours", linear(below, 0, 16)), mapped("host", linear(made, 8, 16))
        with mounted(hosts):
            assert os.path.basename(hosts) in refused(ours)
        assert refused(ours) is None
    finally:
        run("dmsetup", "remove", "--retry", hosts)
        run_module("loop_device", backing={"path": below}, state="absent")


def test_volumes_of_a_thin_pool(disk, image, cleanup, mapped, mounted, refused):
    """LVM has a device over the whole pool, which nobody uses. Other volumes can be mounted."""
    meta_file = image("meta.raw", 4 * MIB)
    cleanup(loop=meta_file)
    meta = run_module("loop_device", backing_file=meta_file)["device"]["path"]
    pool = mapped("tpool", f"0 {32 * SECTORS} thin-pool {meta} {disk} 128 0")
    visible = mapped("pool", linear(pool, 0, 32))
    volumes = []
    for number in range(2):
        run("dmsetup", "message", pool, "0", f"create_thin {number}")
        volumes.append(mapped(f"thin{number}", f"0 {16 * SECTORS} thin {pool} {number}"))
    with mounted(volumes[1]):
        assert refused(volumes[0]) is None
        claim = os.open(visible, os.O_RDONLY | os.O_EXCL)
        try:
            assert os.path.basename(visible) in refused(volumes[0])
        finally:
            os.close(claim)
    again = mapped("again", f"0 {16 * SECTORS} thin {pool} 0")
    with mounted(again):
        assert os.path.basename(again) in refused(volumes[0])


def test_a_snapshot_and_its_origin(disk, image, cleanup, mapped, mounted, refused):
    """Each writes its own bytes, so the host can have one of them mounted and a guest the other one."""
    real = mapped("real", linear(disk, 0, 16))
    origin = mapped("origin", f"0 {16 * SECTORS} snapshot-origin {real}")
    cow = mapped("cow", linear(disk, 16, 8))
    snapshot = mapped("snapshot", f"0 {16 * SECTORS} snapshot {real} {cow} P 16")
    for guests, hosts in ((snapshot, origin), (origin, snapshot)):
        with mounted(hosts):
            assert refused(guests) is None
    other = mapped("other", linear(real, 0, 8))
    with mounted(other):
        assert os.path.basename(other) in refused(origin) and refused(snapshot) is None


@pytest.mark.parametrize("is_over", [True, False])
def test_a_partition(image, cleanup, mapped, mounted, refused, is_over):
    """Another mapped device over the same partition, or over another one."""
    entries = b"".join(
        bytes([0, 0, 0, 0, 0x83, 0, 0, 0]) + struct.pack("<II", start * SECTORS, 8 * SECTORS)
        for start in (1, 16)
    )
    path = image("parts.raw", 32 * MIB, content=bytes(446) + entries + bytes(32) + b"\x55\xaa")
    cleanup(loop=path)
    device = run_module("loop_device", backing_file=path, partitions=True)["device"]["path"]
    udev_settle()
    ours = mapped("ours", linear(device + "p1", 0, 4))
    hosts = mapped("host", linear(device + ("p1" if is_over else "p2"), 0, 8))
    with mounted(hosts):
        reason = refused(ours)
        assert os.path.basename(hosts) in reason if is_over else reason is None
    assert refused(ours) is None


@pytest.mark.parametrize("refused", ["file"], indirect=True)
def test_a_mounted_partition_of_another_loop_device(image, cleanup, mounted, refused):
    """Of the same file, for a guest that only reads it too."""
    entry = bytes([0, 0, 0, 0, 0x83, 0, 0, 0]) + struct.pack("<II", SECTORS, 8 * SECTORS)
    path = image("parts.raw", 32 * MIB, content=bytes(446) + entry + bytes(48) + b"\x55\xaa")
    cleanup(loop=path)
    hosts, ours, rest = (
        subprocess.run(
            ["losetup", "--show", "--find", *options, path], check=True, capture_output=True, text=True
        ).stdout.strip()
        for options in (["--partscan"], [], ["--offset", str(16 * MIB)])
    )
    udev_settle()
    with mounted(hosts + "p1"):
        for mode in ("w", "r"):
            assert f"{hosts}p1" in refused(ours, mode)
        assert refused(rest) is None
    run("losetup", "--detach", rest)
