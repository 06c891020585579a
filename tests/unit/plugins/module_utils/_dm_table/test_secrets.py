# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
No key of a table appears in a message, difference, result or exception, whatever is wrong with the table.
"""

from __future__ import annotations

import json
import traceback

from ansible_collections.racefree.block.plugins.module_utils._base.errors import BlockError, TableError
from ansible_collections.racefree.block.plugins.module_utils._dm_table import (
    TARGETS,
    Context,
    NoDevice,
    hide_in_line,
    parse_table,
    redact,
)
from ansible_collections.racefree.block.plugins.module_utils._dm_table.keys import with_keys
from ansible_collections.racefree.block.tests.unit.plugins.module_utils._dm_table.generate import Generator
from hypothesis import given, settings
from hypothesis import strategies as st

SEEDS = st.integers(min_value=0, max_value=1 << 32)
# This many hex digits of a key do not occur in a text by chance.
PIECE = 12
CONTEXTS = (
    {},
    {"devices": lambda slot: NoDevice("it is gone")},
    {"devices": lambda slot: None, "read_only": True},
    {"kernels": ("6.1",), "running": (7, 2)},
    {"targets": ("linear",)},
)


class KeyedGenerator(Generator):
    """A generator that prefers targets with keys, and records the keys."""

    def __init__(self, seed):
        super().__init__(seed)
        self.types += ("crypt",) * 40 + ("integrity",) * 20
        self.keys = set()

    def crypt(self):
        length, params = super().crypt()
        self.keys.add(params.split(" ")[1])
        return length, params

    def integrity(self):
        length, params = super().integrity()
        if "internal_hash:crc32c" in params:
            key = self._hex(self._pick(16, 20, 32))
            self.keys.add(key)
            params = params.replace("internal_hash:crc32c", f"internal_hash:hmac(sha256):{key}")
        return length, params

    def random_table(self):
        """Like the base class; what takes the place of a verity digest or salt is public."""
        lines = super().random_table()
        for line in lines:
            words = line.split(" ")
            if words[2] == "verity":
                self.keys.difference_update(words[11:13])
        return lines


class Outputs:
    """Collects all texts that are produced for a table."""

    def __init__(self):
        self.texts = []

    def note(self, value):
        self.texts.append(value if isinstance(value, str) else json.dumps(value, default=repr))

    def note_error(self, error):
        self.texts.extend(traceback.format_exception(type(error), error, error.__traceback__))
        self.texts.append(repr(error))
        self.note(error.as_dict())

    def attempt(self, call, *args):
        try:
            return call(*args)
        except BlockError as error:
            self.note_error(error)
            return None

    def note_all(self, value):
        for context in CONTEXTS:
            try:
                table = parse_table(value, context=Context(warn=self.note, **context))
            except TableError as error:
                self.note_error(error)
            else:
                self.note_table(table)
        if isinstance(value, list):
            self.attempt(with_keys, value, {})
            for line in value:
                if isinstance(line, str):
                    self.note(hide_in_line(line))

    def note_table(self, table):
        for shown in (table, table.redacted()):
            self.note(repr(shown))
        self.note(table.redacted().lines())
        self.note(table.redacted().to_list())
        for dummy, slot in table.devices():
            self.note(redact.shown(slot))
            self.note(repr(slot))
        for other in (parse_table(f"0 {table.length} zero"), with_other_keys(table), table.canonical()):
            for comparison in (table.same_as(other), other.same_as(table)):
                self.note(repr(comparison))
                self.note([comparison.differences, comparison.unknown])
        self.attempt(table.check_replaces, parse_table("0 8 thin-pool 8:0 8:1 128 0"))
        self.attempt(table.kernel_targets)
        self.attempt(table.with_devices, {})
        for answer in (None, "x", (1, 2, 3), 5):
            self.attempt(table.with_devices, lambda slot, answer=answer: answer)
        self.attempt(table.validate, Context(targets=("linear",)))

    def check(self, keys):
        for text in self.texts:
            text = text.lower()
            for key in keys:
                for start in range(len(key) - PIECE + 1):
                    assert key[start : start + PIECE] not in text, text


def with_other_keys(table):
    """The table with other digits in every key."""
    digits = str.maketrans("0123456789abcdef", "fedcba9876543210")
    return parse_table(
        [
            {name: _other(target, name, value, digits) for name, value in target.to_dict().items()}
            for target in table
        ]
    )


def _other(target, name, value, digits):
    if name not in target.secret_fields() or name == "key" and (value == "-" or value.startswith(":")):
        return value
    head, colon, key = value.rpartition(":")
    return f"{head}{colon}{key.translate(digits)}"


def check(value, keys):
    outputs = Outputs()
    outputs.note_all(value)
    outputs.check(keys)


@settings(max_examples=120, deadline=None)
@given(SEEDS)
def test_valid_tables_show_no_key(seed):
    generator = KeyedGenerator(seed)
    lines = generator.valid()
    check(lines, generator.keys)
    check(parse_table(lines).to_list(), generator.keys)


@settings(max_examples=150, deadline=None)
@given(SEEDS)
def test_changed_and_random_tables_show_no_key(seed):
    generator = KeyedGenerator(seed)
    for lines in (generator.changed()[0], generator.random_table()):
        check(lines, generator.keys)
        check("\n".join(lines), generator.keys)


@st.composite
def broken(draw, plain):
    """
    A target in structured form with one field renamed, moved, dropped or wrapped, or with another target
    type.
    """
    name = draw(st.sampled_from(sorted(plain)))
    value, other = plain[name], draw(st.sampled_from(sorted(plain)))
    change = draw(
        st.sampled_from(("rename", "move", "swap", "drop", "wrap", "type", "as a name", "as bytes"))
    )
    if change == "type":
        return dict(plain, target=draw(st.sampled_from(sorted(TARGETS) + ["cript", "", None, 5])))
    rest = {key: part for key, part in plain.items() if key != name}
    if change == "rename":
        rest[draw(st.sampled_from((name.upper(), "cipher_key", "device", "features")))] = value
    elif change == "move":
        rest[other] = value
    elif change == "swap":
        rest.update({name: plain[other], other: value})
    elif change == "wrap":
        rest[name] = draw(st.sampled_from(([value], {"key": value}, {"x": [value]}, (value, value))))
    elif change == "as a name":
        rest[str(value)] = None
    elif change == "as bytes":
        rest[name] = str(value).encode()
    return rest


@settings(max_examples=400, deadline=None)
@given(SEEDS, st.data())
def test_broken_targets_in_structured_form_show_no_key(seed, data):
    generator = KeyedGenerator(seed)
    plain = parse_table(generator.valid()).to_list()
    index = data.draw(st.integers(0, len(plain) - 1))
    plain[index] = data.draw(broken(plain[index]))
    check(plain, generator.keys)


def nested(draw, table):
    """A line or target whose device is a source with ``table``, in one of its spellings."""
    source = {"table": table}
    if draw(st.booleans()):
        source["name"] = "inner"
    word = json.dumps(source, separators=(",", ":")).replace("\\", "\\\\").replace(" ", "\\ ")
    plain = {"start": 0, "length": 8, "target": "linear", "device": source, "offset": 0}
    return draw(
        st.sampled_from(
            (
                plain,
                dict(plain, device=json.dumps(source)),
                dict(plain, device=json.dumps(source)[:-1]),
                dict(plain, offset=source),
                dict(plain, target="cript"),
                f"0 8 linear {word} 0",
                f"0 8 linear {word} x",
                f"0 8 linear 0 {word}",
                f"0 8 cript {word} 0",
                f"0 8 linear {word[:-1]} 0",
                f"0 8 crypt aes-xts-plain64 {'0' * 128} 0 {word} 0",
                f"0 8 verity 1 {word} {word} 4096 4096 1 0 sha256 {'0' * 64} -",
            )
        )
    )


@settings(max_examples=400, deadline=None)
@given(SEEDS, st.data())
def test_tables_inside_device_slots_show_no_key(seed, data):
    generator = KeyedGenerator(seed)
    kind = data.draw(st.sampled_from(("valid", "plain", "broken", "changed", "random")))
    if kind == "changed":
        table = generator.changed()[0]
    elif kind == "random":
        table = generator.random_table()
    else:
        table = generator.valid()
        if kind != "valid":
            table = parse_table(table).to_list()
        if kind == "broken":
            table[0] = data.draw(broken(table[0]))
            if any(isinstance(value, bytes) for value in table[0].values()):
                return
    if all(isinstance(line, str) for line in table) and data.draw(st.booleans()):
        table = "\n".join(["# a comment", *table, ""])
    for dummy in range(data.draw(st.integers(1, 2))):
        table = [nested(data.draw, table)]
    check(table, generator.keys)


@settings(max_examples=100, deadline=None)
@given(SEEDS)
def test_invalid_tables_show_no_key(seed):
    generator = KeyedGenerator(seed)
    lines = generator.valid()
    text = "\n".join(lines)
    as_name = [{**target, **dict.fromkeys(generator.keys)} for target in parse_table(lines).to_list()]
    for value in (
        as_name,
        [lines],
        [tuple(lines)],
        {"table": lines},
        parse_table(lines).to_list()[0],
        text.encode(),
        [text.encode()],
        [text + "\n" + text],
        [text + "\x07"],
        ["x" * 40 + text],
        [[" " * 20, *lines]],
    ):
        check(value, generator.keys)
