# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Apply roles and playbooks of the collection to this system, and see what they have changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

# The newest ansible-core, for this system's Python (tests/setup/controller).
ANSIBLE = "/opt/ansible"
_NO_INVENTORY = (
    "[WARNING]: No inventory was parsed, only implicit localhost is available\n"
    "[WARNING]: provided hosts list is empty, only localhost is available. Note that the implicit "
    "localhost does not match 'all'\n"
)


def play_role(
    directory: Path,
    role: str,
    check: bool = False,
    variables: Mapping[str, object] | None = None,
    timeout: float = 900,
) -> subprocess.CompletedProcess[str]:
    """Apply ``racefree.block.ROLE`` to localhost, as ``run_playbook``."""
    include = {"name": f"racefree.block.{role}"}
    tasks = [{"name": "Role", "ansible.builtin.include_role": include, "vars": dict(variables or {})}]
    text = [{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}]
    path = directory / "play.yml"
    path.write_text(json.dumps(text), encoding="utf-8")
    return run_playbook(directory, *(["--check"] if check else []), str(path), timeout=timeout)


def run_playbook(directory: Path, *words: str, timeout: float = 900) -> subprocess.CompletedProcess[str]:
    """
    Run ansible-playbook with these arguments; ``directory`` is for Ansible's files. Skips the test where
    Ansible is missing. Fails the test if Ansible has warned and the play has succeeded.
    """
    if not os.path.isdir(ANSIBLE):
        pytest.skip("Ansible is not there: tests/kernel/run --systemd brings it along")
    done = subprocess.run(
        ["python3", "-m", "ansible", "playbook", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env=dict(
            os.environ,
            PYTHONPATH=ANSIBLE,
            ANSIBLE_COLLECTIONS_PATH="/root/site",
            ANSIBLE_HOME=str(directory),
            ANSIBLE_NOCOLOR="1",
            # Modules are sent through a pipe, which saves some processes for each task.
            ANSIBLE_PIPELINING="1",
        ),
    )
    if done.returncode == 0:
        assert "[WARNING]" not in done.stderr.replace(_NO_INVENTORY, ""), done.stderr
    return done


def changes(done: subprocess.CompletedProcess[str]) -> set[str]:
    """The names of the tasks that changed something in a play, which must have succeeded."""
    assert done.returncode == 0, done.stdout + done.stderr
    return changed_tasks(done.stdout)


def changed_tasks(output: str) -> set[str]:
    """The names of the tasks that changed something, checked against the recap."""
    names, task = set(), ""
    for line in output.splitlines():
        found = re.match(r"TASK \[(?:\S+ : )?(.*?)\]", line)
        task = found.group(1) if found else task
        if line.startswith("changed:"):
            names.add(task)
    recap = re.search(r" changed=([0-9]+) ", output)
    assert recap is not None and bool(names) == (recap.group(1) != "0"), output
    return names


@contextlib.contextmanager
def failing(directory: Path, tool: str, *first: str) -> Iterator[None]:
    """
    In this block, calls of ``tool`` fail whose words begin with one of ``first``, also in plays. The program
    that replaces it is made in ``directory``.
    """
    bins, before = directory / "failing", os.environ["PATH"]
    bins.mkdir(exist_ok=True)
    patterns = "|".join(f"'{words}'*" for words in first)
    text = f'#!/bin/sh\ncase "$*" in {patterns}) exit 1 ;; esac\nexec {shutil.which(tool)} "$@"\n'
    (bins / tool).write_text(text, encoding="ascii")
    (bins / tool).chmod(0o755)
    os.environ["PATH"] = f"{bins}:{before}"
    try:
        yield
    finally:
        os.environ["PATH"] = before


def main_pid(service: str) -> int:
    """The main process of a running service, or 0."""
    command = ["systemctl", "show", "--value", "--property=MainPID", service]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def run_libvirtd() -> None:
    """Start libvirt's daemon, so that it does not end when it has nothing to do, as Debian's does."""
    more = Path("/run/systemd/system/libvirtd.service.d/stays.conf")
    more.parent.mkdir(parents=True, exist_ok=True)
    more.write_text("[Service]\nEnvironment=LIBVIRTD_ARGS=\n", encoding="ascii")
    for words in (["daemon-reload"], ["restart", "libvirtd"]):
        subprocess.run(["systemctl", *words], check=True, timeout=120)


def switch_again(link: str) -> None:
    """Replace a link by an equal one, as the last that a play did before it was ended."""
    os.symlink(os.readlink(link), f"{link}.new")
    os.replace(f"{link}.new", link)


def files() -> dict[str, object]:
    """``{path: (mode, what is in it)}`` of all files that a role may touch."""
    found: dict[str, object] = {}
    for top in ("/etc", "/usr/local", "/var/lib/dpkg/diversions"):
        for path in [Path(top), *Path(top).rglob("*")]:
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                found[str(path)] = os.readlink(path)
            elif stat.S_ISREG(mode):
                found[str(path)] = stat.S_IMODE(mode), hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                found[str(path)] = stat.S_IMODE(mode)
    return found


def files_but_libvirts() -> dict[str, object]:
    """As :func:`files`, without those that libvirt writes when it starts."""
    return {
        path: entry
        for path, entry in files().items()
        if not path.startswith("/etc/libvirt/") or path.startswith("/etc/libvirt/hooks/")
    }
