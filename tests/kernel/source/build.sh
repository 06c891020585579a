#!/bin/sh
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Runs in a chroot of a release's system: builds the release's Linux as a program, /linux, and leaves its version in /linux.version.
# Usage: build.sh VERSION   (the first two numbers)
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
source=linux-source-$1
here=$(dirname "$(readlink -f "$0")")

apt-get update -q
apt-get install -q -y --no-install-recommends gcc make flex bison bc libc6-dev libelf-dev linux-libc-dev patch xz-utils python3
work=$(mktemp -d)
cd "$work"
apt-get download -q "$source"
package=$(echo "$source"_*.deb)
# Of 1.4 GB a half is for other processors, or documentation; all of Kconfig is read nevertheless.
dpkg-deb --fsys-tarfile "$package" | tar -xO "./usr/src/$source.tar.xz" | tar -xJ --strip-components=1 \
    --exclude="$source/Documentation/*.[rty]*" --exclude="$source/arch/[a-tvwyz]*.[chS]" --exclude='*.dts*' \
    --exclude='*/tools/testing/*' --exclude='*/drivers/gpu/drm/*/*.[ch]'

# The register set of newer processors does not fit into what these versions set aside for it.
patch -p1 -F0 < "$here/registers.patch"
make ARCH=um defconfig
known=$(find . -name 'Kconfig*' -exec sed -n 's/^\(menu\)\{0,1\}config \([A-Z0-9_]*\).*/\2/p' {} +)
wanted=
# Words, whatever the lines.
# shellcheck disable=SC2013
for option in $(sed '/^#/d' "$here/options"); do
    if echo "$known" | grep -qx "$option"; then
        scripts/config --enable "$option"
        wanted="$wanted $option"
    fi
done
# Register sets stand on the kernel's stack: 16 pages. It is not in vmalloc's memory (VMAP_STACK), where 6.1 can unmap it for a moment
# (flush_tlb_kernel_range in arch/um/kernel/tlb.c): a signal then faults in its own handler without end.
scripts/config --disable VMAP_STACK --disable MODULES --enable DEBUG_INFO_NONE --disable DEBUG_INFO --disable WERROR --set-val KERNEL_STACK_ORDER 4
make ARCH=um olddefconfig
for option in $wanted; do
    grep -qx "CONFIG_$option=y" .config || echo "not taken: $option"
done
grep -qx CONFIG_KERNEL_STACK_ORDER=4 .config
if grep -qx CONFIG_VMAP_STACK=y .config; then
    echo "the kernel would have VMAP_STACK" >&2
    exit 1
fi
for option in BLK_DEV_LOOP BLK_DEV_DM DM_THIN_PROVISIONING OVERLAY_FS HOSTFS FUSE_FS MAGIC_SYSRQ; do
    grep -qx "CONFIG_$option=y" .config || { echo "the kernel would not have $option" >&2; exit 1; }
done
make ARCH=um -j"$(nproc)" linux
strip --strip-debug -o /linux linux
make -s ARCH=um kernelversion > /linux.version
dpkg-deb -f "$package" Version >> /linux.version
