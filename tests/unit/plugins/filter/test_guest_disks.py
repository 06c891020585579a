# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filters guest_disk_files and guest_disk_entries."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.racefree.block.plugins.filter.guest_disk_entries import FilterModule as Entries
from ansible_collections.racefree.block.plugins.filter.guest_disk_files import FilterModule as Files
from ansible_collections.racefree.block.plugins.module_utils import _kept_recipe, _source

entries = Entries().filters()["guest_disk_entries"]
files = Files().filters()["guest_disk_files"]

GUESTS = [
    {"domain": "web1", "disks": [
        {"vdev": "xvda", "image": "/golden.raw", "file": "/web1.cow", "size": "1M"},
        {"vdev": "xvdb", "file": "/web1.raw", "size": "2M", "mode": "r"},
        {"vdev": "xvdc", "source": "/dev/mapper/vg-a"},
    ]},
    {"domain": "old1", "disks": [{"vdev": "xvda", "file": "/old1.raw", "state": "absent", "remove_file": True}]},
]
SIZES = {"/golden.raw": 4096, "/web1.cow": 2**20, "/web1.raw": 2**20}


def one(**disk):
    return [{"domain": "g", "disks": [dict({"vdev": "xvda"}, **disk)]}]


def test_files():
    found = files(GUESTS)
    assert [(file["path"], file["size"], file["state"], file["remove"]) for file in found] == [
        ("/web1.cow", 2**20, "present", False), ("/web1.raw", 2**21, "present", False), ("/old1.raw", None, "absent", True),
    ]
    assert [file["path"] for file in files(GUESTS, sizes=SIZES)] == ["/web1.raw"]
    assert files(GUESTS, sizes=dict(SIZES, **{"/web1.raw": 2**21})) == []


def test_entries():
    found = entries(GUESTS, sizes=SIZES, common={"uri": "test:///default"})
    assert [(entry["domain"], entry["vdev"], entry["state"], entry["uri"]) for entry in found] == [
        ("web1", vdev, "present", "test:///default") for vdev in ("xvda", "xvdb", "xvdc")
    ]
    assert found[0]["source"]["table"][0]["length"] == 8 and found[1] == {
        "domain": "web1", "vdev": "xvdb", "state": "present", "uri": "test:///default", "source": {"file": "/web1.raw"}, "mode": "r",
    }
    for entry in found:
        assert _kept_recipe.text_of(_source.parse(entry["source"]))
    assert entries(GUESTS, state="absent") == [{"domain": "old1", "vdev": "xvda", "state": "absent"}]
    # In check mode the files are not there yet.
    assert [entry["vdev"] for entry in entries(GUESTS, sizes={})] == ["xvdc"]


@pytest.mark.parametrize("guests, words", [
    ({}, "a list of guests"),
    ([{"domain": "a"}], "a list of disks"),
    ([{"disks": []}], "domain"),
    (one(), "either file or source"),
    (one(file="/a", source="/dev/b"), "either file or source"),
    (one(file="a"), "absolute path"),
    (one(source="/dev/a", image="/b"), "only with file"),
    (one(file="/a", state="gone"), "present or absent"),
    (one(file="/a", fil="/b"), "no such option"),
    (one(file="/a", size="big"), "bytes"),
    (one(file="/a", size="513"), "whole sectors"),
    (one(file="/a", size=0), "bytes"),
    (one(file="/a", size=True), "bytes"),
    (one(file="/a") + [{"domain": "h", "disks": [{"vdev": "xvda", "file": "/a"}]}], "a file of its own"),
])
def test_refused(guests, words):
    with pytest.raises(AnsibleFilterError, match=words):
        files(guests)


@pytest.mark.parametrize("guests, sizes, words", [
    (one(file="/a", size="1M"), {"/a": 2**21}, "lose data"),
    (one(file="/a"), {}, "to be made"),
    (one(file="/a", size="1M", image="/g"), {}, "an image that is there"),
])
def test_what_is_there_does_not_fit(guests, sizes, words):
    with pytest.raises(AnsibleFilterError, match=words):
        files(guests, sizes=sizes)


def test_an_odd_image():
    with pytest.raises(AnsibleFilterError, match="whole sectors"):
        entries(one(file="/a", image="/g"), sizes={"/a": 512, "/g": 700})
