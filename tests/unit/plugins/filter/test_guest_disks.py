# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filters over a list of guests and their disks."""

from __future__ import annotations

import copy

import pytest
from ansible.errors import AnsibleFilterError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.racefree.block.plugins.filter.guest_disk_entries import FilterModule as Entries
from ansible_collections.racefree.block.plugins.filter.guest_disk_files import FilterModule as Files
from ansible_collections.racefree.block.plugins.filter.guest_disk_images import FilterModule as Images
from ansible_collections.racefree.block.plugins.filter.guest_disk_stores import FilterModule as Stores
from ansible_collections.racefree.block.plugins.filter.guest_disk_volumes import FilterModule as Volumes
from ansible_collections.racefree.block.plugins.module_utils._source import recipe, spec
from hypothesis import given
from hypothesis import strategies as st

entries = Entries().filters()["guest_disk_entries"]
files = Files().filters()["guest_disk_files"]
images = Images().filters()["guest_disk_images"]
stores = Stores().filters()["guest_disk_stores"]
volumes = Volumes().filters()["guest_disk_volumes"]

GUESTS = [
    {
        "domain": "web1",
        "disks": [
            {"vdev": "xvda", "image": "/golden.raw", "file": "/web1.cow", "size": "1M"},
            {"vdev": "xvdb", "file": "/web1.raw", "size": "2M", "mode": "r"},
            {"vdev": "xvdc", "source": "/dev/mapper/vg-a"},
        ],
    },
    {
        "domain": "old1",
        "disks": [{"vdev": "xvda", "file": "/old1.raw", "state": "absent", "remove_file": True}],
    },
]
SIZES = {"/golden.raw": 4096, "/web1.cow": 2**20, "/web1.raw": 2**20}


def one(**disk):
    return [{"domain": "g", "disks": [dict({"vdev": "xvda"}, **disk)]}]


def test_files():
    found = files(GUESTS)
    assert [(file["path"], file["size"], file["state"], file["remove"]) for file in found] == [
        ("/web1.cow", 2**20, "present", []),
        ("/web1.raw", 2**21, "present", []),
        ("/old1.raw", None, "absent", ["/old1.raw"]),
    ]
    assert [file["path"] for file in files(GUESTS, sizes=SIZES)] == ["/web1.raw"]
    assert files(GUESTS, sizes=dict(SIZES, **{"/web1.raw": 2**21})) == []


def test_entries():
    found = entries(GUESTS, sizes=SIZES, common={"uri": "test:///default"})
    assert [(entry["domain"], entry["vdev"], entry["state"], entry["uri"]) for entry in found] == [
        ("web1", vdev, "present", "test:///default") for vdev in ("xvda", "xvdb", "xvdc")
    ]
    assert found[0]["source"]["table"][0]["length"] == 8 and found[1] == {
        "domain": "web1",
        "vdev": "xvdb",
        "state": "present",
        "uri": "test:///default",
        "source": {"file": "/web1.raw"},
        "mode": "r",
    }
    for entry in found:
        assert recipe.text_of(spec.parse(entry["source"]))
    assert entries(GUESTS, state="absent") == [
        {"domain": "old1", "vdev": "xvda", "state": "absent", "source": {"file": "/old1.raw"}}
    ]
    # In check mode, the files do not exist yet.
    assert [entry["vdev"] for entry in entries(GUESTS, sizes={}, check_mode=True)] == ["xvdc"]


@pytest.mark.parametrize(
    "there", [{}, {"/golden.raw": 4096, "/web1.raw": 512}, {"/web1.cow": 512, "/web1.raw": 512}]
)
def test_a_missing_file(there):
    with pytest.raises(AnsibleFilterError, match=r"guests\[0\].disks\[0\].(file|image).*must be an existing"):
        entries(GUESTS, sizes=there)


@pytest.mark.parametrize("size, found", [(0, 0), (700, 0), (512, 1), (2**20, 1)])
def test_a_file_that_must_grow_first(size, found):
    assert len(entries(one(file="/a", size="1M"), sizes={"/a": size}, check_mode=True)) == found


def test_only_the_described_disk_is_removed():
    """An absent entry names the disk that it means, in the form in which libvirt_disk keeps it."""

    def source(sizes, **disk):
        (entry,) = entries(one(state="absent", **disk), state="absent", sizes=sizes)
        return entry.get("source"), entry.get("mode")

    assert source({}, file="/a") == ({"file": "/a"}, None)
    assert source({}, file="/a", mode="r") == ({"file": "/a"}, "r")
    assert source({}, source="/dev/vg/a") == ("/dev/vg/a", None)
    assert source({}) == (None, None)
    made = entries(one(file="/a", image="/g", chunk_size=16), sizes={"/a": 512, "/g": 4096})
    assert source({"/g": 4096}, file="/a", image="/g", chunk_size=16)[0] == made[0]["source"]
    # Without the image, the table is not known: then only a disk that is the file itself may be removed.
    assert source({}, file="/a", image="/g") == ({"file": "/a"}, None)


@pytest.mark.parametrize(
    "guests, words",
    [
        ({}, "a list of guests"),
        ([{"domain": "a"}], "a list of disks"),
        ([{"disks": []}], "domain"),
        ([{"domain": "g", "disks": [{"file": "/a"}]}], r"guests\[0\].disks\[0\].*a dictionary with vdev"),
        ([{"domain": "g", "disks": ["xvda"]}], "a dictionary with vdev"),
        (one(file="/a\n/b"), "absolute path"),
        (one(file="/a", image="g"), "image.*absolute path"),
        (one(), "either file or thin or source"),
        (one(file="/a", source="/dev/b"), "either file or thin or source"),
        (one(file="a"), "absolute path"),
        (one(source="/dev/a", image="/b"), "only with file"),
        (one(file="/a", state="gone"), "present or absent"),
        (one(file="/a", fil="/b"), "no such option"),
        (one(file="/a", size="big"), "bytes"),
        (one(file="/a", size="513"), "multiple of 512 bytes"),
        (one(file="/a", size=0), "bytes"),
        (one(file="/a", size=True), "bytes"),
        (
            one(file="/a") + [{"domain": "h", "disks": [{"vdev": "xvda", "file": "/a"}]}],
            "a file that nothing else uses",
        ),
        (
            one(file="/a") + [{"domain": "h", "disks": [{"vdev": "xvda", "file": "//x/..//a"}]}],
            "a file that nothing else uses",
        ),
        (
            one(file="/a", shared="false")
            + [{"domain": "h", "disks": [{"vdev": "xvda", "file": "/a", "shared": "no"}]}],
            "a file that nothing else uses",
        ),
        (one(file="/a", shared="maybe"), "shared.*true or false"),
        (one(file="/a", state="absent", remove_file="perhaps"), "remove_file.*true or false"),
        # An image is never written, removed or grown.
        (
            one(file="/a", image="/g") + one(vdev="xvdb", file="/g"),
            r"guests\[0\].disks\[0\].image.*/g.*xvdb of g writes",
        ),
        (
            one(vdev="xvdb", file="/g", shared=True) + one(file="/a", image="/x/../g"),
            r"guests\[1\].disks\[0\].image.*writes",
        ),
        (one(file="/a", image="/a"), "image.*writes"),
        (
            one(file="/a", image="/g") + one(vdev="xvdb", file="/g", state="absent", remove_file="yes"),
            "remove_file.*xvda of g uses",
        ),
        (
            one(file="/a") + one(vdev="xvdb", file="/./a", state="absent", remove_file=True),
            r"guests\[1\].disks\[0\].remove_file.*xvda of g uses",
        ),
        # A name in a guest belongs to one disk.
        (one(file="/a") + one(file="/b"), r"guests\[1\].disks\[0\].vdev.*must be another name"),
        (one(file="/a") + one(file="/b", state="absent"), "must be another name"),
        (one(file="/a") + one(file="/b", vdev="51712"), "must be another name"),
        (one(file="/a") + one(file="/b", vdev=51712), "must be another name"),
    ],
)
def test_invalid_entries_are_refused(guests, words):
    with pytest.raises(AnsibleFilterError, match=words):
        files(guests)


@pytest.mark.parametrize(
    "guests",
    [
        {"g": "c0ffee"},
        [{"Domain": "g", "disks": [{"vdev": "xvda", "crypt": {"key": "c0ffee"}}]}],
        [{"domain": "g", "disks": [["c0ffee"]]}],
        one(size="1M", thin={"pool": "c0ffee"}),
        one(size="1M", thin={"pool": {"table": "c0ffee"}, "id": 1}),
        one(
            size="1M",
            thin={"pool": {"name": "p", "metadata": {"table": ["0 8 crypt a c0ffee 0 /a 0"]}}, "id": 1},
        ),
    ],
)
def test_an_invalid_entry_shows_no_key(guests):
    with pytest.raises(AnsibleFilterError) as caught:
        files(guests)
    assert "c0ffee" not in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [True, False, "yes", "No", "true", "FALSE", "on", "off", "1", "0", 1, 0, " y ", "n", "t", "f", 1.0, 0.0],
)
def test_booleans_in_ansibles_spellings(value):
    (found,) = files(one(file="/a", state="absent", remove_file=value))
    assert found["remove"] == (["/a"] if boolean(value) else [])


def test_a_file_moves_to_another_guest():
    guests = one(file="/a", state="absent") + [{"domain": "h", "disks": [{"vdev": "xvda", "file": "/a"}]}]
    assert [file["state"] for file in files(guests)] == ["absent", "present"]
    assert [entry["domain"] for entry in entries(guests, sizes={"/a": 512})] == ["h"]
    assert [file["state"] for file in files(list(reversed(guests)))] == ["present", "absent"]


def test_an_image_can_be_a_read_only_disk():
    guests = one(file="/a", image="/g", size=512) + one(vdev="xvdb", file="/g", mode="r", size=4096)
    assert files(guests, sizes={"/a": 512, "/g": 4096}) == []
    with pytest.raises(AnsibleFilterError, match="image of"):
        files(guests, sizes={"/a": 512, "/g": 512})


@pytest.mark.parametrize(
    "guests, sizes, words",
    [
        (one(file="/a", size="1M"), {"/a": 2**21}, "lose data"),
        (one(file="/a"), {}, "does not exist yet"),
        (one(file="/a", size="1M", image="/g"), {}, "an existing image"),
    ],
)
def test_existing_files_that_do_not_match_are_refused(guests, sizes, words):
    with pytest.raises(AnsibleFilterError, match=words):
        files(guests, sizes=sizes)


def test_an_image_of_an_odd_size():
    with pytest.raises(AnsibleFilterError, match="whole sectors"):
        entries(one(file="/a", image="/g"), sizes={"/a": 512, "/g": 700})


# A disk that is larger than its image; an image that must not change


def table_of(sizes, mtimes=None, **disk):
    (entry,) = entries(one(file="/a", image="/g", **disk), sizes=dict({"/a": 512}, **sizes), mtimes=mtimes)
    return entry["source"]["table"][0]


def test_an_image_is_followed_by_zeros():
    plain = table_of({"/g": 4096})
    assert (plain["length"], plain["origin"]) == (8, {"file": "/g", "read_only": True})
    assert table_of({"/g": 4096}, disk_size=4096) == plain
    larger = table_of({"/g": 4096}, disk_size="1M")
    assert larger["length"] == 2048 and larger["origin"] == {
        "read_only": True,
        "table": [
            {
                "start": 0,
                "length": 8,
                "target": "linear",
                "device": {"file": "/g", "read_only": True},
                "offset": 0,
            },
            {"start": 8, "length": 2040, "target": "zero"},
        ],
    }
    assert {key: value for key, value in larger.items() if key not in ("length", "origin")} == {
        key: value for key, value in plain.items() if key not in ("length", "origin")
    }


@given(st.integers(1, 2**30), st.integers(0, 2**30))
def test_any_size(image, more):
    line = table_of({"/g": image * 512}, disk_size=(image + more) * 512)
    recipe.text_of(spec.parse({"table": [line]}))
    parts = line["origin"].get("table", [{"start": 0, "length": image}])
    assert (
        parts[0]["length"] == image
        and parts[-1]["start"] + parts[-1]["length"] == line["length"] == image + more
    )


def test_a_disk_smaller_than_its_image():
    with pytest.raises(
        AnsibleFilterError, match=r"guests\[0\].disks\[0\].disk_size 512: must be 4096 or more.*/g"
    ):
        table_of({"/g": 4096}, disk_size=512)


def test_the_image_is_identified_by_its_modification_time():
    assert table_of({"/g": 4096}, {"/g": 17, "/h": 18})["origin"] == {
        "file": "/g",
        "read_only": True,
        "mtime_ns": 17,
    }
    assert (
        table_of({"/g": 4096}, {"/g": 17}, disk_size=8192)["origin"]["table"][0]["device"]["mtime_ns"] == 17
    )
    (guard,) = entries(
        one(file="/a", image="/g", state="absent"), state="absent", sizes={"/g": 4096}, mtimes={"/g": 17}
    )
    assert "mtime_ns" not in str(guard)


def test_stores():
    guests = (
        one(file="/a", image="/g", adopt="yes")
        + one(vdev="xvdb", file="/b")
        + one(vdev="xvdc", file="/c", image="/h", state="absent")
    )
    assert stores(guests) == [{"path": "/a", "image": "/g", "adopt": True}]
    assert (
        len(
            stores(
                one(file="/a", image="/g", shared=True)
                + one(vdev="xvdb", file="//a", image="/g", shared=True)
            )
        )
        == 1
    )


def test_a_record_is_removed_with_its_store():
    guests = one(file="/a", image="/g", state="absent", remove_file=True) + one(
        vdev="xvdb", file="/b", state="absent", remove_file=True
    )
    assert [file["remove"] for file in files(guests)] == [["/a", "/a.image"], ["/b"]]


# Thin volumes

MADE = {"name": "p", "metadata": "file:/p.meta", "data": {"file": "/p.data", "format": "raw"}, "size": "1G"}
THERE = {"path": "/dev/mapper/q", "uuid": "Q-1"}


def thin(number=5, pool=None, vdev="xvda", state="present", mode=None, **more):
    change = {} if mode is None else {"mode": mode}
    keys = {key: more.pop(key) for key in ("snapshot_of",) if key in more}
    return one(
        vdev=vdev,
        thin=dict({"id": number, "pool": copy.deepcopy(pool or MADE)}, **keys),
        state=state,
        **dict({"size": "10G"}, **change, **more),
    )


def lines(target, **more):
    return {"table": [{"start": 0, "length": 8, "target": target, **more}]}


IN_FILE = {"file": "/x/../a", "partition": 1}
BLOCKS = {"block_size": 128, "low_water_mark": 0}
POOL = {"name": "s", "uuid": "S-1", **lines("thin-pool", metadata="file:/s.meta", data=IN_FILE, **BLOCKS)}
NAMED_FILES = {
    "a dictionary": {"file": "/a"},
    "a part": {"file": "//a", "offset": 4096, "read_only": True},
    "text": "file:/a",
    "a table": lines("linear", device={"file": "/a"}, offset=0),
    "a table in a table": lines("linear", device=lines("linear", device="file:/a", offset=0), offset=0),
    "a line": {"table": ["0 8 linear file:/a 0"]},
    "a pool's data": lines("thin", pool=POOL, id=3),
}


@pytest.mark.parametrize("case", NAMED_FILES)
def test_a_file_that_a_source_names_is_not_removed(case):
    user = one(source=NAMED_FILES[case])
    gone = one(vdev="xvdb", file="/a", state="absent", remove_file=True)
    for guests in (user + gone, gone + user):
        for question in (files, volumes, stores):
            with pytest.raises(AnsibleFilterError, match="remove_file.*must be false: xvda of g uses /a"):
                question(guests)
    kept = one(vdev="xvdb", file="/a", state="absent")
    other = one(vdev="xvdb", file="/b", state="absent", remove_file=True)
    absent = one(source=NAMED_FILES[case], state="absent")
    assert [row["remove"] for guests in (kept, other) for row in files(user + guests)] == [[], ["/b"]]
    assert [row["remove"] for row in files(absent + gone)] == [["/a"]], "nobody names it any more"


def test_a_file_that_a_pools_device_names_is_not_removed():
    pool = dict(MADE, data={"file": "/p.data", "partition": 2})
    gone = one(vdev="xvdb", file="/p.data", state="absent", remove_file=True)
    with pytest.raises(AnsibleFilterError, match="remove_file.*the pool p"):
        files(thin(pool=pool) + gone)


def test_a_source_that_is_not_valid_does_not_hinder_a_removal():
    gone = one(vdev="xvdb", file="/a", state="absent", remove_file=True)
    for source in ({"fil": "/a"}, {"table": ["0 8 no-such-target"]}, "/dev/vg/a"):
        assert [row["remove"] for row in files(one(source=source) + gone)] == [["/a"]]


MADE_POOL = {"name": "p", "uuid": "RACEFREE-POOL-p"}
POOL_TABLE = lines("thin-pool", metadata="file:/p.meta", data="file:/p.data", **BLOCKS)
NAMED_POOLS = {
    "by path and uuid": (THERE, THERE),
    "by path": ({"path": "/x/../dev/mapper/q"}, THERE),
    "by uuid": ({"path": "/dev/dm-7", "uuid": "Q-1"}, THERE),
    "as a table": ({**MADE_POOL, **POOL_TABLE}, MADE),
    "a table's pool by uuid": ({"path": "/dev/dm-7", "uuid": "RACEFREE-POOL-p"}, MADE),
    "a table's pool by path": ({"path": "/dev/mapper/p"}, MADE),
}


@pytest.mark.parametrize("case", NAMED_POOLS)
def test_a_volume_that_a_source_names_is_not_removed(case):
    named, pool = NAMED_POOLS[case]
    below = lines("thin", pool=named, id=5)
    gone = thin(5, pool, "xvdb", "absent", remove_volume=True)
    for source in (below, lines("linear", device=below, offset=0)):
        for guests in (one(source=source) + gone, gone + one(source=source)):
            with pytest.raises(AnsibleFilterError, match="remove_volume.*must be false: xvda of g uses"):
                volumes(guests)
    other = thin(6, pool, "xvdb", "absent", remove_volume=True)
    absent = one(source=below, state="absent")
    for guests, number in ((one(source=below) + other, 6), (absent + gone, 5)):
        assert volumes(guests)[0]["volumes"] == [{"id": number, "state": "absent"}]


def test_a_volume_of_a_new_pool():
    (entry,) = entries(thin())
    (line,) = entry["source"]["table"]
    assert (line["target"], line["length"], line["id"]) == ("thin", 10 * 2**21, 5)
    assert line["pool"] == {
        "name": "p",
        "uuid": "RACEFREE-POOL-p",
        "table": [
            {
                "start": 0,
                "length": 2**21,
                "target": "thin-pool",
                "metadata": {"file": "/p.meta"},
                "data": {"file": "/p.data", "format": "raw"},
                "block_size": 128,
                "low_water_mark": 0,
            }
        ],
    }
    assert recipe.parse(recipe.text_of(spec.parse(entry["source"]))) == spec.parse(entry["source"])
    # 64 bytes for each block, at least 4 MiB, at most 16 GiB.
    for size, metadata in (("1G", 4 * 2**20), ("128G", 128 * 2**20), ("900T", 16 * 2**30)):
        assert [
            (file["path"], file["size"], file["exact"]) for file in files(thin(pool=dict(MADE, size=size)))
        ] == [
            ("/p.meta", metadata, False),
            ("/p.data", int(size[:-1]) * {"G": 2**30, "T": 2**40}[size[-1]], True),
        ]


def test_files_of_a_pool():
    guests = thin() + thin(6, vdev="xvdb")
    assert [file["path"] for file in files(guests, sizes={})] == ["/p.meta", "/p.data"]
    # More metadata than the default is allowed, less than requested is not.
    assert files(guests, sizes={"/p.meta": 2**30, "/p.data": 2**30}) == []
    with pytest.raises(AnsibleFilterError, match="lose data"):
        files(thin(pool=dict(MADE, metadata_size="2M")), sizes={"/p.meta": 2**30, "/p.data": 2**30})
    with pytest.raises(AnsibleFilterError, match="lose data"):
        files(guests, sizes={"/p.meta": 2**30, "/p.data": 2**31})
    assert [
        entry["vdev"]
        for entry in entries(guests, sizes={"/p.meta": 2**22, "/p.data": 2**30}, check_mode=True)
    ] == ["xvda", "xvdb"]
    for there in ({}, {"/p.meta": 2**22}, {"/p.meta": 2**22, "/p.data": 2**29}):
        assert entries(guests, sizes=there, check_mode=True) == []
    device = dict(MADE, metadata="/dev/disk/by-id/a", data={"file": "/p.data", "offset": 512})
    assert files(thin(pool=device)) == []


def test_volumes():
    guests = (
        thin()
        + thin(6, vdev="xvdb", snapshot_of=5)
        + thin(7, THERE, vdev="xvdc")
        + thin(8, vdev="xvdd", state="absent", remove_volume=True)
    )
    guests += thin(9, vdev="xvde", state="absent")
    made, there = volumes(guests)
    assert made["volumes"] == [
        {"id": 5, "state": "present"},
        {"id": 6, "state": "present", "snapshot_of": 5},
        {"id": 8, "state": "absent"},
    ]
    assert (there["pool"], there["volumes"]) == (THERE, [{"id": 7, "state": "present"}])
    assert [row["volumes"] for row in volumes(guests, states=["absent"])] == [[{"id": 8, "state": "absent"}]]
    assert [[volume["id"] for volume in row["volumes"]] for row in volumes(guests, states=["present"])] == [
        [5, 6],
        [7],
    ]


def test_only_the_described_volume_is_removed():
    (there,) = entries(thin())
    (gone,) = entries(thin(state="absent"), state="absent")
    assert gone["source"] == there["source"]


@pytest.mark.parametrize(
    "guests, words",
    [
        (thin(size=None), r"guests\[0\].disks\[0\].size"),
        (thin(number=2**24), "thin.id.*16777215"),
        (thin(number="x"), "thin.id"),
        (thin(number=True), "thin.id"),
        (one(thin={"pool": MADE}, size="1G"), "pool and id"),
        (thin(snapshot_of=5), "snapshot_of.*itself"),
        (thin(snapshot_of=-1), "snapshot_of"),
        (one(thin=dict({"id": 1, "pool": MADE}, more=1), size="1G"), "thin.more"),
        (one(thin={"id": 1, "pool": {}}, size="1G"), "thin.pool"),
        (one(thin={"id": 1}, size="1G"), "thin.pool"),
        (thin(pool=dict(MADE, path="/dev/mapper/p")), "thin.pool"),
        (thin(pool={"path": "/dev/mapper/p"}), "pool.uuid"),
        (thin(pool={"path": "/dev/mapper/p", "uuid": "LVM-x-tpool"}), "LVM.*lvcreate"),
        (thin(pool={"path": "p", "uuid": "x"}), "absolute"),
        (thin(pool=dict(THERE, size="1G")), "pool.size"),
        (thin(pool=dict(MADE, name="a/b")), "pool.name"),
        (thin(pool=dict(MADE, size=None)), "pool.size"),
        (thin(pool=dict(MADE, data=None)), "pool.data.*a file or a block device"),
        (thin(pool=dict(MADE, data="diskseq:5")), "pool.data"),
        (thin(pool=dict(MADE, data="/p.meta", metadata="/p.meta")), "metadata"),
        (thin(pool=dict(MADE, data="file:/p.meta")), "a different device from metadata"),
        (
            thin(pool=dict(MADE, data="file:/x/../p.meta")),
            r"guests\[0\].disks\[0\].thin.pool.data.*a different device from metadata",
        ),
        (thin(pool=dict(MADE, block_size=100)), "block_size"),
        (thin(pool=dict(MADE, chunk=1)), "pool.chunk"),
        (one(thin={"id": 1, "pool": MADE}, file="/a", size="1G"), "either"),
        (one(thin={"id": 1, "pool": MADE}, image="/a", size="1G"), "only with file"),
        # A volume belongs to one disk.
        (thin() + thin(vdev="xvdb"), r"guests\[1\].disks\[0\].thin.id.*xvda of g"),
        (thin() + thin(vdev="xvdb", mode="r"), "volume that nothing else uses"),
        # The first and the third would share it.
        (
            thin(mode="r", shared=True) + thin(vdev="xvdb", mode="r") + thin(vdev="xvdc", shared=True),
            r"guests\[2\].disks\[0\].thin.id.*nothing else uses: xvdb of g has it",
        ),
        (
            one(file="/a", mode="r", shared=True)
            + one(vdev="xvdb", file="/a", mode="r")
            + one(vdev="xvdc", file="/a", shared=True),
            r"guests\[2\].disks\[0\].file.*nothing else uses: xvdb of g has it",
        ),
        (
            thin() + thin(vdev="xvdb", state="absent", remove_volume=True),
            r"guests\[1\].disks\[0\].remove_volume.*xvda of g",
        ),
        (
            thin(6, snapshot_of=5) + thin(vdev="xvdb", state="absent", remove_volume="yes"),
            "remove_volume.*xvda of g",
        ),
        (one(file="/a", state="absent", remove_volume=True), "remove_volume.*only with thin"),
        (one(state="absent", remove_file=True), "remove_file.*only with file"),
        # Each name and each device belongs to one pool, and nothing else may use the devices of a pool.
        (
            thin() + thin(6, dict(MADE, size="2G"), "xvdb"),
            r"guests\[1\].disks\[0\].thin.pool.*the same as in guests\[0\]",
        ),
        (thin() + thin(6, dict(MADE, name="r"), "xvdb"), r"/p.meta.*the pool p has"),
        (
            thin()
            + thin(
                6,
                dict(MADE, name="r", metadata="file:/r.meta", data="file:/r.data", uuid="RACEFREE-POOL-p"),
                "xvdb",
            ),
            "the pool p has",
        ),
        (thin() + one(vdev="xvdb", file="/x/../p.data"), r"guests\[1\].disks\[0\].file.*the pool p"),
        (thin() + one(vdev="xvdb", file="/p.meta", shared=True), "the pool p"),
        (thin() + one(vdev="xvdb", file="/a", image="/p.data"), r"image.*the pool p"),
        (
            thin() + one(vdev="xvdb", file="/p.data", state="absent", remove_file=True),
            r"remove_file.*the pool p",
        ),
        (one(file="/a", image="/g") + one(vdev="xvdb", file="/a.image"), r"/a.image"),
        # Options that are valid only with an image.
        (one(file="/a", disk_size="1G"), "disk_size.*only with image"),
        (one(file="/a", adopt=True), "adopt.*only with image"),
        (one(file="/a", image="/g", chunk_size="x"), "chunk_size"),
        (one(source="/dev/vg/a", size="1G"), "size.*left out beside source"),
    ],
)
def test_refused_volumes_and_images(guests, words):
    for question in (files, volumes, stores):
        with pytest.raises(AnsibleFilterError, match=words):
            question(guests)


def test_a_shared_volume():
    guests = thin(shared=True) + thin(vdev="xvdb", shared=True)
    assert volumes(guests)[0]["volumes"] == [{"id": 5, "state": "present"}]
    guests = thin(mode="r") + thin(vdev="xvdb", mode="r")
    assert len(entries(guests)) == 2


# Encryption

KEY = ":64:logon:guests:web1"
CRYPT = {"cipher": "aes-xts-plain64", "key": KEY}


def test_any_disk_can_be_encrypted():
    guests = [
        {
            "domain": "g",
            "disks": [
                {"vdev": "xvda", "file": "/a", "crypt": CRYPT},
                {
                    "vdev": "xvdb",
                    "file": "/b",
                    "image": "/g",
                    "crypt": dict(CRYPT, sector_size=4096, allow_discards="yes"),
                    "disk_size": 8192,
                },
                {"vdev": "xvdc", "thin": {"id": 5, "pool": MADE}, "size": "1M", "crypt": CRYPT},
                {"vdev": "xvdd", "source": "/dev/vg/a", "size": "1M", "crypt": CRYPT},
            ],
        }
    ]
    bare = copy.deepcopy(guests)
    for disk in bare[0]["disks"]:
        del disk["crypt"]
    bare[0]["disks"][3].pop("size")
    sizes = {"/a": 4096, "/b": 512, "/g": 4096}
    for entry, plain in zip(entries(guests, sizes=sizes), entries(bare, sizes=sizes)):
        (line,) = entry["source"]["table"]
        assert (line["target"], line["cipher"], line["key"], line["device"], line["offset"]) == (
            "crypt",
            "aes-xts-plain64",
            KEY,
            plain["source"],
            0,
        )
        assert recipe.text_of(spec.parse(entry["source"]))
    lengths = [entry["source"]["table"][0]["length"] for entry in entries(guests, sizes=sizes)]
    assert lengths == [8, 16, 2048, 2048]
    assert (
        entries(guests, sizes=sizes)[1]["source"]["table"][0].items()
        >= {"sector_size": 4096, "allow_discards": True}.items()
    )
    for disk in guests[0]["disks"]:
        disk["state"] = "absent"
    assert [
        entry["source"]["table"][0]["length"] for entry in entries(guests, state="absent", sizes=sizes)
    ] == lengths


def test_a_missing_encrypted_file():
    """The length of its table is known only if the entry gives a size."""
    gone = {"file": "/a", "crypt": CRYPT, "state": "absent"}
    (entry,) = entries(one(**gone), state="absent")
    assert entry["source"] == {"file": "/a"}
    (entry,) = entries(one(size=4096, **gone), state="absent")
    assert entry["source"]["table"][0]["length"] == 8


SECRET = "00112233" * 16


@pytest.mark.parametrize(
    "crypt, words",
    [
        ({}, "cipher and key"),
        ("aes", "cipher and key"),
        (dict(CRYPT, key=SECRET), "crypt.key.*kernel_key"),
        (dict(CRYPT, key=f"{SECRET}:logon:a"), "crypt.key"),
        (dict(CRYPT, key=":64:logon:web1"), "crypt.key.*PREFIX:NAME"),
        (dict(CRYPT, key=":63:logon:a:b"), "crypt.key.*it has 63"),
        (dict(CRYPT, cipher="aes"), "crypt.key.*aes"),
        (dict(CRYPT, cipher="a b"), "crypt.cipher"),
        (dict(CRYPT, sector_size=1000), "crypt.sector_size"),
        (dict(CRYPT, sector_size="x"), "crypt.sector_size"),
        (dict(CRYPT, allow_discards="x"), "crypt.allow_discards"),
        (dict(CRYPT, password=SECRET), "crypt.password"),
    ],
)
def test_invalid_encryption_is_refused(crypt, words):
    with pytest.raises(AnsibleFilterError, match=words) as caught:
        files(one(file="/a", crypt=crypt))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "disk, words",
    [
        ({"file": "/a", "crypt": dict(CRYPT, sector_size=4096)}, r"disks\[0\].crypt.sector_size.*4608"),
        ({"source": "/dev/vg/a", "crypt": CRYPT}, "size"),
        ({"crypt": CRYPT, "state": "absent"}, "only with file, thin or source"),
    ],
)
def test_encryption_that_does_not_match_the_existing_disk(disk, words):
    with pytest.raises(AnsibleFilterError, match=words):
        entries(one(**disk), state=disk.get("state", "present"), sizes={"/a": 4608})


def test_a_file_of_known_raw_format():
    (found,) = entries(one(file="/a", format="raw"), sizes={"/a": 4096})
    assert found["source"] == {"file": "/a", "format": "raw"}
    crypt = {"cipher": "aes-xts-plain64", "key": ":64:logon:a:b"}
    (found,) = entries(one(file="/a", format="raw", crypt=crypt), sizes={"/a": 4096})
    assert found["source"]["table"][0]["device"] == {"file": "/a", "format": "raw"}


@pytest.mark.parametrize(
    "disk, words",
    [
        ({"file": "/a", "format": "qcow2"}, "qemu-img convert -O raw"),
        ({"file": "/a", "image": "/b", "format": "raw"}, "only with file, and without image"),
        ({"source": "/dev/vg/a", "format": "raw"}, "only with file, and without image"),
    ],
)
def test_formats_that_contradict_the_entry_are_refused(disk, words):
    with pytest.raises(AnsibleFilterError, match=words):
        entries(one(**disk), sizes={"/a": 4096, "/b": 4096})


# Images of other formats
QCOW2 = {"path": "/i.qcow2", "format": "qcow2", "golden": "/g"}


def test_an_image_of_another_format():
    """Each is converted once; the disk is a snapshot of the raw image that is made of it."""
    guests = (
        one(file="/a", image=QCOW2)
        + one(vdev="xvdb", file="/b", image=dict(QCOW2, golden="//g"))
        + one(vdev="xvdc", file="/c", image=dict(QCOW2, path="/j", golden="/h", backing="yes", memory="2G"))
        + one(vdev="xvdd", file="/d", image=dict(QCOW2, path="/k", golden="/l"), state="absent")
    )
    assert images(guests) == [
        {"path": "//g", "image": "/i.qcow2", "format": "qcow2", "backing": False},
        {"path": "/h", "image": "/j", "format": "qcow2", "backing": True, "memory": "2G"},
    ]
    rows = files(guests)
    assert [(row["image"], row["converted"]) for row in rows[:3]] == [
        ("/g", "/i.qcow2"),
        ("//g", "/i.qcow2"),
        ("/h", "/j"),
    ]
    wanted = [
        {"path": path, "image": image, "adopt": False, "format": "raw"}
        for path, image in (("/a", "/g"), ("/b", "//g"), ("/c", "/h"))
    ]
    assert stores(guests) == wanted and stores(guests, sizes={"/g": 512}) == wanted[:1]
    (found,) = entries(one(file="/a", image=QCOW2), sizes={"/a": 512, "/g": 4096}, mtimes={"/g": 7})
    expected = {"file": "/g", "read_only": True, "format": "raw", "mtime_ns": 7}
    assert found["source"]["table"][0]["origin"] == expected
    spec.parse(found["source"])


def test_a_disk_whose_image_has_yet_to_be_converted():
    guests = one(file="/a", image=QCOW2) + one(vdev="xvdb", file="/b")
    sizes = {"/a": 512, "/b": 512}
    assert [disk["vdev"] for disk in entries(guests, sizes=sizes, check_mode=True)] == ["xvdb"]
    with pytest.raises(AnsibleFilterError, match="must be an existing image"):
        entries(guests, sizes=sizes)


WRONG_IMAGES = {
    "no format": ({"format": None}, "image.format.*must be one of qcow2, vmdk, vhdx. It is never guessed"),
    "raw": ({"format": "raw"}, "image.format.*Give a raw image as path"),
    "vdi": ({"format": "vdi"}, "image.format vdi: must be one of"),
    "no golden image": ({"golden": None}, "image.golden.*absolute path"),
    "a relative golden image": ({"golden": "g"}, "image.golden g: must be an absolute path"),
    "no path": ({"path": None}, "image.path.*absolute path"),
    "a mistyped option": ({"goldn": "/g"}, "image.goldn.*there is no such option"),
    "backing as a path": ({"backing": "/base"}, "image.backing /base: must be true or false"),
    "a timeout in words": ({"timeout": "1h"}, "image.timeout 1h: must be a whole number"),
    "itself": ({"golden": "/x/../i.qcow2"}, "image.golden.*must not be the image of"),
}


@pytest.mark.parametrize("case", WRONG_IMAGES)
def test_wrong_images(case):
    change, words = WRONG_IMAGES[case]
    image = {key: value for key, value in dict(QCOW2, **change).items() if value is not None}
    for function in (images, files, stores):
        with pytest.raises(AnsibleFilterError, match=words):
            function(one(file="/a", image=image))


WRONG_PAIRS = {
    "another image": (
        dict(QCOW2, path="/j"),
        "image.golden /g: must be another path: xvda of g makes it",
    ),
    "another format": (dict(QCOW2, format="vmdk"), "or in another way"),
    "other files": (dict(QCOW2, backing=True), "or in another way"),
    "the other's image": (dict(QCOW2, path="/j", golden="/i.qcow2"), "must not be the image of xvda of g"),
}


@pytest.mark.parametrize("case", WRONG_PAIRS)
def test_two_entries_that_would_make_one_golden_image(case):
    other, words = WRONG_PAIRS[case]
    with pytest.raises(AnsibleFilterError, match=words):
        images(one(file="/a", image=QCOW2) + one(vdev="xvdb", file="/b", image=other))


@pytest.mark.parametrize("path", ["/g", "/i.qcow2"])
def test_an_image_that_another_entry_writes_or_removes(path):
    for more, words in (({}, "writes this file"), ({"state": "absent", "remove_file": True}, "remove_file")):
        with pytest.raises(AnsibleFilterError, match=words):
            images(one(file="/a", image=QCOW2) + one(vdev="xvdb", file=path, **more))


def test_an_image_of_another_format_without_a_file_for_the_changes():
    with pytest.raises(AnsibleFilterError, match="only with file"):
        images(one(source="/dev/a", image=QCOW2))


@pytest.mark.parametrize("value", [{"table": ["0 8 crypt aes-xts-plain64 SECRET 0 /dev/a 0"]}, ["SECRET"]])
@pytest.mark.parametrize(
    "disk",
    [
        {"file": ...},
        {"file": "/a", "size": ...},
        {"file": "/a", "image": ...},
        {"source": "/dev/mapper/vg-a", "image": ...},
        {"source": "/dev/mapper/vg-a", "size": ...},
        {"file": "/a", "disk_size": ...},
        {"file": "/a", "format": ...},
        {"file": "/a", "mode": ...},
        {"file": "/a", "state": ...},
        {"thin": {"id": ..., "pool": ...}},
        {"thin": {"id": 1, "pool": ...}},
        {"crypt": ..., "file": "/a"},
    ],
)
def test_a_table_in_place_of_a_value_is_not_shown(disk, value):
    def put(part):
        if isinstance(part, dict):
            return {key: put(below) for key, below in part.items()}
        return value if part is ... else part

    with pytest.raises(AnsibleFilterError) as caught:
        entries(one(**put(disk)))
    assert "SECRET" not in str(caught.value)
