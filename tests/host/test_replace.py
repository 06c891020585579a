# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
``replace: true`` of xen_vbd and libvirt_disk: real guests release a disk and get another one. Refusals are in
the unit tests.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import GuestError
from ansible_collections.racefree.block.plugins.module_utils._block.seal import seals
from ansible_collections.racefree.block.plugins.module_utils._libvirt import attach, domain_xml, write_disks
from ansible_collections.racefree.block.plugins.module_utils._xen import blkback
from ansible_collections.racefree.block.plugins.module_utils._xenstore import session
from conftest import Failed, predict_and_run, run_module, wait_until
from libvirthost import defined, in_guest, ours, run, virsh
from sealing import is_refused

pytestmark = [pytest.mark.xen]

GUEST = "replacing"
MIB = 2**20


@pytest.fixture(scope="module")
def guest():
    run("xenguest", "stop", GUEST, check=False)
    run("xenguest", "start", GUEST, "--memory", "128")
    yield GUEST
    run("xenguest", "stop", GUEST)


@pytest.fixture
def raw(tmp_path):
    """A function that makes a file that begins with its name."""

    def make(name, size=MIB):
        path = tmp_path / (name or "empty")
        with open(path, "wb") as file:
            file.write(name.encode().ljust(16, b".") if name else b"")
            file.truncate(size)
        return str(path)

    return make


@pytest.fixture(autouse=True)
def nothing_left(request):
    """Detaches xvdb, and waits until no device is left."""
    yield
    if "guest" in request.fixturenames:
        run_module("xen_vbd", domain=GUEST, vdev="xvdb", state="detached", force=True)
    wait_until(lambda: run_module("device_info", features=False)["devices"] == [], 20)
    assert not seals.found()


def begins(vdev="xvdb", name=GUEST):
    """The text with which the guest's disk begins, as the guest reads it."""
    return in_guest(name, f"dd if=/dev/{vdev} bs=16 count=1 2>/dev/null").rstrip(".")


def vbd(file, **options):
    wanted = {"domain": GUEST, "vdev": "xvdb", "source": {"file": file}, "persist": False, "timeout": 60}
    return {**wanted, "wait_connected": True, **options}


def snapshot_of(golden, cow):
    return [
        {
            "start": 0,
            "length": MIB // 512,
            "target": "snapshot",
            "origin": {"file": golden, "read_only": True},
            "cow": {"file": cow},
            "persistence": "P",
            "chunk_size": 8,
        }
    ]


@pytest.mark.gate("bookworm")
def test_a_guest_gets_another_disk(guest, raw):
    """A file, a snapshot of another, and back: always the right bytes."""
    old, golden, cow = raw("old"), raw("golden"), raw("", 2 * MIB)
    first = run_module("xen_vbd", **vbd(old))
    in_guest(guest, "echo written | dd of=/dev/xvdb seek=1 bs=512 conv=notrunc,fsync 2>/dev/null")
    table = snapshot_of(golden, cow)
    done = predict_and_run("xen_vbd", **vbd(old, source={"table": table}, replace=True))
    assert done["replaced"]["diskseq"] == first["device"]["diskseq"]
    assert begins() == "golden" and "51728" in run("xl", "block-list", guest)
    with open(old, "rb") as file:
        assert file.read(520)[512:519] == b"written"
    # With another mode, and as a CD.
    done = run_module("xen_vbd", **vbd(old, replace=True, mode="r", device_type="cdrom"))
    assert begins() == "old" and done["vbd"]["device_type"] == "cdrom"
    assert in_guest(guest, "cat /sys/block/xvdb/ro") == "1"


@pytest.mark.gate("bookworm")
def test_a_new_disk_that_blkback_refuses(guest, raw):
    """A released blkback does not understand this form of the number. The guest has its old disk again."""
    old = raw("old")
    run_module("xen_vbd", **vbd(old))
    with pytest.raises(Failed, match="rejected .* The guest has its old disk .* again") as caught:
        run_module("xen_vbd", **vbd(raw("new"), replace=True, diskseq_form="diskseq@number"))
    assert not caught.value.result["changed"]
    wait_until(lambda: begins() == "old", 30)
    assert not run_module("xen_vbd", **vbd(old))["changed"]


@pytest.mark.rotated
@pytest.mark.gate("bookworm")
def test_a_guest_that_does_not_answer_keeps_its_disk(guest, raw):
    """Nothing is changed, and the disk works when the guest runs again."""
    old, new = raw("old"), raw("new")
    before = run_module("xen_vbd", **vbd(old))["vbd"]
    run("xenguest", "pause", guest)
    try:
        with pytest.raises(Failed, match="It still has the disk, and nothing was changed") as caught:
            run_module("xen_vbd", **vbd(new, replace=True, timeout=8))
        assert not caught.value.result["changed"]
    finally:
        run("xenguest", "unpause", guest)
    assert begins() == "old"
    again = run_module("xen_vbd", **vbd(old))
    assert not again["changed"] and again["vbd"] == before
    in_guest(guest, "echo written | dd of=/dev/xvdb seek=1 bs=512 conv=notrunc,fsync 2>/dev/null")
    assert run_module("xen_vbd", **vbd(new, replace=True))["changed"] and begins() == "new"


@pytest.mark.long
def test_a_mounted_disk_is_released(guest, raw):
    """What docs/replacing-disks.md says of current versions of Linux. If this fails, they have changed."""
    old = raw("old", 8 * MIB)
    subprocess.run(["mkfs.ext4", "-q", old], check=True)
    run_module("xen_vbd", **vbd(old))
    in_guest(guest, "mkdir -p /m && mount -t ext4 /dev/xvdb /m")
    try:
        assert run_module("xen_vbd", **vbd(raw("new"), replace=True))["changed"]
    finally:
        in_guest(guest, "umount /m; true")
    assert begins() == "new"


@pytest.mark.long
def test_a_sealed_disk(guest, raw):
    """The new disk is sealed as the old one was; when it fails, the old one is sealed again."""
    old, new = raw("old"), raw("new")
    run_module("xen_vbd", **vbd(old, sealed=True))
    with pytest.raises(Failed, match="rejected"):
        run_module("xen_vbd", **vbd(new, replace=True, diskseq_form="diskseq@number"))
    again = run_module("xen_vbd", **vbd(old))
    assert again["vbd"]["sealed"] and is_refused(again["device"]["path"])
    done = predict_and_run("xen_vbd", **vbd(new, replace=True))
    assert done["vbd"]["sealed"] and is_refused(done["device"]["path"])
    assert len(seals.found()) == 1 and begins() == "new"
    done = run_module("xen_vbd", **vbd(old, replace=True, sealed=False))
    assert not done["vbd"]["sealed"] and not seals.found()


@pytest.mark.long
@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_at_each_change_of_xenstore(guest, raw, moment, monkeypatch):
    """The next run converges, whatever the killed one had done, and nothing is left."""
    monkeypatch.setattr(blkback, "_KEPT", 0)
    paths = [raw("a"), raw("b")]
    run_module("xen_vbd", **vbd(paths[0]))
    killed = 0
    for number in range(4):
        wanted = paths[1 - number % 2]
        killed += is_killed(number, moment, vbd(wanted, replace=True, timeout=10))
        done = run_module("xen_vbd", **vbd(wanted, replace=True))
        assert begins() == os.path.basename(wanted) and done["vbd"]["connected"]
    assert killed >= 3
    wait_until(lambda: len(run_module("device_info", features=False)["devices"]) == 1, 20)


def is_killed(number, moment, arguments):
    """Run xen_vbd in a process that is killed at this transaction; whether it came to that."""
    child = os.fork()
    if not child:
        original, left = session.Session._try_transaction, [number]

        def transaction(store, function):
            if moment == "before" and not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(store, function)
            if moment == "after" and not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return result

        session.Session._try_transaction = transaction
        code = 2
        try:
            run_module("xen_vbd", **arguments)
            code = 0
        except Failed as failure:
            code = 1 if "was killed" in str(failure) else 2
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code != 2
    return code != 0


def recipes(name, *flags):
    return domain_xml.Domain(virsh("dumpxml", name, *flags)).recipes()


@pytest.mark.rotated
@pytest.mark.gate("bookworm")
def test_a_guest_of_libvirt(tmp_path, raw):
    """The running guest, its recipe and its definition change together, or none of them does."""
    old, new = raw("old"), raw("new")
    with defined(tmp_path, "lvreplace") as name:
        virsh("start", name)
        in_guest(name, "true")
        arguments = {"domain": name, "vdev": "xvdb", "source": {"file": old}, "live": True, "timeout": 120}
        run_module("libvirt_disk", **arguments)
        with pytest.raises(Failed, match="another disk there.*replace=true"):
            run_module("libvirt_disk", **{**arguments, "source": {"file": new}})
        arguments.update(source={"file": new}, replace=True)
        done = predict_and_run("libvirt_disk", **arguments)
        assert done["replaced"]["params"] == done["disk"]["path"] and begins(name=name) == "new"
        assert new in recipes(name)["xvdb"] and recipes(name) == recipes(name, "--inactive")
        assert len(ours()) == 1 and virsh("domblklist", name).split().count("xvdb") == 1


@pytest.mark.long
def test_a_guest_of_libvirt_that_keeps_its_disk(tmp_path, raw):
    """It does not answer; libvirt cannot attach the new disk; and the definition cannot be changed."""
    old, new = raw("old"), raw("new")
    with defined(tmp_path, "lvreplace") as name:
        virsh("start", name)
        in_guest(name, "true")
        arguments = {"domain": name, "vdev": "xvdb", "source": {"file": old}, "live": True, "timeout": 120}
        run_module("libvirt_disk", **arguments)
        before = virsh("dumpxml", name), virsh("dumpxml", name, "--inactive")
        wanted = {**arguments, "source": {"file": new}, "replace": True}
        virsh("suspend", name)
        with pytest.raises(Failed, match="It still has the disk, and nothing was changed"):
            run_module("libvirt_disk", **{**wanted, "timeout": 15})
        virsh("resume", name)
        assert begins(name=name) == "old"
        assert (virsh("dumpxml", name), virsh("dumpxml", name, "--inactive")) == before
        for broken in ("attach", "write"):
            with break_libvirt(broken), pytest.raises(Failed, match="as if libvirt refused") as caught:
                run_module("libvirt_disk", **wanted)
            assert "again" in str(caught.value.result)
            assert begins(name=name) == "old"
            assert recipes(name) == recipes(name, "--inactive") and old in recipes(name)["xvdb"]
            assert not run_module("libvirt_disk", **arguments)["changed"]


@contextlib.contextmanager
def break_libvirt(which):
    """Let the next new disk, or the next definition, be refused."""
    left = [1]

    def once(function):
        def call(*arguments, **options):
            if left:
                left.pop()
                raise GuestError("as if libvirt refused")
            return function(*arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        if which == "attach":
            patch.setattr(attach, "_proven", once(attach._proven))
        else:
            patch.setattr(write_disks, "write", once(write_disks.write))
        yield
