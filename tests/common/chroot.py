# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The tree of a new system, and programs that run in it. Its mounts end with the namespace of the process that
makes them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from common import mirror, needs, tree
from common.errors import Failed

MOUNTS = (("proc", "proc"), ("sysfs", "sys"), ("devpts", "dev/pts"))


class Chroot:
    """The system is in ``work/root``; the output of programs goes to ``work/log``."""

    def __init__(self, work):
        self.work = Path(work)
        self.root = self.work / "root"

    def call(self, argv, **more):
        """Run a program; Failed with its last lines of output if it fails."""
        with open(self.work / "log", "ab") as log:
            log.write(f"\n$ {' '.join(argv)}\n".encode())
            log.flush()
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False, **more)
        if done.returncode:
            tail = (self.work / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()[-8:]
            raise Failed(
                f"{' '.join(argv[:4])} ...: exit code {done.returncode}; its last lines:\n  "
                + "\n  ".join(tail)
            )

    def debootstrap(self, release, address, keys=None):
        """
        The base system of ``release``, whose archive is signed with the keys of the release ``keys``
        (default: its own).
        """
        script = Path("/usr/share/debootstrap/scripts") / release
        if not script.exists():
            # All of Debian's later releases use one script, under different names.
            script = self.work / release
            script.symlink_to("/usr/share/debootstrap/scripts/sid")
        self.call(
            [
                "debootstrap",
                "--variant=minbase",
                f"--keyring={needs.require_keyring(keys or release)}",
                release,
                str(self.root),
                address,
                str(script),
            ],
            env=dict(os.environ, **mirror.proxy_environment()),
        )

    def prepare(self, sources, files):
        """
        Configure apt with ``sources`` (sources.list text), prevent services from starting, and put ``files``
        at /image.
        """
        apt = self.root / "etc/apt"
        (apt / "sources.list").write_text(sources, encoding="utf-8")
        (apt / "apt.conf.d/90build").write_text(
            mirror.apt_settings() + 'Acquire::Languages "none";\n', encoding="utf-8"
        )
        (self.root / "etc/dpkg/dpkg.cfg.d/90build").write_text(
            "force-unsafe-io\npath-exclude=/usr/share/man/*\npath-exclude=/usr/share/locale/*\n"
            "path-exclude=/usr/share/doc/*\n",
            encoding="utf-8",
        )
        policy = self.root / "usr/sbin/policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
        policy.chmod(0o755)
        shutil.copyfile("/etc/resolv.conf", self.root / "etc/resolv.conf")
        shutil.copytree(files, self.root / "image", ignore=shutil.ignore_patterns("__pycache__"))

    def mount(self):
        for kind, place in MOUNTS:
            self.call(["mount", "-t", kind, kind, str(self.root / place)])

    def unmount(self):
        for _kind, place in reversed(MOUNTS):
            self.call(["umount", str(self.root / place)])

    def run(self, script, *arguments):
        """Run ``script`` of the files that :meth:`prepare` was given."""
        proxies = mirror.proxy_environment()
        self.call(
            ["chroot", str(self.root), f"/image/{script}", *arguments],
            env=dict(
                proxies,
                PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                HOME="/root",
                LC_ALL="C",
            ),
        )

    def output(self, argv):
        """The output of a program that runs in it."""
        return subprocess.run(
            ["chroot", str(self.root), *argv], stdout=subprocess.PIPE, text=True, check=True
        ).stdout

    def strip(self):
        """Remove what only the build needed."""
        for left in ("image", "usr/sbin/policy-rc.d", "etc/apt/apt.conf.d/90build"):
            tree.remove_tree(self.root / left)
        for directory in ("var/lib/apt/lists", "var/cache/apt"):
            for path in (self.root / directory).iterdir():
                tree.remove_tree(path)
