# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Two entries of one list for the same device are refused by its identity, however they are written. Nothing is
changed.
"""

from __future__ import annotations

import contextlib
import os
import types

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import InvalidValue
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.plugins.module_utils._dm import mapped
from ansible_collections.racefree.block.plugins.module_utils._libvirt import connection
from ansible_collections.racefree.block.plugins.module_utils._module import dm_device
from ansible_collections.racefree.block.plugins.module_utils._source import resources
from ansible_collections.racefree.block.plugins.module_utils._volumes import thin
from ansible_collections.racefree.block.plugins.module_utils._xenstore.pyxs_store import Store
from ansible_collections.racefree.block.plugins.modules import (
    libvirt_disks,
    loop_device,
    loop_devices,
    snapshot_stores,
    xen_vbds,
)
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.modulerun import run
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.xenstored import Xenstored

SIZE = 65536


def refused(result, rows, *names):
    """Both entries of ``rows`` have the error, and each message names both; returns the first message."""
    assert result["failed"] and not result["changed"], result
    entries = next(
        value
        for key, value in result.items()
        if isinstance(value, list) and key in ("devices", "vbds", "disks", "stores")
    )
    failed = [index for index, entry in enumerate(entries) if entry.get("failed")]
    assert failed == list(rows), result
    for index in rows:
        for name in names:
            assert name in entries[index]["msg"], (name, entries[index]["msg"])
        assert "('" not in entries[index]["msg"] and entries[index]["error"]["kind"] == "InvalidValue"
    return entries[rows[0]]["msg"]


@pytest.fixture
def place():
    loopdevices.need_loop()
    with loopdevices.directory() as path:
        yield path
        assert loopdevices.nothing_bound(path), "the test left a loop device"


@pytest.fixture
def names(place):
    """Paths of the same file."""
    path = loopdevices.image(place, "disk", SIZE)
    os.symlink(path, place + "/link")
    os.link(path, place + "/hard")
    os.symlink(place, place + "/way")
    return {"plain": path, "link": place + "/link", "hard": place + "/hard", "way": place + "/way/disk"}


@pytest.mark.parametrize("state", ["present", "absent"])
@pytest.mark.parametrize(
    "other",
    [
        {"backing_file": "link"},
        {"backing_file": "hard"},
        {"backing_file": "way"},
        {"backing_file": "plain", "size": SIZE},
        {"backing_file": "hard", "state": "absent"},
    ],
)
@pytest.mark.parametrize("bound", [False, True])
def test_the_same_file_twice(place, names, state, other, bound):
    other = dict(other, backing_file=names[other["backing_file"]])
    if bound:
        assert not run(loop_device.main, backing_file=names["plain"]).get("failed")
    before = loopdevices.bound_files(place)
    try:
        rows = [{"backing_file": names["plain"], "state": state}, dict({"state": state}, **other)]
        for check in (True, False):
            result = run(loop_devices.main, check=check, devices=rows)
            if bound and state == "present" and "size" in other:
                # The existing device is as long as its file, so this entry needs a new device on the same
                # area.
                assert result["failed"] and loopdevices.bound_files(place) == before
                continue
            words = refused(
                result,
                [0, 1],
                "devices[0].backing_file",
                "devices[1].backing_file",
                names["plain"],
                other["backing_file"],
            )
            assert f"{SIZE} bytes from 0 on" in words or "diskseq" in words
            assert loopdevices.bound_files(place) == before
    finally:
        run(loop_device.main, backing_file=names["plain"], state="absent")


def test_the_same_file_read_only_and_writable(place, names):
    result = run(
        loop_devices.main,
        devices=[{"backing_file": names["plain"]}, {"backing_file": names["link"], "read_only": True}],
    )
    refused(result, [0, 1], names["plain"], names["link"])
    assert not loopdevices.bound_files(place)


def test_other_areas_of_the_file_are_other_devices(place, names):
    rows = [
        {"backing_file": names["plain"]},
        {"backing_file": names["link"], "size": 4096, "overlap": True},
        {"backing_file": names["hard"], "offset": 4096, "size": 4096, "overlap": True},
        {"backing_file": names["way"], "offset": 4096, "overlap": True},
        {"backing_file": names["plain"], "offset": 8192, "size": SIZE - 4096 - 4096, "state": "absent"},
    ]
    try:
        done = run(loop_devices.main, check=True, devices=rows)
        assert not done.get("failed") and done["changed"], done
    finally:
        run(loop_devices.main, devices=[dict(row, state="absent") for row in rows])


def test_the_same_device_by_file_path_and_diskseq(place, names):
    device = run(loop_device.main, backing_file=names["plain"])["device"]
    entries = [
        {"backing_file": names["link"], "state": "absent"},
        {"path": device["path"], "state": "absent"},
        {"diskseq": device["diskseq"], "state": "absent"},
        {"backing_file": names["hard"]},
    ]
    try:
        for first in entries:
            for second in entries:
                result = run(loop_devices.main, devices=[first, second])
                said = [
                    str(value) for entry in (first, second) for key, value in entry.items() if key != "state"
                ]
                refused(result, [0, 1], *said)
        result = run(loop_devices.main, devices=entries[:3], on_error="keep")
        refused(result, [0, 1, 2], "Keep one of the two entries")
        assert list(loopdevices.bound_files(place)) == [device["minor"]]
        with _device.open_path(device["path"]) as held:
            assert held.id.diskseq == device["diskseq"]
    finally:
        run(loop_device.main, backing_file=names["plain"], state="absent")


def test_the_other_entries_are_done_with_on_error_keep(place, names):
    third = loopdevices.image(place, "third")
    rows = [{"backing_file": names["plain"]}, {"backing_file": third}, {"backing_file": names["link"]}]
    result = run(loop_devices.main, devices=rows, on_error="keep")
    assert result["failed"] and [bool(row.get("failed")) for row in result["devices"]] == [True, False, True]
    assert list(loopdevices.bound_files(place).values()) == [third]
    assert run(loop_device.main, backing_file=third, state="absent")["changed"]


def test_the_same_store_twice(tmp_path):
    (tmp_path / "golden").write_bytes(b"golden" * 1000)
    (tmp_path / "a.cow").write_bytes(bytes(512))
    (tmp_path / "way").symlink_to(tmp_path)
    os.link(tmp_path / "a.cow", tmp_path / "hard.cow")
    (tmp_path / "dangling").symlink_to(tmp_path / "none.cow")
    for first, second in (
        ("a.cow", "way/a.cow"),
        ("a.cow", "hard.cow"),
        ("none.cow", "way/none.cow"),
        ("dangling", "none.cow"),
    ):
        rows = [{"path": str(tmp_path / name), "image": str(tmp_path / "golden")} for name in (first, second)]
        before = sorted(os.listdir(tmp_path))
        refused(
            run(snapshot_stores.main, stores=rows),
            [0, 1],
            "stores[0].path",
            str(tmp_path / first),
            str(tmp_path / second),
        )
        assert sorted(os.listdir(tmp_path)) == before


@pytest.fixture
def guest(monkeypatch):
    """XenStore with a guest; Host connects to this one."""
    with Xenstored() as daemon, Store(5, daemon.socket) as store:
        uuid = "00000005-1111-2222-3333-444444444444"
        for path, value in (
            ("/local/domain/5/name", "web"),
            ("/local/domain/5/vm", "/vm/" + uuid),
            ("/libxl/5/type", "pv"),
        ):
            store.write(path, value)
        monkeypatch.setattr(resources.Resources, "shared", lambda self, kind: store)
        yield uuid


def test_the_same_disk_of_a_guest_twice(guest):
    entries = [
        {"domain": domain, "vdev": vdev, "state": "detached"}
        for domain in ("web", guest, guest.upper(), "5")
        for vdev in ("xvdd", "51760", "d3")
    ]
    for second in entries:
        result = run(xen_vbds.main, vbds=[entries[0], second])
        words = refused(result, [0, 1], "vbds[0].vdev", "vbds[1].vdev", second["vdev"], second["domain"])
        assert "xvdd (51760)" in words
    result = run(xen_vbds.main, vbds=[entries[0], {"domain": guest, "vdev": "xvde", "state": "detached"}])
    assert not result.get("failed"), result


def test_the_same_disk_of_a_domain_twice(monkeypatch):
    """libvirt's answer for two names is simulated. tests/host/test_libvirt_disk.py tests a real libvirt."""
    uuids = {"web": "11111111-2222-3333-4444-55555555555b", "other": "11111111-2222-3333-4444-55555555555c"}

    def read(uri, domain, limit):
        name = next(name for name, uuid in uuids.items() if domain in (name, uuid))
        xml = f"<domain type='xen'><name>{name}</name><uuid>{uuids[name]}</uuid><devices></devices></domain>"
        return connection.Definition(name, uuids[name], xml, None)

    monkeypatch.setattr(connection, "read", read)
    first = {"domain": "web", "vdev": "xvdd", "state": "absent"}
    for change in (
        {"domain": uuids["web"]},
        {"vdev": "51760"},
        {"domain": uuids["web"], "vdev": "d3"},
        {"uri": "xen:///", "domain": uuids["web"]},
        {"uri": "xen:"},
    ):
        second = dict(first, **change)
        refused(
            run(libvirt_disks.main, disks=[first, second]),
            [0, 1],
            "disks[0].vdev",
            "disks[1].vdev",
            second["domain"],
            second["vdev"],
        )
    for change in ({"domain": "other"}, {"vdev": "xvde"}, {"uri": "xen+ssh://elsewhere/"}):
        assert not run(libvirt_disks.main, disks=[first, dict(first, **change)]).get("failed")


@pytest.mark.parametrize(
    "one, other, same",
    [
        ("xen:///system", "xen:///", True),
        ("xen:///system", "xen+unix:///system?socket=/x", True),
        ("qemu:///system", "qemu:///session", False),
        ("qemu+ssh://root@a/system", "qemu+tls://a/system", True),
        ("qemu+ssh://a/system", "qemu+ssh://b/system", False),
        ("xen:///", "qemu:///", False),
    ],
)
def test_libvirts_drivers(one, other, same):
    assert (connection.driver_of(one) == connection.driver_of(other)) is same


def test_the_same_mapped_device_twice():
    """Duplicates by name, UUID and number. tests/kernel tests the answers of device-mapper itself."""
    item = dm_device.DmItem(dict.fromkeys(dm_device.ARGUMENTS), None)
    number = _device.DeviceId(253, 4, 77)
    item.device = types.SimpleNamespace(id=number, path="/dev/dm-4")
    item.mapped = mapped.Mapped(item.device, types.SimpleNamespace(name="vol", uuid="U-1"))
    seen = item.identities()
    by_name, by_uuid = (
        dm_device.DmItem(dict(dict.fromkeys(dm_device.ARGUMENTS), **{key: "vol"}), None)
        for key in ("name", "uuid")
    )
    assert number in seen and not set(by_name.identities()) & set(by_uuid.identities()), "a name is no uuid"


def test_the_same_volume_twice():
    with pytest.raises(InvalidValue) as caught:
        thin.parse_volumes([{"id": 1}, {"id": 2}, {"id": 1, "state": "absent"}])
    assert "volumes[2].id" in str(caught.value) and "volumes[0].id" in str(caught.value)


@pytest.fixture(autouse=True)
def descriptors():
    before = len(os.listdir("/proc/self/fd"))
    yield
    with contextlib.suppress(FileNotFoundError):
        assert len(os.listdir("/proc/self/fd")) <= before + 1
