# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Run the service of /dev/disk/by-diskseq for tests, at a private mount point and without systemd, and create
devices to be named.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

PACKAGE = "ansible_collections.racefree.block.plugins.module_utils._by_diskseq"
BLKGETDISKSEQ = 0x80081280
BLKPG, ADD, DELETE = 0x1269, 1, 2


class Service:
    """
    A running service: ``mount`` is its mount point, ``pid`` its process, ``errors`` the path of its standard
    error. ``prelude`` is Python code that it runs first.
    """

    prelude = ""

    def __init__(self, mount: str, state: str, options: tuple[str, ...], what: str = "by-diskseq") -> None:
        self.mount, self.state, self.options, self.what = mount, state, options, what
        self.errors = f"{state}.errors"
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [
            sys.executable,
            "-B",
            "-c",
            f"{self.prelude}\nimport sys; from {PACKAGE}.program import main; sys.exit(main(sys.argv[1:]))",
            self.what,
            "--mount",
            self.mount,
            "--state",
            self.state,
            *self.options,
        ]
        site = os.environ.get("RACEFREE_SITE", "/root/site")
        path = os.pathsep.join(filter(None, (site, os.environ.get("PYTHONPATH"))))
        with open(self.errors, "ab") as errors:
            self.process = subprocess.Popen(command, stderr=errors, env=dict(os.environ, PYTHONPATH=path))
        wait_for(lambda: self.process.poll() is not None or self.serves())
        assert self.process.poll() is None, self.said()

    def serves(self) -> bool:
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            if f" {self.mount} " not in file.read():
                return False
        try:
            return os.path.ismount(self.mount) and os.listdir(self.mount) is not None
        except OSError:
            # The mount of a killed service, which the new one replaces.
            return False

    @property
    def pid(self) -> int:
        return self.process.pid

    def said(self) -> str:
        with open(self.errors, encoding="utf-8") as file:
            return file.read()

    def path(self, name: object) -> str:
        return f"{self.mount}/{name}"

    def pins(self) -> list[str]:
        """The block devices that it has open, by node name."""
        found = []
        for fd in os.listdir(f"/proc/{self.pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                target = os.readlink(f"/proc/{self.pid}/fd/{fd}")
                if target.startswith("/dev/") and target not in ("/dev/fuse", "/dev/null"):
                    found.append(target.split(" ")[0])
        return sorted(found)

    def no_pins(self) -> bool:
        """Whether it holds nothing, within 20 seconds."""
        return wait_for(lambda: not self.pins(), fails=False)

    def let_go(self, diskseq: int) -> str:
        """Ask it to close a disk, as removals do; return its answer."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.settimeout(20)
            client.connect(f"{self.state}/socket")
            client.send(str(diskseq).encode("ascii"))
            return client.recv(64).decode("ascii")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Stop it and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


@contextlib.contextmanager
def service(
    *options: str, what: str = "by-diskseq", kind: type[Service] = Service, mount: str = ""
) -> Iterator[Service]:
    """A service with its state, and without ``mount`` its mount point, in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="names-", dir="/run") as place:
        mount = mount or f"{place}/mount"
        os.makedirs(mount, exist_ok=True)
        started = kind(mount, f"{place}/state", options, what)
        # Tests that run as other users need to enter this directory.
        os.chmod(place, 0o711)
        try:
            yield started
        finally:
            if started.process.poll() is None:
                started.stop()
            subprocess.run(["umount", "-q", "-l", mount], check=False)
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(mount)


def wait_for(condition, seconds: float = 20.0, fails: bool = True) -> bool:
    """
    Wait until the condition holds and return True. On timeout, raise AssertionError if ``fails``, otherwise
    return False.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            assert not fails, f"timed out after {seconds} s"
            return False
        time.sleep(0.01)
    return True


def diskseq_of(path: str) -> int:
    """The disk sequence number (BLKGETDISKSEQ) of the device at the path now."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        buffer = bytearray(8)
        fcntl.ioctl(fd, BLKGETDISKSEQ, buffer)
        return struct.unpack("=Q", buffer)[0]
    finally:
        os.close(fd)


def losetup(path: str, *options: str) -> str:
    """Attach the file to a new loop device and return its node."""
    return subprocess.run(
        ["losetup", "--find", "--show", *options, path], capture_output=True, text=True, check=True
    ).stdout.strip()


def add_partition(node: str, number: int, start: int, length: int) -> None:
    """
    BLKPG_ADD_PARTITION (include/uapi/linux/blkpg.h). Start and length in bytes. Used because not every kernel
    has a parser for partition tables.
    """
    _partition(node, ADD, number, start, length)


def delete_partition(node: str, number: int) -> None:
    """BLKPG_DEL_PARTITION."""
    _partition(node, DELETE, number)


def _partition(node: str, what: int, number: int, start: int = 0, length: int = 0) -> None:
    data = ctypes.create_string_buffer(struct.pack("qqi64s64s", start, length, number, b"", b""), 152)
    with open(node, "rb") as disk:
        fcntl.ioctl(disk, BLKPG, struct.pack("iiiP", what, 0, 152, ctypes.addressof(data)))
