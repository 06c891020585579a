# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Building an image: debootstrap, packages, files, file system. An image with another xen-blkback is made from
the stock image (lib.blkback).

Everything that mounts or runs in the new system happens in a child with its own mount and process namespace
(``inner``). However that child ends, its mounts and processes end with it. The child gets a signal when this
process dies.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time

from common import locks, mirror, namespace, needs, tree
from common.chroot import Chroot
from common.errors import Failed, Problem
from common.progress import say, step

from lib import blkback, kernel, paths, tools
from lib.recipe import Recipe

LOCK_SECONDS = 3600
SPACE_MIB = 5000


def is_built(recipe):
    return (recipe.directory / "meta.json").exists()


def build(recipe, rebuild=False):
    """Make the recipe's image in the cache if it is missing; returns its directory."""
    if is_built(recipe) and not rebuild:
        return recipe.directory
    needs.require_root("building an image")
    needs.require(tools.FOR_BUILD, tools.FOR_UP)
    needs.require_keyring(recipe.release)
    with contextlib.ExitStack() as held:
        fds = [held.enter_context(_locked(recipe))]
        if is_built(recipe) and not rebuild:
            return recipe.directory
        if recipe.base:
            build(recipe.base)
            # Nobody may remove it while it is being copied.
            fds.append(held.enter_context(_locked(recipe.base)))
            if not is_built(recipe.base):
                raise Failed(f"the image of {recipe.base.title} was removed in the meantime: try again")
        sweep(recipe)
        needs.require_space(paths.cache(), SPACE_MIB, "building an image")
        work = paths.cache() / f".{recipe.directory.name}.building"
        work.mkdir(mode=0o700)
        started = time.monotonic()
        say(
            f"building the image of {recipe.title} in {recipe.directory}; the output of the tools is in "
            f"{work}/log until it is done"
        )
        try:
            _run_inner(recipe, work, fds)
            if rebuild and recipe.directory.exists():
                tree.remove_tree(recipe.directory)
            os.rename(work / "out", recipe.directory)
        except Failed:
            keep = paths.cache() / f"failed-{recipe.directory.name}.log"
            if (work / "log").exists():
                shutil.copyfile(work / "log", keep)
                say(f"the output of the tools is in {keep}")
            raise
        finally:
            tree.remove_tree(work)
        say(f"built the image of {recipe.title} in {time.monotonic() - started:.0f} s")
    return recipe.directory


def _locked(recipe):
    return locks.locked(
        f"build-{recipe.directory.name}", LOCK_SECONDS, f"build the same image ({recipe.title})"
    )


def sweep(recipe):
    """
    Remove what an interrupted build of the same image left. The lock is held, so no other build is running.
    """
    left = paths.cache() / f".{recipe.directory.name}.building"
    if left.exists():
        say("removing the files of an interrupted build")
        tree.remove_tree(left)


def _run_inner(recipe, work, lock_fds):
    argv = [
        sys.executable,
        "-B",
        str(paths.HERE / "_main.py"),
        "_build",
        recipe.release,
        recipe.blkback,
        recipe.key,
        str(work),
    ]
    if namespace.run(argv, pass_fds=lock_fds):
        raise Failed(
            f"the image of {recipe.title} could not be built; the line above shows the step that failed"
        )


class Stock:
    """The steps of a build, in its own namespaces."""

    def __init__(self, recipe, expected, work):
        self.recipe = recipe
        self.expected = expected
        self.tree = Chroot(work)
        self.root = self.tree.root
        self.out = self.tree.work / "out"

    def run(self):
        self.out.mkdir()
        own = mirror.own_codename()
        address, sources = mirror.sources_for(self.recipe.release, mirror.configured(), own)
        with step("base system (debootstrap)"):
            self.tree.debootstrap(self.recipe.release, address)
        with step(f"{len(self.recipe.packages)} packages and their dependencies (apt)"):
            self.tree.prepare(sources, paths.IMAGE_FILES)
            if Recipe(self.recipe.release, self.recipe.blkback).key != self.expected:
                raise Failed(
                    f"files below {paths.IMAGE_FILES} were changed during the build of the image: build again"
                )
            self.tree.mount()
            self.tree.run(self.recipe.scripts[0], *self.recipe.packages)
        with step("files, services, guest"):
            self._keys()
            self._files()
            self._vmlinux()
            for script in self.recipe.scripts[1:]:
                self.tree.run(script, f"/image/{os.path.dirname(script)}")
            self._collect()
        with step("file system"):
            self.tree.unmount()
            self._file_system()
        (self.out / "meta.json").write_text(
            json.dumps(
                {
                    "release": self.recipe.release,
                    "blkback": self.recipe.blkback,
                    "recipe": self.recipe.key,
                    "built": int(time.time()),
                    "packages": self.versions,
                },
                indent=1,
            )
            + "\n",
            encoding="utf-8",
        )

    def _keys(self):
        self.tree.call(
            [
                "ssh-keygen",
                "-q",
                "-t",
                "ed25519",
                "-N",
                "",
                "-C",
                "xenhost",
                "-f",
                str(self.out / "id_ed25519"),
            ]
        )
        ssh = self.root / "root/.ssh"
        ssh.mkdir(mode=0o700, exist_ok=True)
        (ssh / "authorized_keys").write_bytes((self.out / "id_ed25519.pub").read_bytes())
        (ssh / "authorized_keys").chmod(0o600)

    def _files(self):
        files = self.root / "image"
        shutil.copytree(files / "root", self.root, dirs_exist_ok=True)
        shutil.copytree(files / "xenguest", self.root / "usr/local/lib/xenguest")

    def _vmlinux(self):
        found = sorted((self.root / "boot").glob("vmlinuz-*"))
        if len(found) != 1:
            raise Failed(f"the image has {len(found)} kernels, not one")
        data = kernel.vmlinux(found[0].read_bytes())
        place = self.root / "usr/lib/xenguest"
        place.mkdir()
        (place / "vmlinux").write_bytes(data)
        (self.out / "vmlinux").write_bytes(data)

    def _collect(self):
        hypervisors = sorted((self.root / "boot").glob("xen-*.gz"))
        initrds = sorted((self.root / "boot").glob("initrd.img-*"))
        if len(hypervisors) != 1 or len(initrds) != 1:
            raise Failed(
                f"the image has {len(hypervisors)} hypervisors and {len(initrds)} initial RAM disks, not "
                "one of each"
            )
        with open(self.out / "xen", "wb") as file:
            subprocess.run(["gzip", "-dc", str(hypervisors[0])], stdout=file, check=True)
        shutil.copyfile(initrds[0], self.out / "initrd")
        key = (self.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text(encoding="utf-8").split()
        (self.out / "known_hosts").write_text(
            f"{self.recipe.host_key_alias} {key[0]} {key[1]}\n", encoding="utf-8"
        )
        listing = self.tree.output(["dpkg-query", "-W", "-f", "${Package} ${Version}\\n"])
        self.versions = dict(line.split(" ", 1) for line in listing.splitlines())

    def _file_system(self):
        self.tree.strip()
        disk = self.out / "disk.img"
        with open(disk, "wb") as file:
            file.truncate(self.recipe.disk_bytes)
        # The size of the journal and the inode tables matters little here. Lazy initialisation would write in
        # the background at each cold boot.
        self.tree.call(
            [
                "mkfs.ext4",
                "-q",
                "-F",
                "-L",
                "xenhost",
                "-m",
                "0",
                "-O",
                "^has_journal",
                "-E",
                "lazy_itable_init=0",
                "-d",
                str(self.root),
                str(disk),
            ]
        )


def inner(recipe, expected, work):
    """Entry point of the child."""
    os.umask(0o022)
    if os.getpid() != 1:
        raise Problem("_build is an internal part of build and cannot be called directly")
    (blkback.Extended if recipe.base else Stock)(recipe, expected, work).run()
