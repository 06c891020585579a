# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mapped devices whose node in /dev is missing or is another device's."""

from __future__ import annotations

import contextlib
import os
import stat

import pytest
from conftest import refused, run_module

from ansible_collections.racefree.block.plugins.module_utils import _device, _stack
from ansible_collections.racefree.block.plugins.module_utils._footprint import footprint
from ansible_collections.racefree.block.plugins.module_utils._host import Host

SECTORS = 2048


@contextlib.contextmanager
def lost(path, number=None):
    """Without the node at the path, or with one of another number there."""
    aside = path + ".aside"
    os.rename(path, aside)
    try:
        if number is not None:
            os.mknod(path, stat.S_IFBLK | 0o600, number)
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.rename(aside, path)


@pytest.fixture
def stack(image, name, cleanup):
    """The loop device and the mapped device over it, as the modules return them."""
    path = image(content=b"the disk")
    cleanup(loop=path)
    cleanup(dm=name)
    loop = run_module("loop_device", backing_file=path)["device"]
    made = run_module("dm_device", name=name, table=table_over(loop))["device"]
    return loop, made


def table_over(loop):
    return f"0 {SECTORS} linear diskseq:{loop['diskseq']} 0"


def numbers(loop):
    """Nothing, and the number of another device, to be put in the place of a node."""
    return [None, os.makedev(loop["major"], loop["minor"])]


def test_device_info_lists_it(stack):
    loop, made = stack
    for number in numbers(loop):
        with lost(made["path"], number):
            for arguments in ({}, {"diskseq": made["diskseq"]}):
                rows = run_module("device_info", features=False, **arguments)["devices"]
                found = [row for row in rows if row["diskseq"] == made["diskseq"]]
                shown = [(row["path"], row["name"], row["mapper_name"]) for row in found]
                assert shown == [(None, made["name"], made["mapper_name"])]


def test_present_finds_it(stack):
    loop, made = stack
    for number in numbers(loop):
        with lost(made["path"], number):
            again = run_module("dm_device", name=made["mapper_name"], table=table_over(loop))
            assert not again["changed"] and again["device"]["path"] is None
            assert again["device"]["diskseq"] == made["diskseq"]


def test_absent_removes_it(stack):
    loop, made = stack
    with lost(made["path"]):
        gone = run_module("dm_device", name=made["mapper_name"], state="absent")
        assert gone["changed"] and gone["gone"] and not os.path.exists(f"/sys/block/{made['name']}")
    # The test has put it back.
    os.unlink(made["path"])
    assert run_module("loop_device", diskseq=loop["diskseq"], state="absent")["gone"]


def test_the_node_of_another_device_is_not_followed(stack, name):
    loop, made = stack
    with lost(made["path"], numbers(loop)[1]):
        advice = f"mknod {made['path']} b {made['major']} {made['minor']}"
        refused("dm_device", advice, name=f"{name}2", table=f"0 8 linear {made['path']} 0")


def test_what_lies_below_is_seen(stack):
    """Whichever node is lost: what the sharing check compares is the same, and no node of ours is left."""
    loop, made = stack
    names = sorted(os.listdir("/dev"))
    with Host() as host:
        seen = footprint(made["major"], made["minor"], True, _stack.questions(host))
        assert [extent.leaf[0] for extent in seen] == ["file"]
        for path in (loop["path"], made["path"]):
            for number in (*numbers(loop), os.makedev(made["major"], made["minor"])):
                with lost(path, number):
                    assert footprint(made["major"], made["minor"], True, _stack.questions(host)) == seen
                    with _device.open_number(made["major"], made["minor"]) as device:
                        assert device.id.diskseq == made["diskseq"]
    assert sorted(os.listdir("/dev")) == names
