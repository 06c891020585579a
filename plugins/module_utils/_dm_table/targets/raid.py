# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
``raid TYPE #p CHUNK [PARAMETER...] n (META|- DATA|-)*n``: md's RAID levels.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Source: ``drivers/md/dm-raid.c``.
"""

from __future__ import annotations

from ..grammar.fields import BAD, Device, Number, Signed, Word, is_power_of_two
from ..grammar.layout import CountOf, Flag, Many, Options, Pair, Repeat, load_field, read_field
from ..grammar.limits import Limits
from ..grammar.stops import UNFINISHED_SYNC
from ..grammar.target import Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ..grammar.context import Facts
    from ..grammar.layout import Option, Words
    from ..grammar.report import LineReport

_MOST = 253
_RAID5 = ("n", "ls", "rs", "la", "ra")
_RAID6 = ("zr", "nr", "nc", "n_6", "ls_6", "rs_6", "la_6", "ra_6")
_SYNC = frozenset(("sync", "nosync"))
_COMMON = _SYNC | {
    "rebuild",
    "daemon_sleep",
    "min_recovery_rate",
    "max_recovery_rate",
    "region_size",
    "delta_disks",
    "data_offset",
}
_456 = _COMMON | {"stripe_cache", "journal_dev", "journal_mode"}
_RAID10 = _COMMON | {"raid10_copies", "raid10_format", "raid10_use_near_sets"}


def _types() -> Any:
    """{type: (level, parity devices, minimum number of devices, accepted parameters)}"""
    types = {
        "raid0": (0, 0, 2, frozenset(("data_offset",))),
        "raid1": (1, 0, 2, _COMMON | {"write_mostly", "max_write_behind"}),
        "raid4": (4, 1, 2, _456),
    }
    for name in ("raid10", "raid10_near", "raid10_far", "raid10_offset"):
        types[name] = (10, 0, 2, _RAID10)
    for name in _RAID5:
        types[f"raid5_{name}"] = (5, 1, 2, _456)
    for name in _RAID6:
        types[f"raid6_{name}"] = (6, 2, 4, _456 - {"nosync"})
    return types


TYPES = _types()
_CHUNK = Number("chunk_size", high=1 << 30, unit="sectors")
_JOURNAL_SECTORS = 4 * 2048
_RESHAPE_SECTORS = 32


class _Parameters(Options):
    """The count (which includes the chunk size), the chunk size, and the parameters."""

    def __init__(self, options: Iterable[Option]) -> None:
        super().__init__(options, name="parameters", required=True)
        self.names = ("chunk_size",) + self.names

    def read(self, words: Words, out: dict[str, Any]) -> Any:
        report = words.report
        for option in self.options:
            out[option.name] = option.default
        count = read_field(Number(self.path, low=1), words, self.path)
        out["chunk_size"] = BAD
        if count is BAD:
            words.at = words.stop
            return
        if count > words.left():
            report.error(self.path, str(count), f"the number of words that follow, at most {words.left()}")
            words.at = words.stop
            return
        stop = words.stop
        words.stop = words.at + count
        out["chunk_size"] = read_field(_CHUNK, words, "chunk_size")
        self.read_words(words, out)
        words.stop = stop

    def load(self, plain: Any, out: dict[str, Any], report: LineReport) -> Any:
        super().load(plain, out, report)
        out["chunk_size"] = load_field(_CHUNK, plain, "chunk_size", report)

    def show(self, target: Any) -> Any:
        words = super().show(target)
        return [str(len(words)), str(target.chunk_size)] + words[1:]

    def dump(self, target: Any, out: dict[str, Any]) -> Any:
        out["chunk_size"] = target.chunk_size
        super().dump(target, out)


class _DeviceOrNone(Device):
    """A device or ``-`` for none."""

    rule = "a device, or - for none"

    def read(self, word: str, path: str, report: LineReport) -> Any:
        return None if word == "-" else super().read(word, path, report)

    def load(self, plain: Any, path: str, report: LineReport) -> Any:
        return None if plain == "-" else super().load(plain, path, report)


class _Members(Repeat):
    """Pairs of devices; ``-`` means none."""

    def _show_one(self, value: Any) -> list[str]:
        return [field.show(part) if part is not None else "-" for field, part in zip(self.parts, value)]


class Raid(Target):
    """
    ``chunk_size``, ``region_size`` and ``data_offset`` in sectors, rates in KiB/s. ``rebuild`` and
    ``write_mostly`` are lists of device indexes.
    """

    TYPE = "raid"
    OWN = ("metadata",)
    LAYOUT = (
        Word("level", tuple(TYPES)),
        _Parameters(
            (
                Flag("sync"),
                Flag("nosync"),
                Many(Number("rebuild", high=_MOST - 1)),
                Pair(Number("daemon_sleep", high=Limits.INT)),
                Pair(Number("min_recovery_rate", high=Limits.INT)),
                Pair(Number("max_recovery_rate", high=Limits.INT)),
                Many(Number("write_mostly", high=_MOST - 1)),
                Pair(Number("max_write_behind", high=2 * 16382 + 1)),
                Pair(Number("stripe_cache", high=Limits.INT)),
                Pair(Number("region_size", low=1, high=Limits.INT, unit="sectors")),
                Pair(Number("raid10_copies", low=2, high=_MOST)),
                Pair(Word("raid10_format", ("near", "far", "offset"))),
                Pair(Signed("delta_disks", low=-_MOST, high=_MOST)),
                Pair(Number("data_offset", high=Limits.INT, unit="sectors")),
                Pair(Device("journal_dev")),
                Pair(Word("journal_mode", ("writethrough", "writeback"))),
                Flag("raid10_use_near_sets"),
            )
        ),
        CountOf("members", high=_MOST),
        _Members(
            "members",
            (_DeviceOrNone("metadata", default=None), _DeviceOrNone("data", default=None)),
            high=_MOST,
        ),
    )

    def check(self, report: LineReport) -> None:
        level, parity, fewest, taken = TYPES[self.level]
        count = len(self.members)
        parameters: Any = self.ITEMS[1]
        if count < fewest:
            report.error("#members", count, f"at least {fewest} devices for {self.level}")
            return
        for option in parameters.options:
            if not option.absent(getattr(self, option.name)) and option.name not in taken:
                report.error(option.name, None, f"is not a parameter of {self.level}")
        self._check_chunk(level, report)
        self._check_sync(count, report)
        self._check_members(level, parity, count, report)
        self._check_layout(level, fewest, count, report)
        width = count if level == 10 else 1 if level == 1 else count - parity
        if self.length * (self._copies() if level == 10 else 1) % width:
            report.error("length", self.length, f"a multiple of the number of data devices, {width}")

    def _copies(self) -> int:
        return self.raid10_copies or 2

    def _check_chunk(self, level: Any, report: LineReport) -> None:
        if level != 1 and not (is_power_of_two(self.chunk_size) and self.chunk_size >= 8):
            report.error("chunk_size", self.chunk_size, "a power of 2, at least 8 sectors")
        region = self.region_size
        if region is not None and level != 0:
            fewest = self.length // (1 << 21)
            if not is_power_of_two(region):
                report.error("region_size", region, "a power of 2, in sectors")
            elif not fewest <= region <= self.length:
                report.error("region_size", region, f"from {fewest} to {self.length} sectors for this length")
            elif level != 1 and region < self.chunk_size:
                report.error("region_size", region, f"at least the chunk size, {self.chunk_size} sectors")

    def _check_sync(self, count: int, report: LineReport) -> None:
        if self.sync and self.nosync:
            report.error("nosync", None, "cannot be combined with sync")
        if self.rebuild and (self.sync or self.nosync):
            report.error("rebuild", None, "cannot be combined with sync or nosync")
        for name in ("rebuild", "write_mostly"):
            for index in getattr(self, name):
                if index >= count:
                    report.error(name, index, f"an index of a device, from 0 to {count - 1}")
        if len(self.write_mostly) >= count:
            report.error("write_mostly", None, "must leave at least one device that is not rebuilt")
        if self.max_recovery_rate and (self.min_recovery_rate or 0) > self.max_recovery_rate:
            report.error(
                "min_recovery_rate",
                self.min_recovery_rate,
                f"at most max_recovery_rate, {self.max_recovery_rate}",
            )
        if (
            self.sync
            and TYPES[self.level][0] in (4, 5, 6)
            and all(member.metadata is None for member in self.members)
        ):
            report.stops(UNFINISHED_SYNC, "sync", None, "combined with metadata devices")
        if self.journal_mode is not None and self.journal_dev is None:
            report.error("journal_mode", self.journal_mode, "needs journal_dev")

    def _check_members(self, level: Any, parity: Any, count: int, report: LineReport) -> None:
        present = 0
        for index, member in enumerate(self.members):
            if member.data is not None:
                present += 1
            elif member.metadata is not None:
                report.error(f"members[{index}].data", "-", "a device, because there is one for the metadata")
            elif index in self.rebuild:
                report.error(f"members[{index}].data", "-", "a device, because it is to be rebuilt")
        if level == 10 and all(member.metadata is None for member in self.members):
            report.error(
                "members",
                None,
                "must include metadata devices for raid10: without them the kernel forgets the layout, "
                "and md refuses it",
            )
        needed = 1 if level == 1 else -(-count // self._copies()) if level == 10 else count - parity
        if present < needed:
            report.error("members", present, f"at least {needed} data devices of {count} for {self.level}")

    def _check_layout(self, level: Any, fewest: int, count: int, report: LineReport) -> None:
        if level == 10:
            if self._copies() > count:
                report.error("raid10_copies", self.raid10_copies, f"at most the number of devices, {count}")
            if self.raid10_use_near_sets and self.raid10_format in (None, "near"):
                report.error("raid10_use_near_sets", None, "is allowed only with raid10_format far or offset")
            if self.delta_disks is not None and self.delta_disks < 0:
                report.error(
                    "delta_disks", self.delta_disks, "more than 0 for raid10, which cannot lose devices"
                )
        if self.delta_disks is not None and not 1 <= abs(self.delta_disks) <= _MOST - fewest:
            report.error("delta_disks", self.delta_disks, f"from 1 to {_MOST - fewest} devices more or fewer")
        offset = self.data_offset
        if offset and (offset < _RESHAPE_SECTORS or offset % (report.context.page_size >> 9)):
            report.error(
                "data_offset", offset, f"0, or at least {_RESHAPE_SECTORS} sectors and a multiple of a page"
            )

    def _width(self) -> Any:
        level, parity, fewest, taken = TYPES[self.level]
        count = len(self.members)
        if level == 1:
            return self.length
        return (
            self.length * (self._copies() if level == 10 else 1) // (count if level == 10 else count - parity)
        )

    def areas(self, facts: Facts) -> dict[str, tuple[int, int]]:
        if self.delta_disks is not None or self.data_offset:
            # A reshape determines where the data are.
            return {}
        width = self._width()
        return {
            f"members[{index}].data": (0, width)
            for index, member in enumerate(self.members)
            if member.data is not None
        }

    def check_devices(self, facts: Facts, report: LineReport) -> None:
        seen: dict[tuple[int, int], str] = {}
        for path, device in facts.items():
            if device is None:
                continue
            if device.number in seen:
                report.error(
                    path, f"{device.major}:{device.minor}", f"a different device from {seen[device.number]}"
                )
            seen.setdefault(device.number, path)
        journal = facts.get("journal_dev")
        if journal is not None and journal.size_sectors < _JOURNAL_SECTORS:
            report.error(
                "journal_dev",
                f"{journal.major}:{journal.minor}",
                f"a device of at least {_JOURNAL_SECTORS} sectors",
            )

    def canonical(self) -> Any:
        target = super().canonical()
        changes: dict[str, Any] = {
            name: tuple(sorted(getattr(target, name))) for name in ("rebuild", "write_mostly")
        }
        if target.level == "raid1":
            changes["chunk_size"] = 0
        return target.replace(**changes)

    def same_field(self, path: str, mine: Any, theirs: Any) -> bool | None:
        if path == "max_write_behind" and mine is not None and theirs is not None:
            # The kernel counts in KiB, and prints KiB.
            return bool(mine // 2 == theirs or theirs // 2 == mine)
        if path == "stripe_cache" and mine is not None and theirs is not None:
            return None
        return False
