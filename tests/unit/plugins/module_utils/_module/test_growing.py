# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Disks of running guests that grow, with real loop devices and a real xenstored. A thread tells the sizes, as
blkback does.
"""

from __future__ import annotations

import contextlib
import os
import threading

import pytest
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.plugins.module_utils._hotplug import state
from ansible_collections.racefree.block.plugins.module_utils._module import worker
from ansible_collections.racefree.block.plugins.module_utils._source import recipe_file
from ansible_collections.racefree.block.plugins.module_utils._xen.vbd_key import Key
from ansible_collections.racefree.block.plugins.module_utils._xenstore import session
from ansible_collections.racefree.block.plugins.module_utils._xenstore.pyxs_store import Store
from ansible_collections.racefree.block.plugins.module_utils._xl import config_file
from ansible_collections.racefree.block.plugins.modules import libvirt_disk, xen_vbd, xen_vbds, xl_disk
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices, modulerun
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.xenstored import Xenstored

UUID = "00000005-1111-2222-3333-444444444444"
MIB = 2**20
KEY = Key(5, 51712)
pytestmark = pytest.mark.skipif(loopdevices.why_not() is not None, reason=str(loopdevices.why_not()))


@pytest.fixture(name="daemon", scope="module")
def fixture_daemon():
    with Xenstored() as daemon:
        yield daemon


@pytest.fixture(name="store")
def fixture_store(daemon, monkeypatch):
    """A host with one running guest."""
    monkeypatch.setattr(session, "default_path", lambda: daemon.socket)
    monkeypatch.setattr(worker, "IN_PROCESS", True)
    with Store(5, daemon.socket) as store:
        store.remove("/local/domain")
        for path, value in (
            ("/local/domain/5/name", "web"),
            ("/local/domain/5/vm", f"/vm/{UUID}"),
            ("/libxl/5/type", "pv"),
        ):
            store.write(path, value)
        yield store


@pytest.fixture(name="place")
def fixture_place():
    with loopdevices.directory() as place:
        yield place
        assert loopdevices.nothing_bound(place)


class Attached:
    """A disk of the guest over a loop device, as blkback has it."""

    def __init__(self, store, path, vdev=51712):
        self.store, self.path, self.key = store, path, Key(5, vdev)
        self.fd, self.number = loopdevices.bind_free(path)
        minor = os.minor(os.fstat(self.fd).st_rdev)
        for name, value in {
            "state": "4",
            "online": "1",
            "mode": "w",
            "dev": "xvda" if vdev == 51712 else "xvdb",
            "frontend-id": "5",
            "frontend": self.key.frontend,
            "device-type": "disk",
            "params": path,
            "physical-device": f"{_device.LOOP_MAJOR:x}:{minor:x}",
            "diskseq": f"{loopdevices.diskseq_of(self.fd):x}",
            "sectors": str(self.size // 512),
        }.items():
            store.write(f"{self.key.backend}/{name}", value)
        store.write(f"{self.key.frontend}/state", "4")

    @property
    def size(self):
        return os.lseek(self.fd, 0, os.SEEK_END)

    @property
    def told(self):
        return int(self.store.read(f"{self.key.backend}/sectors")) * 512

    def close(self):
        os.close(self.fd)


@pytest.fixture(name="attach")
def fixture_attach(store, place):
    """``attach(size)``: a disk of the guest over a file of this size."""
    made = []

    def attach(size=MIB, name="a.raw", vdev=51712):
        made.append(Attached(store, loopdevices.image(place, name, size), vdev))
        return made[-1]

    yield attach
    for disk in made:
        disk.close()


@contextlib.contextmanager
def telling(daemon, *disks):
    """blkback compares the sizes every 100 ms, and tells new ones."""
    ends = threading.Event()

    def tell():
        with Store(5, daemon.socket) as store:
            while not ends.wait(0.1):
                for disk in disks:
                    store.write(f"{disk.key.backend}/sectors", str(disk.size // 512))

    thread = threading.Thread(target=tell)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()


def predict_and_run(main, **options):
    promised, done = modulerun.run(main, True, **options), modulerun.run(main, **options)
    assert not done.get("failed"), done["msg"]
    assert (promised["changed"], promised["diff"]) == (done["changed"], done["diff"])
    again = modulerun.run(main, **options)
    assert not again["changed"] and not modulerun.run(main, True, **options)["changed"]
    return done


def refused(main, *words, **options):
    for check in (True, False):
        result = modulerun.run(main, check, **options)
        assert result.get("failed") and all(word in result["msg"] for word in words), result["msg"]


def vbd(disk, source=None, **options):
    """Options for xen_vbd."""
    return {
        "domain": "web",
        "vdev": "xvda",
        "source": {"file": disk.path} if source is None else source,
        "toolstack": "xenstore",
        **options,
    }


def test_the_file_the_loop_device_and_the_guest(daemon, attach):
    disk = attach()
    diskseq = loopdevices.diskseq_of(disk.fd)
    with telling(daemon, disk):
        done = predict_and_run(xen_vbd.main, **vbd(disk, size="4M"))
    assert done["changed"] and done["device"]["size"] == disk.size == disk.told == 4 * MIB
    assert os.path.getsize(disk.path) == 4 * MIB and loopdevices.diskseq_of(disk.fd) == diskseq
    loop = f"/dev/loop{disk.number}"
    assert done["diff"]["before"]["sizes"] == {disk.path: MIB, loop: MIB}
    assert done["diff"]["after"]["sizes"] == {disk.path: 4 * MIB, loop: 4 * MIB}
    assert (done["diff"]["before"]["size"], done["diff"]["after"]["size"]) == (MIB, 4 * MIB)


def test_a_file_that_somebody_made_larger(daemon, attach):
    disk = attach()
    os.truncate(disk.path, 2 * MIB + 100)
    with telling(daemon, disk):
        assert predict_and_run(xen_vbd.main, **vbd(disk))["changed"]
    assert disk.size == disk.told == 2 * MIB


def test_a_larger_part_of_a_file(daemon, attach):
    disk = attach(4 * MIB)
    with telling(daemon, disk):
        # The device has no limit yet.
        os.truncate(disk.path, 16 * MIB)
        for size in ("6M", "8M"):
            source = {"file": disk.path, "size": size}
            assert predict_and_run(xen_vbd.main, **vbd(disk, source))["changed"]
        assert disk.size == disk.told == 8 * MIB
        refused(
            xen_vbd.main,
            "source.size",
            f"must be {8 * MIB} or more",
            "shrink the file system in the guest",
            **vbd(disk, {"file": disk.path, "size": "6M"}),
        )
        refused(xen_vbd.main, "must lie inside the file", **vbd(disk, {"file": disk.path, "size": "32M"}))
    assert disk.size == 8 * MIB


def test_a_guest_that_is_not_told_in_time(daemon, attach):
    """The device has grown, and stays so. The next run waits again."""
    disk = attach()
    result = modulerun.run(xen_vbd.main, **vbd(disk, size="2M", timeout=1))
    assert result["failed"] and "timed out after 1 s waiting for the backend to tell" in result["msg"]
    assert "Run the task again" in result["msg"] and "not rolled back" in str(result["warnings"])
    assert disk.size == 2 * MIB and disk.told == MIB
    assert modulerun.run(xen_vbd.main, True, **vbd(disk, size="2M"))["changed"]
    with telling(daemon, disk):
        assert predict_and_run(xen_vbd.main, **vbd(disk, size="2M"))["changed"]


def test_a_guest_that_is_not_connected_is_not_waited_for(store, attach, tmp_path, monkeypatch):
    disk = attach()
    store.write(f"{disk.key.backend}/state", "2")
    # blkback has opened the device before the guest connects.
    monkeypatch.setattr(Key, "sysfs", str(tmp_path))
    (tmp_path / "physical_device").write_text(store.read(f"{disk.key.backend}/physical-device"))
    assert predict_and_run(xen_vbd.main, **vbd(disk, size="2M", timeout=1))["changed"]
    assert disk.size == 2 * MIB


def test_several_at_once(daemon, attach):
    disks = [attach(), attach(name="b.raw", vdev=51728)]
    entries = [vbd(disks[0], size="2M"), vbd(disks[1], vdev="xvdb", size="3M")]
    with telling(daemon, *disks):
        predict_and_run(xen_vbds.main, vbds=entries)
    assert [disk.told for disk in disks] == [2 * MIB, 3 * MIB]


def test_a_part_that_another_guest_uses(store, attach):
    """The new part of the first disk's file is the second disk of another guest."""
    disk = attach(8 * MIB)
    limited = vbd(disk, {"file": disk.path, "size": 8 * MIB})
    os.truncate(disk.path, 32 * MIB)
    other = Key(6, 51712)
    store.write("/local/domain/6/vm", f"/vm/{UUID.replace('5', '6')}")
    for name in ("state", "online", "mode", "dev", "device-type", "physical-device", "diskseq"):
        store.write(f"{other.backend}/{name}", store.read(f"{disk.key.backend}/{name}"))
    store.write(f"{other.backend}/frontend-id", "6")
    limited["source"]["size"] = 16 * MIB
    refused(xen_vbd.main, "is in use as disk xvda of domain 6", **limited)
    assert disk.size == 8 * MIB


@pytest.mark.parametrize(
    "options, words",
    [
        ({"size": "512K"}, [f"must be {MIB} or more", "never made smaller"]),
        ({"size": "12X"}, ["must be a number of bytes, or a number with K, M, G or T"]),
        ({"size": "1000"}, ["must be a multiple of 512 bytes"]),
        ({"size": "0"}, ["must be a number of bytes"]),
        ({"size": "8388608T"}, ["must be less than 8 EiB"]),
        ({"size": "2M", "mode": "r"}, ["is possible only with mode=w"]),
        ({"size": "2M", "state": "detached"}, ["must be left out with state=detached"]),
        ({"size": "2M", "source": {"diskseq": 1}}, ["only for a source with file", "lvextend"]),
        ({"size": "2M", "source": {"table": ["0 8 zero"]}}, ["beside a table, whose lines say"]),
    ],
)
def test_wrong_uses(attach, options, words):
    disk = attach()
    refused(xen_vbd.main, "size", *words, **vbd(disk, **options))
    assert disk.size == os.path.getsize(disk.path) == MIB


def test_a_size_in_two_places(attach):
    disk = attach()
    refused(xen_vbd.main, "beside source.size", **vbd(disk, {"file": disk.path, "size": MIB}, size="2M"))


def test_another_disk_is_there(attach, place):
    disk = attach()
    other = loopdevices.image(place, "other.raw", 4 * MIB)
    refused(xen_vbd.main, "another disk there", **vbd(disk, {"file": other}, size="8M"))
    assert os.path.getsize(other) == 4 * MIB


# xl_disk


@pytest.fixture(name="etc")
def fixture_etc(tmp_path, monkeypatch):
    monkeypatch.setattr(config_file, "DIRECTORY", str(tmp_path))
    monkeypatch.setattr(recipe_file, "DIRECTORY", str(tmp_path / "recipes"))
    monkeypatch.setattr(state, "DIRECTORY", str(tmp_path / "hotplug"))
    (tmp_path / "web.cfg").write_text("name = 'web'\ndisk = []\n")
    return tmp_path


def test_a_disk_of_xl(daemon, attach, etc):
    disk = attach()
    options = {"domain": "web", "vdev": "xvda", "source": {"file": disk.path}, "live": True}
    assert predict_and_run(xl_disk.main, **options)["changed"]
    config = (etc / "web.cfg").read_bytes()
    with telling(daemon, disk):
        done = predict_and_run(xl_disk.main, **options, size="2M")
    assert done["changed"] and disk.size == disk.told == 2 * MIB
    assert done["diff"]["after"]["running"]["size"] == 2 * MIB
    assert (etc / "web.cfg").read_bytes() == config
    # Without live, only the file grows.
    assert predict_and_run(xl_disk.main, **{**options, "live": False, "size": "3M"})["changed"]
    assert disk.size == 2 * MIB and os.path.getsize(disk.path) == 3 * MIB


def test_a_disk_of_xl_that_is_not_told_in_time(attach, etc):
    disk = attach()
    options = {"domain": "web", "vdev": "xvda", "source": {"file": disk.path}, "live": True}
    result = modulerun.run(xl_disk.main, **options, size="2M", timeout=1)
    assert result["failed"] and "waiting for the backend to tell the guest" in result["msg"]
    # The guest has the larger disk after its next start, too.
    assert "recipe:web-xvda" in (etc / "web.cfg").read_text() and recipe_file.exists("web-xvda")


@pytest.mark.parametrize(
    "options, words",
    [
        ({"size": "512K"}, ["must be 1048576 or more", "cutting it would lose data"]),
        ({"size": "2M", "mode": "r"}, ["is possible only with mode=w"]),
        ({"size": "2M", "state": "absent"}, ["must be left out with state=absent"]),
        ({"replace": True, "state": "absent"}, ["replace"]),
        ({"timeout": 0}, ["timeout", "must be seconds from 1"]),
    ],
)
def test_wrong_uses_of_xl_disk(attach, etc, options, words):
    disk = attach()
    refused(
        xl_disk.main, *words, **{"domain": "web", "vdev": "xvda", "source": {"file": disk.path}, **options}
    )
    assert os.path.getsize(disk.path) == MIB


def test_another_disk_of_a_running_guest_of_xl(attach, place, etc):
    attach()
    other = {"file": loopdevices.image(place, "other.raw", MIB)}
    options = {"domain": "web", "vdev": "xvda", "source": other}
    refused(xl_disk.main, "another disk there", "replace=true", "live=false", **options, live=True)
    assert predict_and_run(xl_disk.main, **options)["changed"]


@pytest.mark.parametrize(
    "options, words",
    [
        ({"size": "2M", "mode": "r"}, ["is possible only with mode=w"]),
        ({"size": "8388608T"}, ["must be less than 8 EiB"]),
        ({"size": "2M", "state": "absent"}, ["must be left out with state=absent"]),
        ({"size": "2M", "source": {"path": "/dev/mapper/x", "uuid": "x"}}, ["lvextend"]),
    ],
)
def test_wrong_uses_of_libvirt_disk(place, options, words):
    path = loopdevices.image(place, "a.raw", MIB)
    refused(
        libvirt_disk.main, *words, **{"domain": "web", "vdev": "xvda", "source": {"file": path}, **options}
    )
