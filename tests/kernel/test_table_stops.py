# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Tables that stop some kernels: a table that the host's own kernel would not survive is refused before the
kernel gets it.
"""

from __future__ import annotations

import os

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import TableError
from ansible_collections.racefree.block.plugins.module_utils._block import backing as _backing
from ansible_collections.racefree.block.plugins.module_utils._block import bind
from ansible_collections.racefree.block.plugins.module_utils._dm import cow_header, mapped, names
from ansible_collections.racefree.block.plugins.module_utils._dm_table.grammar import kernels
from ansible_collections.racefree.block.plugins.module_utils._source import opener, resources, slots

SECTORS = 20480
STOPPED = kernels.version_of(os.uname().release) >= (6, 13)


@pytest.fixture
def host():
    with resources.Resources() as found:
        yield found


@pytest.fixture
def devices(host, image):
    """An origin and an empty COW device, held open, as they are written in a table."""
    held = []
    for name in ("origin.raw", "cow.raw"):
        with _backing.Backing(image(name, SECTORS * 512)) as backing:
            held.append(host.enter_context(bind.attach(backing)))
    return held


def load(host, control, name, line):
    """Make a mapped device of one line, as the modules make it, and remove it."""
    table = slots.host_slots(host, line).make(line, False, opener.Opener(host))
    with mapped.make(control, name, names.new_uuid(), table, host.cookie.next(), persist=False):
        pass


def snapshot(devices, chunk, words=""):
    origin, cow = (device.id.number for device in devices)
    return f"0 {SECTORS} snapshot {origin} {cow} P {chunk}{words}"


def test_chunks_that_are_large_enough_are_loaded(host, control, name, devices):
    load(host, control, name, snapshot(devices, 512, " 1 discard_zeroes_cow"))
    assert cow_header.chunk_size(devices[1]) == 512


@pytest.mark.skipif(not STOPPED, reason="Linux before 6.13 is not stopped by these tables, and takes them")
@pytest.mark.parametrize("chunk", [0, 8, 256])
def test_small_chunks_are_refused_by_name(host, control, name, devices, chunk):
    with pytest.raises(TableError, match="small-discards") as caught:
        load(host, control, name, snapshot(devices, chunk, " 1 discard_zeroes_cow"))
    assert [error["stops"] for error in caught.value.errors] == ["small-discards"]


def test_the_header_on_a_cow_device_counts(host, control, name, devices):
    assert cow_header.chunk_size(devices[1]) is None
    load(host, control, name, snapshot(devices, 8))
    assert cow_header.chunk_size(devices[1]) == 8
    wanted = snapshot(devices, 512, " 1 discard_zeroes_cow")
    if STOPPED:
        with pytest.raises(TableError, match="its header has 8, which counts"):
            load(host, control, name, wanted)
    else:
        load(host, control, name, wanted)
    load(host, control, name, snapshot(devices, 512))


@pytest.mark.skipif(not STOPPED, reason="Linux before 6.13 is not stopped by this table, and takes it")
def test_a_synchronization_that_the_kernel_cannot_end_is_refused_by_name(host, control, name, devices, image):
    with _backing.Backing(image("third.raw", SECTORS * 512)) as backing:
        third = host.enter_context(bind.attach(backing))
    members = " ".join(f"- {device.id.number}" for device in (*devices, third))
    with pytest.raises(TableError, match="unfinished-sync"):
        load(host, control, name, f"0 24576 raid raid5_ls 2 64 sync 3 {members}")
    load(host, control, name, f"0 24576 raid raid5_ls 2 64 nosync 3 {members}")
