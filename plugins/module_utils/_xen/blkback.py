# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Attach open devices to guests through XenStore and xen-blkback, and detach them.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Released versions of blkback are told only ``major:minor`` and open whatever device has that number at that
moment. The caller therefore holds every Device open while :func:`attach` runs: that keeps the number from
being reused until blkback has opened the device itself.
"""

from __future__ import annotations

import contextlib
import errno
import platform
import time
from typing import NamedTuple

from .._base import gone, late
from .._base.deadline import Deadline, pauses
from .._base.errors import (
    BlockError,
    DeadlineExceeded,
    DeviceBusy,
    GuestError,
    InvalidValue,
    WrongDevice,
    XenStoreError,
    shown,
)
from .._block.device import Device
from .._block.seal import place
from .._process.holder import hold, hold_for
from .._xenstore.nodes import NodeError
from . import attached, vbd_nodes, vbd_read
from . import guest as _guest
from . import vdev as _vdev
from .stock_script import is_needed, run_remove
from .vbd_nodes import CLOSED, CLOSING, CONNECTED, Disk, Key, Vbd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Callable, TypeVar

    from .._block.seal import blkback as _seals
    from .._xenstore.nodes import Nodes
    from .._xenstore.session import Session, Transaction

    J = TypeVar("J", bound="_Job")
    T = TypeVar("T")
else:
    _seals = late.Module(__name__, ".._block.seal.blkback")

# Seconds for rolling back a failed attach, or for removing the nodes of a released disk, in addition to the
# caller's own limit.
_CLEANUP = 15.0
# Seconds for which devices are held open for a blkback that may still open them, when this cannot be found
# out.
_KEPT = 120.0
# Seconds for a backend to close a vbd that is detached by force.
_PATIENCE = 5.0
# Seconds for a guest that has begun to release a disk to do so, when its time is over.
_LATE = 3.0
# Seconds for one last request to xenstored after a limit has expired.
_LAST_LOOK = 2.0
_NATIVE_PROTOCOL = {"x86_64": "x86_64-abi", "aarch64": "arm-abi"}


class Request(NamedTuple):
    """
    Attach one disk to one guest. ``device`` must stay open until :func:`attach` has returned.

    ``mode`` is ``r`` or ``w``. ``params`` is the disk's target as shown by xl and libvirt, by default the
    device's path. ``discard`` None offers discard for writable disks, as xl does. ``form`` is how the disk
    sequence number is passed (_xen.vbd_nodes.FORMS).
    """

    guest: _guest.Guest
    vdev: _vdev.Vdev
    device: Device
    mode: str = "w"
    device_type: str = "disk"
    params: str | None = None
    discard: bool | None = None
    form: str = "diskseq"
    script: str = vbd_nodes.STOCK_SCRIPT

    @property
    def key(self) -> Key:
        return Key(self.guest.domid, self.vdev.number)

    def __str__(self) -> str:
        return f"{self.vdev.name} of {self.guest}"


class Outcome(NamedTuple):
    """
    The result of one request: ``vbd`` on success, otherwise ``error``. ``changed`` tells whether anything was
    changed.
    """

    request: Any
    vbd: Vbd | None
    error: BlockError | None
    changed: bool = True


class Detachment(NamedTuple):
    """
    Detach one vbd, given as it was read. If the vbd has another device by then, or the domain id belongs to
    another guest than ``guest`` (if given), it is left unchanged.
    """

    vbd: Vbd
    guest: _guest.Guest | None = None

    @property
    def key(self) -> Key:
        return self.vbd.key

    def __str__(self) -> str:
        return f"{self.vbd.dev} of {self.guest or 'domain ' + str(self.key.domid)}"


def check(request: Request) -> None:
    """Raise InvalidValue for a request that can never succeed. Neither reads nor writes XenStore."""
    if request.mode not in ("r", "w"):
        raise InvalidValue("mode", request.mode, "must be r or w")
    if request.device_type not in ("disk", "cdrom"):
        raise InvalidValue("device_type", request.device_type, "must be disk or cdrom")
    if request.mode == "w" and request.device_type == "cdrom":
        raise InvalidValue("mode", request.mode, "must be r: a cdrom is read-only")
    if request.mode == "w" and request.device.read_only:
        raise InvalidValue(
            "mode",
            request.mode,
            f"{request.device.path} is read-only, so the guest can have it only with mode=r",
        )
    params = _disk(request).params
    if ":" in params or not params.isprintable() or not params.isascii():
        # libxl takes the text in front of a colon for a format.
        raise InvalidValue("params", params, "must be printable ASCII without a colon")


def attach(
    store: Session,
    requests: Sequence[Request],
    timeout: float = 30.0,
    wait_connected: bool = False,
    guard: Callable[[Nodes, Request], None] | None = None,
) -> list[Outcome]:
    """
    Attach every request's device to its guest; a list of Outcomes in the same order.

    ``guard(transaction, request)`` is called in the transaction that writes the nodes, and raises to refuse
    the request (``_xen.sharing.Sharing.guard``). A request is done when blkback has opened the device and,
    with ``wait_connected``, the guest has connected. ``timeout`` seconds apply to all requests together. A
    request that fails is rolled back, which takes up to 15 s more; the others continue.
    """
    limit = Deadline(timeout)
    jobs = [_Attach(request) for request in requests]
    for job in jobs:
        job.run(job.prepare)
    ready = [job for job in jobs if not job.error]
    # Somebody may have sealed a device, perhaps for another guest that has it too.
    if place.in_use():
        _seals.let_open([job.request.device.id[:2] for job in ready], timeout + _KEPT)
    # If this process is killed between the write and blkback's open, the numbers must not be freed.
    with hold([job.request.device for job in ready], timeout + _KEPT) if ready else contextlib.nullcontext():
        with store.within(limit):
            _all_in_one(store, ready, limit, lambda tx, job: job.write_in(tx, guard))
            _poll(
                store,
                [job for job in ready if not job.error],
                limit,
                lambda job, values: job.look(values, wait_connected),
            )
        cleanup = Deadline(_CLEANUP)
        for job in ready:
            if job.error and job.written and not job.roll_back(store, cleanup):
                hold_for([job.request.device], _KEPT)
    return [job.outcome() for job in jobs]


def _all_in_one(
    store: Session, jobs: Sequence[J], limit: Deadline, step: Callable[[Transaction, J], None]
) -> None:
    """
    Call ``step(transaction, job)`` for every job in one transaction. If xenstored refuses a request in it,
    retry each job in a transaction of its own.

    Any other BlockError that a step raises is stored as its job's error; a step must raise it before it
    writes anything.
    """

    def run(tx: Transaction) -> None:
        for job in jobs:
            job.error, job.written = None, False
        for job in jobs:
            try:
                step(tx, job)
                job.written = True
            except (XenStoreError, DeadlineExceeded):
                raise
            except BlockError as error:
                job.error = error

    if not jobs:
        return
    try:
        store.transaction(run, limit)
    except BlockError as error:
        if isinstance(error, NodeError) and error.errno != errno.EAGAIN and len(jobs) > 1:
            for job in jobs:
                _all_in_one(store, [job], limit, step)
            return
        for job in jobs:
            job.error = job.error or _own(error)


class _Job:
    """One vbd that is being attached or detached, for :func:`_poll`."""

    def __init__(self, key: Key, request: Request | Detachment) -> None:
        self.key = key
        self.request: Any = request
        self.error: BlockError | None = None
        self.done = False
        # Whether nodes of this vbd were, or may have been, written.
        self.written = False
        # What is waited for and a hint, for the error after a timeout.
        self.last = ""
        self.hint = _HINT_BLKBACK
        self.extra_paths: list[str] = []

    def paths(self) -> list[str]:
        """The paths of the nodes that ``look`` needs."""
        return vbd_nodes.read_paths(self.key) + [self.key.frontend_error] + self.extra_paths

    def run(self, function: Callable[..., T], *arguments: Any) -> T | None:
        """Call ``function`` and store a BlockError that it raises as this job's error."""
        try:
            return function(*arguments)
        except BlockError as error:
            self.error = error
            return None


class _Attach(_Job):
    def __init__(self, request: Request) -> None:
        super().__init__(request.key, request)
        self.seen_open = False
        self.nodes: list[vbd_nodes.NewNode] = []
        self.vbd: Vbd | None = None

    def prepare(self) -> None:
        """Make all checks that are possible before anything is written, and lay out the nodes."""
        check(self.request)
        device = self.request.device
        device.prove()
        self.nodes = vbd_nodes.layout(
            self.key,
            _disk(self.request),
            vbd_nodes.identity(
                self.request.form, device.id.major, device.id.minor, device.id.diskseq, device.path
            ),
        )

    def write_in(self, tx: Transaction, guard: Callable[[Nodes, Request], None] | None) -> None:
        """Write the nodes. If the request must be refused, raise before anything is written for it."""
        _guest.prove(tx, self.request.guest)
        attached.refuse_nodes(tx, self.key, self.request.vdev.name, str(self.request))
        if gone.exists(self.key.sysfs, gone.SYSFS):
            old = f"the disk that the guest had as {self.request.vdev.name}"
            raise DeviceBusy(
                f"blkback still has {old}", device=str(self.request), hint="Try again in a moment"
            )
        if guard is not None:
            guard(tx, self.request)
        self.written = True
        for path in (self.key.frontend, self.key.backend_error, self.key.frontend_error):
            # Values left by an earlier disk would be taken for this one's.
            tx.remove(path)
        tx.lay(self.nodes)

    def look(self, values: Mapping[str, str | None], wait_connected: bool) -> bool:
        """
        Whether blkback has opened the device (with ``wait_connected``: and the guest has connected). Raises
        if that can no longer happen.
        """
        vbd = self.vbd = vbd_nodes.from_nodes(self.key, values)
        if vbd is None:
            raise GuestError(
                "its nodes were removed: the guest ended, or someone detached the disk",
                device=str(self.request),
            )
        if vbd.error or vbd.state in (CLOSING, CLOSED):
            words = f": {vbd.error}" if vbd.error else ", without giving a reason"
            raise GuestError(
                f"the backend rejected {self.request.device.path}{words}",
                device=str(self.request),
                hint=_HINT_BLKBACK,
            )
        if not self._is_open(vbd):
            return False
        if wait_connected and not (vbd.state == CONNECTED and vbd.frontend_state == CONNECTED):
            said = values.get(self.key.frontend_error)
            self.last = f"the guest to connect (state {vbd.frontend_state}{_saying(said)})"
            return False
        return True

    def _is_open(self, vbd: Vbd) -> bool:
        """Whether blkback has opened the device. WrongDevice if it has opened another one."""
        if vbd.opened is False:
            self.last = "blkback to open the device (the node opened is 0)"
            return False
        found = vbd_read.opened_number(self.key)
        if found is None:
            self.last = f"blkback to open the device (state {vbd.state})"
            return False
        wanted = self.request.device.id
        if found != (wanted.major, wanted.minor):
            raise WrongDevice(
                f"blkback opened {found[0]}:{found[1]} instead of {wanted.number}", device=str(self.request)
            )
        self.request.device.prove()
        if not self.seen_open:
            # The nodes may have been read before blkback's open. Read them once more: if the backend offers
            # the node opened, that decides.
            self.seen_open = True
            self.last = "blkback to open the device"
            return False
        return True

    def roll_back(self, store: Session, limit: Deadline) -> bool:
        """
        Remove the nodes written for this vbd after a failure. Returns whether the vbd is gone; if not, the
        error's hint says so.
        """
        try:
            with store.within(limit):
                store.transaction(self._remove_in, limit)
            wait_released(self.request, limit)
            return True
        except BlockError as error:
            if self.error is None:
                raise AssertionError from error
            hint = self.error.hint or "It could not be rolled back"
            self.error.hint = f"{hint}. Nodes of {self.key.backend} may be left: {error}"
            return False

    def _remove_in(self, tx: Transaction) -> None:
        # After a lost connection it is unknown whether the nodes were written. Remove them only if they carry
        # this device's identity.
        device = self.request.device.id
        mine = dict(
            vbd_nodes.identity(
                self.request.form, device.major, device.minor, device.diskseq, self.request.device.path
            )
        )
        if not tx.exists(self.key.backend) or all(
            tx.read(f"{self.key.backend}/{name}") == value for name, value in mine.items()
        ):
            remove_nodes(tx, self.key)

    def outcome(self) -> Outcome:
        return Outcome(
            self.request, None if self.error else self.vbd, self.error, self.written and not self.error
        )


def ask(
    store: Session, detachments: Sequence[Detachment], timeout: float = 10.0, withdraw: bool = True
) -> list[Outcome]:
    """
    Ask guests to release their disks, as the first half of :func:`detach`, and leave the nodes; a list of
    Outcomes in the same order, without a vbd. Nothing is done for a vbd that does not exist.

    ``withdraw``: see :func:`detach`.
    """
    jobs = [_Detach(detachment, False, timeout) for detachment in detachments]
    _ask(store, jobs, timeout, withdraw)
    return [Outcome(job.request, None, job.error, job.changed) for job in jobs]


def _ask(store: Session, jobs: Sequence[_Detach], timeout: float, withdraw: bool) -> None:
    limit = Deadline(timeout)
    with store.within(limit):
        _all_in_one(store, jobs, limit, lambda tx, job: job.ask_in(tx))
        for job in jobs:
            job.changed = job.changed and not job.error
        _poll(store, [job for job in jobs if not job.gone], limit, _Detach.look)
    for job in jobs:
        if withdraw and isinstance(job.error, DeadlineExceeded) and job.written:
            job.withdraw(store)


def detach(
    store: Session,
    detachments: Sequence[Detachment],
    timeout: float = 10.0,
    force: bool = False,
    withdraw: bool = False,
) -> list[Outcome]:
    """
    Detach vbds from their guests; a list of Outcomes in the same order, without a vbd.

    Each guest is asked to release its disk and has ``timeout`` seconds for all disks together;
    DeadlineExceeded otherwise. The request then stays pending, as with xl. With ``withdraw``, it is
    withdrawn instead, if the guest has not answered at all; ``changed`` of the Outcome tells whether it is
    pending. With ``force`` the disk is detached at once without asking, and the guest gets I/O errors. The
    hotplug script of a disk that xl attached is run, for up to 40 s.

    If an Outcome has no error, blkback has released the vbd and its nodes are removed. blkback closes the
    device asynchronously in a work item (xen_blkif_deferred_free), so the device can still be busy for an
    instant.
    """
    jobs = [_Detach(detachment, force, timeout) for detachment in detachments]
    _ask(store, jobs, timeout, withdraw)
    given_up = [job for job in jobs if not job.error and not job.gone]
    for job in given_up:
        if is_needed(job.request.vbd):
            run_remove(job.request.vbd.script, job.key)
    # Cleaning up gets its own limit; ``timeout`` is for the guest.
    rest = Deadline(_CLEANUP)
    with store.within(rest):
        _all_in_one(store, given_up, rest, lambda tx, job: job.remove_in(tx))
        for job in jobs:
            if not job.error:
                job.run(wait_released, job.request, rest)
    return [Outcome(job.request, None, job.error, job.changed) for job in jobs]


class _Detach(_Job):
    def __init__(self, detachment: Detachment, force: bool, timeout: float) -> None:
        super().__init__(detachment.key, detachment)
        self.force = force
        self.changed = False
        self.gone = False
        self.hint = _HINT_BLKBACK if force else _HINT_FORCE
        # A backend that has not closed a vbd without a frontend by then never will. Its nodes are removed
        # anyway.
        self.patience = Deadline(min(_PATIENCE, timeout / 2))
        self.guest_path = f"/local/domain/{self.key.domid}/vm"
        self.extra_paths = [self.guest_path]
        # The nodes that the request overwrites, and the guest's answer to it, as they were before.
        self.before: dict[str, str | None] = {}

    def ask_in(self, tx: Transaction) -> None:
        """Write online 0 and state 5 in one transaction, as libxl__initiate_device_generic_remove does."""
        self.changed = self.gone = False
        state = tx.read(f"{self.key.backend}/state")
        if state is None:
            # The backend is gone; remove the vbd's remaining nodes.
            self.gone = True
            self.changed = remove_nodes(tx, self.key)
            return
        self._prove_in(tx)
        self.changed = True
        self.before = dict(tx.read_many(self._asked()))
        if self.force and tx.remove(self.key.frontend):
            tx.remove_empty_parents(self.key.frontend)
        tx.write(f"{self.key.backend}/online", "0")
        if state != str(CLOSED):
            tx.write(f"{self.key.backend}/state", str(CLOSING))

    def _asked(self) -> tuple[str, str, str]:
        """The nodes of the request, and of the guest's answer."""
        return f"{self.key.backend}/online", f"{self.key.backend}/state", f"{self.key.frontend}/state"

    def withdraw(self, store: Session) -> None:
        """
        Withdraw the request after a timeout. A guest that has answered meanwhile is given time to finish; if
        it does, the error is cleared.

        The request is only in the nodes, blkback does not look at them. So while the guest has not answered,
        the old values restore everything: for blkfront, a backend that is connected (again) means that the
        disk's size may have changed (blkfront_connect in drivers/block/xen-blkfront.c).
        """
        error = self.error
        if error is None:
            raise AssertionError
        limit = Deadline(_LATE)
        try:
            with store.within(Deadline(_LATE + _LAST_LOOK)):
                if store.transaction(self._withdraw_in, limit) and not self._is_answered(store, limit):
                    self.changed = False
                    error.hint = f"{_HINT_ASKED}. It still has the disk, and nothing was changed"
                elif self._is_released(store, limit):
                    self.error = None
                else:
                    error.hint = f"{_HINT_ASKED}. {_RELEASING}"
        except BlockError as failure:
            error.hint = f"{_HINT_ASKED}. Whether the request could be withdrawn is not known: {failure}"

    def _withdraw_in(self, tx: Transaction) -> bool:
        online, state, frontend = self._asked()
        now = dict(tx.read_many(self._asked()))
        if now != self.before:
            if now[state] != str(CLOSING) or self._is_closing(now[frontend]):
                return False
            self._prove_in(tx)
            for path in (state, online):
                before = self.before[path]
                if before is None:
                    tx.remove(path)
                else:
                    tx.write(path, before)
        return True

    def _is_closing(self, frontend_state: str | None) -> bool:
        """Whether the guest has begun to release the disk since it was asked."""
        closing = (str(CLOSING), str(CLOSED), None)
        return frontend_state in closing and frontend_state != self.before[self._asked()[2]]

    def _is_answered(self, store: Session, limit: Deadline) -> bool:
        """Whether the guest has answered while the request was being withdrawn. Then ask it again."""
        for dummy_look in range(3):
            if self._is_closing(store.read(f"{self.key.frontend}/state")):
                store.transaction(self._ask_again_in, limit)
                return True
            limit.sleep(0.1)
        return False

    def _ask_again_in(self, tx: Transaction) -> None:
        online, state, frontend = self._asked()
        now = tx.read_many(self._asked())
        # The nodes of a guest that was destroyed must not be made again: nobody would remove them.
        if now[state] is not None and self._is_closing(now[frontend]):
            self._prove_in(tx)
            # With online 1, blkback would keep the device.
            tx.write(online, "0")

    def _is_released(self, store: Session, limit: Deadline) -> bool:
        for pause in pauses(0.01, 0.1):
            if store.read(f"{self.key.backend}/state") in (None, str(CLOSED)):
                return True
            if limit.expired:
                return False
            limit.sleep(pause)
        return False

    def _prove_in(self, tx: Transaction) -> None:
        """Check that the guest and the device are still the same."""
        guest, vbd = self.request.guest, self.request.vbd
        if guest is not None and tx.exists(self.guest_path):
            _guest.prove(tx, guest)
        now = vbd_nodes.from_nodes(self.key, tx.read_many(vbd_nodes.read_paths(self.key)))
        if now is not None and (now.number, now.diskseq) != (vbd.number, vbd.diskseq):
            is_now, was = (vbd_nodes.device_words(one.number, one.diskseq) for one in (now, vbd))
            raise WrongDevice(
                f"the guest's disk is now {is_now}, it was {was}; it is left unchanged",
                device=str(self.request),
            )

    def look(self, values: Mapping[str, str | None]) -> bool:
        """Whether the vbd's nodes can be removed."""
        state = values[f"{self.key.backend}/state"]
        if state in (None, str(CLOSED)) or values[self.guest_path] is None:
            return True
        if self.force and (not gone.exists(self.key.sysfs, gone.SYSFS) or self.patience.expired):
            return True
        said = values[self.key.frontend_error]
        frontend = values[f"{self.key.frontend}/state"]
        self.last = (
            f"the {'backend' if self.force else 'guest'} to release the disk "
            f"(backend state {state}, the guest's own state {shown(frontend)[:20]}{_saying(said)})"
        )
        return False

    def remove_in(self, tx: Transaction) -> None:
        """Remove the nodes of a vbd that the guest has released."""
        self._prove_in(tx)
        remove_nodes(tx, self.key)


def _saying(said: str | None) -> str:
    return f", it says {said[:200]!r}" if said else ""


_HINT_FORCE = (
    "The guest still uses the disk or does not answer: unmount it there. With force=true of the module "
    "xen_vbd, the disk is removed without the guest's consent, and data that the guest has not written yet "
    "is lost"
)
_HINT_ASKED = "The guest uses the disk or does not answer: unmount it there, and run the task again"
_RELEASING = (
    "It has begun to release the disk, which cannot be withdrawn: it still has the disk, and when it has "
    "released it, it has none there until the task is run again"
)
_HINT_BLKBACK = "See the kernel's messages (dmesg) of the domain that serves the disk"


def remove_nodes(tx: Nodes, key: Key) -> bool:
    """
    Remove all nodes of a vbd and the directories that become empty, as libxl__device_destroy does. Returns
    whether there were any.
    """
    owner = f"{key.libxl}/backend"
    own: tuple[str, ...] = (key.frontend, key.libxl, key.backend)
    there = dict(tx.read_many(own + (key.backend_error, key.frontend_error, owner)))
    if there.pop(owner) not in (None, key.backend):
        # By now the guest has a disk of another backend there, to which all nodes but these belong.
        own = (key.backend,)
        there = {path: there[path] for path in (key.backend, key.backend_error)}
    for path, value in there.items():
        if value is not None:
            tx.remove(path)
        # The guest's directory below the backend holds nothing else, so remove it even if the vbd itself was
        # removed before.
        if value is not None or path == key.backend:
            tx.remove_empty_parents(path)
    return any(there[path] is not None for path in own)


def _disk(request: Request) -> Disk:
    return Disk(
        dev=request.vdev.name,
        params=request.device.path if request.params is None else request.params,
        writable=request.mode == "w",
        cdrom=request.device_type == "cdrom",
        discard=request.discard,
        script=request.script,
        form=request.form,
        protocol=_NATIVE_PROTOCOL.get(platform.machine()) if request.guest.kind == "pv" else None,
    )


def _poll(
    store: Session, jobs: Sequence[J], limit: Deadline, look: Callable[[J, Mapping[str, str | None]], bool]
) -> None:
    """Poll all jobs together until each is done, has failed, or ``limit`` has expired."""
    late = False
    for pause in pauses(0.001, 0.05):
        pending = [job for job in jobs if not job.done and not job.error]
        if not pending:
            return
        if late:
            for job in pending:
                job.error = limit.exceeded(job.last, device=str(job.request), hint=job.hint)
            return
        began = time.monotonic()
        try:
            # Even after the limit, xenstored gets some time: on a busy machine, the error should tell what
            # the job waited for rather than that XenStore timed out.
            with store.within(max(limit.left(), _LAST_LOOK)):
                values = store.read_many([path for job in pending for path in job.paths()])
        except BlockError as error:
            for job in pending:
                job.error = _own(error)
            return
        for job in pending:
            job.done = bool(job.run(look, job, values))
        late = limit.expired
        # xenstored also serves the guest and blkback, so polling takes at most a third of the time.
        limit.sleep(max(pause, 2 * (time.monotonic() - began)))


def _own(error: BlockError) -> BlockError:
    """Copy an error that several jobs share, so that each can change its hint."""
    copy = error.__class__.__new__(error.__class__)
    copy.__dict__.update(error.__dict__)
    copy.args = error.args
    return copy


def wait_released(request: Request | Detachment, limit: Deadline) -> None:
    """Wait until blkback has released the request's (or detachment's) vbd. Raises DeadlineExceeded."""
    for pause in pauses(0.001, 0.05):
        if not gone.exists(request.key.sysfs, gone.SYSFS):
            return
        if limit.expired:
            raise limit.exceeded("blkback to close the device", device=str(request), hint=_HINT_BLKBACK)
        limit.sleep(pause)
