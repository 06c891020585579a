# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real xenstored for tests on a machine without Xen (see tests/xenstored)."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

SETUP = pathlib.Path(__file__).resolve().parents[3] / "xenstored" / "setup"


class Xenstored:
    """The daemon, in its own directory. ``socket`` is the path of its socket."""

    def __init__(self, *options):
        made = subprocess.run([str(SETUP)], stdout=subprocess.PIPE, check=True, timeout=300)
        self.programs = pathlib.Path(made.stdout.decode().strip())
        # Socket paths are limited to 107 bytes, and pytest's directories are too deep.
        self.directory = tempfile.mkdtemp(prefix="xenstored-")
        self.socket = os.path.join(self.directory, "socket")
        self.options = options
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self.stop()
        shutil.rmtree(self.directory)

    def start(self):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket)
        self.process = subprocess.Popen(
            [
                str(self.programs / "xenstored"),
                "--no-fork",
                "--pid-file",
                os.path.join(self.directory, "pid"),
                *self.options,
            ],
            env={
                "PATH": "/usr/bin:/bin",
                "XENSTORED_RUNDIR": self.directory,
                "XENSTORED_ROOTDIR": self.directory,
                "LD_LIBRARY_PATH": str(self.programs / "lib"),
                "LD_PRELOAD": str(self.programs / "nohypervisor.so"),
            },
            stdin=subprocess.DEVNULL,
            cwd=self.directory,
        )
        end = time.monotonic() + 20
        while not self._listens():
            assert self.process.poll() is None, "xenstored ended at once"
            assert time.monotonic() < end, "xenstored made no socket"
            time.sleep(0.02)

    def _listens(self):
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(self.socket)
            except OSError:
                return False
            return True

    def stop(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)
