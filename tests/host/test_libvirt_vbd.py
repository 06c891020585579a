# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs on a Xen host whose guests libvirt runs; see test_blkback.py."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import DeadlineExceeded, DeviceBusy
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.plugins.module_utils._libvirt import attach
from ansible_collections.racefree.block.plugins.module_utils._xen import (
    blkback,
    vbd_read,
    vdev,
)
from ansible_collections.racefree.block.plugins.module_utils._xen import (
    guest as _guest,
)
from ansible_collections.racefree.block.plugins.module_utils._xen.blkback import Detachment, Request
from ansible_collections.racefree.block.plugins.module_utils._xenstore.pyxs_store import Store

pytestmark = [
    pytest.mark.xen,
    pytest.mark.gate("trixie"),
]


def run(*argv, check=True):
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=600,
        check=False,
    )
    text = done.stdout.decode(errors="replace")
    assert done.returncode == 0 or not check, f"{argv}: {text}"
    return text.strip()


def virsh(*words, check=True):
    return run("virsh", "-q", "-c", "xen:///system", *words, check=check)


@pytest.fixture(scope="module")
def guest():
    run("xenguest", "start", "lv1", "--libvirt", "--memory", "128")
    with Store(30) as store:
        yield _guest.find(store, "lv1")
    run("xenguest", "stop", "lv1")


@pytest.fixture
def store():
    with Store(30) as opened:
        yield opened


@pytest.fixture
def loop(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(os.urandom(1 << 20))
    made = run("losetup", "--show", "-f", str(path))
    yield made
    run("losetup", "-d", made, check=False)


def test_libvirt_knows_its_guests(guest):
    assert attach.runs(guest, 60)
    assert not attach.runs(guest._replace(uuid="00000000-1111-2222-3333-444444444444"), 60)


def test_what_is_only_in_xenstore_libvirt_does_not_list(store, guest, loop):
    """
    This is why the module exists. If this fails, libvirt has learnt to look there, and _xen.blkback suffices.
    """
    with _device.open_path(loop, writable=True) as device:
        (outcome,) = blkback.attach(
            store, [Request(guest, vdev.parse("xvdb"), device)], 120, wait_connected=True
        )
    assert outcome.error is None
    assert "xvdb" not in virsh("domblklist", "lv1")
    (outcome,) = blkback.detach(store, [Detachment(outcome.vbd, guest)], 60)
    assert outcome.error is None


def test_through_libvirt(store, guest, loop):
    with _device.open_path(loop, writable=True) as device:
        (outcome,) = attach.attach(store, [Request(guest, vdev.parse("xvdc"), device)], 120)
        assert outcome.error is None
        (again,) = attach.attach(store, [Request(guest, vdev.parse("xvdc"), device)], 120)
        assert isinstance(again.error, DeviceBusy)
        assert outcome.vbd.diskseq == device.id.diskseq
    assert loop in virsh("domblklist", "lv1")
    assert (
        run("xenguest", "run", "lv1", "--", "sha256sum < /dev/xvdc").split()[0]
        == run("sha256sum", loop).split()[0]
    )
    (outcome,) = attach.detach(store, [Detachment(vbd_read.read_vbd(store, *outcome.vbd.key), guest)], 120)
    assert outcome.error is None
    assert "xvdc" not in virsh("domblklist", "lv1")
    assert vbd_read.list_vbds(store, guest) == []


def test_virsh_detaches_it(store, guest, loop):
    with _device.open_path(loop, writable=True) as device:
        (outcome,) = attach.attach(store, [Request(guest, vdev.parse("xvdd"), device)], 120)
    assert outcome.error is None
    virsh("detach-disk", "lv1", "xvdd", "--live")
    assert vbd_read.list_vbds(store, guest) == []


@pytest.mark.rotated
def test_a_hung_daemon(store, guest, loop, monkeypatch):
    """
    The error comes in time. What the daemon does later still uses the right device, which is held for it.
    """
    monkeypatch.setattr(attach, "_LATE", 35)
    pid = int(run("pidof", "libvirtd").split()[0])
    with _device.open_path(loop, writable=True) as device:
        os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            (outcome,) = attach.attach(store, [Request(guest, vdev.parse("xvde"), device)], 3)
            took = time.monotonic() - began
            identity = device.id
        finally:
            device.close()
            os.kill(pid, signal.SIGCONT)
    assert isinstance(outcome.error, DeadlineExceeded) and "libvirt to do what it was asked" in str(
        outcome.error
    )
    assert took < 30
    key = (guest.domid, vdev.parse("xvde").number)
    until = time.monotonic() + 28
    while time.monotonic() < until:
        vbd = vbd_read.read_vbd(store, *key)
        if vbd is not None and vbd.number is not None and loop in virsh("domblklist", "lv1"):
            assert vbd.number == (identity.major, identity.minor)
            (outcome,) = attach.detach(store, [Detachment(vbd, guest)], 120)
            assert outcome.error is None
            break
        time.sleep(0.5)
    with _device.open_path(loop) as still:
        assert still.id == identity
    # until the holder has ended
    time.sleep(max(0.0, began + 41 - time.monotonic()))
