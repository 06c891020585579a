# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
libvirt_disk and libvirt_disks with libvirtd and QEMU: definitions of qemu:///system, and guests with such a
disk.

The hook is not installed; its lower layer makes the devices. Tests with it: test_libvirt_qemu_hook.py. Disks
of running guests: test_libvirt_qemu_live.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
import uuid
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import pytest
import qemuhost
from ansible_collections.racefree.block.plugins.module_utils._base.deadline import Deadline
from ansible_collections.racefree.block.plugins.module_utils._libvirt import disk_device, domain_xml
from ansible_collections.racefree.block.plugins.module_utils._source import resources, spec
from conftest import Failed, predict_and_run, refused, run_module
from qemuhost import URI, defined, definition, virsh

pytestmark = pytest.mark.qemu

CORPUS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")
QEMU_FILES = sorted(name for name in os.listdir(CORPUS) if name.startswith("qemu-"))


@pytest.fixture(scope="module", autouse=True)
def libvirtd():
    qemuhost.start_daemon()


def inactive(name):
    return virsh("dumpxml", "--inactive", "--security-info", name)


@pytest.fixture
def domain():
    """The UUID of a domain without disks."""
    with defined(definition("q-" + uuid.uuid4().hex[:8])) as made:
        yield made


def disk_element(text, target):
    """The disk's element without libvirt's additions: [tags with their attributes]."""
    disks = ElementTree.fromstring(text.encode()).findall("devices/disk")
    (found,) = [disk for disk in disks if disk.find("target").get("dev") == target]
    return [(found.tag, found.attrib)] + [
        (child.tag, child.attrib) for child in found if child.tag not in ("address", "alias")
    ]


# vdev, options, and the bus that the disk then has
GOLDEN = (
    ("vda", {}, "virtio"),
    ("sda", {}, "scsi"),
    ("sda", {"bus": "sata"}, "sata"),
    ("sda", {"bus": "usb"}, "usb"),
    ("hda", {}, "ide"),
    ("vdb", {"mode": "r"}, "virtio"),
    ("vdb", {"shared": True}, "virtio"),
    ("hdc", {"device_type": "cdrom", "mode": "r"}, "ide"),
)


@pytest.mark.parametrize("vdev, options, bus", GOLDEN)
def test_what_the_definition_then_says(domain, image, vdev, options, bus):
    before = inactive(domain)
    done = predict_and_run(
        "libvirt_disk", domain=domain, vdev=vdev, source={"file": image()}, uri=URI, **options
    )
    element = {"type": "block", "device": options.get("device_type", "disk")}
    path = f"/dev/mapper/racefree-{domain}-{vdev}"
    expected = [
        ("disk", element),
        ("driver", {"name": "qemu", "type": "raw"}),
        ("source", {"dev": path}),
        ("target", {"dev": vdev, "bus": bus}),
    ]
    if options.get("mode") == "r":
        expected.append(("readonly", {}))
    if options.get("shared"):
        expected.append(("shareable", {}))
    found = disk_element(inactive(domain), vdev)
    if bus == "usb":
        # Newer versions of libvirt choose one of two values. A second run finds nothing to change.
        found[0][1].pop("model", None)
    assert found == expected
    assert done["disk"]["path"] == path and done["disk"]["running"] is False and done["device"] is None
    run_module("libvirt_disk", domain=domain, vdev=vdev, state="absent", uri=URI)
    # A controller that libvirt added for the disk stays, as with virsh.
    after = inactive(domain)
    assert without_controllers(after) == without_controllers(before)


def test_libvirt_disk_info(domain, image, tmp_path):
    """The definition's disks and recipes, the device that was made, and what is wrong."""
    path = image()
    run_module("libvirt_disk", domain=domain, vdev="vda", source={"file": path}, uri=URI)
    (row,) = run_module("libvirt_disk_info", domain=domain, uri=URI)["disks"]
    assert (row["domain"], row["uuid"], row["running"], row["persistent"]) == (
        virsh("domname", domain).strip(),
        domain,
        False,
        True,
    )
    assert row["config"]["path"] == f"/dev/mapper/racefree-{domain}-vda" and row["config"]["has_recipe"]
    assert (
        row["recipe"] == {"file": path, "format": "raw"}
        and row["live"] is row["device"] is row["problem"] is None
    )
    disk = disk_device.DiskSpec("any", domain, "vda", spec.parse({"file": path}))
    with resources.Resources() as host:
        made = disk_device.make(host, disk, Deadline(20))
        (row,) = run_module("libvirt_disk_info", domain=domain, uri=URI)["disks"]
        assert row["device"]["diskseq"] == made.id.diskseq and row["problem"] is None
    assert [row for row in run_module("libvirt_disk_info", uri=URI)["disks"] if row["uuid"] == domain]
    # Somebody removes the disk but not its recipe.
    text = inactive(domain)
    without = re.sub(r" *<disk .*?</disk>\n", "", text, flags=re.DOTALL)
    (tmp_path / "without.xml").write_text(without, encoding="utf-8")
    virsh("define", str(tmp_path / "without.xml"))
    (row,) = run_module("libvirt_disk_info", domain=domain, uri=URI)["disks"]
    assert row["config"] is None and "a recipe for a disk that it does not have" in row["problem"]
    with pytest.raises(Failed, match="knows no domain"):
        run_module("libvirt_disk_info", domain="no-such-domain", uri=URI)


def without_controllers(text):
    return re.sub(r" *<controller ([^>]*/>|[^>]*[^/]>.*?</controller>)\n", "", text, flags=re.DOTALL)


def for_qemu_without_kvm(text):
    root = ElementTree.fromstring(text.encode())
    root.set("type", "qemu")
    for path in ("cpu", "vcpu"):
        for element in root.findall(path):
            root.remove(element)
    for disk in root.iter("disk"):
        # Parts that QEMU's driver would refuse together with the rest.
        for element in disk.findall("shareable") + disk.findall("transient"):
            disk.remove(element)
        if disk.find("driver").get("io") == "native":
            disk.find("driver").set("cache", "none")
    kind = root.find("os/type")
    kind.set("machine", "q35" if "q35" in kind.get("machine", "") else "pc")
    return ElementTree.tostring(root, encoding="unicode")


@pytest.mark.rotated
@pytest.mark.parametrize("file", QEMU_FILES)
def test_definitions_of_others(image, file):
    """
    A disk is added, added again, changed, removed, through libvirt's QEMU driver. Everything else stays
    unchanged.
    """
    with open(os.path.join(CORPUS, file), encoding="utf-8") as opened:
        text = opened.read()
    with defined(for_qemu_without_kvm(text)) as domain:
        before = inactive(domain)
        path, other = image("a.raw"), image("b.raw")
        arguments = {"domain": domain, "vdev": "vdq", "source": {"file": path}, "uri": URI}
        assert predict_and_run("libvirt_disk", **arguments)["changed"]
        arguments.update(source={"file": other}, mode="r")
        assert predict_and_run("libvirt_disk", **arguments)["changed"]
        assert domain_xml.Domain(inactive(domain)).disk("vdq").read_only
        assert predict_and_run("libvirt_disk", **dict(arguments, state="absent"))["changed"]
        assert without_controllers(inactive(domain)) == without_controllers(
            before.replace("  <metadata/>\n", "")
        )


def test_several_disks_in_one_task_and_rolled_back(domain, image):
    before = inactive(domain)
    disks = [
        {"domain": domain, "vdev": f"vd{letter}", "source": "file:" + image(f"{letter}.raw"), "uri": URI}
        for letter in "abc"
    ]
    assert predict_and_run("libvirt_disks", disks=disks)["changed"]
    assert [disk.target for disk in domain_xml.Domain(inactive(domain)).disks()] == ["vda", "vdb", "vdc"]
    after = inactive(domain)
    more = [dict(disks[0], mode="r"), dict(disks[1], vdev="vde", source="file:/not/there")]
    refused("libvirt_disks", "does not exist", disks=more)
    assert inactive(domain) == after
    assert predict_and_run("libvirt_disks", disks=[dict(disk, state="absent") for disk in disks])["changed"]
    assert inactive(domain) == before


def test_a_password_stays_and_is_shown_nowhere(image):
    text = definition("q-secret", devices="<graphics type='vnc' port='-1' passwd='s3cr3t'/>")
    with defined(text) as domain:
        before = inactive(domain)
        done = predict_and_run("libvirt_disk", domain=domain, vdev="vda", source={"file": image()}, uri=URI)
        assert "s3cr3t" in inactive(domain) and "s3cr3t" not in json.dumps(done)
        predict_and_run("libvirt_disk", domain=domain, vdev="vda", state="absent", uri=URI)
        assert inactive(domain) == before


@pytest.mark.rotated
# libvirt's QEMU driver refuses "/" in a name, and does not save a name that begins with ".".
@pytest.mark.parametrize("name", ["it's", 'a "b"', "<&>", "%s{0}$(id)", "ü", "-f"])
def test_a_hostile_domain_name(image, name):
    with defined(definition(escape(name))) as domain:
        before = inactive(domain)
        done = predict_and_run("libvirt_disk", domain=name, vdev="vda", source={"file": image()}, uri=URI)
        assert done["disk"]["domain"] == name and done["disk"]["path"] == f"/dev/mapper/racefree-{domain}-vda"
        predict_and_run("libvirt_disk", domain=name, vdev="vda", state="absent", uri=URI)
        assert inactive(domain) == before


def test_a_hostile_file_name(domain, image):
    before = inactive(domain)
    path = image("a'\"<b>&amp;]]>\u00fc ..-c.raw")
    predict_and_run("libvirt_disk", domain=domain, vdev="vda", source={"file": path}, uri=URI)
    assert json.loads(domain_xml.Domain(inactive(domain)).recipes()["vda"])["file"] == path
    predict_and_run("libvirt_disk", domain=domain, vdev="vda", state="absent", uri=URI)
    assert inactive(domain) == before


@pytest.mark.parametrize(
    "vdev", ["../x", "vda'", 'vda"/><disk', "vda\n", "", "vda vdb", "/dev/vda", "ä", "x" * 300]
)
def test_hostile_targets(domain, image, vdev):
    before = inactive(domain)
    refused("libvirt_disk", "vdev", domain=domain, vdev=vdev, source="file:" + image(), uri=URI)
    assert inactive(domain) == before


def test_what_libvirt_refuses(domain, image):
    """The error has libvirt's message, and the definition is unchanged."""
    before = inactive(domain)
    arguments = {"domain": domain, "vdev": "vda", "source": {"file": image()}, "uri": URI, "bus": "fdc"}
    with pytest.raises(Failed) as caught:
        run_module("libvirt_disk", **arguments)
    assert "fdc" in str(caught.value) and inactive(domain) == before


@pytest.mark.parametrize(
    "uri, more, words",
    [
        ("qemu:///session", {}, "is possible only for xen:///system and qemu:///system"),
        ("qemu+ssh://elsewhere/system", {"state": "absent"}, "is possible only for xen:///system"),
        ("test:///default", {"config": False}, "is possible only for xen:///system"),
        (URI, {"replace": True, "live": False}, "is possible only with live=true"),
        (URI, {"sealed": True}, "is possible only for Xen"),
        (URI, {"config": False}, "it does not run"),
    ],
)
def test_running_guests_that_cannot_be_changed(domain, image, uri, more, words):
    arguments = {"domain": domain, "vdev": "vda", "source": "file:" + image(), "uri": uri, "live": True}
    refused("libvirt_disk", words, **(arguments | more))


def test_a_transient_domain_has_no_definition(tmp_path, image):
    path = tmp_path / "transient.xml"
    path.write_text(definition("q-transient"))
    virsh("create", str(path), "--paused")
    try:
        refused(
            "libvirt_disk",
            "the domain is transient",
            domain="q-transient",
            vdev="vda",
            source="file:" + image(),
            uri=URI,
        )
    finally:
        virsh("destroy", "q-transient")


@pytest.mark.parametrize(
    "name", ["no-such", "a'b", "../x", "&lt;", "00000000-1111-2222-3333-444444444444", 'x"<y>']
)
def test_no_such_domain(image, name):
    refused("libvirt_disk", "knows no domain", domain=name, vdev="vda", source="file:" + image(), uri=URI)


@pytest.mark.parametrize("more", [{}, {"state": "absent"}])
def test_a_daemon_that_is_down(image, more):
    qemuhost.stop_daemon()
    try:
        refused(
            "libvirt_disk",
            "cannot connect",
            "Check that the daemon",
            **{"domain": "x", "vdev": "vda", "source": "file:" + image(), "uri": URI, **more},
        )
    finally:
        qemuhost.start_daemon()


def test_a_daemon_that_hangs(image):
    pid = qemuhost.daemon_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        refused(
            "libvirt_disk",
            "timed out after 2 s waiting for libvirt",
            domain="x",
            vdev="vda",
            source="file:" + image(),
            uri=URI,
            timeout=2,
        )
    finally:
        os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def made(name, domain, vdev, path):
    """What the hook makes for Xen at prepare, held as long as its holder would."""
    wanted = disk_device.DiskSpec(name, domain, vdev, spec.parse({"file": path}))
    limit = Deadline(60)
    with resources.Resources() as host:
        with disk_device.locked(limit):
            device = disk_device.make(host, wanted, limit)
        disk_device.settle(host, [(wanted, device)], limit)
        yield device


def sysfs_diskseq(number):
    with open(f"/sys/dev/block/{number[0]}:{number[1]}/diskseq", encoding="ascii") as file:
        return int(file.read())


def test_a_guest_without_its_device_does_not_start(domain, image):
    run_module("libvirt_disk", domain=domain, vdev="vda", source={"file": image()}, uri=URI)
    words = virsh("start", domain, check=False)
    assert f"/dev/mapper/racefree-{domain}-vda" in words and virsh("domstate", domain) == "shut off"


@pytest.mark.parametrize("paused", [True, False])
def test_a_guest_has_the_device_that_was_made_for_it(tmp_path, image, paused):
    """
    Checked by the numbers that its QEMU has open, and by what the guest reads and writes. The device is
    removed with the guest.
    """
    word, serial = uuid.uuid4().hex.encode(), tmp_path / "serial"
    path = image("boot.raw", content=qemuhost.boot_sector(tmp_path) + word.ljust(512, b"\0"))
    with defined(definition("q-guest", serial=serial)) as domain:
        run_module("libvirt_disk", domain=domain, vdev="vda", source={"file": path}, uri=URI)
        with made("q-guest", domain, "vda", path) as device:
            virsh("start", domain, *(["--paused"] if paused else []))
            number = (device.id.major, device.id.minor)
            assert qemuhost.opened("q-guest") == {number} and sysfs_diskseq(number) == device.id.diskseq
        # Nobody else has it open now.
        assert sysfs_diskseq(number) == device.id.diskseq
        # The running guest has it; a change takes effect at the next start.
        assert run_module("libvirt_disk", domain=domain, vdev="vdb", source={"file": image()}, uri=URI)[
            "disk"
        ]["running"]
        assert "vdb" in virsh("domblklist", domain, "--inactive") and "vdb" not in virsh("domblklist", domain)
        if not paused:
            until = time.monotonic() + 60
            while not serial.exists() or b"\n" not in serial.read_bytes():
                assert time.monotonic() < until, "the guest said nothing"
                time.sleep(0.05)
            assert serial.read_bytes().strip() == word + b" written"
        virsh("destroy", domain)
        until = time.monotonic() + 30
        while os.path.exists(f"/sys/dev/block/{number[0]}:{number[1]}"):
            assert time.monotonic() < until, "the device did not go with its guest"
            time.sleep(0.05)
    with open(path, "rb") as file:
        file.seek(1024)
        assert file.read(512) == (bytes(512) if paused else word.ljust(512, b"\0"))
