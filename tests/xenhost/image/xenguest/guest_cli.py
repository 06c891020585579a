# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The commands of xenguest. Options are parsed by hand: importing argparse takes longer than most commands.
"""

from __future__ import annotations

import os
import sys

from guest_errors import GuestProblem

USAGE = """\
xenguest - small paravirtual guests for tests, on this Xen host

  xenguest start NAME [--memory MB] [--vcpus N] [--disk SPEC]... [--config LINE]... [--libvirt]
                 [--no-frontend] [--timeout S]
        boots a guest and returns when it takes commands; SPEC as in xl's configuration,
        e.g. /dev/loop0,raw,xvda,w;
        LINE is added to xl's configuration; --libvirt makes it with virsh instead of xl;
        --no-frontend leaves out the disk driver: the guest never answers for any disk until
        xenguest run NAME -- 'insmod /modules/*xen-blkfront.ko'
  xenguest run NAME [--timeout S] [--grace S] -- SHELL COMMAND
        runs it in the guest (busybox); prints its output, exits with its exit code.
        124: killed after --timeout seconds (60 unless told);
        125: no answer --grace seconds (60 unless told) after that
  xenguest console NAME [--raw]    what the guest printed on its console, with --raw also the lines of "run"
  xenguest pause NAME              the guest stands still and answers nothing, a detach neither
  xenguest unpause NAME
  xenguest stop NAME               destroys it; no error when there is none
  xenguest list                    domain id, console and name of each guest
"""
COMMANDS = ("start", "run", "console", "pause", "unpause", "stop", "list")
SAFE = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")


class Options:
    """What came after the command: the name, options, and what follows "--"."""

    def __init__(self, words, values=(), lists=(), flags=()):
        self.name = None
        self.values = {}
        self.lists = {key: [] for key in lists}
        self.flags = set()
        self.rest = None
        words = list(words)
        while words:
            word = words.pop(0)
            if word == "--":
                self.rest = words
                break
            if not word.startswith("--"):
                if self.name is not None:
                    raise GuestProblem(f"{word}: one NAME only; a command to run comes after --", 2)
                self.name = word
                continue
            key, sign, value = word[2:].partition("=")
            if key in flags and not sign:
                self.flags.add(key)
                continue
            if key not in values and key not in lists:
                raise GuestProblem(f"--{key}: no such option; xenguest --help shows them", 2)
            if not sign:
                if not words:
                    raise GuestProblem(f"--{key}: its value is missing", 2)
                value = words.pop(0)
            if key in lists:
                self.lists[key].append(value)
            else:
                self.values[key] = value
        if (
            self.name is None
            or not set(self.name) <= SAFE
            or not self.name[0].isalnum()
            or len(self.name) > 60
            or self.name in COMMANDS
            or self.name.endswith("--incoming")
        ):
            raise GuestProblem(
                f"NAME: {self.name!r} is not allowed: 1 to 60 letters, digits, _ . -, and not a command's "
                "name",
                2,
            )

    def number(self, key, default, least, most):
        text = self.values.get(key, str(default))
        if not text.isdigit() or not least <= int(text) <= most:
            raise GuestProblem(f"--{key}: {text!r} is not allowed: {least} to {most}", 2)
        return int(text)


def command_start(words):
    from guest_launch import start

    options = Options(
        words,
        values=("memory", "vcpus", "timeout"),
        lists=("disk", "config"),
        flags=("libvirt", "no-frontend"),
    )
    if options.rest:
        raise GuestProblem("start takes no command", 2)
    if options.lists["config"] and "libvirt" in options.flags:
        raise GuestProblem("--config is a line for xl, it cannot go with --libvirt", 2)
    number = start(
        options.name,
        options.number("memory", 200, 64, 4096),
        options.number("vcpus", 1, 1, 8),
        options.lists["disk"],
        options.lists["config"],
        "libvirt" in options.flags,
        "no-frontend" not in options.flags,
        options.number("timeout", 180, 1, 3600),
    )
    print(number)
    return 0


def command_run(words):
    from guest_channel import run

    options = Options(words, values=("timeout", "grace"))
    if not options.rest:
        raise GuestProblem("run: the command is missing: xenguest run NAME -- COMMAND", 2)
    seconds = options.number("timeout", 60, 1, 86400)
    code, out, err, late = run(
        options.name, " ".join(options.rest), seconds, options.number("grace", 60, 1, 3600)
    )
    sys.stdout.buffer.write(out)
    sys.stdout.flush()
    sys.stderr.buffer.write(err)
    if late:
        raise GuestProblem(f"killed in guest {options.name} after {seconds} s", 124)
    return code


def command_console(words):
    from guest_channel import LOGS

    options = Options(words, flags=("raw",))
    found = inside = False
    for suffix in ("", "--incoming"):
        path = f"{LOGS}/guest-{options.name}{suffix}.log"
        if not os.path.exists(path):
            continue
        found = True
        with open(path, "rb") as file:
            for line in file:
                # Answers of "run" go from their first line to their @E.
                inside = inside or line[:3] in (b"@O ", b"@S ", b"@E ")
                if "raw" in options.flags or not inside:
                    sys.stdout.buffer.write(line)
                inside = inside and line[:3] != b"@E "
    if not found:
        raise GuestProblem(f"there is no console text of a guest {options.name}")
    return 0


def command_pause(words, word="pause"):
    from guest_launch import call

    call(["xl", word, Options(words).name], 60)
    return 0


def command_stop(words):
    from guest_launch import stop

    options = Options(words, values=("timeout",))
    stop(options.name, options.number("timeout", 120, 1, 3600))
    return 0


def command_list(words):
    from guest_store import Store

    if words:
        raise GuestProblem("list takes no argument", 2)
    store = Store()
    for name, number in sorted(store.domains().items()):
        print(f"{number}\t{store.read(f'/local/domain/{number}/console/tty') or '-'}\t{name}")
    store.close()
    return 0


def main(argv):
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if argv else 2
    word, rest = argv[0], argv[1:]
    calls = {
        "start": command_start,
        "run": command_run,
        "console": command_console,
        "pause": command_pause,
        "unpause": lambda words: command_pause(words, "unpause"),
        "stop": command_stop,
        "list": command_list,
    }
    try:
        if word not in calls:
            raise GuestProblem(f"{word}: no such command: {', '.join(COMMANDS)}", 2)
        return calls[word](rest)
    except GuestProblem as problem:
        print(f"xenguest: {problem}", file=sys.stderr)
        return problem.code
    except KeyboardInterrupt:
        return 130
