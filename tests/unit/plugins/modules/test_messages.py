# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Error messages of modules for wrong input: they name what is wrong and where, and what to do, with errno and
hint, for real files and devices. Nothing is changed.

Each module is run with each wrong value of each of its options.
"""

from __future__ import annotations

import ast
import contextlib
import glob
import os
import re
import socket

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base import errors
from ansible_collections.racefree.block.plugins.module_utils._source import resources
from ansible_collections.racefree.block.plugins.module_utils._xenstore.pyxs_store import Store
from ansible_collections.racefree.block.plugins.modules import (
    device_info,
    dm_device,
    dm_devices,
    dm_table,
    kernel_key,
    libvirt_disk,
    libvirt_disks,
    loop_device,
    loop_devices,
    snapshot_stores,
    thin_volumes,
    xen_vbd,
    xen_vbds,
    xl_disk,
    xl_disks,
)
from ansible_collections.racefree.block.tests.unit.plugins.module_utils import loopdevices
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.modulerun import run
from ansible_collections.racefree.block.tests.unit.plugins.module_utils.xenstored import Xenstored

UTILS = os.path.dirname(os.path.dirname(errors.__file__))
NOBODY = 65534
# Texts that a program would print, but that do not belong in a message for users.
NOT_FOR_PEOPLE = re.compile(
    r"Traceback|unexpected|\[Errno|<class|\bNone\b|\bTrue\b|\bFalse\b|\('|\{'|\['|object at 0x|Error\("
)
NUMBERS = (-1, 3, 2**31, 2**63 - 1, 2**63, 2**64, 2**70, 10**30, 10**400)
TEXTS = (
    "",
    " ",
    "a b",
    "a/b",
    "a\nb",
    "a\x1bb",
    "\u00e4\U0001f600",
    "x" * 300,
    "x" * 5000,
    "-",
    "..",
    "control",
    "%s{}",
    "'",
    '"',
)
SHAPES = (None, [], {}, ["x"], {"x": 1}, {"path": "/x", "file": "/y"}, True, 7)
SOURCES = (
    "diskseq:0",
    "diskseq:99999999999",
    "diskseq:1@x",
    "diskseq:5@11111111-2222-3333-4444-555555555555",
    "diskseq:1-part0",
    "diskseq:1-part7",
    "dm:x",
    "dm:,",
    "file:",
    "file:x",
    "path:",
    "path:/dev/none",
    "/dev/null",
    "1:3",
    {"diskseq": -1},
    {"diskseq": 2**64},
    {"diskseq": 1, "partition": 0},
    {"path": "/dev/null", "uuid": "a b"},
    {"path": "/dev/none", "diskseq": 3},
    {"file": "/none", "offset": -1},
    {"file": "/none", "size": 2**80},
    {"file": "/none", "colour": "red"},
    {"table": 5},
    {"table": "0 8 linear"},
    {"table": "x"},
    {"table": [{"start": 0}]},
    {"table": [], "name": "a/b"},
)
TABLES = (
    "",
    "x",
    "0 8",
    "0 8 linear",
    "0 8 linear /dev/none 0",
    "0 8 linear diskseq:99999999999 0",
    "0 8 nothing 1",
    "8 8 zero",
    "0 -8 zero",
    "0 99999999999999999999 zero",
    "0 8 zero\n4 8 zero",
    "0 8 crypt aes-xts-plain64 00 0 /dev/none 0",
    [5],
    [{"start": 0}],
    [{"start": 0, "length": 8, "target": "linear", "device": [], "offset": 0}],
)


@pytest.fixture(name="place", scope="module")
def fixture_place():
    """A directory with all kinds of targets for a path."""
    loopdevices.need_loop()
    with loopdevices.directory() as path:
        os.chmod(path, 0o755)
        loopdevices.image(path, "disk", 65536)
        loopdevices.image(path, "odd", 1000)
        loopdevices.image(path, "empty", 0)
        loopdevices.image(path, "secret", 65536)
        os.chmod(path + "/secret", 0o600)
        os.mkdir(path + "/directory")
        os.mkfifo(path + "/fifo")
        os.symlink("none", path + "/dangling")
        os.symlink("circle", path + "/circle")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path + "/socket")
            yield path
            assert loopdevices.nothing_bound(path), "a wrong input made a loop device"


def paths(place):
    names = (
        "none",
        "disk/below",
        "directory",
        "fifo",
        "socket",
        "dangling",
        "circle",
        "odd",
        "empty",
        "n" * 300,
        "/".join(["d" * 200] * 30),
        "a\nb",
        "none/none",
    )
    return [f"{place}/{name}" for name in names] + [
        "relative",
        "/",
        "/dev/null",
        "/dev/zero",
        "/dev/none",
        "/proc/self/mem",
        "/sys/block",
        "/dev/tty",
        "//",
        "/x\x00y",
    ]


# Module; its list option or None; arguments that are valid until a wrong value is inserted; and the wrong
# values by option.
MODULES = {
    "loop_device": (
        loop_device,
        None,
        {"backing_file": "DISK"},
        {
            "backing_file": "PATHS",
            "path": "PATHS",
            "diskseq": NUMBERS,
            "offset": NUMBERS,
            "size": NUMBERS,
            "sector_size": NUMBERS,
            "hold": NUMBERS,
            "timeout": NUMBERS,
            "state": TEXTS,
        },
    ),
    "loop_devices": (
        loop_devices,
        "devices",
        {"backing_file": "DISK"},
        {
            "backing_file": "PATHS",
            "diskseq": NUMBERS,
            "offset": NUMBERS,
            "size": NUMBERS,
            "sector_size": NUMBERS,
            "timeout": NUMBERS,
        },
    ),
    "dm_device": (
        dm_device,
        None,
        {"name": "x", "table": "0 8 zero"},
        {
            "name": TEXTS,
            "uuid": TEXTS,
            "diskseq": NUMBERS,
            "table": TABLES,
            "hold": NUMBERS,
            "timeout": NUMBERS,
            "keys": SHAPES,
            "volumes": SHAPES,
        },
    ),
    "dm_devices": (
        dm_devices,
        "devices",
        {"name": "x", "table": "0 8 zero"},
        {"name": TEXTS, "uuid": TEXTS, "diskseq": NUMBERS, "table": TABLES, "timeout": NUMBERS},
    ),
    "dm_table": (
        dm_table,
        None,
        {"table": "0 8 zero"},
        {"table": TABLES + SHAPES, "name": TEXTS, "keys": SHAPES, "kernels": TEXTS},
    ),
    "xen_vbd": (
        xen_vbd,
        None,
        {"domain": "web", "vdev": "xvdb", "source": "file:DISK"},
        {
            "domain": TEXTS + NUMBERS,
            "vdev": TEXTS + NUMBERS,
            "source": SOURCES + SHAPES + TEXTS,
            "diskseq": NUMBERS,
            "timeout": NUMBERS,
            "mode": TEXTS,
        },
    ),
    "xen_vbds": (
        xen_vbds,
        "vbds",
        {"domain": "web", "vdev": "xvdb", "source": "file:DISK"},
        {"domain": TEXTS, "vdev": TEXTS, "source": SOURCES + SHAPES, "timeout": NUMBERS},
    ),
    "libvirt_disk": (
        libvirt_disk,
        None,
        {"domain": "web", "vdev": "xvdb", "source": "file:DISK"},
        {
            "domain": TEXTS,
            "vdev": TEXTS,
            "source": SOURCES + SHAPES + TEXTS,
            "timeout": NUMBERS,
            "bus": TEXTS,
            "uri": TEXTS + ("xen://[", "x://[::/"),
        },
    ),
    "libvirt_disks": (
        libvirt_disks,
        "disks",
        {"domain": "web", "vdev": "xvdb", "source": "file:DISK"},
        {"domain": TEXTS, "vdev": TEXTS, "source": SOURCES + SHAPES, "timeout": NUMBERS},
    ),
    "xl_disk": (
        xl_disk,
        None,
        {"domain": "racefree-none", "vdev": "xvdb", "source": "file:DISK"},
        {
            "domain": TEXTS,
            "config_file": "PATHS",
            "vdev": TEXTS + NUMBERS,
            "source": SOURCES + SHAPES + TEXTS,
            "recipe": TEXTS,
        },
    ),
    "xl_disks": (
        xl_disks,
        "disks",
        {"domain": "racefree-none", "vdev": "xvdb", "source": "file:DISK"},
        {"domain": TEXTS, "vdev": TEXTS, "source": SOURCES + SHAPES, "recipe": TEXTS},
    ),
    "thin_volumes": (
        thin_volumes,
        None,
        {"pool": {"path": "/dev/mapper/p", "uuid": "u"}, "volumes": [{"id": 1}]},
        {
            "pool": SOURCES + SHAPES + TEXTS,
            "volumes": SHAPES + tuple([{"id": number}] for number in NUMBERS) + ([{"id": 1}, {"id": 1}],),
            "timeout": NUMBERS,
        },
    ),
    "snapshot_stores": (
        snapshot_stores,
        "stores",
        {"path": "DIRECTORY/new.cow", "image": "DISK"},
        {"path": "PATHS", "image": "PATHS"},
    ),
    "kernel_key": (
        kernel_key,
        None,
        {"description": "racefree-test:messages", "payload": "00"},
        {
            "description": TEXTS,
            "payload": TEXTS[2:] + ("0", "zz", "00" * 40000),
            "type": TEXTS,
            "state": TEXTS,
        },
    ),
    "device_info": (device_info, None, {"features": False}, {"path": "PATHS", "diskseq": NUMBERS}),
}


def values_of(kind, place):
    return paths(place) if kind == "PATHS" else kind


def put(value, place):
    """Insert the real paths into a valid argument."""
    if isinstance(value, str):
        return value.replace("DISK", f"{place}/disk").replace("DIRECTORY", place)
    return value


def errors_of(result, list_option):
    """
    The errors of a failed module and of its rows as plain data; empty if Ansible itself refuses the
    arguments.
    """
    rows = (
        [result]
        if list_option is None
        else [row for row in result.get(list_option, ()) if isinstance(row, dict)]
    )
    return [(row["msg"], row["error"]) for row in rows if row.get("error")]


def check_words(text, error, what):
    """Check the form of one message."""
    assert not NOT_FOR_PEOPLE.search(re.sub(r"(?<=\S): .*?: (?=there is no such option)", ": ", text)), (
        what,
        text,
    )
    assert error["errno"] and re.match(r"E[A-Z0-9]+\Z", error["errno"]), (what, error)
    assert error["hint"] and "None" not in error["hint"], (what, error)
    assert error["kind"] in text or len(text) < 3000, (what, len(text))
    assert all(letter.isprintable() or letter == "\n" for letter in text), (what, text)
    if error["kind"] == "InvalidValue":
        assert re.match(r"(?:[^:]+: )?[\w.\[\]-]+ .*: [a-z0-9]", text, re.S), (what, text)
        assert text.index(": ") < len(text) - 10, (what, text)


@pytest.fixture(name="guest", scope="module")
def fixture_guest():
    """XenStore with one guest."""
    with Xenstored() as daemon, Store(5, daemon.socket) as store:
        for path, value in (
            ("/local/domain/5/name", "web"),
            ("/local/domain/5/vm", "/vm/00000005-1111-2222-3333-444444444444"),
            ("/libxl/5/type", "pv"),
        ):
            store.write(path, value)
        yield store


@pytest.mark.parametrize("name", sorted(MODULES))
def test_wrong_values(name, place, guest, monkeypatch):
    """
    Each module with each wrong value: checks the message, that nothing was created, and that no bug in the
    module was reported.
    """
    module, list_option, right, wrong = MODULES[name]
    shared = resources.Resources.shared
    monkeypatch.setattr(
        resources.Resources, "shared", lambda self, kind: guest if kind is Store else shared(self, kind)
    )
    before = sorted(os.listdir(place))
    tried = refused = 0
    for option, kind in wrong.items():
        for value in values_of(kind, place):
            arguments = {key: put(part, place) for key, part in right.items()}
            if (name, option) in (("loop_device", "path"), ("loop_devices", "path")):
                arguments = {"state": "absent"}
            arguments[option] = value
            # In check mode, because some values turn out to be valid, such as a large time limit.
            result = run(
                module.main, check=True, **({list_option: [arguments]} if list_option else arguments)
            )
            what = f"{name} {option}={str(value)[:60]!r}"
            assert not NOT_FOR_PEOPLE.search(
                result.get("msg", "") if errors_of(result, list_option) else ""
            ), (what, result["msg"])
            assert "exception" not in result or not errors_of(result, list_option), (what, result)
            assert "unexpected" not in result.get("msg", ""), (what, result)
            for text, error in errors_of(result, list_option):
                check_words(text, error, what)
                refused += 1
            tried += 1
    assert sorted(os.listdir(place)) == before and not loopdevices.bound_files(place)
    assert tried > 30 and refused > 15, (tried, refused)


@pytest.mark.parametrize(
    "name, words",
    [
        ("none", "does not exist"),
        ("dangling", "is a symbolic link to PLACE/none, which does not exist"),
        ("disk/below", "cannot be the path of a file: Not a directory"),
        ("n" * 300, "File name too long"),
        ("circle", "Too many levels of symbolic links"),
        ("directory", "is a directory, and must be a regular file"),
        ("fifo", "is a FIFO, and"),
        ("socket", "is a socket, and"),
        ("empty", "is empty: "),
        ("odd", "has 1000 bytes there, not a multiple"),
    ],
)
def test_path_errors_name_the_path_and_the_reason(place, name, words):
    path = f"{place}/{name}"
    for module, options in ((loop_device, {}), (loop_devices, {})):
        arguments = {"backing_file": path, **options}
        result = run(module.main, **(arguments if module is loop_device else {"devices": [arguments]}))
        text = result["msg"] if module is loop_device else result["devices"][0]["msg"]
        assert text.startswith(f"backing_file {path[:200]}") and words.replace("PLACE", place) in text, text
    result = run(xen_vbd.main, domain="web", vdev="xvdb", source={"file": path}, toolstack="xenstore")
    assert result["failed"] and result["error"]["hint"] and result["error"]["errno"]


@pytest.mark.parametrize("name", ["none", "dangling", "disk/below", "n" * 300, "none/none", "circle"])
def test_impossible_paths_count_as_absent(place, name):
    for check in (True, False):
        result = run(loop_device.main, check=check, backing_file=f"{place}/{name}", state="absent")
        assert not result.get("failed") and not result["changed"] and result["gone"], result


@contextlib.contextmanager
def nobody():
    """Run without root's privileges."""
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.mark.parametrize(
    "module, arguments",
    [
        (loop_device, {"backing_file": "secret"}),
        (loop_device, {"backing_file": "secret", "read_only": True}),
        (loop_device, {"backing_file": "secret", "state": "absent"}),
        (loop_devices, {"backing_file": "secret"}),
        (snapshot_stores, {"path": "new.cow", "image": "secret"}),
    ],
)
def test_without_root_the_advice_is_to_become_root(place, module, arguments):
    """The message does not blame a writable file that is to be opened read-only, or an image."""
    arguments = {
        key: f"{place}/{value}" if key in ("backing_file", "path", "image") else value
        for key, value in arguments.items()
    }
    lists = {loop_devices: "devices", snapshot_stores: "stores"}
    with nobody():
        result = run(module.main, **({lists[module]: [arguments]} if module in lists else arguments))
    row = (result.get(lists.get(module)) or [result])[0]
    assert (
        "become: true" in row["msg"] and "read_only" not in row["msg"] and row["error"]["errno"] == "EACCES"
    ), row


def test_every_kind_has_an_errno_and_a_hint():
    for kind in vars(errors).values():
        if not isinstance(kind, type) or not issubclass(kind, errors.BlockError):
            continue
        more = {
            errors.InvalidValue: ("option", 1, "must be 2"),
            errors.DeadlineExceeded: ("it", 5),
            errors.TableError: ("it", []),
        }.get(kind, ("it",))
        plain = kind(*more).as_dict()
        assert plain["errno"].startswith("E") and len(plain["hint"]) > 10 and plain["kind"] == kind.__name__


@pytest.mark.parametrize(
    "value, text",
    [
        (None, "(none)"),
        (True, "true"),
        ("", "(empty)"),
        (["a", None], '["a", null]'),
        ({"a": True}, '{"a": true}'),
        ("a\nb\x1b", "a\\nb\\x1b"),
        (1.5, "1.5"),
        (b"a\xff", "a\ufffd"),
        (10**400, "(a number of more than 200 digits)"),
        ("\udcff", "\\udcff"),
    ],
)
def test_values_are_shown_as_users_write_them(value, text):
    assert errors.shown(value) == text


def test_a_long_value_is_cut():
    assert errors.shown("x" * 5000).endswith("... (5000 characters)") and len(errors.shown("x" * 5000)) < 250


def _words_of(call):
    """The literal text at the start of a call's third argument; None if the text is not written there."""
    argument = call.args[2] if len(call.args) > 2 else None
    if isinstance(argument, ast.IfExp):
        argument = argument.body
    if isinstance(argument, ast.JoinedStr):
        argument = argument.values[0]
    return argument.value if isinstance(argument, ast.Constant) and isinstance(argument.value, str) else None


VERBS = (
    "must",
    "is",
    "are",
    "has",
    "cannot",
    "does",
    "may",
    "says",
    "makes",
    "lies",
    "there",
    "names",
    "needs",
    "would",
    "ends",
    "holds",
    "differs",
    "leads",
)


def test_every_refusal_continues_after_option_and_value():
    """``InvalidValue`` puts "OPTION VALUE: " before the text, so the text must begin with a verb."""
    wrong, seen = [], 0
    for path in sorted(glob.glob(f"{UTILS}/**/*.py", recursive=True)):
        with open(path, encoding="utf-8") as file:
            tree = ast.parse(file.read())
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "InvalidValue":
                words = _words_of(call)
                seen += words is not None
                if words is not None and words.split(" ")[0].strip(":,;") not in VERBS:
                    wrong.append(f"{os.path.basename(path)}:{call.lineno}: {words}")
    assert not wrong and seen > 100, "\n".join(wrong)
