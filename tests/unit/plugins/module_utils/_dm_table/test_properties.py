# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Properties: round trips, no exception other than TableError, and linear cost."""

from __future__ import annotations

import time

from ansible_collections.racefree.block.plugins.module_utils._base.errors import TableError
from ansible_collections.racefree.block.plugins.module_utils._dm_table import (
    TARGETS,
    Context,
    DeviceFacts,
    Table,
    format_table,
    parse_table,
)
from ansible_collections.racefree.block.plugins.module_utils._dm_table.grammar.fields import (
    Hex,
    Number,
    Signed,
    Word,
)
from ansible_collections.racefree.block.plugins.module_utils._dm_table.grammar.layout import (
    Choice,
    CountOf,
    Flag,
    Group,
    Many,
    Options,
    Pair,
    Positional,
    Repeat,
    Several,
)
from ansible_collections.racefree.block.plugins.module_utils._dm_table.grammar.text import escape, split_words
from ansible_collections.racefree.block.tests.unit.plugins.module_utils._dm_table.generate import (
    ODD_WORDS,
    TYPES,
    Generator,
)
from hypothesis import given, settings
from hypothesis import strategies as st

SEEDS = st.integers(min_value=0, max_value=1 << 32)
PATHS = st.text(
    st.characters(min_codepoint=33, max_codepoint=126) | st.sampled_from(" \t\\#"), min_size=1, max_size=20
).map(lambda text: "/" + text)
WORDS = (
    st.sampled_from(ODD_WORDS)
    | st.sampled_from(sorted(TYPES))
    | st.integers(0, 100000).map(str)
    | st.text(max_size=12)
)


def check_round_trips(table):
    lines = format_table(table)
    assert parse_table(lines) == table
    assert parse_table("\n".join(lines)) == table
    assert parse_table(table.to_list()) == table
    canonical = table.canonical()
    assert canonical.canonical() == canonical
    assert table.same_as(canonical) and table.same_as(table)
    assert table.same_as(parse_table(format_table(canonical)))
    table.redacted().to_list()
    repr(table)
    for entry in table.with_devices(lambda slot: (7, 1)).kernel_targets():
        assert entry[3].isascii() and b"\0" not in entry[3] and len(entry[2]) <= 15


@settings(max_examples=300)
@given(SEEDS)
def test_valid_tables_round_trip(seed):
    lines = Generator(seed).valid()
    check_round_trips(parse_table(lines))


@settings(max_examples=300)
@given(SEEDS)
def test_changed_tables_round_trip_or_are_refused(seed):
    lines, unused = Generator(seed).changed()
    try:
        table = parse_table(lines)
    except TableError as error:
        assert error.errors
        return
    check_round_trips(table)


def test_generator_covers_every_target_and_repeats_itself():
    assert set(TYPES) == set(TARGETS)
    seen = set()
    for kind, lines in Generator(7).tables(1500):
        seen.update(line.split(" ")[2] for line in lines if kind == "valid")
    assert seen == set(TARGETS)
    assert list(Generator(11).tables(60)) == list(Generator(11).tables(60))
    assert list(Generator(11).tables(60)) != list(Generator(12).tables(60))


def test_valid_tables_match_their_devices():
    generator = Generator(3)
    sizes = {device.text: device for device in generator.pool}

    def facts(slot):
        device = sizes[slot.text]
        major, minor = device.text.split(":")
        return DeviceFacts(int(major), int(minor), device.sectors, device.block, dm_uuid="")

    for unused in range(500):
        lines = generator.valid()
        table = parse_table(
            lines, context=Context(devices=facts, read_only=any(" verity " in line for line in lines))
        )
        assert len(table) == len(lines)


@settings(max_examples=400)
@given(st.lists(st.lists(WORDS, max_size=12).map(" ".join), max_size=4))
def test_random_text_raises_only_table_errors(lines):
    for value in (lines, "\n".join(lines)):
        try:
            check_round_trips(parse_table(value))
        except TableError as error:
            assert error.errors and str(error)


@settings(max_examples=300)
@given(st.sampled_from(sorted(TYPES)), st.lists(WORDS, max_size=14))
def test_random_parameters_raise_only_table_errors(name, words):
    try:
        check_round_trips(parse_table(" ".join(["0", "1024", name] + words)))
    except TableError as error:
        assert error.errors and str(error)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=400)
@given(st.sampled_from(sorted(TYPES)), st.data())
def test_random_data_raises_only_table_errors(name, data):
    names = TARGETS[name].NAMES
    plain = data.draw(st.dictionaries(st.sampled_from(names), PLAIN, max_size=4)) if names else {}
    plain.update(data.draw(st.dictionaries(st.text(max_size=5) | st.integers(), PLAIN, max_size=1)))
    value = data.draw(
        st.sampled_from(
            [{"start": 0, "length": 64, "target": name, **plain}, {"target": name, **plain}, plain]
        )
    )
    try:
        parse_table([value])
    except TableError as error:
        assert error.errors and str(error)


def _values(field):
    if isinstance(field, Signed):
        return st.integers(field.low, field.high)
    if isinstance(field, Number):
        low, high = -(-field.low // field.step), field.high // field.step
        if field.power:
            return st.integers(max(field.low - 1, 0).bit_length(), field.high.bit_length() - 1).map(
                lambda shift: 1 << shift
            )
        return st.integers(low, high).map(lambda number: number * field.step)
    if isinstance(field, Word):
        return st.sampled_from(field.choices)
    if isinstance(field, Hex):
        return st.binary(min_size=1, max_size=64).map(bytes.hex)
    if field.is_device:
        return PATHS | st.tuples(st.integers(0, 4095), st.integers(0, 1048575)).map(
            lambda pair: f"{pair[0]}:{pair[1]}"
        )
    return {
        "cipher": st.sampled_from(["aes-xts-plain64", "serpent-cbc-essiv:sha256", "capi:gcm(aes)-random"]),
        "key": st.binary(min_size=32, max_size=32).map(bytes.hex),
        "integrity": st.integers(1, 480).map(lambda size: {"tag_size": size, "profile": "none"}),
        "algorithm": st.sampled_from(["sha256", "made-up"]),
        "root_hash_sig_key_desc": st.just("key"),
        "tag_size": st.integers(1, 255) | st.just("-"),
        "internal_hash": st.sampled_from(["crc32c", "hmac(sha256):00ff"]),
        "journal_crypt": st.just("cbc(aes):00ff"),
        "journal_mac": st.just("hmac(sha256):00ff"),
    }[field.name]


def _group_values(parts):
    return st.fixed_dictionaries({field.name: _values(field) for field in parts})


@st.composite
def structured(draw):
    """
    A target in structured form with each field within its own range; fields may still contradict each other.
    """
    name = draw(st.sampled_from(sorted(set(TYPES) - {"multipath"})))
    plain = {"start": 0, "length": draw(st.integers(1, 64)) * 4096, "target": name}
    for part in TARGETS[name].ITEMS:
        if isinstance(part, CountOf):
            continue
        if isinstance(part, Repeat):
            plain[part.name] = draw(st.lists(_group_values(part.parts), min_size=part.low, max_size=4))
        elif isinstance(part, Group):
            if not part.optional or draw(st.booleans()):
                plain[part.name] = draw(_group_values(part.parts))
        elif isinstance(part, Positional):
            if part.field.required or draw(st.booleans()):
                plain[part.field.name] = draw(_values(part.field))
        elif isinstance(part, Options):
            if "chunk_size" in part.names:
                plain["chunk_size"] = draw(st.sampled_from([8, 64, 128]))
            for option in part.options:
                if draw(st.integers(0, 5)):
                    continue
                if isinstance(option, Flag):
                    plain[option.name] = True
                elif isinstance(option, Choice):
                    plain[option.name] = draw(st.sampled_from(option.words))
                elif isinstance(option, Many):
                    plain[option.name] = draw(
                        st.lists(st.integers(0, 3), min_size=1, max_size=2, unique=True)
                    )
                elif isinstance(option, Several):
                    plain[option.name] = draw(_group_values(option.group.parts))
                elif isinstance(option, Pair):
                    plain[option.name] = draw(_values(option.field))
        elif "log" in part.names:
            plain.update(log="core", region_size=draw(st.sampled_from([2, 64, 4096])))
    return plain


@settings(max_examples=600)
@given(structured())
def test_structured_to_lines_to_structured(plain):
    try:
        table = parse_table([plain])
    except TableError as error:
        assert error.errors
        return
    again = parse_table(format_table(table))
    assert again == table
    assert again.to_list() == table.to_list()
    check_round_trips(table)


PRINTABLE = st.text(
    st.characters(min_codepoint=32, max_codepoint=126) | st.just("\t"), min_size=1, max_size=8
)


@given(st.lists(PRINTABLE, max_size=6))
def test_words_survive_escaping(words):
    line = "  ".join(escape(word) for word in words)
    found, columns = split_words(line)
    assert found == words
    assert len(columns) == len(words)


@given(PATHS)
def test_any_printable_path_round_trips(path):
    table = Table([TARGETS["linear"](0, 8, device=path, offset=0)])
    try:
        table.validate()
    except TableError:
        assert "\t" in path
        return
    assert parse_table(format_table(table)) == table


def _seconds(count, **kwargs):
    lines = [f"{8 * number} 8 linear 8:{number % 200} {8 * number}" for number in range(count)]
    text = "\n".join(lines)
    began = time.process_time()
    table = parse_table(text, **kwargs)
    spent = time.process_time() - began
    assert len(table) == count and table.length == 8 * count
    return spent


def test_cost_is_linear():
    facts = DeviceFacts(8, 0, 1 << 40)
    for kwargs in ({}, {"context": Context(devices=lambda slot: facts)}):
        small = min(_seconds(10000, **kwargs) for unused in range(3))
        large = _seconds(100000, **kwargs)
        # Ten times the lines must cost far less than a hundred times the time; the margin is for a busy
        # machine.
        assert large < 35 * small + 1
        assert large < 8
