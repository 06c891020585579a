# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The tree of names by identity, on a real kernel with udev: each name leads to exactly its disk, or does not
exist.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest
from conftest import run_module, udev_settle
from names_service import Service, diskseq_of, losetup, service, wait_for

pytest.importorskip("pyfuse3")


@pytest.fixture(scope="module")
def disks() -> Iterator[Service]:
    with service() as started:
        yield started


@pytest.fixture(scope="module")
def names(disks) -> Iterator[Service]:
    with service("--disks", disks.mount, what="identity") as started:
        yield started
        assert started.stop() == 0
        assert started.said() == ""


@pytest.fixture
def mapped(name) -> Iterator[str]:
    """The name of a mapped device whose UUID is ``RACE-`` and the name."""
    make(name)
    yield name
    remove(name)


def make(name: str) -> None:
    subprocess.run(
        ["dmsetup", "create", name, "--uuid", f"RACE-{name}", "--table", "0 2048 zero"], check=True
    )
    udev_settle()


def remove(name: str) -> None:
    subprocess.run(["dmsetup", "remove", "--retry", name], check=False, capture_output=True)
    udev_settle()


def test_the_tree(names):
    assert set(os.listdir(names.mount)) == {"dm-name", "dm-uuid", "link"}
    for wrong in ("x", "dm-name/x", "dm-name/x/y", "dm-uuid/x", "link/x", "link/x/y", "link/disk/by-uuid/x"):
        assert not os.path.lexists(names.path(wrong))
    with pytest.raises(OSError):
        os.mkdir(names.path("x"))


def test_a_mapped_device_by_name_and_uuid(names, disks, mapped):
    number = diskseq_of(f"/dev/mapper/{mapped}")
    links = [
        f"dm-name/{mapped}",
        f"dm-uuid/RACE-{mapped}",
        f"link/mapper/{mapped}",
        f"link/disk/by-id/dm-name-{mapped}",
    ]
    for link in links:
        assert os.readlink(names.path(link)) == disks.path(number), link
        assert os.path.realpath(names.path(link)) == disks.path(number)
        assert diskseq_of(names.path(link)) == number
    assert mapped in os.listdir(names.path("dm-name")) and mapped in os.listdir(names.path("link/mapper"))
    assert f"RACE-{mapped}" in os.listdir(names.path("dm-uuid"))
    assert "mapper" in os.listdir(names.path("link")) and "by-diskseq" not in os.listdir(names.path("link"))
    assert disks.no_pins()
    remove(mapped)
    assert [link for link in links if os.path.lexists(names.path(link))] == []


def test_another_device_of_that_name_is_another_link(names, disks, mapped):
    """A path resolved before does not exist now. It does not lead to the other device."""
    paths = [names.path(f"dm-name/{mapped}"), names.path(f"link/mapper/{mapped}")]
    before = [os.path.realpath(path) for path in paths]
    assert before[0] == before[1] and disks.no_pins()
    remove(mapped)
    make(mapped)
    for old, path in zip(before, paths):
        assert not os.path.exists(old)
        assert os.path.realpath(path) != old and diskseq_of(path) == diskseq_of(f"/dev/mapper/{mapped}")
    assert disks.no_pins()


def test_renamed(names, disks, mapped):
    subprocess.run(["dmsetup", "rename", mapped, f"{mapped}-2"], check=True)
    try:
        assert not os.path.lexists(names.path(f"dm-name/{mapped}"))
        assert os.path.exists(names.path(f"dm-name/{mapped}-2")) and os.path.exists(
            names.path(f"dm-uuid/RACE-{mapped}")
        )
        assert disks.no_pins()
    finally:
        remove(f"{mapped}-2")


def test_an_outdated_link_of_udev_is_not_shown(names, disks, image):
    """While udev is stopped, a loop device gets another file. Its links still have the old file's label."""
    first, second = image("a.raw"), image("b.raw")
    for path, label in ((first, "first"), (second, "second")):
        subprocess.run(["mkfs.ext4", "-q", "-L", label, path], check=True)
    node = losetup(first)
    udev_settle()
    link, by_label = names.path("link/disk/by-label/first"), "/dev/disk/by-label/first"
    try:
        assert os.path.realpath(link) == disks.path(diskseq_of(node)) and "first" in os.listdir(
            os.path.dirname(link)
        )
        assert disks.no_pins()
        subprocess.run(["udevadm", "control", "--stop-exec-queue"], check=True)
        try:
            subprocess.run(["losetup", "-d", node], check=True)
            wait_for(lambda: not os.path.exists(f"/sys/block/{os.path.basename(node)}/loop"))
            subprocess.run(["losetup", node, second], check=True)
            # udev's own link leads to the other file's device now.
            assert diskseq_of(by_label) == diskseq_of(node)
            assert not os.path.lexists(link) and not os.path.lexists(names.path("link/disk/by-label/second"))
            assert "first" not in os.listdir(names.path("link/disk"))
        finally:
            subprocess.run(["udevadm", "control", "--start-exec-queue"], check=True)
        udev_settle()
        wait_for(lambda: os.path.exists(names.path("link/disk/by-label/second")))
        assert not os.path.lexists(link)
        assert disks.no_pins()
    finally:
        subprocess.run(["losetup", "-d", node], check=True)
        wait_for(lambda: not os.path.exists(f"/sys/block/{os.path.basename(node)}/loop"))
        udev_settle()


def test_a_table_takes_names(names, disks, mapped, name, cleanup):
    """By UUID, by udev's link and by number, also where udev has no link or a stale one for the number."""
    number, above = diskseq_of(f"/dev/mapper/{mapped}"), f"{name}-above"
    cleanup(dm=above)
    paths = [names.path(f"dm-uuid/RACE-{mapped}"), names.path(f"link/mapper/{mapped}"), disks.path(number)]
    stale = f"/dev/disk/by-diskseq/{number}"
    there = os.stat(f"/dev/mapper/{mapped}").st_rdev
    for path in (*paths, stale):
        if path == stale:
            os.makedirs(os.path.dirname(stale), exist_ok=True)
            if os.path.lexists(stale):
                os.unlink(stale)
            os.symlink("../../null", stale)
        run_module("dm_device", name=above, table=f"0 2048 linear {path} 0")
        command = ["dmsetup", "deps", "-o", "devno", above]
        deps = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert f"({os.major(there)}, {os.minor(there)})" in deps
        run_module("dm_device", name=above, state="absent")
    os.unlink(stale)
    assert disks.no_pins()


def test_nothing_is_kept_for_names_that_were_looked_up(names, disks, mapped):
    for dummy in range(200):
        assert os.path.lexists(names.path(f"dm-name/{mapped}"))
    assert disks.pins() == []


def test_at_its_own_place_below_dev_it_does_not_look_at_itself(disks, mapped):
    """
    The service has one thread. A path in its own file system, or a link into it, would make it wait for its
    own answer. It does not look at other file systems there, either.
    """
    place, link, other = "/dev/names-here", "/dev/names-link", "/dev/names-other"
    os.makedirs(other, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "names", other], check=True)
    try:
        with service("--disks", disks.mount, what="identity", mount=place) as names:
            os.symlink(f"names-here/dm-name/{mapped}", link)
            os.symlink("/dev/names-here", f"{link}-directory")
            os.makedirs(f"{other}/inside")
            os.symlink("../null", f"{other}/inside/null")
            there = subprocess.run(
                ["ls", "-lR", place], capture_output=True, text=True, check=True, timeout=30, user=65534
            ).stdout
            assert "link/mapper:\n" in there and f" {mapped} -> {disks.mount}/" in there
            for path in (
                "names-here",
                "names-here/dm-name",
                "names-link",
                "names-link-directory",
                "names-other",
            ):
                assert not os.path.lexists(names.path(f"link/{path}/{mapped}"))
            assert not os.path.lexists(names.path("link/names-link"))
            assert (
                os.listdir(names.path("link/names-here")) == os.listdir(names.path("link/names-other")) == []
            )
            assert names.stop() == 0 and names.said() == ""
    finally:
        for path in (link, f"{link}-directory"):
            if os.path.lexists(path):
                os.unlink(path)
        subprocess.run(["umount", other], check=True)
        os.rmdir(other)
    assert disks.no_pins()


def test_killed_it_gives_errors(disks, mapped):
    with service("--disks", disks.mount, what="identity") as names:
        names.kill()
        with pytest.raises(OSError, match="endpoint"):
            os.readlink(names.path(f"dm-name/{mapped}"))
        names.start()
        assert os.path.exists(names.path(f"dm-name/{mapped}")) and disks.no_pins()
