# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""libvirtd with QEMU on the kernel tier: the daemon, defined guests, and a guest of 512 bytes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import time

import hotplug
import libvirt

URI = "qemu:///system"
HOOK = "/etc/libvirt/hooks/qemu.d/50-racefree"
STATE = "/run/racefree-block/libvirt"
PIDFILE = "/run/libvirtd.pid"
# A guest that needs no kernel, only the first sector of its disk. It prints the second sector (up to the
# first 0 byte) to the serial port, writes it to the third one, and prints that it has. Then it releases each
# disk that it is asked for, as a system with ACPI does (docs/specs/acpi_pci_hotplug of QEMU): about 18 times
# a second, when the timer wakes it, it reads the slots to release, and ejects them.
GUEST = r"""
.code16
.globl _start
_start:
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7c00, %sp
    movb $0x42, %ah
    movw $packet, %si
    int $0x13
    jc failed
    movw $0x8000, %si
    call print
    movb $2, sector
    movb $0x43, %ah
    movb $0, %al
    movw $packet, %si
    int $0x13
    jc failed
    movw $done, %si
    call print
    sti
eject:
    hlt
    movw $0xae10, %dx
    xorl %eax, %eax
    outl %eax, %dx
    movw $0xae04, %dx
    inl %dx, %eax
    testl %eax, %eax
    jz eject
    movw $0xae08, %dx
    outl %eax, %dx
    jmp eject
failed:
    movw $wrong, %si
    call print
stop:
    cli
    hlt
    jmp stop
print:
    pushw %dx
1:  lodsb
    testb %al, %al
    jz 3f
    movb %al, %bl
    movw $0x3fd, %dx
2:  inb %dx, %al
    testb $0x20, %al
    jz 2b
    movw $0x3f8, %dx
    movb %bl, %al
    outb %al, %dx
    jmp 1b
3:  popw %dx
    ret
packet:
    .byte 16, 0
    .word 1, 0x8000, 0
sector:
    .quad 1
done:
    .asciz " written\n"
wrong:
    .asciz " error\n"
.org 510
.word 0xaa55
"""


def run(*argv, check=True):
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        check=False,
    )
    text = done.stdout.decode(errors="replace")
    assert done.returncode == 0 or not check, f"{argv}: {text}"
    return text.strip()


def virsh(*words, check=True):
    return run("virsh", "-q", "-c", URI, *words, check=check)


def answers():
    return (
        subprocess.run(
            ["virsh", "-q", "-c", URI, "list"], capture_output=True, check=False, timeout=120
        ).returncode
        == 0
    )


def start_daemon():
    """Wait until it answers: at its first start it asks QEMU for its capabilities."""
    if not answers():
        run("libvirtd", "-d")
        until = time.monotonic() + 120
        while not answers():
            assert time.monotonic() < until, "libvirtd does not answer"
            time.sleep(0.2)


def daemon_pid():
    with open(PIDFILE, encoding="ascii") as file:
        return int(file.read())


def stop_daemon():
    pid = daemon_pid()
    os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + 60
    while os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < until, "libvirtd does not end"
        time.sleep(0.05)


def restart_daemon():
    stop_daemon()
    start_daemon()


@contextlib.contextmanager
def hook():
    """The hook and its library, installed as the role does. The daemon looks for hooks when it starts."""
    hotplug.install_library()
    os.makedirs(os.path.dirname(HOOK), exist_ok=True)
    with (
        open(f"{hotplug.FILES}/libvirt-hook", encoding="utf-8") as program,
        open(HOOK, "w", encoding="utf-8") as file,
    ):
        file.write("#!/usr/bin/python3 -I\n" + program.read())
    os.chmod(HOOK, 0o755)
    start_daemon()
    restart_daemon()
    try:
        yield
    finally:
        os.unlink(HOOK)
        shutil.rmtree(f"{hotplug.LIBRARY}/racefree_block")
        restart_daemon()


@contextlib.contextmanager
def other_hook(name, text):
    """Another script in the folder; it runs after the collection's if its name sorts after it."""
    path = os.path.join(os.path.dirname(HOOK), name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"#!/bin/sh\n{text}\n")
    os.chmod(path, 0o755)
    try:
        yield
    finally:
        os.unlink(path)


def wait_for(question, seconds=60, pause=0.05):
    """The first true answer, or the last one after so many seconds."""
    until = time.monotonic() + seconds
    while True:
        answer = question()
        if answer or time.monotonic() > until:
            return answer
        time.sleep(pause)


def ours():
    """The names of mapped devices that the collection made for domains."""
    shown = run("dmsetup", "info", "-c", "--noheadings", "-o", "name,uuid").splitlines()
    return sorted(line.partition(":")[0] for line in shown if "RACEFREE-LIBVIRT-" in line)


def nothing_left():
    """Wait until no device, loop device, holder or record of the hook is left; whether that is so."""
    return wait_for(
        lambda: (
            not ours()
            and not run("losetup", "-a")
            and not [name for name in (os.listdir(STATE) if os.path.isdir(STATE) else []) if name != "lock"]
        ),
        30,
    )


def definition(name, devices="", serial=None, acpi=False):
    """A guest of 64 MiB. ``serial``: a file for what it prints; ``acpi``: whether it can release disks."""
    port = f"<serial type='file'><source path='{serial}'/></serial>" if serial else ""
    return (
        f"<domain type='qemu'><name>{name}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>"
        f"<os><type arch='x86_64' machine='pc'>hvm</type></os>"
        f"<features>{'<acpi/>' if acpi else ''}</features><on_reboot>destroy</on_reboot>"
        f"<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>{devices}{port}<memballoon "
        "model='none'/></devices></domain>"
    )


@contextlib.contextmanager
def defined(text):
    """Define a domain and yield its UUID. Afterwards the domain is removed, whatever its state."""
    connection = libvirt.open(URI)
    uuid = connection.defineXML(text).UUIDString()
    connection.close()
    try:
        yield uuid
    finally:
        virsh("destroy", uuid, check=False)
        virsh("undefine", uuid)


def pid_of(name):
    with open(f"/run/libvirt/qemu/{name}.pid", encoding="ascii") as file:
        return int(file.read())


def open_disks(name):
    """Paths in /proc, each of which leads to a block device that the domain's QEMU has open."""
    directory = f"/proc/{pid_of(name)}/fd"
    paths = [os.path.join(directory, number) for number in os.listdir(directory)]
    return [path for path in paths if stat.S_ISBLK(os.stat(path).st_mode)]


def opened(name):
    """{(major, minor)} of block devices that the domain's QEMU has open."""
    numbers = [os.stat(path).st_rdev for path in open_disks(name)]
    return {(os.major(number), os.minor(number)) for number in numbers}


def boot_sector(directory):
    """The 512 bytes of GUEST."""
    source, object_file, program = (str(directory / name) for name in ("guest.s", "guest.o", "guest.bin"))
    with open(source, "w", encoding="ascii") as file:
        file.write(GUEST)
    run("as", "--32", "-o", object_file, source)
    run("ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", "-o", program, object_file)
    with open(program, "rb") as file:
        code = file.read()
    assert len(code) == 512
    return code
