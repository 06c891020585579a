# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Making and destroying guests, through xl or through libvirt."""

from __future__ import annotations

import os
import subprocess
import time

from guest_channel import STATE, Log, wait_ready
from guest_errors import GuestProblem
from guest_store import Store

KERNEL = "/usr/lib/xenguest/vmlinux"
INITRD = "/usr/lib/xenguest/initrd"
CMDLINE = "console=hvc0 quiet loglevel=1 mitigations=off random.trust_cpu=on panic=5"
POSITIONAL = ("target", "format", "vdev", "access")


def call(argv, seconds):
    """Run a tool; GuestProblem with what it said when it fails or takes too long."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise GuestProblem(f"{' '.join(argv)}: not done after {seconds:g} s") from None
    text = done.stdout.decode(errors="replace").strip()
    if done.returncode:
        raise GuestProblem(f"{' '.join(argv)}: exit code {done.returncode}: {text}")
    return text


def domid(name):
    store = Store()
    try:
        return store.domains().get(name)
    finally:
        store.close()


def parse_disk(spec):
    """xl's disk syntax as far as libvirt can say it: target, format, vdev, access by position or by name."""
    fields = {}
    for position, item in enumerate(spec.split(",")):
        key, sign, value = item.partition("=")
        if not sign:
            if position >= len(POSITIONAL):
                raise GuestProblem(f"--disk {spec}: more than {len(POSITIONAL)} fields without a name", 2)
            key, value = POSITIONAL[position], item
        fields[key.strip()] = value.strip()
    unknown = set(fields) - set(POSITIONAL)
    if unknown or not fields.get("target") or not fields.get("vdev"):
        raise GuestProblem(f"--disk {spec}: with --libvirt a disk is TARGET,raw,VDEV,r|w", 2)
    return fields


def xl_config(name, memory, vcpus, disks, cmdline, extra):
    lines = [
        f'name = "{name}"',
        'type = "pv"',
        f'kernel = "{KERNEL}"',
        f'ramdisk = "{INITRD}"',
        f'cmdline = "{cmdline}"',
        f"memory = {memory}",
        f"vcpus = {vcpus}",
        "vif = []",
        'on_crash = "destroy"',
        "disk = [" + ", ".join("'" + disk + "'" for disk in disks) + "]",
    ]
    return "\n".join(lines + extra) + "\n"


def libvirt_xml(name, memory, vcpus, disks, cmdline):
    def text(value):
        return value.replace("&", "&amp;").replace("<", "&lt;").replace("'", "&apos;")

    rows = []
    for disk in map(parse_disk, disks):
        kind, attribute = ("block", "dev") if disk["target"].startswith("/dev/") else ("file", "file")
        rows.append(
            f"<disk type='{kind}' device='disk'><driver name='phy' type='raw'/><source "
            f"{attribute}='{text(disk['target'])}'/>"
            f"<target dev='{text(disk['vdev'])}' "
            f"bus='xen'/>{'' if disk.get('access', 'w') in ('w', 'rw') else '<readonly/>'}</disk>"
        )
    return (
        f"<domain type='xen'><name>{name}</name><memory unit='MiB'>{memory}</memory><vcpu>{vcpus}</vcpu>"
        "<os><type arch='x86_64' "
        f"machine='xenpv'>linux</type><kernel>{KERNEL}</kernel><initrd>{INITRD}</initrd>"
        f"<cmdline>{cmdline}</cmdline></os>"
        f"<on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>destroy</on_crash>"
        f"<devices>{''.join(rows)}<console type='pty'/></devices></domain>\n"
    )


def write_state(name, suffix, text):
    os.makedirs(STATE, exist_ok=True)
    path = f"{STATE}/{name}.{suffix}"
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def start(name, memory, vcpus, disks, extra, libvirt, frontend, seconds):
    """Returns the domain id once the guest takes commands."""
    if domid(name) is not None:
        raise GuestProblem(f"there already is a guest {name}")
    log = Log(name)
    forget(name)
    cmdline = CMDLINE if frontend else f"{CMDLINE} frontend=no"
    if libvirt:
        argv = [
            "virsh",
            "-q",
            "-c",
            "xen:///system",
            "create",
            write_state(name, "xml", libvirt_xml(name, memory, vcpus, disks, cmdline)),
        ]
    else:
        argv = [
            "xl",
            "create",
            "-q",
            write_state(name, "cfg", xl_config(name, memory, vcpus, disks, cmdline, extra)),
        ]
    call(argv, seconds)
    try:
        wait_ready(name, log, seconds)
    except GuestProblem:
        stop(name, seconds)
        raise
    return domid(name)


def stop(name, seconds):
    """Destroy the guest and wait until its name is gone; nothing to do when there is none."""
    if domid(name) is not None:
        if os.path.exists(f"{STATE}/{name}.xml"):
            call(["virsh", "-q", "-c", "xen:///system", "destroy", name], seconds)
        else:
            call(["xl", "destroy", name], seconds)
        deadline = time.monotonic() + seconds
        while domid(name) is not None:
            if time.monotonic() > deadline:
                raise GuestProblem(f"timed out after {seconds:g} s waiting for guest {name} to end")
            time.sleep(0.1)
    forget(name)


def forget(name):
    for suffix in ("cfg", "xml", "tty", "lock"):
        try:
            os.unlink(f"{STATE}/{name}.{suffix}")
        except FileNotFoundError:
            pass
