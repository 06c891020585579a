# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Mapped devices whose node in /dev is missing or belongs to another device, and errors while the devices below
them are examined.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import stat

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import BlockError
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.plugins.module_utils._source import resources
from ansible_collections.racefree.block.plugins.module_utils._xen import stack as _stack
from ansible_collections.racefree.block.plugins.module_utils._xen.footprint import footprint
from conftest import refused, run_module

SECTORS = 2048


@contextlib.contextmanager
def lost(path, number=None):
    """Without the node at the path, or with a node of another number."""
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
    """What replaces a node: nothing, and the number of another device."""
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
            mapper = again["device"]["mapper_path"]
            assert mapper is None or os.stat(mapper).st_rdev == os.makedev(made["major"], made["minor"])
            assert again["device"]["diskseq"] == made["diskseq"]


def test_absent_removes_it(stack):
    loop, made = stack
    with lost(made["path"]):
        gone = run_module("dm_device", name=made["mapper_name"], state="absent")
        assert gone["changed"] and gone["gone"] and not os.path.exists(f"/sys/block/{made['name']}")
    # The test has restored it.
    os.unlink(made["path"])
    assert run_module("loop_device", diskseq=loop["diskseq"], state="absent")["gone"]


def test_the_node_of_another_device_is_not_followed(stack, name):
    loop, made = stack
    with lost(made["path"], numbers(loop)[1]):
        advice = f"mknod {made['path']} b {made['major']} {made['minor']}"
        refused("dm_device", advice, name=f"{name}2", table=f"0 8 linear {made['path']} 0")


def test_devices_below_are_seen(stack):
    """
    Whichever node is missing, the check for sharing compares the same devices, and no temporary node is left.
    """
    loop, made = stack
    names = sorted(os.listdir("/dev"))
    with resources.Resources() as host:
        seen = footprint(made["major"], made["minor"], True, _stack.questions(host))
        assert [extent.leaf[0] for extent in seen] == ["file"]
        for path in (loop["path"], made["path"]):
            for number in (*numbers(loop), os.makedev(made["major"], made["minor"])):
                with lost(path, number):
                    assert footprint(made["major"], made["minor"], True, _stack.questions(host)) == seen
                    with _device.open_number(made["major"], made["minor"]) as device:
                        assert device.id.diskseq == made["diskseq"]
    assert sorted(os.listdir("/dev")) == names


def in_child(function):
    """The short text that ``function()`` returns, run in a child process."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writer, function().encode())
        finally:
            os._exit(0)
    os.close(writer)
    try:
        return os.read(reader, 4096).decode()
    finally:
        os.close(reader)
        os.waitpid(child, 0)


def look(made, expected):
    """``seen`` if the devices below the mapped device are as expected, ``another`` if not, or an errno."""
    try:
        with resources.Resources() as host:
            found = footprint(made["major"], made["minor"], True, _stack.questions(host))
    except BlockError as error:
        return str(error.errno_name)
    return "seen" if found == expected else "another"


def test_out_of_descriptors(stack):
    """With each limit, either all devices below are seen, or there is an error."""
    made = stack[1]
    with resources.Resources() as host:
        expected = footprint(made["major"], made["minor"], True, _stack.questions(host))
    told = []
    for limit in range(3, 65):

        def work(limit=limit):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            return look(made, expected)

        told.append(in_child(work))
    assert set(told) == {"EMFILE", "seen"} and told == sorted(told), told


class Failing:
    """A function that fails with the errno at call number ``at``."""

    def __init__(self, real, at, number):
        self.real, self.at, self.number, self.calls = real, at, number, 0

    def __call__(self, *words, **more):
        self.calls += 1
        if self.calls == self.at:
            raise OSError(self.number, os.strerror(self.number))
        return self.real(*words, **more)


ERRORS = [errno.EMFILE, errno.EACCES, errno.EIO, errno.ENOMEM]


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
def test_an_error_at_any_step(stack, monkeypatch, number):
    """Each call that reads something fails once, at each place where it is made."""
    made = stack[1]
    with resources.Resources() as host:
        expected = footprint(made["major"], made["minor"], True, _stack.questions(host))
    tried = 0
    calls = [(os, name) for name in ("open", "stat", "lstat", "readlink", "listdir")] + [(fcntl, "ioctl")]
    for module, name in calls:
        real, at = getattr(module, name), 0
        while True:
            at, fails = at + 1, Failing(real, at + 1, number)
            with monkeypatch.context() as patch:
                patch.setattr(module, name, fails)
                told = look(made, expected)
            if fails.calls < at:
                break
            tried += 1
            assert told != "another", f"{name}, call {at}"
            assert told in ("seen", errno.errorcode[number])
    assert tried >= 8, "it looks at each device of the stack"
