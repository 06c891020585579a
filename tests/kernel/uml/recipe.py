# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What a release's system is made of, as plain data, and its hash: a change of any of it makes a new system beside the old one.

A system is a tree of the release's packages, with a kernel that runs as a process: its package user-mode-linux, or one that is built
from its linux-source.
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
RELEASES = ("forky",)
# The release whose keys sign another one's archive too: the keyring of a stable Debian does not know those of a later one.
KEYS = {"forky": "trixie"}

PACKAGES = (
    "udev", "kmod", "systemd-standalone-sysusers", "procps", "util-linux", "strace",
    # what the collection needs on a host
    "python3", "python3-cffi", "python3-pyxs", "python3-libvirt",
    # block devices
    "dmsetup", "cryptsetup-bin", "thin-provisioning-tools", "e2fsprogs", "keyutils",
    # tests
    "python3-pytest", "python3-hypothesis", "gcc", "libc6-dev",
)
EXTRA_PACKAGES = {"forky": ("user-mode-linux",)}


@dataclass(frozen=True)
class Recipe:
    release: str
    version: int = 1

    @property
    def packages(self):
        return PACKAGES + EXTRA_PACKAGES[self.release]

    @cached_property
    def key(self):
        """Taken once: an edit of the files during a build must not change the name of what is being built."""
        digest = hashlib.sha256(json.dumps([asdict(self), self.packages]).encode())
        for path, mode, content in image_files(IMAGE_FILES):
            digest.update(json.dumps([path, mode, hashlib.sha256(content).hexdigest()]).encode())
        return digest.hexdigest()[:12]

    @property
    def name(self):
        return f"{self.release}-{self.key}"

    def built(self):
        """The directories of its systems that are complete, the newest last."""
        return sorted(path.parent for path in program.cache().glob(f"{self.name}.*/meta.json"))
