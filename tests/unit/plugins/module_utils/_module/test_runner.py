# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The runner with an Item for files of a temporary directory, run like a module with Ansible's arguments."""

from __future__ import annotations

import contextlib
import glob
import io
import json
import os
import resource
import threading

import pytest
from ansible.module_utils.common import warnings
from ansible.module_utils.testing import patch_module_args
from ansible_collections.racefree.block.plugins.module_utils._base import locks as _locks
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    DeviceBusy,
    InvalidValue,
    KernelError,
)
from ansible_collections.racefree.block.plugins.module_utils._block import detach as _detach
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.plugins.module_utils._block import loop
from ansible_collections.racefree.block.plugins.module_utils._module import item, runner
from ansible_collections.racefree.block.plugins.module_utils._process import descriptors as _descriptors
from ansible_collections.racefree.block.plugins.module_utils._process import holder
from ansible_collections.racefree.block.plugins.modules import loop_device, loop_devices
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices

LOG = []


class FileItem(item.Item):
    """A file with a content. ``fail`` names the step that must fail."""

    ARGUMENTS = {
        "path": {"type": "path", "required": True},
        "content": {"type": "str", "default": ""},
        "fail": {"type": "str", "default": ""},
        "with_error": {"type": "str", "default": "busy"},
    }

    def __init__(self, params, host):
        super().__init__(params, host)
        self.before = None
        self.applied = False

    def _step(self, name):
        LOG.append((name, os.path.basename(self.params["path"])))
        if self.params["fail"] == name:
            raise {
                "busy": DeviceBusy(f"{name} fails", device=self.params["path"], hint="Do not say so"),
                "bug": ZeroDivisionError(f"{name} has a bug"),
                "stop": KeyboardInterrupt(),
            }[self.params["with_error"]]

    def key(self):
        return "path", self.params["path"]

    def identities(self):
        return {os.path.normpath(self.params["path"]): ""}

    def check(self):
        self._step("check")

    def plan(self):
        if os.path.exists(self.params["path"]):
            with open(self.params["path"], encoding="utf-8") as file:
                self.before = file.read()
        self._step("plan")
        now = {} if self.before is None else {"content": self.before}
        wanted = {"content": self.params["content"]}
        return item.Plan(now != wanted, now, wanted)

    def apply(self):
        with open(self.params["path"], "w", encoding="utf-8") as file:
            file.write(self.params["content"])
        self.applied = True
        self._step("apply")

    def commit(self):
        self._step("commit")
        self.warnings.append(f"committed {os.path.basename(self.params['path'])}")

    def undo(self):
        self._step("undo")
        if self.before is None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.params["path"])
        else:
            with open(self.params["path"], "w", encoding="utf-8") as file:
                file.write(self.before)

    def result(self):
        return {"path": self.params["path"], "applied": self.applied}


def run(main, check=False, diff=True, **arguments):
    """``(result, warnings)`` that Ansible would get."""
    LOG.clear()
    warnings._global_warnings.clear()
    output = io.StringIO()
    arguments = dict(arguments, _ansible_check_mode=check, _ansible_diff=diff, _ansible_remote_tmp="/tmp")
    with patch_module_args(arguments), contextlib.redirect_stdout(output), pytest.raises(SystemExit) as ended:
        main()
    result = json.loads(output.getvalue().strip().splitlines()[-1])
    assert bool(result.get("failed")) == (ended.value.code == 1)
    return result, [
        str(warning.get("event", {}).get("msg", warning)) if isinstance(warning, dict) else warning
        for warning in result.get("warnings", [])
    ]


def one(**arguments):
    return run(lambda: runner.run_one(FileItem), **arguments)


def many(devices, **arguments):
    return run(lambda: runner.run_many(FileItem), devices=devices, **arguments)


def steps(name):
    return [file for step, file in LOG if step == name]


@pytest.fixture
def files(tmp_path):
    """A function that returns all files of the directory with their contents."""
    return lambda: {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}


@pytest.fixture
def row(tmp_path):
    return lambda name, content="new", **more: dict(more, path=str(tmp_path / name), content=content)


@pytest.fixture(autouse=True)
def descriptors():
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = len(os.listdir("/proc/self/fd"))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert len(os.listdir("/proc/self/fd")) == before


# One item


def test_one_entry(row, files):
    predicted, dummy = one(**row("a"), check=True)
    assert files() == {} and predicted["changed"] and not predicted["applied"]
    assert LOG == [("check", "a"), ("plan", "a")]
    done, warnings = one(**row("a"))
    assert files() == {"a": "new"} and done["changed"] and done["applied"]
    assert LOG == [("check", "a"), ("plan", "a"), ("apply", "a"), ("commit", "a")]
    assert (
        predicted["diff"]
        == done["diff"]
        == {
            "before": {},
            "after": {"content": "new"},
            "before_header": done["path"],
            "after_header": done["path"],
        }
    )
    assert "committed a" in " ".join(warnings)
    for check in (False, True):
        again, dummy = one(**row("a"), check=check)
        assert (
            not again["changed"]
            and again["diff"]["before"] == again["diff"]["after"]
            and steps("apply") == []
        )
    changed, dummy = one(**row("a", "other"))
    assert (
        changed["changed"] and changed["diff"]["before"] == {"content": "new"} and files() == {"a": "other"}
    )
    assert "diff" not in one(**row("a"), diff=False)[0]


@pytest.mark.parametrize(
    "step, called, left",
    [
        ("check", ["check"], {}),
        ("plan", ["check", "plan"], {}),
        ("apply", ["check", "plan", "apply", "undo"], {}),
        ("commit", ["check", "plan", "apply", "commit", "undo"], {}),
    ],
)
def test_one_entry_that_fails(row, files, step, called, left):
    result, dummy = one(**row("a", fail=step))
    assert (
        result["failed"]
        and not result["changed"]
        and [name for name, dummy in LOG] == called
        and files() == left
    )
    path = row("a")["path"]
    assert result["msg"] == f"{path}: {step} fails. Do not say so"
    assert result["error"] == {
        "kind": "DeviceBusy",
        "device": path,
        "errno": "EBUSY",
        "hint": "Do not say so",
    }
    assert "exception" not in result and "diff" not in result


class AppearingItem(FileItem):
    """There is nothing to lock when the locks are taken, and something after the plan."""

    def locks(self):
        return [_locks.Lock("appearing", "it")] if "plan" in [name for name, dummy in LOG] else []


def test_what_appears_after_the_locks_were_taken_is_refused(row, files):
    result, dummy = run(lambda: runner.run_one(AppearingItem), **row("a"))
    assert "a: it appeared while the task made its plan. Nothing was done with it" in result["msg"]
    assert files() == {} and not result["changed"] and steps("apply") == []
    with open(row("a")["path"], "w", encoding="utf-8") as file:
        file.write("new")
    assert not run(lambda: runner.run_one(AppearingItem), **row("a"))[0].get("failed")


def test_check_mode_fails_like_the_run(row, files):
    for step in ("check", "plan"):
        predicted, dummy = one(**row("a", fail=step), check=True)
        real, dummy = one(**row("a", fail=step))
        predicted.pop("invocation", None), real.pop("invocation", None)
        assert predicted == real and files() == {}


@pytest.mark.parametrize("step", ["check", "plan", "apply", "commit"])
def test_an_unexpected_exception_is_an_error_and_is_rolled_back(row, files, step):
    result, dummy = many([row("a"), row("b", fail=step, with_error="bug"), row("c")])
    assert (
        result["failed"]
        and f"unexpected ZeroDivisionError: {step} has a bug" in result["msg"]
        and files() == {}
    )
    assert [entry.get("rolled_back", False) for entry in result["devices"]] == [True, False, True]
    alone, dummy = one(**row("a", fail=step, with_error="bug"))
    assert alone["msg"] == f"unexpected ZeroDivisionError: {step} has a bug" and files() == {}


def test_an_unexpected_exception_of_a_batch_is_an_error(row, files, monkeypatch):
    def together(items):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(FileItem, "apply_together", together)
    result, dummy = many([row("a"), row("b")])
    assert result["failed"] and len(result["devices"]) == 2 and files() == {} and not result["changed"]


@pytest.mark.parametrize("error", [KernelError("cannot be read", device="x"), ZeroDivisionError("a bug")])
def test_changes_are_reported_even_if_the_result_cannot_be_read(row, files, monkeypatch, error):
    real = FileItem.result

    def result_of(item):
        if item.params["path"].endswith("b"):
            raise error
        return real(item)

    monkeypatch.setattr(FileItem, "result", result_of)
    result, dummy = many([row("a"), row("b"), row("c")])
    assert files() == dict.fromkeys("abc", "new")
    assert (
        result["failed"]
        and result["changed"]
        and [entry["changed"] for entry in result["devices"]] == [True] * 3
    )
    assert (
        result["msg"].startswith("1 of 3 failed")
        and "it was changed, but its current state cannot be read" in result["devices"][1]["msg"]
    )
    assert "rolled back" not in result["msg"] and result["devices"][2]["path"] == row("c")["path"]
    alone, dummy = one(**row("b", "other"))
    assert alone["failed"] and alone["changed"] and files()["b"] == "other"


def test_an_error_at_the_end_hides_no_result(row, files, monkeypatch):
    def closing(host):
        raise KernelError("cannot let go")

    monkeypatch.setattr(runner.Resources, "close", closing)
    result, warnings = many([row("a"), row("b")])
    assert (
        not result.get("failed")
        and [entry["changed"] for entry in result["devices"]] == [True, True]
        and "cannot let go" in " ".join(warnings)
    )


@pytest.mark.parametrize("step", ["apply", "commit"])
def test_an_interrupt_rolls_back(row, files, step, tmp_path):
    arguments = {
        "devices": [row("a"), row("b"), row("c", fail=step, with_error="stop"), row("d")],
        "_ansible_remote_tmp": str(tmp_path),
    }
    LOG.clear()
    with patch_module_args(arguments), pytest.raises(KeyboardInterrupt):
        runner.run_many(FileItem)
    assert files() == {}
    begun = ["a", "b", "c"] if step == "apply" else ["a", "b", "c", "d"]
    assert steps("undo") == begun[::-1]


def test_many_files_can_be_open(row):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    one(**row("a"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == min(_descriptors.WANTED, hard) > 256


# Several items


def test_many_entries(row, files):
    devices = [row("a"), row("b"), row("c")]
    predicted, dummy = many(devices, check=True)
    assert files() == {} and steps("apply") == []
    done, warnings = many(devices)
    assert files() == {"a": "new", "b": "new", "c": "new"}
    assert (
        predicted["changed"]
        and done["changed"]
        and predicted["diff"] == done["diff"]
        and len(done["diff"]) == 3
    )
    assert (
        [entry["changed"] for entry in predicted["devices"]]
        == [entry["changed"] for entry in done["devices"]]
        == [True] * 3
    )
    # first all are checked, then all planned, then all applied, and only then all committed
    assert [(step, name) for step in ("check", "plan", "apply", "commit") for name in "abc"] == LOG
    assert all(f"committed {name}" in " ".join(warnings) for name in "abc")
    again, dummy = many([*devices, row("d")])
    assert [entry["changed"] for entry in again["devices"]] == [False, False, False, True] and again[
        "changed"
    ]
    assert steps("apply") == ["d"]
    assert "diff" not in many(devices, diff=False)[0]
    assert not many(devices)[0]["changed"]


def test_no_entries():
    result, dummy = many([])
    assert not result["changed"] and result["devices"] == [] and result["diff"] == []


@pytest.mark.parametrize("step", ["check", "plan"])
def test_an_error_in_planning_stops_the_task_before_any_change(row, files, step):
    for check in (True, False):
        result, dummy = many([row("a"), row("b", fail=step), row("c")], check=check)
        assert (
            result["failed"]
            and not result["changed"]
            and files() == {}
            and steps("apply") == steps("undo") == []
        )
        # the others are still processed, so that all errors are reported at once
        assert steps(step) == ["a", "b", "c"]
        assert [entry.get("failed", False) for entry in result["devices"]] == [False, True, False]
        assert [entry.get("rolled_back", False) for entry in result["devices"]] == [True, False, True]
        assert (
            result["msg"].startswith(f"1 of 3 failed: {row('b')['path']}: {step} fails")
            and "on_error=rollback" in result["msg"]
        )


def test_all_errors_are_reported(row):
    result, dummy = many([row(str(number), fail="plan") for number in range(7)])
    assert (
        result["msg"].startswith("7 of 7 failed: ")
        and result["msg"].count("plan fails") == 5
        and "and 2 more" in result["msg"]
    )
    assert all(
        entry["error"]["kind"] == "DeviceBusy" and "plan fails" in entry["msg"] for entry in result["devices"]
    )


@pytest.mark.parametrize("step, begun", [("apply", "cba"), ("commit", "cdba")])
def test_on_error_rollback(row, files, tmp_path, step, begun):
    """The failed item is rolled back first, then the others in reverse order. An old content is restored."""
    (tmp_path / "b").write_text("old", encoding="utf-8")
    (tmp_path / "e").write_text("new", encoding="utf-8")
    result, dummy = many([row("a"), row("b"), row("c", fail=step), row("d"), row("e")])
    assert files() == {"b": "old", "e": "new"}
    assert steps("undo") == list(begun)
    assert steps("commit") == ([] if step == "apply" else ["a", "b", "c"])
    assert not result["changed"] and [entry.get("rolled_back", False) for entry in result["devices"]] == [
        True,
        True,
        False,
        True,
        False,
    ]
    # An item that needed no change is reported as usual.
    assert (
        result["devices"][4]["path"] == row("e")["path"]
        and [entry["changed"] for entry in result["devices"]] == [False] * 5
    )


@pytest.mark.parametrize("step", ["check", "plan", "apply", "commit"])
def test_on_error_keep(row, files, step):
    result, dummy = many([row("a"), row("b", fail=step), row("c")], on_error="keep")
    assert result["failed"] and result["changed"] and files() == {"a": "new", "c": "new"}
    assert [entry["changed"] for entry in result["devices"]] == [True, False, True]
    assert [entry["applied"] for entry in result["devices"] if "applied" in entry] == [True, True]
    assert "1 of 3 failed" in result["msg"] and "on_error=keep" in result["msg"]
    assert steps("undo") == (["b"] if step in ("apply", "commit") else [])
    assert len(result["diff"]) == 2


def test_on_error_keep_in_check_mode(row, files):
    result, dummy = many([row("a"), row("b", fail="plan")], on_error="keep", check=True)
    assert result["failed"] and result["changed"] and files() == {}


def test_failed_rollbacks_are_reported_and_the_rest_is_rolled_back(row, files):
    for error in ("busy", "bug"):
        result, warnings = many(
            [row("a"), row("b", fail="undo", with_error=error), row("c"), row("d", fail="apply")]
        )
        assert files() == {"b": "new"} and steps("undo") == ["d", "c", "b", "a"]
        assert result["changed"] and [entry["changed"] for entry in result["devices"]] == [
            False,
            True,
            False,
            False,
        ]
        assert [entry.get("rolled_back", False) for entry in result["devices"]] == [True, False, True, False]
        assert "except 1, which cannot be rolled back and are changed" in result["msg"]
        assert "could not be rolled back" in " ".join(warnings) and result["failed"]
        os.unlink(row("b")["path"])


def test_a_failed_rollback_does_not_hide_what_else_remains(row, files, monkeypatch):
    monkeypatch.setattr(FileItem, "remains", lambda item: ["the file has 8 bytes"])
    result, warnings = many([row("a", fail="undo"), row("b", fail="apply")])
    told = " ".join(warnings)
    assert "could not be rolled back" in told and told.count("not rolled back: the file has 8 bytes") == 2
    assert [entry["changed"] for entry in result["devices"]] == [True, True]


@pytest.mark.parametrize("on_error, left", [("rollback", {}), ("keep", {"b": "new"})])
def test_duplicates_are_refused(row, files, tmp_path, on_error, left):
    twin = dict(row("a", "another"), path=f"{tmp_path}/./x/../a")
    result, dummy = many([row("a"), row("b"), twin], on_error=on_error)
    assert result["failed"] and "twice" in result["msg"] and files() == left
    for index in (0, 2):
        # Both, because it is unknown which one is meant.
        assert (
            result["devices"][index]["error"]["kind"] == "InvalidValue"
            and "devices[0].path" in result["devices"][index]["msg"]
        )


def test_a_duplicate_of_a_refused_entry_is_allowed(row):
    result, dummy = many([row("a", fail="check"), row("a")], on_error="keep")
    assert "twice" not in result["msg"] and result["devices"][1]["changed"]


def test_bad_options_are_refused_by_ansible(row):
    result, dummy = many([dict(row("a"), colour="red")])
    assert result["failed"] and "colour" in result["msg"]
    assert many([row("a")], on_error="ignore")[0]["failed"]


def test_a_module_that_only_reads(tmp_path):
    def collect(params, host):
        if params["fail"]:
            raise KernelError.from_oserror(OSError(13, "Permission denied"), "look", device="x")
        return {"found": host.reaped}

    def main():
        runner.run_info(collect, {"fail": {"type": "bool", "default": False}})

    for check in (False, True):
        result, dummy = run(main, check=check)
        assert result["found"] is None and not result["changed"]
    result, dummy = run(main, fail=True)
    assert (
        result["msg"].startswith("x: cannot look: Permission denied (EACCES). ")
        and result["error"]["errno"] == "EACCES"
    )


# The same with loop devices of this machine


@pytest.fixture
def place():
    loopdevices.need_loop()
    with loopdevices.directory() as path:
        yield path
        assert loopdevices.nothing_bound(path), "the test left a loop device"


def predict_and_run(main=loop_device.main, **arguments):
    """Check mode, real run, real run again, check mode again; returns the result of the first real run."""
    predicted = run(main, check=True, **arguments)[0]
    done = run(main, **arguments)[0]
    assert not done.get("failed"), done
    assert (predicted["changed"], predicted["diff"]) == (done["changed"], done["diff"])
    for check in (False, True):
        assert not run(main, check=check, **arguments)[0]["changed"]
    return done


def remove(path):
    return predict_and_run(backing_file=path, state="absent")


def test_loop_device(place):
    path = loopdevices.image(place, "disk", content=b"hello")
    assert run(loop_device.main, backing_file=path, check=True)[0][
        "device"
    ] is None and not loopdevices.bound_files(place)
    device = predict_and_run(backing_file=path)["device"]
    assert loopdevices.bound_files(place) == {device["minor"]: path}
    with _device.open_path(device["path"], diskseq=device["diskseq"]) as held:
        assert os.pread(held.fd, 5, 0) == b"hello"
        expected = dict(
            held.as_dict(),
            backing_file=path,
            backing=None,
            offset=0,
            size_limit=0,
            direct_io=device["direct_io"],
            partitions=False,
            persist=True,
            sealed=False,
        )
    assert device == expected
    with _device.open_path(device["path"]):
        changed = predict_and_run(backing_file=path, partitions=True, persist=False, hold=0)
        assert changed["changed"] is True and changed["device"]["diskseq"] == device["diskseq"]
        assert not changed["device"]["persist"] and changed["device"]["partitions"]
    assert loopdevices.nothing_bound(place), "the last user has gone"
    assert remove(path)["changed"] is False
    predict_and_run(backing_file=path, read_only=True, sector_size=4096, offset=4096, size=8192)
    assert remove(path)["changed"] is False, "offset and size say which device"
    gone = predict_and_run(backing_file=path, offset=4096, size=8192, state="absent")
    assert gone["changed"] and gone["gone"] and gone["device"] is None


def test_loop_device_guard(place):
    path = loopdevices.image(place, "disk")
    device = predict_and_run(backing_file=path)["device"]
    guard = device["diskseq"]
    assert not run(loop_device.main, backing_file=path, diskseq=guard)[0]["changed"]
    for arguments in (
        {"backing_file": path},
        {"backing_file": path, "state": "absent"},
        {"path": device["path"], "state": "absent"},
        {"backing_file": path, "partitions": True},
    ):
        for check in (True, False):
            result, dummy = run(loop_device.main, check=check, diskseq=guard + 1, **arguments)
            assert (
                result["failed"]
                and result["error"]["kind"] == "WrongDevice"
                and str(guard + 1) in result["msg"]
            ), result
    assert loopdevices.bound_files(place) == {device["minor"]: path}
    assert not run(loop_device.main, diskseq=guard + 2**40, state="absent")[0]["changed"]
    assert run(loop_device.main, path=device["path"], diskseq=guard, state="absent")[0]["changed"]
    assert not run(loop_device.main, diskseq=guard, state="absent")[0]["changed"]


def test_loop_devices_rollback(place):
    paths = [loopdevices.image(place, str(number)) for number in range(5)]
    bad = {"backing_file": place + "/none"}
    rows = [{"backing_file": path} for path in paths]
    result, dummy = run(loop_devices.main, devices=[*rows[:2], bad, *rows[2:]])
    assert result["failed"] and not result["changed"] and not loopdevices.bound_files(place)
    done = predict_and_run(loop_devices.main, devices=rows)
    assert (
        len({entry["device"]["diskseq"] for entry in done["devices"]}) == 5
        and len(loopdevices.bound_files(place)) == 5
    )
    result, dummy = run(
        loop_devices.main, devices=[{"backing_file": paths[0], "state": "absent"}, bad], on_error="keep"
    )
    assert result["failed"] and result["changed"] and len(loopdevices.bound_files(place)) == 4
    predict_and_run(loop_devices.main, devices=[dict(row, state="absent") for row in rows])


@pytest.mark.parametrize("call", range(3))
def test_loop_devices_that_fail_when_they_are_made_persistent(place, monkeypatch, call):
    """
    Whichever commit fails, the devices that were committed before lose their persistence, and are removed.
    """
    paths = [loopdevices.image(place, str(number)) for number in range(3)]
    real, calls = loop.set_autoclear, []

    def failing(device, wanted):
        if not wanted:
            calls.append(device)
            if len(calls) == call + 1:
                raise KernelError("cannot change the loop device's flags", device=device.path)
        real(device, wanted)

    monkeypatch.setattr(loop, "set_autoclear", failing)
    result, warnings = run(loop_devices.main, devices=[{"backing_file": path} for path in paths])
    assert result["failed"] and not result["changed"] and len(calls) == call + 1 and not warnings
    assert loopdevices.nothing_bound(place)


def test_many_are_made_persistent_at_once(place, monkeypatch):
    """Eleven of twelve: each call begins before any of them has ended. The last one follows."""
    rows = [{"backing_file": loopdevices.image(place, f"{count:02}")} for count in range(12)]
    real, begun, calls = loop.set_autoclear, threading.Barrier(11, timeout=30), []

    def together(device, wanted):
        calls.append(device)
        if len(calls) < 12:
            begun.wait()
        real(device, wanted)

    monkeypatch.setattr(loop, "set_autoclear", together)
    result, warnings = run(loop_devices.main, devices=rows)
    assert (
        result["changed"]
        and not warnings
        and [row["device"]["persist"] for row in result["devices"]] == [True] * 12
    )
    monkeypatch.undo()
    predict_and_run(loop_devices.main, devices=[dict(row, state="absent") for row in rows])


@pytest.mark.parametrize(("on_error", "kept"), [("rollback", 0), ("keep", 11)])
@pytest.mark.parametrize("number", [0, 5, 11])
def test_one_of_many_fails_when_they_are_made_persistent(place, monkeypatch, on_error, kept, number):
    """So many are committed at once. All of them are rolled back, or the others are kept."""
    rows = [{"backing_file": loopdevices.image(place, f"{count:02}")} for count in range(12)]
    real = loop_devices.LoopItem.commit

    def commit(item):
        if item.params["backing_file"] == rows[number]["backing_file"]:
            raise KernelError("cannot change the loop device's flags", device=item.device.path)
        real(item)

    monkeypatch.setattr(loop_devices.LoopItem, "commit", commit)
    result, warnings = run(loop_devices.main, devices=rows, on_error=on_error)
    assert result["failed"] and result["changed"] == bool(kept) and not warnings
    assert [count for count, row in enumerate(result["devices"]) if "error" in row] == [number]
    assert len(loopdevices.bound_files(place)) == kept
    persistent = [row["device"]["persist"] for row in result["devices"] if row.get("device")]
    assert persistent == [True] * kept
    monkeypatch.undo()
    predict_and_run(loop_devices.main, devices=[dict(row, state="absent") for row in rows])


def holders(path):
    """Other processes that have a loop device open whose file is below the path."""
    found = set()
    for number in loopdevices.bound_files(path):
        for link in glob.glob("/proc/[0-9]*/fd/*"):
            with contextlib.suppress(OSError):
                if os.readlink(link) == f"/dev/loop{number}":
                    found.add(int(link.split("/")[2]))
    return found - {os.getpid()}


@pytest.mark.parametrize("step", ["hold", "finish"])
def test_rolled_back_devices_are_not_held(place, monkeypatch, step):
    """
    If starting the holder fails, or a later step, the devices are removed immediately, not after the hold
    time.
    """
    paths = [loopdevices.image(place, str(number)) for number in range(3)]
    rows = [{"backing_file": path, "persist": False, "hold": 600} for path in paths]

    def fail(*dummy):
        raise KernelError("cannot start a process")

    if step == "hold":
        monkeypatch.setattr(holder, "_spawn", fail)
    else:
        monkeypatch.setattr(
            loop_devices.LoopItem,
            "finish",
            lambda item: fail() if item.params["backing_file"] == paths[1] else None,
        )
    result, warnings = run(loop_devices.main, devices=rows)
    assert result["failed"] and not result["changed"] and not warnings
    assert result["msg"].count("cannot start a process") == 1
    assert loopdevices.nothing_bound(place) and not holders(place)


def test_one_process_holds_all_devices(place, monkeypatch):
    monkeypatch.setattr(
        holder, "hold", lambda devices, seconds, real=holder.hold: real(devices, min(seconds, 2))
    )
    paths = [loopdevices.image(place, str(number)) for number in range(3)]
    result, dummy = run(
        loop_devices.main, devices=[{"backing_file": path, "persist": False} for path in paths]
    )
    assert not result.get("failed") and len(loopdevices.bound_files(place)) == 3 and len(holders(place)) == 1
    assert loopdevices.nothing_bound(place, 10)


def test_irreversible_changes_are_done_last(place, monkeypatch):
    """
    Partitions and capacity cannot be rolled back: if another entry fails in its commit, both are unchanged.
    """
    paths = [loopdevices.image(place, str(number)) for number in range(3)]
    assert not run(loop_devices.main, devices=[{"backing_file": path} for path in paths[:2]])[0].get("failed")
    os.truncate(paths[0], 131072)
    before = [run(loop_device.main, backing_file=path, check=True)[0]["device"] for path in paths[:2]]
    real = loop.set_autoclear
    monkeypatch.setattr(
        loop,
        "set_autoclear",
        lambda device, wanted: real(device, wanted) if wanted else _raise(KernelError("no")),
    )
    wanted = [
        {"backing_file": paths[0]},
        {"backing_file": paths[1], "partitions": True},
        {"backing_file": paths[2]},
    ]
    result, dummy = run(loop_devices.main, devices=wanted)
    monkeypatch.undo()
    assert (
        result["failed"]
        and not result["changed"]
        and [entry.get("rolled_back", False) for entry in result["devices"]] == [True, True, False]
    )
    assert [run(loop_device.main, backing_file=path, check=True)[0]["device"] for path in paths[:2]] == before
    done = run(loop_devices.main, devices=wanted)[0]
    assert [entry["changed"] for entry in done["devices"]] == [True] * 3 and done["devices"][1]["device"][
        "partitions"
    ]
    assert done["devices"][0]["device"]["size"] == 131072
    run(loop_devices.main, devices=[{"backing_file": path, "state": "absent"} for path in paths])


def test_irreversible_changes_are_reported_as_changed(place, monkeypatch):
    """
    A later entry fails. A device that has grown keeps its size, with a warning, and the new device is
    removed.
    """
    paths = [loopdevices.image(place, str(number)) for number in range(3)]
    assert not run(loop_devices.main, devices=[{"backing_file": path} for path in paths[:2]])[0].get("failed")
    os.truncate(paths[0], 131072)
    monkeypatch.setattr(loop, "set_partitions", lambda device: _raise(KernelError("no")))
    result, warnings = run(
        loop_devices.main,
        devices=[
            {"backing_file": paths[0]},
            {"backing_file": paths[1], "partitions": True},
            {"backing_file": paths[2]},
        ],
    )
    assert result["failed"] and result["changed"]
    assert [entry["changed"] for entry in result["devices"]] == [True, False, False]
    assert [entry.get("rolled_back", False) for entry in result["devices"]] == [False, False, True]
    assert (
        "131072 bytes" in " ".join(warnings)
        and "except 1" in result["msg"]
        and result["devices"][0]["device"]["size"] == 131072
    )
    assert len(loopdevices.bound_files(place)) == 2
    run(loop_devices.main, devices=[{"backing_file": path, "state": "absent"} for path in paths])


def test_gone_lists_only_removed_devices(place, monkeypatch):
    """Three removals, of which the second fails: one device is gone, the others still exist."""
    paths = [loopdevices.image(place, str(number)) for number in range(3)]
    made = run(loop_devices.main, devices=[{"backing_file": path} for path in paths])[0]["devices"]
    real = _detach.detach

    def detach(device, *how):
        return (
            _raise(DeviceBusy("it is in use"))
            if device.id.diskseq == made[1]["device"]["diskseq"]
            else real(device, *how)
        )

    monkeypatch.setattr(_detach, "detach", detach)
    result, dummy = run(
        loop_devices.main, devices=[{"backing_file": path, "state": "absent"} for path in paths]
    )
    assert (
        result["failed"]
        and result["changed"]
        and sorted(loopdevices.bound_files(place).values()) == paths[1:]
    )
    assert [entry["changed"] for entry in result["devices"]] == [True, False, False]
    assert [entry["gone"] for entry in result["devices"]] == [True, False, False]
    assert [entry.get("rolled_back", False) for entry in result["devices"]] == [False, False, True]
    monkeypatch.undo()
    result, dummy = run(
        loop_devices.main, devices=[{"backing_file": path, "state": "absent"} for path in paths]
    )
    assert [(entry["changed"], entry["gone"]) for entry in result["devices"]] == [
        (False, True),
        (True, True),
        (True, True),
    ]


def _raise(error):
    raise error


def test_a_loop_device_that_is_removed_with_its_first_user(place, monkeypatch):
    monkeypatch.setattr(
        holder, "hold", lambda devices, seconds, real=holder.hold: real(devices, min(seconds, 2))
    )
    path = loopdevices.image(place, "disk")
    done = run(loop_device.main, backing_file=path, persist=False)[0]
    assert loopdevices.bound_files(place) == {done["device"]["minor"]: path}
    with _device.open_path(done["device"]["path"], diskseq=done["device"]["diskseq"]):
        pass
    assert loopdevices.nothing_bound(place, 10)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"backing_file": "/none/disk", "state": "present"}, "does not exist"),
        ({"backing_file": "/dev/null"}, "character device"),
        ({"backing_file": "/", "state": "present"}, "directory"),
        ({"state": "absent"}, "one of the following is required"),
        ({"path": "/dev/loop0"}, "backing_file"),
        ({"backing_file": "/x", "path": "/dev/loop0"}, "is possible only with state=absent"),
        ({"backing_file": "/x", "path": "/dev/loop0", "state": "absent"}, "not both"),
        ({"backing_file": "/x", "offset": -1}, "offset"),
        ({"backing_file": "/x", "size": -1}, "size"),
        ({"backing_file": "/x", "hold": -1}, "hold"),
        ({"backing_file": "/x", "hold": 86401}, "hold"),
        ({"backing_file": "/x", "timeout": -1}, "timeout"),
        ({"backing_file": "/x", "diskseq": 0}, "diskseq"),
        ({"diskseq": -1, "state": "absent"}, "diskseq"),
        ({"path": "/dev/null", "state": "absent"}, "block device"),
    ],
)
def test_loop_device_wrong_use(arguments, words):
    answers = []
    for check in (True, False):
        result, dummy = run(loop_device.main, check=check, **arguments)
        assert (
            result["failed"]
            and words in result["msg"]
            and not result.get("changed")
            and "Traceback" not in str(result)
        )
        answers.append(result["msg"])
    assert answers[0] == answers[1]


def test_an_invalid_value_is_fully_reported():
    with pytest.raises(InvalidValue) as caught:
        raise InvalidValue("size", 7, "must be a multiple of 512", device="/srv/a")
    assert (
        caught.value.as_dict()["kind"] == "InvalidValue"
        and str(caught.value) == "/srv/a: size 7: must be a multiple of 512"
    )
