# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
How a disk of a running guest of Xen is compared with the wanted one, without a Xen host: a real xenstored
and real loop devices.
"""

from __future__ import annotations

import os

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    DeviceBusy,
    NotSupported,
    WrongDevice,
)
from ansible_collections.racefree.block.plugins.module_utils._libvirt import domain_xml
from ansible_collections.racefree.block.plugins.module_utils._libvirt.connection import Definition
from ansible_collections.racefree.block.plugins.module_utils._libvirt.disk_request import DiskRequest
from ansible_collections.racefree.block.plugins.module_utils._libvirt.running_disk import RunningDisk
from ansible_collections.racefree.block.plugins.module_utils._source import spec
from ansible_collections.racefree.block.plugins.module_utils._source.resources import Resources
from ansible_collections.racefree.block.plugins.module_utils._xen import grown
from ansible_collections.racefree.block.plugins.module_utils._xen.vbd_key import Key
from ansible_collections.racefree.block.plugins.module_utils._xenstore.pyxs_store import Store
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.xenstored import Xenstored

UUID = "00000005-1111-2222-3333-444444444444"
PATH = domain_xml.path_of(UUID, "xvdb")
EMPTY = f"<domain type='xen'><name>web</name><uuid>{UUID}</uuid><devices/></domain>"


@pytest.fixture(name="host")
def fixture_host():
    """A host with one running guest."""
    with Xenstored() as daemon, Store(5, daemon.socket) as store, Resources() as host:
        store.write("/local/domain/5/name", "web")
        store.write("/local/domain/5/vm", f"/vm/{UUID}")
        host._shared[Store] = store
        yield host


def has_disk(host, **nodes):
    """Let the guest have the disk xvdb, with these nodes of blkback."""
    store, key = host._shared[Store], Key(5, 51728)
    nodes = {
        "state": "4",
        "online": "1",
        "mode": "w",
        "dev": "xvdb",
        "frontend-id": "5",
        "frontend": key.frontend,
        "device-type": "disk",
        **nodes,
    }
    for name, value in nodes.items():
        store.write(f"{key.backend}/{name}", value)
    store.write(f"{key.frontend}/state", "4")


def planned(host, live=EMPTY, source="file:/srv/a", **options):
    request = DiskRequest("xen:///system", "web", "xvdb", spec.parse(source), **options)
    disk = RunningDisk(host, request, Definition("web", UUID, None, live, 5))
    disk.plan(None, None)
    return disk


@pytest.mark.parametrize("read_only, mode", [(False, "w"), (False, "r"), (True, "r")])
def test_a_disk_is_removed_by_its_source_with_whatever_mode(host, read_only, mode):
    """``read_only``: of the loop device; ``mode``: of the guest's disk. The request is for mode=w."""
    loopdevices.need_loop()
    with loopdevices.directory() as place:
        path, other = (loopdevices.image(place, name) for name in ("disk", "other"))
        fd, number = loopdevices.bind_free(
            path, loopdevices.AUTOCLEAR | (loopdevices.READ_ONLY if read_only else 0)
        )
        try:
            diskseq = f"{loopdevices.diskseq_of(fd):x}"
            has_disk(host, mode=mode, diskseq=diskseq, **{"physical-device": f"7:{number:x}"})
            assert planned(host, source={"file": path}, present=False).changes_disk
            with pytest.raises(WrongDevice, match="another disk"):
                planned(host, source={"file": other}, present=False)
        finally:
            os.close(fd)
            host.close()


def test_shared_is_compared_with_the_running_definition(host, monkeypatch):
    """A saved guest is restored from it, and must then get a disk that others may use too, or no others."""
    has_disk(host, params=PATH)
    monkeypatch.setattr(RunningDisk, "_opened", lambda disk, vbd: "a device")
    monkeypatch.setattr(RunningDisk, "_is_source", lambda disk, device: True)
    monkeypatch.setattr(grown, "compare", lambda *words: False)
    for marked, shared in ((True, True), (False, False), (False, True)):
        live = domain_xml.put(EMPTY, domain_xml.Disk("xvdb", PATH, shareable=marked, bus="xen"))
        assert not planned(host, live, shared=shared).changes_disk
    live = domain_xml.put(EMPTY, domain_xml.Disk("xvdb", PATH, shareable=True, bus="xen"))
    with pytest.raises(DeviceBusy, match="shared=true, not false"):
        planned(host, live, shared=False)


@pytest.mark.parametrize(
    "has, options",
    [
        (None, {"device_type": "cdrom", "mode": "r"}),
        ("cdrom", {"present": False}),
        ("cdrom", {"replace": True}),
        ("disk", {"device_type": "cdrom", "mode": "r", "replace": True}),
    ],
)
def test_a_cd_cannot_be_changed_in_a_running_guest(host, monkeypatch, has, options):
    """libvirt's Xen driver would refuse it only after the guest has released it."""
    if has is not None:
        has_disk(host, **{"device-type": has, "mode": "r" if has == "cdrom" else "w"})
    monkeypatch.setattr(RunningDisk, "_check_same", lambda disk, vbd: None)
    with pytest.raises(NotSupported, match="Set live=false"):
        planned(host, **options)
    # A CD that stays is not refused.
    if has == "cdrom":
        monkeypatch.setattr(RunningDisk, "_difference", lambda disk, vbd: setattr(disk, "device", 1))
        monkeypatch.setattr(grown, "compare", lambda *words: False)
        assert not planned(host, device_type="cdrom", mode="r").changes_disk


@pytest.mark.parametrize("present, way", [(True, "or set replace=true"), (False, "run the task again")])
def test_a_disk_that_the_guest_is_releasing(host, present, way):
    """``replace`` is refused with ``state=absent``."""
    has_disk(host, state="5")
    with pytest.raises(DeviceBusy, match="is being detached") as caught:
        planned(host, present=present)
    assert way in str(caught.value) and ("replace" in str(caught.value)) is present


def test_nodes_that_are_left_of_another_disk(host):
    """libvirt's driver would find them only when the file of the new disk has grown."""
    host._shared[Store].write(f"{Key(5, 51728).libxl}/backend-id", "0")
    with pytest.raises(DeviceBusy, match="nodes of one are left: /libxl/5/device/vbd/51728"):
        planned(host)
    host._shared[Store].remove(Key(5, 51728).libxl)
    # libxl removes it itself.
    host._shared[Store].write(Key(5, 51728).backend, "")
    assert planned(host).changes_disk
    assert planned(host, present=False).changes_disk is False
