#!/bin/sh
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Runs in the new system's chroot, after the packages and after the files of image/root are there.
set -eu
export LC_ALL=C

# The initial RAM disk of domain 0 needs one disk driver and one file system.
cat > /etc/initramfs-tools/conf.d/xenhost <<'CONF'
MODULES=list
COMPRESS=gzip
RESUME=none
FSTYPE=ext4
CONF
printf '%s\n' virtio_pci virtio_blk ext4 crc32c_generic > /etc/initramfs-tools/modules
kernel=$(ls /lib/modules)
case "$kernel" in
*[!A-Za-z0-9.+-]*) echo "more than one kernel, or none: $kernel" >&2; exit 1 ;;
esac
rm -f /boot/initrd.img-*
update-initramfs -c -k "$kernel"

# xenconsoled keeps each guest's console in /var/log/xen/console: xenguest reads it there.
mkdir -p /var/log/xen/console
sed -i '/^XENCONSOLED_ARGS=/d' /etc/default/xen 2>/dev/null || true
echo 'XENCONSOLED_ARGS="--log=guest --log-dir=/var/log/xen/console"' >> /etc/default/xen
# The daemon stays, instead of ending after two idle minutes and making the next call pay its start.
sed -i '/^LIBVIRTD_ARGS=/d' /etc/default/libvirtd 2>/dev/null || true
echo 'LIBVIRTD_ARGS=""' >> /etc/default/libvirtd

systemctl -q enable xenhost-net.service libvirtd.service ssh.service
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer man-db.timer \
    logrotate.timer systemd-tmpfiles-clean.timer systemd-pstore.service systemd-random-seed.service systemd-update-utmp.service \
    xendomains.service libvirt-guests.service xen-watchdog.service networking.service getty@tty1.service serial-getty@hvc0.service \
    getty.target apparmor.service firewalld.service polkit.service keyboard-setup.service console-setup.service cron.service \
    systemd-binfmt.service proc-sys-fs-binfmt_misc.automount sys-kernel-debug.mount sys-kernel-tracing.mount dev-hugepages.mount \
    dev-mqueue.mount modprobe@drm.service modprobe@efi_pstore.service systemd-networkd-wait-online.service nftables.service \
    systemd-timesyncd.service systemd-firstboot.service ldconfig.service systemd-hwdb-update.service; do
    ln -sf /dev/null "/etc/systemd/system/$unit"
done
# polkit is masked: root needs no polkit to talk to libvirt.
if [ -f /etc/libvirt/libvirtd.conf ]; then
    printf '%s\n' 'auth_unix_rw = "none"' 'auth_unix_ro = "none"' >> /etc/libvirt/libvirtd.conf
fi

echo xenhost > /etc/hostname
printf '127.0.0.1 localhost xenhost\n' > /etc/hosts
: > /etc/resolv.conf
rm -f /etc/machine-id /var/lib/dbus/machine-id
systemd-machine-id-setup
rm -f /etc/ssh/ssh_host_*
ssh-keygen -q -t ed25519 -N '' -C xenhost -f /etc/ssh/ssh_host_ed25519_key
python3 -m compileall -q -f /usr/local/lib/xenguest

# What the modules and the tests import, compiled and proved importable here rather than under emulation.
python3 -c 'import cffi, libvirt, pyfuse3, pyxs, pytest, hypothesis'
