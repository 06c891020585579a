# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filters stack_tree, stack_mermaid and stack_dot."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.racefree.block.plugins.filter.stack_dot import FilterModule as Dot
from ansible_collections.racefree.block.plugins.filter.stack_mermaid import FilterModule as Mermaid
from ansible_collections.racefree.block.plugins.filter.stack_tree import FilterModule as Tree

stack_tree = Tree().filters()["stack_tree"]
stack_mermaid = Mermaid().filters()["stack_mermaid"]
stack_dot = Dot().filters()["stack_dot"]

GIB = 2**30


def device(name, diskseq, size=GIB, below=(), above=(), **more):
    def rows(others):
        return [{"name": other, "diskseq": number} for other, number in others]

    return {
        "name": name,
        "diskseq": diskseq,
        "size": size,
        "read_only": False,
        "slaves": rows(below),
        "holders": rows(above),
        "used_by": [],
        **more,
    }


def vbd(name, diskseq, **more):
    served = {"name": name, "diskseq": diskseq}
    return {
        "domid": 3,
        "devid": 51712,
        "domain": "web1",
        "vdev": "xvda",
        "mode": "w",
        "connected": True,
        "problem": None,
        "device": served,
        **more,
    }


LOOP = device("loop7", 41, above=[("dm-3", 42)], backing_file="/srv/web1.raw")
ROOT = device(
    "dm-3", 42, below=[("loop7", 41)], mapper_name="web1-root", table=["0 2097152 linear 7:7 0"], sealed=True
)


def test_one_disk():
    assert stack_tree([ROOT, LOOP], [vbd("dm-3", 42)]).splitlines() == [
        "/srv/web1.raw",
        "└── loop7: diskseq 41, 1 GiB",
        "    └── web1-root (dm-3): linear, diskseq 42, 1 GiB, sealed",
        "        └── xvda of guest web1: mode w, connected",
    ]


def test_a_device_on_two_others_appears_below_both():
    """What is above it is shown once. A physical disk has no row of its own."""
    snap = device("dm-5", 9, below=[("loop1", 7), ("sda", 1)], above=[("dm-6", 10)], used_by=["mount /mnt"])
    top = device("dm-6", 10, size=1536, below=[("dm-5", 9)], mapper_name="top")
    loop = device("loop1", 7, 512, above=[("dm-5", 9)], read_only=True, backing_file="/b.cow")
    assert stack_tree([loop, snap, top]).splitlines() == [
        "/b.cow",
        "└── loop1: diskseq 7, 512 bytes, read-only",
        "    └── dm-5: diskseq 9, 1 GiB",
        "        ├── mounted at /mnt",
        "        └── top (dm-6): diskseq 10, 1.5 KiB",
        "sda: diskseq 1",
        "└── dm-5: diskseq 9, 1 GiB (see above)",
    ]


def test_disks_of_guests_without_a_device_or_with_a_problem():
    lines = stack_tree(
        [LOOP | {"holders": []}],
        [
            vbd("loop7", 41, problem="blkback has 7:7 open"),
            vbd("x", 1, devid=51728, vdev="xvdb", device=None, connected=False),
            vbd("x", 1, domid=4, domain=None, vdev=None, mode=None, problem="a node is invalid", device=None),
        ],
    ).splitlines()
    assert lines == [
        "/srv/web1.raw",
        "└── loop7: diskseq 41, 1 GiB",
        "    └── xvda of guest web1: mode w, connected, blkback has 7:7 open",
        "51712 of guest domain 4: mode None, connected, a node is invalid",
        "xvdb of guest web1: mode w, not connected",
    ]


def test_a_reused_name_is_another_device():
    """A vbd's device with another disk sequence number is not the listed one of that name."""
    lines = stack_tree([LOOP | {"holders": []}], [vbd("loop7", 40)]).splitlines()
    assert lines == [
        "/srv/web1.raw",
        "└── loop7: diskseq 41, 1 GiB",
        "loop7: diskseq 40",
        "└── xvda of guest web1: mode w, connected",
    ]


def test_mermaid_and_dot():
    odd = device("loop1", 7, backing_file='/srv/a"<b>\\#&.raw')
    text = stack_mermaid([odd], [vbd("loop1", 7)])
    assert text.splitlines() == [
        "flowchart LR",
        '    n0["loop1: diskseq 7, 1 GiB"]',
        '    n1["/srv/a#quot;#lt;b#gt;\\#35;#amp;.raw"]',
        '    n2["xvda of guest web1: mode w, connected"]',
        "    n0 --> n2",
        "    n1 --> n0",
    ]
    assert stack_dot([odd]).splitlines() == [
        "digraph stack {",
        "    rankdir=LR;",
        "    node [shape=box];",
        '    n0 [label="loop1: diskseq 7, 1 GiB"];',
        '    n1 [label="/srv/a\\"<b>\\\\#&.raw"];',
        "    n1 -> n0;",
        "}",
    ]


def test_an_empty_stack():
    assert stack_tree([]) == "" and stack_mermaid([]) == "flowchart LR"


@pytest.mark.parametrize("function", [stack_tree, stack_mermaid, stack_dot])
@pytest.mark.parametrize("rows", [[{"name": "loop1"}], ["loop1"], 7, {"devices": []}])
def test_other_data_is_refused(function, rows):
    with pytest.raises(AnsibleFilterError, match="not rows as device_info and xen_vbd_info return them"):
        function(rows)
    with pytest.raises(AnsibleFilterError, match="not rows"):
        function([], [{"domain": "web1"}])
