# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The program of the role boot_devices on a real kernel, without systemd: devices made, changed, taken down,
killed.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time

import boot_kills
import pytest
from ansible_collections.racefree.block.plugins.module_utils._boot_devices import (
    config,
    devices,
    program,
    records,
)
from conftest import assert_as, run_module, snapshot

MIB = 2**20
NAME, UUID = "boot-test", "RACEFREE-BOOT-boot-test"


class Boot:
    """The program, with a list of its own."""

    def __init__(self, capsys):
        self._capsys = capsys

    def declare(self, wanted, timeout=0):
        """Write the list: ``{name: source}``, or the plain list."""
        if isinstance(wanted, dict):
            wanted = [{"name": name, "source": source} for name, source in wanted.items()]
        with open(config.PATH, "w", encoding="utf-8") as file:
            json.dump({"timeout": timeout, "devices": wanted}, file)
        os.chmod(config.PATH, 0o600)

    def apply(self, wanted=None, code=0, **options):
        """Declare and make them; returns (facts by name, names of the changed ones, errors by name)."""
        if wanted is not None:
            self.declare(wanted, **options)
        self._capsys.readouterr()
        assert program.main(["apply"]) == code
        done = json.loads(self._capsys.readouterr().out)
        return done["devices"], sorted(done["changed"]), done["failed"]

    def stop(self, code=0):
        """Returns what was said."""
        self._capsys.readouterr()
        assert program.main(["stop"]) == code
        return self._capsys.readouterr().err

    def plan(self, wanted, monkeypatch):
        """The plan for a list."""
        if isinstance(wanted, dict):
            wanted = [{"name": name, "source": source} for name, source in wanted.items()]
        monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps({"devices": wanted})))
        self._capsys.readouterr()
        assert program.main(["plan"]) == 0
        return json.loads(self._capsys.readouterr().out)


@pytest.fixture
def boot(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(config, "PATH", str(tmp_path / "boot-devices.json"))
    before = snapshot()
    yield Boot(capsys)
    assert program.main(["stop"]) == 0
    assert_as(before, "the program has left something")
    assert not os.listdir(records.DIRECTORY)


def linear(path, sectors=2048, **file):
    return {
        "table": [
            {"start": 0, "length": sectors, "target": "linear", "device": {"file": path, **file}, "offset": 0}
        ]
    }


def table(name):
    done = subprocess.run(["dmsetup", "table", name], capture_output=True, text=True, check=False)
    return done.stdout


def is_deferred(name):
    done = subprocess.run(["dmsetup", "info", name], capture_output=True, text=True, check=True)
    return "DEFERRED REMOVE" in done.stdout


def loop_of(path):
    done = subprocess.run(
        ["losetup", "-j", path, "-n", "-O", "NAME,AUTOCLEAR"], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_made_found_again_and_taken_down(boot, image, monkeypatch):
    one, two, base = image("one.raw", MIB), image("two.raw", MIB), image("base.raw", MIB, b"golden  ")
    store, meta = image("store.cow", 2 * MIB), image("meta.raw", 2 * MIB)
    snap = {"start": 0, "length": 2048, "target": "snapshot", "persistence": "P", "chunk_size": 8}
    wanted = {
        "file": {"file": one, "direct_io": False},
        NAME: linear(two),
        "snap": {"table": [{**snap, "origin": {"file": base, "read_only": True}, "cow": {"file": store}}]},
        "above": {
            "table": f"0 2048 linear dm:{NAME},{UUID} 0",
            "name": "other-name",
            "uuid": "OTHER-UUID",
        },
        "there": {"path": "/dev/mapper/snap", "uuid": "RACEFREE-BOOT-snap"},
        "pool": {"table": f"0 8192 thin-pool file:{meta} file:{image('data.raw', 4 * MIB)} 128 0"},
    }
    before = snapshot()
    planned = boot.plan(wanted, monkeypatch)
    assert planned["errors"] == [] and planned["changes"] == dict.fromkeys(wanted, "make")
    assert_as(before, "the plan has changed something")
    found, changed, failed = boot.apply(wanted)
    assert (sorted(found), changed, failed) == (sorted(wanted), ["above", NAME, "file", "pool", "snap"], {})
    # Only the device itself stays: what is below it goes with it.
    assert loop_of(one) == [found["file"]["path"], "0"] and loop_of(two)[1] == "1"
    assert not is_deferred(NAME) and not is_deferred("other-name")
    assert found[NAME]["path"] == f"/dev/mapper/{NAME}" and found["above"]["path"] == "/dev/mapper/other-name"
    assert not found["there"]["made"] and found["there"]["diskseq"] == found["snap"]["diskseq"]
    with open("/dev/mapper/snap", "rb") as device:
        assert device.read(8) == b"golden  "
    # Again, nothing changes.
    assert boot.apply() == (found, [], {})
    planned = boot.plan(wanted, monkeypatch)
    assert planned["changes"] == {} and planned["errors"] == []
    assert boot.stop() == "" == boot.stop()
    assert not table(NAME) and not table("snap") and not table("other-name")
    assert not loop_of(one) and not loop_of(two) and not loop_of(base)


def test_a_device_that_fails_is_named_and_the_others_are_there(boot, image, monkeypatch, capsys):
    wanted = {
        "gone": {"file": "/nowhere/file.raw"},
        "disk": {"path": "/dev/mapper/no-such-disk", "uuid": "X"},
        "crypt": {
            "table": f"0 2048 crypt aes-xts-plain64 :64:logon:test:no-such-key 0 file:{image('c.raw', MIB)} 0"
        },
        "bad": {"table": "0 2048 nosuch 1"},
        "seq": {"diskseq": 7},
        NAME: linear(image("good.raw", MIB)),
    }
    found, changed, failed = boot.apply(wanted, code=1)
    assert list(found) == changed == [NAME] and table(NAME)
    assert sorted(failed) == ["bad", "crypt", "disk", "gone", "seq"]
    for name, words in {
        "gone": "/nowhere/file.raw: does not exist",
        "disk": "/dev/mapper/no-such-disk",
        "crypt": ":64:logon:test:no-such-key is not in the kernel's keyring",
        "bad": "nosuch",
        "seq": "numbers start again with every boot",
    }.items():
        assert words in failed[name], failed[name]
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    assert program.main(["start"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 5 and all(line.startswith("<3>racefree-boot-devices: ") for line in said)
    for name in failed:
        assert any(line.startswith(f"<3>racefree-boot-devices: {name}") for line in said), said
    # The key is there now.
    run_module("kernel_key", type="logon", description="test:no-such-key", payload="ab" * 64)
    wanted = {"crypt": wanted["crypt"], NAME: wanted[NAME]}
    try:
        found, changed, failed = boot.apply(wanted)
        assert changed == ["crypt"] and "crypt" in table("crypt")
    finally:
        run_module("kernel_key", type="logon", description="test:no-such-key", state="absent")


def test_changed_lists(boot, image, monkeypatch):
    one, two = image("one.raw", MIB), image("two.raw", MIB)
    boot.apply(
        {NAME: linear(one), "two": linear(two), "file": {"file": one, "offset": 4096, "overlap": True}}
    )
    # Changed, removed, renamed and added, in one run.
    wanted = {NAME: linear(one, 1024), "three": linear(two)}
    planned = boot.plan(wanted, monkeypatch)
    assert planned["errors"] == []
    assert planned["changes"] == {NAME: "change", "two": "remove", "file": "remove", "three": "make"}
    found, changed, failed = boot.apply(wanted)
    assert failed == {} and changed == [NAME, "file", "three", "two"]
    assert " 1024 " in f" {table(NAME)}" and not table("two") and table("three")
    assert not boot.apply()[1]
    # What is only checked changes no device.
    wanted[NAME] = linear(one, 1024, format="raw")
    assert boot.plan(wanted, monkeypatch)["changes"] == {} and boot.apply(wanted)[1:] == ([], {})


def test_a_device_in_use_is_left_unchanged(boot, image, monkeypatch):
    monkeypatch.setattr(devices, "_BUSY_SECONDS", 0.5)
    one, two = image("one.raw", MIB), image("two.raw", MIB)
    found = boot.apply({NAME: linear(one), "two": {"file": two}})[0]
    wanted = {NAME: linear(one, 1024)}
    with open(found[NAME]["path"], "rb"), open(found["two"]["path"], "rb"):
        planned = boot.plan(wanted, monkeypatch)
        assert "cannot be removed: a program has it open" in str(planned["errors"]), planned
        there, changed, failed = boot.apply(wanted, code=1)
        assert sorted(failed) == [NAME, "two"] and changed == [] and there == {}
        for text in failed.values():
            assert "cannot be removed" in text and "End that use first" in text
        assert " 2048 " in f" {table(NAME)}" and not is_deferred(NAME) and loop_of(two)[1] == "0"
        said = boot.stop(code=1)
        assert said.count("cannot be removed") == 2
    # The next run does what was asked for.
    there, changed, failed = boot.apply()
    assert changed == [NAME, "two"] and not failed and not loop_of(two)


def test_devices_of_others_stay(boot, image, cleanup):
    own, passing = image("own.raw", MIB), image("passing.raw", MIB)
    cleanup(loop=own)
    theirs = run_module("loop_device", backing_file=own)["device"]
    attach = ["losetup", "--find", "--show", passing]
    going = subprocess.run(attach, capture_output=True, text=True, check=True).stdout.strip()
    with open(going, "rb"):
        # It goes with its last user from now on.
        subprocess.run(["losetup", "-d", going], check=True)
        assert loop_of(passing) == [going, "1"]
        found, changed, dummy = boot.apply({"own": {"file": own}, "passing": {"file": passing}})
        assert found["own"]["diskseq"] == theirs["diskseq"] and found["passing"]["path"] == going
        # That of a guest, for instance, stays from now on.
        assert changed == ["passing"] and loop_of(passing)[1] == "0"
        assert not boot.apply()[1]
        boot.stop()
        assert loop_of(own) == [theirs["path"], "0"] and loop_of(passing)[1] == "1"
    subprocess.run(["dmsetup", "create", NAME, "--table", "0 8 zero"], check=True)
    try:
        failed = boot.apply({NAME: linear(own)}, code=1)[2]
        assert "another device" in failed[NAME]
        boot.stop()
        assert table(NAME) == "0 8 zero \n"
    finally:
        subprocess.run(["dmsetup", "remove", "--retry", NAME], check=True)


def test_a_number_that_is_anothers_by_now(boot, image):
    """A device of this list was removed by hand, and its number belongs to another one."""
    one, two = image("one.raw", MIB), image("two.raw", MIB)
    path = boot.apply({"one": {"file": one}})[0]["one"]["path"]
    subprocess.run(["losetup", "-d", path], check=True)
    boot_kills.killing.until(lambda: not loop_of(one), "the loop device to be detached")
    subprocess.run(["losetup", path, two], check=True)
    try:
        boot.stop()
        assert loop_of(two)[0] == path
    finally:
        subprocess.run(["losetup", "-d", path], check=True)


def test_a_late_file_is_waited_for(boot, tmp_path):
    path = str(tmp_path / "late.raw")

    def make():
        time.sleep(1)
        with open(f"{path}.new", "wb") as file:
            file.truncate(MIB)
        os.rename(f"{path}.new", path)

    thread = threading.Thread(target=make)
    thread.start()
    try:
        found, changed, failed = boot.apply({"late": {"file": path}}, timeout=60)
    finally:
        thread.join()
    assert changed == ["late"] and not failed and found["late"]["size"] == MIB


def test_a_file_that_grows_and_a_list_that_others_can_change(boot, image, capsys):
    path = image("grows.raw", MIB)
    boot.apply({"grows": {"file": path}})
    os.truncate(path, 2 * MIB)
    found, changed, dummy = boot.apply()
    assert changed == ["grows"] and found["grows"]["size"] == 2 * MIB
    os.chmod(os.path.dirname(path), 0o757)
    capsys.readouterr()
    assert program.main(["start"]) == 1
    os.chmod(os.path.dirname(path), 0o755)
    assert "somebody other than root can replace it" in capsys.readouterr().err
    os.chmod(config.PATH, 0o666)
    assert program.main(["start"]) == 1
    assert "others can change it" in capsys.readouterr().err


def test_a_file_that_others_can_replace_is_used_with_a_warning(boot, image, tmp_path, capsys):
    directory = tmp_path / "open"
    directory.mkdir()
    os.rename(image("a.raw", MIB), directory / "a.raw")
    directory.chmod(0o757)
    boot.declare({"a": {"file": str(directory / "a.raw")}})
    assert program.main(["start"]) == 0
    said = capsys.readouterr().err
    assert said.startswith("racefree-boot-devices: a: ") and str(directory) in said, said
    boot.declare({"a": {"file": str(directory / "a.raw"), "trusted_path": True}})
    assert program.main(["start"]) == 1


WRONG = [
    ([{"name": "../x", "source": {"file": "/a"}}], "devices[0].name ../x: must be 1 to 64 characters"),
    ([{"name": "a"}], "a.source (none): must be text or a dictionary"),
    ([{"name": "a", "source": {"file": "a"}}], "a.source.file a: must be an absolute path"),
    ([{"name": "a", "source": {"path": "/dev/loop3"}}], "/dev/loop3: cannot be kept"),
    ([{"name": "a", "source": {"file": "/a"}, "persist": True}], "persist: is not an option of a device"),
    ([{"name": "a", "source": {"file": "/a"}}] * 2, "name a: is the name of two devices in the list"),
    (
        [{"name": "a", "source": {"file": "/a"}}, {"name": "b", "source": {"file": "/a", "read_only": True}}],
        "b is the same device as a",
    ),
    (
        [
            {"name": "a", "source": {"table": "0 8 zero"}},
            {"name": "b", "source": {"table": "0 8 error", "name": "a"}},
        ],
        "b is the same device as a",
    ),
    (
        [{"name": "a", "source": {"table": "0 8 crypt aes-xts-plain64 " + "ab" * 64 + " 0 path:/dev/x 0"}}],
        "must hold no key",
    ),
    (["text"], "devices[0] text: must be a dictionary with name and source"),
]


@pytest.mark.parametrize("wanted, words", WRONG)
def test_wrong_lists_are_refused_and_stop_no_other_device(boot, monkeypatch, wanted, words):
    errors = boot.plan(wanted, monkeypatch)["errors"]
    assert words in str(errors) and "ab" * 64 not in str(errors), errors
    found, dummy, failed = boot.apply([*wanted, {"name": NAME, "source": {"table": "0 8 zero"}}], code=1)
    assert list(found)[-1] == NAME and words in str(failed)


@pytest.mark.parametrize(
    "text, words",
    [
        ("{", "the list cannot be read"),
        ("[]", "the list cannot be read"),
        ('{"devices": [], "timeout": -1}', "timeout must be a number of seconds from 0 to 600"),
        pytest.param("[" * 5000, "the list cannot be read", id="nested"),
    ],
)
def test_an_invalid_list_changes_nothing(boot, image, capsys, text, words):
    boot.apply({NAME: linear(image("one.raw", MIB))})
    with open(config.PATH, "w", encoding="utf-8") as file:
        file.write(text)
    assert program.main(["start"]) == 1
    assert words in capsys.readouterr().err and table(NAME)


@pytest.mark.rotated
def test_killed_anywhere_the_next_run_converges():
    """A fixed sample of boot_kills.py, in a process of its own: it copies its memory for each try."""
    done = subprocess.run(
        [sys.executable, "-B", boot_kills.__file__, "--stride", "67"],
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
