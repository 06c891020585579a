# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The target ``recipe:NAME`` of a disk: the recipe is read, and its devices are created and verified.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

This is imported only for such targets: it needs the whole table language, and importing that takes longer
than everything else that the script does. For the same reason it is not in the file hotplug.codes
(roles/xen_host/files/unpack.py).
"""

from __future__ import annotations

from .._base.deadline import Deadline, pauses
from .._base.errors import DeviceBusy
from .._dm import mapped
from .._source import for_guest, recipe_file, spec
from .._source.recipe_file import KeptRecipe
from .._source.resources import Resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._block.device import Device
    from .._source.spec import Source

# Seconds for which the device of the same recipe's earlier form may still be in use while its guest ends.
_GOING = 10.0


def read(name: str, writable: bool) -> KeptRecipe:
    """
    Read the recipe. If ``writable`` is false, a file is bound read-only. Raises what
    ``_source.recipe_file.read`` raises.
    """
    kept = recipe_file.read(name, option="target recipe:")
    source = kept.source
    if isinstance(source, spec.FileSource) and not writable:
        source = source._replace(read_only=True)
    return kept._replace(source=recipe_file.named(source, name))


def open_device(kept: KeptRecipe, seconds: float) -> Device:
    """
    The recipe's device, verified and held. What is created for it is removed with its last user: the devices
    below are held by the table of the one above.
    """
    limit = Deadline(seconds)
    with Resources() as resources:
        if isinstance(kept.source, spec.TableSource):
            for_guest.reap(resources)
        return _open(resources, kept, limit).duplicate()


def _open(resources: Resources, kept: KeptRecipe, limit: Deadline) -> Device:
    patience, was_going = limit.sooner(_GOING), True
    for pause in pauses():
        try:
            return for_guest.open_source(resources, kept.source, limit, shared=kept.shared)
        except DeviceBusy:
            # Once more, even if that device has gone since.
            if patience.expired or not was_going:
                raise
            was_going = _is_going(resources, kept.source)
        limit.sleep(pause)
    raise AssertionError


def _is_going(resources: Resources, source: Source) -> bool:
    """Whether a device with the name of the source exists, which is removed with its last user."""
    if not isinstance(source, spec.TableSource):
        return False
    found = mapped.find(resources.dm, source.name or "", source.uuid or "")
    if found is None:
        return False
    if found.device is not None:
        found.device.close()
    return found.status.deferred_remove
