# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
The hotplug script's ``add``: attach a disk to a guest.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.

Two processes (``_hotplug.worker``) hold the device open from before its number is written until blkback has
opened it. Only then is hotplug-status set to connected.
"""

from __future__ import annotations

from .._base import gone
from .._base.deadline import Deadline, pauses
from .._base.errors import BlockError, DeviceBusy, GuestError, InvalidValue, WrongDevice
from .._base.record import Record
from .._xen import guest as _guest
from .._xen import sharing as _sharing
from .._xen import stack, vbd_nodes
from .._xen.vbd_nodes import CLOSED, CLOSING
from .._xen.vbd_read import opened_number
from .._xenstore.session import Session
from . import state, target, worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .._block.device import Device
    from .._dm.control import Control
    from .._xen.vbd_key import Key
    from .._xenstore.nodes import Nodes

# Seconds for reporting the error and rolling back, in addition to the caller's own limit.
_CLEANUP = 5.0
_LONGEST_ERROR = 1000
# Seconds for one last request to xenstored after the limit has expired.
_LAST_LOOK = 2.0
# Seconds for which only sysfs is polled for blkback's open, before its nodes in XenStore are read too.
_PATIENCE = 0.5
# _block.seal.place.DIRECTORY: it exists while any device of this host is sealed.
_SEALS = "/sys/fs/bpf/racefree"
# Seconds for which blkback may open a sealed device.
_OPENING = 60.0
_GIVEN_UP = (str(CLOSING), str(CLOSED))
# What is read of the vbd before anything is done.
_NODES = (
    "params",
    "mode",
    "frontend-id",
    "dev",
    "physical-device",
    "diskseq",
    "hotplug-status",
    "error",
    "vm",
)
_HINT = "See the kernel's messages (dmesg) of this host"


def add(key: Key, seconds: float, form: str = "diskseq", link: worker.Link | None = None) -> None:
    """
    Give the vbd the device that its target names. On failure, the reason is written to the node hotplug-error
    and BlockError is raised.

    Takes at most ``seconds``, plus 5 s to roll back, unless storage does not respond. ``form`` is one of
    _xen.vbd_nodes.FORMS. ``link`` is the connection to the process that watches over this one.
    """
    limit = Deadline(seconds)
    with Session() as store:
        job = _Add(store, key, limit, form, link or worker.Link())
        try:
            with store.within(limit):
                job.run()
        except BaseException as error:
            # A call that was given up has been rolled back already, and the vbd may be another one by now.
            if not job.link.is_given_up:
                job.fail(error)
            raise


def give_up(key: Key, error: object, was_shared: bool) -> None:
    """
    Roll back and report the error for a process that cannot do so itself, because it was killed or hangs.
    ``was_shared``: it may have written nodes.
    """
    with Session() as store:
        job = _Add(store, key, Deadline(_CLEANUP), "", worker.Link())
        known = state.read(key)
        if was_shared and known is not None:
            job.identity = {name: value for name, value in known.items() if name != "target"}
        elif not was_shared:
            try:
                with store.within(Deadline(_LAST_LOOK)):
                    job.is_served = store.read(f"{key.backend}/hotplug-status") == "connected"
            except BlockError:
                # The vbd may be connected; leave it unchanged.
                job.is_served = True
        job.fail(error)


class _Request(Record):
    """The fields that the sharing check needs."""

    key: Key
    guest: _guest.Guest
    device: Device
    mode: str
    dev: str

    def __str__(self) -> str:
        return f"{self.dev} of domain {self.key.domid}"


class _Add:
    def __init__(self, store: Session, key: Key, limit: Deadline, form: str, link: worker.Link) -> None:
        self.store = store
        self.key = key
        self.limit = limit
        self.form = form
        self.link = link
        self.nodes: dict[str, str | None] = {}
        self.identity: dict[str, str] = {}
        # Whether the device was attached by another call, and must be left unchanged.
        self.is_served = False
        # Whether other guests may write to the same storage.
        self.is_shared = False
        # target.SEALED or SEALED_BELOW if the device is to be sealed, and the device that was sealed.
        self.seal = ""
        self.sealed: tuple[int, int, int] | None = None
        self.resources = _Resources()

    def run(self) -> None:
        self.nodes = nodes = self._read(self.store, *_NODES)
        self._check_nodes(nodes)
        if nodes["physical-device"] is not None:
            self.is_served = True
            self._check_same()
        elif not nodes["params"]:
            # A drive without a medium.
            self.store.transaction(lambda tx: self._say_in(tx, {"hotplug-status": "connected"}))
        else:
            self._attach(nodes["params"], nodes["mode"] or "")
            state.reap()

    def _attach(self, params: str, mode: str) -> None:
        """Open the device of the target ``params`` and hand it to blkback."""
        writable = "w" in mode
        self.seal, text = target.split_seal(params)
        recipe = target.parse(text, writable)
        self.is_shared = target.is_shared(recipe, mode)
        self.seal = self.seal or target.seal_of(recipe)
        if self.seal:
            self._check_seal()
        facts = {"target": params}
        self.link.record(self.key, facts)
        with self.resources, target.open_device(recipe, self.limit.left(), self.is_shared) as device:
            if writable and device.read_only:
                raise InvalidValue(
                    "mode", mode, f"{device.path} is read-only, so the guest can have it only with mode=r"
                )
            found = device.id
            nodes = vbd_nodes.identity(self.form, found.major, found.minor, found.diskseq, device.path)
            self.identity = dict(nodes)
            self.link.record(self.key, dict(facts, **self.identity))
            self.link.share(device)
            self._hand_over(device)

    def fail(self, error: object) -> None:
        """Roll back what was written and report the error. Failures of the rollback itself are ignored."""
        text = (
            str(error)
            if isinstance(error, BlockError)
            else f"ended by {type(error).__name__} {error}".rstrip()
        )
        text = "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in text)[
            :_LONGEST_ERROR
        ]
        self._unseal()
        try:
            if not self.identity and not self.is_served:
                state.forget(self.key)
        except OSError:
            # The next call's reap retries.
            pass
        try:
            with self.store.within(Deadline(_CLEANUP)):
                self.store.transaction(lambda tx: self._take_back_in(tx, text))
        except BlockError:
            pass

    def _read(self, store: Nodes, *names: str) -> dict[str, str | None]:
        """Read the backend's nodes by name. ``error`` is blkback's error node, ``vm`` the guest's."""
        paths = {name: f"{self.key.backend}/{name}" for name in names}
        if "error" in paths:
            paths["error"] = f"{self.key.backend_error}/error"
        if "vm" in paths:
            paths["vm"] = f"/local/domain/{self.key.domid}/vm"
        values = store.read_many(paths.values())
        return {name: values[path] for name, path in paths.items()}

    def _check_nodes(self, nodes: dict[str, str | None]) -> None:
        if nodes["params"] is None or nodes["mode"] is None:
            raise GuestError(
                "the disk's nodes are not there: the guest has ended, or the disk is being detached",
                device=self.key.backend,
            )
        vbd_nodes.check_nodes(self.key, nodes)
        if nodes["frontend-id"] != str(self.key.domid):
            raise GuestError(
                f"the node names domain {nodes['frontend-id']} as the guest, not domain {self.key.domid}",
                device=f"{self.key.backend}/frontend-id",
            )

    def _check_same(self) -> None:
        """
        Handle a second call for a vbd that has a device: succeed if it is the same one, else raise
        DeviceBusy. The device of a running guest is never replaced, and blkback would ignore a new number.
        """
        nodes, known = self.nodes, state.read(self.key)
        if (
            known is None
            or any(
                known.get(name) != value
                for name, value in (
                    ("target", nodes["params"]),
                    ("physical-device", nodes["physical-device"]),
                    ("diskseq", nodes["diskseq"]),
                )
            )
            or nodes["hotplug-status"] != "connected"
        ):
            raise DeviceBusy(
                f"the disk has a device already ({nodes['physical-device']}), which cannot be changed",
                device=self.key.backend,
                hint="Detach it first",
            )

    def _hand_over(self, device: Device) -> None:
        mode = self.nodes["mode"] or ""
        guest = _guest.Guest(self.key.domid, _guest.uuid_of(self.nodes["vm"]) or "", None)
        request = _Request(
            self.key,
            guest,
            device,
            "w" if "w" in mode else "r",
            self.nodes["dev"] or str(self.key.devid),
        )
        device.prove()
        if gone.exists(_SEALS):
            from .._block.seal import blkback  # rarely needed, so imported here to save start-up time

            blkback.let_open([device.id[:2]], _OPENING)
        with _sharing.Sharing(stack.questions(self.resources)) as sharing:
            if not self.is_shared:
                sharing.prepare(request)

            def write(tx: Nodes) -> None:
                self.link.needed = False
                self._prove_in(tx, guest)
                if not self.is_shared:
                    sharing.guard(tx, request)
                self.link.needed = True
                tx.write_many({f"{self.key.backend}/{name}": value for name, value in self.identity.items()})

            self.link.transaction(self.store, write, self.limit)
        self._wait_opened(device)
        self.link.needed = False

    def _prove_in(self, tx: Nodes, guest: _guest.Guest) -> None:
        """
        Check in the transaction that the vbd and the guest are still the same and that no other device was
        written. Nodes written to a removed vbd would be left behind for ever.
        """
        if self.link.is_alone:
            raise GuestError("the script was killed in the meantime", device=self.key.backend)
        now = self._read(tx, "params", "mode", "frontend-id", "physical-device", "state", "vm")
        if any(
            now[name] != self.nodes[name] for name in ("params", "mode", "frontend-id", "physical-device")
        ):
            raise GuestError("the disk was detached or changed meanwhile", device=self.key.backend)
        if now["state"] in _GIVEN_UP:
            raise GuestError(
                f"the disk is being detached, or the guest has closed it (state {now['state']})",
                device=self.key.backend,
            )
        if self.key.domid:
            # Domain 0, to which a disk is attached for a boot loader (pygrub), has no such node and does not
            # end.
            _guest.prove_vm(now["vm"], guest)
        if self.nodes["error"] is not None:
            # Left by an earlier disk; it would be taken for an error of this one.
            tx.remove(self.key.backend_error)

    def _wait_opened(self, device: Device) -> None:
        waited_for = "blkback to open the device"
        patience = Deadline(_PATIENCE)
        for pause in pauses(0.001, 0.02):
            late = self.limit.expired
            found = opened_number(self.key)
            if found is None and not late and not patience.expired:
                self.limit.sleep(pause)
                continue
            # Even after the limit, xenstored gets some time, so that the error tells what blkback has not
            # done rather than that XenStore timed out.
            with self.store.within(Deadline(max(self.limit.left(), _LAST_LOOK))) as limit:
                if found is not None:
                    if found != (device.id.major, device.id.minor):
                        raise WrongDevice(
                            f"blkback opened {found[0]}:{found[1]} instead of {device.id.number}",
                            device=device.path,
                        )
                    device.prove()
                    if self.seal and self.sealed is None:
                        self._seal(device)
                    if self.link.transaction(self.store, lambda tx: self._finish_in(tx, device), limit):
                        return
                    waited_for = "blkback to open the device (the node opened is 0)"
                else:
                    self._check_alive(self.store, device)
            if late:
                raise self.limit.exceeded(waited_for, device=device.path, hint=_HINT)
            self.limit.sleep(pause)

    def _check_seal(self) -> None:
        """Raise an error if the device could not be sealed, before anything is made."""
        if self.store.read(f"/libxl/{self.key.domid}/type") == "hvm":
            raise InvalidValue(
                "target",
                self.nodes["params"],
                "is not possible for an HVM guest: its device model opens the disk too, and a seal would "
                "refuse that. Leave out sealed:, or set sealed=false with racefree.block.xl_disk",
            )
        from .._block.seal import seals  # imported here to save start-up time for disks that are not sealed

        seals.probe()

    def _seal(self, device: Device) -> None:
        """Seal the device, which blkback has open by now."""
        from .._block.seal import reason_text, seals  # imported here to save start-up time

        number = device.id.major, device.id.minor, device.id.diskseq
        reason = reason_text.of_vbd(self.key.domid, self.key.devid)
        self.sealed = number
        seals.seal(*number, reason=reason)
        if self.seal == target.SEALED_BELOW:
            seals.seal_below(*number, reason)

    def _unseal(self) -> None:
        """Lift the seal after a failure. If that fails, it ends when the disk's backend is gone."""
        if self.sealed is None:
            return
        from .._block.seal import reason_text, seals  # imported here to save start-up time

        try:
            seals.lift(*self.sealed, reason_text.of_vbd(self.key.domid, self.key.devid))
        except (BlockError, OSError):
            pass

    def _finish_in(self, tx: Nodes, device: Device) -> bool:
        """
        Set hotplug-status to connected and return True. If the backend offers the node opened and it says
        that the device is not open, return False.
        """
        if self._check_alive(tx, device)["opened"] == "0":
            return False
        tx.write(f"{self.key.backend}/hotplug-status", "connected")
        return True

    def _check_alive(self, store: Nodes, device: Device) -> dict[str, str | None]:
        """The nodes. Raises GuestError if the backend will never open this device."""
        now = self._read(store, "state", "physical-device", "opened", "error")
        vbd_nodes.check_nodes(self.key, {"opened": now["opened"]})
        if now["error"] is not None or now["state"] in _GIVEN_UP:
            reason = now["error"] or "no reason was given"
            raise GuestError(
                f"the backend rejected {device.path}: {reason}", device=self.key.backend, hint=_HINT
            )
        if now["physical-device"] != self.identity["physical-device"]:
            raise GuestError(
                "its nodes were removed or changed: the guest ended, or someone detached the disk",
                device=self.key.backend,
            )
        return now

    def _take_back_in(self, tx: Nodes, text: str) -> None:
        if self.identity:
            now = self._read(tx, *self.identity)
            for name, value in self.identity.items():
                if now[name] == value:
                    tx.remove(f"{self.key.backend}/{name}")
        self._say_in(
            tx,
            {"hotplug-error": text} if self.is_served else {"hotplug-error": text, "hotplug-status": "error"},
        )

    def _say_in(self, tx: Nodes, values: dict[str, str]) -> None:
        """Write nodes, but only if the vbd still exists."""
        if self._read(tx, "frontend-id")["frontend-id"] == str(self.key.domid):
            tx.write_many({f"{self.key.backend}/{name}": value for name, value in values.items()})


class _Resources:
    """Context manager that opens device-mapper's Control on first use, for ``_xen.stack.questions``."""

    def __init__(self) -> None:
        self._dm: Control | None = None

    def __enter__(self) -> _Resources:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._dm is not None:
            self._dm.__exit__(*exc)

    @property
    def dm(self) -> Control:
        if self._dm is None:
            from .._dm import control

            self._dm = control.Control()
        return self._dm
