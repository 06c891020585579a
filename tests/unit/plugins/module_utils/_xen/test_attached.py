# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which device counts as that of a guest's disk: real loop devices; what blkback has open is played."""

from __future__ import annotations

import os

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import DeviceBusy
from ansible_collections.racefree.block.plugins.module_utils._xen import attached, vbd_read
from ansible_collections.racefree.block.plugins.module_utils._xen.vbd_key import Key
from ansible_collections.racefree.block.plugins.module_utils._xen.vbd_nodes import Vbd
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices

KEY = Key(5, 51728)


def vbd_of(number, diskseq=None, state=2, error=None):
    return Vbd(KEY, "xvdb", "/dev/a", True, False, state, 1, True, number, diskseq, None, None, None, error)


@pytest.fixture(name="loop")
def fixture_loop():
    """``(number, diskseq)`` of a loop device."""
    loopdevices.need_loop()
    with loopdevices.directory() as place:
        fd, minor = loopdevices.bind_free(loopdevices.image(place, "disk"))
        yield (7, minor), loopdevices.diskseq_of(fd)
        os.close(fd)
        assert loopdevices.nothing_bound(place)


def blkback(monkeypatch, *answers):
    """What blkback has open, each time that is looked at."""
    left = list(answers)
    monkeypatch.setattr(vbd_read, "opened_number", lambda key: left.pop(0) if len(left) > 1 else left[0])


def opened(vbd):
    device = attached.open_device(vbd)
    if device is None:
        return None
    with device:
        return device.id.diskseq


def test_the_device_that_blkback_has_open(loop, monkeypatch):
    number, diskseq = loop
    blkback(monkeypatch, number)
    assert opened(vbd_of(number)) == diskseq
    # That counts, whatever the nodes say.
    assert opened(vbd_of((7, 1000), 99)) == diskseq


@pytest.mark.parametrize("then", [None, (7, 1000)])
def test_a_number_that_blkback_holds_no_more(loop, monkeypatch, then):
    """The device of this number may be another one by now."""
    number, diskseq = loop
    before = len(os.listdir("/proc/self/fd"))
    blkback(monkeypatch, number, then)
    assert opened(vbd_of(number, diskseq)) is None
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_number_that_nobody_holds(loop, monkeypatch):
    """Only the device with the disk sequence number that was written beside it."""
    number, diskseq = loop
    blkback(monkeypatch, None)
    assert opened(vbd_of(number, diskseq)) == diskseq
    assert opened(vbd_of(number, diskseq + 1)) is None
    assert opened(vbd_of(number)) is None
    assert opened(vbd_of(None)) is None


def test_a_disk_that_blkback_has_not_opened_is_not_attached(monkeypatch):
    blkback(monkeypatch, None)
    for vbd, words in (
        (vbd_of((7, 3)), r"blkback has not opened the device of xvdb \(state 2\)"),
        (vbd_of((7, 3), error="2 no such device"), "2 no such device"),
    ):
        with pytest.raises(DeviceBusy, match=words):
            attached.check_connected(vbd, "xvdb of web", "Wait")
    attached.check_connected(vbd_of((7, 3), state=4), "xvdb of web", "Wait")
    blkback(monkeypatch, (7, 3))
    attached.check_connected(vbd_of((7, 3)), "xvdb of web", "Wait")
