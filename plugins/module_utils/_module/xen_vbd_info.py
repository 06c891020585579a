# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
What ``xen_vbd_info`` returns: the disks of running guests that blkback of this host serves.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

from typing import Any

from .._source.resources import Resources
from .._xen import guest as _guest
from .._xen import vbd_facts, vdev
from .._xen.vbd_facts import Facts
from .._xenstore.pyxs_store import Store
from .item import Params

ARGUMENTS = {"domain": {"type": "str"}, "vdev": {"type": "str"}}


def collect(params: Params, resources: Resources) -> dict[str, Any]:
    """The module's return values."""
    number = None if params["vdev"] is None else vdev.parse(params["vdev"]).number
    chosen = None if params["domain"] is None else _guest.find(resources.shared(Store), params["domain"])
    found = vbd_facts.read(resources.shared(Store), chosen)
    guests = {
        guest.domid: guest for guest in ([chosen] if chosen else _guest.running(resources.shared(Store)))
    }
    return {
        "vbds": [
            _row(facts, guests.get(facts.key.domid)) for facts in found if number in (None, facts.key.devid)
        ]
    }


# The values of a vbd whose nodes are invalid.
_UNKNOWN = dict.fromkeys(
    (
        "vdev",
        "path",
        "params",
        "mode",
        "device_type",
        "state",
        "frontend_state",
        "connected",
        "major",
        "minor",
        "diskseq",
    )
)


def _row(facts: Facts, guest: _guest.Guest | None) -> dict[str, Any]:
    vbd = facts.vbd
    return {
        "domid": facts.key.domid,
        "devid": facts.key.devid,
        **(_UNKNOWN if vbd is None else vbd.as_dict()),
        "script": None if vbd is None else vbd.script,
        "domain": None if guest is None else guest.name,
        "uuid": None if guest is None else guest.uuid,
        "device": None if facts.served is None else facts.served.as_dict(),
        "intended": facts.is_intended,
        "size": facts.announced,
        "statistics": facts.statistics,
        "problem": facts.problem,
    }
