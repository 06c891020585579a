# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Requests that the plan for a guest's disk refuses, without a Xen host: a real loop device and a real
xenstored.
"""

from __future__ import annotations

import os

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    DeviceBusy,
    InvalidValue,
    KernelError,
    WrongDevice,
)
from ansible_collections.racefree.block.plugins.module_utils._dm import health, mapped
from ansible_collections.racefree.block.plugins.module_utils._libvirt.connection import Definition
from ansible_collections.racefree.block.plugins.module_utils._libvirt.disk_request import (
    DiskRequest as LibvirtRequest,
)
from ansible_collections.racefree.block.plugins.module_utils._libvirt.running_disk import RunningDisk
from ansible_collections.racefree.block.plugins.module_utils._module.xen_vbd import ARGUMENTS, VbdItem
from ansible_collections.racefree.block.plugins.module_utils._source import lookup, spec
from ansible_collections.racefree.block.plugins.module_utils._source.resources import Resources
from ansible_collections.racefree.block.plugins.module_utils._xen.guest import Guest
from ansible_collections.racefree.block.plugins.module_utils._xen.vbd_key import Key
from ansible_collections.racefree.block.plugins.module_utils._xenstore.pyxs_store import Store
from ansible_collections.racefree.block.plugins.module_utils._xl.disk_change import DiskRequest as XlRequest
from ansible_collections.racefree.block.plugins.module_utils._xl.running_disk import (
    RunningDisk as XlRunningDisk,
)
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.xenstored import Xenstored

UUID = "00000005-1111-2222-3333-444444444444"


@pytest.fixture(name="host")
def fixture_host(monkeypatch):
    """A host with one running guest."""
    with Xenstored() as daemon, Store(5, daemon.socket) as store, Resources() as host:
        for path, value in (
            ("/local/domain/5/name", "web"),
            ("/local/domain/5/vm", f"/vm/{UUID}"),
            ("/libxl/5/type", "pv"),
        ):
            store.write(path, value)
        host._shared[Store] = store
        yield host


def test_a_cdrom_is_read_only_and_can_be_detached(host):
    """With the same options, except for the state."""
    with pytest.raises(InvalidValue, match="must be r: a cdrom is read-only"):
        vbd_item(host, source={"file": "/srv/a"}, device_type="cdrom")
    vbd_item(host, state="detached", device_type="cdrom")


OTHERS = {
    "qdisk": ("/local/domain/0/backend/qdisk/5/51728", "served by qdisk instead of blkback"),
    "driver domain": ("/local/domain/3/backend/vbd/5/51728", "served by the domain 3 instead of blkback"),
}


@pytest.fixture(name="served", params=OTHERS)
def fixture_served(host, request):
    """The error for a disk xvdb that the guest has from another backend."""
    backend, error = OTHERS[request.param]
    store = host._shared[Store]
    store.write("/libxl/5/device/vbd/51728/backend", backend)
    store.write(f"{backend}/state", "4")
    return f"has a disk xvdb, {error}"


def vbd_item(host, **options):
    params = {key: option.get("default") for key, option in ARGUMENTS.items()}
    params.update(domain="web", vdev="xvdb", toolstack="xenstore", **options)
    item = VbdItem(params, host)
    item.check()
    return item


@pytest.mark.parametrize("options", [{"state": "detached"}, {"source": {"file": "/srv/a"}}])
def test_xen_vbd_does_not_take_a_disk_of_another_backend_for_none(host, served, options):
    item = vbd_item(host, **options)
    with pytest.raises(DeviceBusy, match=served):
        item.plan()


@pytest.mark.parametrize("present", [False, True])
@pytest.mark.parametrize("is_listed", [False, True])
def test_libvirt_disk_does_not_take_a_disk_of_another_backend_for_none(host, served, present, is_listed):
    request = LibvirtRequest("xen:///", "web", "xvdb", spec.parse("file:/srv/a"), live=True, present=present)
    listed = "<devices><disk type='file'><target dev='xvdb'/></disk></devices>" if is_listed else ""
    live = f"<domain type='xen'><name>web</name><uuid>{UUID}</uuid>{listed}</domain>"
    disk = RunningDisk(host, request, Definition("web", UUID, None, live))
    with pytest.raises(DeviceBusy, match=served):
        disk.plan(None, None)


@pytest.mark.parametrize("present", [False, True])
def test_xl_disk_does_not_take_a_disk_of_another_backend_for_none(host, served, present):
    store = host._shared[Store]
    request = XlRequest(None, "web", "xvdb", spec.parse("file:/srv/a"), present=present)
    disk = XlRunningDisk(host, request, Guest(5, UUID, "web"), store)
    with pytest.raises(DeviceBusy, match=served):
        disk.look()


def test_nodes_of_libxl_without_a_disk_hinder_nobody(host):
    host._shared[Store].write("/libxl/5/device/vbd/51728/backend", "/local/domain/0/backend/vbd/5/51728")
    assert not vbd_item(host, state="detached").plan().changed


@pytest.mark.parametrize("size", ["8388608T", "8589934592G"])
def test_a_file_is_smaller_than_8_eib(host, size):
    with pytest.raises(InvalidValue, match="must be less than 8 EiB: no file is larger"):
        vbd_item(host, source={"file": "/srv/a"}, size=size)
    with pytest.raises(InvalidValue, match="must be less than 8 EiB"):
        vbd_item(host, source={"file": "/srv/a", "offset": 2**40}, size="8388607T")
    assert vbd_item(host, source={"file": "/srv/a"}, size="8388607T").size == 2**63 - 2**40


class Backend:
    """blkback's nodes for the disk xvdb."""

    def __init__(self, host, **nodes):
        self.store, self.key = host._shared[Store], Key(5, 51728)
        nodes = {"state": "4", "online": "1", "mode": "w", "dev": "xvdb", "frontend-id": "5", **nodes}
        nodes.update({"frontend": self.key.frontend, "device-type": "disk"})
        for name, value in nodes.items():
            self.store.write(f"{self.key.backend}/{name}", value)
        self.store.write(f"{self.key.frontend}/state", "4")


@pytest.mark.parametrize(
    "options, words",
    [
        ({"source": {"file": "/srv/a"}}, "cannot be compared with the source"),
        ({"source": "file:/srv/a", "diskseq": 5}, "cannot be compared with the source"),
        ({"diskseq": 5}, "cannot be compared with diskseq"),
    ],
)
def test_a_disk_that_the_backend_has_not_open_is_not_compared(host, options, words):
    Backend(host, state="2")
    with pytest.raises(WrongDevice, match=f"no device open for it, so it {words}") as caught:
        vbd_item(host, state="detached", **options).plan()
    assert "leave it out to detach whatever is there" in str(caught.value.as_dict()["hint"])
    assert vbd_item(host, state="detached").plan().changed


@pytest.mark.parametrize("writable, mode", [(True, "w"), (True, "r"), (False, "r")])
def test_a_disk_is_detached_by_its_source_with_whatever_mode(host, writable, mode):
    """``writable``: whether the loop device is. ``mode``: that of the guest."""
    loopdevices.need_loop()
    with loopdevices.directory() as place:
        path, other = (loopdevices.image(place, name) for name in ("disk", "other"))
        flags = loopdevices.AUTOCLEAR | (0 if writable else loopdevices.READ_ONLY)
        fd, number = loopdevices.bind_free(path, flags)
        try:
            Backend(
                host,
                mode=mode,
                **{"physical-device": f"7:{number:x}", "diskseq": f"{loopdevices.diskseq_of(fd):x}"},
            )
            for options in ({}, {"mode": "r"}, {"mode": "w"}):
                item = vbd_item(host, state="detached", source={"file": path}, **options)
                assert item.plan().changed
            with pytest.raises(WrongDevice, match="the guest has another disk there"):
                vbd_item(host, state="detached", source={"file": other}).plan()
        finally:
            os.close(fd)
            host.close()


def test_a_file_that_was_made_larger_is_reported_after_an_error(host, monkeypatch):
    """It is not rolled back."""
    loopdevices.need_loop()
    with loopdevices.directory() as place:
        path = loopdevices.image(place, "disk", 2**20)
        item = vbd_item(host, source={"file": path}, size="2M")
        assert item.plan().changed and item.remains() == []

        def fail(source):
            raise KernelError("there is no free loop device", device=str(source))

        monkeypatch.setattr(item.opener, "open", fail)
        with pytest.raises(KernelError, match="no free loop device"):
            item.apply()
        assert os.path.getsize(path) == 2**21 and item.remains() == [f"{path} has {2**21} bytes"]


def break_all(monkeypatch):
    """
    Report an overflowed snapshot store, as device-mapper would. This machine may not have device-mapper.
    """
    monkeypatch.setattr(mapped, "is_mapped", lambda device: True)
    monkeypatch.setattr(
        health, "problems", lambda control, device: [("disk", b"snapshot", "store has overflowed")]
    )
    monkeypatch.setattr(Resources, "dm", None)


@pytest.fixture(name="diskseq")
def fixture_diskseq():
    """The disk sequence number of a loop device."""
    loopdevices.need_loop()
    with loopdevices.directory() as place:
        fd, dummy = loopdevices.bind_free(loopdevices.image(place, "disk"))
        yield loopdevices.diskseq_of(fd)
        os.close(fd)


def test_the_plan_of_xen_vbd_refuses_a_broken_source(host, diskseq, monkeypatch):
    item = vbd_item(host, source={"diskseq": diskseq})
    assert item.plan().changed
    break_all(monkeypatch)
    with pytest.raises(KernelError, match="disk: store has overflowed"):
        item.plan()


def test_the_plan_for_a_running_domain_of_libvirt_refuses_a_broken_source(host, diskseq, monkeypatch):
    source = spec.parse({"diskseq": diskseq})
    request = LibvirtRequest("xen:///", "web", "xvdb", source, live=True)
    definition = Definition("web", UUID, None, f"<domain><name>web</name><uuid>{UUID}</uuid></domain>")
    disk = RunningDisk(host, request, definition)
    below = host.enter_context(lookup.find(source, host))
    assert disk.plan(below, None)[0] is None and disk.changes
    break_all(monkeypatch)
    with pytest.raises(KernelError, match="disk: store has overflowed"):
        disk.plan(below, None)
