# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
golden_image, killed after each of its system calls, and on two hosts at once that share a directory.

The other host is a process with another host name and without the locks of this one.
"""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess

import ptrace
import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import DeviceBusy
from ansible_collections.racefree.block.plugins.module_utils._image import golden, qemu_img
from ansible_collections.racefree.block.plugins.module_utils._module.golden_image import GoldenItem
from ansible_collections.racefree.block.plugins.module_utils._module.task import Task
from ansible_collections.racefree.block.plugins.module_utils._source.resources import Resources

SIZE = 1 << 20
CONTENT = b"golden".ljust(SIZE, b"\0")
NAMES = ["golden.raw", "golden.raw.source"]
BUSY = (DeviceBusy.__name__,)
# More than a run makes.
MOST = 400


@pytest.fixture(autouse=True)
def converts_itself(monkeypatch):
    """Without the program, whose calls are not those of the module."""
    monkeypatch.setattr(qemu_img, "virtual_size", lambda chain, limits: chain.size)
    monkeypatch.setattr(qemu_img, "convert", lambda chain, target, *rest: os.pwrite(target, CONTENT, 0))


@pytest.fixture
def shared(tmp_path):
    """A directory for a golden image, beside the image that it is made from."""
    image = tmp_path / "image.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, str(SIZE)], check=True)
    directory = tmp_path / "shared"
    directory.mkdir()
    return directory


def run(directory, check=False):
    """The module's task; ``[name of the error or None, its text, whether anything was changed]``."""
    params = {"path": str(directory / NAMES[0]), "image": str(directory.parent / "image.qcow2")}
    params.update(format="qcow2", backing=False, timeout=60, memory="1G")
    with Resources() as resources:
        task = Task([GoldenItem(params, resources)], check, "rollback")
        task.run()
    (row,) = task.rows
    return [row.error and type(row.error).__name__, str(row.error), row.changed]


def here(directory, check=False):
    """A run on this host, in a process of its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writer, json.dumps(run(directory, check)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text)


def elsewhere(directory, check=False):
    """A run on another host."""
    with pytest.MonkeyPatch.context() as patched:
        here_is = os.uname()
        patched.setattr(os, "uname", lambda: os.uname_result((here_is[0], "elsewhere", *here_is[2:])))
        patched.setattr(GoldenItem, "locks", lambda self: [])
        return here(directory, check)


def traced(directory):
    def child():
        kind = run(directory)[0]
        return 0 if kind is None else 3 if kind in BUSY else 4

    return child


def files(directory):
    return {name: (directory / name).read_bytes() for name in sorted(os.listdir(directory))}


def is_recorded(directory):
    record = json.loads((directory / NAMES[1]).read_bytes())
    there = (directory / NAMES[0]).stat()
    return (record["size"], record["mtime_ns"]) == (there.st_size, there.st_mtime_ns)


def assert_done(directory):
    """The golden image is there, with its record and nothing else; nothing is left to do for either host."""
    found = files(directory)
    assert list(found) == NAMES and found[NAMES[0]] == CONTENT and is_recorded(directory)
    for host in (here, elsewhere):
        kind, text, changed = host(directory)
        assert kind is None and not changed, text
    assert files(directory) == found


def clean(directory, stale=None):
    """An empty directory; or one with the record of a golden image that was removed."""
    for name in os.listdir(directory):
        os.unlink(directory / name)
    if stale is not None:
        (directory / NAMES[1]).write_bytes(stale)


@pytest.fixture(params=["no record", "a stale record"])
def stale(request, shared):
    if request.param == "no record":
        return None
    assert here(shared)[0] is None
    record = (shared / NAMES[1]).read_bytes()
    clean(shared)
    return record


def state(directory):
    """What is there, apart from numbers: kills that leave the same are followed up once."""
    return tuple(
        sorted(
            (
                re.sub("[0-9a-f]{16}", "", each.name),
                len(re.sub(rb"\d+", b"0", each.read_bytes())),
                each.stat().st_nlink,
            )
            for each in directory.iterdir()
        )
    )


def between(directory):
    """Whether the image has its name, and no record is beside it that fits."""
    return (directory / NAMES[0]).exists() and not (
        (directory / NAMES[1]).exists() and is_recorded(directory)
    )


def kills(directory, prepare):
    """
    Prepare the directory and kill a run in it, after each of its calls in turn; yields once for each state
    that this has left. The last run is not killed.
    """
    seen = set()
    for count in range(MOST):
        prepare()
        killed, code = ptrace.run_killed(traced(directory), 0, count)
        assert code == (-9 if killed else 0)
        if (directory / NAMES[0]).exists():
            assert (directory / NAMES[0]).read_bytes() == CONTENT
        if state(directory) not in seen:
            seen.add(state(directory))
            yield
        if not killed:
            assert count > 5
            return
    raise AssertionError("it made too many calls")


@pytest.mark.rotated
def test_killed_after_each_call(shared, stale):
    """The image is whole or absent, what the other host is told is true, and the next run completes it."""
    were_between = states = 0
    for dummy in kills(shared, lambda: clean(shared, stale)):
        states += 1
        before = files(shared)
        kind, text, dummy = elsewhere(shared, check=True)
        if between(shared):
            were_between += 1
            assert kind in BUSY and "run the task on that host first" in text, text
            killed_while_it_completes(shared, before)
        else:
            assert kind is None, text
        assert files(shared) == before
        kind, text, changed = here(shared)
        assert kind is None and changed is (before.keys() != set(NAMES)), text
        assert_done(shared)
    assert states > 6 and were_between == 1


def killed_while_it_completes(directory, before):
    """Each run that completes it may be killed, too; leaves the directory as before."""
    links = {name: (directory / name).stat().st_ino for name in before}
    states = 0
    for dummy in kills(directory, lambda: as_it_was(directory, before, links)):
        states += 1
        kind, text, dummy = here(directory)
        assert kind is None, text
        assert_done(directory)
    # As before; recorded; without the other name; and while the record gets the new ctime, and after it.
    assert states == 6
    as_it_was(directory, before, links)


def as_it_was(directory, before, links):
    """The same files again, with the same names of one file."""
    for name in set(os.listdir(directory)) - {NAMES[0]}:
        os.unlink(directory / name)
    image = links[NAMES[0]]
    for name, content in before.items():
        if name != NAMES[0] and links[name] == image:
            os.link(directory / NAMES[0], directory / name)
        elif name != NAMES[0]:
            (directory / name).write_bytes(content)


@pytest.mark.rotated
def test_another_host_makes_it_before_each_call(shared, stale):
    """One of them makes it, and the other one changes nothing: both go on with the same golden image."""
    lost = won = 0
    for count in range(1, MOST):
        clean(shared, stale)
        seen = []

        race = functools.partial(see_elsewhere, shared, seen)
        reached, code, dummy = ptrace.run_stopped(traced(shared), 0, count, race, every=False)
        if not reached:
            break
        (kind, text, changed), there = seen
        if changed:
            # The other host was first.
            assert kind is None and code in (0, 3), (text, code)
            lost += code == 3
            assert {name: files(shared)[name] for name in NAMES} == {name: there[name] for name in NAMES}
        else:
            assert code == 0 and kind in (None, *BUSY), (text, code)
            won += 1
        assert_done(shared)
    assert not reached and lost > 3 and won > 1


def see_elsewhere(directory, seen, *dummy):
    """The other host runs: add to ``seen`` what it is told, and what there is then."""
    seen.append(elsewhere(directory))
    seen.append(files(directory))


def killed_between(directory):
    for count in range(MOST):
        clean(directory)
        assert ptrace.run_killed(traced(directory), 0, count)[0]
        if between(directory):
            return


def test_the_other_host_is_killed_for_good(shared):
    """The message names the record; nothing was changed."""
    killed_between(shared)
    before = files(shared)
    kind, text, changed = elsewhere(shared)
    assert kind in BUSY and not changed and files(shared) == before
    (record,) = (name for name in before if name.endswith(golden._NEW_RECORD))
    assert str(shared / record) in text and f"rename that file to {shared / NAMES[1]}" in text
    os.rename(shared / record, shared / NAMES[1])
    assert elsewhere(shared)[0] is None


def test_it_was_written_to_before_its_record_was_in_place(shared):
    killed_between(shared)
    os.utime(shared / NAMES[0], (1, 1))
    before = files(shared)
    kind, text, changed = here(shared)
    assert kind == "WrongDevice" and "it was written to after it was made" in text and not changed
    assert files(shared) == before
