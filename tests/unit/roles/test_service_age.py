# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
service_age.py, with which roles see that a service must be restarted. The kernel tier has it with systemd
(test_role_xen_host.py and others); here systemctl is replaced by a program with a known answer.
"""

from __future__ import annotations

import datetime
import importlib.util
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = ROOT / "roles/xen_host/files/service_age.py"


def stamp(moment: float) -> str:
    return datetime.datetime.fromtimestamp(moment, datetime.timezone.utc).strftime(
        "%a %Y-%m-%d %H:%M:%S.%f UTC"
    )


@pytest.fixture
def age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The program's answer if systemctl says this: ``age(state, pid, start, *paths)``."""
    spec = importlib.util.spec_from_file_location("service_age", PROGRAM)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    systemctl = tmp_path / "bin/systemctl"
    systemctl.parent.mkdir()
    monkeypatch.setenv("PATH", f"{systemctl.parent}:{os.environ['PATH']}")

    def ask(state: str, pid: int, start: str, *paths: object, code: int = 0) -> str:
        text = f"ActiveState={state}\nMainPID={pid}\nExecMainStartTimestamp={start}\n"
        systemctl.write_text(f"#!/bin/sh\ncat <<'end'\n{text}end\nexit {code}\n", encoding="ascii")
        systemctl.chmod(0o755)
        answer: str = module.age("x.service", paths)
        return answer

    return ask


def test_older_or_newer_than_a_file(age, tmp_path):
    file, link, none = tmp_path / "file", tmp_path / "link", tmp_path / "none"
    file.touch()
    link.symlink_to(none)
    # As a copying tool does, which keeps mtime.
    os.utime(file, (0, 0))
    now = time.time()
    for path in (file, link):
        assert age("active", 5, stamp(now - 0.5), none, path) == "older"
        assert age("active", 5, stamp(now + 0.5), none, path) == "newer"
    assert age("active", 5, stamp(now - 9), none) == "newer"
    # A start in a second that has just begun.
    assert age("active", 5, "Thu 2026-01-01 00:00:00 UTC", file) == "older"


@pytest.mark.parametrize(
    "state, answer", [("failed", "failed"), ("inactive", "stopped"), ("activating", "stopped")]
)
def test_services_that_do_not_run(age, tmp_path, state, answer):
    (tmp_path / "file").touch()
    assert age(state, 0, "", tmp_path / "file") == answer


def test_what_could_not_be_looked_at_is_an_error(age, tmp_path):
    with pytest.raises(SystemExit, match="x.service: systemd was asked"):
        age("active", 5, stamp(0), code=1)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        age("active", 5, stamp(0), tmp_path / "file/below")
