# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Disks by number, with loop devices of this machine.
"""

from __future__ import annotations

import os

import pytest
from ansible_collections.racefree.block.plugins.module_utils._by_diskseq.disks import (
    Disks,
    is_bound,
    partition_of,
)
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices
from ansible_collections.racefree.block.tests.unit.plugins.module_utils._by_diskseq.loops import Loop


class Counting(Disks):
    """Count how often all disks are scanned."""

    looks = 0

    def _look(self) -> dict[int, str]:
        self.looks += 1
        return super()._look()


def test_a_disk_is_found_by_its_number_but_not_by_an_old_one(loop: Loop) -> None:
    disks = Disks()
    found = disks.find(loop.diskseq)
    assert found == (loop.diskseq, 0, f"loop{loop.number}", loop.major, loop.minor)
    before = loop.diskseq
    loop.bind_again()
    assert loop.diskseq != before
    assert disks.find(before) is None
    again = disks.find(loop.diskseq)
    assert again is not None and again.name == f"loop{loop.number}"


def test_a_missing_number_is_cached_until_the_next_event(loop: Loop) -> None:
    disks = Counting(clock=lambda: 0.0)
    assert disks.find(loop.diskseq) is not None and disks.looks == 1
    highest = max(disks._names)
    gaps = [number for number in range(highest, 1, -1) if number not in disks._names][:50]
    announced = disks._announced
    assert [disks.find(number) for number in gaps] == [None] * len(gaps)
    if open("/sys/kernel/uevent_seqnum", encoding="ascii").read().strip() == announced:
        assert disks.looks == 1
    looks = disks.looks
    # Any uevent causes a scan; here that of a loop device's new file.
    loop.bind_again()
    assert disks.find(gaps[0]) is None and disks.looks == looks + 1


def test_a_number_above_all_known_ones_is_not_cached() -> None:
    now = [0.0]
    disks = Counting(clock=lambda: now[0])
    for dummy in range(3):
        assert disks.find(2**64 - 1) is None
        now[0] += 1
    assert disks.looks == 3


def test_the_kernel_sends_the_event_before_a_loop_device_is_configured(loop: Loop) -> None:
    """The cache of missing numbers relies on this."""
    for dummy in range(20):
        before = int(open("/sys/kernel/uevent_seqnum", encoding="ascii").read())
        loop.bind_again()
        assert int(open("/sys/kernel/uevent_seqnum", encoding="ascii").read()) > before


def test_disks_are_listed_with_partitions_but_not_without_a_file(disk: Loop) -> None:
    disks = Disks()
    ours = [(entry.name, entry.partition) for entry in disks.listed() if entry.diskseq == disk.diskseq]
    assert sorted(ours) == [
        (f"loop{disk.number}", 0),
        (f"loop{disk.number}p1", 1),
        (f"loop{disk.number}p3", 3),
    ]
    with loopdevices.own_number() as number:
        assert not is_bound(f"loop{number}")
        assert not [entry for entry in disks.listed() if entry.name == f"loop{number}"]


def test_partitions_by_number(disk: Loop) -> None:
    found = Disks().find(disk.diskseq)
    assert found is not None
    third = partition_of(found, 3)
    assert third is not None and third.name == f"loop{disk.number}p3" and third.diskseq == disk.diskseq
    assert (
        os.stat(f"/dev/{third.name}").st_rdev == os.makedev(third.major, third.minor)
        if os.path.exists(f"/dev/{third.name}")
        else True
    )
    assert partition_of(found, 2) is None


def test_without_sysfs_no_disk_counts_as_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    from ansible_collections.racefree.block.plugins.module_utils._base import gone
    from ansible_collections.racefree.block.plugins.module_utils._base.errors import KernelError

    monkeypatch.setattr(gone, "_SYSFS_BLOCK", (str(tmp_path),))
    with pytest.raises(KernelError, match="mounted over sysfs"):
        Disks().find(1)
