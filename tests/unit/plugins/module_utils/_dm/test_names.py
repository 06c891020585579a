# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names, UUIDs and addresses of mapped devices: tests that need no device-mapper."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import time

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import (
    InvalidValue,
    KernelError,
    NotSupported,
)
from ansible_collections.racefree.block.plugins.module_utils._dm import codec, control, names
from ansible_collections.racefree.block.plugins.module_utils._process import identity
from hypothesis import given
from hypothesis import strategies as st

GOOD = "ABCXYZabcxyz0189#+-.:=@_"
ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.binary(),
    st.lists(st.text()),
    st.dictionaries(st.text(), st.text()),
)


@given(st.text(alphabet=GOOD, min_size=1, max_size=127).filter(lambda name: name not in (".", "..")))
def test_good_names(name):
    assert names.check_name(name) == name and names.check_uuid(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "control",
        ".",
        "..",
        "a/b",
        "/",
        "a" * 128,
        "a b",
        "a\n",
        "\na",
        "a\0",
        "a\\x20b",
        "a*",
        "a?",
        'a"',
        "a'",
        "a,b",
        "a%",
        "ä",
        "\u0661",
        "a\t",
        "~",
        "a$b",
        "[a]",
    ],
)
def test_bad_names(name):
    for option in ("name", "source.name"):
        with pytest.raises(InvalidValue) as caught:
            names.check_name(name, option)
        assert caught.value.option == option


@pytest.mark.parametrize("uuid", ["", "a" * 129, "a/b", "a b", "a\n", "\0", "ä"])
def test_bad_uuids(uuid):
    with pytest.raises(InvalidValue) as caught:
        names.check_uuid(uuid)
    assert caught.value.option == "uuid"


@pytest.mark.parametrize(
    "uuid", ["a" * 128, "control", ".", "..", "CRYPT-PLAIN-x", "LVM-abc", names.new_uuid()]
)
def test_good_uuids(uuid):
    assert names.check_uuid(uuid) == uuid


def test_the_longest_name():
    assert names.check_name("n" * 127) and names.check_name("...") and names.check_name("Control")


@given(st.one_of(st.text(), ANYTHING))
def test_any_value_as_name_and_uuid_is_checked(value):
    for check, longest in ((names.check_name, 127), (names.check_uuid, 128)):
        try:
            checked = check(value)
        except InvalidValue:
            continue
        assert checked is value and re.fullmatch("[A-Za-z0-9#+.:=@_-]+", value) and len(value) <= longest
        # it fits the kernel's field
        assert codec.encode((4, 0, 0), **{"name" if longest == 127 else "uuid": value.encode()})


def test_a_new_uuid_is_unique():
    made = {names.new_uuid() for dummy in range(1000)}
    assert len(made) == 1000
    for uuid in made:
        assert names.check_uuid(uuid) and uuid.startswith(names.UUID_PREFIX) and len(uuid) <= 128


@pytest.mark.parametrize("make", [names.making_name, names.unused_name, lambda: names.claimed_name("web1")])
def test_a_private_name_is_unique(make):
    made = {make() for dummy in range(1000)}
    assert len(made) == 1000
    for name in made:
        assert names.check_name(name) == name


def test_a_private_name_contains_its_creator():
    mine = identity.own_mark()
    assert names.holder_of(names.making_name()) == mine == names.holder_of(names.claimed_name("web1"))
    assert identity.has_ended(mine) is False


@given(st.text(alphabet=GOOD, min_size=1, max_size=127))
def test_a_claimed_name_contains_the_old_name_if_it_fits(old):
    name = names.claimed_name(old)
    assert (
        names.check_name(name)
        and names.name_before(name) in (old, "")
        and names.holder_of(name) == identity.own_mark()
    )
    if len(old) <= 40:
        assert names.name_before(name) == old


MAKES = """
import sys
from ansible_collections.racefree.block.plugins.module_utils._dm import names as _dm_name
print(_dm_name.making_name(), flush=True)
sys.stdin.read()
"""


def maker(*before):
    return subprocess.Popen(
        [*before, sys.executable, "-c", MAKES],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_a_creator_that_has_ended():
    with maker() as child:
        name = child.stdout.readline().strip()
        mark = names.holder_of(name)
        assert name.startswith(f"{names.MAKING}{child.pid}-") and identity.has_ended(mark) is False
        child.stdin.close()
        child.wait(30)
    assert identity.has_ended(mark) is True


@pytest.mark.parametrize("options", [["--pid", "--mount-proc"], ["--pid"], ["--time"]])
def test_a_creator_in_another_pid_namespace_does_not_count_as_gone(options):
    """
    In this namespace, the PID belongs to another process or to none, and the start time is counted
    differently.
    """
    if os.geteuid():
        pytest.skip("only root can make namespaces")
    with maker("unshare", "--fork", *options) as child:
        mark = names.holder_of(child.stdout.readline().strip())
        assert mark is not None and identity.has_ended(mark) is False
        child.stdin.close()
        child.wait(30)
    assert identity.has_ended(mark) is False


def test_a_reused_pid_is_not_the_creator():
    """PIDs are reused: only together with its start time does a PID identify a process."""
    pid, began, where = identity.own_mark().split("-")
    assert identity.has_ended(f"{pid}-{int(began) - 1}-{where}") is True
    assert identity.has_ended(f"{pid}-{began}-{where}") is False


def test_a_process_that_cannot_be_examined_has_not_ended(monkeypatch):
    """
    A full file descriptor table or an unreadable /proc is an error, and never means that the process has
    ended.
    """
    pid, began, where = identity.own_mark().split("-")
    own = [os.dup(0)]
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(own), before[1]))
    try:
        own += [
            os.open("/dev/null", os.O_RDONLY) for dummy in range(max(own) - len(os.listdir("/dev/fd")) + 1)
        ]
    except OSError:
        pass
    try:
        with pytest.raises(KernelError, match="EMFILE"):
            identity.has_ended(f"{pid}-{int(began) - 1}-{where}")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for one in own:
            os.close(one)


def age(pid):
    """Seconds since the process started."""
    with open("/proc/uptime", encoding="ascii") as uptime:
        now = float(uptime.read().split()[0])
    return now - int(identity.start_time(pid)) / os.sysconf("SC_CLK_TCK")


def test_a_start_time_is_in_ticks_since_boot():
    assert 0 <= age("self") < 86400
    assert identity.start_time("999999999") is None


def test_a_process_with_a_name_that_looks_like_fields(tmp_path):
    """The second field of /proc/PID/stat is the program's name, which may contain spaces and brackets."""
    program = tmp_path / "a) S 1 (b"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "30"]) as child:
        try:
            end = time.monotonic() + 10
            while ") S 1 (" not in open(f"/proc/{child.pid}/stat", encoding="utf-8").read():
                assert time.monotonic() < end
                time.sleep(0.01)
            assert 0 <= age(child.pid) < 60
        finally:
            child.kill()


@pytest.mark.parametrize(
    "name",
    [
        "",
        "web1",
        "racefree-",
        "racefree-making-",
        "racefree-making-1-2-0.0",
        "racefree-making-1-2-0.0-" + "0" * 15,
        "racefree-making-1-2-0.0-" + "G" * 16,
        "racefree-making-a-2-0.0-" + "0" * 16,
        "racefree-making-1--0.0-" + "0" * 16,
        "racefree-claimed-1-2-" + "0" * 16,
        "xracefree-making-1-2-0.0-" + "0" * 16,
    ],
)
def test_names_of_other_programs_are_ignored(name):
    assert names.holder_of(name) is None


@given(st.text())
def test_any_name_can_be_parsed(name):
    assert names.holder_of(name) is None and identity.has_ended(name) is False


def test_addresses():
    """The kernel gets exactly one way to address a device: it answers EINVAL to two."""
    for address, fields, text in (
        (control.by_uuid("LVM-x"), {"uuid": b"LVM-x"}, "uuid LVM-x"),
        (control.by_name("web1"), {"name": b"web1"}, "web1"),
        (control.by_number(253, 300), {"dev": codec.encode_dev(253, 300)}, "253:300"),
    ):
        assert address.fields() == fields and str(address) == text


def test_a_host_without_device_mapper(monkeypatch, tmp_path):
    monkeypatch.setattr(control, "CONTROL", str(tmp_path / "none"))
    with pytest.raises(NotSupported, match="dm_mod"):
        control.Control()
