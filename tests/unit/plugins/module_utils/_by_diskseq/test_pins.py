# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What is held, and until when, with loop devices of this machine and a simulated clock.
"""

from __future__ import annotations

import errno
import threading

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import KernelError
from ansible_collections.racefree.block.plugins.module_utils._block.device import Device
from ansible_collections.racefree.block.plugins.module_utils._by_diskseq import hold, pins
from ansible_collections.racefree.block.plugins.module_utils._by_diskseq.disk_name import DiskName
from ansible_collections.racefree.block.plugins.module_utils._by_diskseq.disks import Disks
from ansible_collections.racefree.block.tests.unit.plugins.module_utils._by_diskseq.loops import Loop


class Clock:
    """A clock that the test advances."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def opened(name: DiskName) -> Device:
    return hold.open_name(Disks(), name)


def closed(pairs: tuple[list[Device], object]) -> list[str]:
    """Close the devices and return their names."""
    names = []
    for device in pairs[0]:
        assert device.fd >= 0
        names.append(device.name)
        device.close()
    return names


def test_a_pin_is_held_until_all_lookups_are_forgotten_and_a_grace_time(loop: Loop, clock: Clock) -> None:
    held, name = pins.Pins(10, 5.0, clock), DiskName(loop.diskseq)
    assert held.put(name, opened(name)) is None and len(held) == 1
    taken = [held.take(name) for dummy in range(3)]
    pin = taken[0]
    assert pin is not None and taken == [pin] * 3 and held.of_node(pin.node) is pin and held.is_known(name)
    clock.now += 1000
    assert held.expire() == ([], None)
    held.forget(pin.node, 2)
    assert held.is_known(name) and held.expire() == ([], None)
    held.forget(pin.node, 1)
    assert not held.is_known(name) and held.expire() == ([], clock.now + 5)
    clock.now += 4.9
    # A lookup within the grace time gets the same pin.
    assert held.take(name) is pin
    held.forget(pin.node, 1)
    clock.now += 4.9
    assert held.expire() == ([], clock.now + 5 - 4.9)
    clock.now += 0.2
    assert closed(held.expire()) == [f"loop{loop.number}"]
    assert len(held) == 0 and held.take(name) is None and held.of_node(pin.node) is None


def test_an_unused_pin_is_released_after_the_grace_time(loop: Loop, clock: Clock) -> None:
    held, name = pins.Pins(10, 0.0, clock), DiskName(loop.diskseq)
    held.put(name, opened(name))
    assert held.expire() == ([], clock.now + 1)
    clock.now += 1
    assert closed(held.expire()) == [f"loop{loop.number}"]


def test_a_stale_name_is_not_returned(loop: Loop, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    held, name = pins.Pins(10, 5.0, clock), DiskName(loop.diskseq)
    held.put(name, opened(name))
    pin = held.take(name)
    assert pin is not None
    # A loop device keeps its file while it is held, so simulate a drive with another medium.
    monkeypatch.setattr(hold, "is_still", lambda device: False)
    assert held.take(name) is None
    monkeypatch.undo()
    # This is final: no disk gets an old sequence number back.
    assert held.take(name) is None
    # The kernel has not forgotten it yet. When it has, there is no grace time.
    assert held.is_known(name) and held.expire() == ([], None)
    held.forget(pin.node, 1)
    assert closed(held.expire()) == [f"loop{loop.number}"]


def test_a_name_is_held_once(loop: Loop, clock: Clock) -> None:
    held, name = pins.Pins(10, 5.0, clock), DiskName(loop.diskseq)
    held.put(name, opened(name))
    second = opened(name)
    assert held.put(name, second) is second
    second.close()
    clock.now += 5
    assert closed(held.expire()) == [f"loop{loop.number}"]


def test_the_limit_of_pins(disk: Loop, clock: Clock) -> None:
    held = pins.Pins(2, 5.0, clock)
    names = [DiskName(disk.diskseq), DiskName(disk.diskseq, 1), DiskName(disk.diskseq, 3)]
    for name in names[:2]:
        held.check_room()
        assert held.put(name, opened(name)) is None
    with pytest.raises(KernelError) as caught:
        held.check_room()
    assert caught.value.errno == errno.ENFILE and "2 devices" in str(caught.value)
    third = opened(names[2])
    assert held.put(names[2], third) is third
    third.close()
    assert sorted(held.names_of(disk.diskseq)) == names[:2] and held.names_of(disk.diskseq + 1) == []
    clock.now += 5
    closed(held.expire())
    held.check_room()


def test_forgotten_pins_can_be_released_without_a_grace_time(disk: Loop) -> None:
    held = pins.Pins(10, 1000.0)
    whole, first = DiskName(disk.diskseq), DiskName(disk.diskseq, 1)
    for name in (whole, first):
        held.put(name, opened(name))
    taken, used = held.take(whole), held.take(first)
    assert taken is not None and used is not None
    # The kernel forgets one of them during the wait.
    threading.Timer(0.1, held.forget, (taken.node, 1)).start()
    devices, known = held.let_go(disk.diskseq, 1.0)
    assert closed((devices, None)) == [f"loop{disk.number}"] and known == 1
    held.forget(used.node, 1)
    assert held.let_go(disk.diskseq + 1, 0.0) == ([], 0)
    devices, known = held.let_go(disk.diskseq, 1000.0)
    assert closed((devices, None)) == [f"loop{disk.number}p1"] and known == 0


def test_forgetting_a_file_without_a_pin_does_nothing(clock: Clock) -> None:
    pins.Pins(1, 0.0, clock).forget(1 << 63, 1)
