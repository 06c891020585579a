# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What of the kernel tier's tool is plain data: recipes, jobs, what a console says; and what it answers to wrong
calls.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

KERNEL = Path(__file__).resolve().parents[2] / "kernel"

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="the tool runs with the Python of Debian 12 and 13"
)


@pytest.fixture(autouse=True)
def modules(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(KERNEL.parent))
    monkeypatch.syspath_prepend(str(KERNEL))
    from common import program

    monkeypatch.setattr(program, "name", "tests/kernel")
    monkeypatch.setattr(program, "cache_name", "kernel")
    monkeypatch.setattr(program, "setup_command", "tests/kernel/kernel setup")
    monkeypatch.setenv("KERNEL_CACHE", str(tmp_path / "cache"))


def call(*words, prefix=(), **environment):
    return subprocess.run(
        [*prefix, "/usr/bin/python3", "-B", str(KERNEL / "_main.py"), *words],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ, **environment),
    )


def copy_of(directory, tmp_path):
    copy = tmp_path / directory.name
    shutil.copytree(directory, copy)
    return copy


def test_the_system_key_depends_on_release_packages_files_and_modes(monkeypatch, tmp_path):
    from uml import recipe

    copy = copy_of(recipe.IMAGE_FILES, tmp_path)
    first = recipe.System("forky").key
    monkeypatch.setattr(recipe.System, "files", copy)
    assert recipe.System("forky").key == first
    keys = {first, recipe.System("trixie").key, recipe.System("bookworm").key}
    monkeypatch.setattr(recipe, "PACKAGES", (*recipe.PACKAGES, "more"))
    keys.add(recipe.System("forky").key)
    with open(copy / "setup.sh", "a", encoding="utf-8") as file:
        file.write("# more\n")
    keys.add(recipe.System("forky").key)
    (copy / "setup.sh").chmod(0o600)
    keys.add(recipe.System("forky").key)
    assert len(keys) == 6


def test_a_kernel_is_rebuilt_only_when_its_own_files_change(monkeypatch, tmp_path):
    from uml import recipe

    first = recipe.Source("trixie").key
    monkeypatch.setattr(recipe, "PACKAGES", ())
    monkeypatch.setattr(recipe.System, "files", tmp_path)
    assert recipe.Source("trixie").key == first != recipe.Source("bookworm").key
    copy = copy_of(recipe.SOURCE_FILES, tmp_path)
    monkeypatch.setattr(recipe.Source, "files", copy)
    with open(copy / "options", "a", encoding="utf-8") as file:
        file.write("# a comment\n")
    assert recipe.Source("trixie").key == first
    with open(copy / "options", "a", encoding="utf-8") as file:
        file.write("MORE\n")
    assert recipe.Source("trixie").key != first


def test_the_key_is_computed_once(monkeypatch, tmp_path):
    from uml import recipe

    system = recipe.System("forky")
    first = system.key
    monkeypatch.setattr(recipe.System, "files", tmp_path)
    assert system.key == first != recipe.System("forky").key


def test_the_parts_that_are_built(tmp_path):
    """By time, and without what is not complete."""
    from uml.recipe import System

    system = System("forky")
    for moment, complete in (("20", True), ("10", True), ("30", False)):
        directory = tmp_path / "cache" / f"{system.name}.{moment}"
        directory.mkdir(parents=True)
        if complete:
            (directory / "meta.json").write_text("{}")
    assert [path.name.rpartition(".")[2] for path in system.built()] == ["10", "20"]


def test_a_part_in_use_is_not_removed(tmp_path):
    import fcntl

    from uml import build

    (tmp_path / "part").mkdir()
    meta = tmp_path / "part" / "meta.json"
    meta.write_text("{}")
    with open(meta, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        assert build.remove(tmp_path / "part") is False and meta.exists()
    assert build.remove(tmp_path / "part") is True and not (tmp_path / "part").exists()


def options(**more):
    return argparse.Namespace(
        **{
            "timeout": 1,
            "memory": 256,
            "push": [],
            "pull": [],
            "env": [],
            "site": False,
            "systemd": False,
            **more,
        }
    )


def test_files_of_a_run_are_checked_before_it_starts():
    from common.errors import Problem
    from uml.boot import Job

    for more, said in (
        ({"push": ["/not/there:/x"]}, "/not/there is not there"),
        ({"push": ["/etc/passwd:x"]}, "no absolute path"),
        ({"push": ["/etc/passwd"]}, "SRC:DEST"),
        ({"pull": ["/x:/etc/passwd"]}, "is there already"),
        ({"pull": ["/x:/not/there/x"]}, "the directory of"),
        ({"pull": [":/x"]}, "SRC:DEST"),
    ):
        with pytest.raises(Problem, match=said):
            Job.of(["true"], options(**more))


def test_scripts_of_a_run_quote_their_arguments(tmp_path):
    from uml import boot

    (tmp_path / "a 'b").write_text("x")
    job = boot.Job.of(
        ["printf", "%s", "it's $HOME\n;"],
        options(
            push=[f"{tmp_path}/a 'b:/tmp/to there/it's"], env=["A=b c;$d"], pull=[f"/x y:{tmp_path}/out"]
        ),
    )
    boot._prepare(tmp_path, job)
    share = tmp_path / "share"
    text = (
        (share / "command").read_text().replace("cd /root\n", "").replace("exec ", 'printf %s "$A"; exec ', 1)
    )
    assert (
        subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=True).stdout
        == "b c;$dit's $HOME\n;"
    )
    assert "'/tmp/to there/it'\"'\"'s'" in (share / "push").read_text()
    assert "'/x y'" in (share / "pull").read_text() and (share / "pushed" / "0").read_text() == "x"


PANIC = """\
check_one_sigio failed, errno = 19
\x1b[1mdevice-mapper: ioctl\x1b[0m
Kernel panic - not syncing: Kernel mode signal 8\r
CPU: 0 UID: 0 PID: 922 Comm: python3
Call Trace:
Aborted
"""


@pytest.mark.parametrize(
    "text, reason",
    [
        (PANIC, "Kernel panic - not syncing: Kernel mode signal 8"),
        (
            "a\nuserspace - ptrace set fp regs failed, errno = 14\n",
            "userspace - ptrace set fp regs failed, errno = 14",
        ),
        ("chroot: failed to run command\n\n", "chroot: failed to run command"),
        ("check_one_sigio failed, errno = 19\n", "it printed nothing"),
        (None, "it printed nothing"),
    ],
)
def test_the_reason_why_a_kernel_ended(tmp_path, text, reason):
    from uml import console

    if text is not None:
        (tmp_path / "console").write_text(text)
    assert console.reason(tmp_path) == reason


def test_the_reported_stack_begins_with_the_panic(tmp_path):
    from uml import console

    (tmp_path / "console").write_text("noise\n" * 50 + PANIC)
    lines = console.stack(tmp_path).splitlines()
    assert len(lines) < 10 and "  Call Trace:" in lines and "  device-mapper: ioctl" in lines


def test_the_last_table_that_was_tried_is_reported(tmp_path):
    from uml import console

    assert console.doing(tmp_path) == ""
    (tmp_path / "share" / "out").mkdir(parents=True)
    (tmp_path / "share" / "out" / "now").write_text("the table\n  0 8 zero\n")
    assert console.doing(tmp_path) == "; it was working on the table\n  0 8 zero"


def test_wrong_arguments_are_reported():
    for words, said in (
        (("run",), "which command"),
        (("run", "--release", "sid", "true"), "invalid choice"),
        (("run", "--timeout", "0", "true"), "1 to 86400"),
        (("run", "--push", "/not/there:/x", "true"), "is not there"),
        ((), "are required"),
        (("_build", "system", "forky", "x", "/x", ""), "internal part of build"),
    ):
        done = call(*words)
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, (words, done)


def test_missing_programs_are_named_with_their_packages():
    done = call("run", "true", prefix=["/usr/bin/env", "PATH=/not/there"] if os.geteuid() == 0 else [])
    if os.geteuid() == 0:
        assert (
            "missing on this machine" in done.stderr
            and "apt-get install" in done.stderr
            and "tests/kernel/kernel setup" in done.stderr
        )
    else:
        assert "needs root" in done.stderr
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_status_and_clean(tmp_path):
    from uml.recipe import System

    old, new = tmp_path / "cache" / "forky-000000000000.1", tmp_path / "cache" / f"{System('forky').name}.2"
    for directory in (old, new):
        directory.mkdir(parents=True)
        (directory / "meta.json").write_text('{"built": 0, "packages": {"user-mode-linux": "7.2um1"}}')
    rows = {
        line.split()[0]: line.split()[-1]
        for line in call("status").stdout.splitlines()
        if line.startswith("forky-")
    }
    assert rows == {old.name: "old", new.name: "current"}
    assert call("clean", "--stale").returncode == 0 and not old.exists() and new.exists()
    assert call("clean").returncode == 0 and not new.exists()


def test_every_release_has_its_packages_and_its_kernel():
    from uml import recipe

    for release in recipe.RELEASES:
        system = recipe.System(release)
        assert ("user-mode-linux" in system.contents) != (system.source is not None)
