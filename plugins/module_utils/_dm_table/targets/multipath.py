# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
``multipath #f FEATURE... #h HANDLER... GROUPS FIRST (SELECTOR #a ARGUMENT... PATHS #pa (DEV
ARGUMENT...)*PATHS)*GROUPS``: several paths to one disk.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Sources: ``drivers/md/dm-mpath.c``, ``dm-ps-*.c``.
"""

from __future__ import annotations

import re
from collections import namedtuple

from ..grammar.fields import BAD, Device, Number, Word
from ..grammar.layout import Flag, Item, Options, Pair, Texts, read_field
from ..grammar.target import Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from ..grammar.context import Facts
    from ..grammar.fields import Change, Field, FieldValue
    from ..grammar.layout import Words
    from ..grammar.report import LineReport

_CPUS = re.compile(r"[0-9A-Fa-f]{1,8}(?:,[0-9A-Fa-f]{1,8})*\Z")
_U32 = Number("argument")
_BELOW_1024 = Number("argument", high=1023)
_PERCENT = Number("argument", high=100)

# Selector: (its own arguments, the arguments of a path, the least number of path arguments).
SELECTORS = {
    "round-robin": ((), (_U32,), 0),
    "queue-length": ((), (_U32,), 0),
    "service-time": ((), (_U32, _PERCENT), 0),
    "historical-service-time": ((_BELOW_1024, _U32), (_U32,), 0),
    "io-affinity": ((), (None,), 1),
}
_SELECTOR = Word("selector", tuple(SELECTORS), fold=False)
_DEVICE = Device("device")

# ``arguments`` are tuples of words.
Path = namedtuple("Path", ("device", "arguments"))
PathGroup = namedtuple("PathGroup", ("selector", "arguments", "paths"))


def _check_arguments(
    arguments: Sequence[str], fields: Sequence[Field | None], path: str, report: LineReport
) -> bool:
    """Whether the arguments of a selector or a path are valid."""
    if len(arguments) > len(fields):
        report.error(path, " ".join(arguments), f"a list of at most {len(fields)} arguments")
        return False
    good = True
    for word, field in zip(arguments, fields):
        if field is not None:
            good = field.read(word, path, report) is not BAD and good
        elif not _CPUS.match(word):
            report.error(path, word, "a CPU mask in hex")
            good = False
    return good


class _Groups(Item):
    """The path groups, with their number and the number of the first one to use."""

    names = ("first_group", "groups")
    number = Number("#groups", high=1024)
    first = Number("first_group", high=1024)

    def read(self, words: Words, out: dict[str, Any]) -> Any:
        count = read_field(self.number, words, "#groups")
        out["first_group"] = read_field(self.first, words, "first_group")
        out["groups"] = BAD
        if BAD in (count, out["first_group"]):
            words.at = words.stop
            return
        groups = []
        for index in range(count):
            group = self._read_group(words, f"groups[{index}]")
            if group is BAD:
                words.at = words.stop
                return
            groups.append(group)
        out["groups"] = tuple(groups)

    def _read_group(self, words: Words, path: str) -> Any:
        selector = read_field(_SELECTOR, words, f"{path}.selector")
        if selector is BAD:
            return BAD
        count = read_field(Number("#arguments", high=1024), words, f"{path}.#arguments")
        if count is BAD:
            return BAD
        if count > words.left():
            words.report.error(
                f"{path}.#arguments", str(count), f"the number of words that follow; there are {words.left()}"
            )
            return BAD
        arguments = tuple(words.take(f"{path}.arguments") or "" for unused in range(count))
        number = read_field(Number("#paths", low=1, high=1024), words, f"{path}.#paths")
        width = read_field(Number("#path_arguments", high=1024), words, f"{path}.#path_arguments")
        if BAD in (number, width):
            return BAD
        if words.left() < number * (width + 1):
            words.report.error(
                f"{path}.#paths",
                str(number),
                f"the number of paths of {width + 1} words that follow; there are {words.left()} words",
            )
            return BAD
        own, each, needed = SELECTORS[selector]
        good = _check_arguments(arguments, own, f"{path}.arguments", words.report)
        paths = []
        for index in range(number):
            place = f"{path}.paths[{index}]"
            device = read_field(_DEVICE, words, f"{place}.device")
            given = tuple(words.take(f"{place}.arguments") or "" for unused in range(width))
            good = (
                self._check_path(given, each, needed, f"{place}.arguments", words.report)
                and device is not BAD
                and good
            )
            paths.append(Path(device, given))
        return PathGroup(selector, arguments, tuple(paths)) if good else BAD

    @staticmethod
    def _check_path(
        given: Sequence[str], each: Sequence[Field | None], needed: int, path: str, report: LineReport
    ) -> bool:
        if len(given) < needed:
            report.error(path, " ".join(given), f"a list of at least {needed} arguments")
            return False
        return _check_arguments(given, each, path, report)

    def load(self, plain: Any, out: dict[str, Any], report: LineReport) -> Any:
        groups = plain.get("groups")
        groups = [] if groups is None else groups
        first = plain.get("first_group")
        if first is None:
            out["first_group"] = 1 if groups else 0
        else:
            out["first_group"] = self.first.load(first, "first_group", report)
        out["groups"] = BAD
        if not isinstance(groups, (list, tuple)) or len(groups) > 1024:
            report.error("groups", None, "a list of at most 1024 groups")
            return
        loaded = [self._load_group(group, f"groups[{index}]", report) for index, group in enumerate(groups)]
        if BAD not in loaded:
            out["groups"] = tuple(loaded)

    def _words(self, plain: Any, path: str, report: LineReport) -> Any:
        value = plain.get("arguments") or []
        if isinstance(value, (list, tuple)):
            value = [
                str(word) if isinstance(word, int) and not isinstance(word, bool) else word for word in value
            ]
            if all(isinstance(word, str) for word in value):
                return tuple(value)
        report.error(f"{path}.arguments", None, "a list of words and numbers")
        return BAD

    def _load_group(self, plain: Any, path: str, report: LineReport) -> Any:
        if not isinstance(plain, dict) or set(plain) - {"selector", "arguments", "paths"}:
            report.error(path, None, "a dictionary with selector, arguments, paths")
            return BAD
        selector = _SELECTOR.load(plain.get("selector"), f"{path}.selector", report)
        arguments = self._words(plain, path, report)
        members = plain.get("paths")
        if not isinstance(members, (list, tuple)) or not 1 <= len(members) <= 1024:
            report.error(f"{path}.paths", None, "a list of 1 to 1024 paths")
            return BAD
        if BAD in (selector, arguments):
            return BAD
        own, each, needed = SELECTORS[selector]
        good = _check_arguments(arguments, own, f"{path}.arguments", report)
        paths = []
        for index, member in enumerate(members):
            place = f"{path}.paths[{index}]"
            if not isinstance(member, dict) or set(member) - {"device", "arguments"}:
                report.error(place, None, "a dictionary with device, arguments")
                return BAD
            device = _DEVICE.load(member.get("device"), f"{place}.device", report)
            given = self._words(member, place, report)
            good = (
                given is not BAD
                and device is not BAD
                and self._check_path(given, each, needed, f"{place}.arguments", report)
                and good
            )
            paths.append(Path(device, given))
        if good and len({len(member.arguments) for member in paths}) != 1:
            report.error(f"{path}.paths", None, "a list in which all paths have the same number of arguments")
            good = False
        return PathGroup(selector, arguments, tuple(paths)) if good else BAD

    def show(self, target: Any) -> Any:
        words = [str(len(target.groups)), str(target.first_group)]
        for group in target.groups:
            words += [group.selector, str(len(group.arguments))] + list(group.arguments)
            words += [str(len(group.paths)), str(len(group.paths[0].arguments))]
            for path in group.paths:
                words += [_DEVICE.show(path.device)] + list(path.arguments)
        return words

    def dump(self, target: Any, out: dict[str, Any]) -> Any:
        out["first_group"] = target.first_group
        out["groups"] = [
            {
                "selector": group.selector,
                "arguments": list(group.arguments),
                "paths": [{"device": path.device, "arguments": list(path.arguments)} for path in group.paths],
            }
            for group in target.groups
        ]

    def fields(self, target: Any) -> Iterable[FieldValue]:
        return [
            (f"groups[{index}].paths[{number}].device", _DEVICE, path.device)
            for index, group in enumerate(target.groups)
            for number, path in enumerate(group.paths)
        ]

    def rebuild(self, target: Any, change: Change) -> dict[str, Any]:
        return {
            "groups": tuple(
                group._replace(
                    paths=tuple(
                        path._replace(
                            device=change(f"groups[{index}].paths[{number}].device", _DEVICE, path.device)
                        )
                        for number, path in enumerate(group.paths)
                    )
                )
                for index, group in enumerate(target.groups)
            )
        }


class Multipath(Target):
    """
    ``first_group`` counts from 1; it is 0 if there are no groups. ``handler``: the name of a hardware handler
    and its arguments.
    """

    TYPE = "multipath"
    LAYOUT = (
        Options(
            (
                Flag("queue_if_no_path"),
                Pair(Number("pg_init_retries", low=1, high=50)),
                Pair(Number("pg_init_delay_msecs", high=60000, unit="milliseconds")),
                Flag("retain_attached_hw_handler"),
                Pair(Word("queue_mode", ("bio", "rq", "mq"), implied="rq")),
            ),
            high=8,
            required=True,
        ),
        Texts("handler"),
        _Groups(),
    )

    def check(self, report: LineReport) -> None:
        if bool(self.groups) != bool(self.first_group) or self.first_group > len(self.groups):
            report.error(
                "first_group",
                self.first_group,
                f"from 1 to the number of groups, {len(self.groups)}" if self.groups else "0, without groups",
            )
        if self.handler and self.queue_mode == "bio":
            report.error("handler", " ".join(self.handler), "absent with queue_mode bio")

    def areas(self, facts: Facts) -> dict[str, tuple[int, int]]:
        return {
            f"groups[{index}].paths[{number}].device": (self.start, self.length)
            for index, group in enumerate(self.groups)
            for number in range(len(group.paths))
        }

    def canonical(self) -> Any:
        target = super().canonical()
        # Handler arguments are not printed back, and repeat counts are at most 1.
        return target.replace(
            queue_mode=None if target.queue_mode == "mq" else target.queue_mode,
            handler=target.handler[:1],
            # Since 4.3 the kernel always retains it and prints the option regardless.
            retain_attached_hw_handler=False,
            groups=tuple(_canonical_group(group) for group in target.groups),
        )


def _canonical_group(group: PathGroup) -> PathGroup:
    arguments = tuple(_plain(word) for word in group.arguments)
    if group.selector == "historical-service-time":
        arguments += ("972", "0")[len(arguments) :]
    return group._replace(
        arguments=arguments,
        paths=tuple(
            path._replace(arguments=_canonical_path(group.selector, path.arguments)) for path in group.paths
        ),
    )


def _plain(word: str) -> str:
    return str(int(word)) if word.isdigit() else word


def _canonical_path(selector: str, words: Sequence[str]) -> Sequence[str]:
    if selector == "io-affinity":
        return words
    if selector == "historical-service-time":
        return ("0",)
    repeat = str(min(int(words[0]), 1)) if words else "1"
    if selector == "service-time":
        return (repeat, _plain(words[1]) if len(words) > 1 else "1")
    return (repeat,)
