# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Seals on a real kernel: who is refused, who is not, and what happens to a seal when the device number is
reused.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import struct
import subprocess
import sys
import time

import pytest
import seal_kills
from ansible_collections.racefree.block.plugins.module_utils._base.errors import KernelError, NotSupported
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.plugins.module_utils._block.seal import (
    attachment,
    bpf,
    entry,
    keeper,
    passes,
    place,
    program,
    seals,
    uevent,
)
from ansible_collections.racefree.block.plugins.module_utils._dm import control as _control
from conftest import open_device, read_device, run_module, udev_settle, wait_until
from sealing import is_refused, keeper_pid, nothing_sealed

MIB = 2**20
SECTORS = 16 * MIB // 512


pytestmark = pytest.mark.usefixtures(nothing_sealed.__name__)


@pytest.fixture
def loop(image, cleanup):
    """A function that creates a loop device and returns the module's description of it."""

    def make(name="disk.raw", content=b"hello", **options):
        path = image(name, content=content)
        cleanup(loop=path)
        return run_module("loop_device", backing_file=path, **options)["device"]

    return make


def seal(device):
    seals.seal(device["major"], device["minor"], device["diskseq"])


def lift(device):
    return seals.lift(device["major"], device["minor"], device["diskseq"])


def seal_of(device):
    return seals.find(device["major"], device["minor"], device["diskseq"])


def dmsetup(*words, check=True):
    return subprocess.run(["dmsetup", *words], capture_output=True, text=True, check=check)


@pytest.mark.sample
def test_nobody_opens_a_sealed_device(loop, name, request, tmp_path):
    device = loop()
    path = device["path"]
    subprocess.run(["mkfs.ext4", "-q", path], check=True)
    other = loop("other.raw")["path"]
    readers = [
        ["dd", f"if={path}", "of=/dev/null", "count=1"],
        ["blkid", "-p", path],
        ["blockdev", "--getsize64", path],
        ["wipefs", path],
        # The prober of udev's rules.
        ["udevadm", "test-builtin", "blkid", f"/sys/class/block/{os.path.basename(path)}"],
    ]
    for command in readers:
        subprocess.run(command, capture_output=True, check=True)
    with open(path, "r+b", buffering=0) as before:
        seal(device)
        for command in (
            *readers,
            ["dd", "if=/dev/zero", f"of={path}", "count=1", "conv=notrunc"],
            ["mount", path, str(tmp_path)],
            ["mount", "-o", "ro", path, str(tmp_path)],
            ["losetup", "--show", "-f", path],
            ["losetup", "-d", path],
            ["cryptsetup", "open", "--type=plain", "--key-file=/dev/zero", "--cipher=aes", path, "over"],
            ["swapon", path],
            ["dmsetup", "create", "over", "--table", f"0 8 linear {path} 0"],
            ["dmsetup", "create", "over", "--table", f"0 8 linear {device['major']}:{device['minor']} 0"],
        ):
            # Emulated hosts have no cryptsetup.
            if shutil.which(command[0]):
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                assert done.returncode, f"{command} was let through"
        dmsetup("remove", "--retry", "over", check=False)
        for flags in (
            os.O_RDONLY,
            os.O_WRONLY,
            os.O_RDWR,
            os.O_RDWR | os.O_EXCL,
            os.O_RDONLY | os.O_NONBLOCK,
            3,
        ):
            assert is_refused(path, flags)
        # Where device nodes work: /tmp may be mounted nodev.
        own = f"/dev/{name}"
        request.addfinalizer(lambda: os.unlink(own))
        os.mknod(own, 0o60600, os.makedev(device["major"], device["minor"]))
        assert is_refused(own) and is_refused(f"/proc/self/fd/{before.fileno()}")
        # Open descriptors continue to work, and mknod is allowed.
        before.seek(0)
        before.write(b"written")
        before.seek(0)
        assert before.read(7) == b"written"
        assert read_device(other, 0, 5) == b"hello"
        assert seal_of(device).refused >= 10
    assert lift(device) and not lift(device)
    assert read_device(path, 0, 7) == b"written"
    assert not os.path.exists(place.DIRECTORY)


def test_nothing_else_on_the_host_is_refused(loop):
    device, other = loop(), loop("other.raw")
    # udev may still be about to open the new devices.
    udev_settle()
    seal(device)
    started = time.monotonic()
    for dummy in range(5000):
        os.close(os.open(other["path"], os.O_RDONLY))
        os.close(os.open("/dev/null", os.O_RDWR))
    print(f"10,000 opens took {time.monotonic() - started:.2f} s")
    assert seal_of(device).refused == 0
    lift(device)


def partition_table(count):
    """An MBR partition table with partitions of 1 MiB. udev may trigger another scan at any time."""
    rows = [struct.pack("<4xB3xII", 0x83, number * 2048, 2048) for number in range(1, count + 1)]
    return bytes(446) + b"".join(rows).ljust(64, b"\0") + b"\x55\xaa"


def test_partitions_are_sealed_with_their_disk(loop):
    device = loop(partitions=True, content=partition_table(3))
    first, second, third = (f"{device['path']}p{number}" for number in (1, 2, 3))
    with open_device(device["path"]) as held:
        wait_until(lambda: all(os.path.exists(path) for path in (first, second, third)))
        udev_settle()
        seal(device)
        assert is_refused(first) and is_refused(second) and is_refused(third)
        assert sorted(found.with_disk for found in seals.found().values()) == [False, True, True, True]
        # The keeper seals a partition that is added later.
        delete_partition(held.fd, 2)
        wait_until(lambda: len(seals.found()) == 3, 10)
        add_partition(held.fd, 2)
        wait_until(lambda: os.path.exists(second))
        wait_until(lambda: is_refused(second), 10)
        # Without a keeper, the next run does.
        os.kill(keeper_pid(), signal.SIGKILL)
        wait_until(lambda: keeper_pid() is None)
        delete_partition(held.fd, 3)
        seals.reap()
        assert len(seals.found()) == 3
        os.kill(keeper_pid(), signal.SIGKILL)
        wait_until(lambda: keeper_pid() is None)
        add_partition(held.fd, 3)
        wait_until(lambda: os.path.exists(third))
        seals.reap()
        assert is_refused(third)
        lift(device)
        assert not any(is_refused(path) for path in (first, second, third))
        assert not os.path.exists(place.DIRECTORY)


def add_partition(fd, number):
    """BLKPG_ADD_PARTITION (include/uapi/linux/blkpg.h), 1 MiB."""
    change_partition(fd, 1, number)


def delete_partition(fd, number):
    change_partition(fd, 2, number)


def change_partition(fd, operation, number):
    partition = ctypes.create_string_buffer(struct.pack("=qqi64s64s4x", number * MIB, MIB, number, b"", b""))
    fcntl.ioctl(fd, 0x1269, struct.pack("=iii4xQ", operation, 0, len(partition), ctypes.addressof(partition)))


def test_the_seal_outlives_its_maker_and_its_keeper(loop):
    device = loop()
    code = (
        "import os, sys; sys.path.insert(0, os.environ.get('RACEFREE_SITE', '/root/site'))\n"
        "from ansible_collections.racefree.block.plugins.module_utils._block.seal import seals\n"
        f"seals.seal({device['major']}, {device['minor']}, {device['diskseq']})"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert is_refused(device["path"])
    os.kill(keeper_pid(), signal.SIGKILL)
    wait_until(lambda: keeper_pid() is None)
    assert is_refused(device["path"])
    seals.reap()
    assert is_refused(device["path"]) and keeper_pid() is not None
    lift(device)


def test_the_keeper_ends_when_nothing_is_sealed(loop):
    device = loop()
    seal(device)
    pid = keeper_pid()
    with open(f"/proc/{pid}/environ", "rb") as environ:
        # The shell adds PWD and OLDPWD.
        assert {word.partition(b"=")[0] for word in environ.read().split(b"\0")} <= {
            b"",
            b"PATH",
            b"PWD",
            b"OLDPWD",
        }
    lift(device)
    wait_until(lambda: keeper_pid() is None, keeper.PERIOD / 2)


def test_the_last_seal_takes_all_with_it(name, control):
    """
    When the last sealed device is gone, the program and the keeper go too, without a run of the collection.
    """
    make_zero(control, name)
    seal(number_of(control, name))
    control.remove(_control.by_name(name))
    wait_until(lambda: not os.path.exists(place.DIRECTORY) and keeper_pid() is None, 20)


def number_of(control, name):
    """Like device_of, but without starting a program."""
    status = control.status(_control.by_name(name))
    with open(f"/sys/dev/block/{status.major}:{status.minor}/diskseq", encoding="ascii") as diskseq:
        return {
            "major": status.major,
            "minor": status.minor,
            "diskseq": int(diskseq.read()),
            "path": f"/dev/dm-{status.minor}",
        }


def make_zero(control, name):
    """Create a mapped device without waiting for udev."""
    control.create(name)
    control.load(_control.by_name(name), ((0, SECTORS, b"zero", b""),))
    control.resume(_control.by_name(name))


def test_udev_looks_again_at_a_device_that_was_refused(name):
    dmsetup("create", name, "--table", f"0 {SECTORS} zero")
    seal(device_of(name))
    stopped = keeper_pid()
    os.kill(stopped, signal.SIGSTOP)
    dmsetup("remove", name)
    dmsetup("create", name, "--table", f"0 {SECTORS} zero")
    successor = device_of(name)
    assert is_refused(successor["path"])
    wanted = uevent.Event("change", successor["major"], successor["minor"], False)
    with uevent.Listener() as listener:
        os.kill(stopped, signal.SIGCONT)
        wait_until(lambda: not is_refused(successor["path"]))
        wait_until(lambda: listener.next(1) == wanted)
    udev_settle()
    assert os.path.realpath(f"/dev/mapper/{name}") == successor["path"]
    dmsetup("remove", "--retry", name)


def device_of(name):
    """Device number and diskseq of a mapped device, from sysfs."""
    minor = int(dmsetup("info", "-c", "--noheadings", "-o", "minor", name).stdout)
    with (
        open(f"/sys/block/dm-{minor}/dev", encoding="ascii") as number,
        open(f"/sys/block/dm-{minor}/diskseq", encoding="ascii") as diskseq,
    ):
        return {
            "major": int(number.read().split(":")[0]),
            "minor": minor,
            "diskseq": int(diskseq.read()),
            "path": f"/dev/dm-{minor}",
        }


def test_the_event_of_a_predecessor_lifts_no_seal(name):
    """Only the current state in sysfs counts: events arrive late, and root can trigger any event."""
    dmsetup("create", name, "--table", f"0 {SECTORS} zero")
    device = device_of(name)
    seal(device)
    for action in ("remove", "change", "add", "offline"):
        with open(
            f"/sys/dev/block/{device['major']}:{device['minor']}/uevent", "w", encoding="ascii"
        ) as file:
            file.write(action)
    udev_settle()
    time.sleep(0.5)
    assert is_refused(device["path"])
    lift(device)
    dmsetup("remove", "--retry", name)


def test_the_collection_comes_in_by_a_pass(loop):
    device = loop()
    seal(device)
    with (
        _device.open_path(device["path"]) as held,
        _device.open_number(device["major"], device["minor"], diskseq=device["diskseq"]),
    ):
        assert held.id.diskseq == device["diskseq"]
        assert not _device.is_claimed(held)
        # This thread has no pass any more: it is refused like others.
        assert is_refused(device["path"])
    with _device.open_diskseq(device["diskseq"]):
        pass
    assert run_module("device_info")
    with attachment.existing() as maps:
        assert not maps.passes.keys()
    lift(device)


def test_a_pass_of_a_killed_process_is_no_use_to_its_successor(loop):
    """Another process with the same ID has another name."""
    device = loop()
    seal(device)
    number = device["major"], device["minor"]
    with attachment.existing() as maps:
        key = entry.pass_key(os.getpid(), os.getpid(), *number)
        maps.passes.put(key, entry.Pass(time.monotonic_ns() + 10**11, b"0123456789abcd").encoded())
        assert is_refused(device["path"])
        with passes.for_this_thread(maps, [number]):
            assert not is_refused(device["path"])
            child = subprocess.run(
                ["dd", f"if={device['path']}", "of=/dev/null", "count=1"], capture_output=True, check=False
            )
            assert child.returncode
        assert is_refused(device["path"])
        # An expired pass is not valid, and the next run removes it.
        with open("/proc/self/comm", "rb") as comm:
            own = comm.read().strip()
        maps.passes.put(key, entry.Pass(time.monotonic_ns() + 10**11, own).encoded())
        assert not is_refused(device["path"])
        maps.passes.put(key, entry.Pass(time.monotonic_ns() - 1, own).encoded())
        assert is_refused(device["path"])
        seals.reap()
        assert not maps.passes.keys()
    lift(device)


def test_a_newer_program_replaces_the_one_in_place(loop, monkeypatch):
    device = loop()
    seal(device)
    assert attachment.version_in_place() == program.VERSION
    monkeypatch.setattr(program, "VERSION", program.VERSION + 1)
    monkeypatch.setattr(program, "NAME", f"{program.PREFIX}{program.VERSION}")
    seals.reap()
    assert attachment.version_in_place() == program.VERSION and is_refused(device["path"])
    # An older version of the collection leaves a newer program in place.
    monkeypatch.undo()
    seals.reap()
    assert attachment.version_in_place() == program.VERSION + 1 and is_refused(device["path"])
    lift(device)


def test_what_somebody_has_detached_is_put_back(loop):
    device = loop()
    seal(device)
    link = bpf.get_pinned(attachment.LINK)
    bpf.detach_link(link)
    os.close(link)
    assert not is_refused(device["path"])
    seals.reap()
    assert is_refused(device["path"])
    os.unlink(attachment.LINK)
    # The kernel detaches a link in a work queue when its last reference was a pinned file (bpf_link_put() in
    # kernel/bpf/syscall.c), so a moment after unlink(2).
    wait_until(lambda: not is_refused(device["path"]))
    seals.reap()
    assert is_refused(device["path"])
    lift(device)


def test_others_programs_are_asked_beside_it(loop):
    """
    Programs of others, such as systemd's device policies, run as well: theirs refuses one device, ours
    another.
    """
    device, other = loop(), loop("other.raw")
    with (
        bpf.create_map("other", entry.NUMBER.size, entry.SEAL_SIZE, 8) as theirs,
        bpf.create_map("none", entry.PASS_KEY_SIZE, entry.PASS_SIZE, 8) as none,
    ):
        theirs.put(entry.NUMBER.pack(other["major"], other["minor"]), entry.Seal(1, 1).encoded())
        loaded = bpf.load_program("others", program.build(theirs.fd, none.fd))
        root = os.open(place.cgroup_root(), os.O_RDONLY)
        link = bpf.create_link(loaded, root)
        try:
            seal(device)
            assert is_refused(device["path"]) and is_refused(other["path"])
            lift(device)
            assert not is_refused(device["path"]) and is_refused(other["path"])
        finally:
            for fd in (link, root, loaded):
                os.close(fd)
    assert not is_refused(other["path"])


def test_a_host_without_what_it_takes_is_told(loop):
    device = loop()
    subprocess.run(["umount", place.BPF_FS], check=True)
    try:
        for call in (seals.probe, lambda: seal(device)):
            with pytest.raises(NotSupported, match="mount -t bpf bpf /sys/fs/bpf"):
                call()
    finally:
        subprocess.run(["mount", "-t", "bpf", "bpf", place.BPF_FS], check=True)
    root = place.cgroup_root()
    with without_cgroups(root):
        with pytest.raises(NotSupported, match="version 2, which seals need, are not mounted"):
            seals.probe()
    own = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", PROBE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "pid namespace of its own" in own.stderr
    seals.probe()
    assert not os.path.exists(place.DIRECTORY) and not is_refused(device["path"])


PROBE = """
import os, sys
sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))
from ansible_collections.racefree.block.plugins.module_utils._block.seal import seals
seals.probe()
"""


@contextlib.contextmanager
def without_cgroups(root):
    """Mount something else over the cgroup hierarchy."""
    subprocess.run(["mount", "-t", "tmpfs", "t", root], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", root], check=True)


def test_too_many_seals_are_refused(loop, monkeypatch):
    device, other = loop(), loop("other.raw")
    monkeypatch.setattr(entry, "MOST_SEALS", 1)
    seal(device)
    with pytest.raises(KernelError, match="At most 1 devices"):
        seal(other)
    assert not is_refused(other["path"]) and is_refused(device["path"])
    lift(device)


def test_events_are_the_kernels():
    with uevent.Listener() as listener:
        with open("/sys/class/mem/null/uevent", "w", encoding="ascii") as file:
            file.write("change")
        assert listener.next(10) is None


@pytest.mark.rotated
def test_killed_while_it_seals_and_lifts_and_the_keeper_killed():
    """A fixed sample of seal_kills.py, in a process of its own: it copies its memory for each try."""
    done = subprocess.run(
        [sys.executable, "-B", seal_kills.__file__, "--stride", "13"],
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_an_open_costs(loop):
    """
    Print the minimum of many short measurements, interleaved: without the program, with 1 seal, and with
    1,000 seals.
    """
    device, other = loop(), loop("other.raw")
    times = {0: [], 1: [], 1000: []}
    for dummy in range(int(os.environ.get("RACEFREE_TRIES") or 1)):
        for many, found in times.items():
            if many:
                seal(device)
                stop_keeper()
                with attachment.existing() as maps:
                    for minor in range(1, many):
                        maps.put(4000, minor, entry.Seal(1, 1))
                    assert len(maps.found()) == many
            # Lifting a seal makes udev examine the device, which would disturb the measurement.
            udev_settle()
            found.extend(seconds_of_opens(other["path"]) for dummy2 in range(40))
            seals.reap()
            lift(device)
    print("microseconds an open:", {many: round(min(found) * 1e6, 1) for many, found in times.items()})


def seconds_of_opens(path, count=50):
    started = time.perf_counter()
    for dummy in range(count):
        os.close(os.open(path, os.O_RDONLY))
    return (time.perf_counter() - started) / count


def stop_keeper():
    os.kill(keeper_pid(), signal.SIGKILL)
    wait_until(lambda: keeper_pid() is None)
