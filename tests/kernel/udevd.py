# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The udevd of a test kernel whose init system is not systemd.
"""

from __future__ import annotations

import subprocess
import time

CONTROL = "/run/udev/control"
_PROGRAM = "/usr/lib/systemd/systemd-udevd"
_SECONDS = 30


def start() -> None:
    """
    Start it and wait until it answers: the program returns before that, and a question asked at once would be
    refused.
    """
    subprocess.run([_PROGRAM, "--daemon"], check=True, stderr=subprocess.DEVNULL)
    end = time.monotonic() + _SECONDS
    while subprocess.run(
        ["udevadm", "control", "--ping", f"--timeout={_SECONDS}"], check=False, capture_output=True
    ).returncode:
        assert time.monotonic() < end, f"udevd does not answer within {_SECONDS} s"
        time.sleep(0.02)


def stop() -> None:
    """Tell it to end, and wait until it has."""
    subprocess.run(["udevadm", "control", "--exit", f"--timeout={_SECONDS}"], check=True)
