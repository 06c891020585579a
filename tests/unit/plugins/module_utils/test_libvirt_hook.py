# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hook's holders. What it does for guests is tested with libvirt itself: tests/host/test_libvirt_hook.py."""

from __future__ import annotations

import os
import signal
import time

import pytest

from ansible_collections.racefree.block.plugins.module_utils import _guest_disk, _libvirt_hook
from ansible_collections.racefree.block.plugins.module_utils._device import Device, DeviceId

UUID = "11111111-2222-3333-4444-55555555555b"
# A guest of 1 TiB whose memory comes at 400 MB/s.
RESTORING = 2750


@pytest.fixture
def device(monkeypatch, tmp_path):
    monkeypatch.setattr(_guest_disk, "STATE", str(tmp_path))
    reader, writer = os.pipe()
    with Device(writer, DeviceId(7, 0, 1), "pipe") as opened:
        yield opened
    os.close(reader)


def seconds_of(pid):
    """How long the holder sleeps, once it does."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with open(f"/proc/{pid}/cmdline", encoding="ascii") as file:
            words = file.read().split("\0")
        if words[0] == "sleep":
            return int(words[1])
        time.sleep(0.01)
    raise AssertionError("it is no holder")


def test_a_holder_outlasts_the_restore_of_a_big_guest(device):
    """libxl adds the disks after the memory was read."""
    _libvirt_hook.start_holder(UUID, [device])
    with open(_libvirt_hook._record(UUID), encoding="ascii") as file:
        pid = int(file.read().split()[0])
    try:
        assert seconds_of(pid) > RESTORING
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        _libvirt_hook.end_holder(UUID)
    assert os.listdir(_guest_disk.STATE) == []
