# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import InvalidValue, XenStoreError
from ansible_collections.racefree.block.plugins.module_utils._xen import vbd_nodes
from ansible_collections.racefree.block.plugins.module_utils._xen.vbd_nodes import Disk, Key
from hypothesis import given
from hypothesis import strategies as st

KEY = Key(5, 51712)
BACK = "/local/domain/0/backend/vbd/5/51712"
FRONT = "/local/domain/5/device/vbd/51712"
DISK = Disk(dev="xvda", params="/dev/loop7", writable=True, protocol="x86_64-abi")
IDENTITY = vbd_nodes.identity("diskseq", 7, 7, 42, "/dev/loop7")

# As written by "xl block-attach guest /dev/loop0,raw,xvdb,w" on Xen 4.17, read with xenstore-ls -fp.
XL_BACK = {
    "frontend": FRONT,
    "params": "/dev/loop7",
    "script": "/etc/xen/scripts/block",
    "frontend-id": "5",
    "online": "1",
    "removable": "0",
    "bootable": "1",
    "state": "1",
    "dev": "xvda",
    "type": "phy",
    "mode": "w",
    "device-type": "disk",
    "discard-enable": "1",
    "specification": "xen",
    "physical-device": "7:7",
    "physical-device-path": "/dev/loop7",
    "hotplug-status": "connected",
}
XL_FRONT = {
    "backend": BACK,
    "backend-id": "0",
    "state": "1",
    "virtual-device": "51712",
    "device-type": "disk",
    "trusted": "1",
    "protocol": "x86_64-abi",
}


def below(nodes, root):
    return {path[len(root) + 1 :]: value for path, value, dummy in nodes if path.startswith(root + "/")}


def permissions(nodes):
    return {path: perms for path, dummy, perms in nodes if perms is not None}


def test_the_nodes_are_those_of_libxl_and_its_script():
    nodes = vbd_nodes.layout(KEY, DISK, IDENTITY)
    assert below(nodes, BACK) == dict(XL_BACK, diskseq="2a")
    assert below(nodes, FRONT) == XL_FRONT
    copy = {
        name: value
        for name, value in XL_BACK.items()
        if name not in ("physical-device", "physical-device-path", "hotplug-status")
    }
    assert below(nodes, "/libxl/5/device/vbd/51712") == dict(copy, frontend=FRONT, backend=BACK)


def test_the_guest_cannot_write_the_backends_nodes():
    nodes = vbd_nodes.layout(KEY, DISK, IDENTITY)
    given_perms = permissions(nodes)
    assert given_perms[BACK] == ["n0", "r5"]
    assert given_perms[FRONT] == ["n5", "r0"]
    assert all(perms == ["n5", "r0"] for path, perms in given_perms.items() if path != BACK)
    # A node without permissions of its own inherits its directory's, so a directory is created before its
    # contents.
    paths = [path for path, dummy, dummy2 in nodes]
    assert paths.index(BACK) < min(index for index, path in enumerate(paths) if path.startswith(BACK + "/"))


def test_the_device_number_is_written_last():
    names = [path.rpartition("/")[2] for path, dummy, dummy2 in vbd_nodes.layout(KEY, DISK, IDENTITY)]
    assert names[-4:] == ["physical-device-path", "diskseq", "physical-device", "hotplug-status"]


@pytest.mark.parametrize(
    "disk, expected",
    [
        (DISK._replace(writable=False), {"mode": "r", "discard-enable": "0"}),
        (DISK._replace(discard=False), {"mode": "w", "discard-enable": "0"}),
        (DISK._replace(cdrom=True, writable=False), {"device-type": "cdrom", "removable": "1", "mode": "r"}),
        (DISK._replace(params="/dev/mapper/x"), {"params": "/dev/mapper/x"}),
    ],
)
def test_optional_settings(disk, expected):
    back = below(vbd_nodes.layout(KEY, disk, IDENTITY), BACK)
    assert {name: back[name] for name in expected} == expected


def test_a_guest_that_is_not_pv_gets_no_protocol():
    assert "protocol" not in below(vbd_nodes.layout(KEY, DISK._replace(protocol=None), IDENTITY), FRONT)


@pytest.mark.parametrize(
    "form, nodes",
    [
        ("diskseq", [("diskseq", "1f"), ("physical-device", "fd:104")]),
        ("diskseq@number", [("physical-device", "1f@fd:104")]),
        ("physical-device-uuid", [("physical-device-uuid", "1f"), ("physical-device", "fd:104")]),
        ("physical-device-luid", [("physical-device-luid", "1f"), ("physical-device", "fd:104")]),
        ("physical-device-uid", [("physical-device-uid", "1f"), ("physical-device", "fd:104")]),
    ],
)
def test_forms_of_the_sequence_number(form, nodes):
    assert (
        vbd_nodes.identity(form, 253, 260, 31, "/dev/dm-260")
        == [("physical-device-path", "/dev/dm-260")] + nodes
    )


def test_an_unknown_form():
    with pytest.raises(InvalidValue):
        vbd_nodes.identity("uuid", 7, 0, 1, "/dev/loop0")


def values(back, front_state="4", error=None):
    found = dict.fromkeys(vbd_nodes.read_paths(KEY))
    found.update({f"{BACK}/{name}": value for name, value in back.items()})
    found[f"{FRONT}/state"] = front_state
    found[f"{KEY.backend_error}/error"] = error
    return found


GOOD = dict(XL_BACK, state="4", diskseq="2a")


def test_reading():
    vbd = vbd_nodes.from_nodes(KEY, values(GOOD))
    assert (
        vbd.state,
        vbd.frontend_state,
        vbd.number,
        vbd.diskseq,
        vbd.writable,
        vbd.cdrom,
        vbd.online,
        vbd.opened,
    ) == (4, 4, (7, 7), 42, True, False, True, None)
    assert vbd.as_dict()["connected"] is True
    assert vbd_nodes.from_nodes(KEY, values({}, None)) is None
    assert vbd_nodes.from_nodes(KEY, values(dict(GOOD, opened="0"))).opened is False
    assert vbd_nodes.from_nodes(KEY, values(dict(GOOD, mode="r"))).writable is False
    assert vbd_nodes.from_nodes(KEY, values(GOOD, error="2 failed to open")).error == "2 failed to open"


@pytest.mark.parametrize(
    "name, value",
    [
        ("physical-device", junk)
        for junk in (
            "",
            "7",
            "7:",
            ":7",
            "7:7 ",
            " 7:7",
            "7:7\0",
            "7:7\n",
            "0x7:7",
            "7:g",
            "-7:7",
            "7:123456",
            "1234:7",
            "FD:0",
            "2A@7:7",
            "0@7:7",
            "02a@7:7",
            "@7:7",
            "12345678901234567@7:7",
            "7:7@2a",
            "\\xff:7",
        )
    ]
    + [
        (name, junk)
        for name in ("diskseq", "physical-device-uuid", "physical-device-luid", "physical-device-uid")
        for junk in ("", "0", "02a", "2A", "0x2a", "2a ", "2a\0", "2a\n", "-1", "12345678901234567", "g")
    ]
    + [
        ("state", "9"),
        ("state", "44"),
        ("state", ""),
        ("state", "4\0"),
        ("online", "2"),
        ("online", "yes"),
        ("mode", "x"),
        ("mode", ""),
        ("mode", "w\0"),
        ("device-type", "floppy"),
        ("frontend-id", "05"),
        ("frontend-id", "6"),
        ("frontend-id", "x"),
        ("frontend", "x"),
        ("opened", "2"),
        ("opened", ""),
        ("dev", ""),
        ("dev", "xvda\0"),
        ("params", "a\0b"),
        ("physical-device-path", "loop7"),
        ("script", "\n"),
    ],
)
def test_invalid_nodes_are_named(name, value):
    with pytest.raises(XenStoreError) as caught:
        vbd_nodes.from_nodes(KEY, values(dict(GOOD, **{name: value})))
    assert caught.value.device == f"{BACK}/{name}"


def test_contradicting_sequence_numbers():
    with pytest.raises(XenStoreError, match="different disk sequence numbers"):
        vbd_nodes.from_nodes(KEY, values(dict(GOOD, **{"physical-device": "2b@7:7"})))
    assert vbd_nodes.from_nodes(KEY, values(dict(GOOD, **{"physical-device": "2a@7:7"}))).diskseq == 42


@pytest.mark.parametrize("junk", ["", "9", "4\0", "x" * 3000, "\\xff", "-1"])
def test_invalid_nodes_of_the_guest_are_ignored(junk):
    assert vbd_nodes.from_nodes(KEY, values(GOOD, junk)).frontend_state is None


@given(
    st.sampled_from(sorted(vbd_nodes.FORMS)),
    st.integers(0, 4095),
    st.integers(0, (1 << 20) - 1),
    st.integers(1, (1 << 64) - 1),
    st.integers(1, 0x7FEF),
    st.integers(1, (2 << 28) - 1),
)
def test_written_nodes_are_read_back(form, major, minor, diskseq, domid, devid):
    key = Key(domid, devid)
    nodes = vbd_nodes.layout(key, DISK, vbd_nodes.identity(form, major, minor, diskseq, "/dev/x"))
    found = dict.fromkeys(vbd_nodes.read_paths(key))
    found.update({path: value for path, value, dummy in nodes if path in found})
    vbd = vbd_nodes.from_nodes(key, found)
    assert (vbd.number, vbd.diskseq, vbd.writable, vbd.state, vbd.frontend_state) == (
        (major, minor),
        diskseq,
        True,
        1,
        1,
    )


@given(st.text(max_size=40))
def test_any_text_as_number_is_parsed_or_refused(text):
    try:
        vbd = vbd_nodes.from_nodes(KEY, values(dict(GOOD, **{"physical-device": text})))
    except XenStoreError:
        return
    assert (
        vbd_nodes.number_text(*vbd.number) == text.rpartition("@")[2]
        or int(text.rpartition("@")[2].split(":")[0], 16) == vbd.number[0]
    )
