# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import InvalidValue
from ansible_collections.racefree.block.plugins.module_utils._xen import vdev as _vdev
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    "text, number, name",
    [
        ("xvda", 51712, "xvda"),
        ("xvdb", 51728, "xvdb"),
        ("xvdb2", 51730, "xvdb2"),
        ("xvdp15", 51967, "xvdp15"),
        ("d0", 51712, "xvda"),
        ("d0p0", 51712, "xvda"),
        ("d1p2", 51730, "xvdb2"),
        ("xvdq", (1 << 28) | (16 << 8), "xvdq"),
        ("d16", 268439552, "xvdq"),
        ("xvda16", (1 << 28) | 16, "xvda16"),
        ("xvdz", (1 << 28) | (25 << 8), "xvdz"),
        ("xvdaa", (1 << 28) | (26 << 8), "xvdaa"),
        # The example in xen-vbd-interface(7).
        ("d536p37", (1 << 28) | (536 << 8) | 37, "xvdtq37"),
        ("xvdtq37", (1 << 28) | (536 << 8) | 37, "xvdtq37"),
        ("d1048575p255", (1 << 28) | (1048575 << 8) | 255, "xvdbgqcv255"),
        ("hda", 768, "hda"),
        ("hdb", 832, "hdb"),
        ("hdb63", 895, "hdb63"),
        ("hdc", 5632, "hdc"),
        ("hdc2", 5634, "hdc2"),
        ("hdd", 5696, "hdd"),
        ("sda", 2048, "sda"),
        ("sdb3", 2067, "sdb3"),
        ("sdp15", 2303, "sdp15"),
        ("51712", 51712, "xvda"),
        (51712, 51712, "xvda"),
        ("0xca00", 51712, "xvda"),
        ("0xCA10", 51728, "xvdb"),
        (768, 768, "hda"),
        ("268439552", 268439552, "xvdq"),
        ("0x10001000", 268439552, "xvdq"),
    ],
)
def test_known_encodings(text, number, name):
    vdev = _vdev.parse(text)
    assert (vdev.number, vdev.name) == (number, name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "xvd",
        "xvda0",
        "xvda01",
        "xvda256",
        "XVDA",
        "xvda ",
        " xvda",
        "xvda\n",
        "xvd1",
        "xvdbgqcw",
        "xvdzzzzzz",
        "hde",
        "hda64",
        "sdq",
        "sda16",
        "d",
        "d01",
        "d0p01",
        "d0p256",
        "d1048576",
        "d-1",
        "dp1",
        "d0p",
        "d0x10p1",
        "vda",
        "/dev/xvda",
        "0",
        "1",
        "051712",
        "0145000",
        "-51712",
        "+51712",
        "51712.0",
        "0x",
        "268435456",
        "536870912",
        "99999999999",
        "0xffffffff",
        "1 2",
        None,
        True,
        51712.0,
        "\u0661",
        "xvd\u00e9",
    ],
)
def test_invalid_names(text):
    with pytest.raises(InvalidValue, match="vdev"):
        _vdev.parse(text)


disks = st.one_of(
    st.builds(_vdev.Vdev, st.just("xvd"), st.integers(0, (1 << 20) - 1), st.integers(0, 255)),
    st.builds(_vdev.Vdev, st.just("hd"), st.integers(0, 3), st.integers(0, 63)),
    st.builds(_vdev.Vdev, st.just("sd"), st.integers(0, 15), st.integers(0, 15)),
)


@given(disks)
def test_names_and_numbers_are_converted_back(vdev):
    assert _vdev.parse(vdev.name) == vdev
    assert _vdev.parse(vdev.number) == vdev
    assert _vdev.parse(str(vdev.number)) == vdev
    assert _vdev.parse(hex(vdev.number)) == vdev
    assert 0 < vdev.number < 2 << 28
    if vdev.kind == "xvd":
        assert _vdev.parse(f"d{vdev.disk}p{vdev.partition}") == vdev


@given(st.integers(0, 1 << 33))
def test_a_number_has_one_name_or_none(number):
    vdev = _vdev.decode(number)
    if vdev is None:
        assert _vdev.name_of(number) == str(number)
    else:
        assert vdev.number == number
        assert _vdev.parse(_vdev.name_of(number)) == vdev


@given(disks, disks)
def test_different_disks_have_different_numbers(one, other):
    assert (one == other) == (one.number == other.number) == (one.name == other.name)


@given(st.text(max_size=12))
def test_any_text_is_a_disk_or_a_clear_error(text):
    try:
        vdev = _vdev.parse(text)
    except InvalidValue:
        return
    assert _vdev.parse(vdev.name) == vdev
