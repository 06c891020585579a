# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The hook, libvirt's daemon and the module are killed in the middle of what they do for guests of QEMU. Nothing
is left in the end, and the next run does what was to be done. RACEFREE_KILLS is the number of kills of each.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import qemuhost
from ansible_collections.racefree.block.plugins.module_utils._libvirt import connection
from conftest import Failed, result_or_none, run_module
from qemuhost import HOOK, URI, defined, definition, nothing_left, ours, virsh, wait_for
from test_libvirt_qemu_live import live, number_of, running
from test_libvirt_qemu_replace import begins, recipes

pytestmark = [pytest.mark.qemu, pytest.mark.slow]
KILLS = int(os.environ.get("RACEFREE_KILLS") or 6)


@pytest.fixture(scope="module", autouse=True)
def installed():
    with qemuhost.hook():
        yield


def moments(whole, seed):
    """So many moments within a time in seconds; the same ones for a seed."""
    chance = random.Random(seed)
    return [chance.uniform(0.05, 1.0) * whole for dummy in range(KILLS)]


def test_the_hook_at_prepare(image):
    with defined(definition("qk1")) as domain:
        for vdev in ("vda", "vdb"):
            run_module("libvirt_disk", domain=domain, vdev=vdev, source={"file": image(vdev)}, uri=URI)
        text = virsh("dumpxml", "qk1", "--inactive").encode()

        def call(operation, seconds=None):
            """Call the hook, and kill it after so many seconds; whether it was still working then."""
            with subprocess.Popen([HOOK, "qk1", operation, "begin", "-"], stdin=subprocess.PIPE) as hook:
                hook.stdin.write(text)
                hook.stdin.close()
                try:
                    return hook.wait(seconds) != 0
                except subprocess.TimeoutExpired:
                    hook.kill()
                    return True

        began = time.monotonic()
        assert not call("prepare")
        whole = time.monotonic() - began
        assert not call("release") and nothing_left()
        killed = 0
        for index, moment in enumerate(moments(whole, 1)):
            killed += call("prepare", moment)
            if index % 2:
                # The guest is started again, and its devices are made anew.
                assert not call("prepare") and len(ours()) == 2
            assert not call("release") and nothing_left(), f"killed after {moment:.2f} of {whole:.2f} s"
        assert killed


def test_the_daemon_at_a_start(image):
    """What QEMU has it keeps, and `reconnect` finds it right; what nobody has goes."""
    with defined(definition("qk2")) as domain:
        run_module("libvirt_disk", domain=domain, vdev="vda", source={"file": image()}, uri=URI)
        began = time.monotonic()
        virsh("start", "qk2", "--paused")
        whole = time.monotonic() - began
        virsh("destroy", "qk2")
        for moment in moments(whole, 2):
            with subprocess.Popen(
                ["virsh", "-c", URI, "start", "qk2", "--paused"], stderr=subprocess.DEVNULL
            ):
                time.sleep(moment)
                pid = qemuhost.daemon_pid()
                os.kill(pid, signal.SIGKILL)
                assert wait_for(lambda pid=pid: not os.path.exists(f"/proc/{pid}"))
            qemuhost.start_daemon()
            virsh("destroy", "qk2", check=False)
            virsh("start", "qk2", "--paused")
            assert len(qemuhost.opened("qk2")) == 1 and len(ours()) == 1
            virsh("destroy", "qk2")
            assert nothing_left(), f"killed after {moment:.2f} of {whole:.2f} s"


def killed_after(seconds, **arguments):
    """Run libvirt_disk in a process of its own, and kill that after so many seconds."""
    child = os.fork()
    if not child:
        try:
            run_module("libvirt_disk", **arguments)
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_the_module_at_a_running_guest(tmp_path, image):
    """Its next run attaches or detaches the disk, whatever the killed one has done."""
    path = image("data.raw")
    with running(tmp_path, image) as (domain, name):
        arguments = {"domain": domain, "vdev": "vdb", "source": {"file": path}, "uri": URI, "live": True}
        times = {}
        for state in ("present", "absent"):
            began = time.monotonic()
            run_module("libvirt_disk", state=state, **arguments)
            times[state] = time.monotonic() - began
        for state, opposite in (("present", "absent"), ("absent", "present")):
            for moment in moments(times[state], 3):
                run_module("libvirt_disk", state=opposite, **arguments)
                killed_after(moment, state=state, **arguments)
                # What the daemon has been asked for, it does.
                done = wait_for(
                    lambda state=state: result_or_none("libvirt_disk", state=state, **arguments), 90, 1
                )
                assert done, f"{state} was killed after {moment:.2f} of {times[state]:.2f} s"
                has = live(domain).disk("vdb") is not None
                assert has == (state == "present") == ("vdb" in live(domain).recipes())
                if has:
                    assert qemuhost.opened(name) == number_of(done["device"])
        run_module("libvirt_disk", **dict(arguments, state="absent"))
        assert not live(domain).recipes() and qemuhost.opened(name) == set()


def is_killed(number, after, **arguments):
    """
    Run libvirt_disk in a process that is killed before or after its call of libvirt with this number;
    whether it came to that.
    """
    child = os.fork()
    if not child:
        original, left = connection.bounded, [number]

        def bounded(function, *more):
            def last():
                done = function() if after else None
                os.kill(os.getpid(), signal.SIGKILL)
                return done

            left[0] -= 1
            return original(function if left[0] >= 0 else last, *more)

        connection.bounded = bounded
        code = 2
        try:
            run_module("libvirt_disk", **arguments)
            code = 0
        except Failed as failure:
            print(failure, file=sys.stderr, flush=True)
            code = 1 if "was killed" in str(failure) else 2
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code != 2, f"killed at call {number}"
    return code != 0


def test_the_module_while_it_replaces_a_disk(tmp_path, image):
    """
    It is killed before or after a call of libvirt. The guest has the old disk, the new one or none, and the
    next run ends with the new one. A process that holds a device for the killed run ends before.
    """
    paths = {word: image(f"{word}.raw", content=word.encode().ljust(16, b".")) for word in ("a", "b")}
    with running(tmp_path, image) as (domain, name):
        arguments = {
            "domain": domain,
            "vdev": "vdb",
            "uri": URI,
            "live": True,
            "replace": True,
            "timeout": 15,
        }
        run_module("libvirt_disk", source={"file": paths["a"]}, **arguments)
        chance, killed, has = random.Random(4), 0, "a"
        # Before and after each of its ten calls.
        points = sorted(chance.sample(range(20), min(KILLS, 20)))
        for number, is_after in (divmod(point, 2) for point in points):
            has = "b" if has == "a" else "a"
            wanted = {"source": {"file": paths[has]}, **arguments}
            killed += is_killed(number, bool(is_after), **wanted)
            assert begins(name) <= {"a", "b"} and len(ours()) <= 1
            done = wait_for(lambda wanted=wanted: result_or_none("libvirt_disk", **wanted), 90, 1)
            assert done and begins(name) == {has} and len(ours()) == 1, f"killed at call {number}"
            assert recipes(name) == recipes(name, "--inactive") and paths[has] in recipes(name)["vdb"]
            assert qemuhost.opened(name) == number_of(done["device"])
        assert killed >= len(points) * 2 // 3
