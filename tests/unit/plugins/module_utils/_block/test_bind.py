# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bind files to free loop devices, alone and while others do the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    DeadlineExceeded,
    InvalidValue,
    NotSupported,
)
from ansible_collections.racefree.block.plugins.module_utils._block import backing as _backing
from ansible_collections.racefree.block.plugins.module_utils._block import (
    bind,
    loop,
)
from ansible_collections.racefree.block.plugins.module_utils._kernel import uapi_plain
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.attached_loops import attach, find

pytestmark = pytest.mark.usefixtures("no_descriptor_leaks")


SIZE = 65536
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
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
        (1000, {}, "backing_file", "set size=512"),
        (SIZE, {"offset": 512, "sector_size": 4096}, "backing_file", "set size=61440"),
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
