#!/usr/bin/env bash
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Mapped devices by dmsetup in a shell loop, as scripts do it.
# Usage: dmsetup.sh create|unchanged|info|absent MAJOR:MINOR NAME...
# Device number N of the names is one of 8 sectors, from sector 8 * N of the device on.

set -eu

step=$1 device=$2
shift 2
sector=0
case $step in
    create)
        for name; do
            dmsetup create "$name" --table "0 8 linear $device $sector"
            sector=$((sector + 8))
        done
        ;;
    unchanged)
        for name; do
            [ "$(dmsetup table "$name")" = "0 8 linear $device $sector" ]
            sector=$((sector + 8))
        done
        ;;
    info)
        dmsetup info --columns >/dev/null
        dmsetup table >/dev/null
        ;;
    absent) for name; do dmsetup remove "$name"; done ;;
esac
