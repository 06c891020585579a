# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Attach held devices to guests that libvirt runs, through libvirt, so that virsh lists and can detach them.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

libvirt's Xen driver knows only the disks that it attached itself (src/libxl/libxl_driver.c). If a disk is
written to XenStore directly, the guest can use it and xl lists it, but ``virsh domblklist`` and ``virsh
detach-disk`` do not know it. libvirt accepts only a path. This is safe: the Device stays open, also in a
holder process that outlives a killed run, so its node and number cannot be reused. Afterwards, the device
that blkback has opened is compared with it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Callable, TypeVar
from xml.sax.saxutils import quoteattr

from .._base import gone, late
from .._base.deadline import Deadline, pauses
from .._base.errors import BlockError, DeadlineExceeded, DeviceBusy, GuestError, NotSupported, WrongDevice
from .._block.seal import place
from .._process.holder import hold, hold_for
from .._xen import blkback, vbd_nodes, vbd_read
from .._xen import guest as _guest
from .._xen.blkback import Detachment, Outcome, Request
from .._xen.vbd_nodes import Vbd
from . import connection as _connection
from .connection import URI, NotAsked, libvirt
from .handles import Connection, DomainHandle

if TYPE_CHECKING:
    from .._block.seal import blkback as _seals
    from .._xenstore.nodes import Nodes
    from .._xenstore.pyxs_store import Store
    from .._xenstore.session import Transaction
else:
    _seals = late.Module(__name__, ".._block.seal.blkback")

T = TypeVar("T")
# ``guard(store or transaction, request)`` raises an error to refuse the request.
Guard = Callable[["Store", Request], None]

# Seconds for which a device is held for a daemon that may still attach it.
_LATE = 600
# Seconds for undoing what libvirt did, on top of the caller's own limit.
_TAKING_BACK = 20
# What to do with a CD instead, see refuse_cd.
CD_WAY = "Use xen_vbd with toolstack=xenstore. libvirt's list of the guest's disks stays as it is then"
# LIBXL_STATE_DIR, src/libxl/libxl_conf.h
_STATE = "/run/libvirt/libxl"


def may_run_guests() -> bool:
    """
    Whether libvirt's Xen driver has any running guest, by its state files. Connecting would take much longer.
    """
    return any(name.endswith(".xml") and name != "Domain-0.xml" for name in gone.list_directory(_STATE))


def runs(guest: _guest.Guest, timeout: float = 10.0, uri: str = URI) -> bool:
    """
    Whether this guest is an active domain of libvirt. Raises an error if libvirt does not tell: a disk that
    is changed without it would differ from what it knows.
    """

    def ask(connection: Connection) -> bool:
        try:
            return bool(connection.lookupByUUIDString(guest.uuid).isActive())
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            return False

    try:
        return _connection.with_connection(uri, Deadline(timeout), guest, ask, reads=True)
    except BlockError as error:
        error.message = f"whether libvirt runs the guest could not be determined: {error.message}"
        error.hint = (
            f"libvirt has running guests ({_STATE}). {error.hint or error.HINT}. For a guest that libvirt "
            "does not run, set toolstack: xenstore"
        )
        raise


def attach(
    store: Store,
    requests: Sequence[Request],
    timeout: float = 30.0,
    guard: Guard | None = None,
    uri: str = URI,
    shareable: bool = False,
) -> list[Outcome]:
    """
    Like ``_xen.blkback.attach``, but through libvirt, one after the other. Returns a list of Outcomes.

    ``guard`` cannot be part of a transaction here, so it is called before and after. If it refuses
    afterwards, the disk is detached again. ``shareable``: whether the running definition says that other
    guests may use the disks too. A saved guest is restored from it. Raises NotSupported without
    libvirt-python.
    """
    _connection.require()
    limit = Deadline(timeout)
    return [_attach(store, request, limit, guard, uri, shareable) for request in requests]


def detach(
    store: Store,
    detachments: Sequence[Detachment],
    timeout: float = 30.0,
    uri: str = URI,
    withdraw: bool = False,
) -> list[Outcome]:
    """
    Detach disks that libvirt lists. Returns a list of Outcomes. ``withdraw``: see ``_xen.blkback.detach``,
    also to use force, or for other disks.

    The guest is asked first: libvirt would take the disk away after 10 s without the guest's consent
    (LIBXL_DESTROY_TIMEOUT in tools/libs/light/libxl_internal.h of Xen, device_backend_callback in
    libxl_device.c).
    """
    _connection.require()
    limit = Deadline(timeout)
    return [_detach(store, detachment, limit, uri, withdraw) for detachment in detachments]


def refuse_cd(is_cd: bool, title: str, way: str) -> None:
    """
    NotSupported for a CD. libvirt's Xen driver neither adds one to a running guest nor removes it
    (libxlDomainChangeEjectableMedia and libxlDomainDetachDeviceDiskLive, src/libxl/libxl_driver.c). It would
    say so only when the guest has released it. ``way``: what to do instead.
    """
    if is_cd:
        raise NotSupported(
            "libvirt's Xen driver cannot attach or detach a CD of a running guest", device=title, hint=way
        )


def disk_xml(dev: str, path: str, writable: bool, cdrom: bool = False, shareable: bool = False) -> str:
    """libvirt's XML of the disk. ``driver name='phy'`` means blkback."""
    return (
        f"<disk type='block' device='{'cdrom' if cdrom else 'disk'}'><driver name='phy' type='raw'/>"
        f"<source dev={quoteattr(path)}/>"
        f"<target dev={quoteattr(dev)} bus='xen'/>{'' if writable else '<readonly/>'}"
        f"{'<shareable/>' if shareable else ''}</disk>"
    )


def _attach(
    store: Store, request: Request, limit: Deadline, guard: Guard | None, uri: str, shareable: bool
) -> Outcome:
    try:
        refuse_cd(request.device_type == "cdrom", str(request), CD_WAY)
        blkback.check(request)
        request.device.prove()
        if request.params is None:
            # libvirt accepts only a path.
            request.device.need_node()
        # Somebody may have sealed the device, perhaps for another guest that has it too.
        if place.in_use():
            _seals.let_open([request.device.id[:2]], limit.left() + _LATE)
        # If this process is killed while libvirt attaches, the number must not be freed before blkback has
        # opened it.
        with hold([request.device], limit.left() + _TAKING_BACK):
            return _attach_held(store, request, limit, guard, uri, shareable)
    except BlockError as error:
        return Outcome(request, None, error, False)


def _attach_held(
    store: Store, request: Request, limit: Deadline, guard: Guard | None, uri: str, shareable: bool
) -> Outcome:
    xml = disk_xml(
        request.vdev.name,
        request.params or request.device.path,
        request.mode == "w",
        request.device_type == "cdrom",
        shareable,
    )
    called = is_done = False
    try:
        with store.within(limit):
            if vbd_read.read_vbd(store, *request.key) is not None:
                raise DeviceBusy(f"the guest has a disk {request.vdev.name} already", device=str(request))
            if guard is not None:
                guard(store, request)
            called = True
            _with_run(
                request.guest,
                uri,
                limit,
                lambda connection, domain: _attach_to_run(connection, domain, request, xml),
            )
            is_done = True
            vbd = _proven(store, request)
            if guard is not None:
                guard(store, request)
        return Outcome(request, vbd, None)
    except BlockError as error:
        if called and not isinstance(error, NotAsked):
            if isinstance(error, DeadlineExceeded) and not is_done:
                # The daemon may still attach the disk by its path, so the path must not lead to another
                # device by then.
                hold_for([request.device], _LATE)
                error.hint = (
                    f"{error.hint}. libvirt may still attach the disk, so the device stays open for {_LATE} s"
                )
            _roll_back(store, request, xml, error, uri, is_done)
        return Outcome(request, None, error, False)


def _attach_to_run(connection: Connection, domain: DomainHandle, request: Request, xml: str) -> None:
    """
    Attach the disk to this run of the guest. GuestError if it was started again right before the call:
    libvirt finds a domain by its UUID, and attaches the disk to the next run, from which it is then removed.
    """
    domain.attachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    # Ask again: a handle keeps the id that it was made with.
    now = connection.lookupByUUIDString(request.guest.uuid)
    if now.ID() == request.guest.domid:
        return
    target = request.vdev.name
    # A disk that is in the inactive definition too is the next run's own.
    if now.isActive() and _is_listed(now, target):
        if _is_listed(now, target, libvirt.VIR_DOMAIN_XML_INACTIVE):
            raise _connection.started_again(request, f"It has the disk {target} of its definition")
        now.detachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    raise _connection.started_again(request, f"It has no new disk {target}")


def _proven(store: Store, request: Request) -> Vbd:
    """The attached disk, after verifying that it is the held device."""
    device = request.device
    vbd, opened = _wait_opened(store, request)
    if vbd is None:
        raise GuestError(
            "libvirt says that it attached the disk, but blkback does not have it", device=str(request)
        )
    if opened is None:
        said = f": {vbd.error}" if vbd.error else ""
        raise GuestError(
            f"libvirt says that it attached the disk, but blkback has not opened it (state {vbd.state})"
            + said,
            device=str(request),
        )
    if not vbd.number == opened == (device.id.major, device.id.minor):
        raise WrongDevice(
            f"blkback opened {opened[0]}:{opened[1]} instead of {device.id.number}", device=str(request)
        )
    device.prove()
    # Nothing depends on this node any more. It identifies the device for later readers.
    if not store.transaction(lambda tx: _note_diskseq_in(tx, request)):
        raise GuestError("the guest has ended, or the disk was detached meanwhile", device=str(request))
    return vbd._replace(diskseq=device.id.diskseq)


def _wait_opened(store: Store, request: Request) -> tuple[Vbd | None, tuple[int, int] | None]:
    """
    The disk, and the number of the device that blkback has opened for it, or None if it does not open any.
    Xen's hotplug script, and thus libvirt, do not wait for that: blkback opens it a few ms later.
    """
    for pause in pauses(0.001):
        opened = vbd_read.opened_number(request.key)
        vbd = vbd_read.read_vbd(store, *request.key)
        is_given_up = vbd is None or vbd.error or vbd.state in (vbd_nodes.CLOSING, vbd_nodes.CLOSED)
        # There must be time left for the next look.
        if opened is not None or is_given_up or store.limit.left() < 2 * pause:
            break
        store.limit.sleep(pause)
    return vbd, opened


def _note_diskseq_in(tx: Transaction, request: Request) -> bool:
    """
    Write the device's disk sequence number if the vbd is still there, and has this device: a node that is
    written later would stay, with its directory. Returns whether it is.
    """
    vbd = vbd_read.read_vbd(tx, *request.key)
    if vbd is None or vbd.state is None or vbd.number != request.device.id[:2]:
        return False
    tx.write(f"{request.key.backend}/diskseq", f"{request.device.id.diskseq:x}")
    return True


def _roll_back(store: Store, request: Request, xml: str, error: BlockError, uri: str, is_done: bool) -> None:
    """
    After a failure, detach what libvirt attached. If that fails too, or the guest has another disk there, add
    this to the error. ``is_done``: whether libvirt has said that it attached the disk.

    libvirt gives up on a slow hotplug script and forgets the disk, although the guest may still connect to
    it. Then it is removed through XenStore.
    """
    limit = Deadline(_TAKING_BACK)
    try:
        with store.within(limit):
            vbd = vbd_read.read_vbd(store, *request.key)
            if vbd is None:
                return
            if not is_done and not _is_of(vbd, request):
                error.add_hint(_other_words(vbd))
                return
            with contextlib.suppress(GuestError):
                _with_domain(
                    request.guest,
                    uri,
                    limit,
                    lambda domain: domain.detachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE),
                )
        left = vbd_read.read_vbd(store, *request.key)
        if left is not None and not _is_of(left, request):
            error.add_hint(_other_words(left))
        elif left is not None:
            (outcome,) = blkback.detach(store, [Detachment(left, request.guest)], 10, force=True)
            if outcome.error:
                raise outcome.error
    except BlockError as failure:
        hint = error.hint or "It could not be rolled back"
        error.hint = f"{hint}. The disk {request.vdev.name} may still be attached: {failure}"


def _is_of(vbd: Vbd, request: Request) -> bool:
    """Whether the vbd is that of the request: with its path, or its device, which is held."""
    path = request.params or request.device.path
    return vbd.params == path or vbd.number == request.device.id[:2]


def _other_words(vbd: Vbd) -> str:
    """What to say of a disk that somebody else has attached meanwhile."""
    return (
        f"The guest has {vbd.params or 'another disk'} as {vbd.dev} now, which this run did not attach: it "
        "is left unchanged"
    )


def _detach(store: Store, detachment: Detachment, limit: Deadline, uri: str, withdraw: bool) -> Outcome:
    vbd, guest = detachment.vbd, detachment.guest
    if guest is None:
        raise AssertionError
    try:
        with store.within(limit):
            now = vbd_read.read_vbd(store, *vbd.key)
            if now is None:
                return Outcome(detachment, None, None, False)
            refuse_cd(vbd.cdrom, str(detachment), CD_WAY)
            if (now.number, now.diskseq) != (vbd.number, vbd.diskseq):
                raise WrongDevice(
                    "the guest's disk is another device now; it is left unchanged", device=str(detachment)
                )
            if not _with_domain(guest, uri, limit, lambda domain: _is_listed(domain, vbd.dev)):
                raise GuestError(
                    "libvirt does not list the disk, because it was attached without libvirt",
                    device=str(detachment),
                    hint="Use the module xen_vbd with toolstack=xenstore",
                )
            (asked,) = blkback.ask(store, [detachment], limit.left(), withdraw)
            if asked.error is not None:
                return asked
            _forget(vbd, guest, limit, uri)
            blkback.wait_released(detachment, limit)
        return Outcome(detachment, None, None)
    except BlockError as error:
        return Outcome(detachment, None, error)


def remove_released(store: Store, detachment: Detachment, limit: Deadline, uri: str) -> bool:
    """
    Remove what is left of a disk that the guest has released, if detaching it through libvirt has failed
    afterwards. Returns whether libvirt still lists it. Does nothing if the guest has a disk there.
    """
    vbd, guest = detachment.vbd, detachment.guest
    if guest is None:
        raise AssertionError
    with store.within(limit):
        left = vbd_read.read_vbd(store, *vbd.key)
        if left is not None and left.state != vbd_nodes.CLOSED:
            return False
        is_listed = _with_domain(guest, uri, limit, lambda domain: _is_listed(domain, vbd.dev))
        if is_listed:
            try:
                _forget(vbd, guest, limit, uri)
                is_listed = False
            except GuestError:
                # It stays in libvirt's list, as it is attached again.
                is_listed = _with_domain(guest, uri, limit, lambda domain: _is_listed(domain, vbd.dev))
        left = vbd_read.read_vbd(store, *vbd.key)
    if left is not None and left.state == vbd_nodes.CLOSED:
        (outcome,) = blkback.detach(store, [Detachment(left, guest)], limit.left(), force=True)
        if outcome.error is not None:
            raise outcome.error
    return is_listed


def detach_by_force(store: Store, detachment: Detachment, timeout: float = 30.0, uri: str = URI) -> Outcome:
    """
    Take a disk away from a guest that does not release it, so that libvirt lists it no more. libvirt does
    that itself after 10 s (LIBXL_DESTROY_TIMEOUT). What it leaves is removed through XenStore, even if
    libvirt does not answer: then GuestError tells that libvirt may still list the disk. Raises NotSupported
    without libvirt-python.
    """
    _connection.require()
    failure = _forget_listed(store, detachment, Deadline(max(timeout, _TAKING_BACK)), uri)
    (outcome,) = blkback.detach(store, [detachment], timeout, force=True)
    if outcome.error is not None or failure is None:
        return outcome
    error = GuestError(
        f"the disk was taken away from the guest, but libvirt may still list it: {failure}",
        device=str(detachment),
        hint="Compare virsh domblklist with xl block-list, and remove it with virsh detach-disk --live",
    )
    return Outcome(detachment, None, error)


def _forget_listed(store: Store, detachment: Detachment, limit: Deadline, uri: str) -> BlockError | None:
    """Have libvirt detach the disk if it lists it. Returns why it may list it still, None if it does not."""
    vbd, guest = detachment.vbd, detachment.guest
    if guest is None:
        raise AssertionError
    try:
        with store.within(limit):
            now = vbd_read.read_vbd(store, *vbd.key)
        if now is not None and (now.number, now.diskseq) != (vbd.number, vbd.diskseq):
            # Another disk, which blkback.detach refuses.
            return None
        if _with_domain(guest, uri, limit, lambda domain: _is_listed(domain, vbd.dev)):
            _forget(vbd, guest, limit, uri)
    except BlockError as error:
        return error
    return None


def attach_again(
    store: Store,
    request: Request,
    limit: Deadline,
    guard: Callable[[Nodes, Request], None] | None,
    uri: str,
    is_listed: bool,
    shareable: bool = False,
) -> Outcome:
    """
    Attach a disk again that was taken away to be replaced. ``is_listed``: what :func:`remove_released` has
    returned, if it was called. Then libvirt still lists this disk as it was, and would not attach it twice.
    ``shareable``: as for :func:`attach`.
    """
    if is_listed:
        (outcome,) = blkback.attach(store, [request], limit.left(), guard=guard)
    else:
        (outcome,) = attach(store, [request], limit.left(), guard, uri, shareable)
    return outcome


def _forget(vbd: Vbd, guest: _guest.Guest, limit: Deadline, uri: str) -> None:
    """Have libvirt detach a disk that the guest has released."""
    xml = disk_xml(vbd.dev, vbd.params or vbd.physical_device_path or "", vbd.writable, vbd.cdrom)
    _with_domain(
        guest, uri, limit, lambda domain: domain.detachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    )


def _is_listed(domain: DomainHandle, target: str, flags: int = 0) -> bool:
    # libvirt wrote the text itself, and no other text of it has this form; _libvirt.domain_xml is large.
    return f"<target dev='{target}'" in domain.XMLDesc(flags)


def _with_domain(guest: _guest.Guest, uri: str, limit: Deadline, function: Callable[[DomainHandle], T]) -> T:
    """As :func:`_with_run`; ``function(domain)``."""
    return _with_run(guest, uri, limit, lambda connection, domain: function(domain))


def _with_run(
    guest: _guest.Guest, uri: str, limit: Deadline, function: Callable[[Connection, DomainHandle], T]
) -> T:
    """
    Return ``function(connection, domain)``, called on a separate connection within the limit. GuestError if
    this run of the guest has ended.
    """
    return _connection.with_connection(
        uri,
        limit,
        guest,
        lambda connection: function(
            connection, _connection.look_up_run(connection, guest.uuid, guest.domid, guest)
        ),
    )
