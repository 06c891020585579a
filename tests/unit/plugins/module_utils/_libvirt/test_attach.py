# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Which process holds the device while libvirt attaches it. Tests with libvirt itself:
tests/host/test_libvirt_vbd.py.
"""

from __future__ import annotations

import contextlib
import os
import types

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import GuestError, WrongDevice
from ansible_collections.racefree.block.plugins.module_utils._block.device import Device, DeviceId
from ansible_collections.racefree.block.plugins.module_utils._libvirt import attach
from ansible_collections.racefree.block.plugins.module_utils._xen import blkback, guest, vdev


class Store:
    def within(self, limit):
        return contextlib.nullcontext()


@pytest.fixture
def request_(monkeypatch):
    """A request for a device that is a pipe. Its other end shows when nobody holds the device any more."""
    monkeypatch.setattr(attach._connection, "require", lambda: None)
    monkeypatch.setattr(attach, "libvirt", types.SimpleNamespace(VIR_DOMAIN_AFFECT_LIVE=1))
    monkeypatch.setattr(attach.blkback, "check", lambda request: None)
    monkeypatch.setattr(attach.vbd_read, "read_vbd", lambda *arguments: None)
    monkeypatch.setattr(Device, "prove", lambda device: None)
    monkeypatch.setattr(Device, "has_node", True)
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    with Device(writer, DeviceId(7, 0, 1), "pipe") as device:
        yield blkback.Request(guest.Guest(5, "u", "web1"), vdev.parse("xvda"), device), reader
    os.close(reader)


def is_held_by_another(device, reader):
    """Whether the device stays open when this process closes it, as if it were killed."""
    copy = os.dup(reader)
    device.close()
    try:
        return os.read(copy, 1) != b""
    except BlockingIOError:
        return True
    finally:
        os.close(copy)


@pytest.mark.parametrize("moment", ["libvirt", "proof"])
def test_a_killed_run_does_not_free_the_device_number(request_, monkeypatch, moment):
    request, reader = request_
    seen = []

    def look(*arguments):
        seen.append(is_held_by_another(request.device, reader))

    monkeypatch.setattr(attach, "_with_domain", look if moment == "libvirt" else lambda *arguments: None)
    monkeypatch.setattr(attach, "_proven", look if moment == "proof" else lambda *arguments: None)
    (outcome,) = attach.attach(Store(), [request])
    assert outcome.error is None and seen == [True]
    assert os.read(reader, 1) == b"", "the holder ends after the proof"


def test_the_holder_ends_after_a_failure(request_, monkeypatch):
    request, reader = request_

    def fail(*arguments):
        raise GuestError("no")

    monkeypatch.setattr(attach, "_with_domain", fail)
    (outcome,) = attach.attach(Store(), [request])
    assert isinstance(outcome.error, GuestError)
    request.device.close()
    assert os.read(reader, 1) == b""


def test_libvirt_gets_no_path_of_another_device(request_, monkeypatch):
    """libvirt accepts only a path, and would open whatever is there."""
    request, dummy = request_
    asked = []
    monkeypatch.setattr(Device, "has_node", False)
    monkeypatch.setattr(attach, "_with_domain", lambda *arguments: asked.append(arguments))
    (outcome,) = attach.attach(Store(), [request])
    assert (
        isinstance(outcome.error, WrongDevice) and "mknod /dev/pipe b 7 0" in str(outcome.error) and not asked
    )
