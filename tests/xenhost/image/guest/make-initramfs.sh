#!/bin/sh
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Runs in the new system's chroot: the small initial RAM disk that is all of a guest, as /usr/lib/xenguest/initrd.
# Usage: make-initramfs.sh DIRECTORY-OF-THIS-FILE
set -eu
from=$1
kernel=$(ls /lib/modules)
tree=$(mktemp -d)
trap 'rm -rf --one-file-system "$tree"' EXIT
mkdir -p "$tree/bin" "$tree/sbin" "$tree/modules" "$tree/proc" "$tree/sys" "$tree/dev" "$tree/run" "$tree/tmp" "$tree/mnt" "$tree/etc"
cp "$(command -v busybox)" "$tree/bin/busybox"
chroot "$tree" /bin/busybox --install -s /bin
install -m 755 "$from/init" "$tree/init"
for name in poweroff halt reboot; do
    install -m 755 "$from/$name" "$tree/sbin/$name"
done

# The guest can read and write XenStore, as any guest can: tests try what it must not be able to do.
for tool in xenstore-read xenstore-write xenstore-rm xenstore-list xenstore-watch xenstore-ls; do
    cp "$(command -v $tool)" "$tree/bin/$tool"
done
ldd "$tree"/bin/xenstore-* | awk '/=> \// {print $3} /^[ \t]*\/lib/ {print $1}' | sort -u | while read -r library; do
    mkdir -p "$tree$(dirname "$library")"
    cp -L "$library" "$tree$library"
done

# In the order in which they are to be loaded, uncompressed.
number=100
for module in xen-blkfront crc32c_generic ext4; do
    modprobe --set-version "$kernel" --show-depends "$module" | while read -r word path _; do
        [ "$word" = insmod ] && echo "$path"
    done
done | awk '!seen[$0]++' > "$tree/modules.paths"
while read -r path; do
    number=$((number + 1))
    name=$(basename "$path")
    case "$path" in
    *.xz) xz -dc "$path" > "$tree/modules/$number-${name%.xz}" ;;
    *.zst) zstd -dcq "$path" > "$tree/modules/$number-${name%.zst}" ;;
    *) cp "$path" "$tree/modules/$number-$name" ;;
    esac
done < "$tree/modules.paths"
rm "$tree/modules.paths"
mkdir -p /usr/lib/xenguest
(cd "$tree" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) > /usr/lib/xenguest/initrd
