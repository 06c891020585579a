# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Partition tables as bytes, good and hostile ones, for tests on any tier. Written from the specifications, with
none of the collection's code: UEFI 2.10 chapter 5, and the table that MS-DOS has in the first sector.
"""

from __future__ import annotations

import struct
import uuid
import zlib

LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
DISK = "11111111-2222-3333-4444-555555555555"
PROTECTIVE = (0, 0xEE, 1, 0xFFFFFFFF)


def part_uuid(number):
    return f"aaaaaaaa-bbbb-cccc-dddd-{number:012x}"


def gpt(image, parts, block=512, **wrong):
    """
    Put a GPT with ``parts`` ``{number: (first block, last block)}`` into the bytearray. ``wrong`` replaces
    fields: count, width, at, own, last, length, magic, sums (the entries' checksum), checksum (the header's).
    """
    count, width = wrong.get("count", 128), wrong.get("width", 128)
    blocks = len(image) // block
    rows = bytearray(min(count, 2**16) * 128)
    for number, (begin, end) in parts.items():
        kind, own = (uuid.UUID(text).bytes_le for text in (LINUX, part_uuid(number)))
        struct.pack_into("<16s16sQQQ", rows, (number - 1) * 128, kind, own, begin, end, 0)
    fields = [
        wrong.get("magic", b"EFI PART"),
        0x10000,
        wrong.get("length", 92),
        0,
        0,
        wrong.get("own", 1),
        blocks - 1,
        wrong.get("first", 34),
        wrong.get("last", blocks - 2),
        uuid.UUID(DISK).bytes_le,
        wrong.get("at", 2),
        count,
        width,
        wrong.get("sums", zlib.crc32(rows)),
    ]
    fields[3] = wrong.get("checksum", zlib.crc32(struct.pack("<8sIIIIQQQQ16sQIII", *fields)))
    struct.pack_into("<8sIIIIQQQQ16sQIII", image, block, *fields)
    image[2 * block : 2 * block + len(rows)] = rows[: max(0, len(image) - 2 * block)]
    dos(image, [wrong.get("protective", PROTECTIVE)], signature=0)
    return image


def dos(image, slots, at=0, signature=0x12345678):
    """
    Put a table with up to four ``slots`` (indicator, type, first sector, number of sectors) into a sector of
    the bytearray.
    """
    struct.pack_into("<I", image, at + 440, signature)
    for index, (flag, kind, begin, size) in enumerate(slots):
        struct.pack_into("<B3xB3xII", image, at + 446 + 16 * index, flag, kind, begin, size)
    image[at + 510 : at + 512] = b"\x55\xaa"
    return image


def random_table(random, image):
    """Put a random table into the bytearray: mostly valid, often with one thing wrong."""
    blocks = len(image) // 512

    def place():
        begin = random.choice([random.randrange(34, blocks), random.randrange(blocks + 100), 1, 2**63])
        return begin, begin + random.choice([random.randrange(blocks), 0, 7, -1, -9, 2**40])

    if random.random() < 0.5:
        wrong = {}
        if random.random() < 0.4:
            key = random.choice(
                ["count", "width", "at", "own", "last", "length", "magic", "sums", "checksum"]
            )
            known = {"magic": b"EFI TRAP", "count": random.choice([1, 4, 300]), "last": blocks}
            wrong[key] = known.get(key, random.choice([0, 1, 3, 128, 2**20, 2**31]))
        most = min(wrong.get("count", 128), 260)
        numbers = random.sample(range(1, most + 1), min(most, random.randrange(8)))
        parts = {number: tuple(edge % 2**64 for edge in place()) for number in numbers}
        return gpt(image, parts, **wrong)
    kinds = [0x83, 0x82, 0x05, 0x0F, 0x85, 0xA5, 0x0C, 0xEE, 0x00]
    weights = [9, 2, 4, 2, 1, 1, 2, 0.3, 0.3]

    def slot():
        begin, end = (min(edge, 2**32 - 1) for edge in place())
        flag = random.choices([0, 0x80, 1], [20, 4, 1])[0]
        return flag, random.choices(kinds, weights)[0], begin, max(0, min(end - begin + 1, 2**32 - 1))

    extended = 2048
    for dummy in range(random.randrange(6)):
        where = random.choice([extended, extended + 512 * random.randrange(8)])
        if (where + 1) * 512 <= len(image):
            dos(image, [slot() for each in range(random.randrange(1, 5))], at=where * 512)
    first = [slot() for each in range(random.randrange(5))]
    if first and random.random() < 0.6:
        first[-1] = (0, random.choice([0x05, 0x0F]), extended, blocks - extended)
    return dos(image, first)
