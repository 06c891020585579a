# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The XenStore nodes of a virtual block device (vbd) as pure data: those that are written, with their
permissions, and those that are read.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Sources: device_disk_add and libxl__device_generic_add (tools/libs/light/libxl_disk.c, libxl_device.c of Xen),
write_dev (tools/hotplug/Linux/block-common.sh), xen_vbd_create and backend_changed
(drivers/block/xen-blkback/xenbus.c of Linux).
"""

from __future__ import annotations

from .._base import digits
from .._base.errors import InvalidValue, XenStoreError, shown
from .._base.record import Record
from .vbd_key import Key as _Key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    # (path, value or None for a directory, permissions or None to inherit the parent's)
    NewNode = tuple[str, "str | None", "list[str] | None"]
    Check = tuple[Callable[[str], object], str]

INITIALISING, INIT_WAIT, CONNECTED, CLOSING, CLOSED = 1, 2, 4, 5, 6  # enum xenbus_state

STOCK_SCRIPT = "/etc/xen/scripts/block"

Key = _Key

# Forms in which the disk sequence number is passed to blkback. Released versions of blkback ignore unknown
# nodes, so the default form is always safe. The others stem from the review of the kernel patches, for
# backends that are known to expect them.
FORMS = {
    "diskseq": "diskseq",
    "diskseq@number": None,
    "physical-device-uuid": "physical-device-uuid",
    "physical-device-luid": "physical-device-luid",
    "physical-device-uid": "physical-device-uid",
}

_HEXADECIMAL = frozenset("0123456789abcdef")


class Disk(Record):
    """
    A disk to be attached, without its device. ``params`` is the disk's target as shown by xl and libvirt.
    """

    dev: str
    params: str
    writable: bool
    cdrom: bool = False
    discard: bool | None = None
    script: str = STOCK_SCRIPT
    form: str = "diskseq"
    protocol: str | None = None


class Vbd(Record):
    """
    A vbd as read from XenStore. ``number`` is (major, minor), or None before it is written. A state is None
    if it is not written.
    """

    key: Key
    dev: str
    params: str | None
    writable: bool
    cdrom: bool
    state: int | None
    frontend_state: int | None
    online: bool
    number: tuple[int, int] | None
    diskseq: int | None
    opened: bool | None
    script: str | None
    physical_device_path: str | None
    error: str | None

    def as_dict(self) -> dict[str, Any]:
        """Plain data for a module's return values."""
        return {
            "domid": self.key.domid,
            "devid": self.key.devid,
            "vdev": self.dev,
            "path": self.physical_device_path,
            "params": self.params,
            "mode": "w" if self.writable else "r",
            "device_type": "cdrom" if self.cdrom else "disk",
            "state": self.state,
            "frontend_state": self.frontend_state,
            "connected": self.state == CONNECTED and self.frontend_state in (CONNECTED, None),
            "major": None if self.number is None else self.number[0],
            "minor": None if self.number is None else self.number[1],
            "diskseq": self.diskseq,
        }


def device_words(number: tuple[int, int] | None, diskseq: int | None) -> str:
    """A device as messages name it."""
    text = "no device" if number is None else f"{number[0]}:{number[1]}"
    return text if diskseq is None else f"{text} (diskseq {diskseq})"


def number_text(major: int, minor: int) -> str:
    """``major:minor`` in hexadecimal, as blkback parses physical-device (``%x:%x``)."""
    return f"{major:x}:{minor:x}"


def parse_number(text: str | None) -> tuple[int, int] | None:
    """Parse ``(major, minor)`` from a physical-device node in any form; None if it is invalid."""
    found = _split_number(text or "")
    return None if found is None else found[1:]


def parse_diskseq(text: str) -> int | None:
    """
    Parse a disk sequence number from a node: 1 to 16 lower-case hexadecimal digits without a leading 0. None
    for anything else.
    """
    return int(text, 16) if _is_hexadecimal(text, 16) and text[0] != "0" else None


def _split_number(text: str) -> tuple[int | None, int, int] | None:
    """Parse ``[diskseq@]major:minor`` into ``(diskseq or None, major, minor)``; None if it is invalid."""
    diskseq, at, number = text.rpartition("@")
    major, dummy, minor = number.partition(":")
    if (
        not _is_hexadecimal(major, 3)
        or not _is_hexadecimal(minor, 5)
        or (at and parse_diskseq(diskseq) is None)
    ):
        return None
    return parse_diskseq(diskseq) if at else None, int(major, 16), int(minor, 16)


def _is_hexadecimal(text: str, longest: int) -> bool:
    return 1 <= len(text) <= longest and _HEXADECIMAL.issuperset(text)


def identity(form: str, major: int, minor: int, diskseq: int, path: str) -> list[tuple[str, str]]:
    """
    The nodes that identify the device to blkback: ``[(name, value)]`` in the order in which they must be
    written.

    physical-device comes last: blkback acts when it appears, and the others must exist by then. Raises
    InvalidValue for an unknown ``form``.
    """
    if form not in FORMS:
        raise InvalidValue("form", form, "must be one of " + ", ".join(FORMS))
    nodes, name = [("physical-device-path", path)], FORMS[form]
    if name is None:
        return nodes + [("physical-device", f"{diskseq:x}@{number_text(major, minor)}")]
    return nodes + [(name, f"{diskseq:x}"), ("physical-device", number_text(major, minor))]


def layout(key: Key, disk: Disk, identity_nodes: Iterable[tuple[str, str]]) -> list[NewNode]:
    """
    All nodes of a new vbd: ``[(path, value or None for a directory, permissions or None to inherit)]``, as
    written by libxl and its hotplug script.

    The guest owns the frontend's nodes, which the backend may read. The backend's domain owns the backend's,
    which the guest may read.
    """
    frontend_perms = [f"n{key.domid}", f"r{key.backend_domid}"]
    backend_perms = [f"n{key.backend_domid}", f"r{key.domid}"]
    back = _backend_values(key, disk)
    nodes: list[NewNode] = [
        (f"{key.libxl}/frontend", key.frontend, None),
        (f"{key.libxl}/backend", key.backend, None),
    ]
    nodes += [(key.frontend, None, frontend_perms), (f"{key.frontend}/backend", key.backend, None)]
    nodes += [
        (f"{key.frontend}/{name}", value, frontend_perms) for name, value in _frontend_values(key, disk)
    ]
    nodes += [(key.backend, None, backend_perms), (f"{key.backend}/frontend", key.frontend, None)]
    nodes += [(f"{key.backend}/{name}", value, None) for name, value in back]
    nodes += [(f"{key.libxl}/{name}", value, None) for name, value in back]
    nodes += [(f"{key.backend}/{name}", value, None) for name, value in identity_nodes]
    return nodes + [(f"{key.backend}/hotplug-status", "connected", None)]


def _backend_values(key: Key, disk: Disk) -> list[tuple[str, str]]:
    discard = disk.writable if disk.discard is None else disk.discard
    return [
        ("params", disk.params),
        ("script", disk.script),
        ("frontend-id", str(key.domid)),
        ("online", "1"),
        ("removable", "1" if disk.cdrom else "0"),
        ("bootable", "1"),
        ("state", str(INITIALISING)),
        ("dev", disk.dev),
        ("type", "phy"),
        ("mode", "w" if disk.writable else "r"),
        ("device-type", "cdrom" if disk.cdrom else "disk"),
        ("discard-enable", "1" if discard else "0"),
        ("specification", "xen"),
    ]


def _frontend_values(key: Key, disk: Disk) -> list[tuple[str, str]]:
    values = [
        ("backend-id", str(key.backend_domid)),
        ("state", str(INITIALISING)),
        ("virtual-device", str(key.devid)),
        ("device-type", "cdrom" if disk.cdrom else "disk"),
        ("trusted", "1"),
    ]
    return values if disk.protocol is None else [*values, ("protocol", disk.protocol)]


def is_mode(text: str) -> bool:
    """Whether the text is a valid mode. An exclamation mark means that the guests coordinate their writes."""
    return text in ("r", "w", "rw", "r!", "w!", "rw!")


def _is_text(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _is_state(text: str) -> bool:
    return len(text) == 1 and text in "012345678"


_FLAG = ("0", "1").__contains__, "0 or 1"
_TEXT = _is_text, "printable text"
_DISKSEQ = parse_diskseq, "1 to 16 hexadecimal digits without a leading 0"

# All nodes of a vbd that are read: name in the backend directory -> (function whose result is true or not
# None for a valid value, description of a valid value).
_READ: dict[str, Check] = {
    "state": (_is_state, "a state from 0 to 8"),
    "online": _FLAG,
    "mode": (is_mode, "r or w"),
    "device-type": (("disk", "cdrom").__contains__, "disk or cdrom"),
    "dev": (lambda text: 1 <= len(text) <= 64 and _is_text(text), "a device name"),
    "frontend-id": (lambda text: digits.is_decimal(text, 10) and str(int(text)) == text, "a domain id"),
    "frontend": (
        lambda text: text[:1] == "/" and 2 <= len(text) <= 201 and " " not in text and _is_text(text),
        "a path",
    ),
    "physical-device": (_split_number, "major:minor in hexadecimal without leading blanks, NULs or signs"),
    "diskseq": _DISKSEQ,
    "physical-device-uuid": _DISKSEQ,
    "physical-device-luid": _DISKSEQ,
    "physical-device-uid": _DISKSEQ,
    "opened": _FLAG,
    "params": _TEXT,
    "script": _TEXT,
    "physical-device-path": (lambda text: text[:1] == "/" and _is_text(text), "an absolute path"),
}


def read_paths(key: Key) -> list[str]:
    """The paths whose values :func:`from_nodes` needs."""
    return [f"{key.backend}/{name}" for name in _READ] + [
        f"{key.backend_error}/error",
        f"{key.frontend}/state",
    ]


def check_nodes(key: Key, nodes: Mapping[str, str | None]) -> None:
    """
    Raise XenStoreError, naming the node, if one of ``{name in the backend directory: value or None}`` is
    invalid.
    """
    for name, value in nodes.items():
        if value is not None and name in _READ:
            is_right, allowed = _READ[name]
            if not is_right(value):
                raise XenStoreError(
                    f"the node holds {shown(value)}, which is not {allowed}", device=f"{key.backend}/{name}"
                )


def from_nodes(key: Key, values: Mapping[str, str | None]) -> Vbd | None:
    """
    Build a Vbd from ``{path: value}``; None if there is no such vbd. An invalid value in any node raises an
    XenStoreError that names the node.

    The frontend's state is written by the guest, so an invalid one is no error; it counts as None.
    """
    nodes = {name: values[f"{key.backend}/{name}"] for name in _READ}
    check_nodes(key, nodes)
    if all(value is None for value in nodes.values()):
        return None
    if nodes["frontend-id"] not in (None, str(key.domid)):
        raise XenStoreError(
            f"the node names domain {nodes['frontend-id']} as the guest, not domain {key.domid}",
            device=f"{key.backend}/frontend-id",
        )
    number = _split_number(nodes["physical-device"]) if nodes["physical-device"] else None
    frontend_state = values[f"{key.frontend}/state"]
    return Vbd(
        key=key,
        dev=nodes["dev"] or str(key.devid),
        params=nodes["params"],
        # blkback looks for a w. Without the node it opens nothing yet, but the node may appear at any moment.
        writable=nodes["mode"] is None or "w" in nodes["mode"],
        cdrom=nodes["device-type"] == "cdrom",
        state=int(nodes["state"]) if nodes["state"] else None,
        frontend_state=int(frontend_state) if frontend_state and _is_state(frontend_state) else None,
        online=nodes["online"] == "1",
        number=None if number is None else number[1:],
        diskseq=_diskseq(key, nodes, number),
        opened=None if nodes["opened"] is None else nodes["opened"] == "1",
        script=nodes["script"],
        physical_device_path=nodes["physical-device-path"],
        error=values[f"{key.backend_error}/error"],
    )


def _diskseq(
    key: Key, nodes: Mapping[str, str | None], number: tuple[int | None, int, int] | None
) -> int | None:
    """
    The disk sequence number from whichever form is present, or None. Raises XenStoreError if two forms
    differ.
    """
    texts = {name: nodes[name] for name in FORMS.values() if name}
    found = {name: int(text, 16) for name, text in texts.items() if text is not None}
    if number is not None and number[0] is not None:
        found["physical-device"] = number[0]
    if len(set(found.values())) > 1:
        said = ", ".join(f"{name} {value:x}" for name, value in found.items())
        raise XenStoreError(f"the nodes give different disk sequence numbers: {said}", device=key.backend)
    return next(iter(found.values()), None)
