# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What an image is made of, as plain data, and its hash: a change of any of it makes a new image beside the old one.

``Recipe.blkback`` names the xen-blkback module of the image: "stock" is the kernel package's own. Another variant adds its packages to
``packages`` and its own script to ``scripts``; all of that is in the hash, so that variants are images of their own.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from lib import paths

RELEASES = ("bookworm", "trixie")
BLKBACKS = ("stock",)

BASE_PACKAGES = (
    # a machine that boots and takes commands
    "linux-image-amd64", "initramfs-tools", "systemd-sysv", "udev", "kmod", "openssh-server", "iproute2", "procps", "psmisc", "rsync", "tar",
    # Xen and libvirt
    "xen-system-amd64", "xenstore-utils", "libvirt-daemon-system", "libvirt-daemon-driver-xen", "libvirt-clients",
    # what the collection needs on a host
    "python3", "python3-cffi", "python3-pyxs", "python3-libvirt",
    # block devices
    "dmsetup", "cryptsetup-bin", "thin-provisioning-tools", "e2fsprogs", "util-linux", "keyutils",
    # tests on the host, and the small guests
    "python3-pytest", "python3-hypothesis", "strace", "busybox-static", "cpio", "xz-utils", "zstd",
)
EXTRA_PACKAGES = {"bookworm": (), "trixie": ()}


@dataclass(frozen=True)
class Recipe:
    release: str
    blkback: str = "stock"
    disk_bytes: int = 6 * 1024 ** 3
    version: int = 1

    @property
    def packages(self):
        return BASE_PACKAGES + EXTRA_PACKAGES[self.release]

    @property
    def scripts(self):
        """Scripts of image/ that run in the new system, in this order; the first gets the packages as its arguments."""
        return ("packages.sh", "setup.sh", "guest/make-initramfs.sh")

    @cached_property
    def key(self):
        """Taken once: an edit of the files during a build must not change the name of what is being built."""
        digest = hashlib.sha256(json.dumps([asdict(self), self.packages, self.scripts]).encode())
        for path, mode, content in image_files(paths.IMAGE_FILES):
            digest.update(json.dumps([path, mode, hashlib.sha256(content).hexdigest()]).encode())
        return digest.hexdigest()[:12]

    @property
    def title(self):
        return self.release if self.blkback == "stock" else f"{self.release}, {self.blkback} blkback"

    @property
    def directory(self):
        return paths.cache() / f"{self.release}-{self.key}"


def image_files(root):
    """(relative path, is executable, content) of each file below ``root``, in a fixed order."""
    for path in sorted(Path(root).rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield str(path.relative_to(root)), bool(path.stat().st_mode & 0o100), path.read_bytes()
