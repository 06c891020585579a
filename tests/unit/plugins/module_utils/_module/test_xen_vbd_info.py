# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What is reported about attached vbds, with a real xenstored and a real loop device. blkback's part in sysfs is
given by the test, and is real in tests/host/test_vbd.py.
"""

from __future__ import annotations

import os

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import GuestError, InvalidValue
from ansible_collections.racefree.block.plugins.module_utils._module import xen_vbd_info
from ansible_collections.racefree.block.plugins.module_utils._source.resources import Resources
from ansible_collections.racefree.block.plugins.module_utils._xen import vbd_facts, vbd_read
from ansible_collections.racefree.block.plugins.module_utils._xen.vbd_key import Key
from ansible_collections.racefree.block.plugins.module_utils._xenstore.pyxs_store import Store
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.xenstored import Xenstored

UUIDS = {number: f"0000000{number}-1111-2222-3333-444444444444" for number in (5, 6)}
KEY, OTHER = Key(5, 51712), Key(6, 51728)


@pytest.fixture(name="loop")
def fixture_loop():
    """``(number, disk sequence number, size)`` of a loop device."""
    loopdevices.need_loop()
    with loopdevices.directory() as place:
        fd, dummy = loopdevices.bind_free(loopdevices.image(place, "disk"))
        rdev = os.fstat(fd).st_rdev
        yield (os.major(rdev), os.minor(rdev)), loopdevices.diskseq_of(fd), os.lseek(fd, 0, os.SEEK_END)
        os.close(fd)


@pytest.fixture(name="host")
def fixture_host(loop, monkeypatch):
    """Two guests with one disk each; blkback has the loop device open for the first one."""
    number, diskseq, dummy = loop
    monkeypatch.setattr(vbd_read, "opened_number", {KEY: number}.get)
    with Xenstored() as daemon, Store(5, daemon.socket) as store, Resources() as host:
        for domid, uuid in UUIDS.items():
            store.write(f"/local/domain/{domid}/name", f"web{domid}")
            store.write(f"/local/domain/{domid}/vm", f"/vm/{uuid}")
        for key in (KEY, OTHER):
            lay(store, key, number, diskseq)
        host._shared[Store] = store
        yield host


def lay(store, key, number, diskseq, **more):
    values = {
        "frontend": key.frontend,
        "frontend-id": str(key.domid),
        "dev": "xvda",
        "mode": "w",
        "state": "4",
        "online": "1",
        "physical-device": f"{number[0]:x}:{number[1]:x}",
        "diskseq": f"{diskseq:x}",
        "sectors": "16",
        **more,
    }
    for name, value in values.items():
        store.write(f"{key.backend}/{name}", value)


def collect(host, **params):
    return xen_vbd_info.collect({"domain": None, "vdev": None, **params}, host)["vbds"]


def test_the_device_that_blkback_has_open(host, loop):
    number, diskseq, size = loop
    first, second = collect(host)
    assert first["intended"] is True and first["problem"] is None and first["size"] == 16 * 512
    assert first["device"] == {
        "name": f"loop{number[1]}",
        "major": number[0],
        "minor": number[1],
        "diskseq": diskseq,
        "size": size,
        "read_only": False,
    }
    assert (first["domain"], first["uuid"], first["domid"]) == ("web5", UUIDS[5], 5)
    assert (first["vdev"], first["mode"], first["connected"]) == ("xvda", "w", True)
    # blkback has nothing open for this one.
    assert second["device"] is None and second["intended"] is None and second["problem"] is None


@pytest.mark.parametrize("change", ["number", "diskseq"])
def test_another_device_than_intended(host, loop, change):
    number, diskseq, dummy = loop
    if change == "number":
        host.shared(Store).write(f"{KEY.backend}/physical-device", "7:ff")
        meant = f"7:255 (diskseq {diskseq})"
    else:
        host.shared(Store).write(f"{KEY.backend}/diskseq", f"{diskseq + 1:x}")
        meant = f"{number[0]}:{number[1]} (diskseq {diskseq + 1})"
    row = collect(host, domain="web5")[0]
    assert row["intended"] is False
    assert row["problem"] == (
        f"blkback has {number[0]}:{number[1]} (diskseq {diskseq}) open, but the nodes name {meant}"
    )


def test_without_a_disk_sequence_number_it_is_unknown(host):
    host.shared(Store).remove(f"{KEY.backend}/diskseq")
    row = collect(host, domain=UUIDS[5])[0]
    assert row["intended"] is None and row["problem"] is None and row["device"]


def test_a_device_that_changes_meanwhile_is_not_reported(host, loop, monkeypatch):
    answers = [loop[0], (7, 255)]
    monkeypatch.setattr(vbd_read, "opened_number", lambda key: answers.pop(0))
    row = collect(host, domain="web5")[0]
    assert row["device"] is None and row["intended"] is None and not answers


def test_an_invalid_node_does_not_hide_other_disks(host):
    host.shared(Store).write(f"{KEY.backend}/mode", "x")
    first, second = collect(host)
    assert f"{KEY.backend}/mode" in first["problem"] and "not r or w" in first["problem"]
    assert (first["domid"], first["devid"], first["vdev"], first["domain"]) == (5, 51712, None, "web5")
    assert second["vdev"] == "xvda" and set(first) == set(second)


def test_an_error_of_the_backend(host):
    host.shared(Store).write(f"{KEY.backend_error}/error", "2 creating vbd structure")
    assert collect(host)[0]["problem"] == "the backend reports: 2 creating vbd structure"


def test_options_domain_and_vdev(host):
    assert [row["domid"] for row in collect(host, domain="6")] == [6]
    assert [row["domid"] for row in collect(host, vdev="xvdb")] == [6]
    assert collect(host, domain="web5", vdev="xvdb") == []
    with pytest.raises(GuestError, match="no guest of this name"):
        collect(host, domain="web7")
    with pytest.raises(InvalidValue, match="vdev"):
        collect(host, vdev="/dev/xvda")


def test_statistics(tmp_path):
    for number, name in enumerate(("rd_req", "wr_req", "f_req", "ds_req", "oo_req", "rd_sect", "wr_sect")):
        (tmp_path / name).write_text(f"{number}\n", encoding="ascii")
    assert vbd_facts._statistics(str(tmp_path)) == {
        "read_requests": 0,
        "write_requests": 1,
        "flush_requests": 2,
        "discard_requests": 3,
        "out_of_requests": 4,
        "bytes_read": 5 * 512,
        "bytes_written": 6 * 512,
    }
    (tmp_path / "wr_sect").unlink()
    assert vbd_facts._statistics(str(tmp_path)) is None
