# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Links verified against udev records, written here in udev's format, with loop devices of this machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.racefree.block.plugins.module_utils._by_diskseq import udev_record
from ansible_collections.racefree.block.plugins.module_utils._by_diskseq.dev_tree import DevTree
from ansible_collections.racefree.block.tests.unit.plugins.module_utils._by_diskseq.loops import Loop

LINK = "disk/by-x/a"


class Udev:
    """The directories of a test for links and for records, and what is read from them."""

    links: udev_record.UdevLinks

    def __init__(self, place: Path) -> None:
        self.dev, self.data = place / "dev", place / "data"
        self.data.mkdir(parents=True)
        (self.dev / "disk/by-x").mkdir(parents=True)

    def link(self, target: str) -> None:
        (self.dev / LINK).symlink_to(target)

    def record(self, major: int, minor: int, *lines: str) -> None:
        (self.data / f"b{major}:{minor}").write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture
def udev(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Udev]:
    made = Udev(tmp_path)
    monkeypatch.setattr(udev_record, "_DATA", str(made.data))
    with DevTree(str(made.dev)) as dev:
        made.links = udev_record.UdevLinks(dev)
        yield made


def test_a_record_with_the_disks_number(udev: Udev, loop: Loop) -> None:
    udev.link(f"{udev.dev}/loop{loop.number}")
    for own in (f"S:disk/by-diskseq/{loop.diskseq}", f"E:RACEFREE_DISKSEQ={loop.diskseq}"):
        udev.record(loop.major, loop.minor, f"S:{LINK}", own)
        assert udev.links.disk_of(LINK) == (loop.diskseq, 0)
    assert udev.links.listed("disk") == ["by-x"] and udev.links.listed("disk/by-x") == ["a"]


@pytest.mark.parametrize(
    "lines",
    [
        (),
        (f"S:{LINK}",),
        ("E:RACEFREE_DISKSEQ={0}",),
        (f"S:{LINK}", "E:RACEFREE_DISKSEQ={1}"),
        (f"S:{LINK}", "E:RACEFREE_DISKSEQ=0{0}"),
        (f"S:{LINK}", "E:DISKSEQ={0}"),
        (f"S:{LINK}x", "E:RACEFREE_DISKSEQ={0}"),
        (f"S:{LINK}", "E:RACEFREE_DISKSEQ={0}", "S:disk/by-diskseq/{1}"),
    ],
)
def test_a_record_that_proves_nothing(udev: Udev, loop: Loop, lines: tuple[str, ...]) -> None:
    udev.link(f"{udev.dev}/loop{loop.number}")
    udev.record(loop.major, loop.minor, *(line.format(loop.diskseq, loop.diskseq + 1) for line in lines))
    assert udev.links.disk_of(LINK) is None
    assert udev.links.listed("disk") == []


def test_a_missing_record_link_or_device(udev: Udev, loop: Loop) -> None:
    assert udev.links.disk_of(LINK) is None
    udev.link(f"{udev.dev}/loop{loop.number}")
    assert udev.links.disk_of(LINK) is None
    (udev.dev / LINK).unlink()
    udev.link("../../no-such-device")
    assert udev.links.disk_of(LINK) is None
    (udev.dev / LINK).unlink()
    (udev.dev / LINK).write_text("no link")
    assert udev.links.disk_of(LINK) is None and udev.links.disk_of("disk") is None


def test_a_partition(udev: Udev, disk: Loop) -> None:
    udev.link(f"{udev.dev}/loop{disk.number}p3")
    number = Path(f"/sys/class/block/loop{disk.number}p3/dev").read_text().strip()
    major, minor = map(int, number.split(":"))
    udev.record(major, minor, f"S:{LINK}", f"S:disk/by-diskseq/{disk.diskseq}-part3")
    assert udev.links.disk_of(LINK) == (disk.diskseq, 3)


def test_a_link_to_a_name_by_number(udev: Udev, loop: Loop) -> None:
    """A link as the role's turn-links makes it."""
    udev.link(f"{udev.dev}/disk/by-diskseq/{loop.diskseq}")
    udev.record(loop.major, loop.minor, f"S:{LINK}", f"E:RACEFREE_DISKSEQ={loop.diskseq}")
    assert udev.links.disk_of(LINK) == (loop.diskseq, 0)
    loop.bind_again()
    assert udev.links.disk_of(LINK) is None
