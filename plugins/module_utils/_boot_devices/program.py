# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Make the devices of the list, and take them down: ``start``, ``stop``, ``apply``, ``plan``.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

``start`` makes what is there agree with the list: devices that are no longer declared, or are declared
otherwise, are taken down first, in the opposite order of making. One that fails does not stop the others, and
is made at the next ``start``. ``apply`` does the same, and prints what it has done as JSON. ``plan`` reads a
list from standard input, changes nothing, and prints JSON.
"""

from __future__ import annotations

import json
import os
import socket
import sys

from .._base import gone, locks
from .._base.deadline import Deadline
from .._base.errors import BlockError, DeviceGone, InvalidValue
from .._base.record import Record
from . import config as _config
from . import devices, plan, records

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from typing import Any

# Another run may be waiting for late disks.
_TURN_SECONDS = 700
_LATE_SECONDS = 0.25
_ERROR, _WARNING = "<3>", "<4>"


class Outcome(Record):
    """What a run did: the facts of all devices by name, the names of changed ones, errors by name."""

    devices: dict[str, dict[str, Any]]
    changed: list[str]
    failed: dict[str, str]


def main(arguments: list[str]) -> int:
    """Run the program and return the exit code: 1 if any device failed. Errors go to standard error."""
    try:
        if arguments == ["plan"]:
            return _plan()
        if arguments not in (["start"], ["stop"], ["apply"]):
            raise InvalidValue("arguments", " ".join(arguments), "must be start, stop, apply or plan")
        with locks.held([locks.Lock("boot devices", "the devices of this boot")], Deadline(_TURN_SECONDS)):
            outcome = stop() if arguments == ["stop"] else start()
    except BlockError as error:
        _say(str(error))
        _notify(str(error))
        return 1
    for name, text in outcome.failed.items():
        _say(text if text.startswith(f"{name}: ") else f"{name}: {text}")
    _notify(_summary(outcome))
    if arguments == ["apply"]:
        sys.stdout.write(json.dumps(outcome._asdict()) + "\n")
    return 1 if outcome.failed else 0


def start() -> Outcome:
    """Make what is there agree with the list. The caller holds the lock. BlockError for the list itself."""
    config = _config.read()
    outcome = Outcome({}, [], {name: str(error) for name, error in config.wrong.items()})
    wanted = {entry.name: entry.text for entry in config.entries}
    for name, record in reversed(records.read_all().items()):
        if name not in config.wrong and wanted.get(name) != record.text:
            _take_down(record, outcome)
    late = [entry for entry in config.entries if entry.name not in outcome.failed]
    limit = Deadline(config.timeout)
    while late:
        is_last = limit.expired
        late = [entry for entry in late if not _have(entry, outcome, is_last)]
        if late:
            limit.sleep(_LATE_SECONDS)
    return outcome


def stop() -> Outcome:
    """Take down everything that was made here. The caller holds the lock. Raises KernelError."""
    outcome = Outcome({}, [], {})
    for record in reversed(records.read_all().values()):
        _take_down(record, outcome)
    return outcome


def _take_down(record: records.Made, outcome: Outcome) -> None:
    try:
        if devices.take_down(record):
            outcome.changed.append(record.name)
    except BlockError as error:
        outcome.failed[record.name] = str(error)


def _have(entry: _config.Entry, outcome: Outcome, is_last: bool) -> bool:
    """Whether nothing more is to be done for the entry. ``is_last``: do not wait for late disks any more."""
    known = records.read_all()
    order = 1 + max((record.order for record in known.values()), default=0)
    try:
        had = devices.have(entry, known.get(entry.name), order)
    except BlockError as error:
        if not is_last and _is_late(error):
            return False
        outcome.failed[entry.name] = str(error)
        return True
    for text in had.warnings:
        _say(f"{entry.name}: {text}", _WARNING)
    outcome.devices[entry.name] = had.facts
    if had.changed and entry.name not in outcome.changed:
        outcome.changed.append(entry.name)
    return True


def _is_late(error: BlockError) -> bool:
    """Whether a disk or a file that does not exist may appear soon: the host may be booting."""
    return isinstance(error, DeviceGone) or error.errno in gone.PATH


def _plan() -> int:
    config = _config.parse(sys.stdin.read(), "boot_devices_list")
    sys.stdout.write(json.dumps(plan.plan(config)._asdict()) + "\n")
    return 0


def _summary(outcome: Outcome) -> str:
    """One line for the status of the unit."""
    if not outcome.failed:
        return f"{len(outcome.devices)} devices are there"
    names = ", ".join(outcome.failed)
    return f"failed: {names}; {len(outcome.devices)} devices are there"


def _say(text: str, level: str = _ERROR) -> None:
    # systemd reads the priority from the beginning of a line (sd-daemon(3)).
    start = level if "JOURNAL_STREAM" in os.environ else ""
    line = "; ".join(text.splitlines())
    sys.stderr.write(f"{start}racefree-boot-devices: {line}\n")


def _notify(text: str) -> None:
    """Set the status of the unit (sd_notify(3)). Does nothing if systemd has not started this program."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    line = "STATUS=" + text.replace("\n", " ")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
            notify.sendto(line.encode("utf-8", "surrogateescape"), address)
    except OSError as error:
        _say(f"cannot set the status of the unit: {error}")
