# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tool that kills and stops processes at their system calls (tests/host/ptrace.py)."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time

import ptrace

# It says when it starts, and waits for another program, of whose end it learns only after the tracer.
PROGRAM = """
import subprocess, sys
print("ready", flush=True)
subprocess.run(["sleep", "1"], check=True)
"""


def test_a_new_process_of_a_killed_one_goes_on():
    """It must not stay stopped if its parent is killed before its first stop is reported."""
    for count in range(1, 8):
        ours, its = os.pipe()

        def fork_once(ours=ours):
            os.close(ours)
            os.fork()
            return 0

        ptrace.run_killed(fork_once, 0, count, every=True)
        os.close(its)
        assert select.select([ours], [], [], 20)[0] and os.read(ours, 1) == b"", count
        os.close(ours)


def test_a_program_of_a_killed_one_goes_on():
    """It is traced, with its own programs, until it makes its next system call."""
    ours, its = os.pipe()

    def start_it():
        os.close(ours)
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, pass_fds=[its]
        ) as program:
            program.stdout.readline()
            time.sleep(0.3)
            os.close(its)
            # Until it is killed.
            while True:
                os.sched_yield()

    assert ptrace.run_killed(start_it, 0, 5000, every=True)[0]
    os.close(its)
    assert select.select([ours], [], [], 20)[0] and os.read(ours, 1) == b""
    os.close(ours)
