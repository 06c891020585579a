# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shared parts of the tools' command lines: numbers with limits, and exit codes."""

from __future__ import annotations

import argparse
import os

from common.errors import Failed, Problem
from common.progress import say


def number(least, most):
    def convert(text):
        if not text.isdigit() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not allowed: {least} to {most}")
        return int(text)

    return convert


def guarded(run, options):
    """
    Returns the exit code of ``run(options)``; errors are one line instead of a traceback.

    1: the operation failed; 2: something is missing or wrong in the call; 130: interrupted; 141: nobody reads
    the output.
    """
    try:
        return run(options) or 0
    except Failed as problem:
        say(problem)
        return 1
    except Problem as problem:
        say(problem)
        return 2
    except BrokenPipeError:
        os._exit(141)
    except OSError as error:
        say(f"{error.strerror or error}{': ' + str(error.filename) if error.filename else ''}")
        return 2
    except KeyboardInterrupt:
        say("interrupted")
        return 130
