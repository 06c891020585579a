# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The commands of the tier's tool."""

from __future__ import annotations

import argparse

from common.command import guarded, number
from common.errors import Problem, Unavailable
from common.progress import say

from uml import boot, build, status, tools
from uml.recipe import RELEASES, System


def parser():
    top = argparse.ArgumentParser(
        prog="tests/kernel/kernel",
        description="A real Linux that runs as a process, for tests. It needs neither Xen nor KVM nor a "
        "virtual machine.",
        epilog="Systems are kept in $KERNEL_CACHE, else $XDG_CACHE_HOME/racefree-block/kernel, else "
        "~/.cache/racefree-block/kernel. Exit code 2: something is missing or wrong in the call, and the "
        "message says "
        "what to do; 1: the operation failed; run: that of the command, or 124 when it took too long, "
        "125 when the kernel ended before it.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name, text, release=True):
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if release:
            command.add_argument(
                "--release",
                choices=RELEASES,
                default=RELEASES[0],
                help=f"Debian release of the kernel (default: {RELEASES[0]})",
            )
        return command

    add("setup", "install the programs that the tool needs, with apt-get", release=False)
    command = add("build", "make the system of a release, unless it is in the cache")
    command.add_argument("--refresh", action="store_true", help="make it again, with today's packages")
    command = add("run", "boot a kernel, run a command as root on it, and power it off")
    command.add_argument(
        "--fallback",
        choices=RELEASES,
        metavar="RELEASE",
        help="use the kernel of that release if the kernel of this one cannot be installed or does not start",
    )
    command.add_argument(
        "--timeout",
        type=number(1, 86400),
        default=1800,
        metavar="S",
        help="time limit in seconds (default: 1800)",
    )
    command.add_argument(
        "--memory",
        type=number(256, 65536),
        default=1024,
        metavar="MIB",
        help="memory of the kernel in MiB (default: 1024)",
    )
    command.add_argument(
        "--push",
        action="append",
        default=[],
        metavar="SRC:DEST",
        help="copy a file or directory to DEST (an absolute path) in the kernel",
    )
    command.add_argument(
        "--pull",
        action="append",
        default=[],
        metavar="SRC:DEST",
        help="copy a file or directory of the kernel back to DEST, which must not exist",
    )
    command.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="environment of the command"
    )
    command.add_argument(
        "--systemd",
        action="store_true",
        help="use systemd as the init system, which takes some more seconds",
    )
    command.add_argument(
        "--site",
        action="store_true",
        help="copy the collection and the tests of the checkout to /root/site, and start in its folder tests",
    )
    command.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="CMD", help="the program to run, and its arguments"
    )
    add("status", "show what is in the cache", release=False)
    command = add("clean", "remove systems and kernels that are not in use", release=False)
    command.add_argument("--stale", action="store_true", help="only those whose recipe has changed since")
    command = commands.add_parser("_build")
    for name in ("kind", "release", "key", "work", "base"):
        command.add_argument(name)
    commands.metavar = "{setup,build,run,status,clean}"
    return top


def run_setup(_options):
    tools.setup()


def run_build(options):
    system = System(options.release)
    print(build.build(system, options.refresh))
    if system.source:
        print(build.build(system.source, options.refresh))


def run_run(options):
    words = options.words[1:] if options.words[:1] == ["--"] else options.words
    if not words:
        raise Problem("run: which command? For a shell's words: run -- sh -c '...'")
    job = boot.Job.of(words, options)
    try:
        return boot.run(System(options.release), job)
    except Unavailable as problem:
        if options.fallback in (None, options.release):
            raise
        say(problem)
        say(f"taking {System(options.fallback).kernel_title} instead")
    return boot.run(System(options.fallback), job)


def run_status(_options):
    print(status.report())


def run_clean(options):
    status.clean(options.stale)


def run__build(options):
    build.inner(options.kind, options.release, options.key, options.work, options.base)


def main(argv):
    options = parser().parse_args(argv)
    return guarded(globals()[f"run_{options.command}"], options)
