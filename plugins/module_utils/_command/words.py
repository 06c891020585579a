# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Placeholders for devices in the words of a command. Pure.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

``{disk}`` stands for the device named ``disk``, also inside a longer word. ``{{disk}}`` is the text
``{disk}``. Everything else is unchanged: other braces, and ``${disk}``, which is a variable of a shell.
"""

from __future__ import annotations

import os
import re

from .._base.errors import InvalidValue

TYPE_CHECKING = False  # for type checkers it is true; importing typing takes long
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

# Names that a user chooses, and numbers that count the devices.
NAME, NUMBER = r"[A-Za-z_][A-Za-z0-9_]*", r"[0-9]+"


class Words:
    """
    The words of a command. ``names``: the devices; ``form``: what a placeholder looks like, NAME or NUMBER.

    Raises InvalidValue if there is no word, a word cannot be passed to a program, the program itself has a
    placeholder, a placeholder is of no device, or a device has no placeholder. ``option`` and ``devices`` are
    the options in these messages.
    """

    def __init__(
        self,
        words: Sequence[str],
        names: Collection[str],
        form: str = NAME,
        option: str = "argv",
        devices: str = "devices",
    ) -> None:
        self.words = list(words)
        self._pattern = re.compile(rf"(?<!\$)(?:\{{\{{({form})\}}\}}|\{{({form})\}})", re.ASCII)
        if not self.words:
            raise InvalidValue(option, None, "must have at least one word, the program")
        for index, word in enumerate(self.words):
            check_text(word, f"{option}[{index}]")
        used = [self._used(word) for word in self.words]
        if not self.words[0] or used[0]:
            raise InvalidValue(f"{option}[0]", self.words[0], "must be a program, not a device")
        for index, found in enumerate(used):
            for name in found:
                if name not in names:
                    raise InvalidValue(
                        f"{option}[{index}]",
                        f"{{{name}}}",
                        f"names no device; {devices} has {', '.join(names) or 'none'}. "
                        f"Write {{{{{name}}}}} for the text {{{name}}}",
                    )
        for name in names:
            if not any(name in found for found in used):
                wrong = f"is not used: no word of {option} has {{{name}}}"
                raise InvalidValue(f"{devices}.{name}", "(not shown)", wrong)

    def _used(self, word: str) -> list[str]:
        return [found[1] for found in self._pattern.findall(word) if found[1]]

    def filled(self, texts: Mapping[str, str]) -> list[str]:
        """The words with each placeholder replaced by the text of its device."""

        def text_of(found: re.Match[str]) -> str:
            literal, name = found.groups()
            return f"{{{literal}}}" if literal is not None else texts[name]

        return [self._pattern.sub(text_of, word) for word in self.words]


def is_name(value: object) -> bool:
    """Whether it is a name for a device, as NAME says."""
    return isinstance(value, str) and re.fullmatch(NAME, value, re.ASCII) is not None


def check_text(value: object, option: str) -> str:
    """A text that can be passed to a program; InvalidValue if it has a NUL or cannot be encoded."""
    if not isinstance(value, str):
        raise InvalidValue(option, value, "must be text")
    if "\0" in value:
        raise InvalidValue(option, value, "must not have a NUL character: no program can receive one")
    try:
        os.fsencode(value)
    except UnicodeEncodeError as error:
        raise InvalidValue(
            option,
            value,
            f"must have only characters that programs on this host can receive ({error.reason})",
        ) from error
    return value
