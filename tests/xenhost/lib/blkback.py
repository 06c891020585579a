# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The image with another xen-blkback: a copy of the stock image with one additional module.

The module is built in a chroot of the stock image's files, with its release's compiler and the headers of its
kernel. Only the module and depmod's tables are copied from that chroot.
"""

from __future__ import annotations

import filecmp
import json
import os
import stat
import time

from common import mirror
from common.chroot import Chroot
from common.errors import Failed
from common.progress import step

from lib import paths
from lib.recipe import Recipe

# Made by hand, because reading a file system without mounting it gives no device nodes: name -> minor number
# of major 1 (mem).
NODES = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}


class Extended:
    """The steps of a build, in its own namespaces."""

    def __init__(self, recipe, expected, work):
        self.recipe = recipe
        self.expected = expected
        self.tree = Chroot(work)
        self.out = self.tree.work / "out"
        self.stock = recipe.base.directory

    def run(self):
        with step("the stock image's files"):
            self._copy()
            self.tree.root.mkdir()
            self._debugfs("rdump / root")
        with step("xen-blkback (apt, compiler)"):
            before = self._tables()
            self._build()
        with step("installing it"):
            self._install(before)
        self._describe()

    def _copy(self):
        self.out.mkdir()
        self.tree.call(
            [
                "cp",
                "--sparse=always",
                "--reflink=auto",
                str(self.stock / "disk.img"),
                str(self.out / "disk.img"),
            ]
        )
        for name in ("xen", "vmlinux", "initrd", "id_ed25519", "id_ed25519.pub"):
            os.link(self.stock / name, self.out / name)
        words = (self.stock / "known_hosts").read_text(encoding="utf-8").split()
        (self.out / "known_hosts").write_text(
            " ".join([self.recipe.host_key_alias, *words[1:]]) + "\n", encoding="utf-8"
        )

    def _debugfs(self, *commands, write=False):
        """
        Their names are relative to the work directory. Check the result: debugfs does not report failures.
        """
        script = self.tree.work / "debugfs"
        script.write_text("".join(f"{command}\n" for command in commands), encoding="utf-8")
        self.tree.call(
            ["debugfs", *(["-w"] if write else []), "-f", "debugfs", "out/disk.img"], cwd=self.tree.work
        )

    @property
    def _modules(self):
        found = list((self.tree.root / "usr/lib/modules").iterdir())
        if len(found) != 1:
            raise Failed(f"the stock image has modules of {len(found)} kernels, not of one")
        return found[0]

    def _tables(self):
        return {path.name: path.read_bytes() for path in self._modules.glob("modules.*")}

    def _build(self):
        _mirror, sources = mirror.sources_for(self.recipe.release, mirror.configured(), mirror.own_codename())
        for name, minor in NODES.items():
            path = self.tree.root / "dev" / name
            if not path.exists():
                os.mknod(path, stat.S_IFCHR, os.makedev(1, minor))
                # apt's own user writes to this directory.
                path.chmod(0o666)
        self.tree.prepare(sources, paths.BLKBACK_FILES)
        if Recipe(self.recipe.release, self.recipe.blkback).key != self.expected:
            raise Failed(f"files below {paths.HERE} were changed during the build of the image: build again")
        self.tree.mount()
        self.tree.run("build.sh", f"/image/{self.recipe.blkback}.patch")
        self.tree.unmount()

    def _install(self, before):
        after = self._tables()
        changed = sorted(name for name in after if after[name] != before.get(name))
        home, updates = self._modules.relative_to(self.tree.root), "updates/xen-blkback.ko"
        commands = [
            f"cd /{home}",
            *(f"rm {name}" for name in changed if name in before),
            *(f"write root/{home}/{name} {name}" for name in changed),
        ]
        self._debugfs(
            *commands,
            "mkdir updates",
            "cd updates",
            f"write root/{home}/{updates} xen-blkback.ko",
            write=True,
        )
        written = self.tree.work / "written"
        (written / "updates").mkdir(parents=True)
        self._debugfs(*(f"dump /{home}/{name} written/{name}" for name in (*changed, updates)))
        _same, *different = filecmp.cmpfiles(self._modules, written, [*changed, updates], shallow=False)
        if any(different):
            raise Failed(f"debugfs did not write {' '.join(sum(different, []))} as it should")
        self.tree.call(["e2fsck", "-f", "-n", str(self.out / "disk.img")])

    def _describe(self):
        meta = json.loads((self.stock / "meta.json").read_text(encoding="utf-8"))
        meta.update(blkback=self.recipe.blkback, recipe=self.recipe.key, built=int(time.time()))
        (self.out / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
