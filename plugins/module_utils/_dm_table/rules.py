# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Rules for the table as a whole.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Source: ``drivers/md/dm-table.c`` (dm_table_add_target, device_area_is_invalid,
validate_hardware_logical_block_alignment).
"""

from __future__ import annotations

from .grammar import kernels
from .grammar.context import NoDevice
from .grammar.fields import BAD
from .grammar.limits import Limits
from .grammar.report import Report
from .grammar.slot import canonical_slot
from .read import read
from .targets.linear import Linear

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from .grammar.context import Context, DeviceFacts, Facts
    from .grammar.report import LineReport
    from .grammar.slot import Slot
    from .grammar.target import Target
    from .read import Line


class _Checker:
    """Checks the lines of one table."""

    def __init__(self, lines: list[Line], report: Report) -> None:
        self.lines = lines
        self.report = report
        self.context = report.context
        self.known: dict[str, DeviceFacts | None] = {}
        # {text of a slot: reason why there is no such device}
        self.missing: dict[str, str] = {}

    def place(self, line: Line) -> LineReport:
        """
        A line report with the columns of the line's fields. They are determined only when an error is
        reported.
        """
        place = read(line.number, line.written, Report(self.context, self.report.redactor))[1]
        place.table = self.report
        place.failed = False
        return place

    def run(self) -> None:
        if not self.lines:
            if not self.report.errors:
                self.report.line(None, None).error("table", None, "must have at least one target")
            return
        if len(self.lines) > Limits.TARGETS:
            self.report.line(None, None).error(
                "table", len(self.lines), f"must have at most {Limits.TARGETS} targets"
            )
        self.positions()
        self.kinds()
        if not self.report.errors:
            self.check_shared_devices()
        if self.context.devices is not None:
            self.devices()

    def positions(self) -> None:
        end: int | None = 0
        limit = Limits.SECTORS
        previous = None
        for line in self.lines:
            start = line.start
            length = line.length
            if start is BAD:
                end = None
                previous = line
                continue
            if end is not None and start != end:
                if previous is None:
                    rule = "0, because this is the first target"
                elif start > end:
                    rule = f"{end}, where line {previous.number} ends: there is a gap"
                else:
                    rule = f"{end}, where line {previous.number} ends: the targets overlap"
                self.place(line).error("start", start, rule)
            if length is BAD:
                end = None
            else:
                end = start + length
                if start + length > limit:
                    self.place(line).error("length", length, f"at most {limit} sectors together with start")
            previous = line

    def kinds(self) -> None:
        context = self.context
        seen = {}
        for line in self.lines:
            if line.target is not None and line.target.TYPE not in seen:
                seen[line.target.TYPE] = line
        for name, line in seen.items():
            takes = kernels.TARGETS.get(name)
            if takes is not None:
                refused = context.refused_by(takes)
                if refused:
                    self.place(line).error(
                        "target", name, "is not a target type of this kernel", kernels=refused
                    )
            if context.targets is not None and name not in context.targets:
                self.place(line).error(
                    "target", name, f"a target type of this host, one of {', '.join(sorted(context.targets))}"
                )
            if context.read_only and name in kernels.ALWAYS_WRITABLE:
                self.place(line).error("target", name, "is not allowed in a read-only table")
            if context.read_only is False and name in kernels.READ_ONLY:
                self.place(line).error("target", name, "is allowed only in a read-only table")
        if len(self.lines) > 1:
            self.check_target_combinations(seen)

    def check_target_combinations(self, seen: dict[str, Line]) -> None:
        for name, line in seen.items():
            forbids = kernels.SINGLETON.get(name)
            if forbids is not None:
                refused = self.context.refused_by(kernels.refusing(forbids))
                if refused:
                    self.place(line).error(
                        "target",
                        name,
                        "the only target of its table",
                        kernels=() if forbids == kernels.KERNELS else refused,
                    )
                    continue
            if name in kernels.IMMUTABLE and len(seen) > 1:
                self.place(line).error("target", name, "cannot be combined with other target types")

    def check_shared_devices(self) -> None:
        """
        Check that two targets do not share a device on which one of them keeps its own records, nor one that
        is opened with less access first and with more later. In the latter case ``upgrade_mode()`` in
        ``drivers/md/dm-table.c`` frees the first target's handle of the device, which that target continues
        to use.
        """
        read_only = bool(self.context.read_only)
        if all(isinstance(line.target, Linear) for line in self.lines):
            return
        opened: dict[Any, tuple[str, int]] = {}
        owned: dict[Any, int] = {}
        for line in self.lines:
            if line.target is None:
                continue
            for slot in line.target.devices(None, read_only):
                device = self.identity(slot)
                access, number = opened.setdefault(device, (slot.access, line.number))
                owner = owned.setdefault(device, line.number) if slot.own else owned.get(device, line.number)
                if owner != line.number:
                    self._refuse_shared(line, slot, f"line {owner} stores metadata there")
                elif slot.own and number != line.number:
                    reason = f"{line.target.TYPE} stores metadata there, and line {number} uses it"
                    self._refuse_shared(line, slot, reason)
                elif set(slot.access) - set(access):
                    opened[device] = (slot.access + access, line.number)
                    self._refuse_upgrade(line, slot, access, number)

    def _refuse_shared(self, line: Line, slot: Slot, reason: str) -> None:
        self.place(line).error(
            slot.field, slot.text, f"a device that nothing else in the table uses: {reason}"
        )

    def _refuse_upgrade(self, line: Line, slot: Slot, access: str, number: int) -> None:
        """Refuse a device that line ``number`` has opened with less access."""
        only = "reading" if access == "r" else "writing"
        self.place(line).error(
            slot.field,
            slot.text,
            f"a device that line {number} does not open for {only} only: "
            "the kernel would use freed memory; put this target before that one, or use "
            "another device",
        )

    def identity(self, slot: Slot) -> Any:
        """The identity of a slot's device: its number if known, else its canonical text."""
        if self.context.devices is None:
            return str(canonical_slot(slot.value))
        if slot.text not in self.known:
            found = self.context.devices(slot)
            if isinstance(found, NoDevice):
                self.missing[slot.text], found = found.reason, None
            self.known[slot.text] = found
        known = self.known[slot.text]
        return str(canonical_slot(slot.value)) if known is None else known.number

    def facts(self, target: Target) -> Facts:
        """``{path of the field: DeviceFacts or None}`` of a target's slots."""
        result = {}
        for slot in target.devices():
            self.identity(slot)
            result[slot.field] = self.known[slot.text]
        return result

    def devices(self) -> None:
        stacked: list[int | None] = []
        for line in self.lines:
            target = line.target
            if target is None:
                stacked.append(None)
                continue
            facts = self.facts(target)
            stacked.append(self.target_devices(line, target, facts))
        blocks = [block for block in stacked if block is not None]
        if len(blocks) == len(stacked) and not self.report.errors:
            self.alignment(blocks)

    def target_devices(self, line: Line, target: Target, facts: Facts) -> int | None:
        """
        Check one target's devices. Returns the target's logical block size in bytes, or None if a device is
        unknown.
        """
        context = self.context
        slots = target.devices(facts, context.read_only)
        block = target.logical_block()
        unknown = False
        for slot in slots:
            device = facts[slot.field]
            if device is None:
                unknown = True
            elif slot.area is not None:
                block = max(block, device.logical_block)
        place = None
        for slot in slots:
            device = facts[slot.field]
            if device is None:
                if slot.text in self.missing:
                    place = place or self.place(line)
                    place.error(
                        slot.field, slot.text, f"a device that can be opened: {self.missing[slot.text]}"
                    )
                continue
            shown = f"{device.major}:{device.minor}"
            errors: list[tuple[Any, str]] = []
            if context.device is not None and (
                device.number == context.device or context.device in device.stack
            ):
                errors.append((shown, "must not depend on the device that the table is for"))
            if "w" in slot.access and device.read_only:
                errors.append((shown, "a writable device, or the table must be read-only"))
            if slot.area is not None and device.size_sectors:
                errors.extend(_area_errors(slot.area, device, block))
            for value, rule in errors:
                place = place or self.place(line)
                place.error(slot.field, value, rule)
        later: Any = place or _Later(self, line)
        target.check_devices(facts, later)
        return None if unknown else block

    def alignment(self, blocks: list[int]) -> None:
        """
        Check that every target ends on the table's logical block size, unless the remainder fits into the
        next target.
        """
        whole = max(blocks) >> 9
        remaining = 0
        following = 0
        for line, block in zip(self.lines, blocks):
            if remaining < line.length and remaining & ((block >> 9) - 1):
                self.place(line).error(
                    "start", line.start, f"a multiple of the logical block of the devices, {whole} sectors"
                )
                return
            following = (following + line.length) & (whole - 1)
            remaining = whole - following if following else 0
        if remaining:
            line = self.lines[-1]
            self.place(line).error(
                "length",
                line.length,
                f"such that the target ends at a multiple of the devices' logical block, {whole} sectors",
            )


class _Later:
    """A line report that determines the line's columns only when an error is reported."""

    def __init__(self, checker: _Checker, line: Line) -> None:
        self.checker = checker
        self.line = line
        self.place: LineReport | None = None

    def error(self, *args: Any, **kwargs: Any) -> None:
        self._found().error(*args, **kwargs)

    def stops(self, *args: Any) -> None:
        self._found().stops(*args)

    def _found(self) -> LineReport:
        if self.place is None:
            self.place = self.checker.place(self.line)
        return self.place

    @property
    def context(self) -> Context:
        return self.checker.context


def _area_errors(area: tuple[int, int], device: DeviceFacts, block: int) -> Iterator[tuple[int, str]]:
    offset, length = area
    size = device.size_sectors
    sectors = block >> 9
    if offset >= size or offset + length > size:
        yield offset, f"must have {length} sectors from sector {offset} on; it has {size} in all"
    elif offset % sectors:
        yield offset, f"must have an offset that is a multiple of the logical block, {sectors} sectors"
    elif length % sectors:
        yield length, f"must have a length that is a multiple of the logical block, {sectors} sectors"


def check(lines: list[Line], report: Report) -> None:
    """Report all errors of the table as a whole."""
    _Checker(lines, report).run()
