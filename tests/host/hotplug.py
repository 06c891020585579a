# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Shared by the tests and programs for the hotplug script: installing it, and disks made as libxl makes them.

A disk made here has all nodes that libxl writes, and the script is called as libxl calls it, so that single
calls can be measured, killed and disturbed.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

if __name__ == "__main__":
    sys.path.insert(0, os.environ.get("RACEFREE_SITE", "/root/site"))

from ansible_collections.racefree.block.plugins.module_utils._hotplug import (
    add,
    service,
    worker,
)
from ansible_collections.racefree.block.plugins.module_utils._hotplug import (
    script as _script,
)
from ansible_collections.racefree.block.plugins.module_utils._xen import guest, vbd_nodes
from ansible_collections.racefree.block.plugins.module_utils._xen.vbd_key import Key
from ansible_collections.racefree.block.plugins.module_utils._xenstore.session import Session

COLLECTION = os.path.join(os.environ.get("RACEFREE_SITE", "/root/site"), "ansible_collections/racefree/block")
FILES = os.path.join(COLLECTION, "roles/xen_host/files")
LIBRARY = "/usr/local/lib/racefree-block"
SCRIPT = "/etc/xen/scripts/block-racefree"
STOCK = "/etc/xen/scripts/block"
STATE = "/run/racefree-block/hotplug"
SERVICE = service.DIRECTORY
# Imported here, so that a fork need not import it.
PRELOADED = (add, worker)
# From xvdb on; the guest's own disks, if it has any, come before.
FIRST = (202 << 8) + 16


def install_library():
    """Does what the role xen_host does, without Ansible: the tests run on the host itself."""
    floor = os.path.join(COLLECTION, "plugins/module_utils")
    paths = {os.path.relpath(path, floor): path for path in glob.glob(f"{floor}/**/*.py", recursive=True)}
    paths["hotplug_start.py"] = f"{FILES}/hotplug_start.py"
    texts = {name: pathlib.Path(path).read_text(encoding="utf-8") for name, path in paths.items()}
    shutil.rmtree(f"{LIBRARY}/racefree_block", ignore_errors=True)
    subprocess.run(
        [sys.executable, "-I", f"{FILES}/unpack.py", f"{LIBRARY}/racefree_block"],
        input=json.dumps(texts).encode(),
        check=True,
    )


def install():
    install_library()
    install_script()


def install_script():
    shutil.copy(f"{FILES}/block-racefree", SCRIPT)
    os.chmod(SCRIPT, 0o755)


def uninstall():
    """The role would not use a directory that belongs to somebody else."""
    os.unlink(SCRIPT)
    shutil.rmtree(LIBRARY)


@contextlib.contextmanager
def installed():
    install()
    try:
        yield
    finally:
        uninstall()


@contextlib.contextmanager
def alone():
    """Hide the service from the script."""
    os.rename(f"{SERVICE}/server", f"{SERVICE}/hidden")
    try:
        yield
    finally:
        os.rename(f"{SERVICE}/hidden", f"{SERVICE}/server")


def is_served():
    """The service's process, found as the script finds it, or None."""
    with contextlib.suppress(OSError, ValueError):
        with open(f"{SERVICE}/server", encoding="ascii") as file:
            pid = int(file.read())
        if os.path.samefile(f"/proc/{pid}/fd/{service.ALIVE_FD}", f"{SERVICE}/alive"):
            return pid
    return None


@contextlib.contextmanager
def mute_guest(name):
    """
    A guest that answers for no disk; yields its name. blkback opens the device anyway.

    Even an idle guest would take a quarter of a processor on an emulated host. But it is not paused:
    oxenstored would make writers wait until the guest has received its events.
    """
    subprocess.run(
        ["xenguest", "start", name, "--memory", "128", "--no-frontend"], check=True, stdout=subprocess.DEVNULL
    )
    try:
        subprocess.run(["xl", "sched-credit2", "-d", name, "-c", "5"], check=True)
        yield name
    finally:
        # Its end takes some time.
        subprocess.run(["xl", "sched-credit2", "-d", name, "-c", "0"], check=False)
        subprocess.run(["xenguest", "stop", name], check=False)


class Service:
    """The process that does add for the script; a context. It may be stopped and started inside."""

    process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self.stop()
        shutil.rmtree(SERVICE)

    def start(self):
        self.process = subprocess.Popen(
            [sys.executable, "-IS", f"{LIBRARY}/racefree_block/hotplug_start.py", "serve"],
            stdin=subprocess.DEVNULL,
        )
        wait_until(lambda: is_served() == self.process.pid, 30, "the service to begin")

    def stop(self, kill=False):
        (self.process.kill if kill else self.process.terminate)()
        self.process.wait(60)


def environment(key, script=SCRIPT):
    """libxl's (get_hotplug_env in tools/libs/light/libxl_linux.c of Xen)."""
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "script": script,
        "XENBUS_TYPE": "vbd",
        "XENBUS_PATH": f"backend/vbd/{key.domid}/{key.devid}",
        "XENBUS_BASE_PATH": "backend",
    }


# What blkback and the scripts read.
_ENOUGH = (
    "frontend",
    "frontend-id",
    "online",
    "state",
    "dev",
    "type",
    "mode",
    "device-type",
    "params",
    "script",
    "backend",
    "backend-id",
    "virtual-device",
)


class Disk:
    """
    A guest's disk without a device yet, for a guest that need not answer; a context, which removes it at the
    end.

    With ``bare`` it has only nodes that are read, and is removed as when a guest is destroyed: for many disks
    in a row.
    """

    def __init__(self, store, guest_name, number, params, mode="w", script=SCRIPT, bare=False):
        self.store = store
        self.guest = guest_name if isinstance(guest_name, guest.Guest) else guest.find(store, guest_name)
        self.bare = bare
        self.devid = FIRST + 16 * number if number < 15 else (1 << 28) + (number + 1 << 8)
        self.key = Key(self.guest.domid, self.devid)
        self.params = params
        self.mode = mode
        self.script = script

    def __enter__(self):
        self.store.transaction(self.lay, 30)
        self.wait_for_backend()
        return self

    def lay(self, tx):
        """Write its nodes."""
        disk = vbd_nodes.Disk(dev=f"d{self.devid}", params="/", writable="w" in self.mode, script=self.script)
        nodes = [
            (
                path,
                self.params if path.endswith("/params") else self.mode if path.endswith("/mode") else value,
                perms,
            )
            for path, value, perms in vbd_nodes.layout(self.key, disk, [])
            if not path.endswith("/hotplug-status")
        ]
        if self.bare:
            nodes = [
                (path, value, perms if value is None else None)
                for path, value, perms in nodes
                if not path.startswith("/libxl") and (value is None or path.rpartition("/")[2] in _ENOUGH)
            ]
        for path in (
            (self.key.backend_error,)
            if self.bare
            else (self.key.frontend, self.key.backend_error, self.key.frontend_error)
        ):
            tx.remove(path)
        tx.lay(nodes)

    def wait_for_backend(self):
        """
        Do what libxl does before it calls the script. Reading sysfs takes less time than reading XenStore.
        """
        wait_until(lambda: os.path.exists(self.key.sysfs), 60, f"{self.key.sysfs} to come")
        self.wait_for("state", "2", 60)

    def __exit__(self, *exc):
        self.close()

    def node(self, name):
        return self.store.read(f"{self.key.backend}/{name}")

    def wait_for(self, name, value, seconds):
        end = time.monotonic() + seconds
        while self.node(name) != value:
            assert time.monotonic() < end, (
                f"{self.key.backend}/{name} is {self.node(name)!r} and did not become {value!r}"
            )
            time.sleep(0.05)

    def start(self, command, **options):
        """The script's process."""
        return subprocess.Popen(
            [self.script, command],
            env=environment(self.key, self.script),
            stdin=subprocess.DEVNULL,
            cwd="/",
            **options,
        )

    def main(self, command):
        """
        Do the script's work in this process, as after the start of its interpreter; returns its exit code.
        """
        return _script.main([self.script, command], environment(self.key, self.script))

    def execute(self, command):
        """Replace this process by the script."""
        os.execve(self.script, [self.script, command], environment(self.key, self.script))

    def fork(self, command):
        """
        Do the script's work in a child process, which takes a fraction of the time of starting an
        interpreter.
        """
        return Forked(lambda: self.main(command))

    def call(self, command):
        """``(exit code, what it printed, seconds)``; as libxl, no longer than 40 s."""
        began = time.monotonic()
        with self.start(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            try:
                output = process.communicate(timeout=40)[0]
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return process.returncode, output.decode(errors="replace"), time.monotonic() - began

    def ask_back(self):
        """
        As libxl does before it calls remove, ask the backend to close; as a guest that answers, close the
        frontend.
        """

        def write(tx):
            if tx.exists(f"{self.key.backend}/state"):
                tx.write(f"{self.key.backend}/online", "0")
                tx.write(f"{self.key.backend}/state", "5")
                tx.write(f"{self.key.frontend}/state", "6")

        self.store.transaction(write, 30)

    def remove_nodes(self, seconds=30, wait=True):
        """Do what libxl does after remove, and wait until blkback has released it."""
        from ansible_collections.racefree.block.plugins.module_utils._xen import blkback

        if self.bare:
            for path in (self.key.frontend, self.key.backend):
                self.store.remove(path)
        else:
            self.store.transaction(lambda tx: blkback.remove_nodes(tx, self.key), 30)
        if wait:
            wait_until(lambda: not os.path.exists(self.key.sysfs), seconds, f"{self.key.sysfs} to go")

    def close(self):
        if not self.bare:
            self.ask_back()
        self.remove_nodes()


class Forked:
    """
    A child that runs ``function()`` and exits with its value. Has the part of subprocess.Popen that is used
    here.
    """

    def __init__(self, function):
        self.returncode = None
        self.pid = os.fork()
        if not self.pid:
            code = 255
            try:
                null = os.open(os.devnull, os.O_RDWR)
                for standard in (0, 1, 2):
                    os.dup2(null, standard)
                code = function()
            finally:
                os._exit(code)

    def poll(self):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, seconds):
        end = time.monotonic() + seconds
        while self.poll() is None:
            assert time.monotonic() < end, f"process {self.pid} did not end within {seconds} s"
            time.sleep(0.005)
        return self.returncode


@contextlib.contextmanager
def without_udev():
    """
    Stop udev from probing every new device, which takes longer on an emulated host than what is measured.
    """
    units = [f"systemd-udevd{kind}" for kind in ("-control.socket", "-kernel.socket", ".service")]
    subprocess.run(["systemctl", "stop", *units], check=True)
    try:
        yield
    finally:
        subprocess.run(["systemctl", "start", *units], check=True)


def udev_settled():
    """Wait until udev has examined each new device, which takes longer than attaching it."""
    subprocess.run(["udevadm", "settle", "--timeout=120"], check=True)


def connect():
    return Session(30)


def loops():
    """The bound loop devices, from losetup."""
    return subprocess.run(["losetup", "-a"], stdout=subprocess.PIPE, check=True).stdout.decode().splitlines()


def wait_until(condition, seconds, what):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"timed out after {seconds} s waiting for {what}"
        time.sleep(0.02)


def wait_no_loops(allowed=(), seconds=15):
    """
    Wait until autoclear devices are gone: a work item of blkback closes them just after the nodes are
    removed.
    """
    wait_until(lambda: not set(loops()) - set(allowed), seconds, f"loop devices to go: {loops()}")
