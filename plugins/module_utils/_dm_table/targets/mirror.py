# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
``mirror core|disk #n [DEV] REGION [sync|nosync] m (DEV OFFSET)*m [#n FEATURE...]``: the same data on several
devices.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Sources: ``drivers/md/dm-raid1.c``, ``drivers/md/dm-log.c``. Userspace logs (dm-log-userspace) are not
supported.
"""

from __future__ import annotations

from ..grammar.fields import BAD, Device, Number, Sectors, Word
from ..grammar.layout import CountOf, Flag, Item, Options, Repeat, load_field, read_field
from ..grammar.limits import Limits
from ..grammar.target import Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ..grammar.context import Facts
    from ..grammar.fields import Change, FieldValue
    from ..grammar.layout import Words
    from ..grammar.report import LineReport

_LOG = Word("log", ("core", "disk"), fold=False)
_DEVICE = Device("log_device", default=None)
_REGION = Number("region_size", low=2, power=True, unit="sectors")
_SYNC = Word("sync", ("sync", "nosync"), fold=False, default=None)


class _Log(Item):
    """The dirty log: its type, the number of its arguments, and the arguments."""

    names = ("log", "log_device", "region_size", "sync")

    def read(self, words: Words, out: dict[str, Any]) -> Any:
        report = words.report
        log = out["log"] = read_field(_LOG, words, "log")
        count = read_field(Number("#log", low=1, high=3), words, "#log")
        out.update(log_device=None, region_size=BAD, sync=None)
        if log is BAD or count is BAD:
            words.at = words.stop
            return
        low = 2 if log == "disk" else 1
        if not low <= count <= low + 1:
            report.error("#log", str(count), f"{low} or {low + 1}, the number of arguments of the log {log}")
            words.at = words.stop
            return
        if log == "disk":
            out["log_device"] = read_field(_DEVICE, words, "log_device")
        out["region_size"] = read_field(_REGION, words, "region_size")
        if count > low:
            out["sync"] = read_field(_SYNC, words, "sync")

    def load(self, plain: Any, out: dict[str, Any], report: LineReport) -> Any:
        for field in (_LOG, _DEVICE, _REGION, _SYNC):
            out[field.name] = load_field(field, plain, field.name, report)

    def show(self, target: Any) -> Any:
        words = [target.log_device and _DEVICE.show(target.log_device), str(target.region_size), target.sync]
        words = [word for word in words if word is not None]
        return [target.log, str(len(words))] + words

    def dump(self, target: Any, out: dict[str, Any]) -> Any:
        for name in self.names:
            if getattr(target, name) is not None:
                out[name] = getattr(target, name)

    def fields(self, target: Any) -> Iterable[FieldValue]:
        return () if target.log_device is None else (("log_device", _DEVICE, target.log_device),)

    def rebuild(self, target: Any, change: Change) -> dict[str, Any]:
        return (
            {}
            if target.log_device is None
            else {"log_device": change("log_device", _DEVICE, target.log_device)}
        )


class Mirror(Target):
    """``region_size`` and offsets in sectors."""

    TYPE = "mirror"
    OWN = ("log_device",)
    LAYOUT = (
        _Log(),
        CountOf("mirrors", low=2, high=9),
        Repeat("mirrors", (Device("device"), Sectors("offset")), low=2, high=9),
        Options((Flag("handle_errors"), Flag("keep_log")), high=2, fold=False),
    )

    def __init__(self, start: Any, length: Any, **values: Any) -> None:
        values.setdefault("log_device", None)
        values.setdefault("sync", None)
        super().__init__(start, length, **values)

    def check(self, report: LineReport) -> None:
        if self.region_size > self.length:
            report.error(
                "region_size", self.region_size, f"at most the length of the target, {self.length} sectors"
            )
        elif -(-self.length // self.region_size) > Limits.U32:
            report.error(
                "region_size", self.region_size, f"so large that there are at most {Limits.U32} regions"
            )
        if (self.log == "disk") != (self.log_device is not None):
            report.error("log_device", self.log_device, "given for the log disk, and for no other log")
        if self.keep_log and not self.handle_errors:
            report.error("keep_log", None, "needs handle_errors")

    def areas(self, facts: Facts) -> dict[str, tuple[int, int]]:
        return {
            f"mirrors[{index}].device": (mirror.offset, self.length)
            for index, mirror in enumerate(self.mirrors)
        }

    def check_devices(self, facts: Facts, report: LineReport) -> None:
        device = facts.get("log_device")
        if device is None:
            return
        regions = -(-self.length // self.region_size)
        # A header of two sectors, then one bit per region in 64-bit words.
        needed = 1024 + -(-regions // 64) * 8
        needed = -(-needed // device.logical_block) * device.logical_block
        if needed > device.size_sectors * 512:
            report.error(
                "log_device",
                f"{device.major}:{device.minor}",
                f"a device of at least {needed // 512} sectors",
            )
