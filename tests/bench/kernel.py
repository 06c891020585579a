# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Runs a program of this directory on a kernel that runs as a process (tests/kernel): for machines without
device-mapper.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

_SITE = "/root/site"
_ANSIBLE = "/opt/ansible"
_UDEV = "systemd-udevd.service systemd-udevd-kernel.socket systemd-udevd-control.socket"
_REPORT = "/root/report.json"


def has_device_mapper() -> bool:
    """Whether this machine's kernel has device-mapper."""
    try:
        os.close(os.open("/dev/mapper/control", os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def run(
    checkout: str,
    program: str,
    words: list[str],
    report: Path | None,
    ansible: bool = False,
    seconds: int = 7200,
) -> None:
    """
    Run the program with the option ``--inside`` there, and keep its report here. With ``ansible``, systemd is
    the init system there, and ansible-core is there.

    udevd is stopped: on the one processor of that kernel it takes many times as long as what is measured.
    """
    kernel = os.path.join(checkout, "tests/kernel/kernel")
    with tempfile.TemporaryDirectory() as place:
        options = ["--site", "--timeout", str(seconds), "--push", f"{checkout}/tests/bench:{_SITE}/bench"]
        options += ["--pull", f"{_REPORT}:{place}/report.json"]
        stop = "udevadm control --exit"
        if ansible:
            options += ["--systemd", "--push", f"{_controller(checkout, kernel)}:{_ANSIBLE}"]
            options += ["--env", f"PYTHONPATH={_ANSIBLE}"]
            stop = f"systemctl stop {_UDEV}"
        # Without udevd, dmsetup would wait for it as long as its socket is there.
        stop += "; rm -f /run/udev/control"
        start = f'{stop}; exec python3 -B {_SITE}/bench/{program} --inside {_SITE} --report {_REPORT} "$@"'
        # The caller's own paths are of no use there.
        own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [kernel, "run", *options, "--", "sh", "-c", start, program, *words]
        subprocess.run(command, check=True, env=own)
        if report:
            report.parent.mkdir(parents=True, exist_ok=True)
            report.write_bytes(Path(place, "report.json").read_bytes())


def _controller(checkout: str, kernel: str) -> str:
    """A directory with ansible-core for that system's Python."""
    built = subprocess.run([kernel, "build"], stdout=subprocess.PIPE, text=True, check=True).stdout
    python = os.readlink(os.path.join(built.splitlines()[0], "root/usr/bin/python3"))
    command = [os.path.join(checkout, "tests/setup/controller"), python.removeprefix("python")]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
