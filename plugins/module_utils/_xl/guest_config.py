# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The configuration of one guest of xl, read from its file, and the changes of its disks, made at once.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Callable

from .._base.errors import BlockError, InvalidValue
from . import config_file
from .config import Config

# Converts a configuration to the text with one change.
Edit = Callable[[Config], bytes]


class GuestConfig:
    """``file``: as read. ``config``: its assignments and disks. ``name``: the guest's."""

    def __init__(self, path: str | None, domain: str | None) -> None:
        """
        Read it from ``path``, or from where xl has that of ``domain``. DefinitionError if it cannot be read
        safely, InvalidValue if it is that of another guest, KernelError.
        """
        self.path = path or config_file.path_of(domain or "")
        option = "config_file" if path else "domain"
        self.file = config_file.read(self.path, option)
        self.config = Config(self.file.text, self.path)
        said = self.config.name
        if domain and said and said != domain:
            wrong = f"must be {said}, the name of the guest in {self.path}"
            raise InvalidValue("domain", domain, wrong)
        if not domain and not said:
            raise InvalidValue("domain", None, f"must be given: {self.path} does not name the guest")
        self.name: str = said or domain or ""


class Exchange:
    """The changes of several disks in one configuration, made at once."""

    def __init__(self, guest: GuestConfig, edits: Sequence[Edit]) -> None:
        self._guest = guest
        # Those that were not undone.
        self._edits = list(edits)
        self._now: config_file.ConfigFile | None = None

    def run(self) -> None:
        """Replace the file. DeviceBusy if somebody changed it meanwhile, KernelError."""
        self._write(self._guest.file)

    def undo(self, edit: Edit) -> None:
        """
        Take back one of the changes, once; the others stay. DeviceBusy if somebody changed the file since.
        """
        if self._now is not None and edit in self._edits:
            self._edits.remove(edit)
            self._write(self._now)

    def _write(self, old: config_file.ConfigFile) -> None:
        """Replace ``old`` by the text that the guest had, with the changes."""
        config = self._guest.config
        for edit in self._edits:
            config = Config(edit(config), config.path)
        if config.text == old.text:
            return
        try:
            self._now = config_file.write(old, config.text, "config_file")
        except BlockError:
            # It can fail when the file is replaced already.
            with contextlib.suppress(BlockError):
                now = config_file.read(old.path, "config_file")
                self._now = now if now.text == config.text else self._now
            raise
