# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
One run: a kernel starts on a release's system, runs a command and powers off.

It has its own namespaces, which end with this process, however that ends. Its input and output are in a
directory of the run (``work``): share/ is the kernel's /racefree, site/ its /root/site, console what the
kernel itself printed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from common import locks, namespace, needs, program, tree
from common.errors import Failed, Problem, Unavailable
from common.progress import say

from uml import build, console, tools
from uml.recipe import HERE

TIMED_OUT, ENDED_EARLY = 124, 125
START_SECONDS = 180
SPACE_MIB = 300
KERNEL = "/usr/bin/linux.uml"
SITE = "/root/site"


@dataclass(frozen=True)
class Job:
    """
    What to run, for how long (seconds), with how much memory (MiB), and with which files, each as (from, to).
    """

    words: tuple
    timeout: int
    memory: int
    push: tuple
    pull: tuple
    env: tuple
    site: bool
    systemd: bool

    @classmethod
    def of(cls, words, options):
        push = tuple(_pair(text, "--push") for text in options.push)
        pull = tuple(_pair(text, "--pull") for text in options.pull)
        env = tuple(text.partition("=")[::2] for text in options.env)
        for source, target in push:
            if not os.path.exists(source):
                raise Problem(f"--push: {source} is not there")
            if not target.startswith("/"):
                raise Problem(f"--push: {target} is no absolute path")
        for _source, target in pull:
            if os.path.lexists(target):
                raise Problem(f"--pull: {target} is there already")
            if not os.path.isdir(os.path.dirname(os.path.abspath(target))):
                raise Problem(f"--pull: the directory of {target} is not there")
        return cls(
            tuple(words), options.timeout, options.memory, push, pull, env, options.site, options.systemd
        )


def _pair(text, option):
    source, colon, target = text.rpartition(":")
    if not (source and colon and target):
        raise Problem(f"{option} {text}: SRC:DEST is wanted")
    return source, target


def run(system, job):
    """Returns the exit code of the command; Unavailable if the kernel fails to start twice."""
    needs.require_root("running a kernel on a system's tree")
    needs.require(tools.FOR_RUN)
    signal.signal(signal.SIGTERM, _terminated)
    with _parts(system) as (root, linux), _work() as work:
        needs.require_memory(job.memory, "the kernel")
        for attempt in (1, 2):
            _prepare(work, job)
            if linux:
                os.link(linux, work / "share" / "linux")
            started = Kernel(root, work, job, "/racefree/linux" if linux else KERNEL)
            code = started.wait()
            if started.ready:
                break
            if attempt == 1:
                say(
                    f"the kernel of {system.release} did not start and is tried once more: "
                    f"{console.reason(work)}"
                )
        if not started.ready:
            raise Unavailable(
                f"the kernel of {system.release} does not start on this machine: {console.reason(work)}; "
                "the last lines of "
                f"its console:\n{console.tail(work)}"
            )
        _deliver(work, job)
    return code


def _terminated(_number, _frame):
    raise SystemExit(143)


@contextlib.contextmanager
def _parts(system):
    """The tree of the system, and the file of its kernel if that was built here."""
    with contextlib.ExitStack() as held:
        linux = held.enter_context(build.kept(system.source)) / "linux" if system.source else None
        yield held.enter_context(build.kept(system)) / "root", linux


@contextlib.contextmanager
def _work():
    """A directory for this run. Directories of killed runs are removed."""
    runs = program.cache() / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    needs.require_space(runs, SPACE_MIB, "a run")
    with locks.locked("runs", 120, "begin or end a run"):
        for left in runs.iterdir():
            with contextlib.suppress(FileNotFoundError, BlockingIOError), open(left / "lock", "rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                tree.remove_tree(left)
        work = Path(tempfile.mkdtemp(dir=runs))
        lock = open(work / "lock", "xb")
        fcntl.flock(lock, fcntl.LOCK_EX)
    with lock:
        try:
            yield work
        finally:
            tree.remove_tree(work)


def _prepare(work, job):
    """The files of the run, the same for the first and the second attempt."""
    share, site = work / "share", work / "site"
    for directory in (share, site):
        tree.remove_tree(directory)
        directory.mkdir()
    shutil.copytree(HERE / "guest", share / "guest")
    (share / "out").mkdir()
    if job.systemd:
        (share / "systemd").touch()
    if job.site:
        done = subprocess.run(
            [str(HERE.parent / "setup" / "site"), str(site)], stdin=subprocess.DEVNULL, check=False
        )
        if done.returncode:
            raise Failed(
                "the collection and the tests of the checkout could not be copied; the lines above say why"
            )
    pushed = []
    for number, (source, target) in enumerate(job.push):
        (share / "pushed").mkdir(exist_ok=True)
        subprocess.run(["cp", "-a", source, str(share / "pushed" / str(number))], check=True)
        pushed.append(f"mkdir -p {shlex.quote(os.path.dirname(target))}")
        pushed.append(f"cp -a /racefree/pushed/{number} {shlex.quote(target)}")
    pulled = [
        f"cp -a {shlex.quote(source)} /racefree/pulled/{number}"
        for number, (source, _target) in enumerate(job.pull)
    ]
    (share / "pulled").mkdir()
    _write(share / "push", pushed)
    _write(share / "pull", pulled)
    exports = [
        f"export {name}={shlex.quote(value)}"
        for name, value in (("RACEFREE_NOW", "/racefree/out/now"), *job.env)
    ]
    _write(
        share / "command",
        [*exports, f"cd {SITE}/tests" if job.site else "cd /root", "exec " + shlex.join(job.words)],
    )


def _write(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _deliver(work, job):
    """Copy back the requested files. Those that the command did not make are only named."""
    for number, (source, target) in enumerate(job.pull):
        pulled = work / "share" / "pulled" / str(number)
        if os.path.lexists(pulled):
            subprocess.run(["cp", "-a", str(pulled), target], check=True)
        else:
            say(f"--pull: {source} did not come back")


class Kernel:
    """A started kernel."""

    def __init__(self, root, work, job, kernel):
        self.work = work
        self.job = job
        self.out = work / "share" / "out"
        self.started = time.monotonic()
        argv = [str(work / "share" / "guest" / "enter"), str(root), str(work), str(job.memory), kernel]
        with open(work / "console", "wb") as printed:
            self.process = namespace.start(argv, stdout=printed, stderr=printed, start_new_session=True)

    @property
    def ready(self):
        """Whether it started the command."""
        return (self.out / "ready").exists()

    def wait(self):
        """Pass the output on until the kernel has ended; returns the exit code."""
        with (
            Follower(self.out / "stdout", sys.stdout) as output,
            Follower(self.out / "stderr", sys.stderr) as errors,
        ):
            try:
                while self.process.poll() is None:
                    passed = output.pass_on() + errors.pass_on()
                    if time.monotonic() - self.started > self._limit():
                        return self._timed_out()
                    if not passed:
                        time.sleep(0.03)
            finally:
                if self.process.poll() is None:
                    namespace.end(self.process)
                output.pass_on()
                errors.pass_on()
        return self._code()

    def _limit(self):
        return self.job.timeout if self.ready else min(self.job.timeout, START_SECONDS)

    def _timed_out(self):
        if self.ready:
            say(
                f"the command did not finish within {self._limit()} s and was "
                f"killed{console.doing(self.work)}"
            )
        return TIMED_OUT

    def _code(self):
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int((self.out / "code").read_text(encoding="ascii"))
        if self.ready:
            say(
                "the kernel ended before the command: "
                f"{console.reason(self.work)}{console.doing(self.work)}\n"
                f"What the kernel said:\n{console.stack(self.work)}"
            )
        return ENDED_EARLY


class Follower:
    """Passes on everything that is appended to a file."""

    def __init__(self, path, target):
        self.path = path
        self.target = target
        self.file = None

    def __enter__(self):
        return self

    def __exit__(self, *_what):
        if self.file:
            self.file.close()

    def pass_on(self):
        """The number of bytes."""
        if self.file is None:
            try:
                self.file = open(self.path, "rb")
            except FileNotFoundError:
                return 0
        data = self.file.read()
        if data:
            self.target.buffer.write(data)
            self.target.flush()
        return len(data)
