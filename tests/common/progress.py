# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Prints what is being done, and how many seconds it took, on standard error."""

from __future__ import annotations

import contextlib
import sys
import time

from common import program


def say(text):
    print(f"{program.name}: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(text):
    """Prints the step when it starts (on a terminal only), and its duration when it ends."""
    started = time.monotonic()
    terminal = sys.stderr.isatty()
    if terminal:
        print(f"{program.name}: {text} ...", end="", file=sys.stderr, flush=True)
    word = "failed after"
    try:
        yield
        word = "done in"
    finally:
        lead = "\r" if terminal else ""
        print(
            f"{lead}{program.name}: {text}: {word} {time.monotonic() - started:.1f} s",
            file=sys.stderr,
            flush=True,
        )
