# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""snapshot_stores: which image a store belongs to, with files of any file system."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.racefree.block.plugins.module_utils._volumes import snapshot_store
from ansible_collections.racefree.block.plugins.modules import snapshot_stores
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices

USED = b"SnAp" + bytes(508)


def run(*stores, check=False, **more):
    output = io.StringIO()
    arguments = dict(
        more, stores=list(stores), _ansible_check_mode=check, _ansible_diff=True, _ansible_remote_tmp="/tmp"
    )
    with patch_module_args(arguments), contextlib.redirect_stdout(output), pytest.raises(SystemExit):
        snapshot_stores.main()
    return json.loads(output.getvalue().strip().splitlines()[-1])


@pytest.fixture
def place(tmp_path):
    (tmp_path / "golden").write_bytes(b"golden" * 1000)
    (tmp_path / "other").write_bytes(b"others" * 1000)
    return tmp_path


@pytest.fixture
def store(place):
    """A function that returns an entry. If ``used``, the store contains changes."""

    def entry(name="a.cow", image="golden", used=None, **more):
        if used is not None:
            (place / name).write_bytes(USED if used else bytes(512))
        return dict({"path": str(place / name), "image": str(place / image)}, **more)

    return entry


def record(place, name="a.cow"):
    return json.loads((place / f"{name}.image").read_text())


def settled(*stores):
    """Whether the stores need no further change: check mode says so and a real run confirms it."""
    return not run(*stores, check=True)["changed"] and not run(*stores)["changed"]


def test_a_new_store(place, store):
    predicted = run(store(), check=True)
    assert (
        predicted["changed"]
        and not os.path.exists(place / "a.cow.image")
        and predicted["stores"][0]["store"]["image"]["sha256"] is None
    )
    done = run(store(used=False))
    there = os.stat(place / "golden")
    assert record(place) == {
        "image": str(place / "golden"),
        "size": 6000,
        "mtime_ns": there.st_mtime_ns,
        "sha256": hashlib.sha256(b"golden" * 1000).hexdigest(),
        "inode": there.st_ino,
        "ctime_ns": there.st_ctime_ns,
    }
    assert set(done["stores"][0]["store"]["image"]) == {"path", "size", "mtime_ns", "sha256"}
    assert (
        done["diff"] == predicted["diff"]
        and done["stores"][0]["store"]["image"]["sha256"] == record(place)["sha256"]
    )
    assert os.stat(place / "a.cow.image").st_mode & 0o777 == 0o600 and settled(store())
    assert settled(store(used=True))


def test_a_store_of_another_image(place, store):
    run(store(used=False))
    # The store is empty, so it may belong to any image.
    assert run(store(image="other"))["changed"] and record(place)["image"].endswith("/other")
    before = record(place)
    for check in (True, False):
        result = run(store(used=True), check=check)
        assert result["failed"] and not result["changed"] and record(place) == before
        for word in ("a.cow", str(place / "other"), str(place / "golden"), before["sha256"]):
            assert word in result["msg"]


def test_an_image_that_was_changed(place, store):
    run(store(used=True, adopt=True))
    for text in (b"changed" * 1000, b"GOLDEN" * 1000):
        (place / "golden").write_bytes(text)
        assert "another image" in run(store())["msg"]
        assert "another image" in run(store(adopt=True))["msg"]


@pytest.mark.parametrize(
    "change",
    [
        lambda place: os.utime(place / "golden", ns=(5, 5)),
        lambda place: (os.unlink(place / "golden"), (place / "golden").write_bytes(b"golden" * 1000)),
    ],
)
def test_an_image_that_has_the_same_contents(place, store, change):
    run(store(used=True, adopt=True))
    change(place)
    assert run(store(), check=True)["changed"] and run(store())["changed"] and settled(store())
    assert record(place)["mtime_ns"] == os.stat(place / "golden").st_mtime_ns


def replaced(place, text):
    """The image becomes another file, with the size and modification time of the old one."""
    there = os.stat(place / "golden")
    (place / "new").write_bytes(text)
    os.utime(place / "new", ns=(there.st_atime_ns, there.st_mtime_ns))
    os.rename(place / "new", place / "golden")


def overwritten(place, text):
    """The image gets other contents, and then its old modification time."""
    there = os.stat(place / "golden")
    (place / "golden").write_bytes(text)
    os.utime(place / "golden", ns=(there.st_atime_ns, there.st_mtime_ns))


def of_older_version(place, *dummy):
    """The record has only what older versions wrote."""
    plain = {key: value for key, value in record(place).items() if key not in ("inode", "ctime_ns")}
    (place / "a.cow.image").write_text(json.dumps(plain))


@pytest.mark.parametrize("change", [replaced, overwritten])
@pytest.mark.parametrize("used", [True, False])
def test_other_contents_with_the_same_size_and_time(place, store, change, used):
    run(store(used=used, adopt=True))
    before = record(place)
    change(place, b"GOLDEN" * 1000)
    for check in (True, False):
        done = run(store(), check=check)
        assert ("another image" in done["msg"]) if used else done["changed"]
    assert (record(place) == before) is used


def test_a_new_store_of_an_image_that_was_replaced(place, store):
    """The checksum of the old file is not taken from the record of another store."""
    run(store("a.cow"))
    replaced(place, b"GOLDEN" * 1000)
    run(store("a.cow"), store("b.cow"))
    assert record(place, "b.cow")["sha256"] == hashlib.sha256(b"GOLDEN" * 1000).hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        replaced,
        overwritten,
        of_older_version,
        lambda place, text: os.chmod(place / "golden", 0o640),
        lambda place, text: os.link(place / "golden", place / "link"),
    ],
)
@pytest.mark.parametrize("used", [True, False])
def test_the_same_contents_are_read_once_and_are_no_change(place, store, monkeypatch, change, used):
    run(store(used=used, adopt=True))
    before = record(place)
    change(place, b"golden" * 1000)
    old = record(place)
    for check in (True, False):
        assert record(place) == old
        done = run(store(), check=check)
        assert not done["changed"] and done["stores"][0]["store"]["record_changed"]
    there = os.stat(place / "golden")
    assert record(place) == dict(before, inode=there.st_ino, ctime_ns=there.st_ctime_ns)
    monkeypatch.setattr(snapshot_store, "read_whole", lambda *rest: pytest.fail("it was read"))
    assert settled(store())


def test_a_record_of_an_older_version_of_another_image(place, store):
    run(store(used=True, adopt=True))
    of_older_version(place)
    overwritten(place, b"GOLDEN" * 1000)
    assert "another image" in run(store())["msg"]


def test_what_was_learned_cannot_be_recorded(place, store):
    """That is a warning: the next run reads the image again."""
    run(store(used=True, adopt=True))
    of_older_version(place)
    host = hashlib.sha256(os.uname().nodename.encode()).hexdigest()[:8]
    (place / f"a.cow.image.{host}-0.new").mkdir()
    done = run(store())
    assert not done.get("failed") and not done["changed"] and "a.cow.image" in str(done["warnings"])


def test_an_image_that_was_moved(place, store):
    run(store(used=True, adopt=True))
    os.rename(place / "golden", place / "silver")
    assert (
        run(store(image="silver"))["changed"]
        and record(place)["image"] == str(place / "silver")
        and settled(store(image="silver"))
    )


def test_a_store_without_a_record(place, store):
    for check in (True, False):
        assert "a.cow.image does not exist" in run(store(used=True), check=check)["msg"]
    assert run(store(adopt=True))["changed"] and settled(store()) and settled(store(adopt=True))


def test_an_image_is_read_once(place, store, monkeypatch):
    """The image is read once for all stores of a task, and not again for a new store of a recorded image."""
    read, real = [], hashlib.sha256
    # Calls with data hash only a short text.
    monkeypatch.setattr(
        snapshot_store.hashlib, "sha256", lambda *data: real(*data) if data else read.append(1) or real()
    )
    run(store("a.cow"), store("b.cow"))
    assert len(read) == 1
    assert run(store("c.cow"), store("a.cow"))["changed"] and len(read) == 1
    run(store("a.cow"), store("d.cow"))
    assert len(read) == 1 and settled(store("a.cow"), store("d.cow")) and len(read) == 1


def test_all_or_nothing(place, store):
    """If another entry fails, the record is rolled back."""
    (place / "b.cow").mkdir()
    result = run(store("a.cow", used=False), store("b.cow"))
    assert result["failed"] and not os.path.exists(place / "a.cow.image")
    (place / "c.cow").write_bytes(b"")
    # This directory has the name of a temporary file orphaned by a killed run of this host. Such files are
    # removed before a record is written, which fails here.
    (place / f"c.cow.image.{hashlib.sha256(os.uname().nodename.encode()).hexdigest()[:8]}-0.new").mkdir()
    result = run(store("a.cow"), store("c.cow"))
    assert result["failed"] and "c.cow" in result["msg"] and not os.path.exists(place / "a.cow.image")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"image": "/a", "size": "x", "mtime_ns": 1, "sha256": ""}']
)
def test_an_invalid_record(place, store, text):
    (place / "a.cow.image").write_text(text)
    assert "a.cow.image" in run(store())["msg"]


@pytest.mark.parametrize(
    "change, words",
    [
        ({"path": "a"}, ["path", "absolute"]),
        ({"image": "a"}, ["image", "absolute"]),
        ({"image": "/nowhere/at/all"}, ["image", "does not exist"]),
        ({"image": "/proc"}, ["image", "directory"]),
        ({"image": "/dev/null"}, ["image", "regular file"]),
    ],
)
def test_invalid_options_are_refused(store, change, words):
    result = run(dict(store(), **change))
    assert result["failed"]
    for word in words:
        assert word in result["msg"]


def test_an_empty_image(place, store):
    (place / "golden").write_bytes(b"")
    assert "not empty" in run(store())["msg"]


def test_an_image_that_is_written_to_during_the_run(place, store, monkeypatch):
    class Slow:
        def update(self, piece):
            os.utime(place / "golden", ns=(7, 7))

    monkeypatch.setattr(snapshot_store.hashlib, "sha256", Slow)
    assert "it was written to while it was read" in run(store())["msg"] and not os.path.exists(
        place / "a.cow.image"
    )


def test_duplicates(store):
    assert "twice" in run(store(), store())["msg"]


@pytest.mark.parametrize("which", ["a.cow", "a.cow.image", "golden"])
@pytest.mark.parametrize(
    "kind, word",
    [
        ("fifo", "FIFO"),
        ("socket", "socket"),
        ("dir", "directory"),
        ("link", "FIFO"),
        ("/dev/zero", "character device"),
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_files_that_are_not_regular(place, store, which, kind, word, check):
    entry = store(used=False)
    (place / which).unlink(missing_ok=True)
    if kind == "/dev/zero":
        (place / which).symlink_to(kind)
    else:
        loopdevices.special_file(place / which, kind)
    with loopdevices.at_most(5):
        result = run(entry, check=check)
    assert (
        result["failed"]
        and str(place / which) in result["msg"]
        and f"is a {word}, and must be a regular file" in result["msg"]
    )


def test_a_store_that_became_a_fifo(place, store):
    """Also if image and record match, so that nothing has to be read."""
    entry = store(used=True, adopt=True)
    assert run(entry)["changed"]
    (place / "a.cow").unlink()
    os.mkfifo(place / "a.cow")
    with loopdevices.at_most(5):
        assert "is a FIFO" in run(entry)["msg"]


@pytest.mark.parametrize(
    "text", ["[" * 30000, '{"image": "/x", "size": 1e999, "mtime_ns": 1, "sha256": "x"}']
)
def test_an_invalid_record_that_is_valid_json(place, store, text):
    entry = store(used=True)
    (place / "a.cow.image").write_text(text)
    result = run(entry)
    assert (
        result["failed"]
        and "has a record that cannot be read" in result["msg"]
        and "unexpected" not in result["msg"]
    )


@pytest.mark.parametrize("check", [True, False])
def test_an_image_of_another_format(place, store, check):
    (place / "golden").write_bytes(b"QFI\xfb\0\0\0\3" + bytes(504))
    done = run(store(), check=check)
    assert done["failed"] and "is an image of the format qcow2" in done["msg"]
    assert "racefree.block.golden_image" in done["msg"] and not os.path.exists(place / "a.cow.image")
    assert run(store(format="raw"), check=check)["changed"]
