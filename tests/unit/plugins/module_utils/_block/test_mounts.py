# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest
from ansible_collections.racefree.block.plugins.module_utils._block import mounts

MOUNTS = [
    ("/", 1, "ext4"),
    ("/srv", 2, "ext4"),
    ("/srv/a b", 3, "xfs"),
    ("/srv", 4, "btrfs"),
    ("/mnt", 5, "ext4"),
    ("/mnt/over", 6, "tmpfs"),
    ("/again", 1, "ext4"),
    ("/net", 7, "nfs4"),
    ("/ssh", 8, "fuse.sshfs"),
]


@pytest.mark.parametrize(
    "path, devices, is_elsewhere",
    [
        ("/x.raw", {1}, False),
        ("/x.raw", {2}, True),
        ("/srv/x.raw", {4}, False),
        ("/srv/x.raw", {2}, True),
        ("/srv/x.raw", {1}, True),
        ("/srv/a b/x.raw", {3}, False),
        ("/srv/a b/x.raw", {4}, True),
        ("/srv/a bc/x.raw", {4}, False),
        ("/srvx", {1}, False),
        ("/srvx", {4}, True),
        ("/mnt/over/x (deleted)", {6}, False),
        ("/mnt/over/x (deleted)", {5}, True),
        ("/mnt/over/x", {5, 6}, False),
        ("/again/x", {1}, False),
        # Files of these have the st_dev of their mount, whatever others have.
        ("/net/x", {9}, True),
        ("/ssh/x", {1, 9}, True),
        ("/net/x", {7, 9}, False),
        # Unknown cases.
        ("/srv/x.raw", {9}, False),
        ("/srv/x.raw", {1, 9}, False),
        ("(unreachable)/x.raw", {1}, False),
        ("", {1}, False),
    ],
)
def test_is_elsewhere(path, devices, is_elsewhere):
    assert mounts.is_elsewhere(path, devices, MOUNTS) is is_elsewhere


@pytest.mark.parametrize(
    "path, servers",
    [
        ("/net/x", (7,)),
        ("/net/a/b (deleted)", (7,)),
        ("/ssh/x", (8,)),
        ("/netx", ()),
        ("/net", ()),
        ("/mnt/x", ()),
        # On one of them, if the other was mounted over it.
        ("/net/over/x", (7, 9)),
        ("/covered/x", (10,)),
        # The root, as for the path of a file on a mount that was taken away.
        ("/disk.raw", ()),
        ("(unreachable)/net/x", ()),
    ],
)
def test_servers_at(path, servers):
    more = [("/", 2, "nfs4"), ("/net/over", 9, "fuse"), ("/covered", 10, "fuse"), ("/covered", 11, "tmpfs")]
    assert mounts.servers_at(path, [*MOUNTS, *more]) == servers


def test_read():
    found = {point: more for point, *more in mounts.read()}
    assert found["/proc"] == [os.stat("/proc").st_dev, "proc"] and mounts.is_elsewhere(
        "/proc/x", {os.stat("/sys").st_dev}, mounts.read()
    )


def test_escapes():
    assert (
        mounts._unescaped("/a\\040b\\011c\\012d\\134e") == "/a b\tc\nd\\e"
        and mounts._unescaped("/a\\134040") == "/a\\040"
    )
