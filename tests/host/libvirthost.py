# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""libvirt on an emulated host for tests: virsh, defined guests, and the hook installed as the role does."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time

from hotplug import FILES, LIBRARY, SCRIPT, STOCK, install_library, install_script

KERNEL, INITRD = "/usr/lib/xenguest/vmlinux", "/usr/lib/xenguest/initrd"
HOOK = "/etc/libvirt/hooks/libxl.d/50-racefree"
STATE = "/run/racefree-block/libvirt"


def run(*argv, check=True, seconds=600, **more):
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=seconds,
        check=False,
        **more,
    )
    text = done.stdout.decode(errors="replace")
    assert done.returncode == 0 or not check, f"{argv}: {text}"
    return text.strip()


def virsh(*words, check=True):
    return run("virsh", "-q", "-c", "xen:///system", *words, check=check)


def definition(name, devices="", reboot="restart"):
    """A small paravirtual guest that accepts commands (xenguest)."""
    return (
        f"<domain type='xen'><name>{name}</name><memory unit='MiB'>128</memory><vcpu>1</vcpu>"
        "<os><type arch='x86_64' "
        f"machine='xenpv'>linux</type><kernel>{KERNEL}</kernel><initrd>{INITRD}</initrd>"
        f"<cmdline>console=hvc0 quiet loglevel=1 mitigations=off random.trust_cpu=on panic=5</cmdline></os>"
        f"<on_poweroff>destroy</on_poweroff><on_reboot>{reboot}</on_reboot><on_crash>destroy</on_crash>"
        f"<devices>{devices}<console type='pty'/></devices></domain>"
    )


@contextlib.contextmanager
def defined(tmp_path, name, **more):
    """A defined guest. It is removed afterwards, whatever its state."""
    path = tmp_path / f"{name}.xml"
    path.write_text(definition(name, **more))
    virsh("define", str(path))
    try:
        yield name
    finally:
        # While a guest reboots, libvirt itself may be busy with it for up to 30 s.
        wait_for(lambda: virsh("destroy", name, check=False) == "" or is_off(name), 120, 3)
        virsh("undefine", name, "--managed-save", check=False)


def wait_for(question, seconds=120, pause=1):
    """
    The first true answer, or the last one after so many seconds. Polling is a noticeable load on an emulated
    host.
    """
    until = time.monotonic() + seconds
    while True:
        answer = question()
        if answer or time.monotonic() > until:
            return answer
        time.sleep(pause)


def in_guest(name, command, seconds=180):
    """The output of a shell command in the guest; repeated until the guest accepts commands."""

    def ask():
        done = subprocess.run(
            ["xenguest", "run", name, "--", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=300,
            check=False,
        )
        return (done.stdout.decode(errors="replace").strip(),) if done.returncode == 0 else None

    answer = wait_for(ask, seconds, 2)
    assert answer is not None, f"{name} did not do: {command}"
    return answer[0]


def is_running(name):
    return virsh("domstate", name, check=False) == "running"


def is_off(name):
    """
    Wait until it has ended completely: libvirt reports "shut off" while it is still busy with the guest.
    """
    return virsh("domid", name, check=False) == "-"


def ours():
    """Mapped devices that the collection made for domains."""
    return [
        line
        for line in run("dmsetup", "info", "-c", "--noheadings", "-o", "name,uuid").splitlines()
        if "RACEFREE-LIBVIRT-" in line
    ]


def install():
    """Install the hook, and restart the daemon if necessary."""
    install_library()
    os.makedirs(os.path.dirname(HOOK), exist_ok=True)
    with (
        open(f"{FILES}/libvirt-hook", encoding="utf-8") as program,
        open(HOOK, "w", encoding="utf-8") as file,
    ):
        file.write("#!/usr/bin/python3 -I\n" + program.read())
    os.chmod(HOOK, 0o755)
    restart_daemon()


def uninstall():
    os.unlink(HOOK)
    shutil.rmtree(f"{LIBRARY}/racefree_block", ignore_errors=True)
    restart_daemon()


@contextlib.contextmanager
def hook():
    """The installed hook, as a context."""
    install()
    try:
        yield
    finally:
        uninstall()


@contextlib.contextmanager
def default_script():
    """
    The collection's hotplug script as the default script, as the role installs it, for tests with the hook.
    On an emulated host, Xen's own script may need more than its 40 s for two disks at once.
    """
    install_script()
    os.rename(STOCK, f"{STOCK}.stock")
    os.symlink(SCRIPT, STOCK)
    try:
        yield
    finally:
        os.rename(f"{STOCK}.stock", STOCK)
        os.unlink(SCRIPT)


def restart_daemon():
    run("systemctl", "reset-failed", "libvirtd", check=False)
    run("systemctl", "restart", "libvirtd")
    assert wait_for(lambda: "Domain-0" in virsh("list", "--all", check=False)), "libvirtd does not answer"
