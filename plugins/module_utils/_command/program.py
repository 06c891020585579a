# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The program racefree-open: become a command that has paths of held devices.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import NamedTuple, NoReturn

from .._base.errors import BlockError, InvalidValue
from .._process import descriptors
from .._source import spec
from .._source.resources import Resources
from . import devices, holding, lookup, tools, words

NAME = "racefree-open"
# As env(1) and timeout(1): the program itself failed; the command cannot be executed; it was not found.
FAILED, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127
_HELP = f"""\
Usage: {NAME} [OPTION]... SOURCE [SOURCE]... -- COMMAND [ARGUMENT]...

Open the device of each SOURCE, prove that it is the right one, and become COMMAND, with the devices held
open until it has ended. In the arguments, {{1}} stands for a path of the first device, {{2}} for one of the
second. {{{{1}}}} is the text {{1}}. Other braces are unchanged.

SOURCE:
  diskseq:N  diskseq:N-partP  diskseq:N@BOOT  the disk with this disk sequence number, or its partition P
  path:/dev/vg/a  /dev/vg/a                   the device that is at this path now
  dm:NAME,UUID                                the mapped device that has this name and this UUID
  file:/srv/a.raw  file:raw:/srv/a.raw        a loop device over this file; if there is none, one is made that
                                              goes with its last user

Options:
  --exclusive   claim the devices: fail if somebody has one open exclusively, and let nobody do so until the
                command has ended. A command that does this itself gets the claim when it starts
  --path STYLE  which path it is: descriptor (/proc/self/fd/N, for a command that opens it itself),
                by-diskseq (/dev/disk/by-diskseq/N, which needs the role block_names), or auto, which is the
                right one for commands that are known, and by-diskseq for others
  --fd          {{1}} is the number of an open descriptor, for commands that take one
  --help        show this text

Exit codes: that of the command; {FAILED} if {NAME} fails, {NOT_EXECUTABLE} if the command cannot be executed,
{NOT_FOUND} if there is no such command.

  {NAME} diskseq:42 -- mkfs.ext4 {{1}}
  {NAME} --fd diskseq:42 -- sh -c 'exec dd if=image bs=1M >&"$0"' {{1}}
"""
_PATHS = {"auto": None, "descriptor": tools.DESCRIPTOR, "by-diskseq": tools.BY_DISKSEQ}
# Python ignores these, and a command would inherit that.
_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)


class Call(NamedTuple):
    """What was asked for: texts of sources and words of the command. ``style`` as for ``devices.Choice``."""

    sources: list[str]
    command: list[str]
    style: str | None = None
    exclusive: bool = False


def main(arguments: list[str]) -> int:
    """Become the command, or return the exit code of an error that was printed, or of --help."""
    try:
        if arguments[:1] == ["--help"]:
            sys.stdout.write(_HELP)
            return 0
        call = parse(arguments)
        descriptors.raise_limit()
        _become(call)
    except lookup.NoProgram as error:
        sys.stderr.write(f"{NAME}: {error}\n")
        return NOT_FOUND if error.errno_name == "ENOENT" else NOT_EXECUTABLE
    except BlockError as error:
        sys.stderr.write(f"{NAME}: {error}\n")
        return FAILED


def parse(arguments: list[str]) -> Call:
    """The call from the arguments; InvalidValue."""
    if "--" not in arguments:
        raise InvalidValue(
            "arguments", " ".join(arguments), f"must be SOURCE... -- COMMAND...; see {NAME} --help"
        )
    middle = arguments.index("--")
    call = Call([], arguments[middle + 1 :])
    rest = arguments[:middle]
    while rest and rest[0].startswith("--"):
        option = rest.pop(0)
        name, equals, value = option.partition("=")
        if name == "--path" and not equals and rest:
            value = rest.pop(0)
        if option == "--exclusive":
            call = call._replace(exclusive=True)
        elif option == "--fd":
            call = call._replace(style=tools.NUMBER)
        elif name == "--path" and value in _PATHS:
            call = call._replace(style=_PATHS[value])
        else:
            wrong = f"must be one of {', '.join(_PATHS)}" if name == "--path" else "there is no such option"
            raise InvalidValue(name, value, f"{wrong}; see {NAME} --help")
    if not rest:
        raise InvalidValue("SOURCE", None, f"must be given at least once, before --; see {NAME} --help")
    return call._replace(sources=rest)


def _become(call: Call) -> NoReturn:
    names = [str(number) for number in range(1, len(call.sources) + 1)]
    command = words.Words(call.command, names, words.NUMBER, "COMMAND", "SOURCE")
    sources = {name: spec.parse(text, option=f"SOURCE {name}") for name, text in zip(names, call.sources)}
    environment = lookup.environment_of({})
    program = lookup.find_program(command.words[0], environment["PATH"])
    with contextlib.ExitStack() as kept:
        # Whatever else the run needed, such as udev's cookie, is removed before the command starts.
        with Resources() as resources:
            given = devices.Devices(resources, devices.Choice(program, call.style, call.exclusive), kept)
            for text in given.open(sources) + resources.warnings:
                sys.stderr.write(f"{NAME}: warning: {text}\n")
            if given.to_hold:
                os.close(holding.hold_until_ended(given.to_hold, os.getpid())[1])
            given.start()
        _execute(program, command.filled(given.texts), environment, given.inherited)


def _execute(program: str, argv: list[str], environment: dict[str, str], inherited: list[int]) -> NoReturn:
    for number in _IGNORED:
        signal.signal(number, signal.SIG_DFL)
    for fd in inherited:
        os.set_inheritable(fd, True)
    try:
        os.execve(program, argv, environment)
    except OSError as error:
        raise lookup.NoProgram(
            f"it cannot be executed: {error.strerror}",
            device=program,
            errno=error.errno,
            hint="See whether it is a program for this machine, and whether its interpreter is installed",
        ) from error
