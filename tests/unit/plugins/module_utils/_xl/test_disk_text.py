# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Texts of single disks, in both syntaxes and their mixtures, from xl-disk-configuration(5)."""

from __future__ import annotations

import pytest
from ansible_collections.racefree.block.plugins.module_utils._xl import disk_text
from ansible_collections.racefree.block.plugins.module_utils._xl.disk_text import DiskText
from hypothesis import given
from hypothesis import strategies as st

DISK = DiskText("hda", "/dev/vg/guest-volume", "w", "disk", "raw")
CDROM = DiskText("hdc", "/root/image.iso", "r", "cdrom", "raw")


@pytest.mark.parametrize(
    "text, says",
    [
        ("/dev/vg/guest-volume,,hda", DISK),
        ("/dev/vg/guest-volume,raw,hda,rw", DISK),
        ("format=raw, vdev=hda, access=rw, target=/dev/vg/guest-volume", DISK),
        ("raw:/dev/vg/guest-volume,hda,w", DISK),
        ("/root/image.iso,,hdc,cdrom", CDROM),
        ("/root/image.iso,,hdc,,cdrom", CDROM),
        ("/root/image.iso,raw,hdc,devtype=cdrom", CDROM),
        ("format=raw, vdev=hdc, access=ro, devtype=cdrom, target=/root/image.iso", CDROM),
        ("raw:/root/image.iso,hdc:cdrom,ro", CDROM),
        ("phy:vg0/a,xvda1,r", DiskText("xvda1", "vg0/a", "r")),
        ("tap:aio:/a.img,ioemu:hda,w", DiskText("hda", "/a.img")),
        (",hdc:cdrom,r", DiskText("hdc", "", "r", "cdrom", "empty")),
        ("vdev=hdc,cdrom", DiskText("hdc", "", "r", "cdrom")),
        ("vdev=xvda,target=a,b = c: d ", DiskText("xvda", "a,b = c: d ")),
        ("vdev=xvda,target=a,b,,", DiskText("xvda", "a,b,")),
        ("iscsi:iqn-a,xvda,w", DiskText("xvda", "iqn-a", script="block-iscsi")),
        ("script=block-rbd,vdev=xvda,target=rbd:a", DiskText("xvda", "rbd:a", script="block-rbd")),
        ("rbd:a,,xvda", DiskText("xvda", "rbd:a", format="raw")),
        ("a,vdev=xvda,backend=storage,discard", DiskText("xvda", "a", backend="storage")),
        ("  a , raw,xvda", None),
        (
            "a,raw,xvda, direct-io-safe,no-discard,untrusted,specification=virtio",
            DiskText("xvda", "a", format="raw"),
        ),
    ],
)
def test_the_examples(text, says):
    if says is None:
        with pytest.raises(ValueError):
            disk_text.parse(text + ",w,w")
    else:
        assert disk_text.parse(text) == says


@pytest.mark.parametrize(
    "text, recipe",
    [
        ("vdev=xvda,access=w,script=block-racefree,target=recipe:web1-xvda", "web1-xvda"),
        ("vdev=xvda,script=/etc/xen/scripts/block-racefree,target=recipe:a", "a"),
        ("vdev=xvda,script=block-racefree,target=file:/a", None),
        ("vdev=xvda,script=block-other,target=recipe:a", None),
        ("vdev=xvda,target=recipe:a", None),
    ],
)
def test_the_recipe_of_a_disk(text, recipe):
    assert disk_text.parse(text).recipe == recipe


@given(
    st.sampled_from(["xvda", "sda3", "hdc", "d5p2"]),
    st.text("abcXYZ09_.+-", min_size=1),
    st.sampled_from(["r", "w"]),
    st.sampled_from(["disk", "cdrom"]),
)
def test_a_formatted_disk_is_parsed_back(vdev, name, access, device_type):
    access = "r" if device_type == "cdrom" else access
    says = DiskText(vdev, f"recipe:{name}", access, device_type, script=disk_text.SCRIPT)
    assert disk_text.parse(disk_text.written(says)) == says


def test_one_disk_by_several_names():
    assert disk_text.key_of("xvdb") == disk_text.key_of("51728") == disk_text.key_of("d1")
    assert disk_text.key_of("nonsense") == "nonsense"
