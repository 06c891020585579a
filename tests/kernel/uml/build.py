# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Building a system: debootstrap, packages.

All that mounts or runs in the new system happens in a child with a mount and process namespace of its own (``inner``). A system is a
directory RELEASE-KEY.TIME; it is complete once it has that name, and is never changed: a newer one is made beside it, and it goes when
nothing runs from it any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sys
import time
from pathlib import Path

from common import locks, mirror, namespace, needs, program, tree
from common.chroot import Chroot
from common.errors import Failed, Problem
from common.progress import say, step
from uml import tools
from uml.recipe import HERE, IMAGE_FILES, KEYS, Recipe

LOCK_SECONDS = 3600
SPACE_MIB = 2500


def build(recipe, refresh=False):
    """Make the recipe's system in the cache unless it is there; returns its directory."""
    if recipe.built() and not refresh:
        return recipe.built()[-1]
    needs.require_root("building a system")
    needs.require(tools.FOR_BUILD)
    needs.require_keyring(KEYS.get(recipe.release, recipe.release))
    before = recipe.built()
    with locks.locked(f"build-{recipe.name}", LOCK_SECONDS, f"build the same system ({recipe.release})") as lock:
        if recipe.built() and (not refresh or recipe.built() != before):
            return recipe.built()[-1]
        work = program.cache() / f".{recipe.name}.building"
        if work.exists():
            say("removing what an interrupted build left")
            tree.remove_tree(work)
        needs.require_space(program.cache(), SPACE_MIB, "building a system")
        work.mkdir(mode=0o700)
        _build_in(recipe, work, lock)
        sweep(recipe)
    return recipe.built()[-1]


def _build_in(recipe, work, lock):
    started = time.monotonic()
    say(f"building the system of {recipe.release}; what the tools print is in {work}/log until it is done")
    argv = [sys.executable, "-B", str(HERE / "_main.py"), "_build", recipe.release, recipe.key, str(work)]
    try:
        if namespace.run(argv, pass_fds=[lock]):
            keep = program.cache() / f"failed-{recipe.name}.log"
            if (work / "log").exists():
                shutil.copyfile(work / "log", keep)
                say(f"what the tools printed is in {keep}")
            raise Failed(f"the system of {recipe.release} could not be built; the line above says where it ended")
        os.rename(work / "out", program.cache() / f"{recipe.name}.{time.time_ns()}")
    finally:
        tree.remove_tree(work)
    say(f"built the system of {recipe.release} in {time.monotonic() - started:.0f} s")


def sweep(recipe):
    """Remove all but the recipe's newest system, unless something runs from them."""
    for directory in recipe.built()[:-1]:
        remove(directory)


def remove(directory):
    """Whether it was removed: not while something runs from it."""
    with contextlib.suppress(FileNotFoundError), open(directory / "meta.json", "rb") as meta:
        try:
            fcntl.flock(meta, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        # Incomplete from here on, so that nobody starts from what is being removed.
        (directory / "meta.json").unlink()
        tree.remove_tree(directory)
    return True


def inner(release, expected, work):
    """Entry of the child."""
    os.umask(0o022)
    if os.getpid() != 1:
        raise Problem("_build is a part of build and cannot be called on its own")
    recipe = Recipe(release)
    new = Chroot(work)
    out = Path(work) / "out"
    out.mkdir()
    new.root = out / "root"
    address, sources = mirror.sources_for(release, mirror.configured(), mirror.own_codename())
    with step("base system (debootstrap)"):
        new.debootstrap(release, address, KEYS.get(release))
    with step(f"{len(recipe.packages)} packages and what they need (apt)"):
        if release in KEYS:
            # Not released yet: it has neither security updates nor others.
            sources = sources.splitlines()[0] + "\n"
        new.prepare(sources, IMAGE_FILES)
        if Recipe(release).key != expected:
            raise Failed(f"files below {IMAGE_FILES} were changed while the system was being built: build again")
        new.mount()
        new.run("packages.sh", *recipe.packages)
        new.run("setup.sh")
        listing = new.output(["dpkg-query", "-W", "-f", "${Package} ${Version}\\n"])
        new.unmount()
        new.strip()
    (out / "meta.json").write_text(json.dumps({
        "release": release, "recipe": expected, "built": int(time.time()),
        "packages": dict(line.split(" ", 1) for line in listing.splitlines())}, indent=1) + "\n", encoding="utf-8")
