# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import math
import os
import traceback

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import InvalidValue, WrongDevice
from ansible_collections.racefree.block.plugins.module_utils._block import loop
from ansible_collections.racefree.block.plugins.module_utils._source import files, lookup, resources, spec
from ansible_collections.racefree.block.plugins.module_utils._source import opener as _opener
from ansible_collections.racefree.block.plugins.module_utils._source import slots as _slots
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices
from hypothesis import given, settings
from hypothesis import strategies as st

U64 = 2**64 - 1


# Valid forms


@pytest.mark.parametrize(
    "value, source",
    [
        ("diskseq:42", spec.DiskseqSource(42)),
        (f"diskseq:{U64}", spec.DiskseqSource(U64)),
        ("/dev/vg/a", spec.PathSource("/dev/vg/a")),
        ("path:/dev/vg/a", spec.PathSource("/dev/vg/a")),
        ("path:/dev/disk/by-path/pci-0:1", spec.PathSource("/dev/disk/by-path/pci-0:1")),
        ("/dev/disk/by-id/a:b", spec.PathSource("/dev/disk/by-id/a:b")),
        ("file:/srv/a b.raw", spec.FileSource("/srv/a b.raw")),
        ({"diskseq": 42}, spec.DiskseqSource(42)),
        ({"diskseq": "42"}, spec.DiskseqSource(42)),
        ({"diskseq": 42, "path": None, "file": None}, spec.DiskseqSource(42)),
        ({"path": "/dev/a"}, spec.PathSource("/dev/a")),
        ({"path": "/dev/a", "diskseq": 7}, spec.PathSource("/dev/a", None, 7)),
        ({"path": "/dev/a", "diskseq": "7", "uuid": "LVM-x"}, spec.PathSource("/dev/a", "LVM-x", 7)),
        ({"path": "/dev/a", "diskseq": None, "uuid": None}, spec.PathSource("/dev/a")),
        ({"file": "/srv/a"}, spec.FileSource("/srv/a")),
        ("file:/srv/b\udce4r.raw", spec.FileSource("/srv/b\udce4r.raw")),
        (
            {
                "file": "/srv/a",
                "offset": 512,
                "size": "1024",
                "read_only": True,
                "direct_io": "yes",
                "sector_size": 4096,
            },
            spec.FileSource("/srv/a", 512, 1024, True, True, 4096),
        ),
        (
            {
                "file": "/srv/a",
                "offset": None,
                "size": None,
                "read_only": None,
                "direct_io": None,
                "sector_size": None,
            },
            spec.FileSource("/srv/a"),
        ),
        (
            {"file": "/srv/a", "read_only": "False", "direct_io": "no", "sector_size": "512"},
            spec.FileSource("/srv/a", sector_size=512),
        ),
        ({"table": "0 8 zero"}, spec.TableSource("0 8 zero")),
        (
            {"table": [{"start": 0}], "name": "a", "uuid": "b", "read_only": "true"},
            spec.TableSource([{"start": 0}], "a", "b", True),
        ),
    ],
)
def test_forms(value, source):
    assert spec.parse(value) == source
    assert type(spec.parse(value)) is type(source)


@pytest.mark.parametrize(
    "number, source",
    [
        ("253:4", spec.NumberSource(253, 4)),
        ("7:0", spec.NumberSource(7, 0)),
        ("4095:1048575", spec.NumberSource(4095, 1048575)),
    ],
)
def test_device_numbers_are_allowed_only_in_tables(number, source):
    assert spec.parse(number, numbers=True) == source
    with pytest.raises(InvalidValue):
        spec.parse(number)


@given(
    st.one_of(
        st.integers(1, U64).map(spec.DiskseqSource),
        st.text(alphabet="/ab:. ", max_size=20).map(lambda rest: spec.PathSource("/" + rest)),
        st.text(alphabet="/ab:. ", max_size=20).map(lambda rest: spec.FileSource("/" + rest)),
        st.builds(spec.NumberSource, st.integers(0, 4095), st.integers(0, 2**20 - 1)),
    )
)
def test_the_short_form_is_parsed_back(source):
    assert spec.parse(str(source), numbers=True) == source


@given(
    st.text(alphabet="/ab", max_size=9).map(lambda rest: "/" + rest),
    st.integers(0, 2**62),
    st.integers(0, 2**62),
    st.booleans(),
    st.booleans(),
    st.one_of(st.none(), st.integers(1, 2**20)),
)
def test_a_file_with_all_keys(path, offset, size, read_only, direct_io, sector_size):
    source = spec.FileSource(path, offset, size, read_only, direct_io, sector_size)
    assert spec.parse(source._asdict()) == source
    assert (
        spec.parse({key: str(value) for key, value in source._asdict().items() if value is not None})
        == source
    )


def test_the_description_of_a_table_source():
    assert (
        str(spec.TableSource([], "a", "b")) == "table:a"
        and str(spec.TableSource([], None, "b")) == "table:b"
        and str(spec.TableSource([])) == "table:(unnamed)"
    )


# Invalid values


@pytest.mark.parametrize(
    "value, option",
    [
        (None, "x"),
        (7, "x"),
        (True, "x"),
        ([], "x"),
        ({}, "x"),
        ("", "x"),
        ("a", "x"),
        ("dev/a", "x"),
        ("loop0", "x"),
        ("1:2", "x"),
        ("disk:1", "x"),
        (":", "x"),
        ("/dev/\0", "x"),
        ("/dev/a\n", "x"),
        ("path:", "x"),
        ("path:a", "x"),
        ("path:/a\n", "x"),
        ("file:", "x"),
        ("file:a", "x"),
        ("file:/\0", "x"),
        ("diskseq:", "x"),
        ("diskseq:0", "x"),
        ("diskseq:-1", "x"),
        ("diskseq:x", "x"),
        (f"diskseq:{U64 + 1}", "x"),
        ("diskseq: 1", "x"),
        ("DISKSEQ:1", "x"),
        ({"uuid": "a"}, "x"),
        ({"size": 1}, "x"),
        ({"path": None}, "x"),
        ({"path": "/a", "file": "/b"}, "x"),
        ({"diskseq": 1, "file": "/b"}, "x"),
        ({"table": [], "path": "/a"}, "x"),
        ({"diskseq": 1, "path": "/a", "file": "/b"}, "x"),
        ({"diskseq": 0}, "x.diskseq"),
        ({"diskseq": True}, "x.diskseq"),
        ({"diskseq": 1.5}, "x.diskseq"),
        ({"diskseq": [1]}, "x.diskseq"),
        ({"diskseq": ""}, "x.diskseq"),
        ({"diskseq": 1, "uuid": "a"}, "x.uuid"),
        ({"diskseq": 1, "offset": 0}, "x.offset"),
        ({"path": ""}, "x.path"),
        ({"path": "a"}, "x.path"),
        ({"path": 1}, "x.path"),
        ({"path": ["/a"]}, "x.path"),
        ({"path": "/a\0"}, "x.path"),
        ("/dev/\ud800", "x"),
        ("file:/srv/\udfff", "x"),
        ({"path": "/dev/\udbff"}, "x.path"),
        ({"file": "/srv/\ud800", "size": 512}, "x.file"),
        ({"path": "/a", "diskseq": 0}, "x.diskseq"),
        ({"path": "/a", "uuid": ""}, "x.uuid"),
        ({"path": "/a", "uuid": "a b"}, "x.uuid"),
        ({"path": "/a", "uuid": 1}, "x.uuid"),
        ({"path": "/a", "size": 1}, "x.size"),
        ({"path": "/a", "name": "b"}, "x.name"),
        ({"path": "/a", 1: 2}, "x.1"),
        ({"path": "/a", "colour": "red"}, "x.colour"),
        ({"path": "/a", "colour": None}, "x.colour"),
        ({"diskseq": 1, None: None}, "x.None"),
        ({"file": ""}, "x.file"),
        ({"file": False}, "x.file"),
        ({"file": "a.raw"}, "x.file"),
        ({"file": "/a", "uuid": "b"}, "x.uuid"),
        ({"file": "/a", "offset": -1}, "x.offset"),
        ({"file": "/a", "offset": "1P"}, "x.offset"),
        ({"file": "/a", "offset": True}, "x.offset"),
        ({"file": "/a", "offset": False}, "x.offset"),
        ({"file": "/a", "offset": ""}, "x.offset"),
        ({"file": "/a", "offset": []}, "x.offset"),
        ({"file": "/a", "offset": 0.0}, "x.offset"),
        ({"file": "/a", "offset": "\u0661"}, "x.offset"),
        ({"file": "/a", "offset": 10**19}, "x.offset"),
        ({"file": "/a", "size": 1.5}, "x.size"),
        ({"file": "/a", "size": "-512"}, "x.size"),
        ({"file": "/a", "size": {}}, "x.size"),
        ({"file": "/a", "size": "1\n"}, "x.size"),
        ({"file": "/a", "sector_size": "big"}, "x.sector_size"),
        ({"file": "/a", "sector_size": True}, "x.sector_size"),
        ({"file": "/a", "read_only": "maybe"}, "x.read_only"),
        ({"file": "/a", "read_only": 2}, "x.read_only"),
        ({"file": "/a", "read_only": ""}, "x.read_only"),
        ({"file": "/a", "direct_io": []}, "x.direct_io"),
        ({"file": "/a", "direct_io": {}}, "x.direct_io"),
        ({"table": [], "name": ""}, "x.name"),
        ({"table": [], "name": "control"}, "x.name"),
        ({"table": [], "name": "a/b"}, "x.name"),
        ({"table": [], "name": 7}, "x.name"),
        ({"table": [], "uuid": "a" * 129}, "x.uuid"),
        ({"table": [], "read_only": "x"}, "x.read_only"),
        ({"table": [], "offset": 0}, "x.offset"),
        ({"table": [], "diskseq": 1}, "x"),
    ],
)
def test_a_bad_value_is_named(value, option):
    with pytest.raises(InvalidValue) as caught:
        spec.parse(value, option="x")
    assert caught.value.option == option
    assert (
        str(caught.value).startswith(f"{option} ") and caught.value.wrong and caught.value.as_dict()["hint"]
    )


KEY = "0123456789abcdef" * 4
LINE = f"0 8 crypt aes-xts-plain64 {KEY} 0 /dev/a 0"


@pytest.mark.parametrize(
    "value",
    [
        [LINE],
        [[LINE]],
        LINE,
        KEY,
        "[" + repr(LINE) + "]",
        {"Table": [LINE], "name": "a"},
        {"tables": LINE},
        {"path": "/dev/a", "file": "/srv/a", "kEy": KEY},
        {"path": {"table": LINE}},
        {"path": [LINE], "file": "/srv/a"},
        {"table": [LINE], "path": "/dev/a"},
        {"table": [LINE], "Name": KEY},
        {"file": KEY},
        {"path": KEY, "diskseq": KEY},
        {"diskseq": KEY},
        {"file": "/x", "offset": KEY},
        {"file": "/x", "format": KEY},
        {"file": f"/x\n{KEY}"},
        {"path": "/dev/a", "uuid": {"a": KEY}},
        {"path": "/dev/a", "uuid": [KEY[:20]]},
        {"table": LINE, "name": {"a": KEY}},
        {"table": LINE, "uuid": {KEY: 1}},
        {"path": "/dev/a", KEY: 1},
        {KEY: 1},
        f"dm:{KEY}",
        f"path:{KEY}",
    ],
)
def test_no_key_is_shown(value):
    with pytest.raises(InvalidValue, match="(not shown)") as caught:
        spec.parse(value, option="x")
    told = "".join(traceback.format_exception(None, caught.value, None))
    assert KEY[:20] not in told and "aes-xts" not in told


def test_harmless_values_are_shown():
    for value, shown in (
        ("images/guests/web1.example.org/disk-0.raw", "x images/guests/web1.example.org/disk-0.raw: must"),
        ({"path": "/dev/a", "file": "/srv/a"}, '{"path": "/dev/a", "file": "/srv/a"}'),
        ({"path": "/dev/a", "file": "/srv/a", "a": 1}, '"a": "(not shown)"'),
    ):
        with pytest.raises(InvalidValue) as caught:
            spec.parse(value, option="x")
        assert shown in str(caught.value)


def test_a_huge_number():
    """Python itself would refuse to convert it."""
    for text in ("9" * 5000 + ":1", "1:" + "9" * 5000, "diskseq:" + "9" * 5000):
        with pytest.raises(InvalidValue):
            spec.parse(text, numbers=True)


plain = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=20),
        st.sampled_from(
            ["/dev/a", "diskseq:1", "path:/a", "file:/a", "253:1", "1", "", "true", "0", math.inf, 2**64, -1]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(
                st.sampled_from(
                    ["diskseq", "path", "uuid", *spec.FileSource._fields, *spec.TableSource._fields]
                ),
                st.text(max_size=5),
                st.integers(),
            ),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=12,
)


@settings(max_examples=1000)
@given(plain, st.booleans())
def test_arbitrary_plain_data(value, numbers):
    """Either a typed source whose fields have the declared types, or InvalidValue that names the option."""
    try:
        source = spec.parse(value, option="source", numbers=numbers)
    except InvalidValue as error:
        assert error.option.partition(".")[0] == "source" and str(error)
        return
    assert isinstance(
        source,
        (spec.DiskseqSource, spec.PathSource, spec.FileSource, spec.TableSource)
        + ((spec.NumberSource,) if numbers else ()),
    )
    if isinstance(source, spec.FileSource):
        assert (
            source.file.startswith("/")
            and not isinstance(source.offset + source.size, float)
            and source.offset >= 0
        )
        assert isinstance(source.read_only, bool) and isinstance(source.direct_io, bool)
    if isinstance(source, spec.PathSource):
        assert source.path.startswith("/") and "\0" not in source.path and "\n" not in source.path
    if isinstance(source, spec.DiskseqSource):
        assert isinstance(source.diskseq, int) and 1 <= source.diskseq <= U64


@settings(max_examples=500)
@given(st.text(alphabet="0123456789:/adefhikpqslt \n\0", max_size=30), st.booleans())
def test_arbitrary_text(text, numbers):
    try:
        spec.parse(text, numbers=numbers)
    except InvalidValue as error:
        assert error.option == "source"


# Devices, found and created


@pytest.fixture
def place():
    loopdevices.need_loop()
    with loopdevices.directory() as path:
        yield path
        assert loopdevices.nothing_bound(path), "the test left a loop device"


def test_a_loop_device_is_created_once_and_removed_after_the_run(place):
    path = loopdevices.image(place, "disk", content=b"here")
    with resources.Resources() as host:
        opener = _opener.Opener(host)
        assert lookup.find(spec.FileSource(path), host) is None
        device = opener.open(spec.FileSource(path))
        assert opener.made == [device] and loop.info(device).autoclear
        for source in (
            spec.FileSource(path),
            spec.DiskseqSource(device.id.diskseq),
            spec.PathSource(device.path),
            spec.PathSource(device.path, None, device.id.diskseq),
            spec.NumberSource(7, device.id.minor),
        ):
            assert opener.open(source).id == device.id
        assert opener.made == [device]
        with pytest.raises(WrongDevice):
            opener.open(spec.PathSource(device.path, None, device.id.diskseq + 1))
        with pytest.raises(WrongDevice, match="not a mapped device"):
            opener.open(spec.PathSource(device.path, "LVM-x"))
        assert opener.open(spec.FileSource(path, 512, overlap=True)).id != device.id
        # other settings for the file need another device
        assert opener.open(spec.FileSource(path, read_only=True)).id != device.id
        assert opener.open(spec.FileSource(path, sector_size=4096, overlap=True)).id != device.id
        assert len(opener.made) == 4


def test_kept_devices_stay(place):
    path = loopdevices.image(place, "disk")
    with resources.Resources() as host:
        opener = _opener.Opener(host)
        diskseq = opener.open(spec.FileSource(path)).id.diskseq
        opener.keep()
    with resources.Resources() as host:
        device = host.enter_context(lookup.find(spec.FileSource(path), host))
        assert device.id.diskseq == diskseq and not loop.info(device).autoclear
        loop.set_autoclear(device, True)


def test_a_file_that_cannot_be_used(place):
    with resources.Resources() as host:
        for source, option in (
            (spec.FileSource(place + "/none"), "source.file"),
            (spec.FileSource(loopdevices.image(place, "odd", 1000)), "backing_file"),
        ):
            with pytest.raises(InvalidValue) as caught:
                _opener.Opener(host).open(source)
            assert caught.value.option == option


def grow(path, size):
    with open(path, "rb+") as file:
        file.truncate(size)


def test_an_existing_device_takes_the_new_size_of_its_file(place):
    """
    A device that was created before the file grew is used, with the file's new size. A lookup alone changes
    nothing.
    """
    path = loopdevices.image(place, "disk", 65536)
    with resources.Resources() as host:
        first = _opener.Opener(host).open(spec.FileSource(path))
        grow(path, 2 * 65536)
        with lookup.find(spec.FileSource(path), host) as found:
            assert found.id == first.id and found.size == 65536
        opener = _opener.Opener(host)
        assert (
            opener.open(spec.FileSource(path)).id == first.id
            and opener.made == []
            and first.size == 2 * 65536
        )
        # A given size is kept, and so is an offset.
        limited = opener.open(spec.FileSource(path, size=4096, overlap=True))
        rest = opener.open(spec.FileSource(path, offset=4096, overlap=True))
        grow(path, 3 * 65536)
        assert opener.open(spec.FileSource(path, size=4096)).id == limited.id and limited.size == 4096
        assert opener.open(spec.FileSource(path, offset=4096)).id == rest.id and rest.size == 3 * 65536 - 4096


def test_a_table_over_a_file_that_has_grown(place):
    """A line that is as long as the file now is accepted by the check and when the device is created."""
    path = loopdevices.image(place, "disk", 65536)
    with resources.Resources() as host:
        first = _opener.Opener(host).open(spec.FileSource(path))
        grow(path, 2 * 65536)
        slots, text = _slots.Slots(host), f"0 256 linear file:{path} 0"
        assert slots.look(text, False).is_complete and first.size == 65536
        assert (
            slots.make(text, False, _opener.Opener(host)).targets[0][3] == f"{first.id.number} 0".encode()
            and first.size == 2 * 65536
        )


# A file that must not change


def test_a_file_that_has_changed(tmp_path):
    path = tmp_path / "golden"
    path.write_bytes(bytes(512))
    os.utime(path, ns=(0, 1500000000123456789))
    source = spec.parse({"file": str(path), "read_only": "yes", "mtime_ns": "1500000000123456789"})
    with files.backing_of(source) as backing:
        assert backing.size == 512
    os.utime(path, ns=(0, 1500000000123456788))
    with pytest.raises(WrongDevice) as caught:
        files.backing_of(source)
    for word in (
        str(path),
        "changed at 2017-07-14 02:40:00.123456788 UTC",
        "but must be unchanged since 2017-07-14 02:40:00.123456789 UTC",
    ):
        assert word in str(caught.value)
    assert files.backing_of(source._replace(mtime_ns=None)).size == 512


@pytest.mark.parametrize(
    "value, words",
    [
        ({"file": "/a", "mtime_ns": 5}, "read_only=true"),
        ({"file": "/a", "mtime_ns": -5, "read_only": True}, "nanoseconds"),
        ({"file": "/a", "mtime_ns": "x", "read_only": True}, "nanoseconds"),
        ({"file": "/a", "mtime_ns": 1.5, "read_only": True}, "nanoseconds"),
    ],
)
def test_an_invalid_timeout(value, words):
    with pytest.raises(InvalidValue, match=f"source.mtime_ns.*{words}"):
        spec.parse(value)
