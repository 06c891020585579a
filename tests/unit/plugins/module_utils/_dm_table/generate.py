# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Generate tables for a pool of devices: valid ones, ones with a single changed word, and random ones.

The seed determines everything, so that disagreements between a kernel and the parser can be reproduced. Valid
tables are built from the kernel's rules without the parser, so that the two can be compared.
"""

from __future__ import annotations

import random
from collections import namedtuple

# ``text`` as written in a table, size in sectors, logical block size in bytes.
PoolDevice = namedtuple("PoolDevice", ("text", "sectors", "block"))

TYPES = (
    "cache",
    "clone",
    "crypt",
    "delay",
    "dust",
    "ebs",
    "era",
    "error",
    "flakey",
    "integrity",
    "linear",
    "log-writes",
    "mirror",
    "multipath",
    "raid",
    "snapshot",
    "snapshot-merge",
    "snapshot-origin",
    "striped",
    "switch",
    "thin",
    "thin-pool",
    "unstriped",
    "vdo",
    "verity",
    "writecache",
    "zero",
    "zoned",
)
READERS = ("clone", "snapshot", "snapshot-merge", "thin")
# These keep their own records on a device, which no other target of the table may use.
OWNERS = ("cache", "clone", "era", "log-writes", "mirror", "raid", "snapshot", "snapshot-merge", "writecache")
ALONE = ("integrity", "multipath", "thin-pool", "verity", "vdo", "zoned")
ODD_WORDS = (
    "0",
    "1",
    "-1",
    "+1",
    "2",
    "3",
    "7",
    "63",
    "100",
    "101",
    "255",
    "256",
    "480",
    "481",
    "4095",
    "4097",
    "65536",
    "2147483648",
    "4294967295",
    "4294967296",
    "18446744073709551615",
    "18446744073709551616",
    "1e3",
    "0x10",
    "010",
    "1.5",
    "x",
    "-",
    ":",
    "8:0:0",
    "4096:0",
    "8:1048576",
    "/dev/null/x",
    "sync",
    "nosync",
    "allow_discards",
    "read_only",
    "error_reads",
    "drop_writes",
    "writeback",
    "J",
    "P",
    "N",
    "PO",
    "\u00e4",
)


def default_pool(count=12, sectors=1 << 21):
    """Devices that do not exist, for tests without a kernel."""
    return [PoolDevice(f"7:{minor}", sectors, 512) for minor in range(count)]


class Generator:
    """
    ``pool``: at least ten devices of at least 65536 sectors each. ``types``: the target types to generate.
    ``live_pool``: a device with a live thin-pool that has the volumes 0 to 3.
    """

    def __init__(self, seed, pool=None, types=TYPES, live_pool=None):
        self.seed = seed
        self.random = random.Random(seed)
        self.pool = list(pool or default_pool())
        self.names = {device.text for device in self.pool}
        self.types = tuple(types)
        self.live_pool = live_pool
        self.free = []

    # Pieces

    def _device(self):
        if not self.free:
            self.free = list(self.pool)
            self.random.shuffle(self.free)
        return self.free.pop()

    def _dev(self):
        return self._device().text

    def _area(self, length):
        """A device and an offset with room for ``length`` sectors."""
        device = self._device()
        steps = (device.sectors - length) // 8
        return f"{device.text} {8 * self.random.randint(0, max(0, steps))}"

    def _length(self, step=8, most=32768):
        return step * self.random.randint(1, max(1, most // step))

    def _pick(self, *values):
        return self.random.choice(values)

    def _some(self, words, even=False):
        chosen = [word for word in words if self.random.random() < 0.4]
        self.random.shuffle(chosen)
        return chosen

    def _group(self, words, optional=True):
        """``#n word...`` with some of the options in ``words``."""
        chosen = " ".join(self._some(words)).split()
        if optional and not chosen and self.random.random() < 0.5:
            return ""
        return " ".join([str(len(chosen))] + chosen)

    def _hex(self, size):
        return "".join(self.random.choice("0123456789abcdef") for unused in range(2 * size))

    def _number(self, low, high):
        return self._pick(
            low, high, self.random.randint(low, high), self.random.randint(low, min(high, low + 1000))
        )

    # One method per target: (length, parameters)

    def zero(self):
        return self._length(1), ""

    error = zero

    def linear(self):
        length = self._length()
        return length, self._area(length)

    def snapshot_origin(self):
        return self._length(), self._dev()

    def striped(self):
        count = self.random.randint(1, 4)
        chunk = 8 * self.random.randint(1, 32)
        length = count * chunk * self.random.randint(1, 40)
        return length, f"{count} {chunk} " + " ".join(self._area(length) for unused in range(count))

    def delay(self):
        length = self._length()
        return length, " ".join(
            f"{self._area(length)} {self._pick(0, 1, 50, 500)}" for unused in range(self.random.randint(1, 3))
        )

    def flakey(self):
        length = self._length()
        corrupt = self._pick("", "r", "w")
        words = []
        if corrupt:
            words.append(
                f"corrupt_bio_byte {self._number(1, 512)} {corrupt} {self._number(0, 255)} "
                f"{self._pick(0, 32)}"
            )
        if corrupt != "w":
            words.append(self._pick("drop_writes", "error_writes"))
        return (
            length,
            f"{self._area(length)} {self._number(0, 1000)} {self._number(1, 1000)} {self._group(words)}",
        )

    def snapshot(self, kinds=("P", "PO", "N")):
        features = self._pick("", "0", "1 discard_zeroes_cow", "2 discard_zeroes_cow discard_passdown_origin")
        return (
            self._length(),
            f"{self._dev()} {self._dev()} {self._pick(*kinds)} {1 << self.random.randint(3, 10)} {features}",
        )

    def snapshot_merge(self):
        return self.snapshot(("P", "PO"))

    def thin_pool(self):
        features = self._some(
            ("skip_block_zeroing", "ignore_discard", "no_discard_passdown", "error_if_no_space")
        )
        group = " ".join([str(len(features))] + features) if features else self._pick("", "0")
        return (
            self._length(),
            f"{self._dev()} {self._dev()} {128 * self.random.randint(1, 64)} {self._number(0, 1000)} {group}",
        )

    def thin(self):
        if self.live_pool is not None:
            pool = self._pick(*[self.live_pool] * 3, self._dev())
            return self._length(), f"{pool} {self._pick(0, 1, 2, 3, 4)} {self._pick('', self._dev())}"
        return self._length(), f"{self._dev()} {self._number(0, 16777215)} {self._pick('', self._dev())}"

    def crypt(self):
        sector = self._pick(512, 1024, 2048, 4096)
        cipher, size = self._pick(
            ("aes-xts-plain64", 32),
            ("aes-xts-plain64", 64),
            ("aes-cbc-essiv:sha256", 32),
            ("aes-cbc-plain", 16),
            ("aes", 16),
            ("aes-ecb", 32),
            ("capi:xts(aes)-plain64", 64),
            ("capi:cbc(aes)-essiv:sha256", 16),
            ("aes:2-cbc-plain64be", 32),
            ("aes-cbc-benbi", 24),
        )
        length = self._length(sector // 512)
        options = [
            "allow_discards",
            "same_cpu_crypt",
            "submit_from_crypt_cpus",
            "no_read_workqueue",
            "no_write_workqueue",
            "iv_large_sectors",
        ]
        chosen = self._some(options)
        if sector != 512:
            chosen.append(f"sector_size:{sector}")
        group = " ".join([str(len(chosen))] + chosen) if chosen else self._pick("", "0")
        iv_offset = sector // 512 * self.random.randint(0, 100)
        return length, f"{cipher} {self._hex(size)} {iv_offset} {self._area(length)} {group}"

    def verity(self):
        data, hashes = self._pick(512, 1024, 4096), self._pick(1024, 4096)
        blocks = self.random.randint(1, 1000)
        algorithm, size = self._pick(("sha256", 32), ("sha512", 64), ("sha1", 20))
        salt = self._pick("-", self._hex(self.random.randint(1, 32)))
        group = self._group(
            (
                "ignore_zero_blocks",
                "check_at_most_once",
                "try_verify_in_tasklet",
                self._pick("ignore_corruption", "restart_on_corruption", "panic_on_corruption"),
            )
        )
        params = (
            f"{self._pick(0, 1)} {self._dev()} {self._dev()} {data} {hashes} {blocks} {self._number(0, 100)} "
            f"{algorithm} {self._hex(size)} {salt} {group}"
        )
        return blocks * data // 512, params

    def integrity(self):
        options = self._some(
            (
                f"journal_sectors:{self._number(8, 1000)}",
                f"interleave_sectors:{1 << self.random.randint(3, 15)}",
                f"buffer_sectors:{self._number(1, 128)}",
                f"journal_watermark:{self._number(0, 100)}",
                f"commit_time:{self._number(0, 10000)}",
                "fix_padding",
            )
        )
        mode = self._pick("J", "B", "D", "R")
        tag = self._pick("4", "32", "-")
        if mode == "B" or tag == "-" or self.random.random() < 0.5:
            options.append("internal_hash:crc32c")
            tag = self._pick("4", "-")
            options.extend(
                self._some(("allow_discards",) if mode == "R" else ("allow_discards", "recalculate"))
            )
        block = self._pick(512, 4096)
        if block != 512:
            options.append(f"block_size:{block}")
        return self._length(), f"{self._dev()} 0 {tag} {mode} {len(options)} {' '.join(options)}"

    def mirror(self):
        length = self._length(64)
        region = 1 << self.random.randint(1, min(10, length.bit_length() - 1))
        sync = self._some((self._pick("sync", "nosync"),))
        if self.random.random() < 0.5:
            log = f"core {1 + len(sync)} {region} {' '.join(sync)}"
        else:
            log = f"disk {2 + len(sync)} {self._dev()} {region} {' '.join(sync)}"
        count = self.random.randint(2, 3)
        features = self._pick(
            "", "0", "1 handle_errors", "2 handle_errors keep_log", "2 keep_log handle_errors"
        )
        return length, f"{log} {count} {' '.join(self._area(length) for unused in range(count))} {features}"

    def raid(self):
        level = self._pick("raid0", "raid1", "raid4", "raid5_ls", "raid5_n", "raid6_zr", "raid6_nc", "raid10")
        count = {"raid1": 2, "raid10": 4}.get(level) or self.random.randint(
            4 if level.startswith("raid6") else 3, 5
        )
        width = {"raid0": count, "raid1": 1, "raid10": count}.get(level) or count - (
            2 if level.startswith("raid6") else 1
        )
        chunk = 0 if level == "raid1" else 1 << self.random.randint(3, 7)
        length = width * 128 * self.random.randint(10, 100)
        words = []
        if level != "raid0":
            words = self._some(
                (
                    f"region_size {1 << self.random.randint(7, 10)}",
                    f"min_recovery_rate {self._number(1, 20)}",
                    f"max_recovery_rate {self._number(100, 200)}",
                    f"daemon_sleep {self._number(1, 10)}",
                )
            )
            # With metadata devices, a resync that delays a removal can make kernel threads hang for ever.
            words += ["nosync"] if level == "raid10" else self._some(("sync",))
        if level == "raid1":
            words += self._some(("write_mostly 0", f"max_write_behind {self._number(0, 1000)}"))
        if level == "raid10":
            words += self._some(("raid10_copies 2", f"raid10_format {self._pick('near', 'far', 'offset')}"))
        words = " ".join([str(chunk)] + words).split()
        members = " ".join(
            f"{self._dev() if level == 'raid10' else '-'} {self._dev()}" for unused in range(count)
        )
        return length, f"{level} {len(words)} {' '.join(words)} {count} {members}"

    def cache(self):
        features = self._some(
            (self._pick("writeback", "writethrough", "passthrough"), "metadata2", "no_discard_passdown")
        )
        policy = self._pick("smq", "default", "cleaner", "mq")
        keys = self._pick("0", f"2 migration_threshold {self._number(0, 10000)}")
        return self._length(64), (
            f"{self._dev()} {self._dev()} {self._dev()} {64 * self.random.randint(1, 32)} {len(features)} "
            f"{' '.join(features)} {policy} {keys}"
        )

    def writecache(self):
        options = " ".join(
            self._some(
                (
                    f"high_watermark {self._number(50, 100)}",
                    f"low_watermark {self._number(0, 45)}",
                    f"writeback_jobs {self._number(1, 100)}",
                    f"autocommit_blocks {self._number(1, 1000)}",
                    f"autocommit_time {self._number(0, 3600000)}",
                    f"max_age {self._number(0, 86400000)}",
                    "cleaner",
                    "metadata_only",
                    f"pause_writeback {self._number(0, 60000)}",
                )
            )
        ).split()
        return (
            self._length(),
            f"s {self._dev()} {self._dev()} {1 << self.random.randint(9, 12)} {len(options)} "
            f"{' '.join(options)}",
        )

    def clone(self):
        features = self._some(("no_hydration", "no_discard_passdown"))
        core = " ".join(
            self._some(
                (
                    f"hydration_threshold {self._number(1, 100)}",
                    f"hydration_batch_size {self._number(1, 100)}",
                )
            )
        ).split()
        tail = f"{len(features)} {' '.join(features)}" if features or core else self._pick("", "0")
        if core:
            tail += f" {len(core)} {' '.join(core)}"
        return (
            self._length(),
            f"{self._dev()} {self._dev()} {self._dev()} {1 << self.random.randint(3, 10)} {tail}",
        )

    def era(self):
        return self._length(), f"{self._dev()} {self._dev()} {8 * self.random.randint(1, 64)}"

    def dust(self):
        block = 1 << self.random.randint(9, 12)
        length = self._length(8)
        return length, f"{self._area(length)} {block}"

    def ebs(self):
        length = self._length()
        return length, f"{self._area(length)} {self._pick(1, 2, 4, 8)} {self._pick('', 1, 2, 4, 8)}"

    def unstriped(self):
        count = self.random.randint(1, 4)
        chunk = 8 * self.random.randint(1, 16)
        length = chunk * self.random.randint(1, 40)
        return length, f"{count} {chunk} {self.random.randrange(count)} {self._area(length)}"

    def switch(self):
        count = self.random.randint(1, 3)
        length = self._length()
        return (
            length,
            f"{count} {self._number(1, 1000)} 0 {' '.join(self._area(length) for unused in range(count))}",
        )

    def log_writes(self):
        return self._length(), f"{self._dev()} {self._dev()}"

    def zoned(self):
        return self._length(), " ".join(self._dev() for unused in range(self.random.randint(1, 3)))

    def multipath(self):
        selector, width = self._pick(
            ("round-robin", 1), ("queue-length", 1), ("service-time", 2), ("round-robin", 0)
        )
        count = self.random.randint(1, 3)
        paths = " ".join(" ".join([self._dev()] + ["1"] * width) for unused in range(count))
        features = self._group(
            ("queue_if_no_path", f"pg_init_retries {self._number(1, 50)}", "queue_mode bio"), optional=False
        )
        return self._length(), f"{features} 0 1 1 {selector} 0 {count} {width} {paths}"

    def vdo(self):
        options = self._some(
            (
                "maxDiscard 8",
                "deduplication off",
                "compression on",
                "ack 2",
                "bio 3",
                "cpu 2",
                "bioRotationInterval 64",
            )
        )
        zones = self._pick("", "hash 1 logical 1 physical 1")
        return self._length(), (
            f"V4 {self._dev()} {self._number(1, 262144)} {self._pick(512, 4096)} "
            f"{self._number(32768, 65536)} {self._number(1, 16380)} "
            f"{' '.join(options)} {zones}"
        )

    # Tables

    def _target(self, name, start):
        self.free = []
        length, params = getattr(self, name.replace("-", "_"))()
        return length, " ".join(f"{start} {length} {name} {params}".split())

    def valid(self):
        """
        The lines of a table that is accepted by kernels with its target types, provided that its devices
        contain what they should.
        """
        name = self.random.choice(self.types)
        if name in ALONE or self.random.random() < 0.6:
            return [self._target(name, 0)[1]]
        lines = []
        start = 0
        used, owned = set(), set()
        # Targets that open a device for reading only come last: the kernel crashes if a later target opens
        # the same device for writing.
        together = [kind for kind in self.types if kind not in ALONE and kind not in READERS] or [name]
        count = self.random.randint(1, 4)
        for index in range(count):
            if index == count - 1:
                together = [kind for kind in self.types if kind not in ALONE]
            for unused in range(50):
                kind = self.random.choice(together)
                length, line = self._target(kind, start)
                devices = self.names.intersection(line.split(" "))
                # Whole 4 KiB blocks, so that no target ends inside another one's logical block.
                if not length % 8 and devices.isdisjoint(used if kind in OWNERS else owned):
                    break
            else:
                break
            used |= devices
            owned |= devices if kind in OWNERS else set()
            lines.append(line)
            start += length
        return lines

    def changed(self):
        """
        ``(lines, description of the change)``: a valid table with a single word changed, removed or added.
        """
        lines = self.valid()
        index = self.random.randrange(len(lines))
        words = lines[index].split(" ")
        place = self.random.randrange(len(words))
        old = words[place]
        kind = self._pick("replace", "replace", "replace", "near", "near", "drop", "add", "double")
        if kind == "near" and old.isdigit():
            words[place] = str(max(0, int(old) + self._pick(-8, -1, 1, 8, 1 << 32)))
        elif kind == "drop":
            del words[place]
        elif kind == "add":
            words.insert(place, self._pick(*ODD_WORDS))
        elif kind == "double":
            words.insert(place, old)
        else:
            words[place] = self._pick(*ODD_WORDS)
        lines[index] = " ".join(words)
        return lines, f"line {index + 1}, word {place}: {kind} {old!r}"

    def random_table(self):
        """Lines of words that occur in tables, in any order."""
        lines = []
        start = "0"
        for unused in range(self._pick(1, 1, 1, 2, 3)):
            head = [self._pick(*[start] * 40, *ODD_WORDS), self._pick(*["8", "1024"] * 20, *ODD_WORDS)]
            kind = self._pick(*self.types)
            pieces = self._target(self._pick(kind, kind, *self.types), 0)[1].split(" ")[3:] + list(ODD_WORDS)
            count = len(self._target(kind, 0)[1].split(" ")) - 3
            count = self._pick(count, count, self.random.randint(0, 12))
            lines.append(" ".join(head + [kind] + [self._pick(*pieces) for unused in range(count)]))
            start = str(int(start) + int(head[1])) if head[1].isdigit() else "8"
        return lines

    def tables(self, count):
        """``count`` tables as ``(kind, lines)``, the three kinds in turn."""
        for number in range(count):
            if number % 3 == 0:
                yield "valid", self.valid()
            elif number % 3 == 1:
                yield "changed", self.changed()[0]
            else:
                yield "random", self.random_table()
