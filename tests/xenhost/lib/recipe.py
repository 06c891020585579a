# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The ingredients of an image, as plain data, and their hash: any change makes a new image beside the old one.

``Recipe.blkback`` names the xen-blkback module of the image: "stock" is the one of the kernel package. An
image with another module is made from the stock image (``Recipe.base``) and the files below blkback/. Only
its own hash includes these files, so the stock image stays when they change.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property

from common.tree import image_files

from lib import paths

RELEASES = ("bookworm", "trixie")
BLKBACKS = ("stock", "extended")

BASE_PACKAGES = (
    # a machine that boots and accepts commands
    "linux-image-amd64",
    "initramfs-tools",
    "systemd-sysv",
    "udev",
    "kmod",
    "openssh-server",
    "iproute2",
    "procps",
    "psmisc",
    "rsync",
    "tar",
    # Xen and libvirt
    "xen-system-amd64",
    "xenstore-utils",
    "libvirt-daemon-system",
    "libvirt-daemon-driver-xen",
    "libvirt-clients",
    # what the collection needs on a host
    "python3",
    "python3-cffi",
    "python3-pyxs",
    "python3-libvirt",
    "python3-pyfuse3",
    # block devices
    "dmsetup",
    "cryptsetup-bin",
    "thin-provisioning-tools",
    "e2fsprogs",
    "util-linux",
    "keyutils",
    # tests on the host, and the small guests
    "python3-pytest",
    "python3-hypothesis",
    "strace",
    "busybox-static",
    "cpio",
    "xz-utils",
    "zstd",
)
EXTRA_PACKAGES = {"bookworm": (), "trixie": ()}


@dataclass(frozen=True)
class Recipe:
    release: str
    blkback: str = "stock"
    disk_bytes: int = 6 * 1024**3
    version: int = 1

    @property
    def packages(self):
        return BASE_PACKAGES + EXTRA_PACKAGES[self.release]

    @property
    def scripts(self):
        """
        The scripts of image/ that run in the new system, in this order. The first one gets the packages as
        its arguments.
        """
        return ("packages.sh", "setup.sh", "guest/make-initramfs.sh")

    @cached_property
    def key(self):
        """Computed once: an edit of the files during a build must not change the name of the result."""
        digest = hashlib.sha256(json.dumps([asdict(self), self.packages, self.scripts]).encode())
        for path, mode, content in image_files(paths.IMAGE_FILES):
            digest.update(json.dumps([path, mode, hashlib.sha256(content).hexdigest()]).encode())
        if self.base:
            for path, mode, content in image_files(paths.BLKBACK_FILES):
                digest.update(
                    json.dumps(["blkback", path, mode, hashlib.sha256(content).hexdigest()]).encode()
                )
        return digest.hexdigest()[:12]

    @property
    def base(self):
        """The recipe of the image from which this one is made, or None."""
        return (
            None
            if self.blkback == "stock"
            else Recipe(self.release, disk_bytes=self.disk_bytes, version=self.version)
        )

    @property
    def title(self):
        return self.release if self.blkback == "stock" else f"{self.release}, {self.blkback} blkback"

    @property
    def directory(self):
        variant = "" if self.blkback == "stock" else f"-{self.blkback}"
        return paths.cache() / f"{self.release}{variant}-{self.key}"

    @property
    def host_key_alias(self):
        """The name under which ssh knows the host key of the image."""
        return f"xenhost-{self.key}"
