# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
An Ansible callback: writes what each task took into the file that RACEFREE_TASK_SECONDS names, one JSON list
for each task: its name, the seconds from its start to its result, the seconds of processor time of all
processes, and whether it changed something.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import time

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: task_seconds
type: aggregate
short_description: Writes how long each task took
description: Writes how long each task took, for measurements.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "task_seconds"

    def __init__(self):
        super().__init__()
        self._began, self._before, self._line = 0.0, 0.0, None
        self._file = open(os.environ["RACEFREE_TASK_SECONDS"], "a", encoding="utf-8")

    def v2_playbook_on_task_start(self, task, is_conditional):
        self._write()
        self._before, self._began = _processor(), time.monotonic()

    def v2_runner_on_ok(self, result):
        seconds = time.monotonic() - self._began
        self._line = [result.task.get_name(), round(seconds, 5), bool(result.result.get("changed"))]

    def v2_playbook_on_stats(self, stats):
        self._write()

    def _write(self):
        """Write the task before this one: only now its process has ended, and its processor time is known."""
        if self._line is None:
            return
        limit = time.monotonic() + 10
        while multiprocessing.active_children() and time.monotonic() < limit:
            time.sleep(0.002)
        name, seconds, changed = self._line
        print(json.dumps([name, seconds, _processor() - self._before, changed]), file=self._file, flush=True)
        self._line = None


def _processor():
    """Seconds of this process and of all that have ended below it."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in both)
