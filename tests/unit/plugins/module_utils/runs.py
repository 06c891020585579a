# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Run modules in separate processes, as Ansible does, but forked, so that a test can make hundreds of runs.
"""

from __future__ import annotations

import json
import os
import signal
import sys

from ansible.module_utils.testing import patch_module_args


class Run:
    """A running ``main`` of a module with these arguments. ``before`` is called first in its process."""

    def __init__(self, main, arguments, check=False, before=None):
        reading, writing = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(reading)
            _run(
                main, dict(arguments, _ansible_check_mode=check, _ansible_remote_tmp="/tmp"), writing, before
            )
        os.close(writing)
        self._reading = reading
        self.status = None
        self.result = None

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)

    def wait(self):
        """
        Wait for the end of the run. ``result`` is what Ansible would get; None if the run was killed before
        it printed a result.
        """
        with open(self._reading, "rb") as pipe:
            text = pipe.read().decode(errors="replace").strip()
        self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        if self.status not in (0, 1, -signal.SIGKILL):
            raise AssertionError(f"exit code {self.status}: {text}")
        self.result = json.loads(text.splitlines()[-1]) if text else None
        return self


def run(main, arguments, **options):
    """Run a module and wait for it; returns what Ansible would get."""
    return Run(main, arguments, **options).wait().result


def at_once(main, *arguments):
    """Start one run for each of ``arguments`` at the same time; returns what Ansible would get from each."""
    return [started.wait().result for started in [Run(main, each) for each in arguments]]


def _run(main, arguments, writing, before):
    """In the child; never returns."""
    code = 99
    try:
        os.dup2(writing, 1)
        os.close(writing)
        os.dup2(os.open(os.devnull, os.O_RDWR), 2)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        if before is not None:
            before()
        with patch_module_args(arguments):
            main()
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException as error:  # pylint: disable=broad-exception-caught
        print(f"{type(error).__name__}: {error}")
    finally:
        sys.stdout.flush()
        os._exit(code)
