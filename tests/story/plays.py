# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Runs the playbooks of the story with ansible-playbook.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass, field

import host
from places import HERE, VARIABLES, playbook

# What tests/story/run brings along: ansible-core, and what modules import that the system does not have.
PYTHONPATH = "/opt/ansible:/opt/python"
COLLECTIONS = "/root/site:/opt/community"
SECONDS = 300


@dataclass
class Played:
    """What a run of a playbook did."""

    seconds: float
    code: int
    # [name of the task, ok, changed, skipped or failed, message]
    tasks: list[list[str]] = field(default_factory=list)

    def did(self, what):
        return [name for name, done, _text in self.tasks if done == what]

    @property
    def ran(self):
        """The number of tasks that were not skipped."""
        return len(self.tasks) - len(self.did("skipped"))

    @property
    def said(self):
        """``ok``, or the task that failed and why."""
        failed = [(name, text) for name, done, text in self.tasks if done == "failed"]
        if failed:
            return ": ".join(failed[-1])
        return "ok" if self.code == 0 else f"ended with {self.code}"


def play(way, phase, stop=None, before=None):
    """
    Run a playbook. ``stop``: the task after which the play is killed; ``before``: ``(task, act)``, what
    somebody else does before a task starts. Whatever a killed play has left running is killed, too.
    """
    tag = f"RACEFREE_STORY_TAG={uuid.uuid4()}"
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        log = os.path.join(folder, "log")
        environment = dict(
            os.environ,
            PYTHONPATH=PYTHONPATH,
            ANSIBLE_HOME="/var/tmp/ansible",
            ANSIBLE_CALLBACK_PLUGINS=HERE,
            ANSIBLE_CALLBACKS_ENABLED="between",
            ANSIBLE_COLLECTIONS_PATH=COLLECTIONS,
            ANSIBLE_LOCALHOST_WARNING="0",
            ANSIBLE_INVENTORY_UNPARSED_WARNING="0",
            ANSIBLE_NOCOLOR="1",
            # Modules are sent through a pipe, which saves some processes for each task.
            ANSIBLE_PIPELINING="1",
            RACEFREE_STORY_LOG=log,
            RACEFREE_STORY_STOP=stop or "",
            RACEFREE_STORY_BEFORE=json.dumps(_order(before)),
        )
        name, _equals, value = tag.partition("=")
        environment[name] = value
        variables = dict(VARIABLES, ansible_python_interpreter="/usr/bin/python3")
        command = [sys.executable, "-m", "ansible", "playbook", "--extra-vars", json.dumps(variables)]
        command.append(str(playbook(way, phase)))
        began = time.monotonic()
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        played = Played(round(time.monotonic() - began, 2), done.returncode)
        with contextlib.suppress(FileNotFoundError), open(log, encoding="utf-8") as file:
            played.tasks = [json.loads(line) for line in file]
    if before:
        acts = [task for task in played.tasks if task[0] is None]
        if acts != [[None, "before", 0]]:
            raise SystemExit(f"{way} {phase}: {before} did not happen: {acts}, {done.stdout}{done.stderr}")
        played.tasks = [task for task in played.tasks if task[0] is not None]
    if stop:
        host.kill_tagged(tag)
        if played.code != -9:
            raise SystemExit(f"{way} {phase} was not killed after {stop}: {done.stdout}{done.stderr}")
    elif not played.tasks:
        raise SystemExit(f"{way} {phase} did not run: {done.stdout}{done.stderr}")
    return played


def has_task(way, phase, name):
    return f"- name: {name}\n" in playbook(way, phase).read_text(encoding="utf-8")


def _order(before):
    if before is None:
        return None
    task, act = before
    return [task, [sys.executable, "-B", os.path.join(HERE, "host.py"), act]]
