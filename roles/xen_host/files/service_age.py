# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Whether a systemd service must be restarted to notice changed files: service_age.py UNIT PATH...

Prints one word:
``older``: its main process started before the last change of one of the files;
``newer``: it started after all changes;
``failed``: systemd has given it up;
``stopped``: it does not run for another reason, there is no such service, or no systemd.

A file's change time (ctime) is compared, which no copying tool can set. Both times were noted from the same
clock when they were now, so setting the clock later changes nothing. Links are not followed. A file that
does not exist was not changed: in check mode it is not there yet.

The roles block_names, kvm_host and xen_host run this on the host.
"""

from __future__ import annotations

import datetime
import os
import subprocess
import sys

STATE, PID, START = "ActiveState", "MainPID", "ExecMainStartTimestamp"


def service(unit):
    """The unit's properties as systemd has them, as ``{name: text}``."""
    done = subprocess.run(
        ["systemctl", "show", f"--property={STATE},{PID},{START}", "--timestamp=us+utc", "--", unit],
        capture_output=True,
        check=False,
        text=True,
        env=dict(os.environ, LC_ALL="C"),
    )
    if done.returncode:
        raise SystemExit(f"{unit}: systemd was asked whether it runs, and failed: {done.stderr.strip()}")
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def microseconds(stamp):
    """``Thu 2026-01-01 00:00:00.000001 UTC`` as microseconds since 1970."""
    _day, date, time, _zone = stamp.split()
    time = time if "." in time else f"{time}.0"
    moment = datetime.datetime.strptime(f"{date} {time} +0000", "%Y-%m-%d %H:%M:%S.%f %z")
    since = moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
    return since // datetime.timedelta(microseconds=1)


def changed(path):
    """When the file was changed last, in microseconds since 1970; 0 if it does not exist."""
    try:
        return os.lstat(path).st_ctime_ns // 1000
    except FileNotFoundError:
        return 0


def age(unit, paths):
    shown = service(unit)
    if shown[PID] == "0":
        return "failed" if shown[STATE] == "failed" else "stopped"
    start = microseconds(shown[START])
    return "older" if any(changed(path) >= start for path in paths) else "newer"


if __name__ == "__main__":
    # As sd_booted(3): without systemd the directory does not exist.
    print(age(sys.argv[1], sys.argv[2:]) if changed("/run/systemd/system") else "stopped")
