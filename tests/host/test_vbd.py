# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Modules xen_vbd and xen_vbds: a real guest reads and writes real disks through blkback."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import stat
import subprocess
import time

import pytest
from conftest import Failed, predict_and_run, refused, run_module, snapshot, udev_settle, wait_until
from test_two_runs import at_once, check_good

pytestmark = [pytest.mark.xen, pytest.mark.gate("bookworm")]

MIB = 2**20
GUEST = "vbdtest"


def xenguest(*words, check=True):
    return subprocess.run(["xenguest", *words], capture_output=True, text=True, check=check, timeout=180)


def in_guest(command, name=GUEST, timeout=90):
    return xenguest("run", name, "--timeout", str(timeout), "--", command).stdout


@pytest.fixture(scope="module")
def guest():
    xenguest("stop", GUEST, check=False)
    xenguest("start", GUEST)
    yield GUEST
    xenguest("stop", GUEST)


@pytest.fixture(scope="module")
def second_guest():
    name = GUEST + "2"
    xenguest("stop", name, check=False)
    xenguest("start", name)
    yield name
    xenguest("stop", name)


@pytest.fixture
def detached(guest):
    """Detaches the given vdevs at the end of the test."""
    vdevs = []
    yield lambda *names, domain=GUEST: vdevs.extend((domain, name) for name in names)
    for domain, vdev in vdevs:
        run_module("xen_vbd", domain=domain, vdev=vdev, state="detached", force=True)
    time.sleep(0.2)


@pytest.fixture(scope="module")
def many_files(tmp_path_factory):
    """A directory with 300 files, and an ext4 image of it; ``(directory, image, {path: sha256})``."""
    tree = tmp_path_factory.mktemp("tree")
    sums = {}
    for number in range(300):
        path = tree / f"d{number % 10}" / f"file{number}"
        path.parent.mkdir(exist_ok=True)
        content = hashlib.sha256(str(number).encode()).digest() * (1 + number % 50)
        path.write_bytes(content)
        sums[str(path.relative_to(tree))] = hashlib.sha256(content).hexdigest()
    image = tmp_path_factory.mktemp("image") / "fs.raw"
    subprocess.run(["mkfs.ext4", "-q", "-d", tree, image, "16M"], check=True)
    return str(image), sums


def guest_sums(device):
    """sha256 of every file of the file system on the guest's device."""
    text = in_guest(
        f"mkdir -p /m && mount -t ext4 -o ro /dev/{device} /m && cd /m && find . -type f -exec sha256sum "
        f"{{}} + ; cd / ; umount /m"
    )
    pairs = (line.split() for line in text.splitlines())
    return {path[2:]: digest for digest, path in pairs}


def copy_of(many_files, tmp_path):
    path = tmp_path / "copy.raw"
    subprocess.run(["cp", "--sparse=always", many_files[0], path], check=True)
    return str(path)


def test_through_loop_and_linear(guest, many_files, tmp_path, name, cleanup, detached):
    image = copy_of(many_files, tmp_path)
    cleanup(loop=image)
    cleanup(dm=name)
    loop = run_module("loop_device", backing_file=image)["device"]
    root = run_module("dm_device", name=name, table=f"0 {16 * 2048} linear diskseq:{loop['diskseq']} 0")[
        "device"
    ]
    detached("xvdb")
    made = predict_and_run(
        "xen_vbd", domain=guest, vdev="xvdb", source={"diskseq": root["diskseq"]}, wait_connected=True
    )
    assert made["changed"] and made["device"]["diskseq"] == root["diskseq"]
    assert made["vbd"]["diskseq"] == root["diskseq"] and made["vbd"]["vdev"] == "xvdb"
    assert guest_sums("xvdb") == many_files[1]
    in_guest("mount -t ext4 /dev/xvdb /m && echo written by the guest > /m/new && umount /m && sync")
    gone = predict_and_run("xen_vbd", domain=guest, vdev="xvdb", state="detached")
    assert gone["changed"]
    run_module("dm_device", name=name, state="absent")
    run_module("loop_device", backing_file=image, state="absent")
    assert (
        "written by the guest"
        in subprocess.run(
            ["debugfs", "-R", "cat new", image], capture_output=True, text=True, check=True
        ).stdout
    )


def test_through_loop_and_snapshot(guest, many_files, tmp_path, image, name, cleanup, detached):
    origin, cow = copy_of(many_files, tmp_path), image("cow.raw", 8 * MIB)
    before = hashlib.sha256(open(origin, "rb").read()).hexdigest()
    cleanup(loop=cow)
    cleanup(dm=name)
    table = [
        {
            "start": 0,
            "length": 16 * 2048,
            "target": "snapshot",
            "origin": {"file": origin, "read_only": True},
            "cow": {"file": cow},
            "persistence": "P",
            "chunk_size": 8,
        }
    ]
    snapshot = run_module("dm_device", name=name, table=table)["device"]
    detached("xvdb")
    run_module(
        "xen_vbd",
        domain=guest,
        vdev="xvdb",
        source={"path": f"/dev/mapper/{name}", "diskseq": snapshot["diskseq"]},
        wait_connected=True,
    )
    assert guest_sums("xvdb") == many_files[1]
    in_guest("mount -t ext4 /dev/xvdb /m && echo only in the cow > /m/new && umount /m && sync")
    run_module("xen_vbd", domain=guest, vdev="xvdb", state="detached")
    run_module("dm_device", name=name, state="absent")
    run_module("loop_device", backing_file=origin, state="absent")
    run_module("loop_device", backing_file=cow, state="absent")
    assert hashlib.sha256(open(origin, "rb").read()).hexdigest() == before
    assert b"only in the cow" in open(cow, "rb").read()


def test_a_file_in_one_step_leaves_nothing(guest, image, detached):
    path = image(content=b"in one step")
    detached("xvdc")
    made = predict_and_run(
        "xen_vbd", domain=guest, vdev="xvdc", source={"file": path}, persist=False, wait_connected=True
    )
    assert in_guest("dd if=/dev/xvdc bs=11 count=1 2>/dev/null") == "in one step"
    assert made["device"]["path"].startswith("/dev/loop")
    (row,) = run_module("xen_vbd_info", domain=guest, vdev="xvdc")["vbds"]
    assert row["intended"] and row["problem"] is None and row["connected"] and row["domain"] == guest
    assert row["device"]["diskseq"] == made["device"]["diskseq"] == row["diskseq"]
    assert row["size"] == row["device"]["size"] == made["device"]["size"]
    assert row["statistics"]["bytes_read"] >= 512 and row["statistics"]["bytes_written"] == 0
    predict_and_run("xen_vbd", domain=guest, vdev="xvdc", state="detached")
    time.sleep(0.2)
    assert run_module("device_info", features=False)["devices"] == []


def test_read_only_for_the_guest(guest, image, detached):
    path = image(content=b"golden")
    detached("xvdc")
    made = predict_and_run(
        "xen_vbd",
        domain=guest,
        vdev="xvdc",
        source=f"file:{path}",
        mode="r",
        persist=False,
        wait_connected=True,
    )
    assert made["device"]["read_only"] and made["vbd"]["mode"] == "r"
    assert "1" in in_guest("cat /sys/block/xvdc/ro")
    refused("xen_vbd", "mode", "Detach it first", domain=guest, vdev="xvdc", source={"file": path}, mode="w")


def test_xl_lists_and_detaches(guest, image):
    run_module(
        "xen_vbd", domain=guest, vdev="xvdc", source={"file": image()}, persist=False, wait_connected=True
    )
    devid = str(51712 + 32)
    listed = subprocess.run(["xl", "block-list", guest], capture_output=True, text=True, check=True).stdout
    assert devid in listed
    subprocess.run(["xl", "block-detach", guest, "xvdc"], check=True, timeout=120)
    listed = subprocess.run(["xl", "block-list", guest], capture_output=True, text=True, check=True).stdout
    assert devid not in listed
    assert not run_module("xen_vbd", domain=guest, vdev="xvdc", state="detached")["changed"]
    time.sleep(0.5)


def test_domain_by_name_id_and_uuid(guest, image, detached):
    path = image()
    detached("xvdc")
    made = run_module("xen_vbd", domain=guest, vdev="xvdc", source={"file": path}, persist=False)["vbd"]
    for other in (str(made["domid"]), made["uuid"]):
        for vdev in ("xvdc", "51744", "d2"):
            assert not run_module("xen_vbd", domain=other, vdev=vdev, source={"file": path}, persist=False)[
                "changed"
            ]


def test_many_disks_in_one_task(guest, image):
    vdevs = [f"xvd{letter}" for letter in "cdefghij"]
    paths = {vdev: image(f"{vdev}.raw", MIB, vdev.encode()) for vdev in vdevs}
    wanted = [
        {
            "domain": guest,
            "vdev": vdev,
            "source": {"file": paths[vdev]},
            "persist": False,
            "wait_connected": True,
        }
        for vdev in vdevs
    ]
    made = predict_and_run("xen_vbds", vbds=wanted)
    assert len({row["device"]["diskseq"] for row in made["vbds"]}) == len(vdevs)
    for vdev in vdevs:
        assert in_guest(f"dd if=/dev/{vdev} bs=4 count=1 2>/dev/null") == vdev
    predict_and_run("xen_vbds", vbds=[{"domain": guest, "vdev": vdev, "state": "detached"} for vdev in vdevs])
    time.sleep(0.2)


def test_one_failure_rolls_back_the_others(guest, image):
    good = {"domain": guest, "vdev": "xvdc", "source": {"file": image("a.raw")}, "persist": False}
    bad = {"domain": guest, "vdev": "xvdd", "source": {"file": "/none"}}
    refused("xen_vbds", "1 of 2 failed", "does not exist", vbds=[good, bad])
    with pytest.raises(Failed):
        run_module("xen_vbds", vbds=[good, bad], on_error="keep")
    assert run_module("xen_vbd", domain=guest, vdev="xvdc", state="detached")["changed"]
    time.sleep(0.2)


@pytest.mark.rotated
def test_two_runs_for_one_disk(guest, second_guest, image, detached):
    """
    One run attaches it and the other one finds it, whatever names they use. A file that two guests read has
    one device.
    """
    path, golden = image(), image("golden.raw")
    detached("xvdc", "xvdd")
    detached("xvdd", domain=second_guest)
    domid = subprocess.run(["xl", "domid", guest], capture_output=True, text=True, check=True).stdout.strip()
    for dummy in range(3):
        results = at_once(
            ("xen_vbd", {"domain": guest, "vdev": "xvdc", "source": {"file": path}, "persist": False}),
            ("xen_vbd", {"domain": domid, "vdev": "51744", "source": {"file": path}, "persist": False}),
        )
        check_good(*results)
        assert sorted(result["changed"] for result in results) == [False, True]
        assert len({result["device"]["diskseq"] for result in results}) == 1
        readers = at_once(
            *(
                (
                    "xen_vbd",
                    {
                        "domain": name,
                        "vdev": "xvdd",
                        "source": {"file": golden},
                        "mode": "r",
                        "persist": False,
                    },
                )
                for name in (guest, second_guest)
            )
        )
        check_good(*readers)
        assert len({result["device"]["diskseq"] for result in readers}) == 1
        gone = at_once(
            *(("xen_vbd", {"domain": guest, "vdev": "xvdc", "state": "detached"}) for dummy in range(2))
        )
        check_good(*gone)
        assert sorted(result["changed"] for result in gone) == [False, True]
        for name in (guest, second_guest):
            run_module("xen_vbd", domain=name, vdev="xvdd", state="detached")
        wait_until(lambda: run_module("device_info", features=False)["devices"] == [])


@pytest.mark.rotated
def test_what_one_guest_writes_is_refused_to_another(guest, second_guest, image, name, cleanup, detached):
    """Directly, and through a loop device and a mapped device over the same file."""
    path = image()
    detached("xvdc")
    detached("xvdc", "xvdd", domain=second_guest)
    cleanup(dm=name)
    run_module("xen_vbd", domain=guest, vdev="xvdc", source={"file": path}, persist=False)
    other = {"domain": second_guest, "vdev": "xvdc"}
    refused("xen_vbd", "in use", "xvdc", source={"file": path}, **other)
    refused("xen_vbd", "in use", source={"file": path, "offset": MIB, "size": MIB}, mode="r", **other)
    cleanup(loop=path)
    mapped = run_module("dm_device", name=name, table=f"0 2048 linear file:{path} 0")["device"]
    refused("xen_vbd", "in use", source={"diskseq": mapped["diskseq"]}, **other)
    assert run_module("xen_vbd", source={"diskseq": mapped["diskseq"]}, shared=True, **other)["changed"]
    run_module("xen_vbd", state="detached", force=True, **other)
    run_module("xen_vbd", domain=guest, vdev="xvdc", state="detached", force=True)
    run_module("dm_device", name=name, state="absent")
    # two areas of one file are two disks, and readers do not disturb each other
    for vdev, offset in (("xvdc", 0), ("xvdd", MIB)):
        source = {"file": path, "offset": offset, "size": MIB}
        run_module(
            "xen_vbd", domain=guest if offset else second_guest, vdev=vdev, source=source, persist=False
        )
        run_module(
            "xen_vbd", domain=guest if offset else second_guest, vdev=vdev, state="detached", force=True
        )


@pytest.mark.rotated
def test_one_file_twice_by_other_names(guest, second_guest, image, detached):
    """By a hard link, for reading, and with the loop device's node missing. Afterwards it can be attached."""
    path = image()
    link = f"{path}.link"
    os.link(path, link)
    detached("xvdc")
    detached("xvdc", domain=second_guest)
    device = run_module("xen_vbd", domain=guest, vdev="xvdc", source={"file": path}, persist=False)["device"]
    other = {"domain": second_guest, "vdev": "xvdc", "persist": False}
    with without_node(device["path"]):
        for source, mode in (({"file": path}, "w"), ({"file": link}, "w"), ({"file": link}, "r")):
            refused("xen_vbd", "in use as disk xvdc of domain", source=source, mode=mode, **other)
    run_module("xen_vbd", domain=guest, vdev="xvdc", state="detached", force=True)
    for dummy in range(3):
        assert run_module("xen_vbd", source={"file": link}, **other)["changed"]
        assert run_module("xen_vbd", domain=second_guest, vdev="xvdc", state="detached", force=True)[
            "changed"
        ]


@contextlib.contextmanager
def without_node(path):
    number = os.stat(path).st_rdev
    os.unlink(path)
    try:
        yield
    finally:
        if not os.path.exists(path):
            os.mknod(path, stat.S_IFBLK | 0o660, number)


@pytest.mark.rotated
def test_a_snapshot_whose_store_has_overflowed_is_refused(guest, image, name, cleanup):
    table = overflowed(image, name, cleanup)
    # Only a run that loads the table sees the state of the store, so this one does not fail in check mode.
    with pytest.raises(Failed, match="store has overflowed"):
        run_module("xen_vbd", domain=guest, vdev="xvdc", source={"table": table}, persist=False)
    mapped = run_module("dm_device", name=name, table=table)["device"]
    assert mapped["status"] == [f"0 {8 * MIB // 512} snapshot Invalid"]
    refused(
        "xen_vbd", "store has overflowed", domain=guest, vdev="xvdc", source={"diskseq": mapped["diskseq"]}
    )


def overflowed(image, name, cleanup):
    """The table of a snapshot whose store had less room than was written."""
    origin, store = image("origin.raw", 8 * MIB), image("store.raw", MIB // 2)
    for path in (origin, store):
        cleanup(loop=path)
    cleanup(dm=name)
    sectors = 8 * MIB // 512
    table = [f'0 {sectors} snapshot {{"file":"{origin}","read_only":true}} file:{store} P 8']
    run_module("dm_device", name=name, table=table)
    words = ["dd", "if=/dev/urandom", f"of=/dev/mapper/{name}", "bs=64K", "count=32", "conv=fsync"]
    subprocess.run(words, stderr=subprocess.DEVNULL, check=False)
    run_module("dm_device", name=name, state="absent")
    return table


def test_a_disk_mounted_here_is_refused(guest, image, tmp_path, cleanup):
    path = image(size=8 * MIB)
    cleanup(loop=path)
    loop = run_module("loop_device", backing_file=path)["device"]
    subprocess.run(["mkfs.ext4", "-q", loop["path"]], check=True)
    point = tmp_path / "mnt"
    point.mkdir()
    subprocess.run(["mount", loop["path"], point], check=True)
    try:
        refused("xen_vbd", "mounted", domain=guest, vdev="xvdc", source={"diskseq": loop["diskseq"]})
    finally:
        subprocess.run(["umount", point], check=True)


@pytest.mark.rotated
def test_another_mapped_device_that_is_mounted_here_is_refused(guest, image, tmp_path, cleanup, name):
    """Over the same device, which the kernel lets both have. Nothing else of that device is refused."""
    path, mounted = image(size=32 * MIB), f"{name}-host"
    cleanup(loop=path)
    cleanup(dm=mounted)
    loop = run_module("loop_device", backing_file=path)["device"]
    table = f"0 32768 linear {loop['path']} 0"
    subprocess.run(["dmsetup", "create", mounted, "--table", table], check=True)
    udev_settle()
    subprocess.run(["mkfs.ext4", "-q", f"/dev/mapper/{mounted}"], check=True)
    point = tmp_path / "mnt"
    point.mkdir()
    subprocess.run(["mount", f"/dev/mapper/{mounted}", point], check=True)

    def ask(offset):
        line = {"start": 0, "length": 8192, "target": "linear", "device": {"diskseq": loop["diskseq"]}}
        source = {"table": [{**line, "offset": offset}]}
        return {"domain": guest, "vdev": "xvdc", "source": source, "persist": False}

    try:
        # Check mode does not make the table's device, whose storage is looked at.
        with pytest.raises(Failed, match=f"this host itself uses the storage.*{mounted}"):
            run_module("xen_vbd", **ask(8192))
        assert run_module("xen_vbd", **ask(32768))["changed"]
        run_module("xen_vbd", domain=guest, vdev="xvdc", state="detached")
    finally:
        subprocess.run(["umount", point], check=True)


def test_a_file_mounted_here_is_refused(guest, image, tmp_path):
    """Through a different loop device, which is claimed, while the guest would get another one."""
    path = image()
    subprocess.run(["mkfs.ext4", "-q", path], check=True)
    point = tmp_path / "mnt"
    point.mkdir()
    subprocess.run(["mount", "-o", "loop", path, point], check=True)
    try:
        for mode in ("w", "r"):
            refused(
                "xen_vbd",
                "this host itself uses",
                domain=guest,
                vdev="xvdc",
                source={"file": path},
                mode=mode,
                persist=False,
            )
    finally:
        subprocess.run(["umount", point], check=True)


@pytest.mark.rotated
def test_wrong_use(guest, image, cleanup, detached):
    path, other = image(), image("other.raw")
    ok = {"domain": guest, "vdev": "xvdc", "source": {"file": path}}
    refused("xen_vbd", "no guest", **{**ok, "domain": "nobody"})
    refused("xen_vbd", "domain 0", **{**ok, "domain": "0"})
    refused("xen_vbd", "vdev", **{**ok, "vdev": "nonsense"})
    refused("xen_vbd", "source", **{**ok, "source": "nonsense"})
    refused("xen_vbd", "source.file", "does not exist", **{**ok, "source": {"file": "/none"}})
    refused("xen_vbd", "disk sequence number", **{**ok, "source": {"diskseq": 2**40}})
    refused("xen_vbd", "timeout", **{**ok, "timeout": 0})
    refused("xen_vbd", "source", domain=guest, vdev="xvdc")
    assert not run_module("xen_vbd", domain="nobody", vdev="xvdc", state="detached")["changed"]
    loop = run_module("loop_device", backing_file=path)["device"]
    cleanup(loop=path)
    refused(
        "xen_vbd",
        "disk sequence number",
        **{**ok, "source": {"path": loop["path"], "diskseq": loop["diskseq"] + 1}},
    )
    detached("xvdc")
    run_module("xen_vbd", **ok)
    refused("xen_vbd", "another disk there", **{**ok, "source": {"file": other}})
    refused(
        "xen_vbd", "another disk there", domain=guest, vdev="xvdc", source={"file": other}, state="detached"
    )
    refused("xen_vbd", "disk sequence number", domain=guest, vdev="xvdc", diskseq=2**40, state="detached")


@pytest.mark.rotated
def test_the_forms_of_the_sequence_number(guest, image, detached):
    """
    In a node that blkback ignores, others can read it. As a prefix of the number, a released blkback refuses
    it.
    """
    detached("xvdc")
    path = image()
    made = predict_and_run(
        "xen_vbd",
        domain=guest,
        vdev="xvdc",
        source={"file": path},
        diskseq_form="physical-device-luid",
        persist=False,
    )
    node = f"/local/domain/0/backend/vbd/{made['vbd']['domid']}/{made['vbd']['devid']}"
    shown = subprocess.run(
        ["xenstore-read", f"{node}/physical-device-luid"], capture_output=True, text=True, check=True
    ).stdout
    assert int(shown, 16) == made["device"]["diskseq"] == made["vbd"]["diskseq"]
    assert subprocess.run(["xenstore-read", f"{node}/diskseq"], capture_output=True, check=False).returncode
    assert not run_module("xen_vbd", domain=guest, vdev="xvdc", source={"file": path})["changed"]
    run_module("xen_vbd", domain=guest, vdev="xvdc", state="detached")
    before = snapshot()
    with pytest.raises(Failed, match="rejected") as caught:
        run_module(
            "xen_vbd",
            domain=guest,
            vdev="xvdc",
            source={"file": path},
            diskseq_form="diskseq@number",
            persist=False,
        )
    assert "physical-device" in str(caught.value)
    udev_settle()
    assert snapshot() == before


@pytest.mark.rotated
def test_a_guest_that_does_not_answer(guest, image):
    """
    A paused guest cannot release its disk: the detach ends in time with an error, and force detaches the
    disk.
    """
    run_module(
        "xen_vbd", domain=guest, vdev="xvdc", source={"file": image()}, persist=False, wait_connected=True
    )
    xenguest("pause", guest)
    try:
        began = time.monotonic()
        with pytest.raises(Failed, match="force"):
            run_module("xen_vbd", domain=guest, vdev="xvdc", state="detached", timeout=5)
        assert time.monotonic() - began < 30
        assert run_module("xen_vbd", domain=guest, vdev="xvdc", state="detached", force=True)["changed"]
    finally:
        xenguest("unpause", guest)
    time.sleep(0.5)


@pytest.mark.rotated
def test_a_hung_xenstored_is_an_error_in_time(guest, image):
    pid = int(
        subprocess.run(
            ["pidof", "xenstored", "oxenstored"], capture_output=True, text=True, check=False
        ).stdout.split()[0]
    )
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(Failed, match="xenstored"):
            run_module("xen_vbd", domain=guest, vdev="xvdc", source={"file": image()})
        assert time.monotonic() - began < 30
    finally:
        os.kill(pid, signal.SIGCONT)
    udev_settle()


def test_missing_pyxs_is_said(guest, image):
    script = (
        "import sys, json; sys.path.insert(0, '/root/site'); sys.modules['pyxs'] = None\n"
        "import pytest, conftest\n"
        "with pytest.raises(conftest.Failed, match='python3-pyxs'): conftest.run_module('xen_vbd', "
        f"domain='x', vdev='xvda', source={{'file': {image()!r}}})\n"
    )
    subprocess.run(["python3", "-B", "-c", script], check=True, cwd=os.path.dirname(__file__))


def test_missing_libvirt_is_said(guest, image, monkeypatch):
    from ansible_collections.racefree.block.plugins.module_utils._libvirt import attach, connection

    monkeypatch.setattr(connection, "libvirt", None)
    monkeypatch.setattr(attach, "libvirt", None)
    with pytest.raises(Failed, match="python3-libvirt"):
        run_module(
            "xen_vbd", domain=guest, vdev="xvdc", source={"file": image()}, persist=False, toolstack="libvirt"
        )
    assert not run_module("xen_vbd", domain=guest, vdev="xvdc", state="detached")["changed"]


@pytest.mark.rotated
def test_a_backend_that_does_not_answer(guest, image):
    """Without blkback nothing answers: the error comes in time, and nothing is left of the disk."""
    blocked = "/etc/modprobe.d/no-blkback.conf"
    with open(blocked, "w", encoding="ascii") as config:
        config.write("install xen_blkback /bin/false\ninstall xen-blkback /bin/false\n")
    # udevd loads modules by itself, and checks at most every three seconds whether modprobe.d has changed.
    subprocess.run(["udevadm", "control", "--reload"], check=True)
    subprocess.run(["udevadm", "control", "--ping"], check=True)
    subprocess.run(["modprobe", "-r", "xen-blkback"], check=True)
    try:
        # Long enough for xenstored, which gets what is left of the time, on a busy machine.
        with pytest.raises(Failed, match="timed out after 10 s waiting for blkback"):
            run_module(
                "xen_vbd", domain=guest, vdev="xvdc", source={"file": image()}, persist=False, timeout=10
            )
        assert not run_module("xen_vbd", domain=guest, vdev="xvdc", state="detached")["changed"]
    finally:
        os.unlink(blocked)
        subprocess.run(["udevadm", "control", "--reload"], check=True)
        subprocess.run(["modprobe", "xen-blkback"], check=True)
    time.sleep(0.5)
