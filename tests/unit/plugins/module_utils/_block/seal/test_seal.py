# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The parts of seals that need no kernel: layouts, instructions, events, requirements of the host, and the
keeper's code.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import KernelError, NotSupported
from ansible_collections.racefree.block.plugins.module_utils._block.seal import (
    below,
    blkback,
    change_event,
    entry,
    keeping,
    place,
    program,
    reason_text,
    reasons,
    uevent,
)
from ansible_collections.racefree.block.plugins.module_utils._dm import load
from ansible_collections.racefree.block.plugins.module_utils._xen.vbd_key import Key
from hypothesis import given
from hypothesis import strategies as st

NUMBERS = st.integers(0, 2**64 - 1)
MOUNTS = "24 1 0:22 / /sys rw - sysfs sysfs rw\n{}"
CGROUPS = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n"
BPF = "31 24 0:27 / /sys/fs/bpf rw - bpf bpf rw,mode=700\n"


@given(diskseq=NUMBERS, since=NUMBERS, refused=NUMBERS, with_disk=st.booleans())
def test_a_seal_is_decoded_as_it_was_encoded(diskseq, since, refused, with_disk):
    seal = entry.Seal(diskseq, since, refused, with_disk)
    encoded = seal.encoded()
    assert entry.seal_of(encoded) == seal and len(encoded) == entry.SEAL_SIZE
    # The counter that the program increments.
    assert struct.unpack_from("=Q", encoded, entry.REFUSED_AT) == (refused,)


def test_a_pass_is_for_one_thread_and_one_device():
    keys = {
        entry.pass_key(process, thread, major, minor)
        for process, thread, major, minor in (
            (1, 2, 3, 4),
            (2, 1, 3, 4),
            (1, 2, 4, 3),
            (1, 3, 3, 4),
            (1, 2, 3, 5),
        )
    }
    assert len(keys) == 5 and {len(key) for key in keys} == {entry.PASS_KEY_SIZE}
    value = entry.Pass(7, b"name").encoded()
    assert entry.end_of_pass(value) == 7 and value[entry.PASS_NAME_AT :] == b"name".ljust(
        entry.NAME_SIZE, b"\0"
    )


def test_every_jump_of_the_program_goes_forward_to_an_instruction():
    code = program.build(3, 4)
    rows = [struct.unpack_from("=BBhi", code, place) for place in range(0, len(code), 8)]
    jumps = [
        (place, offset)
        for place, (opcode, dummy, offset, dummy2) in enumerate(rows)
        # Instruction classes JMP and JMP32, without call and exit.
        if opcode & 7 in (5, 6) and opcode not in (0x85, 0x95)
    ]
    assert len(jumps) == 7
    for place_, offset in jumps:
        assert 0 <= offset and place_ + 1 + offset < len(rows)
    assert rows[-1][0] == 0x95 and [row[3] for row in rows if row[0] == 0x18] == [3, 4]
    assert len(program.NAME) < entry.NAME_SIZE


def message(**words):
    return b"\0".join(
        [
            b"change@/devices/virtual/block/dm-3",
            *(f"{name}={value}".encode() for name, value in words.items()),
            b"",
        ]
    )


def test_an_event_contains_its_device():
    event = uevent.parse(
        message(
            ACTION="change",
            DEVPATH="/devices/x=y",
            SUBSYSTEM="block",
            MAJOR=253,
            MINOR=3,
            DEVTYPE="disk",
            DISKSEQ=9,
        )
    )
    assert event == uevent.Event("change", 253, 3, False) and event.number == (253, 3)
    assert uevent.parse(
        message(ACTION="add", SUBSYSTEM="block", MAJOR=259, MINOR=0, DEVTYPE="partition")
    ).is_partition


@pytest.mark.parametrize(
    "words",
    [
        {"SUBSYSTEM": "mem", "MAJOR": 1, "MINOR": 3},
        {"SUBSYSTEM": "block"},
        {"SUBSYSTEM": "block", "MAJOR": "x", "MINOR": 1},
        {},
        {"SUBSYSTEM": "blocks", "MAJOR": 1, "MINOR": 3},
    ],
)
def test_other_events_are_ignored(words):
    assert uevent.parse(message(**words)) is None


@given(st.binary(max_size=200))
def test_any_bytes_can_be_parsed(data):
    uevent.parse(data)
    uevent.parse(b"SUBSYSTEM=block\0" + data)


def test_an_event_tells_that_a_guests_disk_has_gone():
    event = uevent.parse(message(ACTION="remove", SUBSYSTEM="xen-backend", XENBUS_TYPE="vbd"))
    assert event.is_backend and event.action == "remove"


def test_reasons_are_recorded(tmp_path, monkeypatch):
    directory = tmp_path / "seals"
    monkeypatch.setattr(reasons, "DIRECTORY", str(directory))
    assert reasons.recorded() == []
    reasons.keep((253, 4), 42, {reason_text.OWN})
    assert not directory.exists()
    reasons.keep((253, 4), 42, {reason_text.OWN, reason_text.of_vbd(5, 51712)})
    (file,) = directory.iterdir()
    assert file.read_text().splitlines() == ["own", "vbd 5 51712"]
    assert reasons.recorded() == [((253, 4), 42)]
    (directory / "something else").write_text("")
    for left in ({reason_text.OWN}, ()):
        reasons.keep((253, 4), 42, left)
        reasons.keep((253, 4), 42, left)
        assert reasons.recorded() == []


def test_a_reason_that_cannot_be_recorded_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(reasons, "DIRECTORY", str(tmp_path / "file"))
    (tmp_path / "file").write_text("")
    with pytest.raises(KernelError, match="record why the device is sealed"):
        reasons.keep((253, 4), 42, {reason_text.of_vbd(5, 51712)})
    reasons.keep((253, 4), 42, {reason_text.OWN})


def test_reasons_end(monkeypatch):
    """blkback has no disk open here, and no device stands on a loop device that does not exist."""
    monkeypatch.setattr(reasons, "of", lambda maps, number, diskseq: frozenset([reason_text.OWN]))
    for reason, has_ended in (
        (reason_text.OWN, False),
        ("of a newer version", False),
        (reason_text.of_vbd(5, 51712), True),
        (reason_text.of_upper((253, 4), 42, "vbd 5 51712"), True),
        (reason_text.of_upper((7, 1048000), 42, reason_text.OWN), True),
    ):
        assert reasons.has_ended(None, reason, (7, 3)) == has_ended


def test_nothing_lies_below_what_is_not_there():
    assert below.devices(7, 1048000) == []


def test_names_that_other_rooms_repeat():
    """Others repeat them to save the import."""
    assert load._SEALS == place.DIRECTORY
    assert Key(5, 51712).sysfs == f"{blkback._BACKENDS}/devices/vbd-5-51712"


@pytest.fixture
def mounts(tmp_path, monkeypatch):
    """A function that simulates the content of mountinfo, for a process in the initial namespaces."""

    def use(text):
        path = tmp_path / "mountinfo"
        path.write_text(MOUNTS.format(text), encoding="utf-8")
        monkeypatch.setattr(place, "_MOUNTS", str(path))

    monkeypatch.setattr(place, "_namespace", lambda kind: place._FIRST[kind])
    return use


def test_a_host_that_can_seal(mounts):
    mounts(CGROUPS + BPF)
    place.check()
    assert place.cgroup_root() == "/sys/fs/cgroup"
    # A hybrid host with cgroups of both versions.
    mounts(
        BPF + "32 24 0:28 / /sys/fs/cgroup rw - tmpfs t rw\n33 32 0:26 / /sys/fs/cgroup/unified rw - cgroup2 "
        "cgroup2 rw\n"
    )
    place.check()
    assert place.cgroup_root() == "/sys/fs/cgroup/unified"


@pytest.mark.parametrize(
    "text, missing",
    [
        (BPF, "control groups of version 2, which seals need, are not mounted"),
        (
            BPF + "32 24 0:28 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n",
            "control groups of version 2",
        ),
        # A container that sees only a part of the hierarchy.
        (
            BPF + "30 24 0:26 /user.slice /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
            "control groups of version 2",
        ),
        (BPF + CGROUPS + "40 24 0:40 / /sys/fs/cgroup rw - tmpfs t rw\n", "control groups of version 2"),
        (CGROUPS, "the file system of type bpf, which keeps the seals, is not mounted there"),
        (
            CGROUPS + "31 24 0:27 / /sys/fs/bpf rw - tmpfs t rw\n",
            "the file system of type bpf, which keeps the seals, is not mounted there",
        ),
    ],
)
def test_a_host_that_cannot_seal_is_told_what_is_missing(mounts, text, missing):
    mounts(text)
    with pytest.raises(NotSupported, match=missing) as caught:
        place.check()
    assert "ount" in caught.value.hint


@pytest.mark.parametrize("kind", ["cgroup", "pid", "user"])
def test_sealing_in_a_container_is_refused(mounts, monkeypatch, kind):
    mounts(CGROUPS + BPF)
    monkeypatch.setattr(place, "_namespace", lambda asked: place._FIRST[asked] + (asked == kind))
    with pytest.raises(NotSupported, match=f"{kind} namespace of its own"):
        place.check()


def test_the_keeper_gets_all_code_that_it_imports():
    """
    A new Python process imports the keeper from the code that would be sent, and nothing else of the
    collection.
    """
    sources = keeping.sources()
    # The keeper's start, up to the call of main().
    begin = keeping._BEGIN.replace(".main()", "") + (
        "\nprint(sorted(name for name in sys.modules if name.startswith('ansible')))\n"
        "print(sorted(set(given['sources']) - set(sys.modules)))\n"
    )
    name = f"{keeping._PACKAGE}{keeping._inside(keeping.keeper.__name__)}"
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-c", keeping._COMMAND],
        input=json.dumps({"begin": begin, "main": name, "sources": sources}),
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
        timeout=60,
    )
    # way_in is imported only if a sealed device must be opened.
    late = f"['{keeping._PACKAGE}._block.seal.way_in']"
    assert done.stdout.splitlines() == ["[]", late], done.stderr


def test_a_keeper_that_cannot_start_is_reported(monkeypatch):
    monkeypatch.setattr(keeping, "sources", lambda: {keeping._PACKAGE: ("", True)})
    with pytest.raises(keeping.KernelError, match="exited at once: ModuleNotFoundError"):
        keeping.start()


def test_a_missing_device_gets_no_event():
    change_event.send(4095, 1048575)
