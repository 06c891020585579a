# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""load-modules, with which roles load kernel modules. A program that says its words replaces modprobe."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("mode", ["--verbose", "--dry-run"])
def test_only_modules_that_are_not_loaded(tmp_path, mode):
    loaded = next(path.name for path in Path("/sys/module").iterdir() if "_" in path.name)
    modprobe = tmp_path / "modprobe"
    modprobe.write_text('#!/bin/sh\necho "$@"\n[ "$4" != bad ]\n', encoding="ascii")
    modprobe.chmod(0o755)

    def load(*modules: str) -> tuple[int, str]:
        text = (ROOT / "roles/xen_host/files/load-modules").read_text(encoding="utf-8")
        done = subprocess.run(
            ["sh", "-ec", text, "load", mode, *modules],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
            env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        )
        return done.returncode, done.stdout

    assert load() == load(loaded, loaded.replace("_", "-")) == (0, "")
    assert load(loaded, "racefree-none") == (0, f"--verbose {mode} -- racefree-none\n")
    assert load("bad", "more") == (1, f"--verbose {mode} -- bad\n")
