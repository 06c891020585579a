# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files to and from a host, with tar over the shared ssh connection."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

from common.errors import Failed, Problem


def push(remote, source, destination):
    """
    Copy a file to the path ``destination``, or the contents of a directory into the directory
    ``destination``. Modes and times are kept.
    """
    source = Path(source)
    if not source.exists():
        raise Problem(f"{source} is not there")
    target = shlex.quote(destination)
    if source.is_dir():
        with remote.popen(
            f"mkdir -p {target} && tar -xp --no-same-owner --warning=no-timestamp -C {target}",
            stdin=subprocess.PIPE,
        ) as ssh:
            tar = subprocess.run(
                ["tar", "-c", "-C", str(source), "--exclude=__pycache__", "."], stdout=ssh.stdin, check=False
            )
            ssh.stdin.close()
            code = tar.returncode or ssh.wait()
    else:
        mode = f"{source.stat().st_mode & 0o7777:o}"
        with (
            open(source, "rb") as file,
            remote.popen(f"cat > {target} && chmod {mode} {target}", stdin=file) as ssh,
        ):
            code = ssh.wait()
    if code:
        raise Failed(f"{source} was not copied to the host's {destination}: exit code {code}")


def pull(remote, source, destination):
    """
    Copy a file or directory ``source`` of the host to the path ``destination``, which must not exist, or be a
    directory.
    """
    destination = Path(destination)
    code, _text = remote.capture(f"test -d {shlex.quote(source)}", 60)
    if code == 0:
        destination.mkdir(parents=True, exist_ok=True)
        with remote.popen(f"tar -c -C {shlex.quote(source)} .", stdout=subprocess.PIPE) as ssh:
            tar = subprocess.run(
                ["tar", "-xp", "--no-same-owner", "-C", str(destination)], stdin=ssh.stdout, check=False
            )
            ssh.stdout.close()
            code = tar.returncode or ssh.wait()
    else:
        if destination.is_dir():
            destination = destination / Path(source).name
        with open(destination, "wb") as file, remote.popen(f"cat {shlex.quote(source)}", stdout=file) as ssh:
            code = ssh.wait()
        if code:
            destination.unlink()
    if code:
        raise Failed(f"the host's {source} was not copied to {destination}: exit code {code}")
