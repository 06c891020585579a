# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Follows README.md to the letter, as a new user would: installs the built archive into an empty environment,
and runs the playbooks of the quick starts, as they are printed there, on an emulated Xen host. Prints each
command and how long it took.

What README.md expects to exist (the guest's configuration, its definition, the images) is made first. Each
playbook runs twice, the guest must start with the right bytes, and after the playbook is undone, nothing may
be left. The quick start for KVM is not run here, but by tests/kernel/test_role_kvm_host.py.

Needs the network, for ansible-core.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
XENHOST = str(ROOT / "tests/xenhost/xenhost")
GUEST, WORD = "web1", "the right disk"
XL = f"""name = "{GUEST}"
type = "pv"
kernel = "/usr/lib/xenguest/vmlinux"
ramdisk = "/usr/lib/xenguest/initrd"
cmdline = "console=hvc0 quiet loglevel=1 mitigations=off random.trust_cpu=on panic=5"
memory = 128
"""
DOMAIN = f"""<domain type='xen'>
  <name>{GUEST}</name>
  <memory unit='MiB'>128</memory>
  <os>
    <type arch='x86_64' machine='xenpv'>linux</type>
    <kernel>/usr/lib/xenguest/vmlinux</kernel>
    <initrd>/usr/lib/xenguest/initrd</initrd>
    <cmdline>console=hvc0 quiet loglevel=1 mitigations=off random.trust_cpu=on panic=5</cmdline>
  </os>
  <devices><console type='pty'/></devices>
</domain>
"""


def blocks() -> dict[str, list[str]]:
    """{heading: its YAML blocks} of README.md."""
    found: dict[str, list[str]] = {}
    heading = ""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for title, block in re.findall(r"^#+ ([^\n]*)$|^```yaml\n(.*?)^```$", text, re.M | re.S):
        if title:
            heading = title
        else:
            found.setdefault(heading, []).append(block)
    return found


class User:
    """What a new user has: an empty directory, with an environment that has nothing but ansible-core."""

    def __init__(self, place: str, instance: str) -> None:
        self.place, self.instance = place, instance
        self.environment = {
            "PATH": f"{place}/venv/bin:/usr/local/bin:/usr/bin:/bin",
            "HOME": place,
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_NOCOLOR": "1",
        }

    def run(self, *words: str, shown: str = "") -> str:
        """Run a command, and print it with its time; returns what it printed."""
        began = time.monotonic()
        done = subprocess.run(
            words, cwd=self.place, env=self.environment, capture_output=True, text=True, check=False
        )
        print(f"{time.monotonic() - began:6.1f} s  {shown or ' '.join(words)}", flush=True)
        if done.returncode:
            sys.exit(f"exit code {done.returncode}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
        for line in (done.stdout + done.stderr).splitlines():
            if "WARNING" in line:
                print(f"          {line}", flush=True)
        return done.stdout

    def on_host(self, script: str) -> str:
        """Run a shell script on the host, which is not part of what README.md says."""
        command = [XENHOST, "ssh", "--name", self.instance, "--", "sh", "-e"]
        done = subprocess.run(command, input=script, capture_output=True, text=True, check=False, timeout=300)
        if done.returncode:
            sys.exit(f"on the host: {script}\nexit code {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def play(self, title: str, text: str, changes: bool, *words: str) -> None:
        """Run the playbook; it must change something, or nothing."""
        Path(self.place, "disk.yml").write_text(text, encoding="utf-8")
        output = self.run(
            "ansible-playbook",
            "-i",
            "inventory",
            "disk.yml",
            *words,
            shown=f"ansible-playbook -i INVENTORY disk.yml    ({title})",
        )
        changed = re.search(r"changed=([0-9]+)", output)
        if changed is None or (changed.group(1) != "0") != changes:
            sys.exit(f"{title}: should have changed {'something' if changes else 'nothing'}:\n{output}")


def changed_play(text: str, **more: Any) -> str:
    """The playbook, with these options in its last task, or (with ``variables``) for its role."""
    (play,) = yaml.safe_load(text)
    variables = more.pop("variables", None)
    if variables:
        role = play["roles"][0]
        name = role if isinstance(role, str) else role["role"]
        play = {"hosts": play["hosts"], "become": True, "roles": [{"role": name, **variables}]}
    else:
        task = play["tasks"][-1]
        module = next(key for key in task if key.startswith("racefree.block."))
        task[module].update(more)
    return str(yaml.safe_dump([play], sort_keys=False))


def as_play(tasks: str) -> str:
    return str(yaml.safe_dump([{"hosts": "xen_hosts", "become": True, "tasks": yaml.safe_load(tasks)}]))


def install(user: User) -> None:
    """The section Installation, from the built archive."""
    user.run("python3", "-m", "venv", "venv")
    user.run("pip", "install", "--quiet", "ansible-core")
    (archive,) = Path(user.place).glob("racefree-block-*.tar.gz")
    user.run("ansible-galaxy", "collection", "install", archive.name)
    listed = user.run("ansible-doc", "--list", "racefree.block")
    for name in listed.split()[::40][:2]:
        if name.startswith("racefree.block."):
            user.run("ansible-doc", name)
    user.run("ansible-doc", "racefree.block.xl_disk")


NOTHING = """
for attempt in $(seq 100); do
    [ -n "$(losetup -a; dmsetup ls | grep -v '^No devices')" ] || exit 0
    sleep 0.2
done
losetup -a; dmsetup ls; exit 1
"""
# The guest takes commands when it has booted.
READ = f"""
for attempt in $(seq 30); do
    found=$(xenguest run {GUEST} --timeout 60 -- 'head -c {len(WORD)} /dev/DISK' 2>/dev/null) && break
    sleep 1
done
[ "$found" = "{WORD}" ] || {{ echo "the guest reads: $found"; exit 1; }}
"""


def image(path: str, size: str) -> str:
    return (
        f"mkdir -p ${{1:-{os.path.dirname(path)}}}; truncate --size={size} {path}; printf %s '{WORD}' | "
        + (f"dd of={path} conv=notrunc status=none\n")
    )


def guest_of_xl(user: User, text: str) -> None:
    user.on_host(image("/srv/guests/web1.raw", "20G") + f"cat >/etc/xen/{GUEST}.cfg <<'END'\n{XL}END\n")
    user.play("a guest of xl", text, True)
    user.play("again", text, False)
    user.on_host(
        f"xl create /etc/xen/{GUEST}.cfg" + READ.replace("DISK", "xvda") + f"xl destroy {GUEST}" + NOTHING
    )
    user.play("state: absent", changed_play(text, state="absent"), True)
    user.on_host(f"cat >/tmp/before <<'END'\n{XL}END\ndiff /etc/xen/{GUEST}.cfg /tmp/before")


def running_guest(user: User, text: str) -> None:
    user.on_host(image("/srv/guests/web1-data.raw", "1G") + f"xl create /etc/xen/{GUEST}.cfg")
    user.play("a disk for a running guest", as_play(text), True)
    user.play("again", as_play(text), False)
    user.on_host(READ.replace("DISK", "xvdb") + f"xl destroy {GUEST}" + NOTHING)


def any_tool(user: User, text: str) -> None:
    user.on_host("truncate --size=32M /srv/guests/web1.luks")
    user.play("any other tool", as_play(text), True, "--extra-vars", "vault_web1_passphrase=secret")
    user.on_host("cryptsetup isLuks /srv/guests/web1.luks" + NOTHING)


def loop_and_dm(user: User, text: str, removal: str) -> None:
    user.on_host(image("/srv/images/data.raw", "1G"))
    user.play("loop and device-mapper devices", text, True)
    user.play("again", text, False)
    user.on_host(f"[ \"$(head -c {len(WORD)} /dev/mapper/data)\" = '{WORD}' ]")
    (play,) = yaml.safe_load(text)
    play["tasks"] += yaml.safe_load(removal)
    user.play("and their removal", yaml.safe_dump([play], sort_keys=False), True)
    user.on_host(NOTHING)


def guest_of_libvirt(user: User, text: str) -> None:
    user.on_host(f"cat >/tmp/web1.xml <<'END'\n{DOMAIN}END\nvirsh -q -c xen:/// define /tmp/web1.xml")
    user.play("a libvirt Xen guest", text, True)
    user.play("again", text, False)
    user.on_host(
        f"virsh -q -c xen:/// start {GUEST}"
        + READ.replace("DISK", "xvda")
        + f"virsh -q -c xen:/// destroy {GUEST}"
        + NOTHING
    )
    user.play("state: absent", changed_play(text, state="absent"), True)
    user.on_host(f"virsh -q -c xen:/// undefine {GUEST}")
    user.play("xen_host_state: absent", changed_play(text, variables={"xen_host_state": "absent"}), True)
    user.on_host("! ls /etc/xen/scripts/block-racefree /etc/libvirt/hooks/libxl.d/50-racefree" + NOTHING)


@contextlib.contextmanager
def host(release: str, instance: str) -> Iterator[None]:
    began = time.monotonic()
    subprocess.run([XENHOST, "up", "--name", instance, "--release", release], check=True)
    print(f"The host is up after {time.monotonic() - began:.0f} s", flush=True)
    try:
        yield
    finally:
        subprocess.run([XENHOST, "down", "--name", instance, "--now"], check=False)


def _end(_number: int, _frame: object) -> None:
    """End this program, and the host with it. timeout(1) sends the signal twice."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(143)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("release", choices=["bookworm", "trixie"])
    release = parser.parse_args().release
    signal.signal(signal.SIGTERM, _end)
    found = blocks()
    with tempfile.TemporaryDirectory() as place, host(release, f"quickstart-{release}"):
        user = User(place, f"quickstart-{release}")
        subprocess.run(
            [str(ROOT / "tests/setup/run"), "ansible-galaxy", "collection", "build", "--output-path", place],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        install(user)
        os.mkdir(f"{place}/inventory")
        subprocess.run(
            [XENHOST, "inventory", "--name", user.instance, "--output", f"{place}/inventory/hosts.yml"],
            check=True,
        )
        Path(place, "inventory/groups.yml").write_text(
            yaml.safe_dump({"linux_hosts": {"children": {"xen_hosts": {}}}}), encoding="utf-8"
        )
        guest_of_xl(user, *found["A guest of `xl`"])
        running_guest(user, *found["A disk for a running guest"])
        any_tool(user, *found["Any other tool"])
        loop_and_dm(user, *found["Loop and device-mapper devices in a play"])
        guest_of_libvirt(user, *found["A libvirt Xen guest"])


if __name__ == "__main__":
    main()
