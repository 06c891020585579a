# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The check for sharing while another guest's disk is over storage that has failed (a FUSE server that was
killed), or does not answer (one that was stopped).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import fuse_server
import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import BlockError, DeviceBusy
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.plugins.module_utils._block import loop_files
from ansible_collections.racefree.block.plugins.module_utils._source import resources
from ansible_collections.racefree.block.plugins.module_utils._xen import sharing, stack, vdev
from ansible_collections.racefree.block.plugins.module_utils._xen.blkback import Request
from ansible_collections.racefree.block.plugins.module_utils._xen.guest import Guest
from conftest import Failed, run_module, udev_settle, wait_until

GUEST = Guest(5, "00000005-1111-2222-3333-444444444444", "web")
VBD = "/local/domain/0/backend/vbd"
QDISK = "/local/domain/0/backend/qdisk"


class Tree:
    """What the check reads of XenStore, whose daemon is not on this kernel: the nodes of other guests."""

    def __init__(self, nodes):
        self.nodes = nodes

    def read(self, path):
        return self.nodes.get(path)

    def read_many(self, paths):
        return {path: self.nodes.get(path) for path in paths}

    def list_many(self, paths):
        names = {
            path: {node[len(path) + 1 :].split("/")[0] for node in self.nodes if node.startswith(path + "/")}
            for path in paths
        }
        return {path: sorted(found) or None for path, found in names.items()}

    def list_and_read(self, paths, nodes):
        return self.list_many(paths), self.read_many(nodes)


class Server:
    """A FUSE file system, and a loop device over its file. All stop together."""

    def __init__(self, point):
        point.mkdir()
        self.point, self.path = str(point), str(point / "disk.raw")
        command = [sys.executable, fuse_server.__file__, self.point, str(2**20)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == b"mounted\n"
        self.st_dev = os.stat(self.point).st_dev
        self.device = run_module("loop_device", backing_file=self.path)["device"]
        udev_settle()

    def end(self, how):
        self.process.send_signal(how)
        if how == signal.SIGKILL:
            self.process.wait(30)

    def close(self):
        self.process.kill()
        self.process.wait(30)
        self.process.stdout.close()

        def is_removed():
            try:
                run_module("loop_device", diskseq=self.device["diskseq"], state="absent", timeout=5)
            except Failed:
                return False
            return True

        # A process that waited for it may hold it for another moment.
        wait_until(is_removed, 30)
        subprocess.run(["umount", "--lazy", self.point], check=False)


@pytest.fixture
def server(tmp_path):
    """A function that starts a Server."""
    servers = []

    def start(name="fuse"):
        servers.append(Server(tmp_path / name))
        return servers[-1]

    loop_files._SILENT.clear()
    yield start
    for each in servers:
        each.close()


def served(number, mode="w"):
    """The nodes of a disk of another guest."""
    nodes = {"physical-device": f"{number[0]:x}:{number[1]:x}", "mode": mode, "state": "4", "dev": "xvda"}
    return Tree({f"{VBD}/9/51712/{name}": value for name, value in nodes.items()})


def numbers(device):
    return device["major"], device["minor"]


def attach(device, others):
    """Check a device, which the module returned, for the guest."""
    with (
        resources.Resources() as host,
        _device.open_path(device["path"], writable=True) as opened,
        sharing.Sharing(stack.questions(host)) as check,
    ):
        check.guard(others, Request(GUEST, vdev.parse("xvda"), opened))


@pytest.fixture
def healthy(image, cleanup):
    path = image("healthy.raw")
    cleanup(loop=path)
    return run_module("loop_device", backing_file=path)["device"]


ENDS = [pytest.param(signal.SIGKILL, id="failed"), pytest.param(signal.SIGSTOP, id="silent")]


@pytest.mark.rotated
@pytest.mark.parametrize("how", ENDS)
def test_others_are_not_stopped(server, healthy, how):
    """Neither on local storage nor on that of another server."""
    dead, alive = server("dead"), server("alive")
    others = served(numbers(dead.device))
    dead.end(how)
    started = time.monotonic()
    attach(healthy, others)
    attach(alive.device, others)
    attach(healthy, others)
    assert time.monotonic() - started < 15
    with pytest.raises(DeviceBusy, match="the file with inode"):
        attach(healthy, served(numbers(healthy)))


@pytest.mark.parametrize("how", ENDS)
def test_the_same_file_system_is_refused(server, how):
    """It may be the same file. Here it is, and the other device was asked before."""
    dead = server()
    others = served(numbers(dead.device))
    with resources.Resources() as host:
        questions = stack.questions(host)
        with sharing.Sharing(questions) as check, _device.open_path(dead.device["path"]) as opened:
            mine = check._footprint(opened.id, True)
        dead.end(how)
        with sharing.Sharing(questions) as check, pytest.raises(DeviceBusy) as caught:
            check.check_extents(others, mine, Request(GUEST, vdev.parse("xvda"), None), "mine")
    words = f"a file on {os.major(dead.st_dev)}:{os.minor(dead.st_dev)} whose storage does not answer"
    assert words in str(caught.value) and "disk xvda of domain 9" in str(caught.value)


def test_its_own_storage_must_answer(server):
    dead = server()
    dead.end(signal.SIGKILL)
    with pytest.raises(BlockError, match="the storage of its file has failed"):
        attach(dead.device, Tree({}))


def test_a_file_system_that_cannot_be_told_is_an_error(server, healthy):
    """After its mount was taken away, the kernel shows a path as if the file were in the root."""
    dead = server()
    dead.end(signal.SIGKILL)
    subprocess.run(["umount", "--lazy", dead.point], check=True)
    with pytest.raises(BlockError, match=f"{dead.device['path']}: .*the storage of its file has failed"):
        attach(healthy, served(numbers(dead.device)))


@pytest.mark.rotated
@pytest.mark.parametrize("how", ENDS)
def test_a_mapped_device_over_it(server, healthy, name, cleanup, how):
    dead = server()
    cleanup(dm=name)
    table = f"0 8 linear diskseq:{dead.device['diskseq']} 0"
    mapped = run_module("dm_device", name=name, table=table)["device"]
    udev_settle()
    dead.end(how)
    attach(healthy, served(numbers(mapped)))
    if how == signal.SIGSTOP:
        dead.end(signal.SIGCONT)
