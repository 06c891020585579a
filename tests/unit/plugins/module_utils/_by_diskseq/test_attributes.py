# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Who may open a node: never stricter than the kernel, checked with processes on this machine.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator

import pytest
from ansible_collections.racefree.block.plugins.module_utils._by_diskseq import attributes, disks
from ansible_collections.racefree.block.plugins.module_utils._by_diskseq.attributes import (
    Attributes,
    may_open,
)
from ansible_collections.racefree.block.plugins.module_utils._by_diskseq.disks import Disk

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="processes of other users need root")
USER, GROUP, OTHER = 64501, 64502, 64503


@pytest.fixture
def process() -> Iterator[object]:
    """
    A function that starts a process with a command prefix such as setpriv(1) or unshare(1), and returns its
    PID.
    """
    started = []

    def start(*command: str) -> int:
        child = subprocess.Popen([*command, "sh", "-c", "echo; exec sleep 60"], stdout=subprocess.PIPE)
        started.append(child)
        assert child.stdout is not None and child.stdout.readline()
        return child.pid

    yield start
    for child in started:
        child.kill()
        child.wait()


def user(*options: str, groups: str = "--clear-groups") -> list[str]:
    return ["setpriv", f"--reuid={USER}", f"--regid={GROUP}", groups, *options]


@pytest.mark.parametrize(
    ("mode", "owner", "group", "allowed"),
    [
        (0o600, 0, 0, False),
        (0o660, 0, 0, False),
        (0o666, 0, 0, True),
        (0o664, 0, 0, True),
        (0o662, 0, 0, True),
        (0o661, 0, 0, False),
        (0o600, USER, 0, True),
        (0o400, USER, 0, True),
        (0o066, USER, GROUP, False),
        (0o060, 0, GROUP, True),
        (0o606, 0, GROUP, False),
        (0o060, 0, OTHER, True),
        (0o606, 0, OTHER, False),
    ],
)
def test_access_by_mode_owner_and_group(process, mode: int, owner: int, group: int, allowed: bool) -> None:
    pid = process(*user(groups=f"--groups={OTHER}"))
    assert may_open(Attributes(stat.S_IFBLK | mode, owner, group, 0), USER, GROUP, pid) == allowed


def test_access_by_capability(process) -> None:
    node = Attributes(stat.S_IFBLK | 0o600, 0, 0, 0)
    capable = process(*user("--inh-caps=+dac_override", "--ambient-caps=+dac_override"))
    searching = process(*user("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"))
    assert may_open(node, USER, GROUP, capable) and may_open(node, USER, GROUP, searching)
    assert not may_open(node, USER, GROUP, process(*user()))
    assert not may_open(node, USER, GROUP, process(*user("--inh-caps=+net_raw", "--ambient-caps=+net_raw")))


def test_capabilities_in_another_user_namespace_do_not_count(process) -> None:
    pid = process(*user(), "unshare", "--user", "--map-root-user")
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        assert "CapEff:\t000001" in file.read()
    assert not may_open(Attributes(stat.S_IFBLK | 0o600, 0, 0, 0), USER, GROUP, pid)


def test_a_process_that_cannot_be_examined_has_no_access() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    for pid in (0, child.pid):
        assert not may_open(Attributes(stat.S_IFBLK | 0o666, 0, 0, 0), USER, GROUP, pid)


def test_a_missing_node_is_shown_as_accessible_to_root_only() -> None:
    shown = attributes.of_disk(Disk(1, 0, "no-such-node", 4000, 1))
    assert shown == (stat.S_IFBLK | 0o600, 0, 0, os.makedev(4000, 1))


def test_attributes_are_those_of_the_node() -> None:
    disk = next(
        (
            disk
            for disk in map(disks._disk, os.listdir("/sys/block"))
            if disk and os.path.exists(f"/dev/{disk.name}")
        ),
        None,
    )
    if disk is None:
        pytest.skip("no disk has a node here")
    there = os.lstat(f"/dev/{disk.name}")
    assert attributes.of_disk(disk) == (there.st_mode, there.st_uid, there.st_gid, there.st_rdev)
