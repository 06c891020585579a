# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What ``device_command`` does.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import contextlib
import datetime
import fnmatch
import glob
import os
import select
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from .._base import gone
from .._base.errors import BlockError, InvalidValue
from .._command import devices, holding, lookup, run, tools, words
from .._source import spec
from .._source.resources import Resources
from . import runner
from .item import Params, check_seconds

# Seconds for the devices to be closed once the command has ended.
_CLOSING_SECONDS = 5.0

ARGUMENTS = {
    "argv": {"type": "list", "elements": "str", "required": True},
    "devices": {"type": "dict", "required": True},
    "path_style": {"type": "str", "choices": ["auto", *tools.STYLES], "default": "auto"},
    "exclusive": {"type": "bool", "default": False},
    "creates": {"type": "path"},
    "removes": {"type": "path"},
    "chdir": {"type": "path"},
    "environment": {"type": "dict", "default": {}},
    "stdin": {"type": "str", "no_log": True},
    "hide_stdin": {"type": "bool", "default": True, "no_log": False},
    "timeout": {"type": "int", "default": 3600},
}
# Characters of the shortest line of the input that is masked: a single one would be masked in every word.
_LEAST_MASKED = 4


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    if not module.params["hide_stdin"]:
        module.no_log_values.discard(module.params["stdin"])
    elif module.params["stdin"] is not None:
        # Ansible masks the text only where it occurs as a whole.
        module.no_log_values.update(_as_shown(module.params["stdin"]))

    def work(resources: Resources) -> dict[str, Any]:
        command = Command(module.params, resources)
        return command.look() if module.check_mode else command.run()

    # The time limit is the command's own. Opening the devices may take as long as in other modules.
    runner.run_with(module, [{}], work)


class CommandFailed(BlockError):
    """The command ended with another exit code than 0, or was killed."""

    HINT = "See stderr and stdout"


class Command:
    """One command. The options are checked when it is created: InvalidValue, NoProgram, NotSupported."""

    def __init__(self, params: Params, resources: Resources) -> None:
        self.params = params
        self.resources = resources
        check_seconds(params, "timeout", 1)
        self.sources = _sources(params["devices"])
        self.words = words.Words(params["argv"], self.sources)
        for option in ("chdir", "creates", "removes"):
            if params[option] is not None:
                words.check_text(params[option], option)
                if not params[option]:
                    raise InvalidValue(option, "", "must be a path: leave it out if there is none")
        self.environment = lookup.environment_of(_environment(params["environment"]))
        self.stdin = None if params["stdin"] is None else _bytes_of(params["stdin"])
        # Made absolute, as the process is started from another directory.
        self.directory = params["chdir"] and os.path.abspath(params["chdir"])

    def look(self) -> dict[str, Any]:
        """Check mode: everything that can be checked without creating a device."""
        why = self._why_not()
        if why is not None:
            return why
        found = self._devices()
        found.look(self.sources)
        told: dict[str, Any] = dict.fromkeys(self.sources)
        told.update((name, device.as_dict()) for name, device in found.found.items())
        return {
            "changed": True,
            "rc": 0,
            "msg": "The command would have run if not in check mode",
            "cmd": self.words.words,
            "devices": told,
        }

    def run(self) -> dict[str, Any]:
        """Open the devices and run the command."""
        why = self._why_not()
        if why is not None:
            return why
        program, found = self._program(), self._devices()
        self.resources.warnings.extend(found.open(self.sources))
        argv = self.words.filled(found.texts)
        job = run.Job(
            program,
            argv,
            self.environment,
            self.directory,
            self.stdin,
            found.inherited,
        )
        result = {
            "cmd": argv,
            "devices": {
                name: dict(device.as_dict(), given=found.texts[name]) for name, device in found.found.items()
            },
            "exclusive": self._claim(),
        }
        with contextlib.ExitStack() as stack:

            def hold(pid: int) -> list[int]:
                if not found.to_hold:
                    return []
                holder, pipe = holding.hold_until_ended(found.to_hold, pid)
                stack.callback(_wait_for_end, pipe)
                return [holder]

            found.start()
            ended = run.run(job, self.params["timeout"], hold)
        found.let_go()
        result.update(_described(ended))
        return dict(result, **_failure(argv[0], ended, found))

    def _claim(self) -> str | None:
        if not self.params["exclusive"]:
            return None
        return "handed_over" if self._choice().hands_over else "held"

    def _program(self) -> str:
        if self.directory is not None:
            lookup.need_directory(self.directory, "chdir")
        return lookup.find_program(self.words.words[0], self.environment["PATH"], self.directory)

    def _choice(self) -> devices.Choice:
        style = self.params["path_style"]
        return devices.Choice(self._program(), None if style == "auto" else style, self.params["exclusive"])

    def _devices(self) -> devices.Devices:
        return devices.Devices(self.resources, self._choice())

    def _why_not(self) -> dict[str, Any] | None:
        """The result if the command need not run: what it creates is there, or what it removes is not."""
        for option, wanted in (("creates", True), ("removes", False)):
            path = self.params[option]
            if path is not None and self._is_there(path) is wanted:
                what = f"{path} {'exists' if wanted else 'does not exist'}"
                return {
                    "changed": False,
                    "rc": 0,
                    "stdout": f"skipped, since {what}",
                    "stderr": "",
                    "msg": f"Did not run the command, since {what}",
                    "cmd": self.words.words,
                    "devices": {},
                }
        return None

    def _is_there(self, pattern: str) -> bool:
        path = os.path.join(self.directory or "", pattern)
        return gone.exists(path) or bool(_matches(path))


def _matches(pattern: str) -> list[str]:
    """Like glob.glob, which takes a directory that cannot be listed for an empty one. Raises KernelError."""
    if not glob.has_magic(pattern):
        return [pattern] if gone.exists(pattern, follow_symlinks=False) else []
    above, name = os.path.split(pattern)
    found = []
    for directory in _matches(above) if above not in ("", "/") else [above]:
        if not glob.has_magic(name):
            # An empty name is that of a directory.
            if gone.exists(os.path.join(directory, name), follow_symlinks=False):
                found.append(os.path.join(directory, name))
            continue
        for entry in gone.list_directory(directory or "."):
            if fnmatch.fnmatch(entry, name) and (name.startswith(".") or not entry.startswith(".")):
                found.append(os.path.join(directory, entry))
    return found


def _as_shown(text: str) -> set[str]:
    """
    The texts that the result may contain if a command prints its input: all of it, as the result shows it,
    and each line, with and without the spaces around it.
    """
    try:
        shown = _text(_bytes_of(text))
    except InvalidValue:
        # The command is not run.
        return set()
    lines = {part for each in (text, shown) for part in (each, *each.split("\n"), *each.splitlines())}
    texts = {part for line in lines for part in (line, line.strip())}
    return {part for part in texts if len(part) >= _LEAST_MASKED}


def _bytes_of(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise InvalidValue("stdin", "(not shown)", "must be text that UTF-8 can represent") from None


def _sources(given: dict[Any, Any]) -> dict[str, Any]:
    if not given:
        raise InvalidValue(
            "devices",
            None,
            "must have at least one device; run a command without one by ansible.builtin.command",
        )
    found = {}
    for name, source in given.items():
        if not words.is_name(name):
            raise InvalidValue(f"devices.{name}", "(not shown)", "must have a name of letters, digits and _")
        found[name] = spec.parse(source, option=f"devices.{name}")
    return found


def _environment(given: dict[Any, Any]) -> dict[str, str]:
    found = {}
    for name, value in given.items():
        option = f"environment.{name}"
        words.check_text(name, "environment")
        if not name or "=" in name:
            raise InvalidValue(option, "(not shown)", "is not the name of a variable")
        if isinstance(value, (dict, list)) or value is None:
            raise InvalidValue(option, "(not shown)", "must be text")
        try:
            found[name] = words.check_text(str(value), option)
        except InvalidValue as error:
            raise InvalidValue(option, "(not shown)", error.wrong) from None
    return found


def _wait_for_end(pipe: int) -> None:
    """
    Wait until the process that holds the devices has closed them. A command that could not be ended keeps
    them held.
    """
    try:
        select.select([pipe], [], [], _CLOSING_SECONDS)
    finally:
        os.close(pipe)


def _described(ended: run.Ended) -> dict[str, Any]:
    start, end = (datetime.datetime.fromtimestamp(moment) for moment in (ended.start, ended.end))
    return {
        "changed": True,
        "rc": ended.rc,
        "stdout": _text(ended.stdout),
        "stderr": _text(ended.stderr),
        "start": str(start),
        "end": str(end),
        "delta": str(end - start),
    }


def _text(output: bytes) -> str:
    return output.decode("utf-8", "replace").rstrip("\r\n")


def _failure(program: str, ended: run.Ended, found: devices.Devices) -> dict[str, Any]:
    """What is added to the result if the command failed, or ran with another medium in a device."""
    error: BlockError | None = ended.error
    if ended.rc:
        how = f"exit code {ended.rc}" if ended.rc > 0 else f"signal {-ended.rc}"
        error = CommandFailed(f"it ended with {how} (non-zero return code)", device=program)
    if error is None:
        try:
            found.prove()
        except BlockError as exchanged:
            error = exchanged
    return {} if error is None else {"msg": str(error), "error": error.as_dict()}
