# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Runs a play on this machine, and says how long each of its tasks took.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
# (seconds, seconds of processor time, whether it changed something)
Result = tuple[float, float, bool]


def run(tasks: list[dict[str, Any]], site: str, place: str) -> dict[str, list[Result]]:
    """
    The results of the tasks by their names, in the order in which they ran. Every task must succeed. ``site``
    has the collection, ``place`` is a directory for Ansible's own files.
    """
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}
    with tempfile.TemporaryDirectory(dir=place) as folder:
        path, times = os.path.join(folder, "play.yml"), os.path.join(folder, "times")
        with open(path, "w", encoding="utf-8") as file:
            json.dump([play], file)
        environment = dict(
            os.environ,
            ANSIBLE_CALLBACK_PLUGINS=HERE,
            ANSIBLE_CALLBACKS_ENABLED="task_seconds",
            ANSIBLE_COLLECTIONS_PATH=site,
            ANSIBLE_HOME=place,
            ANSIBLE_LOCALHOST_WARNING="0",
            ANSIBLE_INVENTORY_UNPARSED_WARNING="0",
            RACEFREE_TASK_SECONDS=times,
        )
        extra = ["--extra-vars", f"ansible_python_interpreter={sys.executable}"]
        command = [sys.executable, "-m", "ansible", "playbook", *extra, path]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"the play failed: {done.stdout[-3000:]}{done.stderr}")
        found: dict[str, list[Result]] = {}
        with open(times, encoding="utf-8") as file:
            for name, seconds, processor, changed in map(json.loads, file):
                found.setdefault(name, []).append((seconds, processor, changed))
    return found
