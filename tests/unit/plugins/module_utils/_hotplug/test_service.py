# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Parts of the service that need no separate process. The whole service is tested in
tests/unit/roles/test_xen_host.py and tests/host/test_hotplug.py.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.deadline import Deadline
from ansible_collections.racefree.block.plugins.module_utils._base.errors import GuestError
from ansible_collections.racefree.block.plugins.module_utils._hotplug import service
from ansible_collections.racefree.block.plugins.module_utils._hotplug import state as _state
from ansible_collections.racefree.block.plugins.module_utils._xen.vbd_key import Key

KEY = Key(5, 51712)


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setattr(_state, "DIRECTORY", str(tmp_path / "state"))


def test_an_abandoned_call_records_nothing():
    """Its thread may hang in storage until long after the next call for the same disk."""
    late, next_one = (service._Call(number, KEY, "diskseq", 1, -1, None, None) for number in (1, 2))
    late.record(KEY, {"target": "/a"})
    late.give_up()
    assert late.is_alone
    next_one.record(KEY, {"target": "/b"})
    with pytest.raises(GuestError, match="given up"):
        late.record(KEY, {"target": "/a"})
    assert _state.read(KEY) == {"target": "/b"}


def test_transactions_run_one_after_the_other():
    turns, at_work, most = service._Turns(), [], []

    def work(number):
        turn = turns.take(Deadline(30))
        at_work.append(number)
        most.append(len(at_work))
        time.sleep(0.02)
        at_work.remove(number)
        turn.release()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 10


def test_a_hanging_call_does_not_block_others(monkeypatch):
    monkeypatch.setattr(service, "_TURN_SECONDS", 0.3)
    turns = service._Turns()
    hangs = turns.take(Deadline(30))
    assert turns.take(Deadline(30)) is None
    began = time.monotonic()
    # Later callers take turns again.
    second = turns.take(Deadline(30))
    assert time.monotonic() - began < 0.2
    assert turns.take(Deadline(0.05)) is None
    hangs.release()
    second.release()
    turns.take(Deadline(30)).release()


def test_a_call_keeps_its_turn_until_its_transaction_ends():
    turns = service._Turns()
    call = service._Call(1, KEY, "diskseq", 1, -1, None, turns)

    class Store:
        @staticmethod
        def transaction(function, limit):
            assert turns.take(Deadline(0)) is None
            raise GuestError("it is not there", device="x")

    call.take_turn(Deadline(30))
    with pytest.raises(GuestError):
        call.transaction(Store, None, Deadline(30))
    turns.take(Deadline(0)).release()
    call.end_turn()


def test_an_answer_reaches_no_other_process_with_a_reused_pid(tmp_path):
    """The script has ended and its PID has been reused by the time it is answered."""
    with subprocess.Popen(["sleep", "60"]) as script, open(tmp_path / "stderr", "wb") as written:
        ended = os.pidfd_open(script.pid)
        script.kill()
        script.wait()
        with subprocess.Popen(["sleep", "60"], stderr=written) as other:
            running = os.pidfd_open(other.pid)
            try:
                service._print_there(other.pid, ended, "for the script\n", [])
                assert (tmp_path / "stderr").read_bytes() == b""
                service._print_there(other.pid, running, "for the other\n", [])
                assert (tmp_path / "stderr").read_bytes() == b"for the other\n"
            finally:
                other.kill()
                os.close(running)
                os.close(ended)
