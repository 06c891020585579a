# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What a tool needs on this machine: programs, privileges, archive keys, space and memory. Installs missing
programs with apt-get.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from common import program
from common.errors import Failed, Problem
from common.progress import say, step

# PATH may lack these if the tool is called from a user's environment.
SEARCH = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/local/sbin:/usr/sbin:/sbin"


def missing(*tables):
    """The packages of missing programs."""
    return sorted(
        {
            package
            for table in tables
            for needed, package in table.items()
            if not shutil.which(needed, path=SEARCH)
        }
    )


def keyring_for(release):
    """A keyring of debian-archive-keyring that has the release's keys, or None."""
    base = Path("/usr/share/keyrings")
    for suffix in ("pgp", "gpg"):
        ring = base / f"debian-archive-keyring.{suffix}"
        if ring.exists() and any(
            (base / f"debian-archive-{release}-automatic.{end}").exists() for end in ("pgp", "gpg")
        ):
            return ring
    return None


def apt_install(packages):
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive", PATH=SEARCH)
    for argv in (
        ["apt-get", "update", "-q"],
        ["apt-get", "install", "-q", "-y", "--no-install-recommends", *packages],
    ):
        done = subprocess.run(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Failed(
                f"{' '.join(argv)}: exit code {done.returncode}: "
                f"{' '.join(done.stdout.strip().splitlines()[-3:])}"
            )


def setup(tables, releases):
    """Install missing programs of ``tables`` and missing keys of the releases; needs root and apt-get."""
    packages = missing(*tables)
    if any(keyring_for(release) is None for release in releases):
        packages.append("debian-archive-keyring")
    if not packages:
        say("nothing is missing")
        return
    require_root("installing packages")
    if not shutil.which("apt-get", path=SEARCH):
        raise Problem("apt-get is missing: images can be built on Debian only")
    with step(f"installing {' '.join(packages)}"):
        apt_install(packages)
    still = missing(*tables)
    if still:
        raise Failed(f"still missing after the installation: {' '.join(still)}")
    for release in releases:
        require_keyring(release)


def require(*tables):
    packages = missing(*tables)
    if packages:
        raise Problem(
            f"missing on this machine: {' '.join(packages)}; run as root: {program.setup_command}, or "
            f"apt-get install {' '.join(packages)}"
        )


def require_keyring(release):
    ring = keyring_for(release)
    if ring is None:
        raise Problem(
            f"the archive keys of {release} are not on this machine; run as root: {program.setup_command}, "
            "or apt-get install debian-archive-keyring"
        )
    return ring


def require_root(purpose):
    if os.geteuid() != 0:
        raise Problem(f"{purpose} needs root: run it with sudo")


def require_space(directory, mebibytes, purpose):
    directory.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(directory).free // 2**20
    if free < mebibytes:
        raise Problem(
            f"{purpose} needs {mebibytes} MiB below {directory}, where {free} MiB are free: make room or set "
            f"{program.cache_variable()} to another directory"
        )


def require_memory(mebibytes, purpose):
    with open("/proc/meminfo", encoding="ascii") as file:
        available = next(int(line.split()[1]) // 1024 for line in file if line.startswith("MemAvailable:"))
    if available < mebibytes:
        raise Problem(f"{purpose} needs {mebibytes} MiB of memory, {available} MiB are available")
