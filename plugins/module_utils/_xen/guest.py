# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Running guests as listed in XenStore. Read-only.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

A domain id belongs to a guest only until that guest ends. Code that writes for a guest therefore calls
:func:`prove` in the same transaction: if the id is given to another guest before the commit, the commit
fails.
"""

from __future__ import annotations

from .._base import digits
from .._base.errors import GuestError, InvalidValue
from .._base.record import Record
from .._xenstore.nodes import decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._xenstore.nodes import Nodes

_UUID = (8, 4, 4, 4, 12)  # number of hexadecimal digits of each part
_FIRST_RESERVED = 0x7FF0  # DOMID_FIRST_RESERVED, xen/include/public/xen.h


class Guest(Record):
    """A running guest. ``kind`` is ``pv``, ``pvh`` or ``hvm``, or None if the toolstack did not write it."""

    domid: int
    uuid: str
    name: str | None
    kind: str | None = None

    def __str__(self) -> str:
        return f"guest {self.name or self.uuid} (domain {self.domid})"


def is_named(guest: Guest, name: str) -> bool:
    """Whether the guest has this name. It is bytes in XenStore, and UTF-8 in configurations and options."""
    return guest.name in (name, decode(name.encode("utf-8", "surrogateescape")))


def find(store: Nodes, wanted: int | str, option: str = "domain") -> Guest:
    """
    Find the running guest with this name, id (int or digits) or UUID.

    Raises GuestError if there is none, if it is domain 0, or if several guests match. Raises InvalidValue for
    a value that is neither a name, an id nor a UUID.
    """
    text = str(wanted)
    if isinstance(wanted, bool) or not text or len(text) > 256 or not text.isprintable():
        raise InvalidValue(option, wanted, "must be the name, the id or the uuid of a running guest")
    fitting = [
        guest
        for guest in running(store, with_domain_0=True)
        if text == str(guest.domid) or is_named(guest, text) or text.lower() == guest.uuid
    ]
    if isinstance(wanted, int):
        fitting = [guest for guest in fitting if guest.domid == wanted]
    if not fitting:
        raise GuestError("no guest of this name, id or uuid runs on this host", device=text)
    if len(fitting) > 1:
        ids = ", ".join(str(guest.domid) for guest in fitting)
        raise GuestError(
            f"several guests match, with the ids {ids}",
            device=text,
            hint="Give the guest's uuid",
        )
    if fitting[0].domid == 0:
        raise GuestError("this is domain 0, which cannot be given disks", device=text)
    return fitting[0]


def running(store: Nodes, with_domain_0: bool = False) -> list[Guest]:
    """All running guests, sorted by id."""
    ids = sorted(int(name) for name in store.list("/local/domain") or [] if _is_domid(name))
    if not with_domain_0:
        ids = [domid for domid in ids if domid]
    values = store.read_many(
        [
            path
            for domid in ids
            for path in (_home(domid) + "/vm", _home(domid) + "/name", f"/libxl/{domid}/type")
        ]
    )
    guests = []
    for domid in ids:
        uuid = uuid_of(values[_home(domid) + "/vm"])
        if uuid is None and domid:
            # The domain is being created or destroyed, and cannot be told apart from the next one with this
            # id.
            continue
        guests.append(
            Guest(domid, uuid or "", values[_home(domid) + "/name"], values[f"/libxl/{domid}/type"])
        )
    return guests


def lives(store: Nodes, guest: Guest) -> bool:
    """Whether the domain exists and still belongs to this guest."""
    return uuid_of(store.read(_home(guest.domid) + "/vm")) == guest.uuid


def prove(transaction: Nodes, guest: Guest) -> None:
    """
    Raise GuestError unless the domain id still belongs to this guest. Call it in the transaction that writes.
    """
    prove_vm(transaction.read(_home(guest.domid) + "/vm"), guest)


def prove_vm(vm: str | None, guest: Guest) -> None:
    """Like :func:`prove`, given the value of ``/local/domain/ID/vm`` as read in the transaction."""
    if vm is None:
        raise GuestError("the guest has ended", device=str(guest))
    if uuid_of(vm) != guest.uuid:
        raise GuestError(
            f"the guest has ended, and its id {guest.domid} now belongs to another guest; nothing was done",
            device=str(guest),
        )


def _home(domid: int) -> str:
    return f"/local/domain/{domid}"


def uuid_of(vm: str | None) -> str | None:
    """
    Extract the UUID from ``/vm/<uuid>``; None for other values. Toolstacks append ``-1`` and so on if another
    guest has that UUID.
    """
    if vm is None or not vm.startswith("/vm/"):
        return None
    uuid = vm[4:40].lower()
    parts = uuid.split("-")
    return (
        uuid if tuple(map(len, parts)) == _UUID and set("".join(parts)) <= set("0123456789abcdef") else None
    )


def _is_domid(text: str) -> bool:
    return digits.is_decimal(text, 5) and str(int(text)) == text and int(text) < _FIRST_RESERVED
