# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The socket by which removals ask the service to close a disk.
"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
from ansible_collections.racefree.block.plugins.module_utils._base.errors import KernelError
from ansible_collections.racefree.block.plugins.module_utils._block import let_go
from ansible_collections.racefree.block.plugins.module_utils._by_diskseq.requests import Requests


def ask(path: str, text: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(60)
        client.connect(path)
        client.send(text)
        return client.recv(64)


@pytest.fixture
def asked(tmp_path: Path) -> list[int]:
    """The disk sequence numbers that were requested through the socket ``socket`` in tmp_path."""
    numbers: list[int] = []

    def let_go(diskseq: int) -> int:
        numbers.append(diskseq)
        return len(numbers) - 1

    Requests(str(tmp_path / "socket"), let_go).start()
    return numbers


def test_a_request_and_its_answer(asked: list[int], tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    assert (ask(path, b"42"), ask(path, b"18446744073709551615")) == (b"0", b"1")
    assert asked == [42, 2**64 - 1]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_the_client_that_removal_uses(
    asked: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(let_go, "SOCKET", str(tmp_path / "socket"))
    assert let_go.ask(7) and asked == [7]
    # The second answer says that something is still in use.
    assert not let_go.ask(8) and asked == [7, 8]
    monkeypatch.setattr(let_go, "SOCKET", str(tmp_path / "no socket"))
    assert not let_go.ask(9) and asked == [7, 8]


def test_a_hanging_service_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(let_go, "SOCKET", str(tmp_path / "socket"))
    monkeypatch.setattr(let_go, "_PATIENCE", 0.05)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
        silent.bind(let_go.SOCKET)
        silent.listen(1)
        assert not let_go.ask(1)


def test_invalid_numbers_are_refused(asked: list[int], tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    for text in (b"0", b"042", b"-1", b"18446744073709551616", b"42p1", b"42-part1", b"\xff", b"x" * 500):
        assert ask(path, text) == b"EINVAL"
    assert asked == []


def test_disconnecting_clients_do_not_disturb_others(asked: list[int], tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    for dummy in range(5):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(path)
    assert ask(path, b"42") == b"0"


def test_a_leftover_socket_is_replaced(asked: list[int], tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    Requests(path, lambda diskseq: 7).start()
    assert ask(path, b"1") == b"7"
    with pytest.raises(KernelError, match="listen"):
        Requests(str(tmp_path / "no" / "socket"), lambda diskseq: 0)
