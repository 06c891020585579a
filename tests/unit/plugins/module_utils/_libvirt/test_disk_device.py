# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Whether a guest's mapped device is stacked on its source, with loop devices of this machine.

No mapped devices are created here. A stub of device-mapper returns tables for devices that are loop devices
in fact.
"""

from __future__ import annotations

import types

import pytest
from ansible_collections.racefree.block.plugins.module_utils._dm import control, mapped
from ansible_collections.racefree.block.plugins.module_utils._dm.codec import TargetLine
from ansible_collections.racefree.block.plugins.module_utils._libvirt import disk_device
from ansible_collections.racefree.block.plugins.module_utils._source import opener, resources, spec
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices

SIZE = 65536


class Mapper:
    """Stub of device-mapper: returns the table of a device number."""

    def __init__(self):
        self.tables = {}

    def add(self, device, line, read_only=False):
        start, length, kind, params = line.split(" ", 3)
        self.tables[device.id.number] = (
            types.SimpleNamespace(read_only=read_only),
            [TargetLine(int(start), int(length), kind.encode(), params.encode())],
        )

    def table(self, number, secure=False):
        return self.tables[number]

    def status(self, number):
        return self.tables[number][0]


@pytest.fixture
def scene(monkeypatch):
    loopdevices.need_loop()
    with loopdevices.directory() as place, resources.Resources() as host:
        mapper = Mapper()
        monkeypatch.setattr(resources.Resources, "dm", mapper)
        monkeypatch.setattr(mapped, "is_mapped", lambda device: device.id.number in mapper.tables)
        monkeypatch.setattr(control, "by_device", lambda device: device.id.number)

        def loop(name, **options):
            return opener.Opener(host).open(spec.FileSource(loopdevices.image(place, name, SIZE), **options))

        def stand_in(line, **options):
            """A loop device that passes as a mapped device with this table."""
            device = loop(f"mapped{len(mapper.tables)}")
            mapper.add(device, line, **options)
            return device

        yield types.SimpleNamespace(place=place, host=host, loop=loop, stand_in=stand_in)


def snapshot(scene, **change):
    line = {
        "start": 0,
        "length": SIZE // 512,
        "target": "snapshot",
        "origin": {"file": scene.place + "/golden", "read_only": True},
        "cow": {"file": scene.place + "/cow"},
        "persistence": "P",
        "chunk_size": 8,
    }
    return spec.parse({"table": [dict(line, **change)]})


@pytest.fixture
def made(scene):
    """The devices of a guest's disk that is a snapshot, as the role guest_disks defines it."""
    golden, cow = scene.loop("golden", read_only=True), scene.loop("cow")
    below = scene.stand_in(f"0 {SIZE // 512} snapshot {golden.id.number} {cow.id.number} P 8")
    return scene.stand_in(f"0 {SIZE // 512} linear {below.id.number} 0")


def test_a_device_of_a_table_without_a_name_is_recognised(scene, made):
    assert disk_device.is_made_of(scene.host, made, snapshot(scene))


@pytest.mark.parametrize(
    "change",
    [
        {"cow": "other"},
        {"origin": "other"},
        {"origin": "golden"},
        {"chunk_size": 16},
        {"length": 64},
        {"target": "linear", "device": "golden", "offset": 0},
    ],
)
def test_a_device_of_another_table_is_not_recognised(scene, made, change):
    scene.loop("other")
    change = {
        key: {"file": f"{scene.place}/{value}"} if key in ("cow", "origin", "device") else value
        for key, value in change.items()
    }
    source = snapshot(scene, **change)
    if change.get("target") == "linear":
        source = spec.parse({"table": [{"start": 0, "length": 128, **change}]})
    assert not disk_device.is_made_of(scene.host, made, source)


def test_a_device_of_another_mode_is_not_recognised(scene, made):
    assert not disk_device.is_made_of(scene.host, made, snapshot(scene)._replace(read_only=True))


def test_one_of_several_loop_devices_over_the_file(scene):
    """It does not matter which of them is in the table."""
    first = scene.loop("disk")
    descriptor, second = loopdevices.bind_free(scene.place + "/disk")
    with open(descriptor, "rb"):
        for number in (first.id.number, f"7:{second}"):
            device = scene.stand_in(f"0 128 linear {scene.stand_in(f'0 128 linear {number} 0').id.number} 0")
            assert disk_device.is_made_of(
                scene.host, device, spec.parse({"table": f"0 128 linear file:{scene.place}/disk 0"})
            )


def test_a_table_on_a_table(scene, made):
    outer = {
        "start": 0,
        "length": SIZE // 512,
        "target": "linear",
        "device": {"table": snapshot(scene).table},
        "offset": 0,
    }
    device = scene.stand_in(f"0 {SIZE // 512} linear {made.id.number} 0")
    assert disk_device.is_made_of(scene.host, device, spec.parse({"table": [outer]}))
    assert not disk_device.is_made_of(scene.host, made, spec.parse({"table": [outer]}))
