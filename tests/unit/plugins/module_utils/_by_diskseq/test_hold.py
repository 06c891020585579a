# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Open the device of a name and verify it again, with loop devices of this machine.
"""

from __future__ import annotations

import errno

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    DeadlineExceeded,
    DeviceGone,
    KernelError,
    WrongDevice,
)
from ansible_collections.racefree.block.plugins.module_utils._by_diskseq import hold
from ansible_collections.racefree.block.plugins.module_utils._by_diskseq.disk_name import DiskName
from ansible_collections.racefree.block.plugins.module_utils._by_diskseq.disks import Disks
from ansible_collections.racefree.block.tests.unit.plugins.module_utils._by_diskseq.loops import Loop


def test_hold_opens_only_the_disk_with_this_number(loop: Loop) -> None:
    disks, name = Disks(), DiskName(loop.diskseq)
    with hold.open_name(disks, name) as device:
        assert (device.id.diskseq, device.name, device.writable) == (
            loop.diskseq,
            f"loop{loop.number}",
            False,
        )
        assert hold.is_still(device)
    loop.bind_again()
    with pytest.raises(DeviceGone):
        hold.open_name(disks, name)


def test_a_held_loop_device_cannot_get_another_file(loop: Loop) -> None:
    """With other openers, LOOP_CLR_FD detaches the file only at the last close."""
    with hold.open_name(Disks(), DiskName(loop.diskseq)) as device:
        loop.unbind()
        assert hold.is_still(device) and device.id.diskseq == loop.diskseq
    loop.close()


def test_a_loop_device_without_a_file_has_no_name(loop: Loop) -> None:
    name = DiskName(loop.diskseq)
    loop.unbind()
    with pytest.raises(DeviceGone):
        hold.open_name(Disks(), name)


def test_partitions(disk: Loop) -> None:
    disks = Disks()
    for number in (1, 3):
        with hold.open_name(disks, DiskName(disk.diskseq, number)) as device:
            assert (device.partition, device.id.diskseq) == (number, disk.diskseq)
            assert hold.is_still(device)
    for number in (2, 4, 99999):
        with pytest.raises(DeviceGone, match="no such partition"):
            hold.open_name(disks, DiskName(disk.diskseq, number))


def test_a_number_of_no_disk() -> None:
    with pytest.raises(DeviceGone):
        hold.open_name(Disks(), DiskName(2**64 - 1))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (DeviceGone("x"), errno.ENOENT),
        (WrongDevice("x"), errno.ENOENT),
        (KernelError("x", errno=errno.ENOMEDIUM), errno.ENOENT),
        (KernelError("x", errno=errno.ENXIO), errno.ENOENT),
        (KernelError("x", errno=errno.EMFILE), errno.EMFILE),
        (KernelError("x", errno=errno.EACCES), errno.EACCES),
        (KernelError("x", errno=errno.EIO), errno.EIO),
        (DeadlineExceeded("x", 1), errno.ETIMEDOUT),
    ],
)
def test_gone_is_distinguished_from_an_error(error: KernelError, expected: int) -> None:
    assert hold.errno_of(error) == expected
