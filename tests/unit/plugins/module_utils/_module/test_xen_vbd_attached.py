# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What xen_vbd proves, and says, of a disk that it attaches and detaches: real loop devices and a real
xenstored; blkback and the guest are played.
"""

from __future__ import annotations

import os

import pytest
from ansible_collections.racefree.block.plugins.module_utils._module.xen_vbd import VbdItem
from ansible_collections.racefree.block.plugins.module_utils._xen import blkback
from ansible_collections.racefree.block.plugins.module_utils._xen.vbd_nodes import Key
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.played_host import XVDB, raw_write


@pytest.mark.parametrize("replaces", [False, True])
def test_a_path_that_leads_elsewhere_after_the_plan(host, tmp_path, monkeypatch, replaces):
    """The disk sequence number is compared with the device that is attached, not only when planning."""
    loops = [loopdevices.bind_free(host.image(name)) for name in ("right", "wrong")]
    try:
        if replaces:
            old = host.image("old")
            host.vbd(old)
        link = tmp_path / "data"
        link.symlink_to(f"/dev/loop{loops[0][1]}")
        original = VbdItem.apply

        def apply(item):
            link.unlink()
            link.symlink_to(f"/dev/loop{loops[1][1]}")
            original(item)

        monkeypatch.setattr(VbdItem, "apply", apply)
        diskseq = loopdevices.diskseq_of(loops[0][0])
        result = host.vbd({"path": str(link)}, diskseq=diskseq, replace=replaces)
        assert result["failed"] and not result["changed"]
        assert f"not {diskseq}" in result["msg"] and "nothing was done" in result["error"]["hint"]
        assert host.backend.has(XVDB) == (old if replaces else None)
        assert "wrong" not in [os.path.basename(path) for path in host.backend.opened]
    finally:
        for fd, dummy in loops:
            os.close(fd)


def test_a_new_disk_that_could_not_be_taken_back_is_reported(host, monkeypatch):
    """xenstored does not answer any more when the failed disk is to be removed."""
    path = host.image("disk")
    host.backend.rejects.add(path)
    monkeypatch.setattr(blkback._Attach, "roll_back", lambda job, store, limit: False)
    # It would be held for two minutes.
    monkeypatch.setattr(blkback, "hold_for", lambda devices, seconds: None)
    result = host.vbd(path)
    assert result["failed"] and result["changed"] and "creating vbd structure" in result["msg"]
    assert "the guest has the new disk as xvdb (state 5)" in str(result["warnings"]), result
    for node in (Key(5, XVDB).backend, Key(5, XVDB).frontend, Key(5, XVDB).libxl):
        host.store.remove(node)


def test_what_a_guest_writes_is_cut_and_quoted_in_errors(host):
    """It could write pages, or lines that look like those of Ansible."""
    path = host.image("disk")
    host.vbd(path)
    host.backend.keeps[XVDB] = "silent"
    raw_write(host.store, f"{Key(5, XVDB).frontend}/state", b"4)\n\x1b[32mok: [xen1]\x1b[0m\n" + b"A" * 3000)
    result = host.vbd(path, state="detached", timeout=1)
    assert result["failed"] and len(result["msg"]) < 800 and result["msg"].isprintable()
    assert "the guest's own state 4)\\n" in result["msg"] and "AAA" not in result["msg"]
    host.backend.keeps.clear()
    host.vbd(path, state="detached", force=True)


def test_a_guest_whose_name_is_not_ascii(host):
    raw_write(host.store, "/local/domain/5/name", "müller".encode())
    path = host.image("disk")
    assert host.vbd(path, domain="müller")["changed"] and host.backend.has(XVDB) == path
    assert not host.vbd(path, domain="müller")["changed"]
    assert host.vbd(path, domain="müller", state="detached")["changed"]
    assert host.backend.has(XVDB) is None
    # One that does not run has no disks; one that runs twice cannot be told from the other.
    assert not host.vbd(path, domain="möller", state="detached")["changed"]
    for name, value in (("name", "müller".encode()), ("vm", b"/vm/00000006-1111-2222-3333-444444444444")):
        raw_write(host.store, f"/local/domain/6/{name}", value)
    assert "several guests match" in host.vbd(path, domain="müller", state="detached")["msg"]
