# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Why the kernel rejected a table: the messages that device-mapper logged meanwhile.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

The ioctl returns only an errno; the reason is in the kernel log (DMERR in ``include/linux/device-mapper.h``,
as ``device-mapper: table: MAJOR:MINOR: TARGET: REASON``). Format of ``/dev/kmsg``:
Documentation/ABI/testing/dev-kmsg.
"""

from __future__ import annotations

import errno
import os
import re

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Iterable


_KMSG = "/dev/kmsg"
_RECORD = 8192
_MOST_RECORDS = 500
_MOST_REASONS = 3
_PREFIX = "device-mapper: "
_TABLE = re.compile(r"table: ([0-9]+:[0-9]+): (.*)")
# These lines are logged after the reason, and are not the reason themselves.
_EMPTY = re.compile(r"ioctl: (error adding target to table|unable to set up device queue for new table)")
_ERRNO = re.compile(r" \(-E[A-Z0-9]+\)$")


class KernelLog:
    """
    The messages that the kernel logs from now on, read without blocking. Empty if the log cannot be read.

    A context: leaving it closes the log.
    """

    def __init__(self) -> None:
        self._fd = -1
        try:
            self._fd = os.open(_KMSG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._fd, 0, os.SEEK_END)
        except OSError:
            self.close()

    def __enter__(self) -> KernelLog:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def lines(self) -> list[str]:
        """The texts logged since the last call; only the first ones if there are very many."""
        result: list[str] = []
        while self._fd >= 0 and len(result) < _MOST_RECORDS:
            try:
                record = os.read(self._fd, _RECORD)
            except OSError as error:
                if error.errno == errno.EPIPE:
                    # Records were overwritten before they were read: continue with the oldest existing one.
                    continue
                break
            result.append(record.decode("utf-8", "replace").partition(";")[2].partition("\n")[0])
        return result


def find_reason(lines: Iterable[str], number: str) -> str | None:
    """
    The message that device-mapper logged about the device ``number`` (``MAJOR:MINOR``), or None.

    Lines about another device are skipped. Lines that name no device may be about this one, and are used.
    """
    own, others = [], []
    for line in lines:
        if not line.startswith(_PREFIX):
            continue
        text = _ERRNO.sub("", line[len(_PREFIX) :].strip())
        found = _TABLE.match(text)
        if found is not None:
            if found.group(1) == number:
                own.append(found.group(2))
        elif not _EMPTY.match(text):
            others.append(text)
    reasons = list(dict.fromkeys(others + own if others else own))
    return "; ".join(reasons[-_MOST_REASONS:]) or None
