# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The example tables in the kernel's Documentation/admin-guide/device-mapper and in dmsetup(8).

Shell variables in the documents are replaced: $1 is /dev/sdb with 2097152 sectors, $2 is /dev/sdc.
"""

from __future__ import annotations

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import TableError
from ansible_collections.racefree.block.plugins.module_utils._dm_table import (
    Context,
    format_table,
    parse_table,
)

DOCUMENTS = [
    (
        "cache.rst",
        "0 41943040 cache /dev/mapper/metadata /dev/mapper/ssd /dev/mapper/origin 512 1 writeback default 0",
    ),
    (
        "cache.rst",
        "0 41943040 cache /dev/mapper/metadata /dev/mapper/ssd /dev/mapper/origin 1024 1 writeback "
        "mq 4 sequential_threshold 1024 random_threshold 8",
    ),
    (
        "cache-policies.rst",
        "0 268435456 cache /dev/sdb /dev/sdc /dev/sdd 512 0 mq 4 sequential_threshold 1024 "
        "random_threshold 8",
    ),
    ("delay.rst", "0 2097152 delay /dev/sdb 0 500"),
    ("delay.rst", "0 2097152 delay /dev/sdb 2048 0 /dev/sdc 4096 400"),
    ("delay.rst", "0 2097152 delay /dev/sdb 0 50 /dev/sdc 0 100 /dev/sdb 0 333"),
    ("dm-clone.rst", "0 1048576000 clone /dev/sdb /dev/sdc /dev/sdd 8 1 no_hydration"),
    ("dm-clone.rst", "0 1048576000 linear /dev/sdc 0"),
    ("dm-crypt.rst", "0 2097152 crypt aes-cbc-essiv:sha256 babebabebabebabebabebabebabebabe 0 /dev/sdb 0"),
    ("dm-crypt.rst", "0 2097152 crypt aes-cbc-essiv:sha256 :32:logon:my_prefix:my_key 0 /dev/sdb 0"),
    (
        "dm-crypt.rst",
        "0 2097152 crypt serpent-xts-plain64 babebabebabebabebabebabebabebabe 0 /dev/sdb 0 3 "
        "allow_discards same_cpu_crypt "
        "submit_from_crypt_cpus",
    ),
    (
        "dm-crypt.rst",
        "0 2097152 crypt capi:cbc(aes)-essiv:sha256 babebabebabebabebabebabebabebabe 0 /dev/sdb 0",
    ),
    (
        "dm-crypt.rst",
        "0 2097152 crypt capi:xts(aes)-plain64 "
        "babebabebabebabebabebabebabebabebabebabebabebabebabebabebabebabe 0 /dev/sdb 0",
    ),
    (
        "dm-crypt.rst",
        "0 2097152 crypt capi:gcm(aes)-random babebabebabebabebabebabebabebabe 0 /dev/sdb 0 1 "
        "integrity:28:aead",
    ),
    (
        "dm-crypt.rst",
        "0 2097152 crypt capi:authenc(hmac(sha256),xts(aes))-random babebabebabebabebabebabebabebabe 0 "
        "/dev/sdb 0 1 integrity:48:aead",
    ),
    (
        "dm-crypt.rst",
        "0 2097152 crypt capi:rfc7539(chacha20,poly1305)-random babebabebabebabebabebabebabebabe 0 "
        "/dev/sdb 0 1 integrity:28:aead",
    ),
    ("dm-dust.rst", "0 33552384 dust /dev/vdb1 0 512"),
    ("dm-dust.rst", "0 33552384 dust /dev/vdb1 0 4096"),
    ("dm-ebs.rst", "0 2097152 ebs /dev/sda 1024 1"),
    ("dm-ebs.rst", "0 2097152 ebs /dev/sda 128 2 4"),
    ("dm-flakey.rst", "0 2097152 flakey /dev/sdb 0 5 5 5 corrupt_bio_byte 32 r 1 0"),
    ("dm-flakey.rst", "0 2097152 flakey /dev/sdb 0 5 5 5 corrupt_bio_byte 224 w 0 32"),
    (
        "dm-ima.rst",
        "0 2 linear /dev/loop0 512\n2 2 linear /dev/loop0 512\n4 2 linear /dev/loop0 512\n6 2 linear "
        "/dev/loop0 512",
    ),
    ("dm-init.rst", "0 4096 linear 98:16 0\n4096 4096 linear 98:32 0"),
    ("dm-init.rst", "0 32768 linear 8:1 0\n32768 1024000 linear 8:2 0"),
    (
        "dm-init.rst",
        "0 1638400 verity 1 /dev/sdc1 /dev/sdc2 4096 4096 204800 1 sha256 "
        "ac87db56303c9c1da433d7209b5a6ef3e4779df141200cbd7c157dcb8dd89c42 "
        "5ebfe87f7df3235b80a117ebc4078e44f55045487ad4a96581d1adb564615b51",
    ),
    (
        "dm-init.rst",
        "0 1048576 crypt aes-xts-plain64 babebabebabebabebabebabebabebabebabebabebabebabebabebabebabebabe "
        "0 /dev/sda 0 1 allow_discards",
    ),
    ("dm-init.rst", "0 409600 delay /dev/sda1 0 500"),
    (
        "dm-init.rst",
        "0 32768 linear /dev/sda1 0\n32768 1024000 linear /dev/sda2 0\n1056768 204800 linear /dev/sda3 "
        "0\n1261568 512000 linear /dev/sda4 0",
    ),
    ("dm-init.rst", "0 409600 snapshot-origin 8:2"),
    ("dm-init.rst", "0 1638400 striped 4 4096 /dev/sda1 0 /dev/sda2 0 /dev/sda3 0 /dev/sda4 0"),
    (
        "dm-init.rst",
        "0 1638400 verity 1 8:1 8:2 4096 4096 204800 1 sha256 "
        "fb1a5a0f00deb908d8b53cb270858975e76cf64105d412ce764225d53b8f3cfd "
        "51934789604d1b92399c52e7cb149d1b3a1b74bbbcb103b2a0aaacbed5c08584",
    ),
    ("dm-integrity.rst", "0 2097152 integrity /dev/sdb 0 - J 1 internal_hash:hmac(sha256):0123456789abcdef"),
    (
        "dm-integrity.rst",
        "0 2097152 integrity /dev/sdb 0 4 J 3 interleave_sectors:32768 internal_hash:crc32c "
        "buffer_sectors:128",
    ),
    ("dm-queue-length.rst", "0 10 multipath 0 0 1 1 queue-length 0 2 1 8:0 128 8:16 128"),
    ("dm-raid.rst", "0 1960893648 raid raid4 1 2048 5 - 8:17 - 8:33 - 8:49 - 8:65 - 8:81"),
    (
        "dm-raid.rst",
        "0 1960893648 raid raid4 4 2048 sync min_recovery_rate 20 5 8:17 8:18 8:33 8:34 8:49 8:50 8:65 "
        "8:66 8:81 8:82",
    ),
    ("dm-service-time.rst", "0 10 multipath 0 0 1 1 service-time 0 2 2 8:0 128 1 8:16 128 4"),
    ("dm-service-time.rst", "0 10 multipath 0 0 1 1 service-time 0 2 2 8:0 128 2 8:16 128 8"),
    ("linear.rst", "0 2097152 linear /dev/sdb 0"),
    ("linear.rst", "0 2097152 linear /dev/sdb 0\n2097152 1048576 linear /dev/sdc 0"),
    ("log-writes.rst", "0 2097152 log-writes /dev/sdb /dev/sdc"),
    ("snapshot.rst", "0 2097152 linear 8:19 384"),
    ("snapshot.rst", "0 204800 linear 8:19 2097536"),
    ("snapshot.rst", "0 2097152 snapshot 254:11 254:12 P 16"),
    ("snapshot.rst", "0 2097152 snapshot-origin 254:11"),
    ("snapshot.rst", "0 2097152 snapshot-merge 254:11 254:12 P 16"),
    ("striped.rst", "0 4194304 striped 2 256 /dev/sdb 0 /dev/sdc 0"),
    ("switch.rst", "0 2097152 switch 3 128 0 /dev/vg1/switch0 0 /dev/vg1/switch1 0 /dev/vg1/switch2 0"),
    ("thin-provisioning.rst", "0 20971520 thin-pool /dev/sdb /dev/sdc 128 32768"),
    ("thin-provisioning.rst", "0 2097152 thin /dev/mapper/pool 0"),
    ("thin-provisioning.rst", "0 2097152 thin /dev/mapper/pool 1"),
    ("thin-provisioning.rst", "0 2097152 thin /dev/mapper/pool 0 /dev/image"),
    ("unstriped.rst", "0 512 unstriped 2 256 0 /dev/nvme0n1 0"),
    ("unstriped.rst", "0 512 unstriped 2 256 1 /dev/nvme0n1 0"),
    ("unstriped.rst", "0 512 unstriped 4 256 0 /dev/mapper/striped 0"),
    ("unstriped.rst", "0 512 unstriped 4 256 1 /dev/mapper/striped 0"),
    ("unstriped.rst", "0 512 unstriped 4 256 2 /dev/mapper/striped 0"),
    ("unstriped.rst", "0 512 unstriped 4 256 3 /dev/mapper/striped 0"),
    ("vdo.rst", "0 2097152 vdo V4 /dev/dm-1 262144 4096 32768 16380"),
    ("vdo.rst", "0 8388608 vdo V4 /dev/dm-1 262144 4096 32768 16380"),
    ("vdo.rst", "0 8388608 vdo V4 /dev/dm-1 524288 4096 32768 16380"),
    ("vdo.rst", "0 10485760 vdo V4 /dev/dm-1 786432 4096 32768 16380 maxDiscard 8"),
    ("vdo.rst", "0 10485760 vdo V4 /dev/dm-1 786432 512 65550 5000 hash 1 logical 3 physical 2"),
    (
        "verity.rst",
        "0 2097152 verity 1 /dev/sda1 /dev/sda2 4096 4096 262144 1 sha256 "
        "4392712ba01368efdf14b05c76f9e4df0d53664630b5d48632ed17a137f39076 "
        "1234000000000000000000000000000000000000000000000000000000000000",
    ),
    ("zero.rst", "0 21474836480 zero"),
    ("zero.rst", "0 21474836480 snapshot /dev/mapper/zero1 /dev/sdb1 p 128"),
    (
        "dmsetup.8",
        "# A table to join two disks together\n0 1028160 linear /dev/hda 0\n1028160 3903762 linear "
        "/dev/hdb 0",
    ),
    (
        "dmsetup.8",
        "# A table to stripe across the two disks,\n# and add the spare space from\n# hdb to the back of "
        "the volume\n"
        "0 2056320 striped 2 32 /dev/hda 0 /dev/hdb 0\n2056320 2875602 linear /dev/hdb 1028160",
    ),
    ("dmsetup.8", "0 2056320 striped 2 32 /dev/hda1 0 /dev/hdb1 0"),
    ("dmsetup.8", "0 2097152 linear /dev/loop0 0\n2097152 2097152 linear /dev/loop1 0"),
    ("dmsetup.8", "0 2097152 linear /dev/loop0 0"),
    ("dmsetup.8", "0 2097152 linear /dev/loop1 0\n 2097152 2097152 linear /dev/loop2 0"),
]


@pytest.mark.parametrize("source, text", DOCUMENTS)
def test_example_round_trips(source, text):
    context = Context(read_only=" verity " in text)
    table = parse_table(text, context=context)
    lines = format_table(table)
    assert parse_table(lines, context=context) == table
    assert parse_table(table.to_list(), context=context) == table
    assert table.same_as(parse_table(format_table(table.canonical())))
    written = [" ".join(line.split()) for line in text.split("\n") if not line.startswith("#")]
    assert len(lines) == len(written)
    for line, original in zip(lines, written):
        # The parser may only reorder options and change the case of letters.
        assert sorted(line.lower().split()) in (
            sorted(original.lower().split()),
            sorted(original.lower().split() + ["0"]),
        )


def test_the_one_example_that_no_kernel_accepts():
    """unstriped.rst maps a single sector with chunks of 256, which unstripe_ctr() rejects."""
    with pytest.raises(TableError) as caught:
        parse_table("0 1 unstriped 4 256 0 /dev/mapper/raid0 0")
    assert [error["field"] for error in caught.value.errors] == ["length"]
