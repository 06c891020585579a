# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
This host: what the story has made on it, read without the collection's code, and what somebody else does.
"""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

from places import BYTES, DIRECTORY, GOLDEN, IMAGE, NAME, OTHER, OTHER_UUID, SECTORS

URI = "qemu:///system"
RECORDS = "/run/racefree-block/libvirt"
# A guest without a system: its processor stops at once. The second sector says whose image it is.
BOOT = b"\xfa\xf4\xeb\xfd".ljust(510, b"\0") + b"\x55\xaa"
OWN, FOREIGN = b"OURS", b"OTHER"


def run(*argv, check=True):
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120
    )
    if check and done.returncode:
        raise SystemExit(f"{argv}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


def virsh(*words, check=False):
    return run("virsh", "-q", "-c", URI, *words, check=check)


def make_images():
    os.makedirs(DIRECTORY, exist_ok=True)
    for path, text in ((GOLDEN, OWN), (OTHER, FOREIGN)):
        with open(path, "wb") as file:
            file.write(BOOT + text.ljust(512, b"\0"))
            file.truncate(BYTES)


def loops(path):
    """The numbers of the loop devices over a file, in their order."""
    found = []
    for name in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            text = name.read_text(encoding="utf-8").rstrip("\n")
        except OSError as error:
            # It was detached meanwhile.
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                raise
            continue
        if text == path or text == f"{path} (deleted)":
            found.append(int(name.parts[3][4:]))
    return sorted(found)


def mapped():
    """{name: UUID} of all mapped devices."""
    rows = run("dmsetup", "info", "-c", "--noheadings", "--separator", "\t", "-o", "name,uuid")
    return dict(row.split("\t") for row in rows.splitlines() if "\t" in row)


def is_defined():
    return NAME in virsh("list", "--all", "--name").split()


def whose_bytes():
    """Whose image the guest has: ours, somebody else's, or none because it does not run."""
    try:
        pid = int(Path(f"/run/libvirt/qemu/{NAME}.pid").read_text(encoding="ascii"))
        paths = list(Path(f"/proc/{pid}/fd").iterdir())
    except FileNotFoundError:
        return "no guest"
    found = set()
    for path in paths:
        if stat.S_ISBLK(path.stat().st_mode):
            with open(path, "rb") as device:
                device.seek(512)
                found.add(device.read(512).rstrip(b"\0"))
    return {(OWN,): "ours", (FOREIGN,): "other"}.get(tuple(found), repr(sorted(found)))


def left():
    """What there is of the story: {kind: number}, without what is not there."""
    records = os.listdir(RECORDS) if os.path.isdir(RECORDS) else []
    counts = {
        "loop device": len(loops(IMAGE)),
        "mapped device": len([uuid for uuid in mapped().values() if uuid != OTHER_UUID]),
        "definition": int(is_defined()),
        "running guest": int(whose_bytes() != "no guest"),
        "image": int(os.path.exists(IMAGE)),
        "record of the hook": len([name for name in records if name != "lock"]),
    }
    return {kind: number for kind, number in counts.items() if number}


def left_at_last():
    """The same, after a moment for what goes by itself with its last user."""
    until = time.monotonic() + 5
    while left() and time.monotonic() < until:
        time.sleep(0.1)
    return left()


def clear():
    """Remove everything of the story and of somebody else, whatever a play left."""
    virsh("destroy", NAME)
    virsh("undefine", NAME)
    for _attempt in range(50):
        for name in mapped():
            run("dmsetup", "remove", "--force", name, check=False)
        for number in (*loops(IMAGE), *loops(OTHER)):
            run("losetup", "--detach", f"/dev/loop{number}", check=False)
        if os.path.exists(IMAGE):
            os.unlink(IMAGE)
        if not left() and not loops(OTHER) and not mapped():
            return
        time.sleep(0.1)
    raise SystemExit(f"this stays: {left()}, {mapped()}")


def take_loop():
    """
    Somebody detaches the image's loop device, and the next loop device that is made, for another file, has
    its number. It does so until nobody, such as udev, has the old device open.
    """
    (number,) = loops(IMAGE)
    for _attempt in range(100):
        run("losetup", "--detach", f"/dev/loop{number}", check=False)
        if not loops(IMAGE):
            break
        time.sleep(0.05)
    run("losetup", f"/dev/loop{number}", OTHER)
    run("udevadm", "settle", "--timeout=10", check=False)


def take_mapped():
    """
    Somebody removes the guest's mapped device, if it is there, and makes another one with its name, over
    another file.
    """
    name = NAME
    if name not in mapped():
        # It is made at each start of the guest, at the path in its definition.
        name = os.path.basename(virsh("domblklist", NAME, check=True).split()[-1])
    for _attempt in range(100):
        if name not in mapped():
            break
        run("dmsetup", "remove", name, check=False)
        time.sleep(0.05)
    loop = run("losetup", "--find", "--show", OTHER)
    table = f"0 {SECTORS} linear {loop} 0"
    run("dmsetup", "create", name, "--uuid", OTHER_UUID, "--table", table)
    run("udevadm", "settle", "--timeout=10", check=False)


def others_is_there(act):
    """Whether what somebody else made is still there."""
    return bool(loops(OTHER)) and (act != "mapped" or OTHER_UUID in mapped().values())


def kill_tagged(tag):
    """Kill every process whose environment has this text, but this one."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if tag.encode() in (entry / "environ").read_bytes():
                    os.kill(int(entry.name), 9)
            except (FileNotFoundError, ProcessLookupError):
                # It has ended.
                continue


ACTS = {"loop": take_loop, "mapped": take_mapped}

if __name__ == "__main__":
    ACTS[sys.argv[1]]()
