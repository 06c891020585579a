# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The file system of names by disk sequence number, on a real kernel: what it shows, holds, refuses and
survives.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from ansible_collections.racefree.block.plugins.module_utils._block.seal import seals
from conftest import refused, run_module, state_of, udev_settle
from differential import udev_stopped
from names_service import Service, add_partition, diskseq_of, losetup, service, wait_for
from sealing import nothing_sealed

pytest.importorskip("pyfuse3")

NOBODY = 65534
LOOKUPS = int(os.environ.get("RACEFREE_LOOKUPS", "500"))


@pytest.fixture(scope="module")
def names() -> Iterator[Service]:
    with service() as started:
        yield started
        assert started.stop() == 0
        assert started.said() == ""


@pytest.fixture
def loop(image) -> Iterator[str]:
    """The node of a loop device with two partitions, each beginning with its label."""
    path = image("disk.raw", 8 * 2**20, content=b"whole")
    with open(path, "r+b") as file:
        for number in (1, 3):
            file.seek(number * 2**20)
            file.write(b"part%d" % number)
    node = losetup(path, "--partscan")
    # udev triggers a scan of the partition table, and there is none.
    udev_settle()
    for number, start in ((1, 1), (2, 3)):
        add_partition(node, number, start * 2**20, 2**20)
    udev_settle()
    yield node
    subprocess.run(["losetup", "-d", node], check=False, capture_output=True)
    # Detached at the last close, which may be the service's.
    wait_for(lambda: not is_bound(node))


def is_bound(node: str) -> bool:
    return os.path.exists(f"/sys/block/{os.path.basename(node)}/loop")


@pytest.fixture
def mapped(name) -> Iterator[str]:
    """The name of a mapped device of one MiB."""
    subprocess.run(["dmsetup", "create", name, "--table", "0 2048 zero"], check=True)
    udev_settle()
    yield name
    subprocess.run(["dmsetup", "remove", "--retry", name], check=False, capture_output=True)


def as_nobody(*command: str, groups: str = "--clear-groups") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", groups, *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def errno_of(path: str, flags: int = os.O_RDONLY) -> str:
    """The name of the open's errno, or an empty string if it succeeded."""
    try:
        os.close(os.open(path, flags | os.O_CLOEXEC))
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


def test_a_name_is_the_device_itself(names, loop):
    number = diskseq_of(loop)
    there, node = os.lstat(names.path(number)), os.lstat(loop)
    assert (there.st_mode, there.st_uid, there.st_gid, there.st_rdev) == (
        node.st_mode,
        node.st_uid,
        node.st_gid,
        node.st_rdev,
    )
    assert os.path.realpath(names.path(number)) == names.path(number)
    with open(names.path(number), "r+b") as device:
        device.seek(5 * 2**20)
        device.write(b"written")
    with open(loop, "rb") as device:
        device.seek(5 * 2**20)
        assert device.read(7) == b"written"
    assert names.no_pins()


def test_partitions_have_two_names_each(names, loop):
    number = diskseq_of(loop)
    for name, content in (
        (f"{number}p1", b"part1"),
        (f"{number}-part1", b"part1"),
        (f"{number}p2", b"part3"),
        (f"{number}-part2", b"part3"),
    ):
        with open(names.path(name), "rb") as device:
            assert device.read(5) == content
    for name in (f"{number}p3", f"{number}-part3", f"{number}p0", f"{number}-part01"):
        assert errno_of(names.path(name)) == "ENOENT"
    assert names.no_pins()


def test_listed_is_what_there_is(names, loop, mapped):
    whole, device = diskseq_of(loop), diskseq_of(f"/dev/mapper/{mapped}")
    ours = {str(whole), f"{whole}p1", f"{whole}-part1", f"{whole}p2", f"{whole}-part2", str(device)}
    listed = os.listdir(names.mount)
    assert ours <= set(listed) and len(set(listed)) == len(listed)
    with os.scandir(names.mount) as entries:
        assert all(stat.S_ISBLK(entry.stat().st_mode) for entry in entries)
    subprocess.run(["dmsetup", "remove", "--retry", mapped], check=True)
    assert str(device) not in os.listdir(names.mount)
    assert names.no_pins()


@pytest.mark.usefixtures(nothing_sealed.__name__)
def test_sealed_devices_stop_no_other(names, loop, image):
    """They have names as without a seal. An open by the name is refused as by the node."""
    sealed = [losetup(image(f"sealed{number}.raw", 2**20)) for number in range(10)]
    try:
        numbers = [(*number_of(node), diskseq_of(node)) for node in sealed]
        for number in numbers:
            seals.seal(*number)
        with open(names.path(diskseq_of(loop)), "rb") as device:
            assert device.read(5) == b"whole"
        listed = os.listdir(names.mount)
        for node, (_major, _minor, diskseq) in zip(sealed, numbers):
            assert str(diskseq) in listed
            assert os.lstat(names.path(diskseq)).st_rdev == os.lstat(node).st_rdev
            assert errno_of(names.path(diskseq)) == errno_of(node) == "EPERM"
        for number in numbers:
            seals.lift(*number)
            assert errno_of(names.path(number[2])) == ""
        assert names.no_pins()
    finally:
        subprocess.run(["losetup", "-d", *sealed], check=False)
        wait_for(lambda: not any(is_bound(node) for node in sealed))


def number_of(node: str) -> tuple[int, int]:
    rdev = os.lstat(node).st_rdev
    return os.major(rdev), os.minor(rdev)


def test_gone_is_gone(names, image):
    """The number of a device that got another file, or none, is never valid again."""
    first, second = image("a.raw", content=b"a"), image("b.raw", content=b"b")
    node = losetup(first)
    try:
        old = diskseq_of(node)
        assert errno_of(names.path(old)) == "" and names.no_pins()
        subprocess.run(["losetup", "-d", node], check=True)
        udev_settle()
        assert errno_of(names.path(old)) == "ENOENT"
        assert str(old) not in os.listdir(names.mount)
        subprocess.run(["losetup", node, second], check=True)
        assert errno_of(names.path(old)) == "ENOENT"
        with open(names.path(diskseq_of(node)), "rb") as device:
            assert device.read(1) == b"b"
    finally:
        assert names.no_pins()
        subprocess.run(["losetup", "-d", node], check=False)


@pytest.mark.parametrize(
    "name",
    [
        "0",
        "042",
        "18446744073709551615",
        "18446744073709551616",
        "-1",
        "x",
        "1p0",
        "99999999999999999999999999",
        "x" * 255,
    ],
)
def test_other_names_do_not_exist(names, name):
    assert errno_of(names.path(name)) == "ENOENT"


def test_nothing_can_be_made_or_changed_there(names, loop):
    path = names.path(diskseq_of(loop))
    for change in (
        lambda: os.mkdir(names.path("x")),
        lambda: os.mknod(names.path("x")),
        lambda: os.unlink(path),
        lambda: os.chmod(path, 0o666),
        lambda: os.rename(path, names.path("1")),
        lambda: os.symlink("x", names.path("x")),
        lambda: os.chown(path, 1, 1),
    ):
        with pytest.raises(OSError) as caught:
            change()
        assert caught.value.errno in (errno.EROFS, errno.EPERM)
    assert names.no_pins()


def test_who_may_not_open_it_sees_it_and_holds_nothing(names, loop):
    path = names.path(diskseq_of(loop))
    os.chmod(loop, 0o660)
    node = os.stat(loop)
    shown = as_nobody("stat", "--format=%f %u %g %t:%T", path)
    assert shown.stdout.split() == [
        f"{node.st_mode:x}",
        str(node.st_uid),
        str(node.st_gid),
        f"{os.major(node.st_rdev):x}:{os.minor(node.st_rdev):x}",
    ]
    assert names.pins() == []
    refused = as_nobody("head", "-c1", path)
    assert refused.returncode and "Permission denied" in refused.stderr
    assert as_nobody("ls", "-l", names.mount).returncode == 0
    assert names.pins() == []


def test_who_may_open_it_by_the_nodes_mode_can(names, loop):
    path = names.path(diskseq_of(loop))
    os.chmod(loop, 0o640)
    assert as_nobody("head", "-c5", path, groups=f"--groups={os.stat(loop).st_gid}").stdout == "whole"
    assert as_nobody(
        "dd", f"of={path}", "count=0", "conv=notrunc", groups=f"--groups={os.stat(loop).st_gid}"
    ).returncode
    os.chmod(loop, 0o604)
    assert as_nobody("head", "-c5", path).stdout == "whole"
    os.chmod(loop, 0o600)
    assert as_nobody("head", "-c5", path).returncode
    assert names.no_pins()


def test_a_descriptor_of_who_may_not_open_it_opens_nothing(names, loop):
    """
    Nothing holds the device for this descriptor, so nobody may open the device through it, not even root.
    """
    path = names.path(diskseq_of(loop))
    os.chmod(loop, 0o600)
    child = subprocess.Popen(
        [
            "setpriv",
            f"--reuid={NOBODY}",
            f"--regid={NOBODY}",
            "--clear-groups",
            sys.executable,
            "-c",
            "import os, sys\nfd = os.open(sys.argv[1], os.O_PATH)\nprint(fd, flush=True)\ninput()",
            path,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        fd = child.stdout.readline().strip()
        assert errno_of(f"/proc/{child.pid}/fd/{fd}") == "ESTALE"
        # Meanwhile root can open the name itself.
        assert errno_of(path) == ""
    finally:
        child.communicate("\n")
    assert names.no_pins()


def test_a_name_that_is_kept_keeps_the_device(names, image):
    """A program that has resolved the name opens that device or none, whatever others do meanwhile."""
    first, second = image("a.raw", content=b"a"), image("b.raw", content=b"b")
    node = losetup(first)
    handle = os.open(names.path(diskseq_of(node)), os.O_PATH)
    try:
        subprocess.run(["losetup", "-d", node], check=True)
        assert subprocess.run(["losetup", node, second], check=False, capture_output=True).returncode
        time.sleep(1)
        with open(f"/proc/self/fd/{handle}", "rb") as device:
            assert device.read(1) == b"a"
    finally:
        os.close(handle)
        assert names.no_pins()
    # The detach by losetup -d completes at the last close.
    wait_for(lambda: not is_bound(node))


def test_a_mapped_device_cannot_be_removed_while_its_name_is_kept(names, mapped):
    handle = os.open(names.path(diskseq_of(f"/dev/mapper/{mapped}")), os.O_PATH)
    try:
        done = subprocess.run(["dmsetup", "remove", mapped], check=False, capture_output=True, text=True)
        assert done.returncode and "busy" in done.stderr
        subprocess.run(["dmsetup", "remove", "--deferred", mapped], check=True, capture_output=True)
        assert os.path.exists(f"/sys/block/{os.path.basename(os.path.realpath(f'/dev/mapper/{mapped}'))}")
    finally:
        os.close(handle)
    # The deferred removal completes when the service closes the device.
    wait_for(lambda: subprocess.run(["dmsetup", "info", mapped], check=False, capture_output=True).returncode)


def test_no_look_up_is_left(names, loop):
    """RACEFREE_LOOKUPS sets the number of lookups."""
    number = diskseq_of(loop)
    spelled = [names.path(name) for name in (number, f"{number}p1", f"{number}-part1", f"{number}p2")]
    for count in range(LOOKUPS):
        path = spelled[count % len(spelled)]
        os.stat(path) if count % 2 else os.close(os.open(path, os.O_RDONLY))
    assert names.no_pins()


def test_look_ups_that_are_killed_leave_nothing(names, loop):
    path = names.path(diskseq_of(loop))
    for count in range(40):
        child = subprocess.Popen(
            ["cat", path, path, path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(0.002 * (count % 20))
        child.kill()
        child.wait()
    assert names.no_pins()
    assert errno_of(path) == ""


def test_swapon_accepts_the_name(names, image):
    """
    The kernel refuses a name that it was told to forget since swapon(2) has looked it up, and swapon(8) looks
    several times. RACEFREE_SWAPONS sets the number of tries. One may fail on a machine without any time left.
    """
    node, refused_tries = losetup(image()), 0
    tries = int(os.environ.get("RACEFREE_SWAPONS", "30"))
    try:
        subprocess.run(["mkswap", "-q", node], check=True)
        for dummy in range(tries):
            if subprocess.run(["swapon", names.path(diskseq_of(node))], check=False).returncode:
                refused_tries += 1
            else:
                subprocess.run(["swapoff", node], check=True)
    finally:
        subprocess.run(["losetup", "-d", node], check=True)
    print(f"swapon(8) refused the name in {refused_tries} of {tries} tries")
    assert refused_tries <= 1
    assert names.no_pins()
    wait_for(lambda: not is_bound(node))


def test_what_is_not_there_holds_nothing(names):
    for number in range(LOOKUPS):
        assert not os.path.exists(names.path(2**63 + number))
    assert names.pins() == []


def test_asked_to_let_go(names, mapped):
    number = diskseq_of(f"/dev/mapper/{mapped}")
    os.stat(names.path(number))
    assert names.pins()

    def ask(text: str) -> str:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.settimeout(20)
            client.connect(f"{names.state}/socket")
            client.send(text.encode())
            return client.recv(64).decode()

    assert ask(str(number)) == "0" and names.pins() == []
    handle = os.open(names.path(number), os.O_PATH)
    try:
        assert ask(str(number)) == "1"
    finally:
        os.close(handle)
    assert ask(str(number)) == "0" and names.pins() == []


def test_the_collections_removals_ask_it_to_let_go(image, mapped):
    """
    With a grace time of ten minutes, removals would otherwise time out. A name that somebody has open counts
    as in use, and the removal waits for it.
    """
    path = image("loop.raw")
    state = "/run/racefree-block/by-diskseq"
    made = run_module("loop_device", backing_file=path)["device"]
    with service("--grace-ms", "600000", "--state", state) as names:
        numbers = [made["diskseq"], diskseq_of(f"/dev/mapper/{mapped}")]
        for number in numbers:
            os.stat(names.path(number))
        assert len(names.pins()) == 2
        handle = os.open(names.path(numbers[1]), os.O_PATH)
        try:
            refused("dm_device", "open", name=mapped, state="absent", timeout=1)
        finally:
            os.close(handle)
        assert run_module("loop_device", backing_file=path, state="absent")["changed"]
        assert run_module("dm_device", name=mapped, state="absent")["changed"]
        assert names.pins() == []
        assert [errno_of(names.path(number)) for number in numbers] == ["ENOENT"] * 2


def test_no_more_than_the_limit(loop):
    with service("--limit", "2") as few:
        number = diskseq_of(loop)
        handles = [os.open(few.path(name), os.O_PATH) for name in (number, f"{number}p1")]
        assert errno_of(few.path(f"{number}p2")) == "ENFILE"
        assert errno_of(few.path(number)) == ""
        for handle in handles:
            os.close(handle)
        assert few.no_pins()
        assert errno_of(few.path(f"{number}p2")) == ""


def test_a_longer_grace_time(loop):
    with service("--grace-ms", "600000") as long:
        os.stat(long.path(diskseq_of(loop)))
        time.sleep(1.5)
        assert long.pins() == [loop]


@pytest.fixture
def silent(image, name) -> Iterator[str]:
    """
    The node of a loop device whose open blocks. A change of its settings waits for a read, and the read waits
    for the suspended mapped device below. The change holds the lock that an open needs (drivers/block/loop.c,
    lo_mutex).
    """
    subprocess.run(["dmsetup", "create", name, "--table", "0 131072 zero"], check=True)
    node = losetup(f"/dev/mapper/{name}")
    udev_settle()
    subprocess.run(["dmsetup", "suspend", "--noflush", name], check=True)
    # A sector that was never read, so that it is in no cache.
    reads = ["dd", f"if={node}", "iflag=direct", "count=1", "skip=50001"]
    waiting = []
    try:
        for command in (reads, ["losetup", "--direct-io=on", node]):
            waiting.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            # Wait until the command blocks, so that it comes before our opens.
            wait_for(lambda: "D" in state_of(waiting[-1].pid))
        yield node
    finally:
        subprocess.run(["dmsetup", "resume", name], check=True)
        for child in waiting:
            child.wait()
        udev_settle()
        subprocess.run(["losetup", "-d", node], check=True)
        wait_for(lambda: not is_bound(node))
        subprocess.run(["dmsetup", "remove", "--retry", name], check=True)


def test_a_device_that_does_not_answer_stops_no_other(silent, loop):
    with open(f"/sys/block/{os.path.basename(silent)}/diskseq", encoding="ascii") as file:
        number = int(file.read())
    with service() as names:
        waiting = subprocess.Popen(
            ["stat", names.path(number)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        other = names.path(diskseq_of(loop))
        took = []
        while waiting.poll() is None:
            begun = time.monotonic()
            assert errno_of(other) == ""
            took.append(time.monotonic() - begun)
        assert len(took) > 20, took
        # No open of the other device waited as long as the silent device's.
        assert max(took) < sum(took) / 2, took
        assert waiting.stderr is not None and "timed out" in waiting.stderr.read()
        # The service knows by now that it is silent: later lookups do not wait.
        for dummy in range(100):
            assert errno_of(names.path(number)) == "ETIMEDOUT"
        assert str(number) in os.listdir(names.mount)
        assert wait_for(lambda: not [pin for pin in names.pins() if pin == loop])
        names.kill()
        names.start()
        assert errno_of(other) == ""


def test_killed_it_gives_errors_and_holds_nothing(loop, mapped):
    with service() as names:
        number = diskseq_of(loop)
        path = names.path(number)
        handle = os.open(path, os.O_PATH)
        names.kill()
        assert errno_of(path) == "ENOTCONN" and errno_of(f"/proc/self/fd/{handle}") == "ENOTCONN"
        with pytest.raises(OSError) as caught:
            os.listdir(names.mount)
        assert caught.value.errno == errno.ENOTCONN
        os.close(handle)
        # The killed service held the devices; now nothing does.
        subprocess.run(["dmsetup", "remove", "--retry", mapped], check=True)
        names.start()
        assert errno_of(path) == "" and str(number) in os.listdir(names.mount)
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            assert file.read().count(f" {names.mount} ") == 1


# Open a path forever: it must be the disk with that number, or an error while the service is down.
OPENS = """
import fcntl, os, sys
while True:
    try:
        fd = os.open(sys.argv[1], os.O_RDONLY)
    except OSError as error:
        if error.errno not in (2, 103, 107):
            raise
    else:
        assert int.from_bytes(fcntl.ioctl(fd, 0x80081280, bytes(8)), "little") == int(sys.argv[2])
        os.close(fd)
"""


def test_killed_in_the_middle_of_look_ups(loop):
    with service() as names:
        path = names.path(diskseq_of(loop))
        user = subprocess.Popen(
            [sys.executable, "-c", OPENS, path, str(diskseq_of(loop))], stderr=subprocess.PIPE, text=True
        )
        for dummy in range(int(os.environ.get("RACEFREE_KILLS", "2"))):
            time.sleep(0.2)
            names.kill()
            names.start()
        time.sleep(0.2)
        ended = user.poll()
        user.kill()
        assert ended is None, user.communicate()[1]
        assert names.no_pins()


PROGRAM = """
import sys
sys.path.insert(0, "/root/site")
from ansible_collections.racefree.block.plugins.module_utils._by_diskseq.program import main
sys.exit(main(sys.argv[1:]))
"""


def run_service(*options: str, user: bool = False) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-B", "-c", PROGRAM]
    if user:
        program = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *program]
    return subprocess.run([*program, *options], capture_output=True, text=True, check=False, timeout=60)


def test_started_wrongly_it_says_what_is_wrong(names, loop):
    twice = run_service("by-diskseq", "--mount", names.mount, "--state", names.state)
    assert twice.returncode == 1 and "the service is already running" in twice.stderr
    there = run_service("by-diskseq", "--mount", "/proc", "--state", "/run/racefree-block/test-names")
    assert there.returncode == 1 and "something else is mounted here: proc" in there.stderr
    assert run_service("by-diskseq", "--grace-ms", "x").returncode == 2
    for wrong in (twice, there):
        assert "Traceback" not in wrong.stderr and len(wrong.stderr.splitlines()) == 1
    assert str(diskseq_of(loop)) in os.listdir(names.mount)


def test_only_root_may_start_it(monkeypatch):
    # By default only root can access the tests' site directory.
    mode = stat.S_IMODE(os.stat("/root").st_mode)
    os.chmod("/root", 0o755)
    try:
        done = run_service("by-diskseq", user=True)
    finally:
        os.chmod("/root", mode)
    assert done.returncode == 1 and "only root" in done.stderr and "Traceback" not in done.stderr


def test_ended_from_outside_it_ends(loop):
    """If somebody unmounts it, the service exits with an error, so that systemd restarts it."""
    with service() as names:
        subprocess.run(["umount", names.mount], check=True)
        assert names.process.wait(timeout=60) == 1


def test_stopped_while_it_is_used(loop):
    with service() as names:
        with contextlib.ExitStack() as opened:
            device = opened.enter_context(open(names.path(diskseq_of(loop)), "rb"))
            assert names.stop() == 0
            # An open descriptor belongs to the device; only fstat(2) asks the file system.
            assert device.read(5) == b"whole"
            with pytest.raises(OSError) as caught:
                os.fstat(device.fileno())
            assert caught.value.errno == errno.ENOTCONN
        assert os.listdir(names.mount) == []


def test_the_work_of_a_listing_grows_with_the_disks_only(image):
    """
    Count read calls of the service for ``ls -l``, with RACEFREE_DEVICES devices and with three times as many.
    """
    count = int(os.environ.get("RACEFREE_DEVICES", "20"))
    path, counts, made = image(), [], []
    with service() as names, udev_stopped():
        try:
            for more in (count, 2 * count):
                made += [losetup(path) for dummy in range(more)]
                before = reads_of(names.pid)
                begun = time.monotonic()
                subprocess.run(["ls", "-l", names.mount], check=True, stdout=subprocess.DEVNULL)
                took = time.monotonic() - begun
                counts.append((len(os.listdir(names.mount)), reads_of(names.pid) - before, took))
        finally:
            names.stop()
            subprocess.run(["losetup", "-d", *made], check=True)
    print(f"disks, reads of the service, seconds of ls -l: {counts}")
    (few, first, dummy), (many, second, dummy2) = counts
    assert many > 2 * few
    assert second / first < 1.3 * many / few, counts


def reads_of(pid: int) -> int:
    with open(f"/proc/{pid}/io", encoding="ascii") as file:
        return int(dict(line.split(": ") for line in file)["syscr"])
