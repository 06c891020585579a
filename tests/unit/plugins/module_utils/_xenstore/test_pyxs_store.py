# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.deadline import Deadline
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    DeadlineExceeded,
    InvalidValue,
    NotSupported,
    XenStoreError,
)
from ansible_collections.racefree.block.plugins.module_utils._xenstore import nodes, pyxs_store, session
from ansible_collections.racefree.block.plugins.module_utils._xenstore.pyxs_store import Store
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.xenstored import Xenstored
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def shared_daemon():
    with Xenstored() as daemon:
        yield daemon


@pytest.fixture
def daemon():
    with Xenstored() as daemon:
        yield daemon


@pytest.fixture
def store(shared_daemon):
    with Store(5, shared_daemon.socket) as opened:
        yield opened
        for name in opened.list("/"):
            if name != "tool":
                opened.remove("/" + name)


def descriptors():
    return sorted(os.listdir("/proc/self/fd"))


# Values of nodes


def test_a_missing_node_is_none(store):
    assert store.read("/no/such") is None
    assert store.list("/no/such") is None
    assert store.get_perms("/no/such") is None
    assert store.remove("/no/such") is False
    assert store.exists("/no/such") is False


def test_write_read_list_remove(store):
    store.write("/a/b/c", "some value")
    assert store.read("/a/b/c") == "some value"
    assert store.read("/a/b") == ""
    assert store.list("/a") == ["b"]
    assert store.list("/a/b/c") == []
    assert store.remove("/a/b") is True
    assert store.remove("/a/b") is False
    assert store.read("/a/b/c") is None
    assert store.list("/a") == []


def test_an_empty_value_can_be_written(store):
    store.write("/a/empty", "x")
    store.write("/a/empty", "")
    assert store.read("/a/empty") == ""


def test_stray_nuls_and_other_bytes_are_reported(store):
    store.connect()
    # Values that a guest could write. pyxs would strip the NUL from the reply.
    store._client.ack(pyxs_store.Op.WRITE, b"/a/nul\0", b"12\0")
    assert store.read("/a/nul") == "12\0"
    data = b"/a/bytes\0\xff\n"
    store._client.router.send(pyxs_store.Packet(pyxs_store.Op.WRITE, 99, 0, len(data), data)).get()
    assert store.read("/a/bytes") == "\\xff\n"


def test_permissions(store):
    store.mkdir("/p/dir")
    assert store.get_perms("/p/dir") == ["n0"]
    store.set_perms("/p/dir", ["n7", "r0", "b9"])
    assert store.get_perms("/p/dir") == ["n7", "r0", "b9"]
    store.mkdir("/p/dir")
    assert store.get_perms("/p/dir") == ["n7", "r0", "b9"], "making it again must leave it as it is"


def test_lay_writes_values_and_permissions_in_order(store):
    store.lay([("/l/d", None, ["n0", "r4"]), ("/l/d/x", "1", None), ("/l/d/y", "2", ["n4", "r0"])])
    assert store.read_many(["/l/d", "/l/d/x", "/l/d/y", "/l/d/z"]) == {
        "/l/d": "",
        "/l/d/x": "1",
        "/l/d/y": "2",
        "/l/d/z": None,
    }
    # A new node inherits its parent's permissions.
    assert [store.get_perms(path) for path in ("/l/d", "/l/d/x", "/l/d/y")] == [
        ["n0", "r4"],
        ["n0", "r4"],
        ["n4", "r0"],
    ]


def test_many_nodes_are_read_in_a_pipeline(store):
    values = {f"/many/n{number}": f"{number}" * 100 for number in range(500)}
    store.write_many(values)
    assert store.read_many(values) == values


def test_an_error_in_the_pipeline_does_not_shift_the_other_replies(store):
    with pytest.raises(XenStoreError, match="ENOENT") as caught:
        store.lay([("/s/a", "1", None)])
        store._all(
            [
                ("to set the permissions of", "/s/none", pyxs_store.Op.SET_PERMS, b"/s/none\0n0\0"),
                ("to write", "/s/b", pyxs_store.Op.WRITE, b"/s/b\0002"),
            ]
        )
    assert caught.value.device == "/s/none"
    assert store.read("/s/b") == "2"


def test_more_children_than_fit_into_one_reply(store):
    names = [f"a-child-with-a-rather-long-name-{number:05}" for number in range(3000)]
    store.write_many({"/big/" + name: "" for name in names})
    assert sorted(store.list("/big")) == names
    assert sorted(store.transaction(lambda tx: tx.list("/big"))) == names
    store._client.ack(pyxs_store.Op.MKDIR, b"/big/one-more\0")
    assert len(store.list("/big")) == 3001


def test_a_long_list_is_read_again_if_it_changes(store):
    store.write_many({f"/big/{'n' * 40}{number:05}": "" for number in range(400)})
    original, calls = pyxs_store.execute, []

    def meddling(client, doing, path, op, *payload):
        if op == nodes.DIRECTORY_PART and len(calls) < 3:
            calls.append(op)
            if len(calls) == 2:
                with Store(5, store._client.router.path) as other:
                    other.remove(f"/big/{'n' * 40}00003")
        return original(client, doing, path, op, *payload)

    pyxs_store.execute = meddling
    try:
        listed = store.list("/big")
    finally:
        pyxs_store.execute = original
    assert sorted(listed) == [f"{'n' * 40}{number:05}" for number in range(400) if number != 3]


def test_empty_parents_are_removed_with_the_last_child(store):
    store.write("/c/keep", "1")
    store.write("/c/d/e/f/g", "1")
    store.remove("/c/d/e/f/g")
    store.remove_empty_parents("/c/d/e/f/g")
    assert store.list("/c") == ["keep"]


# Values that are rejected before anything is sent


@pytest.mark.parametrize(
    "path",
    ["", "a", "/a/", "//", "/a//b", "/a b", "/a\n", "/\xe4", "/" + "a" * 3072, "/a\0b", None, 7, b"/a"],
)
def test_bad_paths(store, path):
    for call in (
        store.read,
        store.list,
        store.mkdir,
        store.remove,
        store.get_perms,
        lambda p: store.write(p, "x"),
    ):
        with pytest.raises(InvalidValue):
            call(path)


@pytest.mark.parametrize("value", ["\0", "a\n", "\xe4", "\x7f", None, 1, b"x", "x" * 4096])
def test_bad_values(store, value):
    with pytest.raises(InvalidValue):
        store.write("/v", value)
    assert store.read("/v") is None


def test_the_largest_path_and_value(store):
    path = "/" + "a" * 2000
    store.write(path, "v" * (4096 - 2002))
    assert len(store.read(path)) == 4096 - 2002
    with pytest.raises(InvalidValue):
        store.write(path, "v" * (4096 - 2001))
    assert store.remove(path)


@pytest.mark.parametrize("permissions", [[], ["x0"], ["n"], ["n-1"], ["n0\n"], ["n123456"], [0]])
def test_bad_permissions(store, permissions):
    store.write("/perm", "")
    with pytest.raises(InvalidValue):
        store.set_perms("/perm", permissions)


def test_the_root_is_never_removed(store):
    with pytest.raises(InvalidValue):
        store.remove("/")


@settings(max_examples=100)
@given(st.text(alphabet=[chr(code) for code in range(0x20, 0x7F)], max_size=2000))
def test_every_printable_value_is_read_back(shared_daemon, value):
    with Store(5, shared_daemon.socket) as store:
        store.write("/property", value)
        assert store.read("/property") == value


# Transactions


def test_an_error_in_a_transaction_discards_its_changes(store):
    store.write("/t", "old")

    def fail(tx):
        tx.write("/t", "new")
        assert tx.read("/t") == "new"
        assert store.read("/t") == "old"
        raise LookupError

    with pytest.raises(LookupError):
        store.transaction(fail)
    assert store.read("/t") == "old"


def test_a_conflict_repeats_the_transaction(store, shared_daemon):
    store.write("/t", "0")
    runs = []

    def add(tx):
        value = int(tx.read("/t"))
        runs.append(value)
        if len(runs) == 1:
            with Store(5, shared_daemon.socket) as other:
                other.write("/t", "10")
        tx.write("/t", str(value + 1))
        return value + 1

    assert store.transaction(add) == 11
    assert runs == [0, 10]
    assert store.read("/t") == "11"


def test_slow_transactions_wait_longer_before_a_retry(store, shared_daemon, monkeypatch):
    """
    Concurrent transactions keep each other from committing, so the pause is at least the usual one and at
    most as long as the try.
    """
    store.write("/t", "0")
    paused, runs = [], []
    monkeypatch.setattr(Deadline, "sleep", lambda self, seconds: paused.append(seconds))
    monkeypatch.setattr(session, "random", lambda: 1.0)
    with Store(5, shared_daemon.socket) as other:

        def late(tx):
            tx.write("/t", tx.read("/t") + "x")
            if len(runs) < 2:
                time.sleep(0.3 * len(runs))
                other.write("/t", "1")
            runs.append(1)

        store.transaction(late)
    assert len(paused) == 2 and paused[0] < 0.2 and 0.3 <= paused[1] < 1


def test_endless_conflicts_end_at_the_deadline(store, shared_daemon):
    store.write("/t", "0")
    with Store(5, shared_daemon.socket) as other:

        def always_late(tx):
            tx.write("/t", tx.read("/t") + "x")
            other.write("/t", str(random.random()))

        began = time.monotonic()
        # The deadline expires between two tries or, rarely, during one.
        with pytest.raises(
            (XenStoreError, DeadlineExceeded),
            match="conflicted with other writers [0-9]+ times within 0.5 s|timed out after 0.5 s",
        ) as caught:
            store.transaction(always_late, 0.5)
    assert caught.value.errno == errno.EAGAIN or isinstance(caught.value, DeadlineExceeded)
    assert time.monotonic() - began < 2
    assert "x" not in store.read("/t")


def test_concurrent_writers_lose_nothing(shared_daemon):
    writers, each, failures = 20, 5, []

    def count():
        try:
            with Store(30, shared_daemon.socket) as mine:
                for dummy in range(each):
                    mine.transaction(lambda tx: tx.write("/count", str(int(tx.read("/count")) + 1)), 60)
        except Exception as error:
            failures.append(error)

    with Store(5, shared_daemon.socket) as store:
        store.write("/count", "0")
        threads = [threading.Thread(target=count) for dummy in range(writers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert store.read("/count") == str(writers * each)


# A daemon that does not answer


def test_a_frozen_daemon(daemon):
    with Store(0.5, daemon.socket) as store:
        store.write("/x", "1")
        daemon.freeze()
        for call in (
            lambda: store.read("/x"),
            lambda: store.write("/x", "2"),
            lambda: store.read_many(["/x", "/y"]),
            lambda: store.transaction(lambda tx: tx.write("/x", "3")),
        ):
            began = time.monotonic()
            with pytest.raises(
                DeadlineExceeded, match="timed out after 0.5 s waiting for xenstored when it was asked to "
            ):
                call()
            assert 0.4 < time.monotonic() - began < 1.5
        daemon.thaw()
        # Late replies on the abandoned connections must not be taken for this request's.
        store.write("/x", "4")
        assert store.read("/x") == "4"


def test_a_daemon_frozen_in_a_transaction(daemon):
    with Store(0.5, daemon.socket) as store:
        store.write("/x", "1")

        def freeze(tx):
            tx.write("/x", "2")
            daemon.freeze()
            tx.read("/x")

        began = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="to read /x"):
            store.transaction(freeze)
        assert time.monotonic() - began < 1.5, "giving up must not wait once more"
        daemon.thaw()
        assert store.read("/x") == "1"


def test_a_connection_that_is_not_accepted(tmp_path):
    with socket.socket(socket.AF_UNIX) as full:
        full.bind(str(tmp_path / "s"))
        full.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(str(tmp_path / "s"))
            began = time.monotonic()
            with pytest.raises(DeadlineExceeded), Store(0.3, str(tmp_path / "s")) as store:
                store.read("/")
            assert time.monotonic() - began < 1


def test_a_killed_daemon(daemon):
    with Store(2, daemon.socket) as store:
        store.write("/x", "1")
        daemon.stop()
        with pytest.raises(XenStoreError, match="connection to xenstored was lost") as caught:
            store.read("/x")
        assert caught.value.errno in (errno.EPIPE, errno.ECONNRESET)
        with pytest.raises(XenStoreError, match="cannot be reached") as caught:
            store.read("/x")
        assert caught.value.errno == errno.ECONNREFUSED
        daemon.start()
        assert store.read("/x") is None


def test_a_daemon_killed_before_its_reply(daemon):
    with Store(5, daemon.socket) as store:
        store.write("/x", "1")
        daemon.freeze()
        killer = threading.Timer(0.3, daemon.process.kill)
        killer.start()
        began = time.monotonic()
        with pytest.raises(
            XenStoreError,
            match="lost when it was asked to read /x; whether the request took effect is not known",
        ):
            store.read("/x")
        killer.join()
        assert time.monotonic() - began < 2


def test_a_missing_socket(tmp_path, monkeypatch):
    with pytest.raises(XenStoreError, match="cannot be reached"), Store(1, str(tmp_path / "none")) as store:
        store.read("/")
    monkeypatch.setenv("XENSTORED_PATH", str(tmp_path / "other"))
    if not os.path.exists("/dev/xen/xenbus"):
        with pytest.raises(XenStoreError, match="there is no .*other and no /dev/xen/xenbus"):
            Store(1).connect()


def test_a_deadline_for_several_calls(daemon):
    with Store(30, daemon.socket) as store:
        store.write("/x", "1")
        daemon.freeze()
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded), store.within(Deadline(0.3)):
            store.read("/x")
        assert time.monotonic() - began < 1
        daemon.thaw()
        with store.within(0.2):
            store.read("/x")
            time.sleep(0.3)
            with pytest.raises(DeadlineExceeded):
                store.read("/x")
        assert store.read("/x") == "1"


def test_no_descriptors_are_left_open(daemon):
    before, threads = descriptors(), threading.active_count()
    for dummy in range(20):
        with Store(10, daemon.socket) as store:
            store.read("/x")
            daemon.freeze()
            with pytest.raises(DeadlineExceeded), store.within(Deadline(0.05)):
                store.read("/x")
            daemon.thaw()
    store = Store(1, daemon.socket)
    store.read("/x")
    store.close()
    store.close()
    assert descriptors() == before
    assert threading.active_count() == threads


def test_the_process_can_exit_while_the_daemon_is_frozen(daemon):
    daemon.freeze()
    code = (
        "from ansible_collections.racefree.block.plugins.module_utils._xenstore.pyxs_store import Store\n"
        f"store = Store(0.2, {daemon.socket!r})\n"
        "try:\n    store.read('/x')\nexcept Exception as error:\n    print(type(error).__name__)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=20, check=True, env=environment
    )
    assert done.stdout == b"DeadlineExceeded\n"


# A daemon that answers nonsense, which a real one cannot be made to do


def scripted(tmp_path, answer):
    """A listener that reads one request and replies with ``answer(type, id, transaction)``."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "script"))
    listener.listen(1)

    def serve():
        connection = listener.accept()[0]
        with connection:
            op, rq_id, tx_id, size = struct.unpack("=IIII", connection.recv(16))
            connection.recv(size)
            connection.sendall(answer(op, rq_id, tx_id))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return listener, thread


def message(op, rq_id, tx_id, payload):
    return struct.pack("=IIII", op, rq_id, tx_id, len(payload)) + payload


@pytest.mark.parametrize(
    "answer, pattern",
    [
        (lambda op, rq, tx: b"", "lost"),
        (lambda op, rq, tx: b"\2\0\0", "lost"),
        (lambda op, rq, tx: message(op, rq, tx, b"value")[:-2], "lost"),
        (lambda op, rq, tx: message(op, rq + 1, tx, b"value"), "an answer to request"),
        (lambda op, rq, tx: message(op + 1, rq, tx, b"value"), "an answer of type 3 to a request of type 2"),
        (lambda op, rq, tx: struct.pack("=IIII", op, rq, tx, 1 << 30), "a message of 1073741824 bytes"),
        (
            lambda op, rq, tx: message(16, rq, tx, b"EACCES\0"),
            "access is refused by the node's permissions .EACCES.",
        ),
        (lambda op, rq, tx: message(16, rq, tx, b"EQUOTA\0"), "a quota of xenstored is reached .EQUOTA."),
        (lambda op, rq, tx: message(16, rq, tx, b"ENOSPC\0"), "a quota of xenstored is reached .ENOSPC."),
        (lambda op, rq, tx: message(16, rq, tx, b"\xff"), "refused"),
    ],
)
def test_invalid_replies(tmp_path, answer, pattern):
    listener, thread = scripted(tmp_path, answer)
    with listener, Store(2, str(tmp_path / "script")) as store:
        with pytest.raises(XenStoreError, match=pattern):
            store.read("/local/domain")
    thread.join(5)


def test_watch_events_are_skipped(tmp_path):
    listener, thread = scripted(
        tmp_path, lambda op, rq, tx: message(15, 0, 0, b"/x\0token\0") + message(op, rq, tx, b"value")
    )
    with listener, Store(2, str(tmp_path / "script")) as store:
        assert store.read("/x") == "value"
    thread.join(5)


def test_endless_watch_events_end_at_the_deadline(tmp_path):
    listener, thread = scripted(tmp_path, lambda op, rq, tx: message(15, 0, 0, b"/x\0t\0") * 100)
    with listener, Store(0.3, str(tmp_path / "script")) as store:
        with pytest.raises((DeadlineExceeded, XenStoreError)):
            store.read("/x")
    thread.join(5)


def test_without_pyxs(monkeypatch):
    monkeypatch.setattr(pyxs_store, "pyxs", None)
    with pytest.raises(NotSupported, match="pyxs is missing.*python3-pyxs"):
        Store()
