# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hook's holders. Tests with libvirt and guests: tests/host/test_libvirt_hook.py."""

from __future__ import annotations

import os
import signal
import subprocess
import syslog
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base import locks
from ansible_collections.racefree.block.plugins.module_utils._base.deadline import Deadline
from ansible_collections.racefree.block.plugins.module_utils._base.errors import WrongDevice
from ansible_collections.racefree.block.plugins.module_utils._block.device import Device, DeviceId
from ansible_collections.racefree.block.plugins.module_utils._libvirt import disk_device, domain_xml, hook
from ansible_collections.racefree.block.plugins.module_utils._process import identity

UUID = "11111111-2222-3333-4444-55555555555b"
# Seconds to restore the 1 TiB of memory of a guest at 400 MB/s.
RESTORING = 2750


@pytest.fixture
def device(monkeypatch, tmp_path):
    monkeypatch.setattr(disk_device, "STATE", str(tmp_path))
    reader, writer = os.pipe()
    with Device(writer, DeviceId(7, 0, 1), "pipe") as opened:
        yield opened
    os.close(reader)


def seconds_of(pid):
    """The seconds for which the holder sleeps, once it does."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with open(f"/proc/{pid}/cmdline", encoding="ascii") as file:
            words = file.read().split("\0")
        if words[0] == "sleep":
            return int(words[1])
        time.sleep(0.01)
    raise AssertionError("it is no holder")


def test_a_holder_outlives_the_restore_of_a_big_guest(device):
    """libxl adds the disks after it has read the memory."""
    hook.start_holder(UUID, [device])
    with open(hook._record(UUID), encoding="ascii") as file:
        pid = int(file.read().partition("-")[0])
    try:
        assert seconds_of(pid) > RESTORING
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        hook.end_holder(UUID)
    assert os.listdir(disk_device.STATE) == []


def test_a_file_left_by_a_killed_run(device):
    for name in ("holder.new", "holder"):
        with open(f"{disk_device.STATE}/{UUID}.{name}", "w", encoding="ascii") as file:
            # A PID that no process has: PIDs end at 2^22.
            file.write(identity.own_mark().replace(str(os.getpid()), "4194305", 1))
    hook.end_holder(UUID)
    assert os.listdir(disk_device.STATE) == []


@pytest.mark.parametrize("is_here", [True, False])
def test_a_holder_of_another_pid_namespace_is_not_killed(device, is_here):
    """In that namespace, the PID belongs to another process."""
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        mark = identity.mark_of(sleeper.pid, sleeper.pid)
        with open(hook._record(UUID), "w", encoding="ascii") as file:
            file.write(mark if is_here else mark.rpartition("-")[0] + "-f0000000.0")
        hook.end_holder(UUID)
        assert (sleeper.poll() is not None or wait_for_end(sleeper)) is is_here
        sleeper.kill()


def wait_for_end(process):
    try:
        return process.wait(0.5) is not None
    except subprocess.TimeoutExpired:
        return False


@pytest.fixture
def log(monkeypatch):
    lines = []
    monkeypatch.setattr(syslog, "syslog", lambda priority, line: lines.append((priority, line)))
    return lines


@pytest.fixture
def running(monkeypatch, tmp_path):
    """The definition of a running domain with the disks xvda to xvdd. xvdb and xvdc are wrong."""
    monkeypatch.setattr(disk_device, "STATE", str(tmp_path))

    def prove(host, job, wanted, limit):
        if wanted.target == "xvdb":
            raise WrongDevice("blkback opened another\none", device=str(wanted))
        return f"{wanted.target} is in use"

    monkeypatch.setattr(hook, "_prove", prove)
    text = f"<domain type='xen' id='5'><name>web&#10;1</name><uuid>{UUID}</uuid><devices/></domain>"
    for letter in "abcd":
        path = domain_xml.path_of(UUID, f"xvd{letter}")
        text = domain_xml.put(text, domain_xml.Disk(f"xvd{letter}", path), f'{{"file": "/srv/{letter}"}}')
    return text.replace('{"file": "/srv/c"}', "{}")


def test_after_a_restart_each_disk_is_logged_on_its_own_line(running, log, capfd):
    """Each disk is reported separately, whatever is wrong with the others, and the guest keeps running."""
    assert hook.main(["web\n1", "reconnect"], running) == 0
    assert all("\n" not in line for dummy, line in log)
    said = {
        word: priority for priority, line in log for word in ("xvda", "xvdb", "xvdc", "xvdd") if word in line
    }
    assert (
        said
        == {"xvda": syslog.LOG_INFO, "xvdb": syslog.LOG_ERR, "xvdc": syslog.LOG_ERR, "xvdd": syslog.LOG_INFO}
        and len(log) == 4
    )
    assert capfd.readouterr() == ("", "")


def test_a_start_is_refused_because_of_the_first_bad_disk(running, log):
    assert hook.main(["web1", "started"], running) == 1
    assert len(log) == 1 and log[0][0] == syslog.LOG_ERR and "xvdc" in log[0][1]


@pytest.mark.parametrize("operation", ["prepare", "release"])
def test_an_error_leaves_no_lock(monkeypatch, tmp_path, running, log, operation):
    """A program that calls the hook several times, as tests do, would keep others waiting."""
    monkeypatch.setattr(locks, "DIRECTORY", str(tmp_path / "locks"))
    locks._STATE.clear()

    def fail(*dummy):
        raise WrongDevice("it cannot be done", device="xvda")

    for name in ("make", "release"):
        monkeypatch.setattr(hook, name, fail)
    good = running.replace("{}", '{"file": "/srv/c"}')
    assert hook.main(["web1", operation], good) == (1 if operation == "prepare" else 0)
    assert "it cannot be done" in log[0][1]
    with ThreadPoolExecutor() as another:
        assert another.submit(lambda: disk_device.locked(Deadline(0)).close()).result() is None
