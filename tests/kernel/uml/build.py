# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Builds a part of the tier: a system with debootstrap and apt, or a kernel with a compiler.

Everything that mounts or runs in the new system happens in a child with its own mount and process namespace
(``inner``). A part is a directory NAME.TIME. It is complete once it has that name, and is never changed. A
newer part is made beside it, and the old one is removed when nothing uses it any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from common import locks, mirror, namespace, needs, program, tree
from common.chroot import Chroot
from common.errors import Failed, Problem, Unavailable
from common.progress import say, step

from uml import tools
from uml.recipe import HERE, KEYS, Source, part

LOCK_SECONDS = 5400


def build(wanted, refresh=False):
    """Make a part in the cache if it is missing; returns its directory."""
    before = wanted.built()
    if before and not refresh:
        return before[-1]
    needs.require_root(f"building {wanted.title}")
    needs.require(tools.FOR_BUILD)
    needs.require_keyring(KEYS.get(wanted.release, wanted.release))
    with contextlib.ExitStack() as held:
        lock = held.enter_context(locks.locked(f"build-{wanted.name}", LOCK_SECONDS, f"build {wanted.title}"))
        if wanted.built() and (not refresh or wanted.built() != before):
            return wanted.built()[-1]
        base = held.enter_context(kept(part("system", wanted.release))) if wanted.kind == "source" else None
        work = program.cache() / f".{wanted.name}.building"
        if work.exists():
            say("removing the files of an interrupted build")
            tree.remove_tree(work)
        needs.require_space(program.cache(), wanted.mebibytes, f"building {wanted.title}")
        work.mkdir(mode=0o700)
        _build_in(wanted, work, lock, base)
        for old in wanted.built()[:-1]:
            remove(old)
        _log_of_failure(wanted).unlink(missing_ok=True)
    return wanted.built()[-1]


def _build_in(wanted, work, lock, base):
    started = time.monotonic()
    say(f"building {wanted.title}; the output of the tools is in {work}/log until it is done")
    argv = [
        sys.executable,
        "-B",
        str(HERE / "_main.py"),
        "_build",
        wanted.kind,
        wanted.release,
        wanted.key,
        str(work),
        str(base or ""),
    ]
    try:
        if namespace.run(argv, pass_fds=[lock]):
            keep = _log_of_failure(wanted)
            if (work / "log").exists():
                shutil.copyfile(work / "log", keep)
                say(f"the output of the tools is in {keep}")
            raise Unavailable(f"{wanted.title} could not be built; the line above shows the step that failed")
        os.rename(work / "out", program.cache() / f"{wanted.name}.{time.time_ns()}")
    finally:
        tree.remove_tree(work)
    say(f"built {wanted.title} in {time.monotonic() - started:.0f} s")


def _log_of_failure(wanted):
    return program.cache() / f"failed-{wanted.name}.log"


@contextlib.contextmanager
def kept(wanted):
    """The directory of a part, which is built if necessary, and not removed before the context ends."""
    while True:
        directory = build(wanted)
        try:
            meta = open(directory / "meta.json", "rb")
        except FileNotFoundError:
            # A newer one has replaced it in the meantime.
            continue
        with meta:
            fcntl.flock(meta, fcntl.LOCK_SH)
            if (directory / "meta.json").exists():
                yield directory
                return


def remove(directory):
    """Remove it unless something uses it; returns whether it was removed."""
    with contextlib.suppress(FileNotFoundError), open(directory / "meta.json", "rb") as meta:
        try:
            fcntl.flock(meta, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        # Marked as incomplete first, so that no run starts from a part that is being removed.
        (directory / "meta.json").unlink()
        tree.remove_tree(directory)
    return True


def inner(kind, release, expected, work, base):
    """Entry point of the child."""
    os.umask(0o022)
    if os.getpid() != 1:
        raise Problem("_build is an internal part of build and cannot be called directly")
    wanted = part(kind, release)
    out = Path(work) / "out"
    out.mkdir()
    meta = {"release": release, "recipe": expected, "built": int(time.time())}
    meta.update(
        _source(wanted, expected, work, base)
        if isinstance(wanted, Source)
        else _system(wanted, expected, work)
    )
    (out / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")


def _sources(release):
    address, sources = mirror.sources_for(release, mirror.configured(), mirror.own_codename())
    # A suite that is not released yet has neither updates nor security updates.
    return address, sources.splitlines()[0] + "\n" if release in KEYS else sources


def _prepare(new, wanted, expected, sources):
    new.prepare(sources, wanted.files)
    if part(wanted.kind, wanted.release).key != expected:
        raise Failed(f"files below {wanted.files} were changed during the build: build again")
    new.mount()


def _system(wanted, expected, work):
    new = Chroot(work)
    new.root = Path(work) / "out" / "root"
    address, sources = _sources(wanted.release)
    with step("base system (debootstrap)"):
        new.debootstrap(wanted.release, address, KEYS.get(wanted.release))
    with step(f"{len(wanted.contents)} packages and their dependencies (apt)"):
        _prepare(new, wanted, expected, sources)
        new.run("packages.sh", *wanted.contents)
        new.run("setup.sh")
        listing = new.output(["dpkg-query", "-W", "-f", "${Package} ${Version}\\n"])
        new.unmount()
        new.strip()
    return {"packages": dict(line.split(" ", 1) for line in listing.splitlines())}


def _source(wanted, expected, work, base):
    new = Chroot(work)
    with step("a copy of the system"):
        subprocess.run(["cp", "-a", "--reflink=auto", str(Path(base) / "root"), str(new.root)], check=True)
        (new.root / "var/cache/apt/archives/partial").mkdir(parents=True, exist_ok=True)
        (new.root / "var/lib/apt/lists/partial").mkdir(parents=True, exist_ok=True)
    with step("compiler, source, kernel"):
        _prepare(new, wanted, expected, _sources(wanted.release)[1])
        new.run("build.sh", wanted.contents)
        new.unmount()
    shutil.copy2(new.root / "linux", Path(work) / "out" / "linux")
    version, package = (new.root / "linux.version").read_text(encoding="ascii").split()
    return {"version": version, "package": package}
