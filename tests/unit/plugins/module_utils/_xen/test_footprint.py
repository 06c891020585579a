# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import NotSupported
from ansible_collections.racefree.block.plugins.module_utils._xen import footprint
from ansible_collections.racefree.block.plugins.module_utils._xen.footprint import Extent, Questions, conflict
from hypothesis import given
from hypothesis import strategies as st

S = 512
DISK = (8, 0)
OTHER = (8, 16)
POOL = (253, 7)


def ask(tables=None, loops=None, partitions=None, members=None):
    return Questions(
        lambda *number: (tables or {}).get(number),
        lambda *number: (loops or {}).get(number),
        lambda *number: (partitions or {}).get(number),
        lambda *number: (members or {}).get(number),
    )


def foot(number, questions, writes=True):
    """The Extents, without the devices that spread their bytes."""
    found = footprint.footprint(number[0], number[1], writes, questions)
    return [extent._replace(through=()) for extent in found]


def disk(number, start, end, writes=True):
    return Extent(("disk",) + number, start, end, writes)


def table(*rows):
    return ask({(253, 0): list(rows)})


def test_a_plain_disk():
    assert foot(DISK, ask()) == [disk(DISK, 0, None)]
    assert foot(DISK, ask(), writes=False) == [disk(DISK, 0, None, False)]


def test_a_loop_device_is_a_range_of_its_file():
    assert foot((7, 0), ask(loops={(7, 0): (2049, 12, 0, 0)})) == [Extent(("file", 2049, 12), 0, None, True)]
    assert foot((7, 0), ask(loops={(7, 0): (2049, 12, 4096, 8192)})) == [
        Extent(("file", 2049, 12), 4096, 12288, True)
    ]


SOME = Extent(("file", 2049, footprint.SOME_FILE), 0, None, True)


def test_a_loop_device_of_others_that_does_not_tell_its_file():
    """Only if somebody else has it: the device that is asked about must tell."""
    answers = {(7, 0): footprint.SomeFile((2049, 2050)), (7, 1): (1, 2, 0, 0)}
    strict = ask(loops={(7, 0): (3, 4, 0, 0)}, tables={(253, 0): [(0, 8, "linear", "7:0 8")]})
    questions = Questions(*strict[:4], lambda *number: answers.get(number))
    assert footprint.footprint(7, 0, True, questions) == [Extent(("file", 3, 4), 0, None, True)]
    assert footprint.footprint(7, 1, True, questions, is_others=True) == [
        Extent(("file", 1, 2), 0, None, True)
    ]
    other = SOME._replace(leaf=("file", 2050, footprint.SOME_FILE))
    for number in (7, 0), (253, 0):
        assert footprint.footprint(*number, True, questions, is_others=True) == [SOME, other]
    assert footprint.footprint(7, 0, True, strict, is_others=True) == [Extent(("file", 3, 4), 0, None, True)]


@pytest.mark.parametrize(
    "other, expected",
    [
        (Extent(("file", 2049, 12), 4096, 8192, True), True),
        (Extent(("file", 2049, 12), 4096, 8192, False), True),
        (Extent(("file", 2050, 12), 0, None, True), False),
        (disk((2049, 12), 0, None), False),
        (Extent(("thin", 2049, 12, 1), 0, None, True), False),
        (SOME, True),
    ],
)
def test_some_file_may_be_each_of_its_file_system(other, expected):
    for one in [other], [disk(DISK, 0, None), other]:
        assert bool(conflict(one, [SOME])) == bool(conflict([SOME], one)) == expected
    reads = SOME._replace(writes=False)
    assert bool(conflict([other], [reads])) == (expected and other.writes)


def test_a_partition_is_a_range_of_its_disk():
    partitions = {(8, 1): DISK + (1 << 20, 4096)}
    assert foot((8, 1), ask(partitions=partitions)) == [disk(DISK, 1 << 20, (1 << 20) + 4096)]
    partitions = {(259, 0): (7, 0, 1 << 20, 4096)}
    assert foot((259, 0), ask(partitions=partitions, loops={(7, 0): (1, 2, 512, 0)})) == [
        Extent(("file", 1, 2), (1 << 20) + 512, (1 << 20) + 512 + 4096, True)
    ]


def test_a_part_of_a_partition():
    questions = ask({(253, 0): [(0, 4, "linear", "8:1 2")]}, partitions={(8, 1): DISK + (1 << 20, 100 * S)})
    assert foot((253, 0), questions) == [disk(DISK, (1 << 20) + 2 * S, (1 << 20) + 6 * S)]


@pytest.mark.parametrize(
    "rows, expected",
    [
        ([(0, 100, "linear", "8:0 50")], [disk(DISK, 50 * S, 150 * S)]),
        (
            [(0, 10, "linear", "8:0 50"), (10, 20, "linear", "8:16 0")],
            [disk(DISK, 50 * S, 60 * S), disk(OTHER, 0, 20 * S)],
        ),
        (
            [(0, 100, "crypt", "aes-xts-plain64 :64:logon:k 0 8:0 4096 1 allow_discards")],
            [disk(DISK, 4096 * S, 4196 * S)],
        ),
        ([(0, 100, "flakey", "8:0 5 1 1")], [disk(DISK, 5 * S, 105 * S)]),
        ([(0, 100, "delay", "8:0 5 10")], [disk(DISK, 5 * S, 105 * S)]),
        (
            [(0, 100, "delay", "8:0 5 10 8:16 6 20")],
            [disk(DISK, 5 * S, 105 * S, False), disk(OTHER, 6 * S, 106 * S)],
        ),
        ([(0, 100, "zero", ""), (100, 5, "error", "")], []),
        ([(0, 100, "snapshot", "8:0 8:16 P 8")], [disk(DISK, 0, None, False), disk(OTHER, 0, None)]),
        ([(0, 100, "snapshot-origin", "8:0")], [disk(DISK, 0, 100 * S)]),
        ([(0, 100, "snapshot-merge", "8:0 8:16 P 8")], [disk(DISK, 0, None), disk(OTHER, 0, None)]),
        ([(0, 100, "striped", "2 64 8:0 0 8:16 0")], [disk(DISK, 0, 64 * S), disk(OTHER, 0, 64 * S)]),
        (
            [(0, 100, "thin", "253:7 3")],
            [Extent(("disk", *POOL), 0, None, True, (POOL,)), Extent(("thin", 253, 7, 3), 0, 100 * S, True)],
        ),
        (
            [(0, 100, "thin", "253:7 3 8:0")],
            [
                disk(DISK, 0, None, False),
                Extent(("disk", *POOL), 0, None, True, (POOL,)),
                Extent(("thin", 253, 7, 3), 0, 100 * S, True),
            ],
        ),
        (
            [(0, 100, "raid", "raid1 3 0 region_size 1024 2 - 8:0 - 8:16")],
            [disk(DISK, 0, None), disk(OTHER, 0, None)],
        ),
        ([(0, 100, "a-target-to-come", "x 8:0 y")], [disk(DISK, 0, None)]),
    ],
)
def test_targets(rows, expected):
    assert foot((253, 0), table(*rows)) == sorted(expected, key=lambda extent: (extent.leaf, extent.start))


def test_a_reader_of_a_snapshot_writes_to_its_cow_store():
    assert foot((253, 0), table((0, 100, "snapshot", "8:0 8:16 P 8")), writes=False) == [
        disk(DISK, 0, None, False),
        disk(OTHER, 0, None, True),
    ]


def test_a_range_is_mapped_through_a_stack():
    # Sectors 2 to 4 of the linear device end in the second row, which maps to a loop device of a file.
    tables = {
        (253, 1): [(0, 2, "linear", "253:0 9")],
        (253, 0): [(0, 10, "linear", "8:0 100"), (10, 90, "linear", "7:3 5")],
    }
    questions = ask(tables, loops={(7, 3): (1, 2, 1024, 0)})
    assert foot((253, 1), questions) == [
        disk(DISK, 109 * S, 110 * S),
        Extent(("file", 1, 2), 1024 + 5 * S, 1024 + 6 * S, True),
    ]


LINEAR = [(0, 100, "linear", "253:9 0")], [(0, 100, "linear", "253:9 100")], [(0, 101, "linear", "253:9 0")]
# What may be below two volumes, as number 253:9 or 9:0.
SPREAD = {
    "raid": [(0, 1000, "raid", "raid1 3 0 region_size 1024 2 - 8:0 - 8:16")],
    "multipath": [(0, 1000, "multipath", "0 0 1 1 round-robin 0 2 1 8:0 1 8:16 1")],
    "mirror": [(0, 1000, "mirror", "core 1 1024 2 8:0 0 8:16 0")],
    "striped": [(0, 1000, "striped", "2 128 8:0 0 8:16 0")],
    "two targets": [(0, 50, "linear", "8:0 0"), (50, 950, "striped", "2 8 8:0 512 8:16 0")],
    "cache": [(0, 1000, "cache", "8:32 8:16 8:0 128 0 smq 0")],
}


@pytest.mark.parametrize("kind", [*SPREAD, "md"])
def test_different_bytes_of_a_device_that_spreads_them_are_apart(kind):
    """Two logical volumes on a RAID, as in most servers, have no byte in common."""
    one, beside, over = (
        [(start, length, "linear", params.replace("253:9", "9:0") if kind == "md" else params)]
        for ((start, length, dummy, params),) in LINEAR
    )
    tables = {(253, 0): one, (253, 1): beside, (253, 2): over, (253, 9): SPREAD.get(kind)}
    questions = ask(tables=tables, members={(9, 0): [DISK, OTHER]})

    def all_of(number):
        return footprint.footprint(*number, True, questions)

    assert conflict(all_of((253, 0)), all_of((253, 1))) is None
    assert conflict(all_of((253, 2)), all_of((253, 1)))
    assert conflict(all_of((253, 0)), all_of((253, 0)))
    # Whoever has what is below, or all of it.
    assert conflict(all_of((253, 0)), all_of(DISK)) and conflict(all_of(OTHER), all_of((253, 1)))
    assert conflict(all_of((253, 0)), all_of((9, 0) if kind == "md" else (253, 9)))


@pytest.mark.parametrize("first, meets", [(0, False), (192, False), (193, True), (511, True), (512, False)])
def test_rows_of_a_striped_volume(first, meets):
    """A volume of 300 sectors over two disks reaches 256 sectors of each, from where it begins there."""
    tables = {
        (253, 0): [(0, 300, "striped", "2 128 8:0 256 8:16 4096")],
        (253, 1): [(0, 64, "linear", f"8:0 {first}")],
    }
    questions = ask(tables=tables)
    assert foot((253, 0), questions) == [disk(DISK, 256 * S, 512 * S), disk(OTHER, 4096 * S, 4352 * S)]
    found = conflict(foot((253, 0), questions), foot((253, 1), questions))
    assert (found is not None) == meets


def test_arrays_count_as_a_whole():
    assert foot((9, 0), ask(members={(9, 0): [DISK, OTHER]})) == [disk(DISK, 0, None), disk(OTHER, 0, None)]


def test_an_endless_stack():
    with pytest.raises(NotSupported, match="too deep"):
        foot((253, 0), table((0, 10, "linear", "253:0 0")))


def test_conflicts():
    base = [disk(DISK, 0, 100)]
    assert conflict(base, [disk(DISK, 99, 200)])
    assert conflict(base, [disk(DISK, 50, 60, False)])
    assert conflict([disk(DISK, 0, 100, False)], base)
    assert conflict(base, [disk(DISK, 0, None)])
    assert conflict(base, [disk(DISK, 100, 200)]) is None
    assert conflict(base, [disk(OTHER, 0, 100)]) is None
    assert conflict([disk(DISK, 0, 100, False)], [disk(DISK, 0, 100, False)]) is None
    assert conflict([disk(DISK, 50, 50)], base) is None
    assert conflict([], base) is None


def test_neighbours_on_one_disk_do_not_conflict():
    tables = {
        (253, 0): [(0, 100, "linear", "8:0 0")],
        (253, 1): [(0, 100, "linear", "8:0 100")],
        (253, 2): [(0, 100, "linear", "8:0 99")],
    }
    one, two, three = (foot((253, number), ask(tables)) for number in range(3))
    assert conflict(one, two) is None
    assert conflict(one, three) and conflict(two, three)


def test_snapshots_of_one_origin_do_not_conflict_but_a_writer_of_the_origin_does():
    tables = {
        (253, 0): [(0, 100, "snapshot", "7:0 7:1 P 8")],
        (253, 1): [(0, 100, "snapshot", "7:0 7:2 P 8")],
    }
    loops = {(7, number): (1, number + 1, 0, 0) for number in range(3)}
    one, two = (foot((253, number), ask(tables, loops)) for number in range(2))
    assert conflict(one, two) is None
    assert conflict(one, foot((7, 0), ask(tables, loops)))
    assert conflict(one, foot((7, 0), ask(tables, loops), writes=False)) is None


METADATA, DATA, ORIGIN = (7, 1), (7, 2), (8, 32)
ONE, TWO, SNAPSHOT, UPPER_POOL, UPPER, OTHER_UPPER, ENCRYPTED = ((253, number) for number in range(10, 17))


@pytest.fixture(name="pool")
def fixture_pool():
    """
    A pool with its metadata and data in files, and volumes of it. One of them is the data device of another
    pool.
    """
    tables = {
        POOL: [(0, 1000, "thin-pool", "7:1 7:2 128 0 1 skip_block_zeroing")],
        ONE: [(0, 100, "thin", "253:7 1")],
        TWO: [(0, 100, "thin", "253:7 2")],
        SNAPSHOT: [(0, 100, "thin", "253:7 3 8:32")],
        UPPER_POOL: [(0, 100, "thin-pool", "8:0 253:11 128 0")],
        UPPER: [(0, 50, "thin", "253:13 1")],
        OTHER_UPPER: [(0, 50, "thin", "253:13 2")],
        ENCRYPTED: [(0, 90, "crypt", "aes-xts-plain64 :64:logon:k 0 253:10 0")],
    }
    return ask(tables, loops={METADATA: (1, 21, 0, 0), DATA: (1, 22, 0, 0)})


def test_volumes_of_one_pool_do_not_conflict(pool):
    feet = [foot(number, pool) for number in (ONE, TWO, SNAPSHOT)]
    for one in feet:
        assert [conflict(one, other) is not None for other in feet] == [one is other for other in feet]


@pytest.mark.parametrize("volume", [ONE, SNAPSHOT, ENCRYPTED, UPPER])
@pytest.mark.parametrize("part", [POOL, METADATA, DATA])
def test_a_volume_conflicts_with_its_pool_and_what_is_below(pool, volume, part):
    for writes in (True, False):
        feet = foot(volume, pool, writes), foot(part, pool, not writes)
        assert conflict(*feet) and conflict(*reversed(feet))
    assert conflict(foot(volume, pool, False), foot(part, pool, False)) is None
    assert conflict(foot(volume, pool), foot(ORIGIN, pool, False)) is None


def test_a_part_of_the_data_device_conflicts_with_a_volume(pool):
    tables = {(253, 40): [(0, 8, "linear", "7:2 64")]}
    questions = pool._replace(table_of=lambda *number: tables.get(number) or pool.table_of(*number))
    assert conflict(foot((253, 40), questions), foot(ONE, questions))


def test_a_pool_on_a_volume_of_another_pool(pool):
    upper, other = foot(UPPER, pool), foot(OTHER_UPPER, pool)
    assert conflict(upper, other) is None
    # A neighbour of the data device is none of its own.
    assert conflict(upper, foot(ONE, pool)) is None
    for part in (UPPER_POOL, TWO, DISK):
        assert conflict(upper, foot(part, pool))


def test_the_same_file_through_two_loop_devices():
    loops = {
        (7, 0): (1, 5, 0, 4096),
        (7, 1): (1, 5, 4096, 4096),
        (7, 2): (1, 5, 4095, 0),
        (7, 3): (2, 5, 0, 0),
    }
    feet = [foot((7, number), ask(loops=loops)) for number in range(4)]
    assert conflict(feet[0], feet[1]) is None
    assert conflict(feet[0], feet[2]) and conflict(feet[1], feet[2])
    assert conflict(feet[0], feet[3]) is None


extents = st.builds(
    Extent,
    st.sampled_from([("disk", 8, 0), ("file", 1, 2)]),
    st.integers(0, 40),
    st.one_of(st.none(), st.integers(0, 60)),
    st.booleans(),
).filter(lambda extent: extent.end is None or extent.end >= extent.start)


def touched(extent):
    return {(extent.leaf, at) for at in range(extent.start, 100 if extent.end is None else extent.end)}


@given(st.lists(extents, max_size=6), st.lists(extents, max_size=6))
def test_a_conflict_is_a_byte_that_both_use_and_one_writes(left, right):
    expected = any((a.writes or b.writes) and touched(a) & touched(b) for a in left for b in right)
    assert bool(conflict(left, right)) == expected
    assert bool(conflict(right, left)) == expected


@given(
    st.lists(
        st.tuples(st.integers(1, 50), st.sampled_from([DISK, OTHER]), st.integers(0, 100)),
        min_size=1,
        max_size=5,
    )
)
def test_linear_targets_cover_exactly_their_range(parts):
    rows, at, expected = [], 0, set()
    for length, (major, minor), offset in parts:
        rows.append((at, length, "linear", f"{major}:{minor} {offset}"))
        expected |= {((major, minor), sector) for sector in range(offset, offset + length)}
        at += length
    found = {
        (extent.leaf[1:], sector)
        for extent in foot((253, 0), table(*rows))
        for sector in range(extent.start // S, extent.end // S)
    }
    assert found == expected
