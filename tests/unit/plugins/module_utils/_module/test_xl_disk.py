# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""xl_disk and a running guest that has another disk: a real xenstored and real loop devices, without Xen."""

from __future__ import annotations

import os
import time
import types

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import GuestError
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.plugins.module_utils._hotplug import state
from ansible_collections.racefree.block.plugins.module_utils._module import sealing
from ansible_collections.racefree.block.plugins.module_utils._source import recipe_file
from ansible_collections.racefree.block.plugins.module_utils._xen import vbd_nodes
from ansible_collections.racefree.block.plugins.module_utils._xen.vbd_nodes import Key
from ansible_collections.racefree.block.plugins.module_utils._xenstore.pyxs_store import Store
from ansible_collections.racefree.block.plugins.module_utils._xl import (
    config_file,
    disk_text,
    running_disk,
    xl_command,
)
from ansible_collections.racefree.block.plugins.modules import xl_disk
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.played_host import XVDB, raw_write
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.runs import run


@pytest.fixture(name="etc", autouse=True)
def fixture_etc(tmp_path, monkeypatch):
    """A configuration of the guest "web" without disks."""
    for module, name in ((config_file, ""), (recipe_file, "recipes"), (state, "hotplug")):
        monkeypatch.setattr(module, "DIRECTORY", str(tmp_path / "etc" / name))
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "web.cfg").write_bytes(b"name = 'web'\ndisk = [\n]\n")


def test_another_disk_than_the_source_is_not_detached(host):
    """Its mode is another one, too."""
    options = {"domain": "web", "vdev": "xvdb", "source": {"file": host.image("mine")}, "timeout": 5}
    assert run(xl_disk.main, options)["changed"]
    other = host.image("other.iso")
    assert host.vbd(other, mode="r")["changed"]
    for check in (True, False):
        failed = run(xl_disk.main, dict(options, state="absent", live=True), check=check)
        assert failed.get("failed") and "leave source out" in failed["msg"], failed
    assert host.backend.has(XVDB)
    host.vbd(other, mode="r", state="detached")


def test_the_guest_of_a_name_runs(host):
    """A name can have other letters than ASCII, or be the id of another guest."""
    for number, name in ((6, "müller".encode()), (7, b"5")):
        raw_write(host.store, f"/local/domain/{number}/name", name)
        host.store.write(f"/local/domain/{number}/vm", f"/vm/0000000{number}-1111-2222-3333-444444444444")
    found = [running_disk.find_guest(host.store, name) for name in ("web", "müller", "5", "möller")]
    assert [guest and guest.domid for guest in found] == [5, 6, 7, None]
    raw_write(host.store, "/local/domain/7/name", "müller".encode())
    with pytest.raises(GuestError, match="several guests have this name, with the ids 6, 7"):
        running_disk.find_guest(host.store, "müller")


def test_a_read_only_source_is_removed_without_its_mode(host):
    source = {"file": host.image("disk.iso"), "read_only": True}
    options = {"domain": "web", "vdev": "xvdb", "source": source}
    assert run(xl_disk.main, dict(options, mode="r"))["changed"]
    assert run(xl_disk.main, dict(options, state="absent"))["changed"]


# The old disk comes back


class Xl:
    """
    xl with Xen's own hotplug script, which opens whatever a path leads to; both are played. It fails to
    attach disks of recipes: ``meanwhile`` is called then. ``late``: called when it attaches another disk.
    """

    def __init__(self, store):
        self.store = store
        self.meanwhile = self.late = lambda: None
        # The loop devices that the script has made.
        self.loops = []

    def attach(self, domid, text, title, seconds):
        says = disk_text.parse(text)
        if says.recipe is not None:
            self.meanwhile()
            raise GuestError("xl block-attach failed")
        self.late()
        with Store(5) as store:
            self.attach_to(store, domid, says)

    def attach_to(self, store, domid, says):
        path = os.path.realpath(says.target)
        if not path.startswith("/dev/loop"):
            fd, number = loopdevices.bind_free(path, loopdevices.AUTOCLEAR)
            self.loops.append(fd)
            path = f"/dev/loop{number}"
        number = os.stat(path).st_rdev
        text = f"{os.major(number):x}:{os.minor(number):x}"
        identity = [("physical-device-path", path), ("physical-device", text)]
        disk = vbd_nodes.Disk("xvdb", says.target, says.access == "w")
        store.lay(vbd_nodes.layout(Key(domid, XVDB), disk, identity))

    def detach(self, domid, devid, title, seconds):
        key = Key(domid, devid)
        with Store(5) as store:
            for path in (key.backend, key.frontend, key.libxl):
                store.remove(path)


@pytest.fixture(name="xl")
def fixture_xl(host, monkeypatch):
    played = Xl(host.store)
    monkeypatch.setattr(xl_command, "attach", played.attach)
    monkeypatch.setattr(xl_command, "detach", played.detach)
    yield played
    played.detach(5, XVDB, "", 1)
    wait(lambda: not host.backend.has(XVDB))
    for fd in played.loops:
        os.close(fd)


class Seals:
    """Seals, which need a kernel with BPF: here they are lines of a file, for modules in other processes."""

    def __init__(self, path):
        self.path = path
        self.path.touch()

    def seal(self, major, minor, diskseq, reason):
        with open(self.path, "a", encoding="ascii") as file:
            file.write(f"{diskseq} {reason}\n")

    def reasons_of(self, major, minor, diskseq):
        lines = [line.split(" ", 1) for line in self.path.read_text().splitlines()]
        return [reason for number, reason in lines if number == str(diskseq)]

    def are_sealed_below(self, major, minor, diskseq, reason):
        return []

    def lift_below(self, major, minor, diskseq, reason):
        pass

    def reap(self):
        pass

    def probe(self):
        pass


@pytest.fixture(name="seals")
def fixture_seals(tmp_path, monkeypatch):
    seals = Seals(tmp_path / "seals")
    monkeypatch.setattr(sealing, "seals", seals)
    monkeypatch.setattr(sealing, "place", types.SimpleNamespace(in_use=lambda: True))
    return seals


def wait(is_so):
    for dummy in range(1000):
        if is_so():
            return
        time.sleep(0.005)
    raise AssertionError("it did not happen")


def diskseq_of(store):
    number = vbd_nodes.parse_number(store.read(f"{Key(5, XVDB).backend}/physical-device"))
    with _device.open_number(*number) as device:
        return device.id.diskseq


def attached(host, xl, target):
    """The guest has a disk that xl attached."""
    xl.attach_to(host.store, 5, disk_text.parse(f"vdev=xvdb,access=w,target={target}"))
    wait(lambda: host.backend.has(XVDB))


def replace(host, **options):
    options = {"domain": "web", "vdev": "xvdb", "live": True, "replace": True, "timeout": 5, **options}
    return run(xl_disk.main, dict(options, source={"file": host.image("new")}))


@pytest.fixture(name="link")
def fixture_link(host, tmp_path):
    """The path of a loop device over the file "old", and a function that leads it to one over "other"."""
    loops = [loopdevices.bind_free(host.image(name)) for name in ("old", "other")]
    link = tmp_path / "data"
    link.symlink_to(f"/dev/loop{loops[0][1]}")

    def turn():
        link.unlink()
        link.symlink_to(f"/dev/loop{loops[1][1]}")

    yield link, turn
    for fd, dummy in loops:
        os.close(fd)


def check_has_again(host, result):
    assert result["failed"] and not result["changed"], result
    assert "xl block-attach failed" in result["msg"] and "The guest has its old disk" in result["msg"]
    assert os.path.basename(host.backend.has(XVDB)) == "old"


def check_has_none(host, result):
    assert result["failed"] and result["changed"], result
    assert "the guest has no disk xvdb now: its old disk" in str(result["warnings"]), result
    assert "could not be attached again" in str(result["warnings"])
    assert host.backend.has(XVDB) is None


def test_the_old_disk_comes_back_with_its_seal(host, xl, link, seals):
    attached(host, xl, link[0])
    seals.seal(7, 0, diskseq_of(host.store), "vbd 5 51728")
    xl.meanwhile = lambda: seals.path.write_text("")
    check_has_again(host, replace(host))
    assert seals.reasons_of(7, 0, diskseq_of(host.store)) == ["vbd 5 51728"]


def test_the_path_of_the_old_disk_leads_elsewhere(host, xl, link):
    """The guest does not get that one."""
    path, xl.meanwhile = link
    attached(host, xl, path)
    result = replace(host)
    check_has_none(host, result)
    assert "it leads to /dev/loop" in str(result["warnings"])
    assert [os.path.basename(path) for path in host.backend.opened] == ["old"]


def test_the_path_of_the_old_disk_leads_elsewhere_while_xl_attaches_it(host, xl, link):
    """The guest loses that one again."""
    path, xl.late = link
    attached(host, xl, path)
    result = replace(host)
    check_has_none(host, result)
    assert "the guest has another disk there: /dev/loop" in str(result["warnings"])


@pytest.mark.parametrize("is_other", [False, True])
def test_the_script_makes_the_old_device_anew(host, xl, seals, is_other):
    """It is the same disk only if the path still leads to the same file."""
    path = host.image("old")
    attached(host, xl, path)
    before = diskseq_of(host.store)
    seals.seal(7, 0, before, "vbd 5 51728")
    if is_other:
        xl.meanwhile = lambda: os.rename(host.image("other"), path)
        check_has_none(host, replace(host))
        return
    check_has_again(host, replace(host))
    now = diskseq_of(host.store)
    assert now != before and seals.reasons_of(7, 0, now) == ["vbd 5 51728"]
