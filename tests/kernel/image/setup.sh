#!/bin/sh
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Runs in the new system's chroot, after the packages are there.
set -eu

# Places for what a run brings along; the system itself is never written to.
mkdir -p /racefree /root/site /usr/lib/modules
echo racefree > /etc/hostname
printf '127.0.0.1 localhost racefree\n' > /etc/hosts
: > /etc/resolv.conf

# Proved importable here.
python3 -c 'import cffi, libvirt, pyxs, pytest, hypothesis'
# The package keeps its modules elsewhere.
for modules in /usr/lib/uml/modules/*; do
    [ ! -d "$modules" ] || ln -s "$modules" /usr/lib/modules/
done

# libvirtd without systemd, and guests as root: there is one user, no cgroup of libvirt's and no daemon for logs.
cat >> /etc/libvirt/qemu.conf <<'CONF'
stdio_handler = "file"
security_driver = "none"
user = "root"
group = "root"
cgroup_controllers = []
CONF
printf '%s\n' 'auth_unix_rw = "none"' 'auth_unix_ro = "none"' >> /etc/libvirt/libvirtd.conf

# For runs with systemd as their init system: what runs the command, and without what takes time and serves no test.
units=/etc/systemd/system
cp /image/racefree-run.service $units/
for unit in systemd-udev-trigger systemd-binfmt e2scrub_reap e2scrub_all.timer apt-daily.timer apt-daily-upgrade.timer \
    dpkg-db-backup.timer fstrim.timer getty@tty1 xen xendomains lvm2-monitor lvm2-lvmpolld.socket blk-availability \
    mdmonitor mdmonitor-oneshot.timer mdcheck_start.timer mdcheck_continue.timer; do
    case $unit in *.*) ;; *) unit=$unit.service ;; esac
    ln -sf /dev/null $units/$unit
done
# What udev would start by itself for a disk of lvm or md.
ln -sf /dev/null /etc/udev/rules.d/69-lvm.rules
ln -sf /dev/null /etc/udev/rules.d/64-md-raid-assembly.rules
systemctl --quiet disable libvirtd.service libvirt-guests.service
