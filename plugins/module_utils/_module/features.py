# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Features of this kernel, of Xen and of libvirt, found by probing.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Versions are only reported. Nothing is concluded from a version if there is a probe.
"""

from __future__ import annotations

import os
from typing import Any

from .._base import gone
from .._base.deadline import Deadline
from .._base.errors import BlockError, NotSupported
from .._block import bind, sysfs
from .._block.seal import seals
from .._dm import udev
from .._kernel import uapi
from .._source.resources import Resources

_LIBVIRT_SECONDS = 10
_XENSTORE_SECONDS = 10
_XENSTORED_SOCKETS = ("/run/xenstored/socket", "/var/run/xenstored/socket")


def collect(resources: Resources) -> dict[str, Any]:
    """All features as plain data. What is missing is None or False, never an error."""
    return {
        "kernel": _kernel(),
        "device_mapper": _device_mapper(resources),
        "udev": udev.is_running(),
        "xen": _xen(resources),
        "libvirt": _libvirt(),
    }


def _kernel() -> dict[str, Any]:
    return {
        "release": os.uname().release,
        "diskseq": _has_diskseq(),
        "loop": gone.exists(bind.CONTROL),
        "cffi": uapi.ffi is not None,
        "seals": _has_seals(),
    }


def _has_seals() -> bool:
    """Whether devices can be sealed. The reason is not reported: an attempt to seal a device tells it."""
    try:
        seals.probe()
    except BlockError:
        return False
    return True


def _has_diskseq() -> bool:
    """
    Whether any disk has a disk sequence number in sysfs. Linux 5.15 introduced this attribute and the ioctl
    together.
    """
    return any(sysfs.read(f"/sys/block/{name}/diskseq") for name in os.listdir("/sys/block"))


def _device_mapper(resources: Resources) -> dict[str, Any] | None:
    try:
        control = resources.dm
        return {
            "version": ".".join(str(part) for part in control.version()),
            "targets": {
                name: ".".join(str(part) for part in version)
                for name, version in sorted(control.target_versions().items())
            },
            "strict_version_5": control.speaks_version_5(),
        }
    except NotSupported:
        return None


def _xen(resources: Resources) -> dict[str, Any] | None:
    if sysfs.read("/sys/hypervisor/type") != "xen":
        return None
    version = [sysfs.read(f"/sys/hypervisor/version/{part}") for part in ("major", "minor")]
    extra = sysfs.read("/sys/hypervisor/version/extra") or ""
    return {
        "version": ".".join(part or "?" for part in version) + extra,
        "domain_0": "control_d" in (sysfs.read("/proc/xen/capabilities") or ""),
        "blkback": gone.exists("/sys/bus/xen-backend/drivers/vbd"),
        "blkback_diskseq": _blkback_diskseq(resources),
        "xenstored_socket": next((path for path in _XENSTORED_SOCKETS if gone.exists(path)), None),
    }


def _blkback_diskseq(resources: Resources) -> bool | None:
    """Whether blkback itself refuses a device with another disk sequence number. None if this is unknown."""
    from .._xen import vbd_read
    from .._xenstore.pyxs_store import Store

    try:
        with resources.shared(Store).within(_XENSTORE_SECONDS):
            return vbd_read.offers_opened(resources.shared(Store))
    except BlockError:
        # This cannot be determined, so the answer is None.
        return None


def _libvirt() -> dict[str, Any] | None:
    """Versions of the Python binding and, if it answers in time, of the daemon with the Xen driver."""
    from .._libvirt import connection  # the library takes long to import, and few tasks ask for it

    if connection.libvirt is None:
        return None
    return {"binding": _dotted(connection.libvirt.getVersion()), "daemon": _libvirt_daemon(connection)}


def _libvirt_daemon(connection: Any) -> str | None:
    if not gone.exists("/run/libvirt/libvirt-sock-ro"):
        return None
    try:
        return _dotted(connection.daemon_version(Deadline(_LIBVIRT_SECONDS)))
    except BlockError:
        # The daemon did not answer in time.
        return None


def _dotted(number: int) -> str:
    return f"{number // 1000000}.{number // 1000 % 1000}.{number % 1000}"
