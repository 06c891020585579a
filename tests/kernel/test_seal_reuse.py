# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
A sealed device is removed, and another one gets its number. RACEFREE_TRIES is the number of rounds of each
kind; -s shows how long the next device is refused.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import DeviceBusy
from ansible_collections.racefree.block.plugins.module_utils._block.seal import seals
from ansible_collections.racefree.block.plugins.module_utils._dm import control as _control
from ansible_collections.racefree.block.plugins.module_utils._dm import udev
from conftest import run_module, udev_settle, wait_until
from sealing import is_refused, nothing_sealed, stopped_keeper

TRIES = int(os.environ.get("RACEFREE_TRIES") or 5)
MIB = 2**20
# As dmsetup without --noudevsync, but without a cookie to wait for.
EVENT = udev.PRIMARY_SOURCE << 16
LABEL = "reused"
BY_LABEL = f"/dev/disk/by-label/{LABEL}"


@pytest.fixture
def table(image, cleanup):
    """A table over a loop device with a file system, whose label udev finds in the mapped device."""
    path = image("disk.raw")
    subprocess.run(["mkfs.ext4", "-q", "-L", LABEL, path], check=True)
    cleanup(loop=path)
    loop = run_module("loop_device", backing_file=path)["device"]
    return f"0 {loop['size'] // 512} linear {loop['major']}:{loop['minor']} 0"


@pytest.fixture
def bystander(request, image, cleanup):
    """Its seal keeps one keeper alive for all rounds."""
    request.getfixturevalue(nothing_sealed.__name__)
    path = image("bystander.raw", MIB)
    cleanup(loop=path)
    device = run_module("loop_device", backing_file=path, sealed=True)["device"]
    yield device["major"], device["minor"], device["diskseq"]
    assert list(seals.found()) == [(device["major"], device["minor"])]
    seals.lift(device["major"], device["minor"], device["diskseq"])


@pytest.mark.usefixtures(bystander.__name__)
def test_others_can_open_the_next_device(control, name, table):
    """The next device is made by the calls of dmsetup. The keeper removes the stale seal."""
    delays = []
    make(control, name, table)
    for round_ in range(TRIES):
        sealed = number_of(control, name)
        seals.seal(*sealed)
        assert is_refused(node_of(sealed))
        remove(control, name)
        removed = time.monotonic()
        make(control, name, table)
        successor = number_of(control, name)
        assert successor[:2] == sealed[:2] and successor[2] != sealed[2]
        while is_refused(node_of(successor)):
            assert time.monotonic() < removed + 60, f"round {round_}"
            time.sleep(0.001)
        delays.append(time.monotonic() - removed)
        has_links(name, successor)
    remove(control, name)
    shown = f"{statistics.median(delays) * 1000:.1f} ms at the median, {max(delays) * 1000:.1f} ms at most"
    print(f"{TRIES} rounds: it can be opened after {shown}")


@pytest.mark.usefixtures(bystander.__name__)
def test_the_collection_can_open_it_at_once(control, name, table, cleanup):
    """With the keeper stopped: the run of the module removes the stale seal itself."""
    make(control, name, table)
    for dummy in range(TRIES):
        number = number_of(control, name)
        seals.seal(*number)
        with stopped_keeper():
            remove(control, name)
            made = run_module("dm_device", name=name, table=table)["device"]
            successor = made["major"], made["minor"], made["diskseq"]
            assert successor[:2] == number[:2] and successor[2] != number[2]
            assert not is_refused(node_of(successor))
        has_links(name, successor)
    cleanup(dm=name)


def has_links(name, number):
    """Wait until udev's links lead to this device: those of its name and of what is on it."""
    for link in (f"/dev/mapper/{name}", BY_LABEL):
        wait_until(lambda link=link: os.path.realpath(link) == node_of(number), 60)
    udev_settle()
    assert os.path.realpath(BY_LABEL) == node_of(number)


def make(control, name, table):
    """Create a mapped device without waiting for udev."""
    start, length, target, words = table.split(" ", 3)
    control.create(name)
    control.load(_control.by_name(name), ((int(start), int(length), target.encode(), words.encode()),))
    control.resume(_control.by_name(name), event_nr=EVENT)


def remove(control, name):
    """Remove it as soon as udev does not have it open."""
    end = time.monotonic() + 60
    while True:
        try:
            control.remove(_control.by_name(name), event_nr=EVENT)
            return
        except DeviceBusy:
            assert time.monotonic() < end
            time.sleep(0.01)


def number_of(control, name):
    """(major, minor, diskseq)"""
    status = control.status(_control.by_name(name))
    with open(f"/sys/dev/block/{status.major}:{status.minor}/diskseq", encoding="ascii") as diskseq:
        return status.major, status.minor, int(diskseq.read())


def node_of(number):
    return f"/dev/dm-{number[1]}"
