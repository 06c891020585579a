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
from ansible_collections.racefree.block.plugins.module_utils._base.errors import GuestError
from ansible_collections.racefree.block.plugins.module_utils._libvirt import (
    connection,
    disk_device,
    domain_xml,
    running_qemu,
    write_disks,
)
from conftest import Failed, predict_and_run, refused, run_module, udev_settle
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


def test_a_detached_disk_leaves_no_label_and_another_one_can_be_attached(tmp_path, image):
    """
    The device is removed with its last user. libvirt must still find it when it removes its label from the
    node in the guest's own /dev, or it refuses the next device with this number.
    """
    with running(tmp_path, image) as (domain, name):
        place = f"/proc/{qemuhost.pid_of(name)}/root/dev"
        numbers = []
        for turn in ("first", "second"):
            arguments = {"domain": domain, "vdev": "vdb", "uri": URI, "live": True, "config": False}
            done = run_module("libvirt_disk", source={"file": image(f"{turn}.raw")}, **arguments)
            numbers.append(number_of(done["device"]))
            assert qemuhost.opened(name) == numbers[-1]
            run_module("libvirt_disk", state="absent", **arguments)
            assert qemuhost.opened(name) == set() and wait_for(lambda: not ours())
            # libvirt may keep the nodes themselves.
            nodes = [f"{place}/{each}" for each in os.listdir(place) if each.startswith("dm-")]
            assert [os.listxattr(node) for node in nodes if os.listxattr(node)] == []
        assert numbers[0] == numbers[1]


def test_a_disk_with_another_mode_bus_or_use(tmp_path, image):
    """It is not changed on the way. A disk that is removed may have any."""
    with running(tmp_path, image) as (domain, name):
        arguments = {
            "domain": domain,
            "vdev": "vdb",
            "source": {"file": image("a")},
            "uri": URI,
            "live": True,
        }
        arguments["config"] = False
        run_module("libvirt_disk", mode="r", shared=True, **arguments)
        for options, words in (
            ({"mode": "r"}, "with shared=true, not false"),
            ({"mode": "r", "shared": True, "bus": "scsi"}, "with bus=virtio, not scsi"),
        ):
            refused("libvirt_disk", words, "set replace=true", **arguments, **options)
        assert not run_module("libvirt_disk", mode="r", shared=True, bus="virtio", **arguments)["changed"]
        assert predict_and_run("libvirt_disk", **arguments, state="absent")["changed"]
        assert live(domain).disk("vdb") is None


def test_a_guest_that_is_started_again_meanwhile(tmp_path, image, monkeypatch):
    """A domain has the same UUID in its next run, which must not get the disk, or lose one of its own."""
    with running(tmp_path, image) as (domain, name), contextlib.closing(libvirt.open(URI)) as link:
        arguments = {
            "domain": domain,
            "vdev": "vdb",
            "source": {"file": image("a")},
            "uri": URI,
            "live": True,
        }
        handle = link.lookupByUUIDString(domain)
        before, settle, look_up_run = handle.ID(), disk_device.settle, connection.look_up_run

        def restart(*words):
            virsh("destroy", domain)
            virsh("start", domain, *words)

        # Right before libvirt is asked. The paused guest would not release a disk.
        with monkeypatch.context() as patch:
            patch.setattr(disk_device, "settle", lambda *words: [settle(*words), restart("--paused")])
            with pytest.raises(Failed, match="was started again meanwhile"):
                run_module("libvirt_disk", **arguments)
        assert live(domain).disk("vdb") is None and not live(domain).recipes() and not ours()
        assert before == handle.ID() != link.lookupByUUIDString(domain).ID(), "a handle keeps its id"
        virsh("resume", domain)

        def late(linked, uuid, run, device):
            found = look_up_run(linked, uuid, run, device)
            if device == f"vdb of {domain}":
                patch.setattr(connection, "look_up_run", look_up_run)
                restart()
                assert wait_for(lambda: b" written" in (tmp_path / "serial").read_bytes())
            return found

        # After the last look.
        with monkeypatch.context() as patch:
            patch.setattr(connection, "look_up_run", late)
            with pytest.raises(Failed, match="QEMU has ended"):
                run_module("libvirt_disk", config=False, **arguments)
        assert live(domain).disk("vdb") is None and wait_for(lambda: not ours())


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


@pytest.fixture
def mounted(tmp_path, image, cleanup):
    """A loop device, of which a mapped device over the first MiBs is mounted; its path."""
    path, place = image("host.raw", 32 * MIB), tmp_path / "mounted"
    cleanup(loop=path)
    device = run_module("loop_device", backing_file=path)["device"]["path"]
    place.mkdir()
    try:
        qemuhost.run("dmsetup", "create", "hostlv", "--table", f"0 32768 linear {device} 0")
        qemuhost.run("mkfs.ext4", "-q", "-F", "/dev/mapper/hostlv")
        qemuhost.run("mount", "/dev/mapper/hostlv", str(place))
        yield device
    finally:
        qemuhost.run("umount", str(place), check=False)
        qemuhost.run("dmsetup", "remove", "--retry", "hostlv", check=False)


def test_what_the_host_uses_below_a_mapped_device_is_refused(tmp_path, image, mounted):
    """Directly, or below a table of the source. Other parts of the disk can be given to the guest."""
    with running(tmp_path, image) as (domain, name):
        arguments = {"domain": domain, "vdev": "vdb", "uri": URI, "live": True, "config": False}

        def table(start):
            line = {"start": 0, "length": 8192, "target": "linear", "device": {"path": mounted}}
            return {"table": [{**line, "offset": start}]}

        for source, mode in (
            ({"path": mounted}, "w"),
            ({"path": mounted}, "r"),
            ({"file": str(tmp_path / "host.raw")}, "w"),
            (table(8192), "w"),
        ):
            with pytest.raises(Failed, match=r"this host itself uses it: /dev/loop\d+ is part of .*hostlv"):
                run_module("libvirt_disk", source=source, mode=mode, **arguments)
        assert live(domain).disk("vdb") is None and not live(domain).recipes()
        assert run_module("libvirt_disk", source=table(32768), **arguments)["changed"]


def test_a_thin_volume_of_lvm_can_be_given_to_a_guest(tmp_path, image, name, cleanup):
    """
    LVM has a device over the whole pool, which nobody uses. A look at it is no use, a claim is one. Other
    volumes of the pool can be mounted.
    """
    pool, visible, volumes = f"{name}-tpool", f"{name}-pool", [f"{name}-thin{number}" for number in (1, 2)]
    paths = [image("meta.raw", 4 * MIB), image("data.raw", 64 * MIB)]
    for path in paths:
        cleanup(loop=path)
    for mapped in (pool, visible, *volumes):
        cleanup(dm=mapped)
    meta, data = (run_module("loop_device", backing_file=path)["device"]["path"] for path in paths)
    qemuhost.run("dmsetup", "create", pool, "--table", f"0 131072 thin-pool {meta} {data} 128 0")
    qemuhost.run("dmsetup", "create", visible, "--table", f"0 131072 linear /dev/mapper/{pool} 0")
    for number, volume in enumerate(volumes):
        qemuhost.run("dmsetup", "message", pool, "0", f"create_thin {number}")
        table = f"0 32768 thin /dev/mapper/{pool} {number}"
        qemuhost.run("dmsetup", "create", volume, "--table", table)
    udev_settle()
    qemuhost.run("mkfs.ext4", "-q", f"/dev/mapper/{volumes[1]}")
    place = tmp_path / "mounted"
    place.mkdir()
    qemuhost.run("mount", f"/dev/mapper/{volumes[1]}", str(place))
    try:
        with running(tmp_path, image) as (domain, _name):
            guest = {"domain": domain, "uri": URI, "live": True, "config": False}
            arguments = {"vdev": "vdb", "source": {"path": f"/dev/mapper/{volumes[0]}"}, **guest}
            claim = os.open(f"/dev/mapper/{visible}", os.O_RDONLY | os.O_EXCL)
            with pytest.raises(Failed, match=f"this host itself uses it: .*{visible}"):
                run_module("libvirt_disk", **arguments)
            os.close(claim)
            with open(f"/dev/mapper/{visible}", "rb"):
                assert run_module("libvirt_disk", **arguments)["changed"]
            whole = {"path": f"/dev/mapper/{pool}"}
            with pytest.raises(Failed, match="is in use as the disk vdb of the domain"):
                run_module("libvirt_disk", vdev="vdc", source=whole, **guest)
    finally:
        qemuhost.run("umount", str(place))


@pytest.mark.parametrize("below", ["mirror core 2 1024 nosync 2 {} 0 {} 0", "striped 2 128 {} 0 {} 0"])
def test_other_volumes_of_a_group_can_be_used_by_the_host(tmp_path, image, name, cleanup, below):
    """On a RAID, as on most servers: the volumes are on the same disks, and have no byte in common."""
    group, hosts, guests = (f"{name}-{part}" for part in ("group", "host", "guest"))
    disks = []
    for path in (image("one.raw", 64 * MIB), image("two.raw", 64 * MIB)):
        cleanup(loop=path)
        disks.append(run_module("loop_device", backing_file=path)["device"]["path"])
    for mapped in (group, hosts, guests):
        cleanup(dm=mapped)
    qemuhost.run("dmsetup", "create", group, "--table", f"0 131072 {below.format(*disks)}")
    qemuhost.run("dmsetup", "create", hosts, "--table", f"0 65536 linear /dev/mapper/{group} 0")
    qemuhost.run("dmsetup", "create", guests, "--table", f"0 32768 linear /dev/mapper/{group} 65536")
    qemuhost.run("mkfs.ext4", "-q", f"/dev/mapper/{hosts}")
    place = tmp_path / "mounted"
    place.mkdir()
    qemuhost.run("mount", f"/dev/mapper/{hosts}", str(place))
    try:
        with running(tmp_path, image) as (domain, _name):
            arguments = {"domain": domain, "vdev": "vdb", "uri": URI, "live": True, "config": False}
            for path in (f"/dev/mapper/{hosts}", disks[0]):
                with pytest.raises(Failed, match="this host itself uses it"):
                    run_module("libvirt_disk", source={"path": path}, **arguments)
            source = {"path": f"/dev/mapper/{guests}"}
            assert run_module("libvirt_disk", source=source, **arguments)["changed"]
    finally:
        qemuhost.run("umount", str(place))


def test_idle_partitions_of_kpartx(tmp_path, image, name, cleanup):
    """udev's rules of multipath-tools make a mapped device for each partition that the guest has made."""
    path, whole, part = image("lun.raw", 64 * MIB), f"{name}-lun", f"{name}-lun-part1"
    cleanup(loop=path)
    cleanup(dm=whole)
    cleanup(dm=part)
    disk = run_module("loop_device", backing_file=path)["device"]["path"]
    for mapped, identifier, table in (
        (whole, f"mpath-{name}", f"0 131072 linear {disk} 0"),
        (part, f"part1-mpath-{name}", f"0 65536 linear /dev/mapper/{whole} 2048"),
    ):
        qemuhost.run("dmsetup", "create", mapped, "--uuid", identifier, "--table", table)
    udev_settle()
    with running(tmp_path, image) as (domain, _name):
        arguments = {"domain": domain, "vdev": "vdb", "uri": URI, "live": True, "config": False}
        source = {"path": f"/dev/mapper/{whole}"}
        claim = os.open(f"/dev/mapper/{part}", os.O_RDONLY | os.O_EXCL)
        try:
            with pytest.raises(Failed, match=f"this host itself uses it: .*{part}"):
                run_module("libvirt_disk", source=source, **arguments)
        finally:
            os.close(claim)
        assert run_module("libvirt_disk", source=source, **arguments)["changed"]


def test_what_the_host_has_mounted_is_refused_for_readers_too(tmp_path, image, cleanup):
    """Whether through a loop device of its own, or the device that the source names."""
    path, place = image("host.raw", 32 * MIB), tmp_path / "mounted"
    place.mkdir()
    qemuhost.run("mkfs.ext4", "-q", "-F", path)
    other = image("direct.raw", 32 * MIB)
    qemuhost.run("mkfs.ext4", "-q", "-F", other)
    cleanup(loop=other)
    device = run_module("loop_device", backing_file=other)["device"]["path"]
    with running(tmp_path, image) as (domain, name):
        arguments = {"domain": domain, "vdev": "vdb", "uri": URI, "live": True, "mode": "r"}
        for what, source in ((path, {"file": path}), (device, {"path": device})):
            qemuhost.run("mount", *(["-o", "loop"] if what == path else []), what, str(place))
            try:
                with pytest.raises(Failed, match="this host itself uses"):
                    run_module("libvirt_disk", source=source, config=False, **arguments)
            finally:
                qemuhost.run("umount", str(place))
        assert live(domain).disk("vdb") is None


def test_disks_that_are_only_read_share_a_device(tmp_path, image, cleanup):
    """Those of guests are no use by the host, although they are mapped devices too."""
    path = image("golden.raw")
    cleanup(loop=path)
    device = run_module("loop_device", backing_file=path)["device"]["path"]
    with running(tmp_path, image) as (domain, name):
        guest = {"domain": domain, "source": {"path": device}, "uri": URI, "live": True, "config": False}
        for vdev in ("vdb", "vdc"):
            assert run_module("libvirt_disk", vdev=vdev, mode="r", **guest)["changed"]
        with pytest.raises(Failed, match="in use as the disk vdb of the domain"):
            run_module("libvirt_disk", vdev="vdd", **guest)


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


def plug(name, path):
    """Attach a disk vdb as an administrator does."""
    virsh("attach-disk", name, path, "vdb", "--subdriver", "raw", "--live")


def unplug(name):
    virsh("detach-disk", name, "vdb", "--live")
    assert wait_for(lambda: live(name).disk("vdb") is None)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_disk_that_somebody_else_attaches_meanwhile_stays(tmp_path, image, monkeypatch, moment):
    """Before the module attaches its own one, or in its place before the module rolls back."""
    theirs, path = image("theirs.raw"), image("a.raw")
    element = running_qemu.RunningQemuDisk._element

    def before(self):
        plug(name, theirs)
        return element(self)

    def after(*arguments):
        unplug(name)
        plug(name, theirs)
        raise GuestError("as if libvirt refused")

    with running(tmp_path, image) as (domain, name):
        if moment == "before":
            monkeypatch.setattr(running_qemu.RunningQemuDisk, "_element", before)
        else:
            monkeypatch.setattr(write_disks, "write", after)
        words = "duplicated" if moment == "before" else "as if libvirt refused"
        with pytest.raises(Failed, match=words) as caught:
            run_module("libvirt_disk", domain=domain, vdev="vdb", source={"file": path}, uri=URI, live=True)
        assert f"has {theirs} as vdb now, which this run did not attach" in str(caught.value.result)
        assert live(domain).disk("vdb").source == theirs and not live(domain).recipes()
        assert "vdb" not in virsh("dumpxml", "--inactive", domain) and wait_for(lambda: not ours())


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
