# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of sources with a partition of a file, with real loop devices."""

from __future__ import annotations

import os

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import DeviceBusy, InvalidValue
from ansible_collections.racefree.block.plugins.module_utils._block import loop
from ansible_collections.racefree.block.plugins.module_utils._hotplug import target
from ansible_collections.racefree.block.plugins.module_utils._source import (
    lookup,
    opener,
    recipe,
    resources,
    spec,
    to_keep,
)
from ansible_collections.racefree.block.tests.kernel import partition_images
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices

MIB = 2**20
FIRST, SECOND = (2048, 4095), (4096, 6143)


@pytest.fixture
def path():
    """An image with the partitions 1 and 2, whose contents begin with their numbers."""
    loopdevices.need_loop()
    with loopdevices.directory() as place:
        image = partition_images.gpt(bytearray(4 * MIB), {1: FIRST, 2: SECOND})
        for number in (1, 2):
            image[number * MIB : number * MIB + 5] = b"part%d" % number
        yield loopdevices.image(place, "disk", 4 * MIB, content=bytes(image))
        assert loopdevices.nothing_bound(place)


def rewrite(path, parts, **wrong):
    with open(path, "rb+") as file:
        file.write(partition_images.gpt(bytearray(MIB), {}, **wrong)[: MIB // 2])
        image = partition_images.gpt(bytearray(4 * MIB), parts, **wrong)
        file.seek(0)
        file.write(image[: MIB // 2])


def source_of(path, number=2, **more):
    return spec.parse(dict({"file": path, "partition": number}, **more))


def test_a_partition_of_a_file_is_a_loop_device_over_its_bytes_only(path):
    with resources.Resources() as host:
        device = opener.Opener(host).open(source_of(path))
        status = loop.info(device)
        assert (status.offset, status.sizelimit, device.size) == (2 * MIB, MIB, MIB)
        assert os.pread(device.fd, 5, 0) == b"part2" and not status.partitions
        assert lookup.is_device(source_of(path), device, host)
        assert not lookup.is_device(source_of(path, 1), device, host)
        # The same bytes given by offset and size are the same device.
        same = opener.Opener(host).open(spec.parse({"file": path, "offset": "2M", "size": "1M"}))
        assert same.id == device.id
        other = opener.Opener(host).open(source_of(path, 1))
        assert other.id != device.id and os.pread(other.fd, 5, 0) == b"part1"


def test_the_table_is_read_each_time(path):
    with resources.Resources() as host:
        opener.Opener(host).open(source_of(path))
    rewrite(path, {2: (4096, 4099)})
    with resources.Resources() as host:
        assert opener.Opener(host).open(source_of(path)).size == 2048
        # The part of the old table is still written through this device.
        rewrite(path, {2: (4097, 6000)})
        with pytest.raises(DeviceBusy, match="writes the same part"):
            lookup.find(source_of(path), host)


def test_in_recipes_and_targets(path):
    source = source_of(path, format="raw")
    text = recipe.text_of(source)
    assert text == f'{{"file": "{path}", "format": "raw", "partition": 2}}' and recipe.parse(text) == source
    assert not to_keep.is_kept(source, source_of(path, 1))
    assert to_keep.known_raw(source_of(path), source).format == "raw"
    assert to_keep.known_raw(source_of(path, 1), source).format is None
    with target.open_device(source, 5) as device:
        assert os.pread(device.fd, 5, 0) == b"part2" and device.size == MIB
    with resources.Resources() as host:
        assert to_keep.read(host, source_of(path), False).source == source


@pytest.mark.parametrize(
    "more, words",
    [
        ({"offset": 512}, "source.offset 512: must be left out if partition is set"),
        ({"size": "1M"}, "source.size 1M: must be left out if partition is set"),
        ({"partition": 0}, "a whole number from 1 to 255"),
        ({"partition": 256}, "a whole number from 1 to 255"),
        ({"partition": "two"}, "a whole number from 1 to 255"),
    ],
)
def test_wrong_use(more, words):
    with pytest.raises(InvalidValue, match=words):
        spec.parse(dict({"file": "/a", "partition": 2}, **more))


def refused(path, number, words):
    with resources.Resources() as host:
        for attempt in (
            lambda: lookup.find(source_of(path, number), host),
            lambda: opener.Opener(host).open(source_of(path, number)),
            lambda: target.open_device(source_of(path, number), 5),
            lambda: to_keep.read(host, source_of(path, number), False),
        ):
            with pytest.raises(InvalidValue, match=words):
                attempt()
    assert loopdevices.nothing_bound(path)


def test_what_is_not_in_the_table_is_refused(path):
    refused(path, 3, "is not in .*, which has the partitions 1, 2")
    rewrite(path, {}, magic=b"no table")
    refused(path, 1, r"has no partition table \(GPT or MBR\). For a disk with sectors of 4096 bytes")


@pytest.mark.parametrize(
    "parts, words",
    [
        ({2: (4096, 2**40)}, "beyond the end of the disk"),
        ({2: (4096, 8192)}, "beyond the end of the disk"),
        ({2: (1, 100)}, "inside the partition table"),
        ({1: (2048, 5000), 2: (4096, 6000)}, "it overlaps partition 1"),
        ({2: (6000, 4096)}, "it ends before it begins"),
    ],
)
def test_hostile_tables(path, parts, words):
    rewrite(path, parts)
    refused(path, 2, words)
