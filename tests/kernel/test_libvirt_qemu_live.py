# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Disks of running guests of QEMU: attached, grown, detached, and refused."""

from __future__ import annotations

import contextlib
import json
import os
import uuid

import libvirt
import pytest
import qemuhost
from ansible_collections.racefree.block.plugins.module_utils._libvirt import domain_xml, running_qemu
from conftest import Failed, predict_and_run, refused, run_module
from qemuhost import URI, defined, definition, ours, virsh, wait_for

pytestmark = pytest.mark.qemu
MIB = 2**20


@pytest.fixture(scope="module", autouse=True)
def libvirtd():
    qemuhost.start_daemon()


@contextlib.contextmanager
def running(tmp_path, image):
    """A running guest that has booted from a disk without a recipe; ``(its UUID, its name)``."""
    name, serial, word = "ql-" + uuid.uuid4().hex[:8], tmp_path / "serial", uuid.uuid4().hex.encode()
    boot = image("boot.raw", content=qemuhost.boot_sector(tmp_path) + word.ljust(512, b"\0"))
    disk = (
        f"<disk type='file'><driver name='qemu' type='raw'/><source file='{boot}'/>"
        "<target dev='vda' bus='virtio'/></disk>"
    )
    with defined(definition(name, devices=disk, serial=serial, acpi=True)) as domain:
        virsh("start", domain)
        assert wait_for(lambda: serial.exists() and word + b" written" in serial.read_bytes())
        yield domain, name
    assert wait_for(lambda: not ours())


def live(domain):
    return domain_xml.Domain(virsh("dumpxml", domain))


def told(domain, vdev):
    """The size in bytes that QEMU has told the guest."""
    connection = libvirt.open(URI)
    try:
        return connection.lookupByUUIDString(domain).blockInfo(vdev)[0]
    finally:
        connection.close()


def number_of(device):
    return {(device["major"], device["minor"])}


def test_attached_grown_and_detached(tmp_path, image):
    """Check mode predicts each step, and a second run changes nothing."""
    path = image("data.raw")
    with running(tmp_path, image) as (domain, name):
        arguments = {"domain": domain, "vdev": "vdb", "source": {"file": path}, "uri": URI, "live": True}
        done = predict_and_run("libvirt_disk", **arguments)
        assert qemuhost.opened(name) == number_of(done["device"]) and done["device"]["size"] == 16 * MIB
        recipe = {"file": path, "format": "raw"}
        for text in (live(domain), domain_xml.Domain(virsh("dumpxml", "--inactive", domain))):
            assert json.loads(text.recipes()["vdb"]) == recipe
            assert text.disk("vdb").source == f"/dev/mapper/racefree-{domain}-vdb"
        assert told(domain, "vdb") == 16 * MIB

        grown = predict_and_run("libvirt_disk", **dict(arguments, size="24MiB"))
        assert grown["device"]["size"] == told(domain, "vdb") == 24 * MIB == os.path.getsize(path)
        os.truncate(path, 32 * MIB)
        assert predict_and_run("libvirt_disk", **arguments)["changed"] and told(domain, "vdb") == 32 * MIB
        assert qemuhost.opened(name) == number_of(done["device"])

        another = arguments | {"source": {"file": image("x")}}
        refused("libvirt_disk", "the guest has another disk there", "replace=true", **another)
        refused("libvirt_disk", "with mode=w, not r", **dict(arguments, mode="r"))
        refused(
            "libvirt_disk",
            "It is not the source that was given",
            **(another | {"state": "absent", "config": False}),
        )
        # Another guest, or a second disk of this one, cannot write the same file.
        refused_too = {**arguments, "vdev": "vdc", "config": False}
        with pytest.raises(Failed, match="in use as the disk vdb of the domain"):
            run_module("libvirt_disk", **refused_too)
        assert live(domain).disk("vdc") is None and sorted(live(domain).recipes()) == ["vdb"]

        assert predict_and_run("libvirt_disk", **dict(arguments, state="absent"))["changed"]
        assert live(domain).disk("vdb") is None and not live(domain).recipes()
        assert qemuhost.opened(name) == set() and wait_for(lambda: not ours())


def test_what_a_guest_has_from_a_plain_definition_is_refused(tmp_path, image):
    """QEMU has the file open; its definition has no recipe."""
    with running(tmp_path, image) as (domain, name):
        with pytest.raises(Failed, match=f"is open in QEMU for {name}"):
            run_module(
                "libvirt_disk",
                domain=domain,
                vdev="vdb",
                source={"file": str(tmp_path / "boot.raw")},
                uri=URI,
                live=True,
                config=False,
            )
        assert live(domain).disk("vdb") is None and not live(domain).recipes()


def test_libvirt_attaches_another_device(tmp_path, image, cleanup, monkeypatch):
    """As if the path had led elsewhere for a moment: this is seen, and rolled back."""
    other = image("other.raw")
    cleanup(loop=other)
    wrong = run_module("loop_device", backing_file=other)["device"]["path"]
    right = running_qemu.RunningQemuDisk._element
    monkeypatch.setattr(
        running_qemu.RunningQemuDisk,
        "_element",
        lambda self: right(self).replace(self._spec().path, wrong),
    )
    with running(tmp_path, image) as (domain, name):
        with pytest.raises(Failed, match="QEMU has nothing at /dev/mapper/racefree-"):
            run_module(
                "libvirt_disk", domain=domain, vdev="vdb", source={"file": image("a")}, uri=URI, live=True
            )
        assert live(domain).disk("vdb") is None and not live(domain).recipes()
        assert qemuhost.opened(name) == set() and "vdb" not in virsh("dumpxml", "--inactive", domain)


@pytest.mark.slow
def test_a_guest_that_does_not_release_its_disk(tmp_path, image):
    """It keeps the disk with its recipe, and the definition stays. It may release the disk later."""
    with running(tmp_path, image) as (domain, name):
        arguments = {
            "domain": domain,
            "vdev": "vdb",
            "source": {"file": image("a")},
            "uri": URI,
            "live": True,
        }
        device = run_module("libvirt_disk", **arguments)["device"]
        virsh("suspend", domain)
        with pytest.raises(Failed, match="waiting for the guest to release the disk"):
            run_module("libvirt_disk", **dict(arguments, state="absent", timeout=8))
        assert sorted(live(domain).recipes()) == ["vdb"] and qemuhost.opened(name) == number_of(device)
        assert "vdb" in virsh("dumpxml", "--inactive", domain)
        virsh("resume", domain)
        assert wait_for(lambda: live(domain).disk("vdb") is None)
        assert predict_and_run("libvirt_disk", **dict(arguments, state="absent"))["changed"]
        assert not live(domain).recipes()
