# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The ingredients of the tier, as plain data, and their hash: any change makes a new part beside the old one.

A release's ``System`` is a tree of its packages. Its kernel, a program, comes from the package
user-mode-linux. If that does not start on every processor, the kernel is a ``Source``, built from the
release's linux-source.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from common import program
from common.tree import image_files

HERE = Path(__file__).resolve().parent.parent
IMAGE_FILES = HERE / "image"
SOURCE_FILES = HERE / "source"

# The release whose keys also sign the archive of another release: the keyring of a stable Debian does not
# have the keys of a later one.
KEYS = {"forky": "trixie"}
# Linux that is built from source.
SOURCES = {"bookworm": "6.1", "trixie": "6.12"}
RELEASES = ("forky", *SOURCES)

PACKAGES = (
    "udev",
    "kmod",
    "procps",
    "util-linux",
    "strace",
    # systemd as the init system, for runs that request it, and what the role xen_host finds on a host
    "systemd",
    "dbus",
    "xen-utils-common",
    # what the collection needs on a host
    "python3",
    "python3-cffi",
    "python3-pyxs",
    "python3-libvirt",
    # block devices
    "dmsetup",
    "cryptsetup-bin",
    "thin-provisioning-tools",
    "e2fsprogs",
    "keyutils",
    # more tools that take the path of a device
    "xfsprogs",
    "btrfs-progs",
    "dosfstools",
    "lvm2",
    "mdadm",
    "parted",
    "gdisk",
    # names of disks as a file system
    "python3-pyfuse3",
    # libvirt with QEMU
    "libvirt-daemon-system",
    "libvirt-daemon-driver-qemu",
    "libvirt-clients",
    "qemu-system-x86",
    "qemu-utils",
    # tests
    "python3-pytest",
    "python3-hypothesis",
    "gcc",
    "libc6-dev",
)
EXTRA_PACKAGES = {
    "forky": ("user-mode-linux",),
    "bookworm": (),
    "trixie": (),
}


@dataclass(frozen=True)
class Part:
    """Something that is built and cached as one directory, NAME.TIME."""

    release: str
    version: int = 1

    @cached_property
    def key(self):
        """Computed once: an edit of the files during a build must not change the name of the result."""
        digest = hashlib.sha256(json.dumps([asdict(self), self.contents]).encode())
        for path, mode, content in image_files(self.files):
            digest.update(
                json.dumps([path, mode, hashlib.sha256(self.counted(content)).hexdigest()]).encode()
            )
        return digest.hexdigest()[:12]

    def counted(self, content):
        """The part of a file's contents that counts for the key."""
        return content

    def built(self):
        """Its complete directories, the newest one last."""
        return sorted(path.parent for path in program.cache().glob(f"{self.name}.*/meta.json"))


class System(Part):
    """root/: the packages."""

    kind = "system"
    files = IMAGE_FILES
    mebibytes = 2500

    @property
    def contents(self):
        return PACKAGES + EXTRA_PACKAGES[self.release]

    @property
    def name(self):
        return f"{self.release}-{self.key}"

    @property
    def title(self):
        return f"the system of {self.release}"

    @property
    def kernel_title(self):
        return self.source.title if self.source else f"the kernel of {self.release}"

    @property
    def source(self):
        """What its kernel is built from, or None if it is a package."""
        return Source(self.release) if self.release in SOURCES else None


class Source(Part):
    """linux: the program."""

    kind = "source"
    files = SOURCE_FILES
    mebibytes = 5000

    @property
    def contents(self):
        return SOURCES[self.release]

    def counted(self, content):
        """Without comments, because building a kernel takes many minutes."""
        return b"".join(line for line in content.splitlines(True) if not line.startswith(b"#"))

    @property
    def name(self):
        return f"linux-{self.release}-{self.key}"

    @property
    def title(self):
        return f"Linux {self.contents} as a program"


def part(kind, release):
    return {"system": System, "source": Source}[kind](release)
