# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The disk that is replaced comes back if libvirt fails after the guest has released it: a real loop device and
a real xenstored; blkback, the guest and libvirt are played.
"""

from __future__ import annotations

import os
import types

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import DeadlineExceeded, GuestError
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.plugins.module_utils._libvirt import attach
from ansible_collections.racefree.block.plugins.module_utils._libvirt.disk_device import DiskSpec
from ansible_collections.racefree.block.plugins.module_utils._libvirt.disk_request import DiskRequest
from ansible_collections.racefree.block.plugins.module_utils._libvirt.old_xen_disk import OldXenDisk
from ansible_collections.racefree.block.plugins.module_utils._source import spec
from ansible_collections.racefree.block.plugins.module_utils._source.resources import Resources
from ansible_collections.racefree.block.plugins.module_utils._xen import blkback, guest, replacing, vdev
from ansible_collections.racefree.block.plugins.module_utils._xen.vbd_nodes import Key
from ansible_collections.racefree.block.plugins.module_utils._xenstore.pyxs_store import Store
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.played_blkback import PlayedBlkback
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.xenstored import Xenstored

UUID = "00000005-1111-2222-3333-444444444444"
GUEST = guest.Guest(5, UUID, "web")


class Domain:
    """libvirt's domain. ``failures``: how often it refuses to detach the disk that it lists."""

    def __init__(self, store, device):
        self.store, self.device, self.failures, self.is_listed = store, device, 0, True

    def ID(self):
        return GUEST.domid

    def XMLDesc(self, flags):
        return "<target dev='xvdb' bus='xen'/>" if self.is_listed else ""

    def detachDeviceFlags(self, xml, flags):
        if self.failures:
            self.failures -= 1
            raise GuestError("libvirt refused: no")
        for path in (Key(5, 51728).backend, Key(5, 51728).frontend, Key(5, 51728).libxl):
            self.store.remove(path)
        self.is_listed = False

    def attachDeviceFlags(self, xml, flags):
        if self.is_listed:
            raise GuestError("libvirt refused: target xvdb already exists")
        self.is_listed = lay(self.store, self.device) is None


def lay(store, device):
    request = blkback.Request(GUEST, vdev.parse("xvdb"), device, params=device.path)
    (outcome,) = blkback.attach(store, [request], 5)
    return outcome.error


@pytest.fixture
def scene(monkeypatch, tmp_path):
    loopdevices.need_loop()
    sysfs = tmp_path / "xen-backend"
    sysfs.mkdir()
    monkeypatch.setattr(Key, "sysfs", property(lambda key: f"{sysfs}/vbd-{key.domid}-{key.devid}"))
    with (
        Xenstored() as daemon,
        Store(5, daemon.socket) as store,
        loopdevices.directory() as place,
        Resources() as host,
        PlayedBlkback(daemon.socket, 5, sysfs) as backend,
    ):
        for path, value in (("name", "web"), ("vm", f"/vm/{UUID}")):
            store.write(f"/local/domain/5/{path}", value)
        host._shared[Store] = store
        image = loopdevices.image(place, "old")
        fd, number = loopdevices.bind_free(image)
        device = host.enter_context(_device.open_number(7, number))
        os.close(fd)
        assert lay(store, device) is None
        vbd = blkback.vbd_read.read_vbd(store, 5, 51728)
        old = replacing.OldDisk(vbd, GUEST, device, None, True)
        request = DiskRequest("xen:///", "web", "xvdb", spec.parse({"file": image}), live=True, timeout=5)
        disk = OldXenDisk(host, request, DiskSpec("web", UUID, "xvdb", request.source), old)
        domain = Domain(store, device)
        monkeypatch.setattr(attach._connection, "require", lambda: None)
        monkeypatch.setattr(attach, "libvirt", types.SimpleNamespace(VIR_DOMAIN_AFFECT_LIVE=1))
        link = types.SimpleNamespace(lookupByUUIDString=lambda uuid: domain)
        monkeypatch.setattr(attach, "_with_run", lambda guest, uri, limit, function: function(link, domain))
        yield types.SimpleNamespace(disk=disk, domain=domain, backend=backend, image=image)


@pytest.mark.parametrize("failures", [1, 99])
def test_the_old_disk_comes_back_although_libvirt_does_not_detach_it(scene, failures):
    """libvirt fails once, or always; then it still lists the disk as it was."""
    scene.domain.failures = failures
    with pytest.raises(GuestError, match="libvirt refused: no.* The guest has its old disk .* again"):
        scene.disk.take()
    assert scene.backend.has(51728) == scene.image and scene.domain.is_listed
    assert scene.disk.is_again and len(scene.backend.opened) == 2


def test_a_disk_that_the_guest_keeps_is_left_alone(scene):
    scene.backend.keeps[51728] = "busy"
    with pytest.raises(DeadlineExceeded, match="Device in use") as caught:
        scene.disk.take()
    assert "The guest has" not in str(caught.value)
    assert scene.backend.opened == [scene.image] and not scene.disk.is_again
