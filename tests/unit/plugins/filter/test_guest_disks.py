# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filters guest_disk_files and guest_disk_entries."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible.module_utils.parsing.convert_bool import boolean

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
    assert entries(GUESTS, state="absent") == [{"domain": "old1", "vdev": "xvda", "state": "absent", "source": {"file": "/old1.raw"}}]
    # In check mode the files are not there yet.
    assert [entry["vdev"] for entry in entries(GUESTS, sizes={}, check_mode=True)] == ["xvdc"]


@pytest.mark.parametrize("there", [{}, {"/golden.raw": 4096, "/web1.raw": 512}, {"/web1.cow": 512, "/web1.raw": 512}])
def test_a_file_that_is_missing(there):
    with pytest.raises(AnsibleFilterError, match=r"guests\[0\].disks\[0\].(file|image).*that is there"):
        entries(GUESTS, sizes=there)


@pytest.mark.parametrize("size, found", [(0, 0), (700, 0), (512, 1), (2**20, 1)])
def test_a_file_that_is_yet_to_grow_into_a_disk(size, found):
    assert len(entries(one(file="/a", size="1M"), sizes={"/a": size}, check_mode=True)) == found


def test_what_is_removed_must_be_that_disk():
    """An absent entry says which disk it means, as libvirt_disk keeps it."""

    def source(sizes, **disk):
        entry, = entries(one(state="absent", **disk), state="absent", sizes=sizes)
        return entry.get("source"), entry.get("mode")

    assert source({}, file="/a") == ({"file": "/a"}, None)
    assert source({}, file="/a", mode="r") == ({"file": "/a"}, "r")
    assert source({}, source="/dev/vg/a") == ("/dev/vg/a", None)
    assert source({}) == (None, None)
    made = entries(one(file="/a", image="/g", chunk_size=16), sizes={"/a": 512, "/g": 4096})
    assert source({"/g": 4096}, file="/a", image="/g", chunk_size=16)[0] == made[0]["source"]
    # Without the image nobody can tell what the table was: then only a disk that is the file itself may go.
    assert source({}, file="/a", image="/g") == ({"file": "/a"}, None)


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
    (one(file="/a") + [{"domain": "h", "disks": [{"vdev": "xvda", "file": "//x/..//a"}]}], "a file of its own"),
    (one(file="/a", shared="false") + [{"domain": "h", "disks": [{"vdev": "xvda", "file": "/a", "shared": "no"}]}], "a file of its own"),
    (one(file="/a", shared="maybe"), "shared.*boolean"),
    (one(file="/a", state="absent", remove_file="perhaps"), "remove_file.*boolean"),
    # An image is never written, removed, or grown.
    (one(file="/a", image="/g") + one(vdev="xvdb", file="/g"), r"guests\[0\].disks\[0\].image.*/g.*xvdb of g writes"),
    (one(vdev="xvdb", file="/g", shared=True) + one(file="/a", image="/x/../g"), r"guests\[1\].disks\[0\].image.*writes"),
    (one(file="/a", image="/a"), "image.*writes"),
    (one(file="/a", image="/g") + one(vdev="xvdb", file="/g", state="absent", remove_file="yes"), "remove_file.*xvda of g uses"),
    (one(file="/a") + one(vdev="xvdb", file="/./a", state="absent", remove_file=True), r"guests\[1\].disks\[0\].remove_file.*xvda of g uses"),
    # One disk, one meaning.
    (one(file="/a") + one(file="/b"), r"guests\[1\].disks\[0\].vdev.*once"),
    (one(file="/a") + one(file="/b", state="absent"), "once"),
    (one(file="/a") + one(file="/b", vdev="51712"), "once"),
    (one(file="/a") + one(file="/b", vdev=51712), "once"),
])
def test_refused(guests, words):
    with pytest.raises(AnsibleFilterError, match=words):
        files(guests)


@pytest.mark.parametrize("value", [True, False, "yes", "No", "true", "FALSE", "on", "off", "1", "0", 1, 0, " y ", "n", "t", "f", 1.0, 0.0])
def test_booleans_as_ansible_has_them(value):
    found, = files(one(file="/a", state="absent", remove_file=value))
    assert found["remove"] is boolean(value)


def test_a_file_moves_to_another_guest():
    guests = one(file="/a", state="absent") + [{"domain": "h", "disks": [{"vdev": "xvda", "file": "/a"}]}]
    assert [file["state"] for file in files(guests)] == ["absent", "present"]
    assert [entry["domain"] for entry in entries(guests, sizes={"/a": 512})] == ["h"]
    assert [file["state"] for file in files(list(reversed(guests)))] == ["present", "absent"]


def test_an_image_may_be_a_disk_that_is_only_read():
    guests = one(file="/a", image="/g", size=512) + one(vdev="xvdb", file="/g", mode="r", size=4096)
    assert files(guests, sizes={"/a": 512, "/g": 4096}) == []
    with pytest.raises(AnsibleFilterError, match="image of"):
        files(guests, sizes={"/a": 512, "/g": 512})


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
