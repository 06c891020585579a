# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Detach loop devices: unused ones, those in use, and those whose removal is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    DeviceBusy,
)
from ansible_collections.racefree.block.plugins.module_utils._block import (
    detach,
    loop,
)
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.attached_loops import attach

pytestmark = pytest.mark.usefixtures("no_descriptor_leaks")


def test_detach(place):
    for persistent in (False, True):
        device = attach(loopdevices.image(place, "disk"))
        loop.set_autoclear(device, not persistent)
        assert detach.detach(device) is True
        assert device.fd == -1 and not loopdevices.bound_files(place)


def test_detach_waits_for_users_that_close_soon(place):
    device = attach(loopdevices.image(place, "disk"))
    code = f"import time; f = open({device.path!r}, 'rb'); print('open', flush=True); time.sleep(0.4)"
    prober = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert prober.stdout.readline() == b"open\n"
    began = time.monotonic()
    assert detach.detach(device, timeout=10) is True
    assert 0.05 < time.monotonic() - began < 9
    assert prober.wait() == 0
    prober.stdout.close()


@pytest.mark.parametrize("persistent", [False, True])
def test_a_device_in_use_is_left_unchanged(place, persistent):
    path = loopdevices.image(place, "disk")
    device = attach(path)
    loop.set_autoclear(device, not persistent)
    user = os.open(device.path, os.O_RDONLY)
    with pytest.raises(DeviceBusy, match="deferred=true") as caught:
        detach.detach(device, timeout=0.1)
    assert caught.value.device == device.path
    with _device.open_path(device.path, diskseq=device.id.diskseq) as again:
        assert loop.info(again).autoclear != persistent
    os.close(user)
    if persistent:
        with _device.open_path(device.path, diskseq=device.id.diskseq) as again:
            detach.detach(again)


def test_a_killed_detach_leaves_a_device_in_use(place):
    """
    Its user opened it before. After the removal is killed and the user has closed the device, the device
    still exists. This does not hold between two system calls, where a busy machine may stop a process.
    """
    lost, device = 0, attach(loopdevices.image(place, "disk"))
    for number in range(25):
        loop.set_autoclear(device, False)
        user = os.open(device.path, os.O_RDONLY)
        child = os.fork()
        if not child:
            try:
                os.close(user)
                own = _device.open_path(device.path, diskseq=device.id.diskseq)
                os.close(device.fd)
                detach.detach(own, timeout=30)
            finally:
                os._exit(0)
        device.close()
        time.sleep(0.004 * number)
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        os.close(user)
        if not loopdevices.bound_files(place):
            lost, device = lost + 1, attach(loopdevices.image(place, "disk"))
        else:
            device = _device.open_path(device.path, diskseq=device.id.diskseq)
            lost += loop.info(device).autoclear
    detach.detach(device)
    assert lost <= 2


def test_a_claimed_device_is_refused_without_waiting(place):
    device = attach(loopdevices.image(place, "disk"))
    claim = os.open(device.path, os.O_RDONLY | os.O_EXCL)
    began = time.monotonic()
    with pytest.raises(DeviceBusy):
        detach.detach(device, timeout=30)
    assert time.monotonic() - began < 5 and device.fd >= 0
    os.close(claim)
    device.close()


def test_deferred_detach(place):
    path = loopdevices.image(place, "disk", content=b"still here")
    device = attach(path)
    loop.set_autoclear(device, False)
    user = os.open(device.path, os.O_RDONLY)
    assert detach.detach(device, deferred=True, timeout=0.1) is False
    assert os.pread(user, 10, 0) == b"still here"
    os.close(user)
    assert loopdevices.nothing_bound(place)
    assert detach.detach(attach(path), deferred=True) is True


def test_the_error_names_the_mount(tmp_path):
    loopdevices.need_loop()
    path = loopdevices.image(tmp_path, "disk", 1048576)
    subprocess.run(["mkfs.ext4", "-q", path], check=True)
    point = tmp_path / "mnt"
    point.mkdir()
    with attach(path) as device:
        done = subprocess.run(
            ["mount", "-t", "ext4", device.path, point], stderr=subprocess.PIPE, check=False
        )
        if done.returncode:
            pytest.skip(f"no mount here: {done.stderr.decode()}")
        try:
            assert detach.users(device) == [f"mount {point}"]
            with pytest.raises(DeviceBusy, match=str(point)):
                detach.detach(device)
        finally:
            subprocess.run(["umount", point], check=True)
        assert detach.users(device) == []
    assert loopdevices.nothing_bound(tmp_path)
