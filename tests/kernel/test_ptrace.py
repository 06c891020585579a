# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tool that kills and stops processes at their system calls (tests/host/ptrace.py)."""

from __future__ import annotations

import os
import select

import ptrace


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
