# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Encrypted swap never gets storage that somebody else uses, or that contains something, and notices that it is
on other storage than configured.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import struct
import subprocess
import threading

import pytest
import swap_areas
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    DeadlineExceeded,
    DefinitionError,
    KernelError,
    NotSupported,
)
from ansible_collections.racefree.block.plugins.module_utils._swap import (
    config,
    contents,
    plan,
    program,
    suspended,
)
from conftest import run_module, wait_until
from names_service import add_partition, delete_partition, losetup
from sealing import nothing_sealed
from swap_areas import loops, swaps, table

pytestmark = pytest.mark.usefixtures(nothing_sealed.__name__)
MIB = 2**20


@pytest.fixture
def swap(tmp_path, monkeypatch):
    yield from swap_areas.configured(tmp_path, monkeypatch, usual=8 * MIB)


@pytest.fixture
def disk(image, cleanup):
    """A loop device that stays, as a disk."""
    path = image("disk.raw", 12 * MIB)
    cleanup(loop=path)
    return run_module("loop_device", backing_file=path)["device"]["path"]


@pytest.fixture
def opened():
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def mapped(disk, name, cleanup):
    """The name of a mapped device with the UUID U-NAME."""
    table = f"0 8192 linear {disk} 0"
    subprocess.run(["dmsetup", "create", name, "--uuid", f"U-{name}", "--table", table], check=True)
    cleanup(dm=name)
    return name


def test_a_device_that_appears_late(swap, disk, tmp_path, monkeypatch, capsys):
    """The host may be booting. What does not appear is named."""
    path = tmp_path / "by-id"
    swap("late", size=None, source={"path": str(path)})
    maker = threading.Timer(1, path.symlink_to, [disk])
    maker.start()
    assert program.main(["start", "late"]) == 0 and len(swaps()) == 1, capsys.readouterr().err
    assert program.main(["stop", "late"]) == 0
    path.unlink()
    monkeypatch.setattr(program, "_LATE_SECONDS", 0.1)
    assert program.main(["start", "late"]) == 1 and str(path) in capsys.readouterr().err


def test_two_areas_on_one_file(swap, capsys):
    path = swap("old")
    assert program.main(["start", "old"]) == 0
    used = swaps()
    for size in (8 * MIB, 6 * MIB, None):
        swap("new", size=size, source={"file": path})
        assert program.main(["start", "new"]) == 1
        told = capsys.readouterr().err
        assert path in told and "it is in use by /dev/loop" in told and "losetup --list" in told
        assert swaps() == used and not table("racefree-swap-new") and os.path.getsize(path) == 8 * MIB
    assert program.main(["stop", "old"]) == 0
    swap("new", size=6 * MIB, source={"file": path})
    assert program.main(["start", "new"]) == 0


def test_two_areas_on_one_device(disk, swap, capsys):
    for name in ("old", "new"):
        swap(name, size=None, source={"path": disk})
    assert program.main(["start", "old"]) == 0
    used = swaps()
    assert program.main(["start", "new"]) == 1
    told = capsys.readouterr().err
    assert f"{disk}: it is in use by dm-" in told and "(racefree-swap-old)" in told
    assert swaps() == used and not table("racefree-swap-new")


def test_two_areas_on_one_device_at_once(disk, swap, monkeypatch):
    """The second one begins while the first one has looked, and has not yet made its mapped device."""
    for name in ("old", "new"):
        swap(name, size=None, source={"path": disk})
    others, refuse = [], contents.refuse

    def between(*arguments):
        if not others:
            others.append(subprocess.Popen(second_start(), stderr=subprocess.PIPE, text=True))
            with pytest.raises(subprocess.TimeoutExpired):
                others[0].wait(3)
        return refuse(*arguments)

    monkeypatch.setattr(program.contents, "refuse", between)
    assert program.main(["start", "old"]) == 0
    told = others[0].communicate(timeout=60)[1]
    assert others[0].returncode == 1 and "it is in use by dm-" in told and len(swaps()) == 1


def second_start():
    """The words of a process that starts the area ``new``."""
    package = "ansible_collections.racefree.block.plugins.module_utils._swap"
    text = (
        f"import sys; sys.path.insert(0, {os.environ.get('RACEFREE_SITE', '/root/site')!r})\n"
        f"from {package} import config, program\nconfig.DIRECTORY = {config.DIRECTORY!r}\n"
        "sys.exit(program.main(['start', 'new']))"
    )
    return ["python3", "-B", "-c", text]


def test_a_device_that_another_program_takes_meanwhile(disk, swap, capsys, monkeypatch, name, cleanup):
    """A program that takes no locks makes a mapped device after it was looked at."""
    swap(size=None, source={"path": disk})
    refuse = contents.refuse

    def after(*arguments):
        refuse(*arguments)
        subprocess.run(["dmsetup", "create", name, "--table", f"0 8 linear {disk} 0"], check=True)

    monkeypatch.setattr(program.contents, "refuse", after)
    cleanup(dm=name)
    assert program.main(["start", "one"]) == 1
    assert "it is in use by dm-" in capsys.readouterr().err
    assert not swaps() and not table("racefree-swap-one")


@pytest.mark.parametrize("size", [8 * MIB, 6 * MIB, None])
@pytest.mark.parametrize("options", [[], ["--read-only"]])
def test_a_guests_file(swap, capsys, size, options):
    """A loop device that somebody has open, as blkback has."""
    path = swap(size=size)
    with open(path, "wb") as file:
        file.write(b"G" * (8 * MIB))
    node = losetup(*options, path)
    try:
        with open(node, "rb", buffering=0):
            assert program.main(["start", "one"]) == 1
        told = capsys.readouterr().err
        assert f"{path}: it is in use by {node} (losetup --list {node})" in told
        assert "give the area another" in told
        with open(path, "rb") as file:
            assert file.read() == b"G" * (8 * MIB)
    finally:
        subprocess.run(["losetup", "-d", node], check=True)
    assert not swaps()


def test_a_device_that_is_mounted_or_used_for_swap(disk, swap, capsys, tmp_path):
    swap(size=None, source={"path": disk}, overwrite=True)
    subprocess.run(["mkfs.ext4", "-q", disk], check=True)
    (tmp_path / "mount").mkdir()
    subprocess.run(["mount", disk, tmp_path / "mount"], check=True)
    assert program.main(["start", "one"]) == 1
    subprocess.run(["umount", tmp_path / "mount"], check=True)
    assert f"{disk}: it is in use by mount {tmp_path}/mount" in capsys.readouterr().err
    subprocess.run(["mkswap", disk], check=True, capture_output=True)
    subprocess.run(["swapon", disk], check=True)
    assert program.main(["start", "one"]) == 1
    subprocess.run(["swapoff", disk], check=True)
    assert f"the kernel, for swap (swapoff {disk})" in capsys.readouterr().err
    assert program.main(["start", "one"]) == 0


def test_a_device_that_qemu_has_open(disk, swap, capsys):
    swap(size=None, source={"path": disk})
    with qemu(disk) as pid:
        assert program.main(["start", "one"]) == 1
        assert f"qemu-mine (process {pid})" in capsys.readouterr().err


def test_a_partition_of_a_disk_that_is_in_use(disk, swap, capsys):
    add_partition(disk, 1, MIB, 8 * MIB)
    part = f"{disk}p1"
    try:
        swap(size=None, source={"path": part})
        with qemu(disk) as pid:
            assert program.main(["start", "one"]) == 1
            told = capsys.readouterr().err
            assert f"{part}: it is in use by the guest or program qemu-mine (process {pid})" in told
        above = losetup(disk)
        assert program.main(["start", "one"]) == 1
        subprocess.run(["losetup", "-d", above], check=True)
        assert f"{part}: it is in use by {os.path.basename(above)}" in capsys.readouterr().err
        swap(size=None, source={"path": disk})
        with qemu(part) as pid:
            assert program.main(["start", "one"]) == 1
            assert f"qemu-mine (process {pid})" in capsys.readouterr().err
    finally:
        delete_partition(disk, 1)


def test_a_file_that_qemu_has_open(swap, capsys):
    path = swap(size=8 * MIB)
    with open(path, "wb") as file:
        file.truncate(6 * MIB)
    with qemu(path) as pid:
        assert program.main(["start", "one"]) == 1
        assert f"qemu-mine (process {pid})" in capsys.readouterr().err
    assert os.path.getsize(path) == 6 * MIB


class qemu:
    """A context with a process named like QEMU that has the path open; its PID."""

    def __init__(self, path):
        text = (
            "import sys; open('/proc/self/comm', 'w').write('qemu-mine'); f = open(sys.argv[1], 'rb'); "
            "print(flush=True); sys.stdin.read()"
        )
        self.process = subprocess.Popen(
            ["python3", "-c", text, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self):
        self.process.stdout.readline()
        return self.process.pid

    def __exit__(self, *exc):
        self.process.communicate()


def test_a_file_that_is_swapped_to_itself(swap, capsys, tmp_path):
    path = swap(size=8 * MIB)
    # Not on a file system of the machine, which has no swap files.
    disk = tmp_path / "disk"
    with open(disk, "wb") as file:
        file.truncate(8 * MIB)
    subprocess.run(["mkfs.ext4", "-q", disk], check=True)
    (tmp_path / "my swap").mkdir()
    subprocess.run(["mount", "-o", "loop", disk, tmp_path / "my swap"], check=True)
    path = str(tmp_path / "my swap/file")
    swap(size=8 * MIB, source={"file": path})
    try:
        with open(path, "wb") as file:
            file.write(bytes(6 * MIB))
        os.chmod(path, 0o600)
        subprocess.run(["mkswap", path], check=True, capture_output=True)
        subprocess.run(["swapon", path], check=True)
        assert program.main(["start", "one"]) == 1
        subprocess.run(["swapoff", path], check=True)
        assert f"it is in use by {path} (swapoff {path})" in capsys.readouterr().err
        assert os.path.getsize(path) == 6 * MIB
    finally:
        subprocess.run(["umount", tmp_path / "my swap"], check=True)


def test_a_loop_device_that_is_about_to_go_is_waited_for(swap):
    """As after a start that was killed."""
    path = swap()
    assert program.main(["start", "one"]) == 0 == program.main(["stop", "one"])
    node = losetup(path)
    with open(node, "rb") as going:
        subprocess.run(["losetup", "-d", node], check=True)
        threading.Timer(1, going.close).start()
        assert program.main(["start", "one"]) == 0


def test_what_is_no_file_is_left_alone(swap, capsys, tmp_path):
    path = swap()
    os.symlink(tmp_path / "elsewhere", path)
    (tmp_path / "elsewhere").write_bytes(b"x" * 4096)
    assert program.main(["start", "one"]) == 1
    assert f"{path}: is a symbolic link" in capsys.readouterr().err
    assert (tmp_path / "elsewhere").read_bytes() == b"x" * 4096
    os.unlink(path)
    os.mkfifo(path)
    assert program.main(["start", "one"]) == 1
    assert f"{path}: is a FIFO" in capsys.readouterr().err


def test_a_file_that_is_replaced_while_its_lock_is_waited_for(swap, capsys, monkeypatch):
    path = swap()
    for name in (path, f"{path}.new"):
        with open(name, "wb") as file:
            file.truncate(MIB)
    taken = program.file.locks.of_inode

    def replaced(*arguments):
        os.rename(f"{path}.new", path)
        monkeypatch.setattr(program.file.locks, "of_inode", taken)
        return taken(*arguments)

    monkeypatch.setattr(program.file.locks, "of_inode", replaced)
    assert program.main(["start", "one"]) == 1
    assert f"{path}: the file was replaced" in capsys.readouterr().err
    assert os.path.getsize(path) == MIB and not swaps()


# One partition of Linux, from sector 8 on with 64 sectors.
ENTRY = struct.pack("<B3sB3sII", 0, b"", 0x83, b"", 8, 64)
# {what the message says: bytes}
FORMATS = {
    "ext4": None,
    "a disk image of the format qcow2": b"QFI\xfb\0\0\0\3",
    "a partition table (dos)": bytes(446) + ENTRY + bytes(48) + b"\x55\xaa",
}


def formatted(path, what):
    """Make a file system or another format there; returns how the device or file begins then."""
    if FORMATS[what] is None:
        subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True)
    else:
        with open(path, "r+b") as file:
            file.write(FORMATS[what])
    with open(path, "rb") as file:
        return file.read(MIB)


@pytest.mark.parametrize("what", FORMATS)
def test_a_device_with_contents(disk, swap, capsys, what, opened):
    swap(size=None, source={"path": disk})
    before = formatted(disk, what)
    assert program.main(["start", "one"]) == 1
    told = capsys.readouterr().err
    assert f"{disk}: it contains something that swap would overwrite: {what}" in told
    assert f"wipefs --all {disk}" in told and "overwrite: true" in told
    with open(disk, "rb") as file:
        assert file.read(MIB) == before
    assert not swaps() and not table("racefree-swap-one")
    swap(size=None, source={"path": disk}, overwrite=True)
    opened.enter_context(open(disk, "rb")).read(MIB)
    assert program.main(["start", "one"]) == 0 == program.main(["stop", "one"])
    # What is there now is no known format, whatever is in the cache of a device that stays open.
    swap(size=None, source={"path": disk})
    assert program.main(["start", "one"]) == 0


@pytest.mark.parametrize("what", FORMATS)
@pytest.mark.parametrize("size", [6 * MIB, 8 * MIB, 9 * MIB, None])
def test_a_file_with_contents(swap, capsys, what, size):
    path = swap(size=size)
    with open(path, "wb") as file:
        file.write(bytes(6 * MIB))
    before = formatted(path, what)
    assert program.main(["start", "one"]) == 1
    told = capsys.readouterr().err
    assert f"{path}: it contains something that swap would overwrite: {what}" in told
    with open(path, "rb") as file:
        assert file.read(MIB) == before and os.path.getsize(path) == 6 * MIB
    assert not swaps()
    # The kernel releases it a moment later.
    wait_until(lambda: ".swap" not in loops(), 20)
    swap(size=size, overwrite=True)
    assert program.main(["start", "one"]) == 0


def test_a_refused_file_stays_sparse(swap, capsys):
    """Also one that has the size of the area."""
    path = swap(size=64 * MIB)
    with open(path, "wb") as file:
        file.truncate(64 * MIB)
    formatted(path, "ext4")
    before = os.stat(path).st_blocks
    assert program.main(["start", "one"]) == 1
    assert "it contains something that swap would overwrite: ext4" in capsys.readouterr().err
    assert os.stat(path).st_blocks == before


def test_an_unused_swap_area_may_be_overwritten(disk, swap):
    swap(size=None, source={"path": disk})
    subprocess.run(["mkswap", disk], check=True, capture_output=True)
    assert program.main(["start", "one"]) == 0


def test_what_cannot_be_looked_at_is_not_empty(name, cleanup, monkeypatch, disk):
    subprocess.run(["dmsetup", "create", name, "--table", "0 2048 error"], check=True)
    cleanup(dm=name)
    with open(f"/dev/mapper/{name}", "rb") as device:
        with pytest.raises(KernelError, match="look at what it contains"):
            contents.refuse(device.fileno(), name)
    with open(disk, "rb") as device:
        monkeypatch.setattr(contents, "_ENVIRONMENT", {"PATH": "/nowhere"})
        with pytest.raises(NotSupported, match="blkid is not installed"):
            contents.refuse(device.fileno(), disk)


def test_blkid_has_a_deadline(disk, tmp_path, monkeypatch):
    fake = tmp_path / "blkid"
    fake.write_text("#!/bin/sh\nexec sleep 100\n")
    fake.chmod(0o755)
    monkeypatch.setattr(contents, "_ENVIRONMENT", {"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    monkeypatch.setattr(os, "environ", dict(os.environ, PATH=f"{tmp_path}:{os.environ['PATH']}"))
    # Reading the device itself must not take as long.
    monkeypatch.setattr(contents, "_SECONDS", 3)
    with open(disk, "rb") as device, pytest.raises(DeadlineExceeded, match="blkid to look"):
        contents.refuse(device.fileno(), disk)


@contextlib.contextmanager
def suspended_device(name):
    """A context in which the mapped device is suspended, for at most 20 seconds."""
    subprocess.run(["udevadm", "settle"], check=True)
    subprocess.run(["dmsetup", "suspend", "--noflush", "--nolockfs", name], check=True)
    # Who waits for the device without a deadline must not wait for the end of the test.
    late = threading.Timer(20, lambda: subprocess.run(["dmsetup", "resume", name], check=True))
    late.start()
    try:
        yield
    finally:
        late.cancel()
        subprocess.run(["dmsetup", "resume", name], check=True)


def test_a_table_is_refused(mapped, swap, capsys):
    """Else what a guest has in the middle of its disk would be overwritten."""
    node = f"/dev/mapper/{mapped}"
    with open(node, "r+b", buffering=0) as guest:
        guest.seek(2 * MIB)
        guest.write(b"G" * 4096)
        source = {"table": [f"0 4096 linear dm:{mapped},U-{mapped} 4096"]}
        swap("one", size=None, source=source)
        told = "must name a file or a device that exists: make the mapped device"
        assert told in planned(one={"source": source}).errors[0]
        assert program.main(["start", "one"]) == 1
        assert told in capsys.readouterr().err
        os.posix_fadvise(guest.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(guest.fileno(), 4096, 2 * MIB) == b"G" * 4096
    assert not swaps()


@pytest.mark.parametrize("is_below", [False, True])
def test_a_suspended_device_is_refused(mapped, swap, capsys, monkeypatch, cleanup, is_below):
    monkeypatch.setattr(suspended, "_SECONDS", 1)
    name = f"{mapped}-above" if is_below else mapped
    if is_below:
        table_above = f"0 8192 linear /dev/mapper/{mapped} 0"
        command = ["dmsetup", "create", name, "--uuid", f"U-{name}", "--table", table_above]
        subprocess.run(command, check=True)
        cleanup(dm=name)
    node = f"/dev/mapper/{name}"
    # With this, nobody looks at what it contains.
    one = {"source": {"path": node, "uuid": f"U-{name}"}, "overwrite": True}
    swap("one", size=None, **one)
    with suspended_device(mapped):
        [error] = planned(one=one).errors
        assert f"{node}: {mapped} is suspended" in error and f"dmsetup resume {mapped}" in error
        assert program.main(["start", "one"]) == 1
        assert f"{node}: {mapped} is suspended" in capsys.readouterr().err
    assert not swaps() and not table("racefree-swap-one")
    assert program.main(["start", "one"]) == 0


def test_a_device_that_is_suspended_for_a_moment(mapped, swap):
    swap("one", size=None, source={"path": f"/dev/mapper/{mapped}", "uuid": f"U-{mapped}"})
    subprocess.run(["udevadm", "settle"], check=True)
    subprocess.run(["dmsetup", "suspend", mapped], check=True)
    threading.Timer(1, lambda: subprocess.run(["dmsetup", "resume", mapped], check=True)).start()
    assert program.main(["start", "one"]) == 0


def test_storage_that_does_not_answer(mapped, monkeypatch):
    """As a multipath device without a path, which is not suspended."""
    monkeypatch.setattr(contents, "_SECONDS", 2)
    with suspended_device(mapped), open(f"/dev/mapper/{mapped}", "rb", buffering=0) as device:
        with pytest.raises(DeadlineExceeded, match="the storage to answer"):
            contents.refuse(device.fileno(), mapped)


def test_an_area_that_runs_on_other_storage(disk, swap, capsys, tmp_path):
    path = swap("one")
    assert program.main(["start", "one"]) == 0
    used = swaps()
    other = str(tmp_path / "other")
    for source in ({"file": other}, {"path": disk}, {"path": "/dev/nothing"}):
        swap("one", source=source, size=8 * MIB if "file" in source else None)
        assert program.main(["start", "one"]) == 1
        told = capsys.readouterr().err
        assert f"({path}) instead of {list(source)[0]}:{list(source.values())[0]}" in told
        assert "systemctl restart racefree-encrypted-swap@one" in told
    assert not os.path.exists(other) and swaps() == used
    # Another file at the same path is other storage, too.
    swap("one")
    assert program.main(["start", "one"]) == 0
    os.rename(path, other)
    with open(path, "wb") as file:
        file.write(bytes(8 * MIB))
    assert program.main(["start", "one"]) == 1
    assert f"({other}) instead of file:{path}" in capsys.readouterr().err
    os.rename(other, path)
    assert program.main(["start", "one"]) == 0 and swaps() == used


def planned(removed=(), **areas):
    return plan.plan(json.dumps({"areas": areas, "removed": list(removed)}))


def test_the_plan(disk, swap, tmp_path, capsys):
    path = swap("one")
    assert program.main(["start", "one"]) == 0
    one = {"source": {"file": path}, "size": 8 * MIB, "priority": 5}
    assert planned(one=one) == ([], [], ["one"], {"one": os.path.dirname(path)})
    # It is written, but not applied.
    swap("one", priority=7)
    assert planned(one=dict(one, priority=7))[:3] == ([], [], [])
    # The same file under two names, in the list or not.
    link = str(tmp_path / "link")
    os.symlink(path, link)
    two = {"source": {"file": link}}
    for listed in ({"two": two}, {"one": one, "two": two}):
        errors = " ".join(planned(**listed).errors)
        assert "one and two: both areas are on" in errors or "two and one: both areas are on" in errors
    assert planned(["one"], two=two)[:3] == ([], [], [])
    missing = {"source": {"file": str(tmp_path / "missing")}, "size": MIB}
    assert "both areas are on" in planned(a=missing, b=missing).errors[0]
    assert planned(a=missing).errors == []
    parts = [{"source": {"file": disk_file(tmp_path), "offset": at * MIB, "size": MIB}} for at in (0, 1)]
    assert planned(a=parts[0], b=parts[1]).errors == []
    assert "cannot be kept" in planned(a={"source": {"path": disk}}).errors[0]
    assert capsys.readouterr().err == ""


def disk_file(tmp_path):
    path = tmp_path / "parts"
    path.write_bytes(bytes(2 * MIB))
    return str(path)


def test_the_plan_of_devices(disk, mapped, swap):
    node = f"/dev/mapper/{mapped}"
    doubtful, sure = {"source": {"path": node}}, {"source": {"path": node, "uuid": f"U-{mapped}"}}
    found = planned(a=doubtful)
    assert not found.errors and "can name another disk after the next boot" in found.warnings[0]
    assert planned(a=sure) == ([], [], [], {})
    assert "both areas are on" in planned(a=sure, b=doubtful).errors[0]
    swap("a", size=None, **sure)
    assert program.main(["start", "a"]) == 0
    assert planned(a=dict(sure, priority=5)) == ([], [], ["a"], {})
    assert "both areas are on" in planned(b=sure).errors[0]
    assert planned(["a"], b=sure) == ([], [], [], {})
    assert program.main(["stop", "a"]) == 0
    subprocess.run(["mkfs.ext4", "-q", node], check=True)
    # Known, but with something on it by now.
    assert "it contains something that swap would overwrite: ext4" in planned(a=sure).errors[0]
    assert planned(a=dict(sure, overwrite=True)).errors == []
    assert "no such device" in planned(a={"source": {"path": "/dev/mapper/none"}}).errors[0]


def test_storage_is_free_after_stop(mapped, swap):
    """Linux 6.9 and newer release it a moment after the area's device is gone."""
    node = f"/dev/mapper/{mapped}"
    swap("a", size=None, source={"path": node, "uuid": f"U-{mapped}"})
    for _again in range(8):
        assert program.main(["start", "a"]) == 0
        assert program.main(["stop", "a"]) == 0
        os.close(os.open(node, os.O_RDONLY | os.O_EXCL))


def test_storage_that_is_used_again_does_not_stop_a_stop(mapped, swap, monkeypatch):
    """A mount, or a program with O_EXCL, that came after the area."""
    node = f"/dev/mapper/{mapped}"
    swap("a", size=None, source={"path": node, "uuid": f"U-{mapped}"})
    assert program.main(["start", "a"]) == 0
    forget, taken = program.seals.forget, []

    def take(*number):
        forget(*number)
        wait_until(has_taken)

    def has_taken():
        with contextlib.suppress(OSError):
            taken.append(os.open(node, os.O_RDONLY | os.O_EXCL))
        return taken

    monkeypatch.setattr(program.seals, "forget", take)
    assert program.main(["stop", "a"]) == 0
    os.close(taken[0])


@pytest.mark.parametrize("step", ["open_number", "is_claimed"])
def test_storage_that_cannot_be_opened_does_not_stop_a_stop(mapped, swap, monkeypatch, capsys, step):
    """No device here can be made to fail in its open, as a dead disk does, so the error is inserted."""
    node, failed = f"/dev/mapper/{mapped}", []
    swap("a", size=None, source={"path": node, "uuid": f"U-{mapped}"})
    assert program.main(["start", "a"]) == 0

    def fail(*_arguments):
        failed.append(step)
        raise KernelError("open it: no such device or address", device=node)

    monkeypatch.setattr(program, step, fail)
    assert program.main(["stop", "a"]) == 0 and failed
    assert not swaps() and not table("racefree-swap-a")
    assert "its storage" in (told := capsys.readouterr().err) and "no such device or address" in told


@pytest.mark.parametrize("number", [errno.ENXIO, errno.EMFILE])
def test_only_a_disk_that_is_gone_is_not_looked_at_again(mapped, swap, monkeypatch, capsys, number):
    node, claimed, looks = f"/dev/mapper/{mapped}", program.is_claimed, []
    swap("a", size=None, source={"path": node, "uuid": f"U-{mapped}"})
    assert program.main(["start", "a"]) == 0

    def fail_once(device):
        looks.append(number)
        if len(looks) == 1:
            raise KernelError("open it exclusively", device=node, errno=number)
        return claimed(device)

    monkeypatch.setattr(program, "is_claimed", fail_once)
    assert program.main(["stop", "a"]) == 0
    assert (len(looks) > 1) is (number == errno.EMFILE) and not capsys.readouterr().err


def test_a_plan_that_cannot_be_read():
    with pytest.raises(DefinitionError, match="Apply the role again"):
        plan.plan("[]")
