# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The sharing check when something cannot be examined: no file descriptors left, missing device nodes, failing
system calls. It must refuse a disk that is in use, and allow one that is not.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import stat
import subprocess
import sys
import types

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base import gone as _gone
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    BlockError,
    DeviceBusy,
    KernelError,
)
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.plugins.module_utils._process import open_files
from ansible_collections.racefree.block.plugins.module_utils._xen import sharing as _sharing
from ansible_collections.racefree.block.plugins.module_utils._xen import stack, vdev
from ansible_collections.racefree.block.plugins.module_utils._xen.blkback import Request
from ansible_collections.racefree.block.plugins.module_utils._xen.guest import Guest
from ansible_collections.racefree.block.plugins.module_utils._xenstore.pyxs_store import Store
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices, own_dev
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.xenstored import Xenstored

GUEST = Guest(5, "00000005-1111-2222-3333-444444444444", "web")
GUESTS = 12
# The free descriptors that the check needs: one to examine a device, and some for the interpreter.
ENOUGH = 6


@pytest.fixture(scope="module")
def daemon():
    with Xenstored() as running:
        yield running


@pytest.fixture
def store(daemon):
    with Store(5, daemon.socket) as opened:
        yield opened
        opened.remove("/local")


@pytest.fixture
def place():
    loopdevices.need_loop()
    with loopdevices.directory() as path:
        yield path
        assert loopdevices.nothing_bound(path), "the test left a loop device"


class Disks:
    """
    The disks of some guests, all in use, and two for another guest: one with the same file as the last of
    them, and one with a file of its own.
    """

    def __init__(self, place, store):
        self.place, self.fds = place, []
        self.numbers = [self.bind(f"disk{at}") for at in range(GUESTS)]
        self.shared, self.free = self.bind(f"disk{GUESTS - 1}"), self.bind("free")
        for at, number in enumerate(self.numbers):
            backend = f"/local/domain/0/backend/vbd/{10 + at}/51712"
            store.write_many(
                {
                    f"{backend}/{name}": value
                    for name, value in {
                        "physical-device": f"7:{number:x}",
                        "mode": "w",
                        "state": "4",
                        "dev": "xvda",
                    }.items()
                }
            )

    def bind(self, name):
        path = os.path.join(self.place, name)
        if not os.path.exists(path):
            loopdevices.image(self.place, name)
        fd, number = loopdevices.bind_free(path)
        self.fds.append(fd)
        return number

    def close(self):
        for fd in self.fds:
            os.close(fd)


@pytest.fixture
def disks(place, store):
    made = Disks(place, store)
    yield made
    made.close()


def answer(store, number):
    """``free``, or the text of the error."""
    try:
        device = _device.open_number(7, number, writable=True)
        with device, _sharing.Sharing(stack.questions(None)) as sharing:
            request = Request(GUEST, vdev.parse("xvda"), device)
            store.transaction(lambda tx: sharing.guard(tx, request))
    except BlockError as error:
        return f"{type(error).__name__}: {error}"
    return "free"


def in_child(function):
    """Call ``function()`` in a child process; the text that it returns."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            try:
                text = function()
            except BaseException as error:  # pylint: disable=broad-exception-caught
                text = f"{type(error).__name__}: {error}"
            os.write(writer, text.encode())
        finally:
            os._exit(0)
    os.close(writer)
    try:
        return os.read(reader, 65536).decode()
    finally:
        os.close(reader)
        os.waitpid(child, 0)


def with_limit(limit, store, number):
    def work():
        # The device and the pipe for the answer are open already, whatever the limit is.
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        return answer(store, number)

    return in_child(work)


def test_out_of_descriptors(store, disks):
    """
    Every limit from none to more than enough: a disk in use is never allowed, and a free one is allowed as
    soon as the limit suffices.
    """
    last = max(map(int, os.listdir("/proc/self/fd"))) + 20
    shared = {limit: with_limit(limit, store, disks.shared) for limit in range(3, max(last, 65))}
    assert not [limit for limit, told in shared.items() if told == "free"]
    free = {limit: with_limit(limit, store, disks.free) for limit in shared}
    refused = [limit for limit, told in free.items() if told != "free"]
    assert refused == list(range(3, len(refused) + 3)), "from some limit on it is given at each"
    assert not [told for told in free.values() if told != "free" and "EMFILE" not in told]
    # Another loop device of the same file is opened to check whether the host uses it.
    told = [told for limit, told in shared.items() if limit > refused[-1] + 2]
    assert told and all("is in use as disk xvda of domain" in words for words in told)
    used = in_child(lambda: str(max(map(int, os.listdir("/proc/self/fd")))))
    assert len(refused) + 3 <= int(used) + ENOUGH, "it needs no descriptor for each disk that is in use"


def lose(number, other):
    """Remove a device node, or replace it by a node of another device."""
    os.unlink(f"/dev/loop{number}")
    if other is not None:
        os.mknod(f"/dev/loop{number}", stat.S_IFBLK | 0o600, os.makedev(7, other))


@pytest.mark.parametrize("exchanged", [False, True])
def test_without_a_node(store, disks, exchanged):
    """A missing or wrong node, even of the disk itself, neither blocks a free disk nor hides a use."""
    for number in [*disks.numbers, disks.shared, disks.free]:
        other = disks.numbers[1 if number == disks.numbers[0] else 0] if exchanged else None

        def look(number=number, other=other):
            lose(number, other)
            return answer(store, disks.shared), answer(store, disks.free)

        refused, given = own_dev.run(look)
        assert f"is in use as disk xvda of domain {10 + GUESTS - 1}" in refused and given == "free"


def test_without_any_node(store, disks):
    def look():
        for number in [*disks.numbers, disks.shared, disks.free]:
            lose(number, None)
        return answer(store, disks.shared), answer(store, disks.free)

    refused, given = own_dev.run(look)
    assert "is in use as disk xvda" in refused and given == "free"


def test_device_nodes_cannot_be_opened(store, disks):
    """The error names what cannot be examined."""

    def look():
        with _sharing.Sharing(stack.questions(None)) as sharing:
            try:
                store.transaction(sharing.look)
            except KernelError as error:
                return str(error)

    told = own_dev.run(look, loops=False, nodev=True)
    assert f"/dev/loop{disks.numbers[0]}: its node in /dev is missing" in told


CALLS = {"os": ("open", "stat", "lstat", "readlink", "listdir"), "builtins": ("open",), "fcntl": ("ioctl",)}


ERRORS = [errno.EMFILE, errno.EACCES, errno.EIO, errno.ENOMEM]


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
def test_an_error_at_any_step(store, disks, monkeypatch, number):
    """Each system call of the check fails once: an error is never taken for an answer."""
    modules = {"os": os, "builtins": __import__("builtins"), "fcntl": fcntl}
    passed = []
    with _device.open_number(7, disks.shared, writable=True) as device:
        request = Request(GUEST, vdev.parse("xvda"), device)

        def check():
            # Outside a transaction: requests to xenstored are not tested here.
            with _sharing.Sharing(stack.questions(None)) as sharing:
                sharing.guard(nodes, request)

        nodes = Kept(store)
        for module, names in CALLS.items():
            for name in names:
                real, made = getattr(modules[module], name), 0
                fails_at = 1
                while True:
                    made = 0

                    def fails(*words, **more):
                        nonlocal made
                        made += 1
                        if made == fails_at:
                            raise OSError(number, os.strerror(number))
                        return real(*words, **more)

                    with monkeypatch.context() as patch:
                        patch.setattr(modules[module], name, fails)
                        try:
                            check()
                            told = "free"
                        except DeviceBusy as error:
                            told = str(error)
                        except KernelError as error:
                            told = error.errno_name
                    if made < fails_at:
                        break
                    passed.append((name, fails_at))
                    assert told != "free", f"{module}.{name}, call {fails_at}"
                    fails_at += 1
    assert len(passed) > 5 * GUESTS, "it looks at each disk"


class Kept:
    """Replays xenstored's first answers, so that none of the later system calls concerns the connection."""

    def __init__(self, store):
        self.store, self.known = store, {}

    def _ask(self, name, *words):
        key = (name, repr(words))
        if key not in self.known:
            self.known[key] = getattr(self.store, name)(*words)
        return self.known[key]

    def list_and_read(self, *words):
        listed, values = self._ask("list_and_read", *words)
        return dict(listed), dict(values)

    def __getattr__(self, name):
        return lambda word: self._ask(name, list(word) if isinstance(word, types.GeneratorType) else word)


def test_a_device_that_changes_while_it_is_examined(store, disks):
    """Facts that were read about one device are not used for the other."""
    asked = []

    def diskseq_of(major, minor):
        asked.append(minor)
        return len(asked) if len(asked) < 7 else 7

    with _sharing.Sharing(stack.questions(None), diskseq_of) as sharing:
        assert sharing._use_of((7, disks.shared), True) and len(asked) == 8
        asked.clear()
        sharing._diskseq_of = lambda major, minor: asked.append(minor) or len(asked)
        with pytest.raises(DeviceBusy, match="was given to other devices repeatedly"):
            sharing._use_of((7, disks.shared), True)


def test_a_device_of_another_guest_that_is_gone(store, disks):
    """Its nodes are left in XenStore, but it must not block anybody."""
    with loopdevices.own_number() as number:
        gone = number
    store.write_many(
        {
            f"/local/domain/0/backend/vbd/40/51712/{name}": value
            for name, value in {"physical-device": f"7:{gone:x}", "mode": "w", "state": "4"}.items()
        }
    )
    assert answer(store, disks.free) == "free"


# A disk that QEMU serves by a path that no longer exists

QEMU = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(15, b"qemu-system-i38", 0, 0, 0)
os.open(sys.argv[1], os.O_RDWR if sys.argv[2] == "w" else os.O_RDONLY)
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def qemu():
    """``qemu(path, mode, domid)`` starts a process with QEMU's name that has the file open for the domain."""
    running = []

    def start(path, mode, domid):
        process = subprocess.Popen(
            [sys.executable, "-c", QEMU, path, mode, *([] if domid is None else ["-xen-domid", str(domid)])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        running.append(process)
        assert process.stdout.readline() == b"open\n"

    yield start
    for process in running:
        process.communicate(timeout=30)


@pytest.mark.parametrize(
    "mode, domid, expected",
    [
        ("w", 30, True),
        ("w", None, True),
        ("w", 0, True),
        ("w", 31, False),
        ("r", 30, True),
    ],
)
def test_a_renamed_file_of_a_qemu_process(store, disks, place, qemu, mode, domid, expected):
    was = os.path.join(place, "was")
    os.rename(os.path.join(place, "free"), was)
    qemu(was, mode, domid)
    os.rename(was, os.path.join(place, "free"))
    store.write_many(
        {
            f"/local/domain/0/backend/qdisk/30/51712/{name}": value
            for name, value in {"params": f"raw:{was}", "mode": mode, "dev": "xvda"}.items()
        }
    )
    told = answer(store, disks.free)
    assert "is in use as disk xvda of domain 30" in told if expected else told == "free"


def test_a_replaced_file_of_a_qemu_process(store, disks, place, qemu):
    """
    Both the file that QEMU writes and the file at the path are in use, as the guest's next start opens the
    latter.
    """
    path = os.path.join(place, "free")
    qemu(path, "w", 30)
    store.write_many(
        {
            f"/local/domain/0/backend/qdisk/30/51712/{name}": value
            for name, value in {"params": f"raw:{path}", "mode": "w", "dev": "xvda"}.items()
        }
    )
    os.rename(path, path + ".was")
    loopdevices.image(place, "free", content=b"new")
    assert "is in use as disk xvda of domain 30" in answer(store, disks.free)
    made = subprocess.run(
        ["losetup", "--show", "-f", path], stdout=subprocess.PIPE, text=True, check=True, timeout=30
    )
    try:
        assert "is in use as disk xvda of domain 30" in answer(
            store, int(made.stdout.strip()[len("/dev/loop") :])
        )
    finally:
        subprocess.run(["losetup", "-d", made.stdout.strip()], check=True, timeout=30)


def test_other_disks_of_the_guests_own_qemu(store, disks, place, qemu):
    """QEMU also opens the disks that blkback serves, to emulate others with them."""
    qemu(os.path.join(place, "free"), "w", GUEST.domid)
    loopdevices.image(place, "second")
    store.write_many(
        {
            f"/local/domain/0/backend/qdisk/{GUEST.domid}/51728/{name}": value
            for name, value in {"params": f"raw:{place}/second", "mode": "w", "dev": "xvdb"}.items()
        }
    )
    assert answer(store, disks.free) == "free"


@pytest.mark.parametrize("params", ["raw:/nowhere/disk", "rbd:pool/disk", "raw:", "", "raw:/x\\0y"])
def test_a_dangling_path_of_a_qemu_process_is_ignored(store, disks, params):
    store.write("/local/domain/0/backend/qdisk/30/51712/params", params)
    assert answer(store, disks.free) == "free"


def test_a_path_of_a_qemu_process_that_cannot_be_examined(store, disks):
    store.write("/local/domain/0/backend/qdisk/30/51712/params", "raw:/" + "x" * 300)
    assert "ENAMETOOLONG" in answer(store, disks.free)


def test_open_files_of_no_process(monkeypatch):
    names = {"/proc": ["1", "x", "4194305"]}
    monkeypatch.setattr(_gone, "list_directory", lambda path, gone: names.get(path, []))
    assert not list(open_files.of_qemu(5, open_files.find_qemus()))
    assert not list(open_files.of_qemu(5, [open_files.Qemu("4194305", "5")]))
