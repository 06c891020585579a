# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One QEMU process that runs a Xen host: its command line, its start, and the wait until it is ready."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from common import needs, process
from common.errors import Failed, Problem

from lib import tools
from lib.remote import Remote

MEMORY_MIB = 3072
CPUS = 2
DOM0_MIB = 1536
# Without features that crash domain 0, or that libvirt's Xen driver does not know, when QEMU emulates them.
CPU = "Haswell-noTSX,-smap,-smep,-pcid,-invpcid,-tsc-deadline,-x2apic"
# eager-fpu: without it Xen loads a virtual processor's vector registers at the first trap after a switch, but
# QEMU 7.2 does not trap XSAVE: under load, one SHA or ChaCha result in a hundred was wrong, ssh lost its
# connections and processes died. With it: none in 31,000.
XEN = (
    f"console=com1 com1=115200 dom0_mem={DOM0_MIB}M,max:{DOM0_MIB}M noreboot spec-ctrl=no,eager-fpu=1 "
    "xpti=no bootscrub=0 loglvl=warning "
    "guest_loglvl=warning"
)
LINUX = (
    "root=/dev/vda rw console=hvc0 net.ifnames=0 mitigations=off random.trust_cpu=on fsck.mode=skip "
    "lsm=capability audit=0 quiet loglevel=4 "
    "systemd.show_status=0"
)


@dataclass(frozen=True)
class Shape:
    """The settings of a machine that must be the same when it is restored."""

    memory: int = MEMORY_MIB
    cpus: int = CPUS

    def arguments(self):
        return [
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            CPU,
            "-smp",
            str(self.cpus),
            "-m",
            str(self.memory),
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
            "-serial",
            "file:console.log",
            "-qmp",
            "unix:qmp.sock,server=on,wait=off",
            "-rtc",
            "base=utc",
            "-drive",
            "file=overlay.qcow2,if=none,id=disk,format=qcow2,cache=unsafe,discard=unmap",
            "-device",
            "virtio-blk-pci,drive=disk",
            "-device",
            "virtio-net-pci,netdev=net,romfile=,mac=52:54:00:12:34:56",
            # Multiboot: Xen is the kernel; domain 0's kernel, with its command line, and initial RAM disk are
            # its modules.
            "-kernel",
            "xen",
            "-append",
            XEN,
            "-initrd",
            f"vmlinux {LINUX},initrd",
        ]

    def memory_arguments(self, ram):
        """``ram``: None, or (file, shared)."""
        if ram is None:
            return ["-machine", "pc"]
        path, shared = ram
        return [
            "-machine",
            "pc,memory-backend=ram",
            "-object",
            f"memory-backend-file,id=ram,size={self.memory}M,mem-path={str(path).replace(',', ',,')},"
            f"share={'on' if shared else 'off'}",
        ]

    def key(self):
        """
        A key of everything that a snapshot depends on: QEMU, the command line, the clock rate of this
        machine's processor.
        """
        digest = hashlib.sha256()
        for item in (qemu_version(), *self.arguments(), *self.memory_arguments(("ram", True)), processor()):
            digest.update(item.encode() + b"\0")
        return digest.hexdigest()[:12]


def qemu_version():
    needs.require(tools.FOR_UP)
    done = subprocess.run(
        ["qemu-system-x86_64", "--version"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env={"PATH": needs.SEARCH},
    )
    return done.stdout.splitlines()[0] if done.stdout else "unknown"


def processor():
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        return next(
            (line.partition(":")[2].strip() for line in file if line.startswith("model name")), "unknown"
        )


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def check_port(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise Problem(
                f"port {port} of 127.0.0.1 cannot be used ({error.strerror}): give another --port, or "
                "leave it out"
            ) from None


def make_overlay(path, backing, form):
    done = subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(backing), "-F", form, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env=dict(os.environ, PATH=needs.SEARCH),
    )
    if done.returncode:
        raise Failed(f"qemu-img: {done.stdout.strip()}")


class Machine:
    """A QEMU process whose working directory is ``directory``."""

    def __init__(self, recipe, shape, directory, port, sockets):
        self.recipe = recipe
        self.shape = shape
        self.directory = Path(directory)
        self.port = port
        self.remote = Remote(recipe, port, sockets)
        self.identity = None
        self.on_start = None

    def start(self, backing, form, ram=None, incoming=None, die_with_us=False):
        """Start QEMU on a new overlay over ``backing``; Failed with QEMU's message if it exits at once."""
        for name in ("xen", "vmlinux", "initrd"):
            (self.directory / name).symlink_to(self.recipe.directory / name)
        make_overlay(self.directory / "overlay.qcow2", backing, form)
        argv = ["setpriv", "--pdeathsig", "KILL"] if die_with_us else []
        argv += [
            "qemu-system-x86_64",
            "-name",
            f"xenhost-{self.recipe.release}",
            *self.shape.arguments(),
            *self.shape.memory_arguments(ram),
        ]
        argv += ["-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-10.0.2.15:22"]
        if incoming:
            argv += ["-incoming", "defer"]
        with open(self.directory / "qemu.log", "wb") as log:
            child = subprocess.Popen(
                argv,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=dict(os.environ, PATH=needs.SEARCH),
            )
        self.identity = process.identity(child.pid)
        if self.on_start:
            self.on_start()

    def check(self):
        if not process.wait_gone(self.identity, 0):
            return
        words = (self.directory / "qemu.log").read_text(encoding="utf-8", errors="replace").strip()
        if "Could not set up host forwarding rule" in words:
            raise Problem(
                f"port {self.port} of 127.0.0.1 was taken by another program: give another --port, or "
                "leave it out"
            )
        raise Failed(f"QEMU ended: {words[-600:] or 'it said nothing'}; console: {self.console_tail()}")

    def console_tail(self):
        try:
            text = (self.directory / "console.log").read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return "(empty)"
        return re.sub(r"[^\x20-\x7e\n]+", "", text).strip()[-400:] or "(empty)"

    def wait_ssh(self, seconds):
        """Wait until sshd sends its greeting; QEMU accepts connections long before that."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.check()
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                    connection.settimeout(min(5.0, max(0.5, deadline - time.monotonic())))
                    if connection.recv(4) == b"SSH-":
                        return
            except OSError:
                pass
            time.sleep(0.1)
        raise Failed(
            f"timed out after {seconds:g} s waiting for ssh on port {self.port}; console: "
            f"{self.console_tail()}"
        )

    def wait_services(self, seconds):
        """Wait until xenstored, xenconsoled and libvirtd, unless that is masked, answer."""
        script = (
            'libvirtd() { [ "$(systemctl is-enabled libvirtd)" = masked ] || { '
            "[ -S /run/libvirt/libvirt-sock ] && virsh -q -c xen:///system list; }; }; "
            "n=0; until { xenstore-read domid && [ -e /run/xenconsoled.pid ] && libvirtd; } >/dev/null 2>&1; "
            f"do n=$((n+1)); [ $n -gt {int(seconds * 2)} ] && exit 1; sleep 0.5; done"
        )
        code, text = self.remote.capture(script, seconds + 60)
        if code:
            raise Failed(
                f"xenstored, xenconsoled or libvirtd did not answer within {seconds:g} s: {text}; console: "
                f"{self.console_tail()}"
            )

    def kill(self):
        if self.identity is not None and process.alive(self.identity):
            process.kill(self.identity)

    def interrupt_safe_kill(self):
        """Kill it even if the user presses Ctrl-C a second time."""
        old = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self.kill()
        finally:
            signal.signal(signal.SIGINT, old)
