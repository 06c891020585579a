# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
libvirt_disk and libvirt_disks with libvirt's test driver: what definitions look like. test_libvirt_disk.py
tests what they do.
"""

from __future__ import annotations

import json
import os
import uuid
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import pytest
from conftest import Failed, predict_and_run, refused, run_module

libvirt = pytest.importorskip("libvirt")

from ansible_collections.racefree.block.plugins.module_utils._base.deadline import Deadline
from ansible_collections.racefree.block.plugins.module_utils._base.errors import DefinitionError, GuestError
from ansible_collections.racefree.block.plugins.module_utils._libvirt import (
    connection as _connection,
)
from ansible_collections.racefree.block.plugins.module_utils._libvirt import (
    domain_xml,
    kept,
    live_recipe,
    write_disks,
)
from ansible_collections.racefree.block.plugins.module_utils._module import worker

TEST = "test:///default"
DEFINITION = (
    "<domain type='test'><name>{name}</name><memory>65536</memory><vcpu>1</vcpu><os><type "
    "arch='x86_64'>hvm</type></os><devices/></domain>"
)
CORPUS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """
    The domains of the test driver are private to a process, and the module's child process would work on a
    copy of them.
    """
    monkeypatch.setattr(worker, "IN_PROCESS", True)


@pytest.fixture(scope="module")
def test_driver():
    """Its domains exist while a connection is open, in this process only."""
    connection = libvirt.open(TEST)
    yield connection
    connection.close()


@pytest.fixture
def domain(test_driver):
    """A domain with a definition, and no disks."""
    text = DEFINITION.format(name="td-" + uuid.uuid4().hex[:8])
    made = test_driver.defineXML(text)
    yield made
    made.undefine()


def test_connections_are_kept(domain, monkeypatch):
    """Opened once for many calls, again after a failed call, and by a forked child; closed at the end."""
    opened = []
    monkeypatch.setattr(_connection.libvirt, "open", counted(libvirt.open, opened))

    def read():
        return _connection.read(TEST, domain.name(), Deadline(30)).uuid

    def written():
        return _connection.with_connection(
            TEST, Deadline(30), "it", lambda connection: connection.lookupByName(domain.name()).UUIDString()
        )

    def read_in_child():
        child = os.fork()
        if not child:
            read()
            os._exit(len(opened))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1 + len(opened)

    with kept.KeptConnections():
        assert read() == read() == domain.UUIDString() and len(opened) == 1
        read_in_child()
        with pytest.raises(GuestError, match="knows no domain"):
            _connection.read(TEST, "no such domain", Deadline(30))
        assert read() and len(opened) == 2
        # As after a restart of the daemon.
        opened[1].close()
        assert read() and len(opened) == 3
        opened[2].close()
        assert written() == domain.UUIDString() and len(opened) == 4
    for connection in opened:
        with pytest.raises(libvirt.libvirtError):
            connection.getLibVersion()
    assert read() and read() and len(opened) == 6


def test_a_kept_connection_is_not_asked_before_a_read(domain, monkeypatch):
    """Each question to the daemon takes its time. What changes something is not sent twice."""
    opened, asked = [], []
    monkeypatch.setattr(_connection.libvirt, "open", counted(libvirt.open, opened))
    version = libvirt.virConnect.getLibVersion
    monkeypatch.setattr(libvirt.virConnect, "getLibVersion", lambda self: asked.append(1) or version(self))

    def lost_while_it_writes(connection):
        calls.append(1)
        connection.close()
        return connection.lookupByName(domain.name())

    calls = []
    with kept.KeptConnections():
        for _turn in range(3):
            _connection.read(TEST, domain.name(), Deadline(30))
        assert asked == []
        with pytest.raises(GuestError):
            _connection.with_connection(TEST, Deadline(30), domain.name(), lost_while_it_writes)
        assert asked == calls == [1]


def counted(open_connection, opened):
    """``libvirt.open`` that adds each connection to the list."""

    def call(uri):
        opened.append(open_connection(uri))
        return opened[-1]

    return call


def for_the_test_driver(text):
    """A definition, without the parts that only its driver accepts."""
    root = ElementTree.fromstring(text.encode())
    root.set("type", "test")
    kind = root.find("os/type")
    kind.text = "hvm"
    kind.attrib.clear()
    kind.set("arch", "x86_64")
    for name in (
        "bootloader",
        "features",
        "seclabel",
        "cpu",
        "{http://libvirt.org/schemas/domain/qemu/1.0}commandline",
    ):
        for element in root.findall(name):
            root.remove(element)
    root.find("os").attrib.clear()
    for name in ("loader", "kernel", "initrd", "cmdline"):
        for element in root.find("os").findall(name):
            root.find("os").remove(element)
    if root.find("vcpu") is None:
        ElementTree.SubElement(root, "vcpu").text = "1"
    return ElementTree.tostring(root, encoding="unicode")


def inactive(domain):
    return domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)


@pytest.mark.parametrize("file", sorted(os.listdir(CORPUS)))
def test_definitions_through_libvirt(test_driver, image, file):
    """A disk is added, added again, changed, removed, each time through libvirt's own parser and writer."""
    with open(os.path.join(CORPUS, file), encoding="utf-8") as opened:
        text = opened.read()
    domain = test_driver.defineXML(for_the_test_driver(text))
    try:
        before = inactive(domain)
        path, other = image("a.raw"), image("b.raw")
        arguments = {
            "domain": domain.name(),
            "vdev": "xvdq",
            "source": {"file": path},
            "uri": TEST,
            "bus": "xen",
        }
        done = run_module("libvirt_disk", **arguments)
        assert (
            done["changed"]
            and done["disk"]["path"] in inactive(domain)
            and json.loads(done["disk"]["recipe"]) == {"file": path, "format": "raw"}
        )
        assert (
            any(path in line for line in done["diff"]["after"]["definition"])
            and done["diff"]["before"]["definition"] == []
        )
        arguments.update(source={"file": other}, mode="r")
        assert (
            run_module("libvirt_disk", **arguments)["changed"]
            and domain_xml.Domain(inactive(domain)).disk("xvdq").read_only
        )
        assert not run_module("libvirt_disk", **arguments)["changed"]
        assert run_module("libvirt_disk", **dict(arguments, state="absent"))["changed"]
        assert inactive(domain) == before.replace("  <metadata/>\n", "")
    finally:
        domain.undefine()


def test_one(domain, image):
    before = inactive(domain)
    arguments = {"domain": domain.name(), "vdev": "vda", "source": {"file": image("a.raw")}, "uri": TEST}
    assert predict_and_run("libvirt_disk", **arguments)["changed"]
    refused(
        "libvirt_disk",
        "another disk there",
        **{**arguments, "state": "absent", "source": {"file": image("b.raw")}},
    )
    assert predict_and_run("libvirt_disk", **dict(arguments, state="absent"))["changed"]
    assert inactive(domain) == before


def test_an_image_that_is_not_raw(domain, image):
    """
    It is refused by its first bytes, or by the definition. A file once known to be raw is accepted, whatever
    the guest writes.
    """
    path = image("a.raw")
    arguments = {"domain": domain.name(), "vdev": "vda", "source": {"file": path}, "uri": TEST}
    with open(path, "r+b") as file:
        file.write(b"QFI\xfb\0\0\0\3")
    refused("libvirt_disk", "format qcow2", **arguments)
    with open(path, "r+b") as file:
        file.write(bytes(8))
    before = inactive(domain)
    disk = (
        f"<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{path}'/><target "
        "dev='vdb' bus='virtio'/></disk>"
    )
    domain.connect().defineXML(
        before.replace("<devices/>", "<devices></devices>").replace("</devices>", disk + "</devices>")
    )
    refused("libvirt_disk", "format qcow2 (driver of vdb)", **arguments)
    domain.connect().defineXML(before)
    assert predict_and_run("libvirt_disk", **arguments)["changed"]
    with open(path, "r+b") as file:
        file.write(b"QFI\xfb\0\0\0\3")
    assert not run_module("libvirt_disk", **arguments)["changed"]
    assert predict_and_run("libvirt_disk", **dict(arguments, state="absent"))["changed"]
    assert predict_and_run("libvirt_disk", **{**arguments, "source": {"file": path, "format": "raw"}})[
        "changed"
    ]


def test_a_device_that_holds_an_image_that_is_not_raw(domain, name, cleanup):
    """
    As the definition says of it; by any of its names. What it begins with says nothing: a guest may have
    written that.
    """
    cleanup(dm=name)
    device = run_module("dm_device", name=name, uuid=f"UUID-{name}", table="0 8 zero")["device"]
    before = inactive(domain)
    disk = (
        "<disk type='block' device='disk'><driver name='qemu' type='qcow2'/>"
        f"<source dev='/dev/{device['name']}'/><target dev='vdb' bus='virtio'/></disk>"
    )
    arguments = {"domain": domain.name(), "uri": TEST}
    domain.connect().defineXML(
        before.replace("<devices/>", "<devices></devices>").replace("</devices>", disk + "</devices>")
    )
    path = f"/dev/mapper/{name}"
    numbered = {"diskseq": device["diskseq"], "boot_id": device["boot_id"]}
    for target, source in (("vdb", path), ("vda", path), ("vda", numbered)):
        refused("libvirt_disk", "format qcow2 (driver of vdb)", vdev=target, source=source, **arguments)
    domain.connect().defineXML(before)
    assert predict_and_run("libvirt_disk", vdev="vda", source=path, **arguments)["changed"]
    assert predict_and_run("libvirt_disk", vdev="vda", state="absent", **arguments)["changed"]


def test_by_uuid_and_in_one_go(domain, image):
    before = inactive(domain)
    disks = [
        {
            "domain": domain.UUIDString(),
            "vdev": f"xvd{letter}",
            "source": "file:" + image(f"{letter}.raw"),
            "uri": TEST,
        }
        for letter in "abcd"
    ]
    done = predict_and_run("libvirt_disks", disks=disks)
    assert [disk.target for disk in domain_xml.Domain(inactive(domain)).disks()] == [
        "xvda",
        "xvdb",
        "xvdc",
        "xvdd",
    ] and done["changed"]
    after = inactive(domain)
    # One failure rolls back the others.
    more = [dict(disks[0], mode="r"), dict(disks[1], vdev="xvde", source="file:/not/there")]
    refused("libvirt_disks", "does not exist", disks=more)
    assert inactive(domain) == after
    assert predict_and_run("libvirt_disks", disks=[dict(disk, state="absent") for disk in disks])["changed"]
    assert inactive(domain) == before


def test_what_libvirt_drops(domain, image, monkeypatch):
    """If libvirt accepts a definition but changes its meaning, the old definition is restored."""
    before = inactive(domain)
    put = domain_xml.put
    # Something that libvirt does not know and drops, so that it is missing afterwards.

    def put_more(text, disk, recipe):
        return put(text, disk, recipe).replace(
            "</disk>", "<unknown/></disk>", 0 if "<unknown/>" in text else 1
        )

    monkeypatch.setattr(domain_xml, "put", put_more)
    with pytest.raises(Failed, match="did not keep"):
        run_module("libvirt_disk", domain=domain.name(), vdev="vda", source="file:" + image(), uri=TEST)
    assert inactive(domain) == before


def test_someone_else_changes_it(test_driver, domain, image, monkeypatch):
    before = inactive(domain)
    write = write_disks.write

    def first(*arguments):
        test_driver.defineXML(before.replace("</name>", "</name><title>another</title>"))
        return write(*arguments)

    monkeypatch.setattr(write_disks, "write", first)
    with pytest.raises(Failed, match="changed by someone else"):
        run_module("libvirt_disk", domain=domain.name(), vdev="vda", source="file:" + image(), uri=TEST)
    assert "vda" not in inactive(domain) and "<title>another" in inactive(domain)


def test_recipes_of_the_running_definition(domain):
    """
    Through libvirt's own call for metadata: other metadata stays, and the inactive definition does not
    change.
    """
    before = inactive(domain)
    domain.create()
    try:
        domain.setMetadata(
            libvirt.VIR_DOMAIN_METADATA_ELEMENT,
            "<mine><a>1</a></mine>",
            "x",
            "urn:other",
            libvirt.VIR_DOMAIN_AFFECT_LIVE,
        )
        running = _connection.read(TEST, domain.UUIDString(), Deadline(60))
        recipes = {"xvdb": json.dumps({"file": "/srv/it's \"<b>&amp;]]>\u00fc"}), "xvdc": '{"file": "/c"}'}
        for target, recipe in recipes.items():
            live_recipe.put(TEST, running, target, recipe, Deadline(60))
        text = domain.XMLDesc(0)
        assert (
            domain_xml.Domain(text).recipes() == recipes
            and "urn:other" in text
            and inactive(domain) == before
        )
        live_recipe.put(TEST, running, "xvdc", recipes["xvdc"], Deadline(60))
        assert domain.XMLDesc(0) == text
        for target in recipes:
            live_recipe.put(TEST, running, target, None, Deadline(60))
        assert "racefree" not in domain.XMLDesc(0) and "urn:other" in domain.XMLDesc(0)
        with pytest.raises(DefinitionError, match="two recipes"):
            twice = domain_xml.recipe_list(recipes).replace("xvdb", "xvdc")
            domain.setMetadata(
                libvirt.VIR_DOMAIN_METADATA_ELEMENT,
                twice,
                domain_xml.KEY,
                domain_xml.NAMESPACE,
                libvirt.VIR_DOMAIN_AFFECT_LIVE,
            )
            live_recipe.put(TEST, running, "xvdd", recipes["xvdc"], Deadline(60))
    finally:
        domain.destroy()


def test_one_disk_by_the_names_of_its_domain(domain, image):
    before = inactive(domain)
    first = {"domain": domain.name(), "vdev": "xvdd", "source": "file:" + image(), "uri": TEST}
    for change in (
        {"domain": domain.UUIDString()},
        {"vdev": "51760"},
        {"domain": domain.UUIDString(), "vdev": "d3"},
        {"state": "absent"},
    ):
        second = dict(first, **change)
        result = refused(
            "libvirt_disks",
            "disks[0].vdev",
            "disks[1].vdev",
            second["domain"],
            second["vdev"],
            disks=[first, second],
        )
        assert [row["error"]["kind"] for row in result["disks"]] == ["InvalidValue"] * 2 and inactive(
            domain
        ) == before


def test_a_number_is_kept_with_its_boot(domain, image, cleanup):
    path = image()
    cleanup(loop=path)
    device = run_module("loop_device", backing_file=path)["device"]
    arguments = {"domain": domain.name(), "vdev": "vda", "uri": TEST}
    refused("libvirt_disk", "every boot", "boot_id", source=f"diskseq:{device['diskseq']}", **arguments)
    refused(
        "libvirt_disk",
        "another boot",
        source={"diskseq": device["diskseq"], "boot_id": "11111111-2222-3333-4444-555555555555"},
        **arguments,
    )
    done = predict_and_run(
        "libvirt_disk", source={"diskseq": device["diskseq"], "boot_id": device["boot_id"]}, **arguments
    )
    kept = json.loads(domain_xml.Domain(inactive(domain)).recipes()["vda"])
    assert kept == {
        "diskseq": device["diskseq"],
        "boot_id": device["boot_id"],
    } and "next boot" in str(done["warnings"])
    run_module("libvirt_disk", state="absent", **arguments)


@pytest.mark.parametrize(
    "name", ["no-such", "a'b", "../x", "&lt;", "00000000-1111-2222-3333-444444444444", 'x"<y>']
)
def test_no_such_domain(test_driver, image, name):
    refused("libvirt_disk", "knows no domain", domain=name, vdev="vda", source="file:" + image(), uri=TEST)


@pytest.mark.parametrize(
    "uri, words",
    [
        ("nonsense:///x", ["nonsense"]),
        ("test:///not/there.xml", ["not/there"]),
        ("xen+tcp://256.0.0.1/", ["256.0.0.1"]),
    ],
)
def test_bad_uris(image, uri, words):
    refused("libvirt_disk", *words, domain="x", vdev="vda", source="file:" + image(), uri=uri)


@pytest.mark.parametrize(
    "source, words",
    [
        ("file:/not/there", ["/not/there", "does not exist"]),
        ("file:/", ["directory"]),
        ("/dev/null", ["block device"]),
        ("/dev/loop0", ["first"]),
        ({"table": "0 8 linear /dev/not/there 0"}, ["not/there"]),
        ("/dev/mapper/not-there", ["not-there"]),
    ],
)
def test_bad_sources(domain, source, words):
    before = inactive(domain)
    refused("libvirt_disk", *words, domain=domain.name(), vdev="vda", source=source, uri=TEST)
    assert inactive(domain) == before


def test_a_hostile_file_name(domain, image):
    before = inactive(domain)
    path = image("a'\"<b>&amp;]]>\u00fc ../c.raw".replace("/", "-"))
    done = predict_and_run("libvirt_disk", domain=domain.name(), vdev="vda", source={"file": path}, uri=TEST)
    assert (
        json.loads(domain_xml.Domain(inactive(domain)).recipes()["vda"])["file"] == path
        and path not in done["disk"]["path"]
    )
    run_module("libvirt_disk", domain=domain.name(), vdev="vda", state="absent", uri=TEST)
    assert inactive(domain) == before


def test_the_uuid_is_kept_with_the_path(domain, image, cleanup, name):
    path = image()
    cleanup(loop=path)
    loop = run_module("loop_device", backing_file=path)["device"]
    cleanup(dm=name)
    mapped = run_module(
        "dm_device", name=name, uuid="KEEP-" + name, table=f"0 2048 linear diskseq:{loop['diskseq']} 0"
    )
    assert mapped["changed"]
    arguments = {"domain": domain.name(), "vdev": "vda", "source": f"/dev/mapper/{name}", "uri": TEST}
    done = predict_and_run("libvirt_disk", **arguments)
    assert json.loads(done["disk"]["recipe"]) == {"path": f"/dev/mapper/{name}", "uuid": "KEEP-" + name}
    assert predict_and_run("libvirt_disk", state="absent", **arguments)["changed"]


@pytest.mark.parametrize("name", ["it's", 'a "b"', "<&>", "..x", "%s{0}$(id)", "\u00fc", "-f"])
def test_a_hostile_domain_name(test_driver, image, name):
    domain = test_driver.defineXML(DEFINITION.format(name=escape(name)))
    try:
        before = inactive(domain)
        done = predict_and_run("libvirt_disk", domain=name, vdev="vda", source={"file": image()}, uri=TEST)
        assert (
            done["disk"]["domain"] == name
            and done["disk"]["path"] == f"/dev/mapper/racefree-{domain.UUIDString()}-vda"
        )
        predict_and_run("libvirt_disk", domain=name, vdev="vda", state="absent", uri=TEST)
        assert inactive(domain) == before
    finally:
        domain.undefine()


@pytest.mark.parametrize(
    "vdev", ["../x", "xvda'", 'xvda"/><disk', "xvda\n", "", "xvda xvdb", "/dev/xvda", "\u00e4", "x" * 300]
)
def test_hostile_targets(domain, image, vdev):
    before = inactive(domain)
    refused("libvirt_disk", "vdev", domain=domain.name(), vdev=vdev, source="file:" + image(), uri=TEST)
    assert inactive(domain) == before


@pytest.mark.parametrize("name", ["a\nb", "", "a\tb", "x" * 300])
def test_invalid_domain_names(image, name):
    refused("libvirt_disk", "domain", domain=name, vdev="vda", source="file:" + image(), uri=TEST)
