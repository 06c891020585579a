# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Sourced by the scripts beside it: where the checkout, the cache and the interpreter are.
# shellcheck shell=bash

set -euo pipefail

setup_dir=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd -- "$setup_dir/../.." && pwd -P)

# Debian's own interpreter: shims of version managers cannot be copied into virtual environments.
# shellcheck disable=SC2034  # used by the scripts that source this
python=/usr/bin/python3

cache=${XDG_CACHE_HOME:-$HOME/.cache}/racefree-block
mkdir -p -- "$cache"

# Staged copies are kept outside every git checkout: ansible-test would ask an enclosing repository for its files.
stage_root() {
    local id
    id=$(printf '%s' "$root" | sha256sum | cut -c1-12)
    printf '%s/stage-%s-%s\n' "$cache" "$1" "$id"
}

# shellcheck disable=SC2034  # read by the scripts that source this
readonly setup_dir root cache
