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
from ansible_collections.racefree.block.plugins.module_utils._base.errors import KernelError
from ansible_collections.racefree.block.plugins.module_utils._dm import health, mapped
from ansible_collections.racefree.block.plugins.module_utils._libvirt.connection import Definition
from ansible_collections.racefree.block.plugins.module_utils._libvirt.disk_request import DiskRequest
from ansible_collections.racefree.block.plugins.module_utils._libvirt.running_disk import RunningDisk
from ansible_collections.racefree.block.plugins.module_utils._module.xen_vbd import ARGUMENTS, VbdItem
from ansible_collections.racefree.block.plugins.module_utils._source import lookup, spec
from ansible_collections.racefree.block.plugins.module_utils._source.resources import Resources
from ansible_collections.racefree.block.plugins.module_utils._xenstore.pyxs_store import Store
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
    params = {key: option.get("default") for key, option in ARGUMENTS.items()}
    params.update(domain="web", vdev="xvdb", source={"diskseq": diskseq}, toolstack="xenstore")
    item = VbdItem(params, host)
    item.check()
    assert item.plan().changed
    break_all(monkeypatch)
    with pytest.raises(KernelError, match="disk: store has overflowed"):
        item.plan()


def test_the_plan_for_a_running_domain_of_libvirt_refuses_a_broken_source(host, diskseq, monkeypatch):
    source = spec.parse({"diskseq": diskseq})
    request = DiskRequest("xen:///", "web", "xvdb", source, live=True)
    definition = Definition("web", UUID, None, f"<domain><name>web</name><uuid>{UUID}</uuid></domain>")
    disk = RunningDisk(host, request, definition)
    below = host.enter_context(lookup.find(source, host))
    assert disk.plan(below, None)[0] is None and disk.changes
    break_all(monkeypatch)
    with pytest.raises(KernelError, match="disk: store has overflowed"):
        disk.plan(below, None)
