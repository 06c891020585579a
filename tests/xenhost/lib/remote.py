# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ssh to a host, with one connection that all commands share."""

from __future__ import annotations

import os
import subprocess
import time

from common import needs
from common.errors import Failed

SSH_FAILED = 255


class Remote:
    """
    ``sockets`` is the directory of the shared connection's socket.

    The host's key is known from the build of its image, and is looked up under the image's name. So another
    program on the same port is refused, without a question.
    """

    def __init__(self, recipe, port, sockets):
        self.recipe = recipe
        self.port = port
        self.sockets = sockets

    def options(self):
        return [
            "-F",
            "/dev/null",
            "-o",
            f"HostKeyAlias={self.recipe.host_key_alias}",
            "-o",
            f"UserKnownHostsFile={self.recipe.directory / 'known_hosts'}",
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "PreferredAuthentications=publickey",
            "-o",
            f"ControlPath={self.sockets / 'ssh'}",
            "-o",
            "ControlMaster=auto",
            "-o",
            "ControlPersist=yes",
            "-o",
            "LogLevel=ERROR",
            "-o",
            "ConnectTimeout=60",
            "-o",
            "ServerAliveInterval=60",
            "-o",
            "ServerAliveCountMax=10",
            "-o",
            "KexAlgorithms=curve25519-sha256",
            "-o",
            "Compression=no",
        ]

    @property
    def key_file(self):
        return self.recipe.directory / "id_ed25519"

    def argv(self, command, *more):
        """``command`` is shell text, or None for a login shell."""
        argv = [
            "ssh",
            *self.options(),
            "-i",
            str(self.key_file),
            "-p",
            str(self.port),
            *more,
            "root@127.0.0.1",
        ]
        return argv if command is None else [*argv, "--", command]

    def _environment(self):
        self.sockets.mkdir(parents=True, exist_ok=True, mode=0o700)
        return dict(os.environ, PATH=needs.SEARCH)

    def run(self, command, terminal=False):
        """Run it with the input and output of this process; returns the exit code."""
        return subprocess.run(
            self.argv(command, *(["-t"] if terminal else [])), env=self._environment(), check=False
        ).returncode

    def popen(self, command, **streams):
        return subprocess.Popen(self.argv(command), env=self._environment(), **streams)

    def capture(self, command, seconds, data=b""):
        """
        Returns (exit code, output, errors) of a command, as text; Failed after ``seconds``, or if ssh itself
        fails.
        """
        try:
            done = subprocess.run(
                self.argv(command),
                env=self._environment(),
                input=data,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"ssh: timed out after {seconds:g} s") from None
        text = done.stdout.decode(errors="replace").strip()
        if done.returncode == SSH_FAILED:
            raise Failed(f"ssh: {text or 'no connection'}")
        return done.returncode, text

    def refresh(self):
        """Set the clock of a restored host, and reseed its random numbers: both are those of the snapshot."""
        # RNDRESEEDCRNG (linux/random.h) makes the new bytes count at once; perl starts ten times faster than
        # Python.
        script = (
            f"date -s @{time.time() + 0.5:.1f} >/dev/null && "
            'perl -e \'binmode STDIN; read(STDIN, $b, 512); open(R, "+>", "/dev/urandom") or die; '
            "syswrite(R, $b); ioctl(R, 0x5207, 0) or die $!'"
        )
        code, text = self.capture(script, 90, os.urandom(512))
        if code:
            raise Failed(f"setting the restored host's clock: {text}")

    def close(self):
        """End the shared connection."""
        if (self.sockets / "ssh").exists():
            subprocess.run(
                self.argv(None, "-O", "exit"),
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=20,
                check=False,
            )
