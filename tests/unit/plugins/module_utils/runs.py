# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Runs of modules in separate processes, like Ansible's, but forked, so that a test can have hundreds of them.
"""

from __future__ import annotations

import json
import os
import signal
import sys

from ansible.module_utils.testing import patch_module_args


class Run:
    """A module's ``main`` at work with these arguments; ``before`` is called in its process first."""

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
        Wait for the end of the run. ``result`` is what Ansible would get, None if the run was killed before.
        """
        with open(self._reading, "rb") as pipe:
            text = pipe.read().decode(errors="replace").strip()
        self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        if self.status not in (0, 1, -signal.SIGKILL):
            raise AssertionError(f"exit code {self.status}: {text}")
        self.result = json.loads(text.splitlines()[-1]) if text else None
        return self


def run(main, arguments, **options):
    """What Ansible would get of a run that is waited for."""
    return Run(main, arguments, **options).wait().result


def at_once(main, *arguments):
    """What Ansible would get of runs that begin at once, one for each of ``arguments``."""
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
