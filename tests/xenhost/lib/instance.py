# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running hosts: each has a directory in the cache with its disk and its data."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import time

from common import locks, needs, process, tree
from common.errors import Failed, Problem
from common.progress import say, step

from lib import build, machine, paths, qmp, snapshot, tools
from lib.recipe import Recipe
from lib.remote import Remote

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,30}")
POWEROFF_SECONDS = 90


class Instance:
    """One host by its name; ``data`` is what was stored when it started, or None."""

    def __init__(self, name):
        if not NAME.fullmatch(name):
            raise Problem(
                f"--name: {name!r} is not allowed: up to 31 small letters, digits, - and _, the first a "
                "letter or digit"
            )
        self.name = name
        self.directory = paths.instances() / name
        self.sockets = paths.runtime(name)
        try:
            self.data = json.loads((self.directory / "instance.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            self.data = None

    @property
    def alive(self):
        """Whether its QEMU runs, even if the host is not ready yet."""
        return self.data is not None and process.alive(self.data["process"])

    @property
    def running(self):
        return self.alive and self.data.get("ready", True)

    @property
    def state(self):
        if self.data is None:
            return "incomplete"
        return "dead" if not self.alive else "up" if self.data.get("ready", True) else "starting"

    @property
    def recipe(self):
        """The recipe when the host was started. Its key may have changed since."""
        return KnownRecipe(self.data["release"], self.data["blkback"], self.data["recipe"])

    @property
    def remote(self):
        if not self.running:
            raise Problem(
                f"the host {self.name} is not up: xenhost up --name {self.name}, or xenhost status to list "
                "the hosts that are"
            )
        return Remote(self.recipe, self.data["port"], self.sockets)

    def write(self, vm, restored, ready):
        self.data = {
            "name": self.name,
            "release": vm.recipe.release,
            "blkback": vm.recipe.blkback,
            "recipe": vm.recipe.key,
            "port": vm.port,
            "process": vm.identity,
            "ready": ready,
            "since": int(time.time()),
            "restored": restored,
            "memory": vm.shape.memory,
            "cpus": vm.shape.cpus,
        }
        (self.directory / "instance.json").write_text(
            json.dumps(self.data, indent=1) + "\n", encoding="utf-8"
        )

    def remove(self):
        tree.remove_tree(self.directory)
        tree.remove_tree(self.sockets)
        self.data = None


class KnownRecipe(Recipe):
    """An old recipe: only its key and directory are used."""

    def __init__(self, release, blkback, key):
        super().__init__(release, blkback)
        vars(self)["key"] = key


def all_instances():
    if not paths.instances().is_dir():
        return []
    return [Instance(path.name) for path in sorted(paths.instances().iterdir()) if NAME.fullmatch(path.name)]


def up(name, recipe, shape, port, cold, seconds):
    """Start a host; returns the Instance. A host of that name that is up already is left unchanged."""
    Instance(name)
    needs.require(tools.FOR_UP)
    build.build(recipe)
    if not cold and not snapshot.exists(recipe, shape):
        snapshot.make(recipe, shape, seconds)
    with locks.locked(f"instance-{name}", seconds + 60, f"bring the host {name} up or down"):
        instance = Instance(name)
        if instance.running:
            if instance.data["release"] != recipe.release or instance.data["blkback"] != recipe.blkback:
                raise Problem(
                    f"a host {name} of {instance.recipe.title} is up: take it down, or give another --name"
                )
            say(f"{name} is up already, on port {instance.data['port']}")
            return instance
        if instance.alive:
            say(f"{name}: ending a process that an interrupted start left")
            process.kill(instance.data["process"])
        instance.remove()
        if port is not None:
            machine.check_port(port)
        needs.require_memory(shape.memory if cold else shape.memory // 2, "a host")
        needs.require_space(paths.instances(), 1000, "a host's disk")
        if not cold:
            try:
                with step(f"{name}: restoring the booted host"):
                    _start(instance, recipe, shape, port, seconds, restored=True)
                return instance
            except Failed as problem:
                say(f"the snapshot could not be restored; booting from scratch: {problem}")
        with step(f"{name}: booting"):
            _start(instance, recipe, shape, port, seconds, restored=False)
        return instance


def _start(instance, recipe, shape, port, seconds, restored):
    tries = 1 if port is not None else 5
    for attempt in range(1, tries + 1):
        instance.remove()
        instance.directory.mkdir(parents=True, mode=0o700)
        vm = machine.Machine(recipe, shape, instance.directory, port or machine.free_port(), instance.sockets)
        # Stored from its first moment on, so that "down" finds QEMU whatever ends this process.
        vm.on_start = functools.partial(instance.write, vm, restored, ready=False)
        try:
            if restored:
                snapshot.restore(vm, min(seconds, 120))
            else:
                vm.start(recipe.directory / "disk.img", "raw")
                vm.wait_ssh(seconds)
                vm.wait_services(seconds)
            instance.write(vm, restored, ready=True)
            return
        except BaseException as problem:
            vm.interrupt_safe_kill()
            instance.remove()
            # After a free port is chosen and before QEMU uses it, another program can take it.
            if (
                attempt == tries
                or not isinstance(problem, Problem)
                or "was taken by another program" not in str(problem)
            ):
                raise


def reset(name, seconds, orderly=False):
    """
    Turn a host off and on, like a power failure: what domain 0 has not written to its disk is lost. Its
    hardware and disk stay. ``orderly``: domain 0 shuts down and reboots by itself.
    """
    with locks.locked(f"instance-{name}", seconds + 60, f"reset the host {name}"):
        instance = Instance(name)
        instance.remote.close()
        with step(f"{name}: {'rebooting' if orderly else 'turning it off and on'}"):
            with qmp.Qmp(instance.directory, seconds if orderly else 20) as control:
                control("set-action", reboot="reset")
                if orderly:
                    _tell(instance, "systemctl reboot --no-wall")
                else:
                    control("system_reset")
                control.wait_event("RESET")
            instance.remote.close()
            vm = machine.Machine(
                instance.recipe,
                machine.Shape(instance.data["memory"], instance.data["cpus"]),
                instance.directory,
                instance.data["port"],
                instance.sockets,
            )
            vm.identity = instance.data["process"]
            vm.wait_ssh(seconds)
            vm.wait_services(seconds)
            # Not earlier: the firmware of a restored host may find its own memory unchanged, and then resets
            # once more by itself.
            with qmp.Qmp(instance.directory) as control:
                control("set-action", reboot="shutdown")


def down(name, now=False):
    """Power a host off and remove all of its files; True if there was anything."""
    with locks.locked(f"instance-{name}", 300, f"bring the host {name} up or down"):
        instance = Instance(name)
        there = instance.directory.exists() or instance.sockets.exists()
        if instance.alive:
            now = now or not instance.running
            with step(f"{name}: {'ending' if now else 'powering off'}"):
                identity = instance.data["process"]
                if not now:
                    _tell(instance, "systemctl poweroff --no-wall")
                if not now and not process.wait_gone(identity, POWEROFF_SECONDS):
                    say(f"{name} did not power off within {POWEROFF_SECONDS} s: ended by force")
                if instance.running:
                    instance.remote.close()
                if not process.kill(identity):
                    raise Failed(f"QEMU, process {identity['pid']}, does not end")
        instance.remove()
        return there


def _tell(instance, command):
    """Run a command after which the host ends, so that the connection may end before the answer arrives."""
    with contextlib.suppress(Failed):
        instance.remote.capture(command, 30)
