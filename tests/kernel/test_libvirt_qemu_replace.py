# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
``replace: true`` for disks of running guests of QEMU: the guest releases a disk and gets another one, or has
the old one again. The guest answers to ACPI; ``qemuhost.GUEST`` has its program.
"""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess

import libvirt
import pytest
import qemuhost
from ansible_collections.racefree.block.plugins.module_utils._base.errors import GuestError
from ansible_collections.racefree.block.plugins.module_utils._libvirt import domain_xml, write_disks
from ansible_collections.racefree.block.plugins.module_utils._libvirt.qemu_disk import QemuDisk
from ansible_collections.racefree.block.plugins.module_utils._libvirt.running_qemu import RunningQemuDisk
from conftest import Failed, predict_and_run, refused, run_module
from qemuhost import URI, ours, virsh, wait_for
from test_libvirt_qemu_live import live, running

pytestmark = pytest.mark.qemu


@pytest.fixture(scope="module", autouse=True)
def libvirtd():
    qemuhost.start_daemon()


@pytest.fixture
def raw(image):
    """A function that makes an image that begins with its name."""
    return lambda name: image(f"{name}.raw", content=name.encode().ljust(16, b"."))


@pytest.fixture
def guest(tmp_path, image):
    """The name of a running guest, whose first disk QEMU has open as a file."""
    with contextlib.ExitStack() as stack:
        yield stack.enter_context(running(tmp_path, image))[1]


def options(name, path=None, **more):
    source = {} if path is None else {"source": {"file": path}}
    return {"domain": name, "vdev": "vdb", "uri": URI, "live": True, **source, **more}


def run(name, path, **more):
    return run_module("libvirt_disk", **options(name, path, **more))


def begins(name):
    """The words with which the files and devices begin that QEMU has open, except for the first disk."""
    directory, words = f"/proc/{qemuhost.pid_of(name)}/fd", set()
    for fd in os.listdir(directory):
        there = os.stat(f"{directory}/{fd}")
        is_image = stat.S_ISREG(there.st_mode) and os.readlink(f"{directory}/{fd}").endswith(".raw")
        if is_image or stat.S_ISBLK(there.st_mode):
            with open(f"{directory}/{fd}", "rb") as file:
                words.add(file.read(16).rstrip(b"."))
    return {word.decode() for word in words if word.isalpha()}


def recipes(name, *flags):
    return domain_xml.Domain(virsh("dumpxml", name, *flags)).recipes()


def definitions(name):
    return virsh("dumpxml", name), virsh("dumpxml", name, "--inactive")


@contextlib.contextmanager
def failing(kind, name):
    """Let the next call of a method or function fail."""
    left, original = [1], getattr(kind, name)

    def once(*arguments, **more):
        if left:
            left.pop()
            raise GuestError("as if libvirt refused")
        return original(*arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, name, once)
        yield


def test_another_disk_and_the_old_one_again(guest, raw):
    """The recipe and the definition change with the disk, or come back with it."""
    old, new = raw("old"), raw("new")
    first = run(guest, old)
    done = predict_and_run("libvirt_disk", **options(guest, new, replace=True))
    assert begins(guest) == {"new"} and len(ours()) == 1
    assert recipes(guest) == recipes(guest, "--inactive") and new in recipes(guest)["vdb"]
    assert done["replaced"]["diskseq"] == first["device"]["diskseq"] and done["replaced"]["mode"] == "w"
    assert done["replaced"]["params"] == done["disk"]["path"]
    before = definitions(guest)
    with failing(RunningQemuDisk, "_prove"), pytest.raises(Failed, match="as if libvirt refused") as caught:
        run(guest, old, replace=True)
    assert "The guest has its old disk" in caught.value.result["error"]["hint"]
    assert not caught.value.result["changed"] and begins(guest) == {"new"} and len(ours()) == 1
    assert (recipes(guest), definitions(guest)[1]) == (domain_xml.Domain(before[0]).recipes(), before[1])


def test_libvirt_fails_after_the_guest_has_released_the_old_disk(guest, raw):
    old, new = raw("old"), raw("new")
    run(guest, old)
    with failing(QemuDisk, "_wait_for_job"), pytest.raises(Failed, match="as if libvirt refused") as caught:
        run(guest, new, replace=True)
    assert "The guest has its old disk" in caught.value.result["error"]["hint"]
    assert begins(guest) == {"old"} and old in recipes(guest)["vdb"] and len(ours()) == 1
    assert not run(guest, old)["changed"]


@pytest.mark.slow
def test_the_definition_cannot_be_changed(guest, raw):
    """The disk, its recipe and the definition are as before, also if another entry of a list fails."""
    old, new = raw("old"), raw("new")
    run(guest, old)
    before = definitions(guest)[1]
    with failing(write_disks, "write"), pytest.raises(Failed, match="as if libvirt refused"):
        run(guest, new, replace=True)
    assert begins(guest) == {"old"} and recipes(guest) == recipes(guest, "--inactive")
    bad = {"domain": guest, "vdev": "vdc", "uri": URI, "live": True, "source": {"file": raw("bad")}}
    with failing(QemuDisk, "attach"), pytest.raises(Failed) as caught:
        # The failing call is that of the first entry.
        run_module("libvirt_disks", disks=[bad, options(guest, new, replace=True)])
    assert "the guest has its old disk" in str(caught.value.result["warnings"])
    assert begins(guest) == {"old"} and definitions(guest)[1] == before and "vdc" not in recipes(guest)
    assert not run(guest, old)["changed"]


@pytest.mark.slow
def test_the_same_image_with_another_mode(guest, raw):
    path = raw("old")
    run(guest, path)
    done = predict_and_run("libvirt_disk", **options(guest, path, mode="r", replace=True))
    assert done["device"]["read_only"] and begins(guest) == {"old"} and len(ours()) == 1
    done = predict_and_run("libvirt_disk", **options(guest, path, replace=True))
    assert not done["device"]["read_only"] and done["replaced"]["mode"] == "r"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["file", "block"])
def test_a_plain_disk(guest, raw, cleanup, kind):
    """It was attached with other tools, and comes back by its path."""
    old, new = raw("old"), raw("new")
    path = old
    if kind == "block":
        cleanup(loop=old)
        path = run_module("loop_device", backing_file=old)["device"]["path"]
    attribute = "dev" if kind == "block" else "file"
    plug(guest, f"<disk type='{kind}'><driver name='qemu' type='raw'/><source {attribute}='{path}'/>")
    with failing(RunningQemuDisk, "_prove"), pytest.raises(Failed, match="The guest has its old disk"):
        run(guest, new, replace=True)
    assert begins(guest) == {"old"} and recipes(guest) == {} and live(guest).disk("vdb").source == path
    # A recipe of the same file takes the place of a file. A device of it is the same disk already.
    wanted = old if kind == "file" else new
    done = predict_and_run("libvirt_disk", **options(guest, wanted, replace=True))
    assert len(ours()) == 1 and done["replaced"]["params"] == path
    assert begins(guest) == {"old" if kind == "file" else "new"}


def plug(guest, start, target="<target dev='vdb' bus='virtio'/>"):
    """Attach a disk as other tools do."""
    handle = libvirt.open(URI)
    handle.lookupByName(guest).attachDeviceFlags(f"{start}{target}</disk>", libvirt.VIR_DOMAIN_AFFECT_LIVE)
    handle.close()


@pytest.mark.slow
def test_a_guest_that_does_not_answer(guest, raw):
    """It keeps its disk, and nothing is changed. What it was asked for stays pending, which is said."""
    old, new = raw("old"), raw("new")
    run(guest, old)
    before = definitions(guest)
    virsh("suspend", guest)
    with pytest.raises(Failed, match="waiting for the guest to release the disk") as caught:
        run(guest, new, replace=True, timeout=8)
    assert "may release it later" in str(caught.value.result)
    assert definitions(guest)[1] == before[1] and recipes(guest) == recipes(guest, "--inactive")
    assert begins(guest) == {"old"} and len(ours()) == 1
    # A second request, while the first one is pending.
    with pytest.raises(Failed, match="waiting for the guest to release the disk"):
        run(guest, new, replace=True, timeout=8)
    virsh("resume", guest)
    assert wait_for(lambda: live(guest).disk("vdb") is None)
    if libvirt.getVersion() < 10_000_000:
        with pytest.raises(Failed, match="Set live=false, and start the guest again"):
            run(guest, new, replace=True)
        assert begins(guest) == set() and not ours()
        return
    assert run(guest, new, replace=True)["changed"] and begins(guest) == {"new"}


@pytest.mark.slow
def test_a_process_of_a_killed_task_holds_the_old_device(guest, raw):
    """The new disk needs its name: the guest is not asked before that process has ended."""
    old, new = raw("old"), raw("new")
    path = run(guest, old)["device"]["path"]
    with open(path, "rb") as file, subprocess.Popen(["sleep", "120"], stdin=file) as process:
        try:
            with pytest.raises(Failed, match=f"is held by the process {process.pid}, .*Nothing was changed"):
                run(guest, new, replace=True, timeout=5)
        finally:
            process.kill()
    assert begins(guest) == {"old"} and not run(guest, old)["changed"]
    assert run(guest, new, replace=True)["changed"] and begins(guest) == {"new"}


@pytest.mark.slow
def test_a_disk_on_the_scsi_bus(guest, raw):
    """QEMU takes it at once: the guest is told, and not asked."""
    old, new = raw("old"), raw("new")
    run(guest, old, vdev="sdb")
    assert live(guest).disk("sdb").bus == "scsi"
    virsh("suspend", guest)
    assert run(guest, new, vdev="sdb", replace=True)["changed"] and begins(guest) == {"new"}
    assert live(guest).disk("sdb").bus == "scsi"


@pytest.mark.slow
def test_wrong_use(guest, raw, tmp_path):
    """Everything is refused before the guest is asked."""
    old, new = raw("old"), raw("new")
    run(guest, old)
    qcow2 = str(tmp_path / "plain.qcow2")
    qemuhost.run("qemu-img", "create", "-q", "-f", "qcow2", qcow2, "1M")
    plug(
        guest,
        f"<disk type='file'><driver name='qemu' type='qcow2'/><source file='{qcow2}'/>",
        "<target dev='vdc' bus='virtio'/>",
    )
    boot = str(tmp_path / "boot.raw")
    for words, wanted in (
        ("on the bus sata while the guest runs", {"path": new, "bus": "sata"}),
        ("on the bus ide while the guest runs", {"path": new, "vdev": "hdb"}),
        ("of the type file, format qcow2", {"path": new, "vdev": "vdc"}),
        ("is possible only with live=true", {"path": new, "live": False}),
        ("is not possible with state=absent", {"state": "absent"}),
        ("is possible only for Xen", {"path": new, "sealed": True}),
    ):
        refused("libvirt_disk", words, **options(guest, **{"replace": True, **wanted}))
    # Not in check mode: what others use is checked when the device is made.
    with pytest.raises(Failed, match=f"is open in QEMU for {guest}"):
        run(guest, boot, replace=True, config=False)
    assert begins(guest) == {"old"} and sorted(recipes(guest)) == ["vdb"]
