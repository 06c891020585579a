# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role guest_disks with real files, and tasks that only say what they would ask of libvirt."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
import yaml

ROLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "roles", "guest_disks")


@pytest.fixture
def role(tmp_path):
    """Runs the tasks for guests; the names of the tasks that did something in order, what libvirt was asked for, and how many have changed."""
    with open(os.path.join(ROLE, "tasks", "main.yml"), encoding="utf-8") as file:
        tasks = yaml.safe_load(file)
    for task in tasks:
        if "racefree.block.libvirt_disks" in task:
            asked = task.pop("racefree.block.libvirt_disks")
            task["ansible.builtin.debug"] = {"msg": "ASKED {{ asked | to_json | b64encode }}"}
            task["vars"] = dict(task["vars"], asked=asked["disks"])
    with open(os.path.join(ROLE, "vars", "main.yml"), encoding="utf-8") as file, open(os.path.join(ROLE, "defaults", "main.yml"), encoding="utf-8") as other:
        variables = dict(yaml.safe_load(other) or {}, **(yaml.safe_load(file) or {}))

    def run(disks, *options, fails=False):
        guests = [{"domain": "g", "disks": disks}]
        play = [{"hosts": "localhost", "gather_facts": False, "vars": dict(variables, guest_disks_guests=guests), "tasks": tasks}]
        book = tmp_path / "play.yml"
        book.write_text(json.dumps(play))
        done = subprocess.run(
            [sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}", *options, str(book)],
            capture_output=True, text=True, check=False, timeout=120, env={**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"},
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return Done(done.stdout)

    return run


class Done:

    def __init__(self, text):
        self.text = text
        self.names = re.findall(r"^TASK \[(.*?)\]", text, re.MULTILINE)
        self.changed = int(re.search(r"changed=(\d+)", text).group(1))


def test_links_are_followed_and_files_grow(role, tmp_path):
    """The size is the file's, not the link's, which is a few bytes."""
    real, link = tmp_path / "real.raw", tmp_path / "link.raw"
    real.write_bytes(b"x" * 2**20)
    link.symlink_to(real)
    assert "lose data" in role([{"vdev": "xvda", "file": str(link), "size": 4096}], fails=True).text
    assert role([{"vdev": "xvda", "file": str(link), "size": "1M"}]).changed == 0
    assert role([{"vdev": "xvda", "file": str(link), "size": "2M"}]).changed == 1
    assert link.is_symlink() and real.stat().st_size == 2**21 and real.read_bytes()[:2**20] == b"x" * 2**20


def test_a_file_that_has_grown_meanwhile_is_not_cut(role, tmp_path):
    """The size that is asked for is the least, whatever was found before."""
    with open(os.path.join(ROLE, "tasks", "main.yml"), encoding="utf-8") as file:
        task, = [task for task in yaml.safe_load(file) if "truncate" in str(task.get("ansible.builtin.command"))]
    path = tmp_path / "a.raw"
    path.write_bytes(b"x" * 8192)
    subprocess.run([word.replace("{{ item.size }}", "4096").replace("{{ item.path }}", str(path)) for word in task["ansible.builtin.command"]["argv"]], check=True)
    assert path.stat().st_size == 8192
