# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Add, change and remove disks in definitions written by virt-install, virt-manager, libvirt and people
(corpus/).
"""

from __future__ import annotations

import os
from xml.etree import ElementTree

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    BlockError,
    DefinitionError,
    InvalidValue,
)
from ansible_collections.racefree.block.plugins.module_utils._libvirt import domain_xml, xml_edit
from ansible_collections.racefree.block.plugins.module_utils._libvirt.domain_xml import Disk, Domain
from hypothesis import assume, given
from hypothesis import strategies as st

CORPUS = os.path.join(os.path.dirname(__file__), "corpus")
FILES = sorted(os.listdir(CORPUS))
# With a byte order mark, as Windows editors write it. Created here, because many tools would remove it from a
# file.
VARIANTS = ["xen-pv-virt-install.xml with CRLF", "xen-commented.xml with BOM"]
RECIPE = '{"file": "/srv/guests/a <b> & \\"c\\" ]]> \\u00fc.raw"}'
NEW = Disk("xvdq", "/dev/mapper/racefree-x", bus="xen")
# A container is empty before or after the change, which is equivalent to no container.
LEFT_EMPTY = {"xen-without-devices.xml", "xen-no-devices-inside.xml", "tabs.xml"}


def load(name):
    name, dummy, variant = name.partition(" with ")
    with open(os.path.join(CORPUS, name), encoding="utf-8", newline="") as file:
        text = file.read()
    return text.replace("\n", "\r\n") if variant == "CRLF" else "\ufeff" * (variant == "BOM") + text


def meaning(text):
    """
    The definition without insignificant differences: quoting, white space between elements, and empty
    containers.
    """
    root = ElementTree.fromstring(text.lstrip("\ufeff").encode())
    for name in ("metadata", "devices"):
        for child in root.findall(name):
            if not len(child) and not (child.text or "").strip():
                root.remove(child)
    return ElementTree.canonicalize(ElementTree.tostring(root, encoding="unicode"), strip_text=True)


def rewritten(text):
    """
    The definition as libvirt returns it: other quotes, no comments, new indentation, sorted disks, added
    elements.
    """
    root = ElementTree.fromstring(text.lstrip("\ufeff").encode())
    for devices in root.findall("devices"):
        disks = devices.findall("disk")
        for disk in disks:
            devices.remove(disk)
        for number, disk in enumerate(
            sorted(disks, key=lambda disk: disk.find("target").get("dev"), reverse=True)
        ):
            target = disk.find("target")
            target.set("bus", target.get("bus") or "xen")
            if disk.find("source") is not None:
                disk.find("source").set("index", str(number + 1))
            for name in ("alias", "address", "backingStore"):
                if disk.find(name) is None:
                    ElementTree.SubElement(disk, name, {"name": f"disk{number}"})
            devices.insert(0, disk)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode")


@pytest.fixture(params=FILES + VARIANTS)
def name(request):
    return request.param


@pytest.fixture
def text(name):
    return load(name)


def test_the_corpus():
    assert len(FILES) >= 15
    types = [Domain(load(name)).root.first("os").first("type") for name in FILES]
    assert {"linux", "xen", "xenpvh", "hvm"} <= {element.text for element in types}
    assert {Domain(load(name)).type for name in FILES} == {"xen", "kvm", "qemu", "test"}


def test_add_and_remove(name, text):
    added = domain_xml.put(text, NEW, RECIPE)
    assert Domain(added).disk("xvdq").serves(NEW) and Domain(added).recipes()["xvdq"] == RECIPE
    removed = domain_xml.drop(added, "xvdq")
    assert meaning(removed) == meaning(text) != meaning(added)
    if name not in LEFT_EMPTY:
        assert removed == text


def test_adding_twice_is_adding_once(text):
    once = domain_xml.put(text, NEW, RECIPE)
    assert domain_xml.put(once, NEW, RECIPE) == once
    again = rewritten(once)
    assert domain_xml.put(again, NEW, RECIPE) == again
    assert domain_xml.drop(text, "xvdq") == text


def test_several_disks(text):
    disks = [
        NEW._replace(target=target, path="/dev/mapper/racefree-" + target)
        for target in ("xvdq", "xvdr", "xvds")
    ]
    added = text
    for disk in disks:
        added = domain_xml.put(added, disk, disk.target)
    before = [disk.target for disk in Domain(text).disks()]
    assert [disk.target for disk in Domain(added).disks()] == before + ["xvdq", "xvdr", "xvds"]
    for target in ("xvdr", "xvdq", "xvds"):
        assert Domain(added).recipes()[target] == target
        added = domain_xml.drop(added, target)
    assert meaning(added) == meaning(text)


def test_every_existing_disk_can_be_changed(text):
    for old in Domain(text).disks():
        new = Disk(old.target, "/dev/mapper/racefree-y", device="cdrom", read_only=True, shareable=True)
        changed = domain_xml.put(text, new, RECIPE)
        assert (
            Domain(changed).disk(old.target).serves(new) and Domain(changed).disk(old.target).bus == old.bus
        )
        assert domain_xml.put(changed, new, RECIPE) == changed
        others = [disk for disk in Domain(text).disks() if disk.target != old.target]
        assert [disk for disk in Domain(changed).disks() if disk.target != old.target] == others
        kept = ("address", "alias", "boot", "serial", "wwn", "iotune", "transient")
        for element in kept:
            assert (f"<{element}" in old.xml) == (f"<{element}" in Domain(changed).disk(old.target).xml)
        for element in ("auth", "encryption", "backingStore", "protocol=", "file="):
            assert element not in Domain(changed).disk(old.target).xml
        back = new._replace(device="disk", read_only=False, shareable=False)
        assert Domain(domain_xml.put(changed, back)).disk(old.target).serves(back)
        removed = domain_xml.drop(text, old.target)
        assert Domain(removed).disk(old.target) is None and len(Domain(removed).disks()) == len(others)
        assert Domain(removed).recipes() == {
            target: recipe for target, recipe in Domain(text).recipes().items() if target != old.target
        }


def test_disks_and_recipes_are_read():
    found = Domain(load("xen-pvh.xml"))
    assert (found.name, found.uuid, found.type, found.id) == (
        "pvh-1",
        "c7a5fdb0-cdaf-9455-926a-d65c16db1809",
        "xen",
        None,
    )
    assert [(disk.target, disk.type, disk.source, disk.driver, disk.format) for disk in found.disks()] == [
        ("xvda", "file", "/var/lib/libvirt/images/pvh-1.qcow2", "qemu", "qcow2"),
        ("xvdb", "network", "pool/image", "qemu", "raw"),
    ]
    running = Domain(load("xen-running.xml"))
    assert (running.id, running.disk("xvdb1").read_only, running.disk("xvda").read_only) == ("7", True, False)
    assert Domain(load("xen-commented.xml")).disk("xvda").source == "/dev/vg/a>b"
    assert Domain(load("qemu-commandline.xml")).disk("vda").source == "default/args.img"
    assert Domain(load("ours-already.xml")).recipes() == {"xvda": '{"file": "/srv/ours.raw"}'}
    assert Domain(load("prefixes-taken.xml")).recipes() == {}
    assert [disk.target for disk in Domain(load("prefixes-taken.xml")).disks()] == ["sda"]


def test_putting_the_same_recipe_changes_nothing():
    text = load("ours-already.xml")
    uuid = "11111111-2222-3333-4444-55555555555b"
    disk = Disk("xvda", domain_xml.path_of(uuid, "xvda"), bus="xen")
    assert domain_xml.put(text, disk, '{"file": "/srv/ours.raw"}') == text
    other = domain_xml.put(text, disk, '{"file": "/srv/other.raw"}')
    assert other == text.replace("ours.raw", "other.raw")
    second = domain_xml.put(text, disk._replace(target="xvdb"), "r")
    assert "\n      <d:disk target='xvdb'>r</d:disk>\n    </d:disks>" in second


def test_other_metadata_stays():
    text = load("ours-already.xml").replace("</d:disks>", "</d:disks><!-- a note -->")
    assert "<metadata><!-- a note -->\n  </metadata>" in domain_xml.drop(text, "xvda")
    assert "metadata" not in domain_xml.drop(load("ours-already.xml"), "xvda")


def test_line_ends_follow_the_document():
    added = domain_xml.put(load("xen-pv-virt-install.xml with CRLF"), NEW, RECIPE)
    assert added.count("\n") == added.count("\r\n") and "\r\r" not in added


def test_the_bus():
    text = domain_xml.put(load("xen-pv-virt-install.xml"), NEW, RECIPE)
    scsi = domain_xml.put(text, NEW._replace(bus="scsi"), RECIPE)
    assert Domain(scsi).disk("xvdq").bus == "scsi"
    # Without a wanted bus, the present bus is kept.
    assert domain_xml.put(scsi, NEW._replace(bus=None), RECIPE) == scsi
    assert domain_xml.put(scsi, NEW, RECIPE) == text


def test_an_address_is_one_of_a_bus():
    """It stays with the bus. It would not be valid on another one."""
    text = load("qemu-virt-install.xml")
    (disk,) = [disk for disk in Domain(text).disks() if disk.bus == "virtio"]
    assert "<address type='pci'" in disk.xml
    for bus, stays in ((None, True), ("virtio", True), ("sata", False)):
        changed = Domain(domain_xml.put(text, NEW._replace(target=disk.target, bus=bus), RECIPE))
        assert ("<address" in changed.disk(disk.target).xml) is stays


def test_two_recipes_for_one_disk():
    text = load("ours-already.xml").replace("</d:disks>", '<d:disk target="xvda">2</d:disk></d:disks>')
    with pytest.raises(DefinitionError, match="two recipes"):
        Domain(text).recipes()
    disk = Disk("xvda", "/dev/x")
    assert Domain(domain_xml.put(text, disk, "3")).recipes() == {"xvda": "3"}
    assert "metadata" not in domain_xml.drop(text, "xvda")


def test_excerpt():
    shown = domain_xml.excerpt(load("ours-already.xml"), "xvda")
    assert (
        shown.startswith("<disk type='block'")
        and shown.rstrip().endswith("</d:disk>")
        and "console" not in shown
    )
    assert domain_xml.excerpt(load("ours-already.xml"), "xvdb") == ""


def test_no_secret_of_another_element_is_shown():
    assert "s3cr3t" not in domain_xml.excerpt(load("xen-hvm-virt-manager.xml"), "hda")


BOMB = (
    '<!DOCTYPE d [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {b} "{("&" + a + ";") * 10}">' for a, b in zip("abcdefgh", "bcdefghi"))
    + "]>"
)


@pytest.mark.parametrize(
    "hostile, word",
    [
        (BOMB + "<domain><name>&i;</name></domain>", "document type"),
        ('<!DOCTYPE d SYSTEM "file:///etc/passwd"><domain/>', "document type"),
        (
            '<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]><domain><name>&x;</name></domain>',
            "document type",
        ),
        ("<domain><name>&x;</name></domain>", "undefined entity"),
        ("<domain>", "not XML"),
        ("", "not XML"),
        ("<domain></domain><domain/>", "not XML"),
        ("<domain>\0</domain>", "not XML"),
        ("<domain a='1' a='2'/>", "not XML"),
        ("<domain><x:y/></domain>", "not XML"),
        ("<network/>", "not of <domain>"),
        ("<domain xmlns='urn:x'/>", "not of <domain>"),
        ("<domain>" + "<a>" * 300 + "</a>" * 300 + "</domain>", "levels"),
        ("<domain>" + " " * 10_000_001 + "</domain>", "bytes"),
        ("<domain>\ud800</domain>", "characters"),
    ],
)
def test_hostile_documents(hostile, word):
    for function in (
        Domain,
        lambda text: domain_xml.put(text, NEW),
        lambda text: domain_xml.drop(text, "xvda"),
    ):
        with pytest.raises(DefinitionError, match=word):
            function(hostile)


def test_two_disks_with_one_target():
    text = load("xen-pv-virt-install.xml").replace(
        "<controller", "<disk><target dev='xvda'/></disk><controller"
    )
    with pytest.raises(DefinitionError, match="two disks xvda"):
        domain_xml.put(text, NEW._replace(target="xvda"))


@pytest.mark.parametrize(
    "target",
    [
        "",
        "../xvda",
        "xvda'",
        "xvda\n",
        "xvda/..",
        "xvda<",
        "XVDA",
        "xvd",
        None,
        5,
        "xvda" * 50,
        "xvda&",
        "sda\0",
    ],
)
def test_hostile_targets(target):
    with pytest.raises(InvalidValue):
        domain_xml.path_of("11111111-2222-3333-4444-55555555555b", target)
    with pytest.raises(InvalidValue):
        domain_xml.put(load("ours-already.xml"), Disk(target, "/dev/x"))


@pytest.mark.parametrize(
    "uuid",
    ["", "../../x", "11111111-2222-3333-4444-55555555555b\n", "11111111-2222-3333-4444-55555555555", None],
)
def test_hostile_uuids(uuid):
    with pytest.raises(InvalidValue):
        domain_xml.path_of(uuid, "xvda")


def test_names():
    uuid = "AA0B3A0E-9D1E-4B3E-8A52-0B1F6A1E7D77"
    assert (
        domain_xml.path_of(uuid, "xvda") == "/dev/mapper/racefree-aa0b3a0e-9d1e-4b3e-8a52-0b1f6a1e7d77-xvda"
    )
    assert domain_xml.path_of(uuid, "xvda").startswith(domain_xml.PATHS)
    assert (
        domain_xml.mapped_uuid(uuid, "hda1") == "RACEFREE-LIBVIRT-aa0b3a0e-9d1e-4b3e-8a52-0b1f6a1e7d77-hda1"
    )
    assert len(domain_xml.mapped_name(uuid, "xvdzzz999")) < 128


# Properties

# Everything that XML can express, with a preference for characters that are special in it.
CHARACTERS = st.characters(
    codec="utf-8",
    exclude_categories=("Cs",),
    exclude_characters="".join(map(chr, [*range(9), 11, 12, *range(14, 32), 0xFFFE, 0xFFFF])),
)
TEXTS = st.text(st.one_of(st.sampled_from("<>&'\"]\n\r\t ;"), CHARACTERS), max_size=40)
PATHS = TEXTS.filter(lambda text: text)
TARGETS = st.sampled_from(["xvda", "xvdb", "vda", "hda", "sda", "xvdq"])
DISKS = st.builds(
    Disk,
    TARGETS,
    PATHS,
    st.sampled_from(["phy", "qemu"]),
    st.sampled_from(["disk", "cdrom"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, "xen", "scsi"]),
)


@given(st.sampled_from(FILES + VARIANTS), DISKS, TEXTS)
def test_any_disk_is_read_back(name, disk, recipe):
    text = load(name)
    changed = domain_xml.put(text, disk, recipe)
    found = Domain(changed)
    assert found.disk(disk.target).serves(disk)
    # XML normalizes line ends, and libvirt may change the white space around the text.
    assert found.recipes()[disk.target] == recipe.replace("\r\n", "\n").replace("\r", "\n").strip()
    old = Domain(text)
    assert [other for other in found.disks() if other.target != disk.target] == [
        other for other in old.disks() if other.target != disk.target
    ]
    ElementTree.fromstring(changed.lstrip("\ufeff").encode())
    if recipe == recipe.strip() and "\r" not in recipe:
        assert domain_xml.put(changed, disk, recipe) == changed
    if old.disk(disk.target) is None:
        assert meaning(domain_xml.drop(changed, disk.target)) == meaning(text)
    else:
        assert domain_xml.drop(changed, disk.target) == domain_xml.drop(text, disk.target)


@given(
    st.sampled_from(FILES),
    st.lists(
        st.tuples(TARGETS, st.sampled_from(["put", "drop"]), st.sampled_from(["/dev/x", "/dev/y"])),
        max_size=8,
    ),
)
def test_any_order_of_changes(name, steps):
    """Afterwards, each target is as its last step left it, and the rest is unchanged."""
    text = load(name)
    expected = {disk.target: disk.source for disk in Domain(text).disks()}
    for target, what, path in steps:
        if what == "put":
            text = domain_xml.put(text, Disk(target, path), path)
            expected[target] = path
        else:
            text = domain_xml.drop(text, target)
            expected.pop(target, None)
    assert {disk.target: disk.source for disk in Domain(text).disks()} == expected
    for target in {step[0] for step in steps} | set(expected):
        text = domain_xml.drop(text, target)
    bare = load(name)
    for disk in Domain(bare).disks():
        bare = domain_xml.drop(bare, disk.target)
    assert meaning(text) == meaning(bare)


GAPS = st.sampled_from(["", " ", "\n  ", "<!-- <a> -->", "<![CDATA[</x>]]>", "<?p ?>"])
NAMES = st.sampled_from(["disk", "x", "devices", "metadata"])


def element_text(gap, name, value, children):
    return f"{gap}<{name} a={xml_edit.quoted(value)}>{''.join(children)}</{name}>"


@given(
    st.recursive(
        st.builds(xml_edit.text_of, TEXTS),
        lambda inner: st.builds(element_text, GAPS, NAMES, TEXTS, st.lists(inner, max_size=4)),
        max_leaves=12,
    )
)
def test_spans_are_where_the_elements_are(content):
    text = f"<domain>{content}</domain>"
    root = xml_edit.parse(text.encode())
    raw = text.encode()

    def check(element, twin):
        # The element's text, parsed alone, must equal the element that another parser found.
        piece = ElementTree.fromstring(raw[element.start : element.end])
        twin.tail = None
        assert ElementTree.tostring(piece) == ElementTree.tostring(twin)
        assert (piece.tag, piece.attrib) == (element.name, element.attributes)
        assert len(element.children) == len(twin)
        for child, other in zip(element.children, twin):
            check(child, other)

    check(root, ElementTree.fromstring(raw))


@given(st.binary(max_size=300), st.sampled_from(FILES), st.integers(0, 2000))
def test_broken_documents_are_refused_or_parsed(garbage, name, at):
    text = load(name)
    assume(at < len(text))
    broken = text[:at] + garbage.decode("utf-8", "surrogateescape") + text[at + len(garbage) :]
    try:
        changed = domain_xml.put(broken, NEW, RECIPE)
    except BlockError:
        return
    assert Domain(changed).disk("xvdq").serves(NEW)


def test_an_empty_cd_drive():
    """It is added, gets a medium and loses it; a second time changes nothing."""
    text = "<domain type='kvm'><name>a</name><devices>\n  <emulator>x</emulator>\n</devices></domain>"
    empty = Disk("hdc", None, "qemu", "cdrom", read_only=True)
    loaded = empty._replace(path="/dev/mapper/racefree-x")
    added = domain_xml.put(text, empty)
    assert domain_xml.put(added, empty) == added and "<source" not in added
    full = domain_xml.put(added, loaded, "{}")
    assert (
        Domain(full).disk("hdc").source == "/dev/mapper/racefree-x"
        and domain_xml.put(full, loaded, "{}") == full
    )
    ejected = domain_xml.put(full, empty)
    assert Domain(ejected).disk("hdc").source is None and Domain(ejected).recipes() == {}
    assert domain_xml.put(ejected, empty) == ejected
    # As libvirt lists a drive that was empty from the start.
    listed = added.replace("type='block'", "type='file'")
    assert domain_xml.put(listed, empty) == listed
