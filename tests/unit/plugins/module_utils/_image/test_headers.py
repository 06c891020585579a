# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Headers of images: what is read from them, and that nothing that they name is overlooked."""

from __future__ import annotations

import random
import struct
import subprocess

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import InvalidValue
from ansible_collections.racefree.block.plugins.module_utils._image import qcow2, vhdx, vmdk
from ansible_collections.racefree.block.plugins.module_utils._image.header import Header, Named

SIZE = 1 << 20
PARSERS = {"qcow2": qcow2.parse, "vmdk": vmdk.parse, "vhdx": vhdx.parse}


def parsed(data, form="qcow2"):
    return PARSERS[form](lambda at, length: data[at : at + length], "/x")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """``{name: bytes}`` of small images by qemu-img; "FORMAT+" names a backing file."""
    place, found = tmp_path_factory.mktemp("images"), {}
    for form in PARSERS:
        for name, words in ((form, ()), (f"{form}+", ("-b", "base", "-F", form))):
            if name == "vhdx+":
                continue
            if words:
                subprocess.run(
                    ["qemu-img", "create", "-q", "-f", form, str(place / "base"), str(SIZE)],
                    check=True,
                    timeout=60,
                )
            command = ["qemu-img", "create", "-q", "-f", form, *words, str(place / "image"), str(SIZE)]
            subprocess.run(command, check=True, timeout=60)
            found[name] = (place / "image").read_bytes()
    return found


@pytest.mark.parametrize("form", PARSERS)
def test_images_of_qemu(images, form):
    assert parsed(images[form], form) == Header(SIZE)
    if f"{form}+" in images:
        assert parsed(images[f"{form}+"], form) == Header(SIZE, (Named("backing", "base", form),))


@pytest.mark.parametrize("name", ["qcow2", "qcow2+", "vmdk", "vmdk+", "vhdx"])
def test_damaged_headers(images, name):
    """Every image is understood or refused; other exceptions would be unclear errors."""
    form, chance = name.rstrip("+"), random.Random(name)
    image = images[name][: 4 << 20]
    # Where headers are: of qcow2 and VMDK at the beginning, of VHDX also in these places.
    places = [0] if form != "vhdx" else [0, 192 << 10, 256 << 10, 2 << 20]
    refused = 0
    for dummy in range(200):
        data = bytearray(image)
        for dummy in range(chance.choice((1, 2, 8))):
            data[chance.choice(places) + chance.randrange(200)] = chance.randrange(256)
        try:
            parsed(bytes(data[: chance.choice((len(data), len(data), chance.randrange(len(data))))]), form)
        except InvalidValue:
            refused += 1
    assert 30 < refused


def changed(data, at, layout, value):
    data = bytearray(data)
    struct.pack_into(layout, data, at, value)
    return bytes(data)


QCOW2 = {
    "version 1": (4, ">I", 1, "version 1"),
    "version 4": (4, ">I", 4, "version 4"),
    "encrypted": (32, ">I", 1, "is encrypted"),
    "clusters of 2 TiB": (20, ">I", 41, "clusters of 2^41 bytes"),
    "no size": (24, ">Q", 0, "must have a multiple of 512"),
    "a size of 513 bytes": (24, ">Q", 513, "must have a multiple of 512"),
    "a size of 16 EiB": (24, ">Q", 2**64 - 512, "must have a multiple of 512"),
    "corrupt": (72, ">Q", 2, "marked as corrupt"),
    "unknown features": (72, ">Q", 1 << 40, "unknown features"),
    "data elsewhere": (72, ">Q", 4, "does not name it"),
    "a header of 8 bytes": (100, ">I", 8, "a header of 8 bytes"),
}


@pytest.mark.parametrize("case", QCOW2)
def test_qcow2_images_that_are_refused(images, case):
    at, layout, value, part = QCOW2[case]
    with pytest.raises(InvalidValue, match=part.replace("^", r"\^")):
        parsed(changed(images["qcow2"], at, layout, value))


@pytest.mark.parametrize(
    "at, length, part", [(1 << 40, 4, "ends within"), (512, 5000, "5000 bytes"), (512, 0, "0 bytes")]
)
def test_qcow2_backing_names_that_are_refused(images, at, length, part):
    data = changed(changed(images["qcow2"], 8, ">Q", at), 16, ">I", length)
    with pytest.raises(InvalidValue, match=part):
        parsed(data)


def test_a_vmdk_header_without_data(images):
    """With a capacity of 0, QEMU opens the files of the descriptor within the image."""
    with pytest.raises(InvalidValue, match="has no data itself"):
        parsed(changed(images["vmdk"], 12, "<Q", 0), "vmdk")
    with pytest.raises(InvalidValue, match="descriptor in sector 7"):
        parsed(changed(images["vmdk"], 28, "<Q", 7), "vmdk")


TEXT = """# Disk DescriptorFile
version=1
CID=fffffffe
parentCID=ffffffff
createType="twoGbMaxExtentFlat"
RW 2048 FLAT "a-f001.vmdk" 0
RW 1024 FLAT "a-f002.vmdk" 128
RW 1024 VMFS "/vmfs/a b-flat.vmdk"
RW 2048 SPARSE "a-s004.vmdk"
ddb.adapterType = "ide"
"""


def test_a_vmdk_descriptor():
    found = parsed(TEXT.encode(), "vmdk")
    assert found.size == 6144 * 512
    assert [(row.name, row.format) for row in found.named] == [
        ("a-f001.vmdk", "raw"),
        ("a-f002.vmdk", "raw"),
        ("/vmfs/a b-flat.vmdk", "raw"),
        ("a-s004.vmdk", "vmdk"),
    ]
    assert vmdk.descriptor(found, ["/1", "/2", "/3", "/4"]).decode().splitlines() == [
        "# Disk DescriptorFile",
        "version=1",
        "CID=fffffffe",
        "parentCID=ffffffff",
        'createType="twoGbMaxExtentSparse"',
        'RW 2048 FLAT "/1" 0',
        'RW 1024 FLAT "/2" 128',
        'RW 1024 FLAT "/3" 0',
        'RW 2048 SPARSE "/4"',
    ]


def test_a_vmdk_descriptor_with_a_parent():
    text = TEXT.replace("createType", 'parentFileNameHint="base.vmdk"\ncreateType')
    assert parsed(text.encode(), "vmdk").named[0] == Named("backing", "base.vmdk", "vmdk")


# QEMU reads an extent over several lines, and skips those that it does not know.
@pytest.mark.parametrize(
    "line, part",
    [
        ('RW\n2048 FLAT\n"/etc/shadow" 0', "line 6 is not understood"),
        ("RW 2048 ZERO", "kind RW ZERO in line 6"),
        ('NOACCESS 2048 FLAT "x" 0', "kind NOACCESS FLAT"),
        ('RW 2048 SESPARSE "x"', "kind RW SESPARSE"),
        ('RW 2048 FLAT "x"', "line 6 that is not understood"),
        ('RW 2048 SPARSE "x" 0', "line 6 that is not understood"),
        ('RW 0 FLAT "x" 0', "line 6 that is not understood"),
        ("nonsense", "line 6 is not understood"),
        ('parentFileNameHint="a"\nparentFileNameHint="b"', "names a parent image in a way"),
        ("parentFileNameHint=a", "names a parent image in a way"),
    ],
)
def test_vmdk_descriptors_that_are_refused(line, part):
    text = TEXT.replace("RW 2048 FLAT", f"{line}\nRW 2048 FLAT", 1)
    with pytest.raises(InvalidValue, match=part):
        parsed(text.encode(), "vmdk")


def test_no_vmdk_image():
    for data in (b"", b"\xff\xfe", b"CID=1\n"):
        with pytest.raises(InvalidValue):
            parsed(data, "vmdk")


def test_a_vhdx_image_with_a_parent(images):
    data = images["vhdx"]
    at = data.index(vhdx._METADATA_SIGNATURE)
    items = data.index(vhdx._PARAMETERS.bytes_le, at)
    where = at + struct.unpack_from("<I", data, items + 16)[0]
    with pytest.raises(InvalidValue, match="differs from a parent image"):
        parsed(changed(data, where + 4, "<I", 2), "vhdx")
    with pytest.raises(InvalidValue, match="no region table, or two that differ"):
        where = data.index(vhdx._METADATA.bytes_le, 192 << 10)
        parsed(changed(data, where + 16, "<Q", 5 << 20), "vhdx")
