# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
An Ansible callback: writes each task's result into the file that RACEFREE_STORY_LOG names, one JSON list for
each: its name, what it did (ok, changed, skipped or failed), and the message of a failure.

RACEFREE_STORY_STOP is the name of a task: when that has ended, the play kills itself. RACEFREE_STORY_BEFORE
is a JSON list of the name of a task and a command, which runs before that task starts; its exit code is
written down as well.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: between
type: aggregate
short_description: Acts between two tasks
description: Writes down what each task did, and kills the play or runs a command between two tasks.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "between"

    def __init__(self):
        super().__init__()
        self._file = open(os.environ["RACEFREE_STORY_LOG"], "a", encoding="utf-8")
        self._stop = os.environ.get("RACEFREE_STORY_STOP")
        self._before = json.loads(os.environ.get("RACEFREE_STORY_BEFORE") or "null")

    def v2_playbook_on_task_start(self, task, is_conditional):
        if self._before and task.get_name() == self._before[0]:
            done = subprocess.run(self._before[1], check=False, stdin=subprocess.DEVNULL)
            print(json.dumps([None, "before", done.returncode]), file=self._file, flush=True)

    def v2_runner_on_ok(self, result):
        self._ended(result, "changed" if result.result.get("changed") else "ok")

    def v2_runner_on_skipped(self, result):
        self._ended(result, "skipped")

    def v2_runner_on_failed(self, result, ignore_errors=False):
        text = " ".join(str(result.result.get(name) or "") for name in ("msg", "stderr"))
        self._ended(result, "failed", text.strip())

    def _ended(self, result, what, text=""):
        name = result.task.get_name()
        print(json.dumps([name, what, text]), file=self._file, flush=True)
        if name == self._stop:
            os.kill(os.getpid(), signal.SIGKILL)
