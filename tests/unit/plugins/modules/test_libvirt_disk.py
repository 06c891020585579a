# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What libvirt_disk refuses before it calls libvirt. Tests with libvirt itself: tests/host/test_libvirt_disk.py.
"""

from __future__ import annotations

import contextlib
import io
import json
import os

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    DeadlineExceeded,
    InvalidValue,
)
from ansible_collections.racefree.block.plugins.module_utils._libvirt import (
    connection,
    disk_definition,
    domain_xml,
)
from ansible_collections.racefree.block.plugins.module_utils._module import libvirt_disk as _libvirt_disk
from ansible_collections.racefree.block.plugins.module_utils._source.resources import Resources
from ansible_collections.racefree.block.plugins.modules import libvirt_disk, libvirt_disks


def run(module=libvirt_disk, **arguments):
    output = io.StringIO()
    with (
        patch_module_args(dict(arguments, _ansible_remote_tmp="/tmp")),
        contextlib.redirect_stdout(output),
        pytest.raises(SystemExit),
    ):
        module.main()
    return json.loads(output.getvalue().strip().splitlines()[-1])


GOOD = {"domain": "web1", "vdev": "xvda", "source": "file:/srv/a.raw"}


@pytest.mark.parametrize(
    "change, words",
    [
        ({"domain": ""}, ["domain", "name or the uuid"]),
        ({"domain": "a\nb"}, ["domain"]),
        ({"vdev": "../xvda"}, ["vdev", "xvda, vdb"]),
        ({"vdev": "xvda'/><disk"}, ["vdev"]),
        ({"vdev": "9999999999"}, ["vdev"]),
        ({"source": None}, ["source"]),
        ({"source": "diskseq:5"}, ["source", "every boot"]),
        ({"source": "relative"}, ["source", "absolute path"]),
        ({"source": {"file": "/srv/a.raw", "read_only": True}}, ["mode", "must be r"]),
        ({"device_type": "cdrom"}, ["mode", "a cdrom is read-only"]),
        ({"device_type": "floppy"}, ["device_type"]),
        ({"bus": "x'y"}, ["bus", "virtio"]),
        ({"config": False}, ["config", "must be true without live"]),
        ({"live": True, "uri": "qemu:///session"}, ["live", "qemu:///system"]),
        ({"live": True, "uri": "qemu+tls://other/system"}, ["live", "qemu:///system"]),
        # The devices of another host are others.
        ({"live": True, "uri": "xen+ssh://other/system"}, ["live", "only for xen:///system"]),
        ({"live": True, "uri": "xen://other/"}, ["live", "only for xen:///system"]),
        ({"uri": "qemu:///system", "replace": True}, ["replace", "only with live=true"]),
        ({"live": True, "uri": "qemu:///system", "sealed": True}, ["sealed", "only for Xen"]),
        ({"size": "8388608T"}, ["size", "less than 8 EiB"]),
        ({"timeout": 0}, ["timeout", "from 1 to"]),
    ],
)
def test_invalid_options_are_refused(change, words):
    result = run(**{**GOOD, **change})
    assert result["failed"] and "Traceback" not in str(result)
    for word in words:
        assert word in result["msg"], result["msg"]


@pytest.mark.skipif(connection.libvirt is not None, reason="the library is here")
def test_libvirt_python_is_missing():
    for check in (True, False):
        result = run(**GOOD, _ansible_check_mode=check)
        assert result["error"]["kind"] == "NotSupported" and "python3-libvirt" in result["msg"]


def test_duplicates():
    result = run(libvirt_disks, disks=[dict(GOOD), dict(GOOD, vdev="51712")])
    assert "in the list twice" in result["disks"][1]["msg"] and not result["changed"]


UUID = "11111111-2222-3333-4444-55555555555b"


def item_of(resources, **options):
    """The checked item of one entry."""
    params = dict.fromkeys(_libvirt_disk.ARGUMENTS, None)
    params.update(
        {key: spec["default"] for key, spec in _libvirt_disk.ARGUMENTS.items() if "default" in spec}, **GOOD
    )
    item = _libvirt_disk.DiskItem({**params, **options}, resources)
    item.check()
    return item


def test_a_read_only_source_is_removed_without_its_mode():
    with Resources() as resources:
        item = item_of(resources, source={"file": "/srv/a.raw", "read_only": True}, state="absent")
        assert item.request.source.read_only


def thin(length, number=1):
    pool = {"path": "/dev/mapper/pool", "uuid": "POOL-1"}
    return {"table": [{"start": 0, "length": length, "target": "thin", "pool": pool, "id": number}]}


@pytest.mark.parametrize("uri", ["xen:///system", "xen:///", "xen+unix:///system", "qemu:///system"])
def test_live_is_possible_for_guests_of_this_host(uri):
    with Resources() as resources:
        assert item_of(resources, live=True, uri=uri).request.live


@pytest.mark.parametrize(
    "recipe, length, refused",
    [
        (json.dumps(thin(16)), 8, True),
        (json.dumps(thin(16)), 16, False),
        (json.dumps(thin(16)), 24, False),
        (json.dumps(thin(16, 2)), 8, False),
        # A recipe that cannot be read is replaced by a valid one.
        ("{", 8, False),
        ('{"table": "0 x"}', 8, False),
    ],
)
def test_a_volume_is_not_made_shorter(recipe, length, refused):
    xml = f"<domain type='xen'><name>web1</name><uuid>{UUID}</uuid><devices></devices></domain>"
    xml = domain_xml.put(xml, domain_xml.Disk("xvda", domain_xml.path_of(UUID, "xvda")), recipe)
    with Resources() as resources:
        item = item_of(resources, source=thin(length))
    if not refused:
        disk_definition.refuse_shrinking(xml, item.request)
        return
    with pytest.raises(InvalidValue, match="8 sectors.*16 sectors or more.*state=absent"):
        disk_definition.refuse_shrinking(xml, item.request)


@pytest.fixture
def busy(monkeypatch, tmp_path):
    """libvirt is busy; the seconds for which it is waited for. Locks are in a directory of the test."""
    waited = []

    def read(uri, domain, limit):
        waited.append(limit.seconds)
        raise limit.exceeded("libvirt", hint="Check")

    os.chmod(tmp_path, 0o700)
    monkeypatch.setattr(_libvirt_disk.connection, "read", read)
    monkeypatch.setattr(_libvirt_disk._locks, "DIRECTORY", str(tmp_path))
    return waited


@pytest.mark.parametrize(
    "live, is_running, locked, seconds",
    [
        (False, True, True, 300),
        (True, False, True, 300),
        (True, True, True, 20),
        # In check mode there are no locks.
        (True, True, False, 300),
    ],
)
def test_how_long_libvirt_is_waited_for(busy, tmp_path, live, is_running, locked, seconds):
    """Shorter only while the domain's hook may wait for the lock of a source that this task holds."""
    image = tmp_path / "a.raw"
    image.write_bytes(bytes(4096))
    with Resources() as resources:
        options = {"uri": "qemu:///system", "timeout": 300}
        item = item_of(resources, live=live, source=f"file:{image}", **options)
        # Another entry of the task, which has no locks of its own.
        other = item_of(resources, domain="web2", source=f"file:{image}", **options)
        for name, is_live in (("web1", is_running), ("web2", True)):
            resources.domains["qemu:///system", name] = f"{UUID[:-4]}{name}", is_live
        if locked:
            resources.locks.take(item.locks() + other.locks())
        for each in (item, other):
            with pytest.raises(DeadlineExceeded) as caught:
                each.plan()
            assert ("an image that this task has locked" in str(caught.value)) == (seconds == 20)
    assert busy == pytest.approx([seconds, seconds])


def test_a_shorter_timeout_is_kept(busy, tmp_path):
    image = tmp_path / "a.raw"
    image.write_bytes(bytes(4096))
    with Resources() as resources:
        item = item_of(resources, uri="qemu:///system", live=True, timeout=5, source=f"file:{image}")
        resources.domains["qemu:///system", "web1"] = UUID, True
        resources.locks.take(item.locks())
        with pytest.raises(DeadlineExceeded):
            item.plan()
    assert busy == [5]


def test_a_file_that_was_made_larger_is_reported_after_an_error(tmp_path):
    """It is not rolled back."""
    image = tmp_path / "a.raw"
    image.write_bytes(bytes(4096))
    with Resources() as resources:
        item = item_of(resources, source=f"file:{image}", size="1M")
        item._file_size = 2**20
        assert item.remains() == []
        item.apply()
        assert item.remains() == [f"{image} has {2**20} bytes"]
    assert image.stat().st_size == 2**20
