# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The role block_names on a system with systemd and udev: install, install again, use, and remove.
"""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import run_module, udev_settle, wait_until
from names_service import diskseq_of, losetup
from role_play import changed_tasks, changes, failing, files, main_pid, play_role, switch_again
from sealing import is_refused, nothing_sealed

BY_DISKSEQ, IDENTITY = "/dev/disk/by-diskseq", "/dev/racefree"
SERVICES = ("racefree-by-diskseq.service", "racefree-identity.service")

pytestmark = [pytest.mark.systemd, pytest.mark.usefixtures(nothing_sealed.__name__)]


@pytest.fixture
def role(tmp_path: Path) -> Callable[..., set[str]]:
    """A function that applies the role and returns the changed tasks: ``role(check=False, **variables)``."""

    def apply(check: bool = False, **variables: object) -> set[str]:
        return changes(play_role(tmp_path, "block_names", check, variables))

    return apply


@pytest.fixture
def loop(image) -> Iterator[str]:
    """A loop device with a file system labelled ``names``."""
    path = image("disk.raw")
    subprocess.run(["mkfs.ext4", "-q", "-L", "names", path], check=True)
    node = losetup(path)
    udev_settle()
    yield node
    subprocess.run(["losetup", "-d", node], check=True)
    wait_until(lambda: not os.path.exists(f"/sys/block/{os.path.basename(node)}/loop"))


def active() -> list[bool]:
    return [
        subprocess.run(["systemctl", "is-active", "--quiet", name], check=False).returncode == 0
        for name in SERVICES
    ]


def status_of(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def is_there(path: str) -> bool:
    try:
        os.stat(path)
    except OSError as error:
        assert error.errno in (errno.ENOENT, errno.ENOTCONN, errno.ECONNABORTED)
        return False
    return True


def test_installed_used_killed_changed_and_removed(role, loop, tmp_path):
    before, number = files(), diskseq_of(loop)
    udev_link = f"{BY_DISKSEQ}/{number}"
    assert os.readlink(udev_link) == f"../../{os.path.basename(loop)}"

    wrong = play_role(tmp_path, "block_names", variables={"block_names_links": ["mapper", "disk/by-diskseq"]})
    assert wrong.returncode and "must be a list; each must be a directory below /dev" in wrong.stdout
    predicted = role(check=True)
    assert files() == before and active() == [False, False] and os.path.islink(udev_link)

    done = role()
    # Check mode cannot predict tasks for services that do not exist yet.
    assert predicted <= done and "Install the services" in predicted
    assert active() == [True, True]
    assert not os.path.islink(udev_link) and os.lstat(udev_link).st_rdev == os.stat(loop).st_rdev
    by_label = f"{IDENTITY}/link/disk/by-label/names"
    assert os.readlink(by_label) == udev_link and diskseq_of(by_label) == number

    # A play was ended after it had switched to another library.
    earlier = [main_pid(service) for service in SERVICES]
    switch_again("/usr/local/lib/racefree-block-names/racefree_block")
    restart = "Have the services now and at every boot, started anew when they or their library are others"
    assert role() == {restart} and active() == [True, True]
    assert not set(earlier) & {main_pid(service) for service in SERVICES}
    assert not role()

    assert_opens(loop, number)
    left_alone()
    held_back(udev_link)
    sealed_devices()
    killed(udev_link, by_label)
    restarted(udev_link)

    other = {"block_names_links": ["disk/by-label"], "block_names_identity": False, "block_names_grace_ms": 0}
    with failing(tmp_path, "udevadm", "trigger"):
        assert play_role(tmp_path, "block_names", variables=other).returncode
    assert "Have udev read its rules, and look at all disks" in role(**other)
    assert active() == [True, False] and not os.path.ismount(IDENTITY)
    assert os.readlink("/dev/disk/by-label/names") == udev_link

    installed = files()
    removed = role(check=True, block_names_state="absent")
    assert files() == installed and active() == [True, False]
    with failing(tmp_path, "udevadm", "control", "trigger"):
        ended = play_role(tmp_path, "block_names", variables={"block_names_state": "absent"})
    assert ended.returncode and os.readlink("/dev/disk/by-label/names") == udev_link
    assert removed <= changed_tasks(ended.stdout) | role(block_names_state="absent")
    assert not role(block_names_state="absent")
    assert files() == before and active() == [False, False]
    assert not os.path.ismount(BY_DISKSEQ) and not os.path.ismount(IDENTITY)
    assert os.readlink(udev_link) == f"../../{os.path.basename(loop)}"
    assert os.path.realpath("/dev/disk/by-label/names") == loop


def assert_opens(loop: str, number: int) -> None:
    """racefree-open gives a tool that is known a descriptor, and one that is not the name."""
    for tool, path in (("blockdev", "/proc/self/fd/700"), ("readlink", f"{BY_DISKSEQ}/{number}")):
        options = {"blockdev": ["--getsize64"], "readlink": ["-f"]}[tool]
        command = ["racefree-open", "--exclusive", f"path:{loop}", "--", tool, *options, "{1}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        wanted = {"blockdev": str(16 * 2**20), "readlink": path}[tool]
        assert done.stdout.strip() == wanted, done


def left_alone() -> None:
    """udev has links in the directory for no disk, and DISKSEQ is in the events as before."""
    shown = subprocess.run(["udevadm", "info", "--export-db"], capture_output=True, text=True, check=True)
    assert "S: disk/by-diskseq/" not in shown.stdout and "E: RACEFREE_DISKSEQ=" in shown.stdout
    assert shown.stdout.count("E: DISKSEQ=") >= shown.stdout.count("E: RACEFREE_DISKSEQ=")


def sealed_devices() -> None:
    """The service holds a sealed device for its name, and nobody else can open it."""
    device = run_module("dm_device", name="t-sealed", table="0 2048 zero", sealed=True)["device"]
    try:
        path = f"{BY_DISKSEQ}/{device['diskseq']}"
        assert os.lstat(path).st_rdev == os.makedev(device["major"], device["minor"])
        assert is_refused(path) and is_refused(device["path"])
    finally:
        run_module("dm_device", name="t-sealed", state="absent")


def held_back(link: str) -> None:
    """Neither service has more privileges than it needs, and the disk can be opened."""
    for service, capabilities in zip(SERVICES, ("0000000008200004", "0000000000200000")):
        status = status_of(main_pid(service))
        assert status["CapEff"] == status["CapBnd"] == capabilities, status
        assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
        # Its mounts are visible to all processes.
        assert os.readlink(f"/proc/{main_pid(service)}/ns/mnt") == os.readlink("/proc/self/ns/mnt")
    with open(link, "r+b") as device:
        assert device.read(1) == b"\0"


def killed(link: str, by_label: str) -> None:
    """After SIGKILL, accesses fail until systemd has restarted the service."""
    for service, path in zip(SERVICES, (link, by_label)):
        pid = main_pid(service)
        os.kill(pid, 9)
        wait_until(
            lambda path=path, service=service, pid=pid: is_there(path) and main_pid(service) not in (0, pid)
        )
    for place in (BY_DISKSEQ, IDENTITY):
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            assert file.read().count(f" {place} ") == 1


def restarted(link: str) -> None:
    """During a restart the name is missing or leads to the same device, and afterwards it exists."""
    number = os.lstat(link).st_rdev
    again = subprocess.Popen(["systemctl", "restart", SERVICES[0]])
    while again.poll() is None:
        try:
            assert os.lstat(link).st_rdev == number
        except OSError as error:
            assert error.errno in (errno.ENOENT, errno.ENOTCONN, errno.ECONNABORTED)
        time.sleep(0.005)
    assert again.returncode == 0 and is_there(link)
