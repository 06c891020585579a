# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The commands of xenhost."""

from __future__ import annotations

import argparse
import shlex
import sys

from common.command import guarded, number
from common.errors import Problem
from common.progress import say

from lib import build, instance, inventory, machine, recipe, snapshot, status, tools, transfer

GUEST_COMMANDS = ("start", "run", "console", "pause", "unpause", "stop", "list")


def parser():
    top = argparse.ArgumentParser(
        prog="xenhost",
        description="Real Xen hosts for tests, under QEMU's software emulation: this machine needs neither "
        "Xen nor KVM.",
        epilog="Images are kept in $XENHOST_CACHE, else $XDG_CACHE_HOME/racefree-block/xenhost, else "
        "~/.cache/racefree-block/xenhost. "
        "Exit code 2: something is missing or wrong in the call, and the message says what to do; 1: the "
        "operation failed.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name, text, release=False, host=False):
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if release or host:
            command.add_argument(
                "--release",
                choices=recipe.RELEASES,
                default="bookworm",
                help="Debian release of the host (default: bookworm)",
            )
        if host:
            command.add_argument("--name", help="name of the host (default: the release)")
        return command

    def install(command):
        command.add_argument(
            "--install", action="store_true", help="install missing programs first, with apt-get"
        )

    def backend(command):
        command.add_argument(
            "--blkback",
            choices=recipe.BLKBACKS,
            default="stock",
            help="xen-blkback of the host: the kernel's own (stock, the default), or one that compares "
            "disk sequence numbers (extended)",
        )

    def shape(command):
        command.add_argument(
            "--memory",
            type=number(2304, 65536),
            default=machine.MEMORY_MIB,
            metavar="MIB",
            help=f"memory of the host (default: {machine.MEMORY_MIB}; domain 0 has {machine.DOM0_MIB}, "
            "guests the rest)",
        )
        command.add_argument(
            "--cpus",
            type=number(1, 16),
            default=machine.CPUS,
            metavar="N",
            help=f"processors (default: {machine.CPUS})",
        )

    add("setup", "install the programs that xenhost needs, with apt-get")
    command = add("build", "build the image of a release, unless it is in the cache", release=True)
    command.add_argument("--rebuild", action="store_true", help="build it anew")
    backend(command)
    install(command)
    command = add("up", "start a host; a missing image or snapshot is made first", host=True)
    command.add_argument(
        "--port", type=number(1, 65535), help="port of 127.0.0.1 for ssh (default: a free one)"
    )
    command.add_argument("--cold", action="store_true", help="boot from scratch, without the snapshot")
    command.add_argument("--fresh-snapshot", action="store_true", help="make the snapshot anew")
    command.add_argument(
        "--timeout",
        type=number(10, 3600),
        default=400,
        metavar="S",
        help="time limit for a boot, in seconds (default: 400)",
    )
    backend(command)
    shape(command)
    install(command)
    command = add("inventory", "print an Ansible inventory of the hosts that are up")
    command.add_argument("--name", help="only this host (default: all)")
    command.add_argument("--output", metavar="FILE", help="write it to FILE")
    command = add("ssh", "run a command on a host, or a shell", host=True)
    command.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="CMD", help="as for ssh; put options of xenhost before it"
    )
    command = add("push", "copy a file, or the contents of a directory, to a host", host=True)
    command.add_argument("source", metavar="SRC")
    command.add_argument("destination", metavar="DEST")
    command = add("pull", "copy a file or directory from a host", host=True)
    command.add_argument("source", metavar="SRC")
    command.add_argument("destination", metavar="DEST")
    command = add("guest", "start a small guest on a host, or talk to one: calls xenguest there", host=True)
    command.add_argument(
        "words",
        nargs=argparse.REMAINDER,
        metavar="NAME [OPTIONS] | run NAME -- CMD | console NAME | stop NAME | list",
        help="xenhost guest --help-guest shows all options",
    )
    command = add("reset", "turn a host off and on, like a power failure", host=True)
    command.add_argument("--orderly", action="store_true", help="reboot it instead: domain 0 shuts down")
    command.add_argument(
        "--timeout",
        type=number(10, 3600),
        default=400,
        metavar="S",
        help="time limit for the boot, in seconds (default: 400)",
    )
    command = add("down", "power a host off and remove its files; the images stay", host=True)
    command.add_argument(
        "--all", action="store_true", help="every host of this cache, including those that others started"
    )
    command.add_argument("--now", action="store_true", help="do not wait for an orderly power-off")
    add("status", "show hosts and images")
    command = add("clean", "remove images that no host uses")
    command.add_argument("--stale", action="store_true", help="only those whose recipe has changed since")
    command = commands.add_parser("_build")
    for name in ("release", "blkback", "key", "work"):
        command.add_argument(name)
    commands.metavar = "{setup,build,up,inventory,ssh,push,pull,guest,reset,down,status,clean}"
    return top


def remote_of(options):
    return instance.Instance(options.name or options.release).remote


def run_setup(_options):
    tools.setup(recipe.RELEASES)


def run_build(options):
    if options.install:
        tools.setup([options.release])
    print(build.build(recipe.Recipe(options.release, options.blkback), options.rebuild))


def run_up(options):
    if options.install:
        tools.setup([options.release])
    wanted, shape = (
        recipe.Recipe(options.release, options.blkback),
        machine.Shape(options.memory, options.cpus),
    )
    if options.fresh_snapshot and snapshot.exists(wanted, shape):
        snapshot.discard(wanted, shape)
    host = instance.up(
        options.name or options.release, wanted, shape, options.port, options.cold, options.timeout
    )
    say(f"{host.name} is up: {wanted.title}, ssh on port {host.data['port']} of 127.0.0.1")


def run_inventory(options):
    running = [host for host in instance.all_instances() if host.running]
    if not running:
        raise Problem("no host is up: xenhost up")
    if options.name:
        running = [host for host in running if host.name == options.name]
        if not running:
            raise Problem(f"the host {options.name} is not up: xenhost status lists the hosts that are")
    text = inventory.text([(host.name, host.data["release"], host.remote) for host in running])
    if options.output:
        with open(options.output, "w", encoding="utf-8") as file:
            file.write(text)
    else:
        print(text, end="")


def run_ssh(options):
    words = options.words[1:] if options.words[:1] == ["--"] else options.words
    return remote_of(options).run(
        " ".join(words) if words else None, terminal=not words and sys.stdin.isatty()
    )


def run_push(options):
    transfer.push(remote_of(options), options.source, options.destination)


def run_pull(options):
    transfer.pull(remote_of(options), options.source, options.destination)


def run_guest(options):
    words = options.words
    if not words or words == ["--help-guest"]:
        words = ["--help"]
    elif words[0] not in GUEST_COMMANDS:
        words = ["start", *words]
    return remote_of(options).run(shlex.join(["xenguest", *words]))


def run_reset(options):
    instance.reset(options.name or options.release, options.timeout, options.orderly)


def run_down(options):
    if options.all and options.name:
        raise Problem("down: either --name or --all")
    # Others may share the cache: without --all, only one host is removed.
    names = (
        [host.name for host in instance.all_instances()] if options.all else [options.name or options.release]
    )
    there = [instance.down(name, options.now) for name in names]
    if not any(there):
        say("no host is up" if options.all else f"there is no host {names[0]}")


def run_status(_options):
    print(status.report())


def run_clean(options):
    status.clean(options.stale)


def run__build(options):
    build.inner(recipe.Recipe(options.release, options.blkback), options.key, options.work)


def main(argv):
    options = parser().parse_args(argv)
    return guarded(globals()[f"run_{options.command}"], options)
