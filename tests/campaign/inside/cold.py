# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Run a module as a separate program, as Ansible does. Called by victim.ColdRun with the task as JSON.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys

sys.path[:0] = [os.environ.get("RACEFREE_SITE", "/root/site")]

from ansible.module_utils.testing import patch_module_args


def main() -> None:
    order = json.loads(sys.argv[1])
    module = importlib.import_module(f"ansible_collections.racefree.block.plugins.modules.{order['module']}")
    with patch_module_args(order["arguments"]):
        signal.alarm(order["seconds"])
        if order["traced"]:
            ctypes.CDLL(None).ptrace(0, 0, None, None)
            os.kill(os.getpid(), signal.SIGSTOP)
        module.main()


if __name__ == "__main__":
    main()
