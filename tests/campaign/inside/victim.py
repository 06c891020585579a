# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Modules as victims: each run whole, with its own main(), in a child that can be stopped, killed or lied to.

A run ends with what the module answered, or with None when it could not answer any more.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import signal
import tempfile

from ansible.module_utils.testing import patch_module_args
from ansible_collections.racefree.block.plugins.module_utils._module import worker

MODULES = "ansible_collections.racefree.block.plugins.modules."
# Seconds after which a run counts as hanging: longer than the 60 that it may wait for udev, or for another run.
HANGING = 150
NAMES = (
    "loop_device",
    "loop_devices",
    "dm_device",
    "dm_devices",
    "thin_volumes",
    "snapshot_stores",
    "kernel_key",
)


def load_all():
    """Import what the victims will need, so that what is traced begins with the module's main()."""
    for name in NAMES:
        importlib.import_module(MODULES + name)


class Run:
    """
    One run of a module: ``body`` is what the child does. ``answer`` after it has ended: the module's result,
    or None.
    """

    def __init__(self, module, arguments, check=False):
        self.module = importlib.import_module(MODULES + module)
        self.arguments = dict(arguments, _ansible_check_mode=check, _ansible_remote_tmp="/tmp")
        self.output = tempfile.TemporaryFile()

    def body(self):
        signal.alarm(HANGING)
        # It is this process that is stopped, killed and lied to.
        worker.IN_PROCESS = True
        output = io.StringIO()
        with (
            patch_module_args(self.arguments),
            contextlib.redirect_stdout(output),
            contextlib.suppress(SystemExit),
        ):
            self.module.main()
        os.write(self.output.fileno(), output.getvalue().encode())
        return 0

    def plainly(self):
        """Run it untouched; the answer."""
        child = os.fork()
        if not child:
            code = 1
            try:
                code = self.body()
            finally:
                os._exit(code)
        os.waitpid(child, 0)
        return self.answer()

    def answer(self):
        """What the module said; None when it said nothing, or only a part."""
        self.output.seek(0)
        lines = self.output.read().decode(errors="replace").strip().splitlines()
        with contextlib.suppress(IndexError, ValueError):
            return json.loads(lines[-1])
        return None


def run(module, check=False, **arguments):
    """The answer of an untouched run."""
    return Run(module, arguments, check).plainly()


def is_ok(answer):
    return answer is not None and not answer.get("failed")


def words(answer):
    """What a failed run said, short."""
    return "no answer" if answer is None else str(answer.get("msg"))[:200]
