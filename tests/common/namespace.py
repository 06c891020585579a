# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Work in a separate mount and process namespace. However its first process ends, all of its mounts and
processes end with it. It gets SIGKILL when this process dies.
"""

from __future__ import annotations

import os
import signal
import subprocess

from common import needs, program

UNSHARE = (
    "setpriv",
    "--pdeathsig",
    "KILL",
    "unshare",
    "--mount",
    "--propagation",
    "private",
    "--pid",
    "--fork",
    "--kill-child",
)


def start(argv, **more):
    """The started process. Its children find root's programs, and the cache of this program."""
    environment = dict(os.environ, PATH=needs.SEARCH)
    environment[program.cache_variable()] = str(program.cache())
    return subprocess.Popen([*UNSHARE, *argv], stdin=subprocess.DEVNULL, env=environment, **more)


def end(process):
    """Kill it and everything that it started; returns when it has ended."""
    process.send_signal(signal.SIGKILL)
    process.wait()


def run(argv, **more):
    """Wait for its exit code; it is killed if this process is interrupted."""
    process = start(argv, **more)
    try:
        return process.wait()
    except BaseException:
        end(process)
        raise
