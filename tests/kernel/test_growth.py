# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Devices of guests' disks that grow while they are in use, on a real kernel: everything below blkback."""

from __future__ import annotations

import contextlib
import os
import subprocess

import ptrace
import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.deadline import Deadline
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    DeviceBusy,
    InvalidValue,
    TableError,
)
from ansible_collections.racefree.block.plugins.module_utils._block import device as _device
from ansible_collections.racefree.block.plugins.module_utils._block.seal import seals
from ansible_collections.racefree.block.plugins.module_utils._dm import control as _control
from ansible_collections.racefree.block.plugins.module_utils._dm import load, udev
from ansible_collections.racefree.block.plugins.module_utils._dm import mapped as _mapped
from ansible_collections.racefree.block.plugins.module_utils._dm import suspended as _suspended
from ansible_collections.racefree.block.plugins.module_utils._source import (
    for_guest,
    growth,
    spec,
)
from ansible_collections.racefree.block.plugins.module_utils._source.resources import Resources
from conftest import run_module, wait_until
from sealing import is_refused, nothing_sealed

MIB = 2**20
OLD, NEW = b"written before", b"written into the new part"
KEY = "00" * 64


def table(*lines, **more):
    return {"table": list(lines), **more}


def line(target, length, start=0, **fields):
    return {"start": start, "length": length // 512, "target": target, **fields}


def linear(below, length, start=0, offset=0):
    return line("linear", length, start // 512, device=below, offset=offset // 512)


class Files:
    """The files of a disk, in one directory."""

    def __init__(self, directory):
        self.directory = directory

    def make(self, name, size, content=b""):
        """A file of at least this size."""
        path = str(self.directory / name)
        with open(path, "ab") as file:
            if not file.tell():
                file.write(content)
            file.truncate(max(size, file.tell()))
        return {"file": path, "format": "raw"}


# Each makes the source of a disk with this size, and its files.


def plain_file(files, size):
    return files.make("a.raw", size)


def limited_file(files, size):
    return {**files.make("a.raw", 64 * MIB), "offset": MIB, "size": size}


def over_a_file(files, size):
    return table(linear(files.make("a.raw", size), size))


def over_a_part_of_a_larger_file(files, size):
    return table(linear(files.make("a.raw", 64 * MIB), size, offset=MIB))


def over_a_second_file(files, size):
    first = linear(files.make("a.raw", 8 * MIB), 8 * MIB)
    if size == 8 * MIB:
        return table(first)
    second = files.make("b.raw", size - 8 * MIB)
    return table(first, linear(second, size - 8 * MIB, start=8 * MIB))


def encrypted(files, size):
    below = table(linear(files.make("a.raw", size), size))
    return table(line("crypt", size, cipher="aes-xts-plain64", key=KEY, iv_offset=0, device=below, offset=0))


def snapshot(files, size):
    """Of an image that is shorter than the disk: its origin grows, too, and so does its store."""
    image = {**files.make("golden.raw", 4 * MIB, b"golden"), "read_only": True}
    origin = table(linear(image, 4 * MIB), line("zero", size - 4 * MIB, start=4 * MIB // 512), read_only=True)
    store = files.make("store.cow", size // 2)
    return table(line("snapshot", size, origin=origin, cow=store, persistence="P", chunk_size=8))


def thin(files, size):
    """The pool grows, too."""
    pool = table(
        line(
            "thin-pool",
            2 * size,
            metadata=files.make("meta", 4 * MIB),
            data=files.make("data", 2 * size),
            block_size=128,
            low_water_mark=0,
        ),
        name=f"pool-{files.directory.name}",
        uuid=f"TEST-{files.directory.name}",
    )
    return table(line("thin", size, pool=pool, id=0))


STACKS = (
    plain_file,
    limited_file,
    over_a_file,
    over_a_part_of_a_larger_file,
    over_a_second_file,
    encrypted,
    snapshot,
    thin,
)


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


@contextlib.contextmanager
def disk(source):
    """The device of a source, as a guest has it: held open by somebody else, with something written."""
    with contextlib.ExitStack() as user:
        with Resources() as resources:
            parsed = spec.parse(source)
            if make_volume(parsed):
                run_module("thin_volumes", pool=pool_of(source), volumes=[{"id": 0}])
            device = for_guest.open_source(resources, parsed, Deadline(30))
            user.enter_context(device.duplicate())
            path = device.path
        with open(path, "rb+", buffering=0) as file:
            write(file, 4096, OLD)
            yield file
        del file
    wait_until(lambda: not os.path.exists(f"/sys/block/{os.path.basename(path)}/dm"))


def make_volume(source):
    return isinstance(source, spec.TableSource) and source.table[0]["target"] == "thin"


def pool_of(source):
    return source["table"][0]["pool"]


def write(file, place, text):
    file.seek(place)
    file.write(text.ljust(512))
    os.fsync(file.fileno())


def read(file, place, text):
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    file.seek(place)
    return file.read(len(text))


def grow(source, file, guard=growth.allow, least=0, applied=True):
    """
    Grow the device of the open file, or only plan that; returns the sizes before and after of what has grown.
    """
    with Resources() as resources:
        number = os.fstat(file.fileno()).st_rdev
        device = resources.enter_context(_device.open_number(os.major(number), os.minor(number)))
        found = growth.Growth(resources, guard, udev.HANDS_OFF, 20)
        assert found.plan(spec.parse(source), device, least)
        sizes = found.sizes()
        assert found.size == max([device.size, *(sizes[1][name] for name in sizes[1] if name == device.path)])
        if applied:
            found.apply()
        return sizes


def below(file):
    """The names of all devices below the device of the open file."""
    number = os.fstat(file.fileno()).st_rdev
    todo, found = [os.path.realpath(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")], set()
    while todo:
        slaves = os.path.join(todo.pop(), "slaves")
        for name in os.listdir(slaves) if os.path.isdir(slaves) else ():
            found.add(name)
            todo.append(os.path.realpath(os.path.join(slaves, name)))
    return found


def size_of(file):
    return os.lseek(file.fileno(), 0, os.SEEK_END)


@pytest.mark.parametrize("stack", STACKS)
def test_grown_in_use(stack, files):
    with disk(stack(files, 8 * MIB)) as file:
        assert size_of(file) == 8 * MIB
        diskseq = _device.read_diskseq(file.fileno(), "the disk")
        assert grow(stack(files, 8 * MIB), file) == ({}, {})
        standing_on = below(file)
        wanted = stack(files, 24 * MIB)
        before, after = grow(wanted, file)
        assert set(before) == set(after) and all(before[name] < after[name] for name in before)
        assert size_of(file) == 24 * MIB
        assert _device.read_diskseq(file.fileno(), "the disk") == diskseq
        # The same devices, and not new ones over the same files.
        assert below(file) == standing_on or (stack is over_a_second_file and below(file) > standing_on)
        assert read(file, 4096, OLD) == OLD
        write(file, 24 * MIB - 512, NEW)
        assert read(file, 24 * MIB - 512, NEW) == NEW
        assert grow(wanted, file) == ({}, {})
        if stack in (plain_file, over_a_file, encrypted):
            assert os.path.getsize(files.directory / "a.raw") == 24 * MIB
    # Everything goes with the last user, also what the longer table needed.
    wait_until(lambda: not bound(files))


def bound(files):
    listed = subprocess.run(["losetup", "--list"], capture_output=True, text=True, check=True).stdout
    return str(files.directory) in listed


def test_the_file_grows_too(files):
    source = files.make("a.raw", 8 * MIB)
    with disk(source) as file:
        before, after = grow(source, file, least=16 * MIB)
        assert (before[source["file"]], after[source["file"]]) == (8 * MIB, 16 * MIB)
        assert size_of(file) == os.path.getsize(source["file"]) == 16 * MIB


@pytest.mark.parametrize("stack", [limited_file, over_a_part_of_a_larger_file, thin])
def test_never_shrinks(stack, files):
    with disk(stack(files, 16 * MIB)) as file:
        with pytest.raises(InvalidValue, match="or more.*never made smaller"):
            grow(stack(files, 8 * MIB), file)
        assert size_of(file) == 16 * MIB


def test_a_table_that_is_longer_but_another(files):
    with disk(over_a_part_of_a_larger_file(files, 8 * MIB)) as file:
        for other in (
            table(linear(files.make("a.raw", 64 * MIB), 16 * MIB)),
            table(line("zero", 16 * MIB)),
            over_a_second_file(files, 16 * MIB),
            table(linear(files.make("b.raw", 64 * MIB), 16 * MIB, offset=MIB)),
        ):
            with Resources() as resources:
                number = os.fstat(file.fileno()).st_rdev
                device = resources.enter_context(_device.open_number(os.major(number), os.minor(number)))
                assert not growth.Growth(resources, growth.allow).plan(spec.parse(other), device)
        assert size_of(file) == 8 * MIB


def test_a_table_that_is_longer_than_its_file(files):
    source = over_a_file(files, 8 * MIB)
    with disk(source) as file:
        source["table"][0]["length"] *= 2
        with pytest.raises(TableError, match="device"):
            grow(source, file)
        assert size_of(file) == 8 * MIB


def test_refused_before_anything_has_grown(files):
    """The guard is asked with the tables and limits as they would be."""

    def refuse(tables, limits):
        asked.append((tables, limits))
        raise DeviceBusy("somebody else has that")

    asked = []
    for stack in (limited_file, over_a_part_of_a_larger_file):
        with disk(stack(files, 8 * MIB)) as file:
            with pytest.raises(DeviceBusy, match="somebody else"):
                grow(stack(files, 16 * MIB), file, guard=refuse, applied=False)
            assert size_of(file) == 8 * MIB
    assert list(asked[0][1].values()) == [16 * MIB]
    assert [lines[0][:3] for lines in asked[1][0].values()] == [(0, 16 * 2048, "linear")]


def test_over_a_part_that_another_device_writes(files):
    with disk(limited_file(files, 8 * MIB)) as file:
        with disk({**files.make("a.raw", 64 * MIB), "offset": 12 * MIB, "size": MIB}):
            with pytest.raises(DeviceBusy, match="writes the same part"):
                grow(limited_file(files, 16 * MIB), file, guard=lambda tables, limits: None)
            assert size_of(file) == 8 * MIB
            # With shared, that is allowed.
            grow(limited_file(files, 16 * MIB), file)
        assert size_of(file) == 16 * MIB


@pytest.mark.parametrize("sealed", [False, True])
def test_a_device_made_for_libvirt(files, sealed, request):
    """One linear target over the source's device: both grow, sealed or not."""
    if sealed:
        request.getfixturevalue(nothing_sealed.__name__)
    source = over_a_file(files, 8 * MIB)
    name = f"t-{files.directory.name[:20]}"
    with Resources() as resources:
        below = for_guest.open_source(resources, spec.parse(source), Deadline(30))
        top = load.Table(((0, below.size // 512, b"linear", f"{below.id.number} 0".encode()),), held=(below,))
        device = _mapped.make(
            resources.dm, name, f"UUID-{name}", top, resources.cookie.next(udev.HANDS_OFF), persist=False
        )
        resources.settle()
        with device, open(device.path, "rb+", buffering=0) as file:
            write(file, 4096, OLD)
            number = device.id.major, device.id.minor, device.id.diskseq
            if sealed:
                seals.seal(*number)
                seals.seal_below(*number, "own")
            for size in (24 * MIB, 24 * MIB):
                found = growth.Growth(resources, growth.allow, udev.HANDS_OFF, 20)
                assert found.plan_linear(spec.parse(over_a_file(files, size)), device)
                assert found.changes is (size != device.size) and found.size == size
                found.apply()
            assert size_of(file) == 24 * MIB and below.size == 24 * MIB
            write(file, 24 * MIB - 512, NEW)
            assert read(file, 4096, OLD) == OLD
            assert is_refused(device.path) is is_refused(below.path) is sealed
            if sealed:
                seals.lift_below(*number, "own")
                seals.lift(*number)


def test_another_program_replaces_the_longer_table(files, monkeypatch):
    """Just before it becomes live: that is not a disk that has grown, and it does not stay as it was."""
    as_usual = _suspended.suspend

    def suspend(control, device, how):
        as_usual(control, device, how)
        control.load(_control.by_device(device), ((0, 8 * MIB // 512, b"zero", b""),))

    with disk(over_a_file(files, 8 * MIB)) as file, Resources() as resources:
        number = os.fstat(file.fileno()).st_rdev
        device = resources.enter_context(_device.open_number(os.major(number), os.minor(number)))
        found = growth.Growth(resources, growth.allow)
        assert found.plan(spec.parse(over_a_file(files, 16 * MIB)), device)
        monkeypatch.setattr(_suspended, "suspend", suspend)
        with pytest.raises(DeviceBusy, match="another program replaced"):
            found.apply()
        assert "has a table of another program" in found.remains()[-1]
        assert found.remains()[:-1] == found.grown and not any(device.path in text for text in found.grown)


@pytest.mark.parametrize("stack", [limited_file, encrypted])
def test_killed_in_the_middle(stack, files):
    """After each state that a kill can leave, the disk works, and the next run finishes."""
    with disk(stack(files, 8 * MIB)) as file:
        size, kills = 8 * MIB, 0
        for count in range(0, 60, 9):
            size += MIB
            wanted = stack(files, size)

            def run(wanted=wanted):
                grow(wanted, file)
                return 0

            was_killed, code = ptrace.run_killed(run, 0, count)
            assert code == (-9 if was_killed else 0)
            kills += was_killed
            # The child that stands by resumes a suspended device.
            wait_until(lambda: not suspended(file), 20)
            assert read(file, 4096, OLD) == OLD
            grow(wanted, file)
            assert size_of(file) == size
            write(file, size - 512, NEW)
            if not was_killed:
                break
        assert kills >= 2


def suspended(file):
    path = f"/sys/dev/block/{os.major(os.fstat(file.fileno()).st_rdev)}:"
    path += f"{os.minor(os.fstat(file.fileno()).st_rdev)}/dm/suspended"
    if not os.path.exists(path):
        return False
    with open(path, encoding="ascii") as attribute:
        return attribute.read().strip() == "1"
