# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
``replace: true`` of xen_vbd: real guests release a disk and get another one. Refusals are in
the unit tests.
"""

from __future__ import annotations

import pytest
from ansible_collections.racefree.block.plugins.module_utils._block.seal import seals
from conftest import Failed, run_module, wait_until
from libvirthost import in_guest, run

pytestmark = [pytest.mark.xen]

GUEST = "replacing"
MIB = 2**20


@pytest.fixture(scope="module")
def guest():
    run("xenguest", "stop", GUEST, check=False)
    run("xenguest", "start", GUEST, "--memory", "128")
    yield GUEST
    run("xenguest", "stop", GUEST)


@pytest.fixture
def raw(tmp_path):
    """A function that makes a file that begins with its name."""

    def make(name, size=MIB):
        path = tmp_path / (name or "empty")
        with open(path, "wb") as file:
            file.write(name.encode().ljust(16, b".") if name else b"")
            file.truncate(size)
        return str(path)

    return make


@pytest.fixture(autouse=True)
def nothing_left(request):
    """Detaches xvdb, and waits until no device is left."""
    yield
    if "guest" in request.fixturenames:
        run_module("xen_vbd", domain=GUEST, vdev="xvdb", state="detached", force=True)
    wait_until(lambda: run_module("device_info", features=False)["devices"] == [], 20)
    assert not seals.found()


def begins(vdev="xvdb", name=GUEST):
    """The text with which the guest's disk begins, as the guest reads it."""
    return in_guest(name, f"dd if=/dev/{vdev} bs=16 count=1 2>/dev/null").rstrip(".")


def vbd(source, **options):
    wanted = {"domain": GUEST, "vdev": "xvdb", "source": {"file": source}, "persist": False, "timeout": 60}
    return {**wanted, "wait_connected": True, **options}


@pytest.mark.long
def test_a_new_disk_that_blkback_refuses(guest, raw):
    """A released blkback does not understand this form of the number. The guest has its old disk again."""
    old = raw("old")
    run_module("xen_vbd", **vbd(old))
    with pytest.raises(Failed, match="rejected .* The guest has its old disk .* again") as caught:
        run_module("xen_vbd", **vbd(raw("new"), replace=True, diskseq_form="diskseq@number"))
    assert not caught.value.result["changed"]
    wait_until(lambda: begins() == "old", 30)
    assert not run_module("xen_vbd", **vbd(old))["changed"]


@pytest.mark.gate("bookworm")
def test_a_guest_that_does_not_answer_keeps_its_disk(guest, raw):
    """Nothing is changed, and the disk works when the guest runs again."""
    old, new = raw("old"), raw("new")
    before = run_module("xen_vbd", **vbd(old))["vbd"]
    run("xenguest", "pause", guest)
    try:
        with pytest.raises(Failed, match="It still has the disk, and nothing was changed") as caught:
            run_module("xen_vbd", **vbd(new, replace=True, timeout=3))
        assert not caught.value.result["changed"]
    finally:
        run("xenguest", "unpause", guest)
    assert begins() == "old"
    again = run_module("xen_vbd", **vbd(old))
    assert not again["changed"] and again["vbd"] == before
    in_guest(guest, "echo written | dd of=/dev/xvdb seek=1 bs=512 conv=notrunc,fsync 2>/dev/null")
    assert run_module("xen_vbd", **vbd(new, replace=True))["changed"] and begins() == "new"
