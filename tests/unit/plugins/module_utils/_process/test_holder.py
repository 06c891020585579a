# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from ansible_collections.racefree.block.plugins.module_utils._block.device import Device, DeviceId
from ansible_collections.racefree.block.plugins.module_utils._process import holder as _holder
from ansible_collections.racefree.block.plugins.module_utils._process import open_files


@pytest.fixture
def device(tmp_path):
    # A holder only keeps descriptors open, whatever they refer to. The other end of a pipe shows when the
    # last one is closed.
    reader, writer = os.pipe()
    with Device(writer, DeviceId(7, 0, 1), "pipe") as opened:
        yield opened, reader
    os.close(reader)


def closed(reader, seconds):
    """Whether all writers of the pipe are closed within that time."""
    os.set_blocking(reader, False)
    end = time.monotonic() + seconds
    while True:
        try:
            return os.read(reader, 1) == b""
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(0.02)


def descriptors(holder):
    """
    The descriptors of the holder, once it sleeps. Before that, they are those of the shell or of the dynamic
    loader.
    """
    end = time.monotonic() + 10
    while True:
        with open(f"/proc/{holder.pid}/stat") as stat:
            name, state = stat.read().split(" ", 1)[1].rsplit(") ", 1)
        if (name, state[0]) == ("(sleep", "S"):
            return [
                os.readlink(f"/proc/{holder.pid}/fd/{name}") for name in os.listdir(f"/proc/{holder.pid}/fd")
            ]
        assert time.monotonic() < end
        time.sleep(0.01)


def test_holders_of_a_file(tmp_path):
    """Another process that has the file open is not a holder."""
    (tmp_path / "held").touch()
    with Device(os.open(tmp_path / "held", os.O_RDONLY), DeviceId(7, 0, 1), "held") as held:
        what = open_files.what(os.fstat(held.fd))
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[held.fd]) as other:
            assert open_files.holders_of(what) == []
            with _holder.hold([held], 60) as holding:
                descriptors(holding)
                assert open_files.holders_of(what) == [str(holding.pid)]
            assert open_files.holders_of(what) == []
            other.stdin.close()


def children():
    with open(f"/proc/self/task/{os.getpid()}/children") as listed:
        return listed.read().split()


def test_a_holder_holds_until_released(device):
    held, reader = device
    before = children()
    holder = _holder.hold([held], 30)
    held.close()
    assert not closed(reader, 0.2)
    assert set(descriptors(holder)) == {"/dev/null", os.readlink(f"/proc/self/fd/{reader}")}
    assert os.readlink(f"/proc/{holder.pid}/cwd") == "/"
    assert os.getsid(holder.pid) == holder.pid
    holder.release()
    holder.release()
    assert closed(reader, 0)
    assert children() == before


def test_a_holder_ends_by_itself(device):
    held, reader = device
    with _holder.hold([held], 1):
        held.close()
        assert not closed(reader, 0.3)
        assert closed(reader, 5)


def test_a_holder_survives_its_creator(device, tmp_path):
    held, reader = device
    os.set_inheritable(held.fd, True)
    code = (
        "import os, signal\n"
        "from ansible_collections.racefree.block.plugins.module_utils._process import holder as _hold\n"
        "from ansible_collections.racefree.block.plugins.module_utils._block.device import Device\n"
        f"_hold.hold([Device({held.fd}, None, 'pipe')], 2)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code],
        pass_fds=[held.fd],
        stdout=subprocess.PIPE,
        check=False,
        timeout=20,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == -9
    assert done.stdout == b"", "the pipe of the maker's output must not be kept open"
    held.close()
    assert not closed(reader, 0.5)
    assert closed(reader, 5)
    assert time.monotonic() - began < 10


def test_a_confirmed_holder_stays(device):
    held, reader = device
    before = children()
    with _holder.hold_pending([held], 30):
        assert children() != before
    assert children() == before
    holder = _holder.hold_pending([held], 30)
    holder.stay()
    held.close()
    assert not closed(reader, 0.2)
    assert set(descriptors(holder)) == {"/dev/null", os.readlink(f"/proc/self/fd/{reader}")}
    holder.release()
    holder.release()
    assert closed(reader, 0) and children() == before


def test_a_pending_holder_ends_with_its_creator(device):
    held, reader = device
    maker = os.fork()
    if not maker:
        try:
            _holder.hold_pending([held], 30)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(maker, 0)
    held.close()
    assert closed(reader, 5)


def test_a_detached_holder(device):
    held, reader = device
    before = children()
    _holder.hold_for([held], 1)
    assert children() == before, "nobody has to wait for it"
    held.close()
    assert not closed(reader, 0.3)
    assert closed(reader, 5)


def test_many_devices_in_one_holder(device):
    held, reader = device
    many = [held.duplicate() for dummy in range(100)]
    with _holder.hold(many, 30) as holder:
        assert len(descriptors(holder)) == 103
        for one in many:
            one.close()
        held.close()
        assert not closed(reader, 0.2)
    assert closed(reader, 0)


def test_nothing_inheritable_is_kept(device):
    held, dummy = device
    with open(os.devnull, "rb") as other:
        os.set_inheritable(other.fileno(), True)
        with _holder.hold([held], 30) as holder:
            assert len(descriptors(holder)) == 4
