# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import fcntl
import itertools
import os
import socket
import stat
import struct
import subprocess
import sys
import time

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    BlockError,
    DeviceGone,
    InvalidValue,
    KernelError,
    NotSupported,
    WrongDevice,
)
from ansible_collections.racefree.block.plugins.module_utils._block import boot, sysfs
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices, own_dev
from hypothesis import given
from hypothesis import strategies as st

CONTENT = b"racefree".ljust(512, b".")


@pytest.fixture
def loop(place):
    """``(path of the node, diskseq)`` of a loop device of 64 KiB whose content begins with CONTENT."""
    fd, number = loopdevices.bind_free(loopdevices.image(place, "disk", content=CONTENT))
    yield f"/dev/loop{number}", loopdevices.diskseq_of(fd)
    os.close(fd)


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def no_descriptor_leaks():
    before = open_descriptors()
    yield
    assert open_descriptors() == before


# What is reported


def test_identity_of_an_opened_device(loop):
    path, diskseq = loop
    with _device.open_path(path) as device:
        there = os.stat(path)
        assert device.id == (os.major(there.st_rdev), os.minor(there.st_rdev), diskseq)
        assert device.id.rdev == there.st_rdev and device.id.number == f"7:{os.minor(there.st_rdev)}"
        assert device.name == path[5:] and device.path == path
        assert device.sysfs == f"/sys/dev/block/{device.id.number}" and os.path.isdir(device.sysfs)
        assert (device.size, device.logical_block, device.read_only, device.writable) == (
            65536,
            512,
            False,
            False,
        )
        assert os.read(device.fd, 512) == CONTENT
        with pytest.raises(OSError):
            os.write(device.fd, b"x")
        assert not os.get_inheritable(device.fd)
        assert device.as_dict() == {
            "path": path,
            "name": path[5:],
            "major": 7,
            "minor": device.id.minor,
            "diskseq": diskseq,
            "partition": None,
            "boot_id": boot.boot_id(),
            "by_diskseq": f"/dev/disk/by-diskseq/{diskseq}",
            "size": 65536,
            "sector_size": 512,
            "read_only": False,
        }
        assert "closed" not in repr(device) and str(diskseq) in repr(device)
    assert device.fd == -1 and "closed" in repr(device)
    device.close()


def test_writable(loop):
    path, dummy = loop
    with _device.open_path(path, writable=True) as device:
        assert device.writable and os.pwrite(device.fd, b"new", 0) == 3
    with _device.open_path(path) as device:
        assert os.read(device.fd, 3) == b"new"


def test_read_only_device(place):
    fd, number = loopdevices.bind_free(
        loopdevices.image(place, "ro"), loopdevices.READ_ONLY | loopdevices.AUTOCLEAR
    )
    try:
        with _device.open_path(f"/dev/loop{number}") as device:
            assert device.read_only and device.as_dict()["read_only"]
    finally:
        os.close(fd)


def test_every_way_to_open_a_device(loop, place):
    path, diskseq = loop
    link = os.path.join(place, "link")
    os.symlink(path, link)
    node = os.path.join(place, "node")
    os.mknod(node, 0o600 | stat.S_IFBLK, os.stat(path).st_rdev)
    with _device.open_path(path) as first:
        for way in (
            lambda: _device.open_path(link),
            lambda: _device.open_path(link, diskseq=diskseq),
            lambda: _device.open_path(first.held_path),
            lambda: _device.open_number(7, first.id.minor),
            lambda: _device.open_number(7, first.id.minor, diskseq=diskseq),
            lambda: _device.open_diskseq(diskseq),
            lambda: _device.open_diskseq(str(diskseq), writable=True),
            lambda: _device.from_fd(os.open(path, os.O_RDONLY)),
            first.duplicate,
        ):
            with way() as device:
                assert (device.id, device.name) == (first.id, first.name)
    if os.statvfs(place).f_flag & os.ST_NODEV:
        with pytest.raises(KernelError, match="EACCES"):
            _device.open_path(node)
    else:
        with _device.open_path(node) as device:
            assert device.path == path, "named as the kernel does"


def test_held_path_for_a_program_that_needs_a_path(loop):
    path, dummy = loop
    with _device.open_path(path) as device:
        assert (
            subprocess.run(
                ["head", "--bytes=512", device.held_path], stdout=subprocess.PIPE, check=True
            ).stdout
            == CONTENT
        )


def test_a_duplicate_outlives_the_original(loop):
    path, dummy = loop
    device = _device.open_path(path)
    with device.duplicate() as other:
        assert other.fd != device.fd and not os.get_inheritable(other.fd)
        device.close()
        other.prove()
        assert os.pread(other.fd, 512, 0) == CONTENT


# What is refused


def make_fifo(path):
    os.mkfifo(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize(
    "make, word",
    [
        (lambda path: path.write_bytes(b"x"), "regular file"),
        (lambda path: path.mkdir(), "directory"),
        (make_fifo, "FIFO"),
        (make_socket, "socket"),
        (lambda path: path.symlink_to("/dev/null"), "character device"),
        (lambda path: path.symlink_to("/"), "directory"),
    ],
)
def test_paths_that_are_not_block_devices(make, word, tmp_path):
    path = tmp_path / "x"
    make(path)
    for writable in (False, True):
        with loopdevices.at_most(5), pytest.raises(InvalidValue) as caught:
            _device.open_path(str(path), writable=writable, option="source.path")
        assert word in str(caught.value) and caught.value.option == "source.path"


@pytest.mark.parametrize(
    "path", [None, 7, "", "dev/loop0", "/dev/loop\0", b"/dev/loop0", ["/dev/loop0"], "/dev/\ud800"]
)
def test_invalid_paths(path):
    with pytest.raises(InvalidValue) as caught:
        _device.open_path(path)
    assert caught.value.option == "path"


def test_a_missing_path(tmp_path):
    for path in (tmp_path / "none", tmp_path / "none" / "below", tmp_path / "file" / "below"):
        (tmp_path / "file").touch()
        with pytest.raises(DeviceGone):
            _device.open_path(str(path))
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(KernelError, match="ELOOP"):
        _device.open_path(str(tmp_path / "loop"))
    with pytest.raises(KernelError, match="ENAMETOOLONG"):
        _device.open_path("/" + "x" * 5000)


def test_wrong_diskseq(loop):
    path, diskseq = loop
    for way in (
        lambda: _device.open_path(path, diskseq=diskseq + 1),
        lambda: _device.open_number(7, int(path[9:]), diskseq=diskseq + 1),
    ):
        with pytest.raises(WrongDevice) as caught:
            way()
        assert str(diskseq) in str(caught.value) and str(diskseq + 1) in str(caught.value)


@pytest.mark.parametrize(
    "name", ["0", "042", "x", "-1", "1-part", "1-part0", "1p01", "1p1p1", "1-part1x", "1/2", "1" * 21]
)
def test_invalid_names_in_by_diskseq(name):
    with pytest.raises(InvalidValue, match="diskseq"):
        _device.open_path(f"/dev/disk/by-diskseq/{name}", option="source.path")


def test_a_path_in_by_diskseq_is_the_disk_with_this_number(loop):
    """Whether udev has a link there, and wherever that leads to."""
    path, diskseq = loop
    found = own_dev.run(lambda: _with_links_of_udev(path, diskseq))
    assert found == [path, path, "WrongDevice", "DeviceGone", "WrongDevice", "DeviceGone"]


def _with_links_of_udev(path, diskseq):
    """
    What is opened without links, by a stale link to another device, with another number beside it, by a stale
    link of a number that is gone, and as a partition with and without a link.
    """
    name = f"/dev/disk/by-diskseq/{diskseq}"
    found = [_opened(name)]
    os.makedirs(os.path.dirname(name))
    os.symlink("../../null", name)
    found += [_opened(f"/dev//disk/./by-diskseq/{diskseq}"), _opened(name, diskseq + 1)]
    os.symlink(path, f"/dev/disk/by-diskseq/{2**63}")
    found.append(_opened(f"/dev/disk/by-diskseq/{2**63}"))
    os.symlink(path, f"{name}-part1")
    return [*found, _opened(f"{name}-part1"), _opened(f"{name}p2")]


def _opened(path, diskseq=None):
    try:
        with _device.open_path(path, diskseq=diskseq) as device:
            return device.path
    except (WrongDevice, DeviceGone) as error:
        return type(error).__name__


def test_a_diskseq_of_no_device():
    for number in (2**64 - 1, str(2**63)):
        with pytest.raises(DeviceGone, match="no disk has the disk sequence number"):
            _device.open_diskseq(number)


def test_a_diskseq_whose_device_is_gone(place):
    fd, number = loopdevices.bind_free(loopdevices.image(place, "disk"))
    diskseq = loopdevices.diskseq_of(fd)
    _device.open_diskseq(diskseq).close()
    os.close(fd)
    assert loopdevices.nothing_bound(place)
    with pytest.raises(DeviceGone):
        _device.open_diskseq(diskseq)
    with pytest.raises((WrongDevice, DeviceGone)):
        _device.open_path(f"/dev/loop{number}", diskseq=diskseq)


@pytest.mark.parametrize(
    "value",
    [
        0,
        -1,
        2**64,
        "",
        "0",
        "x",
        "1x",
        " 1",
        "1\n",
        "0x1",
        "+1",
        "1.0",
        1.0,
        True,
        None,
        [1],
        {},
        "1" * 21,
        "\u0661",
    ],
)
def test_invalid_diskseqs(value):
    with pytest.raises(InvalidValue) as caught:
        _device.open_diskseq(value)
    assert caught.value.option == "diskseq"
    with pytest.raises(InvalidValue) as caught:
        _device.check_diskseq(value, "source.diskseq")
    assert caught.value.option == "source.diskseq"


@given(st.integers(1, 2**64 - 1))
def test_every_valid_diskseq_is_accepted(number):
    assert _device.check_diskseq(number) == _device.check_diskseq(str(number)) == number


@given(st.text(alphabet="0123456789: \n-x", max_size=25))
def test_numbers_as_text(text):
    major, colon, minor = text.partition(":")
    wanted = (
        (int(major), int(minor))
        if colon and all(part.isascii() and part.isdigit() and len(part) <= 10 for part in (major, minor))
        else None
    )
    assert sysfs.parse_number(text) == wanted
    assert sysfs.parse_number("9" * 5000 + ":1") is None


def test_a_device_number_of_no_device():
    with pytest.raises(DeviceGone, match="4095:1048575"):
        _device.open_number(4095, 1048575)


def test_descriptors_that_are_not_block_devices(tmp_path):
    with open(tmp_path / "file", "w+b") as file, pytest.raises(WrongDevice, match="regular file"):
        _device.from_fd(file.fileno())


def test_a_kernel_without_disk_sequence_numbers(tmp_path):
    """Such a kernel answers ENOTTY, as the kernel does here for a regular file."""
    with open(tmp_path / "file", "w+b") as file, pytest.raises(NotSupported, match="5.15"):
        _device.read_diskseq(file.fileno(), "x")


def test_claims(loop):
    path, dummy = loop
    with _device.open_path(path) as device:
        assert not _device.is_claimed(device)
        plain = os.open(path, os.O_RDONLY)
        assert not _device.is_claimed(device)
        os.close(plain)
        claim = os.open(path, os.O_RDONLY | os.O_EXCL)
        assert _device.is_claimed(device)
        os.close(claim)
        assert not _device.is_claimed(device)


# Changes of an open device


def test_prove_detects_that_the_device_has_another_file(place):
    """LOOP_CHANGE_FD gives a loop device another file while the device is held."""
    flags = loopdevices.READ_ONLY | loopdevices.AUTOCLEAR
    fd, number = loopdevices.bind_free(loopdevices.image(place, "old", content=b"old"), flags)
    try:
        with _device.open_path(f"/dev/loop{number}") as device:
            device.prove()
            with open(loopdevices.image(place, "new", content=b"new"), "rb") as other:
                fcntl.ioctl(fd, loopdevices.LOOP_CHANGE_FD, other.fileno())
            with pytest.raises(
                WrongDevice, match=f"diskseq is now {loopdevices.diskseq_of(fd)}, it was {device.id.diskseq}"
            ):
                device.prove()
            with pytest.raises(WrongDevice):
                _device.open_path(f"/dev/loop{number}", diskseq=device.id.diskseq)
            with device.duplicate() as copy, pytest.raises(WrongDevice):
                copy.prove()
    finally:
        os.close(fd)


def test_a_loop_device_can_lose_its_file_while_it_is_held(place):
    """
    LOOP_CLR_FD detaches the file at once if there is no other opener. A descriptor that was opened meanwhile
    stays open, and shows the old diskseq.
    """
    fd, number = loopdevices.bind_free(loopdevices.image(place, "old", content=b"old"), 0)
    with _device.from_fd(fd) as device:
        diskseq = device.id.diskseq
        device.prove()
        fcntl.ioctl(fd, loopdevices.LOOP_CLR_FD)
        assert loopdevices.diskseq_of(fd) == diskseq
        with pytest.raises(DeviceGone, match="no file is bound"):
            device.prove()
        with pytest.raises(DeviceGone):
            _device.open_path(f"/dev/loop{number}", diskseq=diskseq)
        with pytest.raises(DeviceGone):
            _device.open_diskseq(diskseq)


# It keeps a file bound for 0.2 to 51 ms, so that on any machine some bindings are shorter than a try and some
# are longer.
ADVERSARY = """
import os, random, struct, sys, time
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices
number, files, out = int(sys.argv[1]), sys.argv[2:4], int(sys.argv[4])
turn = 0
while os.getppid() == int(sys.argv[5]):
    fd = loopdevices.bind(number, files[turn % 2])
    if fd is None:
        time.sleep(0.00005)
        continue
    if turn % 2 == 0:
        os.pwrite(out, struct.pack("=Q", loopdevices.diskseq_of(fd)), 0)
    turn += 1
    os.pwrite(out, struct.pack("=Q", turn), 8)
    time.sleep(0.0002 * 4 ** random.randrange(5))
    os.close(fd)
"""


@pytest.fixture
def adversary(place):
    """
    A process that binds the good file and the bad file to one /dev/loopN in turn.

    ``(path of the node, function that returns the diskseq of the last binding to the good file, function that
    returns the number of turns)``
    """
    good, bad = (
        loopdevices.image(place, "good", content=b"good"),
        loopdevices.image(place, "bad", content=b"bad!"),
    )
    with loopdevices.own_number() as number, open(os.path.join(place, "board"), "w+b") as board:
        board.write(bytes(16))
        board.flush()
        process = subprocess.Popen(
            [sys.executable, "-c", ADVERSARY, str(number), good, bad, str(board.fileno()), str(os.getpid())],
            pass_fds=[board.fileno()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        try:
            end = time.monotonic() + 20
            while not struct.unpack("=Q", os.pread(board.fileno(), 8, 8))[0]:
                assert time.monotonic() < end and process.poll() is None, "the adversary does not start"
                time.sleep(0.01)
            yield (
                f"/dev/loop{number}",
                lambda: struct.unpack("=Q", os.pread(board.fileno(), 8, 0))[0],
                lambda: struct.unpack("=Q", os.pread(board.fileno(), 8, 8))[0],
            )
            assert process.poll() is None, "the adversary gave up"
        finally:
            process.kill()
            process.wait()


def test_never_the_wrong_content(adversary):
    """
    The device is replaced between lookup and open, thousands of times. With the guard, the wrong content is
    never read.
    """
    path, last_good, turns = adversary
    began = turns()
    right = refused = unguarded_wrong = 0
    end = time.monotonic() + 15
    for attempt in itertools.count():
        if (
            right >= 300
            and refused >= 3000
            and unguarded_wrong >= 20
            and turns() - began >= 300
            or time.monotonic() > end
        ):
            break
        guarded = attempt % 8 != 0
        try:
            with _device.open_path(path, diskseq=last_good() if guarded else None) as device:
                content = os.pread(device.fd, 4, 0)
                if guarded:
                    device.prove()
                    assert content == b"good"
                    right += 1
                elif content == b"bad!":
                    unguarded_wrong += 1
        except (WrongDevice, DeviceGone):
            if guarded:
                refused += 1
    # Otherwise the test would prove nothing: the device must have changed all the time, and only the guard
    # must have prevented wrong reads.
    figures = {
        "right": right,
        "refused": refused,
        "wrong without the guard": unguarded_wrong,
        "changes": turns() - began,
    }
    print(figures)
    assert right > 50 and refused > 200 and unguarded_wrong > 5 and turns() - began > 100, figures


def test_by_diskseq_under_attack(adversary):
    path, last_good, dummy = adversary
    found = gone = 0
    end = time.monotonic() + 5
    while time.monotonic() < end and (found < 10 or gone < 100):
        try:
            with _device.open_diskseq(last_good()) as device:
                assert os.pread(device.fd, 4, 0) == b"good" and device.path == path
                found += 1
        except DeviceGone:
            gone += 1
    print({"found": found, "gone": gone})
    assert found and gone, (found, gone)


@given(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(),
        st.binary(),
        st.lists(st.integers()),
        st.dictionaries(st.text(), st.integers()),
    )
)
def test_any_text_as_a_path(value):
    """Only errors of the collection are raised."""
    try:
        _device.open_path("/racefree-none/" + value if isinstance(value, str) else value)
    except BlockError:
        pass
