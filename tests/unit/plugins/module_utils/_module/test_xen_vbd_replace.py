# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
``replace: true`` of xen_vbd and xen_vbds: real loop devices and a real xenstored; blkback and the guest are
played. tests/host/test_replace.py has real ones.
"""

from __future__ import annotations

import os
import signal
import time

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import XenStoreError
from ansible_collections.racefree.block.plugins.module_utils._xen import blkback
from ansible_collections.racefree.block.plugins.module_utils._xen.vbd_nodes import Key
from ansible_collections.racefree.block.plugins.module_utils._xenstore import session
from ansible_collections.racefree.block.plugins.modules import xen_vbds
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.played_host import XVDB, XVDC
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.runs import run


def test_another_source_in_one_task(host):
    old, new = host.image("old"), host.image("new")
    first = host.vbd(old)
    predicted = host.replace(new, check=True)
    assert predicted["changed"] and predicted["vbd"] is None and host.backend.has(XVDB) == old
    made = host.replace(new)
    assert made["changed"] and host.backend.has(XVDB) == new
    assert made["device"]["diskseq"] == made["vbd"]["diskseq"] != first["device"]["diskseq"]
    assert made["replaced"]["diskseq"] == first["device"]["diskseq"]
    assert host.bound() == [new], "the old loop device went with its last user"
    again = host.replace(new)
    assert not again["changed"] and again["replaced"] is None
    assert host.backend.opened == [old, new]


def test_without_replace_it_is_refused_and_the_hint_says_how(host):
    host.vbd(host.image("old"))
    before = host.nodes()
    refused = host.vbd(host.image("new"))
    assert "another disk there" in refused["msg"] and "replace=true" in refused["error"]["hint"]
    assert "replace=true" in host.vbd(host.image("old"), mode="r")["msg"]
    assert host.nodes() == before


def test_another_mode_of_the_same_file(host):
    path = host.image("disk")
    host.vbd(path)
    made = host.replace(path, mode="r")
    assert made["changed"] and made["vbd"]["mode"] == "r" and made["device"]["read_only"]
    made = host.replace(path, mode="r", device_type="cdrom")
    assert made["vbd"]["device_type"] == "cdrom" and made["replaced"]["device_type"] == "disk"
    assert host.replace(path)["vbd"]["mode"] == "w"
    assert host.bound() == [path]


def test_a_silent_guest_keeps_its_disk(host):
    """As a paused guest: the request is withdrawn, and everything is as before."""
    old, new = host.image("old"), host.image("new")
    host.vbd(old)
    before = host.nodes()
    host.backend.keeps[XVDB] = "silent"
    result = host.replace(new, timeout=1)
    assert result["failed"] and not result["changed"] and "timed out after 1 s" in result["msg"]
    assert "It still has the disk, and nothing was changed" in result["error"]["hint"]
    assert host.nodes() == before and host.bound() == [old]
    # It is served as before, and is not given back later.
    host.backend.keeps.clear()
    time.sleep(0.1)
    assert host.backend.has(XVDB) == old and host.nodes() == before
    assert host.replace(new)["changed"] and host.backend.has(XVDB) == new


def test_a_guest_that_refuses(host):
    """As an old Linux with the disk mounted, which closes it when it is unmounted. The next run finishes."""
    old, new = host.image("old"), host.image("new")
    host.vbd(old)
    host.backend.keeps[XVDB] = "busy"
    result = host.replace(new, timeout=1)
    assert result["failed"] and "Device in use; refusing to close" in result["msg"]
    assert "which cannot be withdrawn" in result["error"]["hint"]
    assert "was asked to release, and still has, xvdb" in str(result["warnings"])
    assert host.backend.has(XVDB) == old
    assert "replace=true" in host.vbd(new)["msg"]
    host.backend.keeps.clear()
    assert host.replace(new)["changed"] and host.backend.has(XVDB) == new
    assert host.bound() == [new]


def test_the_old_disk_is_attached_again_when_the_new_one_fails(host):
    old, new = host.image("old"), host.image("new")
    first = host.vbd(old)
    host.backend.rejects.add(new)
    result = host.replace(new)
    assert result["failed"] and not result["changed"] and "creating vbd structure" in result["msg"]
    assert f"The guest has its old disk ({first['device']['path']}" in result["error"]["hint"]
    assert host.backend.opened == [old, old] and host.bound() == [old]
    assert host.nodes()["mode"] == "w" and host.nodes()["diskseq"] == f"{first['device']['diskseq']:x}"
    assert not host.vbd(old)["changed"]


def test_what_holds_when_the_old_one_cannot_be_attached_again_either(host):
    old, new = host.image("old"), host.image("new")
    host.vbd(old)
    host.backend.rejects.update((new, old))
    result = host.replace(new)
    assert result["failed"] and result["changed"]
    assert "The guest has no disk xvdb now: its old disk" in result["msg"]
    assert "could not be attached again: " in result["msg"]
    assert "the guest has no disk xvdb now" in str(result["warnings"])
    host.backend.rejects.clear()
    assert host.replace(new)["changed"] and host.backend.has(XVDB) == new


def test_the_old_disk_is_attached_again_when_its_nodes_could_not_be_removed(host, monkeypatch):
    old, new = host.image("old"), host.image("new")
    first = host.vbd(old)
    right, failures = blkback._Detach.remove_in, [XenStoreError("a quota of xenstored is reached")]

    def remove_in(job, tx):
        if failures:
            raise failures.pop()
        right(job, tx)

    monkeypatch.setattr(blkback._Detach, "remove_in", remove_in)
    result = host.replace(new)
    assert result["failed"] and not result["changed"] and "a quota of xenstored" in result["msg"]
    assert f"The guest has its old disk ({first['device']['path']}" in result["error"]["hint"]
    assert host.backend.opened == [old, old] and host.bound() == [old]


def test_one_failure_of_many_puts_the_others_back(host):
    olds = {vdev: host.image(f"old-{vdev}") for vdev in ("xvdb", "xvdc")}
    news = {vdev: host.image(f"new-{vdev}") for vdev in olds}
    for vdev, path in olds.items():
        host.vbd(path, vdev)
    host.backend.rejects.add(news["xvdc"])
    entries = [
        {
            "domain": "web",
            "vdev": vdev,
            "source": {"file": path},
            "persist": False,
            "toolstack": "xenstore",
            "replace": True,
        }
        for vdev, path in news.items()
    ]
    result = run(xen_vbds.main, {"vbds": entries})
    assert result["failed"] and not result["changed"]
    assert (host.backend.has(XVDB), host.backend.has(XVDC)) == (olds["xvdb"], olds["xvdc"])
    assert "xvdb of web: the guest has its old disk" in str(result["warnings"])
    kept = run(xen_vbds.main, {"vbds": entries, "on_error": "keep"})
    assert [row["changed"] for row in kept["vbds"]] == [True, False]
    assert (host.backend.has(XVDB), host.backend.has(XVDC)) == (news["xvdb"], olds["xvdc"])
    assert host.bound() == sorted([news["xvdb"], olds["xvdc"]])


def test_refused_before_the_guest_is_asked(host):
    """Wrong uses of the option, and new sources that cannot be used."""
    old, other = host.image("old"), host.image("other")
    host.vbd(old)
    host.vbd(other, "xvdc")
    before = host.nodes()
    qcow2 = loopdevices.image(host.place, "qcow2", content=b"QFI\xfb\0\0\0\3")
    for words, options in (
        ("replace true: is not possible with state=detached", {"state": "detached"}),
        ("force true: is not possible with replace", {"force": True}),
        ("does not exist", {"source": "/none"}),
        ("no disk has the disk sequence number", {"source": {"diskseq": 2**40}}),
        ("is in use as disk xvdc of domain 5", {"source": other}),
        ("qcow2", {"source": qcow2}),
        ("mode w: must be r: a cdrom is read-only", {"device_type": "cdrom"}),
        ("diskseq 5: is possible only for", {"source": host.image("new"), "diskseq": 5}),
    ):
        for check in (True, False):
            result = host.replace(**{"source": old, "check": check, **options})
            assert result["failed"] and words in result["msg"], (words, result)
    assert host.nodes() == before and host.backend.opened == [old, other]


def test_a_script_that_alone_could_attach_it_again(host):
    host.vbd(host.image("old"))
    host.store.write(f"{Key(5, XVDB).backend}/script", "/etc/xen/scripts/block-iscsi")
    before = host.nodes()
    result = host.replace(host.image("new"))
    assert "attached by the hotplug script block-iscsi" in result["msg"] and host.nodes() == before


def test_a_disk_that_qemu_serves(host):
    """Such as the CD drive of an HVM guest."""
    host.store.write("/libxl/5/device/vbd/5632/backend", "/local/domain/0/backend/qdisk/5/5632")
    for options in ({}, {"replace": True}, {"check": True}):
        result = host.vbd(host.image("new"), "hdc", **options)
        assert "hdc, served by qdisk instead of blkback" in result["msg"]
        assert "xl cd-insert" in result["error"]["hint"]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_at_each_change_of_xenstore(host, moment, monkeypatch):
    """The next run converges, whatever the killed one had done, and nothing is left."""
    # A killed run's holder has the new device until then.
    monkeypatch.setattr(blkback, "_KEPT", 0)
    paths = [host.image("a"), host.image("b")]
    host.vbd(paths[0])
    kills = 0
    for number in range(8):
        wanted = paths[1 - number % 2]
        result = host.replace(wanted, timeout=1, before=lambda number=number: _die_at(number, moment))
        kills += result is None
        again = host.replace(wanted)
        assert not again.get("failed"), (number, again, host.nodes())
        assert host.backend.has(XVDB) == wanted and host.bound() == [wanted]
        assert host.nodes()["online"] == "1" and host.nodes()["state"] == "4"
    assert kills >= 2


def _die_at(number, moment):
    """Let this process be killed at this commit of a transaction."""
    original, left = session.Session._try_transaction, [number]

    def transaction(store, function):
        if moment == "before" and not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(store, function)
        if moment == "after" and not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return result

    session.Session._try_transaction = transaction
