# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The hotplug script with a real xenstored and real loop devices.

The host needs no blkback: the test plays the backend. tests/host/test_hotplug.py tests the real one.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import types

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base import locks
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    BlockError,
    DeadlineExceeded,
    DefinitionError,
    DeviceBusy,
    DeviceGone,
    GuestError,
    InvalidValue,
    NotSupported,
    WrongDevice,
    XenStoreError,
)
from ansible_collections.racefree.block.plugins.module_utils._block import boot
from ansible_collections.racefree.block.plugins.module_utils._block.seal import (
    blkback,
    place,
    reason_text,
    seals,
)
from ansible_collections.racefree.block.plugins.module_utils._hotplug import add, service
from ansible_collections.racefree.block.plugins.module_utils._hotplug import (
    script as _script,
)
from ansible_collections.racefree.block.plugins.module_utils._hotplug import (
    state as _state,
)
from ansible_collections.racefree.block.plugins.module_utils._hotplug import (
    target as _target,
)
from ansible_collections.racefree.block.plugins.module_utils._hotplug import (
    worker as _worker,
)
from ansible_collections.racefree.block.plugins.module_utils._source import recipe_file, spec
from ansible_collections.racefree.block.plugins.module_utils._source.recipe import Seal
from ansible_collections.racefree.block.plugins.module_utils._source.recipe_file import KeptRecipe
from ansible_collections.racefree.block.plugins.module_utils._source.spec import (
    DiskseqSource,
    FileSource,
    PathSource,
)
from ansible_collections.racefree.block.plugins.module_utils._xen import vbd_nodes
from ansible_collections.racefree.block.plugins.module_utils._xen.vbd_key import Key
from ansible_collections.racefree.block.plugins.module_utils._xenstore.session import Session
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.xenstored import Xenstored

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/loop-control"), reason="loop devices need root"
)

KEY = Key(5, 51728)
UUID = "00000005-1111-2222-3333-444444444444"


@pytest.fixture(scope="module")
def daemon():
    with Xenstored() as running:
        yield running


@pytest.fixture
def store(daemon, monkeypatch):
    monkeypatch.setenv("XENSTORED_PATH", daemon.socket)
    with Session(5, daemon.socket) as opened:
        guest(opened, KEY.domid)
        yield opened
        opened.remove("/local")


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """State files and sysfs in directories of the test."""
    sysfs = tmp_path / "xen-backend"
    sysfs.mkdir()
    monkeypatch.setattr(Key, "sysfs", property(lambda key: f"{sysfs}/vbd-{key.domid}-{key.devid}"))
    monkeypatch.setattr(_state, "DIRECTORY", str(tmp_path / "run" / "hotplug"))


@pytest.fixture(autouse=True)
def no_loops_left(tmp_path):
    """Check only this test's loop devices: others may use some on this machine too."""
    yield
    end = time.monotonic() + 10
    while loops(tmp_path) and time.monotonic() < end:
        time.sleep(0.02)
    assert loops(tmp_path) == []


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "disk.raw"
    path.write_bytes(os.urandom(1 << 20))
    return str(path)


@pytest.fixture
def loop(file):
    path = (
        subprocess.run(["losetup", "--show", "-f", file], stdout=subprocess.PIPE, check=True)
        .stdout.decode()
        .strip()
    )
    yield path
    subprocess.run(["losetup", "-d", path], check=True)


def loops(place):
    lines = (
        subprocess.run(["losetup", "-n", "-O", "NAME,BACK-FILE"], stdout=subprocess.PIPE, check=True)
        .stdout.decode()
        .splitlines()
    )
    return [line for line in lines if str(place) in line]


def guest(store, domid):
    store.write(f"/local/domain/{domid}/vm", f"/vm/{domid:08}{UUID[8:]}")


def vbd(store, params, mode="w", key=KEY, state="2"):
    """Write the nodes that libxl writes before it calls the script."""
    os.makedirs(key.sysfs, exist_ok=True)
    disk = vbd_nodes.Disk(dev="xvdb", params="/", writable="w" in mode)
    store.lay(
        [
            (
                path,
                {"params": params, "mode": mode, "state": state}.get(path.rpartition("/")[2], value),
                perms,
            )
            for path, value, perms in vbd_nodes.layout(key, disk, [])
            if path.startswith(key.backend) and not path.endswith("hotplug-status")
        ]
    )


class Backend(threading.Thread):
    """
    A fake blkback: opens the device that it is told and keeps it open. ``act(store)`` can make it behave
    differently.
    """

    def __init__(self, daemon, key=KEY, act=None):
        super().__init__(daemon=True)
        self.path, self.key, self.act = daemon.socket, key, act
        # While cleared, the backend does not open the device yet.
        self.may_open = threading.Event()
        self.may_open.set()
        self.fd = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self.join(20)
        if self.fd is not None:
            os.close(self.fd)

    def run(self):
        with Session(5, self.path) as store:
            end = time.monotonic() + 10
            while store.read(f"{self.key.backend}/physical-device") is None and time.monotonic() < end:
                time.sleep(0.002)
            if self.act:
                self.act(store)
                return
            self.may_open.wait(20)
            number = store.read(f"{self.key.backend}/physical-device")
            minor = int(number.partition(":")[2], 16)
            self.fd = os.open(f"/dev/loop{minor}", os.O_RDWR)
            opened(self.key, number)


def opened(key, number):
    with open(key.sysfs + "/new", "w") as file:
        file.write(number + "\n")
    os.rename(key.sysfs + "/new", key.sysfs + "/physical_device")


def node(store, name, key=KEY):
    return store.read(f"{key.backend}/{name}")


def call(*words, path="backend/vbd/5/51728", script="/etc/xen/scripts/block-racefree"):
    return _script.main(["block-racefree", *words], {"XENBUS_PATH": path, "script": script})


def fails(store, kind, *words, seconds=5, status="error"):
    """``add`` raises this error and writes it to the nodes."""
    with pytest.raises(kind) as caught:
        add.add(KEY, seconds)
    for word in words:
        assert word in str(caught.value), str(caught.value)
        assert word in node(store, "hotplug-error"), node(store, "hotplug-error")
    assert node(store, "hotplug-status") == status
    return caught.value


def test_a_file(store, daemon, file):
    vbd(store, file)
    with Backend(daemon) as backend:
        assert call("add") == 0
        assert node(store, "hotplug-status") == "connected"
        assert os.pread(backend.fd, 1 << 20, 0) == open(file, "rb").read()
        path = node(store, "physical-device-path")
        with open(f"/sys/block/{path[5:]}/diskseq") as attribute:
            assert int(node(store, "diskseq"), 16) == int(attribute.read())
        assert store.get_perms(f"{KEY.backend}/diskseq") == ["n0", "r5"]
        # The loop device is removed when blkback closes it, so nobody else has it open now.
        with open(f"/sys/block/{path[5:]}/loop/autoclear") as attribute:
            assert attribute.read().strip() == "1"
        assert _state.read(KEY)["target"] == file
        assert call("add") == 0, "libxl may call twice"
        store.remove(KEY.backend)
        assert call("remove") == 0, "without nodes"
        assert _state.read(KEY) is None
        assert call("remove") == 0, "twice"


@pytest.mark.parametrize(
    "form", ["{path}", "phy:{path}", "path:{path}", "diskseq:{diskseq}@{boot}", "{short}"]
)
def test_a_device_given_in_each_form(store, daemon, loop, form):
    diskseq = open(f"/sys/block/{loop[5:]}/diskseq").read().strip()
    vbd(store, form.format(path=loop, diskseq=diskseq, boot=boot.boot_id(), short=loop[5:]))
    with Backend(daemon):
        assert call("add") == 0
    assert node(store, "physical-device-path") == loop
    assert node(store, "physical-device") == f"7:{int(loop[9:]):x}"
    assert int(node(store, "diskseq"), 16) == int(diskseq)


def test_the_device_is_held_until_the_backend_has_opened_it(store, daemon, file):
    vbd(store, file)
    with Backend(daemon) as backend:
        backend.may_open.clear()
        adding = threading.Thread(target=add.add, args=(KEY, 20))
        adding.start()
        end = time.monotonic() + 20
        while node(store, "physical-device") is None and time.monotonic() < end:
            time.sleep(0.01)
        assert node(store, "physical-device") and node(store, "hotplug-status") is None
        backend.may_open.set()
        adding.join(20)
        assert node(store, "hotplug-status") == "connected"
        assert os.pread(backend.fd, 512, 0) == open(file, "rb").read(512)


def test_the_node_opened_decides_if_the_backend_offers_it(store, daemon, loop):
    vbd(store, loop)
    store.write(f"{KEY.backend}/opened", "0")

    def act(its):
        opened(KEY, its.read(f"{KEY.backend}/physical-device"))
        time.sleep(0.3)
        assert its.read(f"{KEY.backend}/hotplug-status") is None
        its.write(f"{KEY.backend}/opened", "1")

    with Backend(daemon, act=act):
        add.add(KEY, 5)
    assert node(store, "hotplug-status") == "connected"


def test_a_backend_that_rejects_the_device(store, daemon, file):
    vbd(store, file)

    def act(its):
        its.write(f"{KEY.backend_error}/error", "19 creating vbd structure")
        its.write(f"{KEY.backend}/state", "5")

    with Backend(daemon, act=act):
        fails(store, GuestError, "rejected", "19 creating vbd structure")
    assert node(store, "physical-device") is None and node(store, "diskseq") is None
    os.rmdir(KEY.sysfs)


def test_the_error_of_an_earlier_disk_is_ignored(store, daemon, loop):
    vbd(store, loop)
    store.write(f"{KEY.backend_error}/error", "19 creating vbd structure")
    with Backend(daemon):
        assert call("add") == 0


def test_a_backend_that_never_opens(store, daemon, file, capsys, monkeypatch):
    vbd(store, file)
    monkeypatch.setattr(_script, "SECONDS", 0.5)
    began = time.monotonic()
    assert call("add") == 1
    assert time.monotonic() - began < 5
    assert "blkback to open the device" in capsys.readouterr().err and "blkback to open the device" in node(
        store, "hotplug-error"
    )
    assert node(store, "physical-device") is None
    # The worker holds the device for as long as blkback may still open it, and releases it when the vbd is
    # gone.
    assert loops(file)
    os.rmdir(KEY.sysfs)


def test_a_backend_that_opened_something_else(store, daemon, loop):
    vbd(store, loop)
    with Backend(daemon, act=lambda its: opened(KEY, "7:fff")):
        fails(store, WrongDevice, "blkback opened 7:4095 instead of 7:")
    os.unlink(KEY.sysfs + "/physical_device")
    os.rmdir(KEY.sysfs)


def test_nodes_that_are_removed_during_the_call(store, daemon, file):
    vbd(store, file)
    with (
        Backend(daemon, act=lambda its: its.remove(KEY.backend)),
        pytest.raises(GuestError, match="were removed"),
    ):
        add.add(KEY, 5)
    assert store.read(KEY.backend) is None, "nodes written into a vbd that is gone would be left for ever"
    os.rmdir(KEY.sysfs)


def test_missing_nodes(store):
    with pytest.raises(GuestError, match="not there"):
        add.add(KEY, 5)
    assert store.read(KEY.backend) is None


@pytest.mark.parametrize(
    "target, kind, words",
    [
        ("/no/such/file", DeviceGone, ["no such device or file"]),
        ("file:/no/such/file", InvalidValue, ["does not exist"]),
        ("/tmp", InvalidValue, ["block device or a regular file", "directory"]),
        ("/dev/null", InvalidValue, ["character device"]),
        ("diskseq:0", InvalidValue, ["1 to 2^64-1"]),
        ("diskseq:42", InvalidValue, ["diskseq:42", "valid until the next boot", "@BOOT"]),
        ("/dev/disk/by-diskseq/42", InvalidValue, ["valid until the next boot"]),
        ("/dev/racefree/link/disk/by-diskseq/42", InvalidValue, ["valid until the next boot"]),
        (f"diskseq:18446744073709551615@{boot.boot_id()}", DeviceGone, ["no disk has"]),
        ("diskseq:42@11111111-2222-3333-4444-555555555555", DeviceGone, ["another boot"]),
        ("dm:name", InvalidValue, ["dm:NAME,UUID"]),
        ("path:relative", InvalidValue, ["absolute path"]),
        ("nosuchdisk", DeviceGone, ["/dev/nosuchdisk"]),
        ("sealed:sealed:/dev/loop0", DeviceGone, ["/dev/sealed:/dev/loop0"]),
    ],
)
def test_wrong_targets(store, target, kind, words):
    vbd(store, target)
    fails(store, kind, *words)
    assert _state.read(KEY) is None
    assert call("add") == 1


def test_invalid_targets(store, daemon):
    vbd(store, "x")
    store._execute("", "", 11, f"{KEY.backend}/params".encode() + b"\0/dev/a\x01b")
    fails(store, XenStoreError, "backend/vbd/5/51728/params", "printable text")


def test_a_uuid_of_another_device(loop, monkeypatch):
    with pytest.raises(WrongDevice, match="not a mapped device"):
        _target.open_device(PathSource(loop, uuid="X"), 1)


def test_only_the_same_file_is_waited_for(file, tmp_path):
    """
    While another process holds the file's lock, opening the file times out, and opening another file
    succeeds.
    """
    other = str(tmp_path / "other")
    with open(other, "wb") as image:
        image.truncate(65536)
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            locks.held(locks.of_file(file))
            os.write(writing, b".")
            signal.pause()
        finally:
            os._exit(1)
    try:
        assert os.read(reading, 1) == b"."
        _target.open_device(FileSource(other), 30).close()
        with pytest.raises(locks.Unavailable, match=f"process {pid} .*the file {file}"):
            _target.open_device(FileSource(file), 0)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reading)
        os.close(writing)
    _target.open_device(FileSource(file), 30).close()


def test_an_empty_drive(store):
    vbd(store, "")
    assert call("add") == 0
    assert node(store, "hotplug-status") == "connected" and node(store, "physical-device") is None


@pytest.mark.parametrize("mode", ["", "x", "w\\0"])
def test_an_invalid_mode(store, loop, mode):
    vbd(store, loop)
    store.write(f"{KEY.backend}/mode", mode)
    fails(store, XenStoreError, "backend/vbd/5/51728/mode", "r or w")


@pytest.mark.parametrize(
    "name, value",
    [
        ("physical-device", "7:0\\x00"),
        ("physical-device", " 7:0"),
        ("physical-device", "7"),
        ("physical-device", "07@7:0"),
        ("diskseq", "0"),
        ("diskseq", "12345678901234567"),
        ("diskseq", "X"),
        ("dev", "x" * 65),
        ("frontend-id", "05"),
        ("frontend-id", "5 "),
        ("opened", "yes"),
    ],
)
def test_invalid_nodes_are_named(store, daemon, loop, name, value):
    vbd(store, loop)
    store.write(f"{KEY.backend}/{name}", value)
    with (
        Backend(daemon) if name == "opened" else contextlib.nullcontext(),
        pytest.raises(XenStoreError, match=f"backend/vbd/5/51728/{name}"),
    ):
        add.add(KEY, 5)
    assert name in (node(store, "hotplug-error") or "") or name == "frontend-id", (
        "whose vbd it is is not known"
    )
    assert name == "physical-device" or node(store, "physical-device") is None


@pytest.mark.parametrize(
    "form, name", [("physical-device-uuid", "physical-device-uuid"), ("diskseq@number", "physical-device")]
)
def test_other_forms_of_the_disk_sequence_number(store, daemon, loop, form, name):
    vbd(store, loop)
    with Backend(daemon, act=lambda its: opened(KEY, node(its, "physical-device").rpartition("@")[2])):
        add.add(KEY, 5, form)
    with open(f"/sys/block/{loop[5:]}/diskseq") as attribute:
        assert int(node(store, name).partition("@")[0], 16) == int(attribute.read())
    assert node(store, "diskseq") is None


def test_read_only(store, daemon, file, tmp_path):
    vbd(store, file, mode="r")
    with Backend(daemon) as backend:
        assert call("add") == 0
        with open(f"/sys/block/{node(store, 'physical-device-path')[5:]}/ro") as attribute:
            assert attribute.read().strip() == "1"
        with pytest.raises(OSError):
            os.pwrite(backend.fd, b"x", 0)


def test_a_read_only_device_for_a_guest_that_writes(store, file):
    path = (
        subprocess.run(["losetup", "--show", "-r", "-f", file], stdout=subprocess.PIPE, check=True)
        .stdout.decode()
        .strip()
    )
    try:
        vbd(store, path)
        fails(store, InvalidValue, "is read-only")
    finally:
        subprocess.run(["losetup", "-d", path], check=True)


def test_another_guests_file_is_refused(store, daemon, file):
    other = Key(6, 51712)
    guest(store, 6)
    vbd(store, file, key=other)
    with Backend(daemon, other):
        add.add(other, 5)
        vbd(store, file)
        fails(store, DeviceBusy, "is in use as disk xvdb of domain 6")
        # The guests coordinate their writes.
        store.remove(KEY.backend)
        vbd(store, file, mode="w!")
        with Backend(daemon):
            add.add(KEY, 5)


def test_a_guest_that_migrates_to_another_domain(store, daemon, file):
    other = Key(6, 51712)
    store.write("/local/domain/6/vm", f"/vm/{UUID}-1")
    vbd(store, file, key=other)
    with Backend(daemon, other) as before:
        add.add(other, 5)
        vbd(store, file)
        fails(store, DeviceBusy, "is in use as disk xvdb of domain 6")
        store.remove(KEY.backend)
        vbd(store, file)
        store.write_many({"/local/domain/6/name": "web", f"/local/domain/{KEY.domid}/name": "web--incoming"})
        with Backend(daemon) as after:
            add.add(KEY, 5)
            os.pwrite(before.fd, b"written before the move", 0)
            os.fsync(before.fd)
            assert os.pread(after.fd, 23, 0) == b"written before the move"


def test_an_attached_device_is_not_replaced(store, daemon, file, loop):
    vbd(store, loop)
    with Backend(daemon):
        assert call("add") == 0
    store.write(f"{KEY.backend}/params", "/dev/null")
    kept = _state.read(KEY)
    fails(store, DeviceBusy, "has a device already", "cannot be changed", status="connected")
    assert node(store, "physical-device") is not None and kept and _state.read(KEY) == kept


def test_the_boot_loaders_disk(store, daemon, loop):
    """libxl attaches a disk to domain 0 for a boot loader (pygrub); domain 0 has no vm node."""
    key = Key(0, KEY.devid)
    vbd(store, loop, key=key)
    with Backend(daemon, key):
        add.add(key, 5)
    assert node(store, "hotplug-status", key) == "connected"


def test_stale_state_is_removed_by_the_next_add(store, daemon, loop):
    _state.write(Key(77, 51712), {"target": "gone"})
    vbd(store, loop)
    with Backend(daemon):
        add.add(KEY, 5)
    assert _state.read(Key(77, 51712)) is None and _state.read(KEY) is not None


def test_a_wrong_guest_in_the_nodes(store, loop):
    vbd(store, loop)
    store.write(f"{KEY.backend}/frontend-id", "6")
    with pytest.raises(GuestError, match="names domain 6"):
        add.add(KEY, 5)
    assert node(store, "hotplug-error") is None, "they are not this vbd's"


def test_a_guest_that_ended(store, loop):
    vbd(store, loop)
    store.remove("/local/domain/5/vm")
    fails(store, GuestError, "has ended")


def test_a_vbd_that_is_being_detached(store, loop):
    vbd(store, loop, state="5")
    fails(store, GuestError, "detached")


def test_xenstored_that_does_not_answer(store, daemon, file, monkeypatch):
    vbd(store, file)
    monkeypatch.setattr(add, "_CLEANUP", 0.3)
    daemon.freeze()
    try:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="xenstored"):
            add.add(KEY, 0.5)
        assert time.monotonic() - began < 5
    finally:
        daemon.thaw()


def test_many_writers(store, daemon, loop):
    """Conflicting transactions are retried."""
    vbd(store, loop)
    stop = threading.Event()

    def meddle(number):
        with Session(5, daemon.socket) as its:
            while not stop.is_set():
                its.transaction(lambda tx: tx.write("/local/domain/5/data", str(number)))

    threads = [threading.Thread(target=meddle, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    try:
        with Backend(daemon):
            add.add(KEY, 20)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert node(store, "hotplug-status") == "connected"


# Calls


@pytest.mark.parametrize(
    "words, path",
    [
        ([], "backend/vbd/5/51728"),
        (["online"], "backend/vbd/5/51728"),
        (["add", "x"], "backend/vbd/5/51728"),
        (["add"], ""),
        (["add"], "backend/vif/5/0"),
        (["add"], "backend/vbd/5"),
        (["add"], "backend/vbd/5/x"),
        (["add"], "backend/vbd/5/1/2"),
        (["add"], "/local/domain/x/backend/vbd/5/1"),
        (["remove"], "../../etc/5/1"),
        (["add"], "backend/vbd/5/\xb2"),
        (["add"], "/local/domain/"),
    ],
)
def test_wrong_calls(words, path, capsys):
    assert call(*words, path=path) == 1
    assert "must be" in capsys.readouterr().err


def test_the_vbd_is_parsed_from_the_path():
    assert _script.parse_call(["x", "add"], {"XENBUS_PATH": "backend/vbd/5/51728"}) == ("add", Key(5, 51728))
    assert _script.parse_call(["x", "remove"], {"XENBUS_PATH": "/local/domain/3/backend/vbd/5/51728"}) == (
        "remove",
        Key(5, 51728, 3),
    )


def test_disks_of_the_stock_script_are_removed_by_it(store, tmp_path, monkeypatch):
    """When this script has replaced Xen's own, loop devices made by that one still exist."""
    stock = tmp_path / "block.stock"
    stock.write_text(f'#!/bin/sh\necho "$1 $XENBUS_PATH" > {tmp_path}/called\n')
    stock.chmod(0o755)
    code = (
        "import sys\n"
        "from ansible_collections.racefree.block.plugins.module_utils._hotplug import script as _hotplug\n"
        "from ansible_collections.racefree.block.plugins.module_utils._hotplug import state as state\n"
        f"state.DIRECTORY = {_state.DIRECTORY!r}; _hotplug.STOCK_KEPT = {str(stock)!r}\n"
        "sys.exit(_hotplug.main(['x', 'remove'], {'XENBUS_PATH': 'backend/vbd/5/51728', 'script': "
        "sys.argv[1]}))"
    )
    subprocess.run([sys.executable, "-c", code, "/etc/xen/scripts/block"], check=True)
    assert not (tmp_path / "called").exists(), (
        "it made none, or this script served the disk and another call has forgotten it"
    )
    store.write(f"{KEY.backend}/node", "/dev/loop7")
    for script, called in (("/etc/xen/scripts/block-racefree", False), ("/etc/xen/scripts/block", True)):
        subprocess.run([sys.executable, "-c", code, script], check=True)
        assert (tmp_path / "called").exists() == called
    assert (tmp_path / "called").read_text() == "remove backend/vbd/5/51728\n"
    (tmp_path / "called").unlink()
    _state.write(KEY, {"target": "x"})
    subprocess.run([sys.executable, "-c", code, "/etc/xen/scripts/block"], check=True)
    assert not (tmp_path / "called").exists(), "what this script served is its own"


# State


def test_state():
    assert _state.read(KEY) is None and not _state.forget(KEY) and _state.reap() == []
    _state.write(KEY, {"target": "/a=b", "x": ""})
    assert _state.read(KEY) == {"target": "/a=b", "x": ""}
    assert os.stat(_state.DIRECTORY).st_mode & 0o777 == 0o700
    assert _state.forget(KEY) and not _state.forget(KEY)


def test_reaping():
    living, dead = Key(7, 1), Key(8, 2)
    os.makedirs(living.sysfs)
    for key in (living, dead):
        _state.write(key, {})
    for pid in (os.getpid(), 4194305):
        with open(f"{_state.DIRECTORY}/.9-9.{pid}", "w"):
            pass
    assert sorted(_state.reap()) == [".9-9.4194305", "8-2"]
    assert sorted(os.listdir(_state.DIRECTORY)) == [f".9-9.{os.getpid()}", "7-1"]


# Targets


@pytest.mark.parametrize(
    "text, recipe",
    [
        (f"diskseq:42@{boot.boot_id()}", DiskseqSource(42, None, boot.boot_id())),
        ("path:/dev/x", PathSource("/dev/x")),
        ("file:/srv/a,b.raw", FileSource("/srv/a,b.raw")),
        ("dm:web1-root,LVM-x", PathSource("/dev/mapper/web1-root", uuid="LVM-x")),
    ],
)
def test_forms(text, recipe):
    assert _target.parse(text, True) == recipe


@pytest.mark.parametrize("start", ["", "sealed:", "sealed-below:"])
@pytest.mark.parametrize("rest", ["file:/srv/a.raw", "/srv/a.raw", "dm:a,U"])
def test_a_target_says_whether_it_is_sealed(start, rest):
    assert _target.split_seal(start + rest) == (start, rest)


@pytest.mark.parametrize(
    "seal, start",
    [(Seal(), ""), (Seal(True), _target.SEALED), (Seal(True, True), _target.SEALED_BELOW)],
)
def test_a_recipe_in_a_file_says_whether_it_is_sealed(seal, start):
    source = FileSource("/srv/a.raw")
    assert _target.seal_of(KeptRecipe("a", source, seal=seal)) == start
    assert _target.seal_of(source) == ""


def test_the_usual_call_imports_nothing_of_seals():
    """Imports take a large part of a call's time."""
    code = f"import sys, {add.__name__}; print([name for name in sys.modules if '.seal.' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_script_asks_for_seals_where_they_are():
    assert add._SEALS == place.DIRECTORY


def test_the_disk_of_an_hvm_guest_is_not_sealed(store, loop):
    """Its device model opens the path itself, after the script."""
    store.write(f"/libxl/{KEY.domid}/type", "hvm")
    vbd(store, f"sealed:{loop}")
    fails(store, InvalidValue, "HVM", "device model")
    store.remove(f"/libxl/{KEY.domid}/type")
    assert store.read(f"{KEY.backend}/physical-device") is None


def test_a_host_that_cannot_seal_makes_nothing(store, file, monkeypatch):
    def refuse():
        raise NotSupported("no seals here")

    monkeypatch.setattr(seals, "probe", refuse)
    vbd(store, f"sealed:file:{file}")
    fails(store, NotSupported, "no seals here")
    assert store.read(f"{KEY.backend}/physical-device") is None


def test_the_service_has_loaded_what_seals():
    assert {blkback, reason_text, seals} <= set(service.PRELOADED)


def test_a_read_only_file_gets_a_read_only_loop_device(file):
    assert _target.parse(file, False) == FileSource(file, read_only=True)
    assert _target.parse(file, True) == FileSource(file)


# The two processes


@contextlib.contextmanager
def running(store, place, backend_waits=True):
    """
    Start ``add`` in separate processes while blkback does not open the device; returns the watcher (a Popen)
    and the worker's PID.
    """
    vbd(store, str(place))
    code = (
        "import sys\n"
        "from ansible_collections.racefree.block.plugins.module_utils._hotplug import script as _hotplug\n"
        "from ansible_collections.racefree.block.plugins.module_utils._hotplug import state as state\n"
        "from ansible_collections.racefree.block.plugins.module_utils._xen.vbd_key import Key\n"
        f"state.DIRECTORY = {_state.DIRECTORY!r}; Key.sysfs = property(lambda key: {KEY.sysfs!r})\n"
        "sys.exit(_hotplug.main(['x', 'add'], {'XENBUS_PATH': 'backend/vbd/5/51728', 'script': 'x'}))"
    )
    watcher = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    end = time.monotonic() + 10
    while backend_waits and not node(store, "physical-device") and time.monotonic() < end:
        time.sleep(0.01)
    with open(f"/proc/{watcher.pid}/task/{watcher.pid}/children") as children:
        worker = int(children.read())
    yield watcher, worker
    if os.path.isdir(KEY.sysfs):
        os.path.exists(f"{KEY.sysfs}/physical_device") and os.unlink(f"{KEY.sysfs}/physical_device")
        os.rmdir(KEY.sysfs)
    watcher.communicate(timeout=20)


def lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] != "Z"


def ends(pid, seconds=5):
    end = time.monotonic() + seconds
    while lives(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not lives(pid)


def test_the_other_process_finishes_for_a_killed_script(store, file):
    with running(store, file) as (watcher, worker):
        watcher.kill()
        # The worker lives but has closed its end of the pipe, so nobody waits for it.
        assert watcher.stdout.read() == b""
        watcher.wait()
        assert lives(worker) and loops(file)
        opened(KEY, node(store, "physical-device"))
        assert ends(worker)
        assert node(store, "hotplug-status") == "connected"


def test_a_script_that_is_killed_early_hands_over_no_device(store, file, monkeypatch):
    vbd(store, file)

    class Alone(_worker.Link):
        is_alone = True

    with pytest.raises(GuestError, match="killed"):
        add.add(KEY, 5, link=Alone())
    assert node(store, "physical-device") is None


def test_the_device_of_a_killed_worker_is_held_until_the_backend_has_opened_it(store, file):
    with running(store, file) as (watcher, worker):
        os.kill(worker, signal.SIGKILL)
        said = watcher.communicate(timeout=10)[0].decode()
        assert (
            watcher.returncode == 1 and "was killed" in said and "was killed" in node(store, "hotplug-error")
        )
        assert node(store, "physical-device") is None and node(store, "hotplug-status") == "error"
        time.sleep(0.5)
        holders = [
            pid for pid in os.listdir("/proc") if pid.isdigit() and holds(pid, loops(file)[0].split()[0])
        ]
        assert len(holders) == 1 and len(os.listdir(f"/proc/{holders[0]}/fd")) == 1
        opened(KEY, "7:0")
        assert ends(int(holders[0]))


def holds(pid, path):
    try:
        return path in [os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return False


def test_a_killed_worker_of_an_attached_disk_changes_nothing(store, daemon, file):
    vbd(store, file)
    with Backend(daemon):
        assert call("add") == 0
    before = store.read_many(
        [f"{KEY.backend}/{name}" for name in ("physical-device", "diskseq", "hotplug-status")]
    )
    add.give_up(KEY, BlockError("the process was killed"), False)
    assert store.read_many(before) == before and _state.read(KEY) is not None


def test_storage_that_does_not_answer(store, tmp_path, monkeypatch, capsys):
    """
    The call only sleeps here. tests/host/test_hotplug.py has a call that hangs in the kernel and cannot be
    killed.
    """
    vbd(store, "/dev/x")
    monkeypatch.setattr(_script, "LONGEST", 0.5)
    monkeypatch.setattr(_target, "parse", lambda *dummy: time.sleep(60))
    began = time.monotonic()
    assert call("add") == 1
    assert time.monotonic() - began < 5
    assert "storage to answer" in capsys.readouterr().err and "storage to answer" in node(
        store, "hotplug-error"
    )
    assert node(store, "hotplug-status") == "error" and _state.read(KEY) is None


def test_errors_fit_into_a_node(store, monkeypatch):
    vbd(store, "/x")

    def long(*arguments):
        raise BlockError("\u00e4\n" + "x" * 5000)

    monkeypatch.setattr(_target, "parse", long)
    with pytest.raises(BlockError):
        add.add(KEY, 5)
    assert node(store, "hotplug-error") == "??" + "x" * 998


def test_an_interrupt_is_reported(store, monkeypatch):
    vbd(store, "/x")

    def interrupted(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

    monkeypatch.setattr(_target, "parse", interrupted)
    # A shell's background jobs ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            add.add(KEY, 5)
    finally:
        signal.signal(signal.SIGINT, before)
    assert node(store, "hotplug-error") == "ended by KeyboardInterrupt"


def test_a_watcher_without_a_descriptor_for_its_copy(tmp_path):
    """
    The worker is killed and what it may have written is rolled back: nobody else would hold the device if the
    worker were killed later.
    """
    told, limits = [], resource.getrlimit(resource.RLIMIT_NOFILE)

    def work(link):
        resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (3, limits[1]))
        with open(tmp_path / "device", "wb") as file:
            link.share(types.SimpleNamespace(fd=file.fileno()))
            time.sleep(30)

    before = sorted(os.listdir("/proc/self/fd"))
    try:
        with pytest.raises(BlockError, match="out of file descriptors") as caught:
            _worker.run(work, KEY, 20, lambda error, was_shared: told.append((error, was_shared)))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert told == [(caught.value, True)] and sorted(os.listdir("/proc/self/fd")) == before


def test_state_that_cannot_be_stored_is_named(store, file, tmp_path):
    """The state directory's path is a regular file, so no state can be written."""
    vbd(store, file)
    os.makedirs(tmp_path / "run")
    (tmp_path / "run" / "hotplug").write_bytes(b"")
    with pytest.raises(BlockError, match="run/hotplug"):
        add.add(KEY, 5)
    assert "run/hotplug" in node(store, "hotplug-error") and not loops(file)


# Recipes that are kept in files. tests/kernel/test_recipe_target.py has those of mapped devices.


@pytest.fixture
def recipes(tmp_path, monkeypatch):
    """A function that writes the recipe ``web1-xvda`` of a source."""
    monkeypatch.setattr(recipe_file, "DIRECTORY", str(tmp_path / "recipes"))

    def write(source, shared=False):
        recipe_file.write(KeptRecipe("web1-xvda", spec.parse(source), shared, "xvda of web1"))

    return write


@pytest.mark.parametrize("mode", ["r", "w"])
def test_a_recipe_of_a_file(store, daemon, file, recipes, mode):
    recipes({"file": file, "offset": 4096})
    vbd(store, "recipe:web1-xvda", mode)
    with Backend(daemon) as backend:
        assert call("add") == 0
        assert os.pread(backend.fd, 4096, 0) == open(file, "rb").read()[4096:8192]
        name = node(store, "physical-device-path")[5:]
        assert open(f"/sys/block/{name}/ro").read().strip() == ("1" if mode == "r" else "0")
        assert open(f"/sys/block/{name}/loop/autoclear").read().strip() == "1"
        assert _state.read(KEY)["target"] == "recipe:web1-xvda"
        assert call("add") == 0, "libxl may call twice"


def test_a_recipe_uses_an_existing_device(store, daemon, file, loop, recipes):
    recipes({"file": file})
    vbd(store, "recipe:web1-xvda")
    with Backend(daemon):
        assert call("add") == 0
        assert node(store, "physical-device-path") == loop


@pytest.mark.parametrize(
    "target, kind, words",
    [
        ("recipe:none", DefinitionError, ["none.json", "there is no such recipe", "xl_disk"]),
        ("recipe:", InvalidValue, ["must be the name of a recipe"]),
        ("recipe:../recipes/web1-xvda", InvalidValue, ["must be the name of a recipe"]),
        ("recipe:/etc/passwd", InvalidValue, ["must be the name of a recipe"]),
        ("recipe:web1-xvda.json/..", InvalidValue, ["must be the name of a recipe"]),
    ],
)
def test_missing_recipes(store, file, recipes, target, kind, words):
    recipes({"file": file})
    vbd(store, target)
    fails(store, kind, *words)
    assert _state.read(KEY) is None


def test_a_recipe_whose_file_is_missing(store, file, recipes):
    recipes({"file": file + ".none"})
    vbd(store, "recipe:web1-xvda")
    fails(store, InvalidValue, f"{file}.none", "does not exist")


def test_a_recipe_that_others_can_write(store, file, recipes):
    recipes({"file": file})
    os.chmod(recipe_file.path_of("web1-xvda"), 0o622)
    vbd(store, "recipe:web1-xvda")
    fails(store, DefinitionError, "others can change it", "0600")


@pytest.mark.parametrize("shared", [False, True])
def test_a_recipe_can_allow_shared_writes(store, daemon, file, recipes, shared):
    other = Key(6, 51728)
    guest(store, 6)
    recipes({"file": file}, shared)
    vbd(store, "recipe:web1-xvda", key=other)
    vbd(store, "recipe:web1-xvda")
    with Backend(daemon, other):
        assert call("add", path="backend/vbd/6/51728") == 0
        if shared:
            with Backend(daemon):
                assert call("add") == 0
        else:
            fails(store, DeviceBusy, "of domain 6")
