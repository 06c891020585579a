#!/bin/sh
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Runs in a chroot of a stock image's files: makes xen-blkback of that image's kernel with the change of a patch, and installs it where
# modprobe prefers it. Only what this leaves in /lib/modules is taken over.
# Usage: build.sh PATCH
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
patch=$1
kernel=$(ls /lib/modules)
version=$(dpkg-query -W -f '${Version}' "linux-image-$kernel")
series=$(echo "$kernel" | cut -d. -f1,2)
source=linux-source-$series

apt-get update -q
if ! apt-get install -q -y --no-install-recommends "linux-headers-$kernel=$version" make patch xz-utils; then
    echo "no headers for the kernel of the stock image ($kernel, $version): when the mirror has a newer one by now, build the stock image anew with --rebuild" >&2
    exit 1
fi
work=$(mktemp -d)
cd "$work"
apt-get download -q "$source=$version"
# Of 1.4 GB only four files are wanted, and tar ends once it has them, long before the programs that feed it are done.
directory=$source/drivers/block/xen-blkback
dpkg-deb --fsys-tarfile "$source"_*.deb | tar -xO "./usr/src/$source.tar.xz" | tar -xJ --strip-components=1 --occurrence=1 \
    "$directory/Makefile" "$directory/blkback.c" "$directory/common.h" "$directory/xenbus.c"
patch -p1 -F0 < "$patch"
make -C "/usr/src/linux-headers-$kernel" M="$work/drivers/block/xen-blkback" modules
strip --strip-debug drivers/block/xen-blkback/xen-blkback.ko
install -D -m 644 drivers/block/xen-blkback/xen-blkback.ko "/lib/modules/$kernel/updates/xen-blkback.ko"
depmod "$kernel"
case $(modprobe --set-version "$kernel" --show-depends xen-blkback) in
*/updates/xen-blkback.ko*) ;;
*) echo "modprobe does not prefer the module that was built" >&2; exit 1 ;;
esac
