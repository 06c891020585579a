# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    DeadlineExceeded,
    DeviceBusy,
    DeviceGone,
    InvalidValue,
    KernelError,
    NotSupported,
)
from ansible_collections.racefree.block.plugins.module_utils._block import backing as _backing
from ansible_collections.racefree.block.plugins.module_utils._block import (
    bind,
    bound,
    detach,
    loop,
    loop_index,
)
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.plugins.module_utils._kernel import uapi_plain
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices

SIZE = 65536
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.fixture
def place():
    loopdevices.need_loop()
    with loopdevices.directory() as path:
        yield path
        assert loopdevices.nothing_bound(path), "the test left a loop device"


@pytest.fixture(autouse=True)
def no_descriptor_leaks():
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


def attach(path, **options):
    with _backing.Backing(path, options.get("read_only", False)) as backing:
        return bind.attach(backing, **options)


def find(path, offset=0, size=0):
    """The minor numbers of the loop devices found for the file."""
    with _backing.Backing(path, read_only=True) as backing:
        found = loop_index.find(backing, offset, size)
    for device, dummy in found:
        device.close()
    return [device.id.minor for device, dummy in found]


# A single device


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


@pytest.mark.parametrize(
    "options, flags, size, block",
    [
        ({"offset": 4096}, 4, SIZE - 4096, 512),
        ({"size": 4096}, 4, 4096, 512),
        ({"offset": 512, "size": 1024}, 4, 1024, 512),
        ({"sector_size": 4096}, 4, SIZE, 4096),
        ({"read_only": True}, 5, SIZE, 512),
        ({"partitions": True}, 12, SIZE, 512),
        (
            {"partitions": True, "read_only": True, "offset": 4096, "sector_size": 1024, "size": 8192},
            13,
            8192,
            1024,
        ),
    ],
)
def test_options(place, options, flags, size, block):
    path = loopdevices.image(
        place, "disk", content=bytes(512) + b"at 512".ljust(512, b".") + bytes(3072) + b"at 4096"
    )
    with attach(path, **options) as device:
        info = loop.info(device)
        assert (info.flags, info.offset, info.sizelimit) == (
            flags,
            options.get("offset", 0),
            options.get("size", 0),
        )
        assert (device.size, device.logical_block, device.read_only) == (size, block, bool(flags & 1))
        with open(path, "rb") as file:
            file.seek(info.offset)
            assert os.pread(device.fd, 16, 0) == file.read(16)
        assert find(path, info.offset, info.sizelimit) == [device.id.minor]


def test_a_file_opened_for_reading_gives_a_read_only_device(place):
    path = loopdevices.image(place, "disk")
    with _backing.Backing(path, read_only=True) as backing, bind.attach(backing) as device:
        assert device.read_only and loop.info(device).read_only and not device.writable


def test_a_long_path_is_allowed(place):
    """lo_file_name is limited to 63 bytes."""
    os.makedirs(os.path.join(place, "d" * 200))
    path = loopdevices.image(os.path.join(place, "d" * 200), "n" * 200)
    with attach(path) as device:
        assert loop.backing_path(device) == path and find(path) == [device.id.minor]


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


def test_direct_io_is_never_dropped_silently(place, monkeypatch):
    """
    The kernel silently clears the flag for a file that is not aligned. Here the flag is not passed at all.
    """
    path = loopdevices.image(place, "disk")
    real = bind._configuration
    monkeypatch.setattr(
        bind,
        "_configuration",
        lambda *arguments: real(*arguments[:-1], arguments[-1] & ~uapi_plain.LO_FLAGS_DIRECT_IO),
    )
    with pytest.raises(NotSupported, match="direct I/O is not possible"):
        attach(path, direct_io=True)
    assert loopdevices.nothing_bound(place)


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


# Which device has the file


def test_a_file_is_identified_by_its_inode(place):
    path = loopdevices.image(place, "disk")
    with attach(path) as device:
        os.symlink(path, os.path.join(place, "link"))
        os.link(path, os.path.join(place, "hard"))
        os.rename(path, os.path.join(place, "moved"))
        for name in ("link", "hard", "moved"):
            if name == "link":
                os.symlink("moved", path)
            assert find(os.path.join(place, name)) == [device.id.minor]
        os.unlink(path)
        loopdevices.image(place, "disk")
        assert find(path) == [], "another file under the old name"


def test_offset_and_size_belong_to_the_identity(place):
    path = loopdevices.image(place, "disk")
    with (
        attach(path) as whole,
        attach(path, offset=4096) as rest,
        attach(path, offset=4096, size=4096) as part,
        attach(path, size=SIZE) as limited,
    ):
        # if the size is not given, no limit and a limit at the present end of the file are equal
        assert sorted(find(path)) == sorted([whole.id.minor, limited.id.minor])
        assert find(path, 4096) == [rest.id.minor]
        assert find(path, 4096, 4096) == [part.id.minor]
        assert find(path, 0, SIZE) == [limited.id.minor]
        assert find(path, 8192) == find(path, 4096, 8192) == find(path, 0, 4096) == []


def test_the_index_of_loop_devices(place):
    first, second = loopdevices.image(place, "first"), loopdevices.image(place, "second")
    index = loop_index.LoopIndex()
    with attach(first) as device, _backing.Backing(first) as backing:
        found = index.find(backing)
        assert [row[0].id for row in found] == [device.id]
        found[0][0].close()
        with attach(second) as other, _backing.Backing(second) as backing2:
            assert index.find(backing2) == [], "made since the index was read"
            index.add(other, loop.info(other))
            ((again, status),) = index.find(backing2)
            assert again.id == other.id and status == loop.info(other)
            again.close()
        assert loopdevices.nothing_bound(second)
        # the index only tells where to look
        with _backing.Backing(second) as backing2:
            assert index.find(backing2) == []


# What is refused


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


@pytest.mark.parametrize(
    "size, options, option, words",
    [
        (SIZE, {"sector_size": 0}, "sector_size", "power of 2"),
        (SIZE, {"sector_size": 256}, "sector_size", "power of 2"),
        (SIZE, {"sector_size": 1000}, "sector_size", "power of 2"),
        (SIZE, {"sector_size": 2 * os.sysconf("SC_PAGE_SIZE")}, "sector_size", "power of 2"),
        (SIZE, {"sector_size": -512}, "sector_size", "power of 2"),
        (SIZE, {"offset": -512}, "offset", "512"),
        (SIZE, {"offset": 100}, "offset", "512"),
        (SIZE, {"offset": SIZE}, "offset", "inside the file"),
        (SIZE, {"offset": 2**63}, "offset", "inside the file"),
        (SIZE, {"size": -512}, "size", "sector size"),
        (SIZE, {"size": 1000}, "size", "sector size"),
        (SIZE, {"size": 512, "sector_size": 1024}, "size", "1024"),
        (SIZE, {"size": SIZE + 512}, "size", "inside the file"),
        (SIZE, {"offset": 512, "size": SIZE}, "size", "inside the file"),
        (SIZE, {"size": 2**64}, "size", "inside the file"),
        (0, {}, "backing_file", "empty"),
        (1000, {}, "backing_file", "say size=512"),
        (SIZE, {"offset": 512, "sector_size": 4096}, "backing_file", "say size=61440"),
    ],
)
def test_geometry(place, size, options, option, words):
    path = loopdevices.image(place, "disk", size)
    with _backing.Backing(path) as backing, pytest.raises(InvalidValue) as caught:
        bind.attach(backing, **options)
    assert caught.value.option == option and words in str(caught.value)
    assert not loopdevices.bound_files(place)


def test_an_exact_fit(place):
    with attach(loopdevices.image(place, "disk", 1024), offset=512, size=512) as device:
        assert device.size == 512


def test_a_user_without_root_rights(place):
    """Another user gets a clear error: only root may open /dev/loop-control."""
    path = loopdevices.image(place, "disk")
    os.chmod(place, 0o755)
    os.chmod(path, 0o666)
    code = (
        "import os, sys\n"
        "from ansible_collections.racefree.block.plugins.module_utils._block import backing as _backing\n"
        "from ansible_collections.racefree.block.plugins.module_utils._block import bind\n"
        "os.setgroups([])\nos.setgid(65534)\nos.setuid(65534)\n"
        f"with _backing.Backing({path!r}) as backing:\n"
        "    try:\n"
        "        bind.attach(backing)\n"
        "    except Exception as error:\n"
        "        sys.exit(f'{type(error).__name__} {error}')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, stderr=subprocess.PIPE, check=False)
    assert (
        b"KernelError" in done.stderr
        and b"only root may make loop devices" in done.stderr
        and b"become: true" in done.stderr
    )


def test_no_loop_module(place, monkeypatch):
    monkeypatch.setattr(bind, "CONTROL", os.path.join(place, "none"))
    with pytest.raises(NotSupported, match="Load the kernel module loop"):
        attach(loopdevices.image(place, "disk"))


def test_all_free_numbers_are_taken_by_others(place, monkeypatch):
    """Other processes always take the free number first."""
    fd, number = loopdevices.bind_free(loopdevices.image(place, "other"))
    monkeypatch.setattr(bind, "_ATTACH_SECONDS", 0.2)
    monkeypatch.setattr(bind._Control, "free_number", lambda control: number)
    with pytest.raises(DeadlineExceeded, match="timed out after 0.2 s waiting for a free loop device"):
        attach(loopdevices.image(place, "disk"))
    assert set(loopdevices.bound_files(place).values()) == {os.path.join(place, "other")}
    os.close(fd)


# Detaching


def test_detach(place):
    for persistent in (False, True):
        device = attach(loopdevices.image(place, "disk"))
        loop.set_autoclear(device, not persistent)
        assert detach.detach(device) is True
        assert device.fd == -1 and not loopdevices.bound_files(place)


def test_detach_waits_for_users_that_close_soon(place):
    device = attach(loopdevices.image(place, "disk"))
    code = f"import time; f = open({device.path!r}, 'rb'); print('open', flush=True); time.sleep(0.4)"
    prober = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert prober.stdout.readline() == b"open\n"
    began = time.monotonic()
    assert detach.detach(device, timeout=10) is True
    assert 0.05 < time.monotonic() - began < 9
    assert prober.wait() == 0
    prober.stdout.close()


@pytest.mark.parametrize("persistent", [False, True])
def test_a_device_in_use_is_left_unchanged(place, persistent):
    path = loopdevices.image(place, "disk")
    device = attach(path)
    loop.set_autoclear(device, not persistent)
    user = os.open(device.path, os.O_RDONLY)
    with pytest.raises(DeviceBusy, match="deferred=true") as caught:
        detach.detach(device, timeout=0.1)
    assert caught.value.device == device.path
    with _device.open_path(device.path, diskseq=device.id.diskseq) as again:
        assert loop.info(again).autoclear != persistent
    os.close(user)
    if persistent:
        with _device.open_path(device.path, diskseq=device.id.diskseq) as again:
            detach.detach(again)


def test_a_killed_detach_leaves_a_device_in_use(place):
    """
    Its user opened it before. After the removal is killed and the user has closed the device, the device
    still exists. This does not hold between two system calls, where a busy machine may stop a process.
    """
    lost, device = 0, attach(loopdevices.image(place, "disk"))
    for number in range(25):
        loop.set_autoclear(device, False)
        user = os.open(device.path, os.O_RDONLY)
        child = os.fork()
        if not child:
            try:
                os.close(user)
                own = _device.open_path(device.path, diskseq=device.id.diskseq)
                os.close(device.fd)
                detach.detach(own, timeout=30)
            finally:
                os._exit(0)
        device.close()
        time.sleep(0.004 * number)
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        os.close(user)
        if not loopdevices.bound_files(place):
            lost, device = lost + 1, attach(loopdevices.image(place, "disk"))
        else:
            device = _device.open_path(device.path, diskseq=device.id.diskseq)
            lost += loop.info(device).autoclear
    detach.detach(device)
    assert lost <= 2


def test_a_claimed_device_is_refused_without_waiting(place):
    device = attach(loopdevices.image(place, "disk"))
    claim = os.open(device.path, os.O_RDONLY | os.O_EXCL)
    began = time.monotonic()
    with pytest.raises(DeviceBusy):
        detach.detach(device, timeout=30)
    assert time.monotonic() - began < 5 and device.fd >= 0
    os.close(claim)
    device.close()


def test_deferred_detach(place):
    path = loopdevices.image(place, "disk", content=b"still here")
    device = attach(path)
    loop.set_autoclear(device, False)
    user = os.open(device.path, os.O_RDONLY)
    assert detach.detach(device, deferred=True, timeout=0.1) is False
    assert os.pread(user, 10, 0) == b"still here"
    os.close(user)
    assert loopdevices.nothing_bound(place)
    assert detach.detach(attach(path), deferred=True) is True


def test_the_error_names_the_mount(tmp_path):
    loopdevices.need_loop()
    path = loopdevices.image(tmp_path, "disk", 1048576)
    subprocess.run(["mkfs.ext4", "-q", path], check=True)
    point = tmp_path / "mnt"
    point.mkdir()
    with attach(path) as device:
        done = subprocess.run(
            ["mount", "-t", "ext4", device.path, point], stderr=subprocess.PIPE, check=False
        )
        if done.returncode:
            pytest.skip(f"no mount here: {done.stderr.decode()}")
        try:
            assert detach.users(device) == [f"mount {point}"]
            with pytest.raises(DeviceBusy, match=str(point)):
                detach.detach(device)
        finally:
            subprocess.run(["umount", point], check=True)
        assert detach.users(device) == []
    assert loopdevices.nothing_bound(tmp_path)


# What a killed process leaves behind


def attach_and_stop(path, ready):
    """In a child: attach, report it, wait for the end."""
    device = attach(path)
    os.write(ready, device.path.encode())
    signal.pause()


def in_child(function, *arguments):
    pid = os.fork()
    if pid == 0:
        try:
            function(*arguments)
        finally:
            os._exit(1)
    return pid


def test_killed_right_after_attach(place):
    path = loopdevices.image(place, "disk")
    for dummy in range(10):
        reader, writer = os.pipe()
        pid = in_child(attach_and_stop, path, writer)
        node = os.read(reader, 100)
        assert loopdevices.bound_files(place) == {int(node[9:]): path}
        os.kill(pid, signal.SIGKILL)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
        assert loopdevices.nothing_bound(place)
        os.close(reader)
        os.close(writer)


def attach_for_ever(path, ready):
    os.write(ready, b".")
    while True:
        attach(path).close()


def test_killed_at_any_moment(place):
    """A hundred times, at a random point in attach or close."""
    path = loopdevices.image(place, "disk")
    chance = random.Random(7)
    caught_bound = 0
    for dummy in range(100):
        reader, writer = os.pipe()
        pid = in_child(attach_for_ever, path, writer)
        os.read(reader, 1)
        time.sleep(chance.uniform(0, 0.004))
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)
        caught_bound += bool(loopdevices.bound_files(path))
        os.kill(pid, signal.SIGKILL)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
        assert loopdevices.nothing_bound(place)
        os.close(reader)
        os.close(writer)
    assert caught_bound, "it was never killed while it had a device"


# Many processes at once

RIVAL = """
import os, sys
from ansible_collections.racefree.block.plugins.module_utils._block import backing as _backing
from ansible_collections.racefree.block.plugins.module_utils._block import bind
from ansible_collections.racefree.block.plugins.module_utils._block import loop as _loop
where, who = sys.argv[1], sys.argv[2]
files = []
for number in range(100):
    path = os.path.join(where, f"{who}-{number}")
    with open(path, "wb") as file:
        file.write(f"{who}-{number}".encode().ljust(512, b"."))
    files.append(path)
print("ready", flush=True)
sys.stdin.read(1)
held, seen = [], set()
for path in files:
    with _backing.Backing(path) as backing:
        device = bind.attach(backing)
        info = _loop.info(device)
        if (info.backing_device, info.backing_inode) != (backing.device, backing.inode):
            sys.exit(f"{path}: bound to another file")
    if os.pread(device.fd, 512, 0) != os.path.basename(path).encode().ljust(512, b"."):
        sys.exit(f"{path}: another content")
    if device.id.diskseq in seen:
        sys.exit(f"{path}: a disk sequence number twice")
    seen.add(device.id.diskseq)
    held.append((device, os.path.basename(path)))
    if len(held) > 6:
        # some are held for a while, and looked at again: nobody may have taken them over
        device, name = held.pop(0)
        device.prove()
        if os.pread(device.fd, len(name), 0) != name.encode():
            sys.exit(f"{name}: another content later")
        device.close()
print(*sorted(seen))
"""


def test_eight_processes_create_loop_devices_at_once(place):
    """Eight processes with a hundred files each: every file has its own device, and there is no error."""
    rivals = [
        subprocess.Popen(
            [sys.executable, "-c", RIVAL, place, str(number)],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for number in range(8)
    ]
    seen = []
    try:
        for rival in rivals:
            assert rival.stdout.readline() == b"ready\n", rival.stderr.read()
        for rival in rivals:
            rival.stdin.write(b"x")
            rival.stdin.flush()
        for rival in rivals:
            out, problems = rival.communicate(timeout=60)
            assert rival.returncode == 0 and not problems, problems.decode()
            seen += out.split()
    finally:
        for rival in rivals:
            rival.kill()
            rival.communicate()
    assert len(seen) == len(set(seen)) == 800


def test_a_number_taken_by_another_process_is_left_alone(place, monkeypatch):
    """Another process takes the free number before the bind: its device stays, and another number is used."""
    theirs, mine = (
        loopdevices.image(place, "theirs", content=b"theirs"),
        loopdevices.image(place, "mine", content=b"mine"),
    )
    real = bind._Control.free_number
    others = []

    def snatched(control):
        number = real(control)
        if len(others) < 3:
            fd = loopdevices.bind(number, theirs)
            if fd is not None:
                others.append(fd)
        return number

    monkeypatch.setattr(bind._Control, "free_number", snatched)
    with attach(mine) as device:
        assert len(others) == 3
        assert os.pread(device.fd, 4, 0) == b"mine"
        assert [os.pread(fd, 6, 0) for fd in others] == [b"theirs"] * 3
    for fd in others:
        os.close(fd)


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
