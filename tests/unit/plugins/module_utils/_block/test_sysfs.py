# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What sysfs reports about partitions, missing devices, and numbers that are reused."""

from __future__ import annotations

from ansible_collections.racefree.block.plugins.module_utils._block import sysfs


def test_sysfs_tells_the_partitions_of_a_disk(disk):
    found = sysfs.partitions_of(disk.id.major, disk.id.minor)
    assert sorted(sysfs.partition_of(*number)[2:] for number in found) == [(2**20, 2**20), (3 * 2**20, 2**20)]
    for number in found:
        assert sysfs.partition_of(*number)[:2] == (disk.id.major, disk.id.minor)
        assert sysfs.diskseq_of(*number) == disk.id.diskseq
        assert sysfs.partitions_of(*number) == []


def test_sysfs_knows_nothing_of_a_missing_device():
    number = 4095, 1048575
    assert sysfs.diskseq_of(*number) is None and sysfs.partition_of(*number) is None
    assert sysfs.partitions_of(*number) == []


def test_a_number_that_was_reused_between_two_reads(disk, monkeypatch):
    """The attributes of the device that had the number are gone, and those of the next device are there."""
    real, reads = sysfs.read, []

    def read(path):
        reads.append(path)
        return None if len(reads) <= 2 else real(path)

    monkeypatch.setattr(sysfs, "read", read)
    assert sysfs.diskseq_of(disk.id.major, disk.id.minor) == disk.id.diskseq
