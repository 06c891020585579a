# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Snapshots of a booted host, so that the next "up" takes only seconds.

A snapshot is a directory beside the image: ``ram`` (the machine's memory, a sparse file), ``state`` (devices
and processor) and ``disk.qcow2`` (what the boot wrote, over the image). The memory is written by the running
machine itself, through a shared mapping, and is left out of the state; a restored machine maps it privately,
so that nothing is read before it is needed and any number of hosts can run from one snapshot, which they do
not change.
"""

from __future__ import annotations

import json
import os
import subprocess
import time

from common import locks, needs, process, tree
from common.errors import Failed
from common.progress import say, step

from lib import paths
from lib.machine import Machine, free_port
from lib.qmp import Qmp

CAPABILITIES = [{"capability": "x-ignore-shared", "state": True}]
# Loads into the page cache what every test uses.
WARM = (
    "xl list >/dev/null; virsh -q -c xen:///system list --all; python3 -c 'import cffi, libvirt, pyxs, "
    "json, subprocess, tempfile, zipfile'; "
    "dmsetup version >/dev/null; losetup; xenguest start warm --memory 128 >/dev/null && xenguest run warm "
    "-- true; xenguest stop warm; "
    "rm -f /var/log/xen/console/*warm* /var/log/xen/*warm*; sync"
)


def directory(recipe, shape):
    return recipe.directory / f"snapshot-{shape.key()}"


def exists(recipe, shape):
    return (directory(recipe, shape) / "meta.json").exists()


def wait_migrated(qmp, seconds):
    deadline = time.monotonic() + seconds
    while True:
        state = qmp("query-migrate")
        if state.get("status") == "completed":
            return
        if state.get("status") in ("failed", "cancelled") or time.monotonic() > deadline:
            raise Failed(f"QEMU's migration: {state.get('status')} {state.get('error-desc', '')}".rstrip())
        time.sleep(0.05)


def make(recipe, shape, seconds):
    """Boot the image, wait until it is ready, save the snapshot; returns its directory."""
    final = directory(recipe, shape)
    with locks.locked(
        f"snapshot-{recipe.key}-{shape.key()}", seconds + 600, f"make the same snapshot ({recipe.title})"
    ):
        if exists(recipe, shape):
            return final
        needs.require_space(recipe.directory, shape.memory + 500, "a snapshot")
        needs.require_memory(shape.memory, "booting the host")
        work = recipe.directory / ".snapshot-making"
        tree.remove_tree(work)
        work.mkdir()
        machine = Machine(recipe, shape, work, free_port(), paths.runtime(f"snapshot-{os.getpid()}"))
        try:
            with step(f"first boot of {recipe.title}"):
                machine.start(
                    recipe.directory / "disk.img", "raw", ram=(work / "ram", True), die_with_us=True
                )
                machine.wait_ssh(seconds)
                machine.wait_services(seconds)
            with step("warming up"):
                code, text = machine.remote.capture(WARM, 600)
                if code:
                    raise Failed(f"no snapshot can be made of this host: {text}")
                machine.remote.close()
            with step("keeping the booted host"):
                time.sleep(1)
                _save(machine, work)
        finally:
            machine.interrupt_safe_kill()
            tree.remove_tree(machine.remote.sockets)
        for name in ("xen", "vmlinux", "initrd", "qmp.sock", "qemu.log"):
            if os.path.lexists(work / name):
                (work / name).unlink()
        (work / "overlay.qcow2").rename(work / "disk.qcow2")
        (work / "meta.json").write_text(
            json.dumps({"made": int(time.time()), "memory": shape.memory, "cpus": shape.cpus}) + "\n",
            encoding="utf-8",
        )
        work.rename(final)
    return final


def _save(machine, work):
    with Qmp(work, 60) as qmp:
        qmp("stop")
        qmp("migrate-set-capabilities", capabilities=CAPABILITIES)
        qmp("migrate", uri=f"exec:cat > {_quoted(work / 'state')}")
        wait_migrated(qmp, 120)
        qmp("quit")
    if not process.wait_gone(machine.identity, 60):
        raise Failed("QEMU did not exit within 60 s after the command to quit")
    # Pages that the machine never wrote, or filled with zeros, take no space.
    subprocess.run(["fallocate", "--dig-holes", str(work / "ram")], check=True)


def _quoted(path):
    return "'" + str(path).replace("'", "'\\''") + "'"


def restore(machine, seconds):
    """Start the machine from its snapshot and bring its clock up to date."""
    source = directory(machine.recipe, machine.shape)
    machine.start(source / "disk.qcow2", "qcow2", ram=(source / "ram", False), incoming=True)
    with Qmp(machine.directory, 60) as qmp:
        qmp("migrate-set-capabilities", capabilities=CAPABILITIES)
        qmp("migrate-incoming", uri=f"exec:cat {_quoted(source / 'state')}")
        deadline = time.monotonic() + seconds
        while True:
            state = qmp("query-status")["status"]
            if state == "running":
                break
            if state in ("paused", "prelaunch", "postmigrate"):
                qmp("cont")
            if time.monotonic() > deadline:
                raise Failed(f"the snapshot was not restored within {seconds:g} s: QEMU is {state}")
            machine.check()
            time.sleep(0.02)
    machine.wait_ssh(seconds)
    machine.remote.refresh()


def discard(recipe, shape):
    say("the snapshot cannot be used and is removed")
    tree.remove_tree(directory(recipe, shape))
