#!/usr/bin/env bash
# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Loop devices by losetup in a shell loop, as scripts do it. To remove them, it uses the names that it was given
# at creation: this is the fastest way, and detaches whatever has the name by then.
# Usage: losetup.sh create|unchanged|info|absent NAMES FILE...      (NAMES: a file for the names of the devices)

set -eu

step=$1 names=$2
shift 2
case $step in
    create)
        for file; do losetup --find --show "$file"; done >"$names"
        ;;
    unchanged)
        for file; do [ -n "$(losetup --associated "$file")" ]; done
        ;;
    info) losetup --list --json >/dev/null ;;
    absent)
        while read -r name; do losetup --detach "$name"; done <"$names"
        rm -f -- "$names"
        ;;
esac
