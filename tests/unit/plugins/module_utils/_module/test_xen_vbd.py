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
