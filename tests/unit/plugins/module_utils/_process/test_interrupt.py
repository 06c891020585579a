# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Time limits for system calls that have none of their own."""

from __future__ import annotations

import os
import signal

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import DeadlineExceeded
from ansible_collections.racefree.block.plugins.module_utils._process.interrupt import interrupting


def test_a_blocking_call_is_interrupted():
    before = signal.getsignal(signal.SIGALRM)
    reading, writing = os.pipe()
    try:
        with (
            pytest.raises(DeadlineExceeded) as caught,
            interrupting(0.05, "a word", device="the pipe", hint="Write one"),
        ):
            os.read(reading, 1)
    finally:
        os.close(reading)
        os.close(writing)
    assert str(caught.value) == "the pipe: timed out after 0.05 s waiting for a word. Write one"
    assert signal.getsignal(signal.SIGALRM) is before and signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_call_that_returns_in_time_is_not_interrupted():
    before = signal.getsignal(signal.SIGALRM)
    with interrupting(60, "nothing"):
        pass
    with pytest.raises(ZeroDivisionError), interrupting(60, "nothing"):
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGALRM) is before and signal.getitimer(signal.ITIMER_REAL) == (0, 0)
