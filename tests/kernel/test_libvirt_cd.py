# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
CD drives of guests of QEMU: empty, a medium is inserted, replaced and ejected, and QEMU reads the right bytes
of it.
"""

from __future__ import annotations

import uuid

import pytest
import qemuhost
from ansible_collections.racefree.block.plugins.module_utils._base.errors import GuestError
from ansible_collections.racefree.block.plugins.module_utils._libvirt import domain_xml
from ansible_collections.racefree.block.plugins.module_utils._libvirt.cd_drive import CdDrive
from conftest import Failed, predict_and_run, refused, run_module
from qemuhost import URI, defined, definition, nothing_left, ours, virsh, wait_for

pytestmark = pytest.mark.qemu


@pytest.fixture(scope="module", autouse=True)
def installed():
    with qemuhost.hook():
        yield


@pytest.fixture(scope="module")
def running(installed):
    """A running guest without a system, with an empty CD drive."""
    name = "cd-" + uuid.uuid4().hex[:8]
    with defined(definition(name)) as domain:
        change(domain, state="empty")
        virsh("start", name)
        yield name
        virsh("destroy", name)
    assert nothing_left()


@pytest.fixture
def guest(running):
    """The same, whose drive is empty again at the end."""
    yield running
    run_module("libvirt_disk", **options(running, state="empty", live=True))
    assert ours() == []


@pytest.fixture
def cd(image):
    """A function that makes an image that begins with a word; ``(path, word)``."""

    def make(word):
        return image(f"{word}.iso", content=word.encode().ljust(2048, b"."))

    return make


def options(name, path=None, **more):
    source = {} if path is None else {"source": {"file": path}}
    return {"domain": name, "vdev": "hdc", "uri": URI, "device_type": "cdrom", "mode": "r", **source, **more}


def change(name, **more):
    return predict_and_run("libvirt_disk", **options(name, **more))


def medium(name):
    """The word with which the only block device begins that QEMU has open; None if it has none."""
    for path in qemuhost.open_disks(name):
        with open(path, "rb") as file:
            return file.read(16).decode().strip(".")
    assert qemuhost.opened(name) == set()
    return None


def recipes(name, *flags):
    return domain_xml.Domain(virsh("dumpxml", name, *flags)).recipes()


def test_the_life_of_a_drive(guest, cd):
    one, other = cd("one"), cd("other")
    assert medium(guest) is None and recipes(guest) == {}
    assert not run_module("libvirt_disk", **options(guest, state="empty", live=True))["changed"]
    done = change(guest, path=one, live=True)
    assert medium(guest) == "one" and len(ours()) == 1 and done["device"]["read_only"]
    assert recipes(guest) == recipes(guest, "--inactive") and one in recipes(guest)["hdc"]
    refused(
        "libvirt_disk",
        "the drive has another medium",
        "replace=true",
        **options(guest, path=other, live=True),
    )
    old = done["device"]["diskseq"]
    there = run_module("libvirt_disk", **options(guest, path=one, live=True))
    assert not there["changed"] and there["device"] == done["device"] and there["replaced"] is None
    planned = run_module("libvirt_disk", check=True, **options(guest, path=other, live=True, replace=True))
    assert planned["device"] is None and planned["replaced"] is None
    done = change(guest, path=other, live=True, replace=True)
    assert done["device"]["diskseq"] != old == done["replaced"]["diskseq"]
    assert (done["replaced"]["mode"], done["replaced"]["device_type"]) == ("r", "cdrom")
    assert done["replaced"]["params"] == done["disk"]["path"]
    assert medium(guest) == "other" and len(ours()) == 1 and other in recipes(guest)["hdc"]
    done = change(guest, state="empty", live=True)
    assert medium(guest) is None and not ours() and recipes(guest) == recipes(guest, "--inactive") == {}
    assert done["disk"]["path"] is None


@pytest.mark.parametrize("fails", ["_prove", pytest.param("_insert", marks=pytest.mark.slow)])
def test_a_medium_that_fails(guest, cd, monkeypatch, fails):
    """The drive has its old medium again, with its recipe."""
    one = cd("one")
    run_module("libvirt_disk", **options(guest, path=one, live=True))
    before, left = (recipes(guest), recipes(guest, "--inactive")), [1]
    original = getattr(CdDrive, fails)

    def once(drive, *arguments):
        if left:
            left.pop()
            raise GuestError("as if QEMU had something else")
        return original(drive, *arguments)

    monkeypatch.setattr(CdDrive, fails, once)
    with pytest.raises(Failed, match="as if QEMU.*The drive has its old medium again") as caught:
        run_module("libvirt_disk", **options(guest, path=cd("other"), live=True, replace=True))
    assert not caught.value.result["changed"]
    assert medium(guest) == "one" and len(ours()) == 1
    assert (recipes(guest), recipes(guest, "--inactive")) == before
    assert not run_module("libvirt_disk", **options(guest, path=one, live=True))["changed"]


def theirs_stays(name, path):
    """Whether the drive has what somebody else has inserted, and nothing of the collection is left."""
    listed = domain_xml.Domain(virsh("dumpxml", name)).disk("hdc")
    # A recipe for another medium would keep a saved guest from being restored.
    return listed.source == path and recipes(name) == {} and wait_for(lambda: not ours())


@pytest.mark.rotated
@pytest.mark.parametrize("wanted", ["eject", pytest.param("insert", marks=pytest.mark.slow), "recipe"])
def test_somebody_changes_the_medium_after_the_plan(guest, cd, monkeypatch, wanted):
    one, theirs, change_it = cd("one"), cd("theirs"), CdDrive.change
    run_module("libvirt_disk", **options(guest, path=one, live=True, config=wanted != "recipe"))
    assert bool(recipes(guest)) and medium(guest) == "one"

    def changed(drive):
        if wanted == "recipe":
            # The plan has found the wanted medium, and only its recipe is to be written.
            assert not drive.changes_medium
        virsh("change-media", guest, "hdc", theirs, "--update", "--live")
        change_it(drive)

    monkeypatch.setattr(CdDrive, "change", changed)
    more = {
        "eject": {"state": "empty"},
        "insert": {"path": cd("other"), "replace": True},
        "recipe": {"path": one, "config": True},
    }[wanted]
    if wanted == "recipe":
        monkeypatch.setattr(CdDrive, "changes", property(lambda drive: True))
    had = recipes(guest)
    words = f"the drive has {theirs} .* instead of /dev/mapper/racefree-.*somebody else"
    with pytest.raises(Failed, match=words) as caught:
        run_module("libvirt_disk", **options(guest, live=True, **more))
    assert not caught.value.result["changed"] and recipes(guest) == had
    assert domain_xml.Domain(virsh("dumpxml", guest)).disk("hdc").source == theirs


@pytest.mark.rotated
@pytest.mark.parametrize("moment", ["ejected", "inserted"])
def test_somebody_inserts_a_medium_meanwhile(guest, cd, monkeypatch, moment):
    """It stays, and the failed task takes its own device and recipe away."""
    theirs, update = cd("theirs"), CdDrive._update
    run_module("libvirt_disk", **options(guest, path=cd("one"), live=True))

    def updated(drive, path):
        update(drive, path)
        if (path is None) == (moment == "ejected"):
            monkeypatch.setattr(CdDrive, "_update", update)
            virsh("change-media", guest, "hdc", theirs, "--update", "--live")

    monkeypatch.setattr(CdDrive, "_update", updated)
    words = f"the drive has {theirs} .* instead of {'no medium' if moment == 'ejected' else '/dev/mapper/'}"
    with pytest.raises(Failed, match=words) as caught:
        run_module("libvirt_disk", **options(guest, path=cd("other"), live=True, replace=True))
    assert "could not be given back what it had" in caught.value.result["error"]["hint"]
    assert theirs_stays(guest, theirs)


@pytest.mark.rotated
def test_a_new_medium_at_the_same_path(guest, cd):
    """libvirt still lists the path of the drive's media, where QEMU has another device."""
    one = cd("one")
    run_module("libvirt_disk", **options(guest, path=one, live=True))
    (name,) = ours()
    with open("/dev/mapper/" + name, "rb"):
        # Held, so the device stays when it is ejected, and gets out of the way of another one.
        virsh("change-media", guest, "hdc", "--eject", "--live")
        qemuhost.run("dmsetup", "rename", name, name + "-old")
        qemuhost.run("dmsetup", "create", name, "--readonly", "--table", "0 8 zero")
        virsh("change-media", guest, "hdc", "/dev/mapper/" + name, "--insert", "--block", "--live")
        qemuhost.run("dmsetup", "rename", name, name + "-new")
        qemuhost.run("dmsetup", "rename", name + "-old", name)
        refused(
            "libvirt_disk",
            "the drive has another medium",
            "replace=true",
            **options(guest, path=one, live=True),
        )
    assert wait_for(lambda: not qemuhost.run("losetup", "-a"))
    change(guest, path=one, live=True, replace=True)
    assert medium(guest) == "one"
    qemuhost.run("dmsetup", "remove", "--retry", name + "-new")


def test_another_entry_fails(guest, cd):
    """A medium that was inserted is ejected again, and one that was ejected is inserted again."""
    one = cd("one")
    bad = {"domain": "nobody", "vdev": "hdc", "uri": URI, "state": "absent"}
    for wanted, has in (({"path": one, "live": True}, None), ({"state": "empty", "live": True}, "one")):
        if has:
            run_module("libvirt_disk", **options(guest, path=one, live=True))
        with pytest.raises(Failed, match="nobody"):
            run_module("libvirt_disks", disks=[options(guest, **wanted), bad])
        assert medium(guest) == has and len(ours()) == bool(has)


def test_wrong_use(guest, image):
    path = image()
    live = {"live": True, "config": False}
    for words, wanted in (
        ("is possible only with device_type=cdrom", {"state": "empty", "device_type": "disk", "mode": "w"}),
        ("must not be given with state=empty", {"state": "empty", "path": path}),
        ("state=empty ejects its medium", {"state": "absent", **live}),
        ("QEMU cannot add one now", {"vdev": "hdd", "path": path, **live}),
        (
            "a cdrom there, which QEMU cannot take",
            {"device_type": "disk", "path": path, "replace": True, **live},
        ),
        (
            "disks on the bus sata while the guest",
            {"device_type": "disk", "path": path, "bus": "sata", "vdev": "sdb", **live},
        ),
        (
            "disks on the bus ide while the guest",
            {"device_type": "disk", "path": path, "vdev": "hdb", **live},
        ),
        ("must be r: a cdrom is read-only", {"mode": "w", "path": path, **live}),
        ("blkback has no empty CD drives", {"state": "empty", "uri": "xen:///system", **live}),
    ):
        refused("libvirt_disk", words, **options(guest, **wanted))
    assert medium(guest) is None
