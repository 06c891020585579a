# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
xen_vbd and xen_vbds on a host with libvirt, which fails in the middle: real loop devices and a real
xenstored; blkback, the guests and libvirt are played. tests/host/test_libvirt_vbd.py has the real ones.
"""

from __future__ import annotations

import os
import re
import types

import pytest
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.plugins.module_utils._libvirt import attach, connection
from ansible_collections.racefree.block.plugins.module_utils._xen import blkback, guest, vdev
from ansible_collections.racefree.block.plugins.module_utils._xen.vbd_nodes import Key
from ansible_collections.racefree.block.plugins.module_utils._xenstore.pyxs_store import Store
from ansible_collections.racefree.block.plugins.modules import xen_vbds
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.played_host import UUID, XVDB, XVDC
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.runs import run

OTHER_UUID = "00000006-1111-2222-3333-444444444444"
NO_DOMAIN = 42


class LibvirtError(Exception):
    def __init__(self, text, code=38):
        super().__init__(text)
        self.code = code

    def get_error_code(self):
        return self.code

    def get_error_message(self):
        return str(self)


class Libvirt:
    """
    libvirt's library and daemon. Modules run in processes of their own, so the daemon is down while the file
    ``down`` exists, and each question is a line of the file ``asked``. ``domains``: by UUID; libvirt knows
    no others. A LibvirtError instead of a domain is raised.
    """

    VIR_ERR_NO_DOMAIN, VIR_ERR_INVALID_ARG, VIR_ERR_CONF_SYNTAX, VIR_DOMAIN_AFFECT_LIVE = NO_DOMAIN, 8, 29, 1
    libvirtError = LibvirtError

    def __init__(self, place):
        self.down, self.asked, self.domains = place / "down", place / "asked", {}
        self.asked.touch()

    def open(self, uri):
        if self.down.exists():
            raise LibvirtError("Failed to connect socket to '/run/libvirt/virtxend-sock': Connection refused")
        return types.SimpleNamespace(
            lookupByUUIDString=self.look_up, close=lambda: 0, getLibVersion=lambda: 9000000
        )

    def look_up(self, uuid):
        with open(self.asked, "a", encoding="ascii") as file:
            file.write(f"{uuid}\n")
        found = self.domains.get(uuid, LibvirtError("no domain with matching uuid", NO_DOMAIN))
        if isinstance(found, LibvirtError):
            raise found
        return found

    def runs_web(self, place, refuses=()):
        """Let libvirt run the guest "web"; returns the file that is there while it lists the disk xvdb."""
        domain = self.domains[UUID] = Domain(place / "listed", refuses)
        return domain.listed

    def ends_when_opened(self, backend, path):
        """Let the daemon end when blkback is about to open this file, which it rejects."""
        down = self.down

        class Rejects(set):
            def __contains__(self, other):
                if other == path:
                    down.touch()
                return super().__contains__(other)

        backend.rejects = Rejects([path])


class Domain:
    """
    A guest that libvirt runs. It lists the disk xvdb while the file ``listed`` exists. ``refuses``: the
    numbers of the calls, from 1, in which it does not detach a disk.
    """

    def __init__(self, listed, refuses):
        self.listed, self.refuses, self.calls = listed, refuses, 0

    def isActive(self):
        return 1

    def ID(self):
        return 5

    def XMLDesc(self, flags):
        return "<target dev='xvdb' bus='xen'/>" if self.listed.exists() else ""

    def detachDeviceFlags(self, xml, flags):
        self.calls += 1
        if self.calls in self.refuses:
            raise LibvirtError("internal error: libxenlight failed to detach disk 'xvdb'")
        assert "dev='xvdb'" in xml.replace('"', "'")
        with Store(5) as store:
            for path in (Key(5, XVDB).backend, Key(5, XVDB).frontend, Key(5, XVDB).libxl):
                store.remove(path)
        self.listed.unlink()

    def attachDeviceFlags(self, xml, flags):
        path, dev = re.findall(r"dev=['\"](.+?)['\"]", xml)
        if dev == "xvdb" and self.listed.exists():
            raise LibvirtError("operation failed: target xvdb already exists")
        number = os.stat(path).st_rdev
        with Store(5) as store, _device.open_number(os.major(number), os.minor(number)) as device:
            request = blkback.Request(guest.Guest(5, UUID, "web"), vdev.parse(dev), device, params=path)
            (outcome,) = blkback.attach(store, [request], 5)
        if outcome.error is not None:
            raise LibvirtError(f"internal error: {outcome.error}")
        if dev == "xvdb":
            self.listed.touch()


@pytest.fixture(name="libvirt")
def fixture_libvirt(monkeypatch, tmp_path):
    played = Libvirt(tmp_path)
    for module in (attach, connection):
        monkeypatch.setattr(module, "libvirt", played)
    monkeypatch.setattr(attach, "may_run_guests", lambda: True)
    return played


def entry(path, vdev="xvdb", **options):
    return {
        "domain": "web",
        "vdev": vdev,
        "source": {"file": path},
        "persist": False,
        "timeout": 5,
        **options,
    }


def test_a_disk_is_put_back_without_libvirt(host, libvirt):
    """libvirt does not run this guest. It must not be needed to give the old disk back."""
    old, new = host.image("old"), host.image("new")
    host.vbd(old)
    libvirt.ends_when_opened(host.backend, new)
    result = host.replace(new, toolstack="auto")
    assert libvirt.down.exists() and result["failed"] and not result["changed"]
    assert "creating vbd structure" in result["msg"] and "The guest has its old disk" in result["msg"]
    assert host.backend.has(XVDB) == old


def test_a_disk_is_rolled_back_without_libvirt(host, libvirt):
    one, two = host.image("one"), host.image("two")
    libvirt.ends_when_opened(host.backend, two)
    result = run(xen_vbds.main, {"vbds": [entry(one), entry(two, "xvdc")]})
    assert libvirt.down.exists() and result["failed"] and not result["changed"]
    assert (host.backend.has(XVDB), host.backend.has(XVDC)) == (None, None)
    assert libvirt.asked.read_text().splitlines() == [UUID], "it is asked once for each guest"


def test_a_replaced_disk_is_rolled_back_without_libvirt(host, libvirt):
    old, new, other = host.image("old"), host.image("new"), host.image("other")
    host.vbd(old)
    libvirt.ends_when_opened(host.backend, other)
    result = run(xen_vbds.main, {"vbds": [entry(new, replace=True), entry(other, "xvdc")]})
    assert libvirt.down.exists() and result["failed"] and not result["changed"]
    assert (host.backend.has(XVDB), host.backend.has(XVDC)) == (old, None)


def test_one_guest_that_libvirt_does_not_answer_for(host, libvirt):
    """With on_error=keep, the disks of the other guests are attached."""
    for path, value in (("name", "mail"), ("vm", f"/vm/{OTHER_UUID}")):
        host.store.write(f"/local/domain/6/{path}", value)
    libvirt.domains[OTHER_UUID] = LibvirtError("internal error: it is being created")
    one, two = host.image("one"), host.image("two")
    entries = [entry(two, domain="mail"), entry(two, "xvdc", domain="mail"), entry(one)]
    for check in (True, False):
        result = run(xen_vbds.main, {"vbds": entries, "on_error": "keep"}, check=check)
        first, second, third = result["vbds"]
        assert "whether libvirt runs the guest could not be determined" in first["msg"]
        assert first["msg"] == second["msg"]
        assert third["changed"] and not third.get("failed")
    assert host.backend.has(XVDB) == one
    assert libvirt.asked.read_text().splitlines() == [OTHER_UUID, UUID] * 2


def test_libvirt_is_not_asked_for_what_needs_no_answer(host, libvirt):
    """A disk that is there already, and one that is taken away by force."""
    path = host.image("disk")
    host.vbd(path)
    libvirt.down.touch()
    assert not host.vbd(path, toolstack="auto").get("failed")
    result = host.vbd(path, toolstack="auto", state="detached", force=True)
    assert result["changed"] and host.backend.has(XVDB) is None


@pytest.mark.parametrize("is_silent", [False, True])
def test_libvirt_lists_a_disk_no_more_that_was_taken_by_force(host, libvirt, tmp_path, is_silent):
    listed = libvirt.runs_web(tmp_path)
    path = host.image("disk")
    assert host.vbd(path, toolstack="libvirt")["changed"] and listed.exists()
    host.backend.keeps[XVDB] = "silent" if is_silent else "busy"
    assert host.vbd(path, toolstack="libvirt", state="detached", force=True)["changed"]
    assert not listed.exists() and host.backend.has(XVDB) is None
    host.backend.keeps.clear()
    # It can be attached again.
    assert host.vbd(path, toolstack="libvirt")["changed"] and host.backend.has(XVDB) == path


def test_force_tells_that_libvirt_still_lists_the_disk(host, libvirt, tmp_path):
    listed = libvirt.runs_web(tmp_path, range(1, 99))
    path = host.image("disk")
    assert host.vbd(path, toolstack="libvirt")["changed"]
    result = host.vbd(path, toolstack="libvirt", state="detached", force=True)
    assert result["failed"] and result["changed"] and listed.exists()
    assert "libvirt may still list it: " in result["msg"] and "failed to detach disk" in result["msg"]
    assert "virsh detach-disk" in result["error"]["hint"] and "the disk is detached" in str(
        result["warnings"]
    )
    assert host.backend.has(XVDB) is None


@pytest.mark.parametrize("check", [True, False])
def test_nothing_is_begun_if_libvirt_does_not_answer(host, libvirt, check):
    libvirt.down.touch()
    result = host.vbd(host.image("disk"), toolstack="auto", check=check)
    assert result["failed"] and not result["changed"] and "set toolstack: xenstore" in result["msg"]
    assert host.backend.opened == []


def check_has_again(result, host, old):
    assert (
        "The guest has its old disk" in result["msg"] and "could not be attached again" not in result["msg"]
    )
    assert result["failed"] and not result["changed"] and host.backend.has(XVDB) == old


@pytest.mark.parametrize("check", [True, False])
def test_libvirt_is_not_asked_to_change_a_cd(host, libvirt, tmp_path, check):
    """Its Xen driver would refuse it when the guest has released it. The guest keeps it."""
    listed = libvirt.runs_web(tmp_path)
    old, new = host.image("old"), host.image("new")
    cd = {"device_type": "cdrom", "mode": "r"}

    def refused(source, **options):
        result = host.vbd(source, toolstack="auto", check=check, **options)
        assert not result["changed"] and "cannot attach or detach a CD of a running guest" in result["msg"]
        assert "toolstack=xenstore" in result["msg"]

    refused(old, **cd)
    assert host.vbd(old, **cd)["changed"]
    listed.touch()
    refused(new, replace=True, **cd)
    refused(new, replace=True)
    refused(old, state="detached")
    assert not host.vbd(old, toolstack="auto", check=check, **cd)["changed"]
    assert host.backend.has(XVDB) == old and host.nodes()["state"] == "4"


@pytest.mark.parametrize("refuses", [range(1, 2), range(1, 99)], ids=["once", "always"])
def test_libvirt_does_not_forget_the_old_disk(host, libvirt, tmp_path, refuses):
    """The guest has released it. It gets it again: through libvirt, or as libvirt still lists it."""
    listed = libvirt.runs_web(tmp_path, refuses)
    old, new = host.image("old"), host.image("new")
    assert host.vbd(old, toolstack="auto")["changed"] and listed.exists()
    result = host.replace(new, toolstack="auto")
    assert "failed to detach disk 'xvdb'" in result["msg"]
    check_has_again(result, host, old)
    assert listed.exists() and host.backend.opened == [old, old]
    libvirt.runs_web(tmp_path)
    assert host.replace(new, toolstack="auto")["changed"] and host.backend.has(XVDB) == new
    assert listed.exists()


def test_the_new_disk_fails_in_libvirt(host, libvirt, tmp_path):
    listed = libvirt.runs_web(tmp_path)
    old, new = host.image("old"), host.image("new")
    host.vbd(old, toolstack="libvirt")
    host.backend.rejects.add(new)
    check_has_again(host.replace(new, toolstack="libvirt"), host, old)
    assert listed.exists()


@pytest.mark.parametrize("refuses", [(), (2,), range(2, 99)], ids=["never", "once", "always"])
def test_libvirt_does_not_forget_the_new_disk_that_is_rolled_back(host, libvirt, tmp_path, refuses):
    """The guest must not have another disk than libvirt lists: if it were saved, it would get that one."""
    listed = libvirt.runs_web(tmp_path, refuses)
    old, new, other = host.image("old"), host.image("new"), host.image("other")
    host.vbd(old, toolstack="libvirt")
    host.backend.rejects.add(other)
    result = run(xen_vbds.main, {"vbds": [entry(new, replace=True), entry(other, "xvdc")]})
    assert result["failed"] and "creating vbd structure" in result["msg"]
    told = str(result["warnings"])
    assert listed.exists() and host.backend.has(XVDC) is None
    if len(refuses) < 2:
        assert "the guest has its old disk" in told and host.backend.has(XVDB) == old
        assert not result["changed"]
        return
    assert "the guest has no disk xvdb now: its old disk" in told and host.backend.has(XVDB) is None
    assert "libvirt still lists the new disk as xvdb" in told and result["changed"]
