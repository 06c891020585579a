# Copyright (c) 2026, The racefree.block contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""
Calls to libvirt, each with a deadline. Its errors are converted to the collection's errors.

Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
"""

from __future__ import annotations

import contextlib
import threading
import traceback
import urllib.parse
from typing import Any, Callable, NamedTuple, TypeVar

from .._base.deadline import Deadline
from .._base.errors import DeadlineExceeded, GuestError, InvalidValue, NotSupported
from . import kept
from .handles import Connection, DomainHandle

try:
    import libvirt as _library
except ImportError:
    # Tests and the modules of this package import the library from here.
    libvirt: Any = None
    LIBVIRT_IMPORT_ERROR: str | None = traceback.format_exc()
else:
    libvirt = _library
    LIBVIRT_IMPORT_ERROR = None
    # Without an error handler, libvirt also prints every error to standard error.
    libvirt.registerErrorHandler(lambda context, error: None, None)

T = TypeVar("T")
URI = "xen:///system"
_HINT = "Check that the daemon (libvirtd, or virtxend or virtqemud) runs and answers: virsh list"

_NOT_ASKED = "libvirt was not asked for anything in this step. Set a larger timeout"


class Definition(NamedTuple):
    """
    A domain of libvirt. ``xml``: its inactive definition, None for a transient domain. ``live``: its active
    definition, None if the domain is not running. ``run``: libvirt's id of the run that it was found in,
    negative if it was not running.
    """

    name: str
    uuid: str
    xml: str | None
    live: str | None
    run: int = -1


class NotAsked(DeadlineExceeded):
    """No time was left for a call to libvirt, so it was not made."""

    def __init__(self, limit: Deadline, device: object) -> None:
        super().__init__(
            "the steps before a call to libvirt", limit.seconds or 0, device=str(device), hint=_NOT_ASKED
        )


def require() -> None:
    """Raise NotSupported if libvirt-python is missing."""
    if libvirt is None:
        raise NotSupported(
            "the Python library libvirt is missing on this host",
            hint="Install python3-libvirt (Debian), or libvirt-python from PyPI, for the Python that Ansible "
            "uses there",
        )


def read(uri: str, domain: str, limit: Deadline) -> Definition:
    """The Definition of the domain with this name or UUID. GuestError if there is none."""
    return with_connection(uri, limit, domain, lambda connection: read_on(connection, domain), reads=True)


def uuid_of(uri: str, domain: str, limit: Deadline) -> tuple[str, bool]:
    """
    The UUID of the domain with this name or UUID, and whether it runs. Faster than :func:`read`, for which
    libvirt writes its definitions. GuestError if there is none.
    """

    def ask(connection: Connection) -> tuple[str, bool]:
        found = _look_up(connection, domain)
        return found.UUIDString(), bool(found.isActive())

    return with_connection(uri, limit, domain, ask, reads=True)


def read_all(uri: str, limit: Deadline) -> list[Definition]:
    """
    The Definitions of all domains, sorted by name, without passwords. A domain that goes away meanwhile is
    left out. Raises GuestError or DeadlineExceeded.
    """

    def read_each(connection: Connection) -> list[Definition]:
        found = []
        for domain in connection.listAllDomains(0):
            try:
                found.append(_definition(domain, 0))
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                    raise
        return sorted(found, key=lambda definition: definition.name)

    return with_connection(uri, limit, uri, read_each, reads=True)


def driver_of(uri: str) -> tuple[str, str, str]:
    """
    The driver and host that a connection URI leads to, as a value to compare. libvirt's Xen driver has one
    instance per host, whatever the path is.

    The transport (``xen+ssh://``) and the parameters make no difference (docs/uri.rst of libvirt).
    """
    try:
        parts = urllib.parse.urlsplit(uri)
    except ValueError:
        # libvirt reports what is wrong with the URI.
        return uri, "", ""
    driver = parts.scheme.partition("+")[0].lower()
    return driver, parts.netloc.rpartition("@")[2].lower(), "" if driver == "xen" else parts.path.rstrip("/")


def is_xen(uri: str) -> bool:
    return driver_of(uri)[0] == "xen"


def is_xen_here(uri: str) -> bool:
    """Whether the URI leads to this host's guests of Xen. The devices of another host are others."""
    return driver_of(uri)[:2] == ("xen", "")


def is_qemu_here(uri: str) -> bool:
    """Whether the URI leads to this host's QEMU guests, whose processes can be looked at."""
    return driver_of(uri) == ("qemu", "", "/system")


def daemon_version(limit: Deadline, uri: str = URI) -> int:
    """
    The version of the daemon's library as a number (major * 1,000,000 + minor * 1,000 + release); GuestError.
    """

    def ask() -> int:
        connection: Connection = libvirt.openReadOnly(uri)
        try:
            return connection.getLibVersion()
        finally:
            connection.close()

    return bounded(ask, limit, uri)


def with_connection(
    uri: str, limit: Deadline, device: object, function: Callable[[Connection], T], reads: bool = False
) -> T:
    """
    Call ``function(connection)`` within the Deadline ``limit``, on a new connection, or on one that was kept
    open (``kept``). ``device`` is for messages.

    ``reads``: the function changes nothing, so it may be called again. A kept connection is then used without
    asking first whether the daemon has closed it, which takes as long as any other question.
    """
    require()

    def call() -> T:
        pool = kept.current()
        old = None if pool is None else pool.take(uri)
        if old is not None and (reads or _answers(old)):
            with contextlib.suppress(_Lost):
                return _use(pool, uri, old, function, may_be_lost=reads)
        return _use(pool, uri, _open(uri), in_time)

    def in_time(connection: Connection) -> T:
        # Connecting may have taken all the time, so nobody waits for the answer any more.
        if limit.expired:
            raise NotAsked(limit, device)
        return function(connection)

    return bounded(call, limit, device)


class _Lost(Exception):
    """The daemon has closed a connection that was kept."""


def _use(
    pool: kept.KeptConnections | None,
    uri: str,
    connection: Connection,
    function: Callable[[Connection], T],
    may_be_lost: bool = False,
) -> T:
    """Call the function, and keep the connection, or close it after an error. Raises _Lost if it may."""
    is_kept = is_lost = False
    try:
        value = function(connection)
        is_kept = pool is not None and pool.put(uri, connection)
    except libvirt.libvirtError as error:
        is_lost = may_be_lost and not _answers(connection)
        if is_lost:
            raise _Lost from error
        raise
    finally:
        if not is_kept and not is_lost:
            connection.close()
    return value


def _answers(connection: Connection) -> bool:
    """Whether the daemon has not closed the connection, for example because it was started again."""
    try:
        connection.getLibVersion()
    except libvirt.libvirtError:
        return False
    return True


def _open(uri: str) -> Connection:
    try:
        connection: Connection = libvirt.open(uri)
    except libvirt.libvirtError as error:
        if error.get_error_code() in (libvirt.VIR_ERR_INVALID_ARG, libvirt.VIR_ERR_CONF_SYNTAX):
            raise InvalidValue("uri", uri, f"is refused by libvirt: {error.get_error_message()}") from error
        raise GuestError(f"cannot connect to {uri}: {error.get_error_message()}", hint=_HINT) from error
    return connection


def bounded(function: Callable[[], T], limit: Deadline, device: object) -> T:
    """
    Call the function in a thread, which is abandoned if the call takes too long: calls to libvirt wait for
    the daemon without a timeout.

    The call in an abandoned thread may still succeed, so the caller must check the state before it does
    anything else. Raises NotAsked, and calls nothing, if no time is left.
    """
    if limit.expired:
        raise NotAsked(limit, device)
    result: dict[str, Any] = {}

    def run() -> None:
        try:
            result["value"] = function()
        except Exception as error:  # pylint: disable=broad-exception-caught
            result["error"] = error

    thread = threading.Thread(target=run, daemon=True, name="libvirt")
    thread.start()
    thread.join(None if limit.left() == float("inf") else limit.left())
    if thread.is_alive():
        raise DeadlineExceeded(
            "libvirt to do what it was asked", limit.seconds or 0, device=str(device), hint=_HINT
        )
    if "error" in result:
        error = result["error"]
        if not isinstance(error, libvirt.libvirtError):
            raise error
        raise GuestError(f"libvirt refused: {error.get_error_message()}", device=str(device)) from error
    value: T = result["value"]
    return value


def read_on(connection: Connection, wanted: str) -> Definition:
    """:func:`read` on a connection. Raises libvirt's own errors, too."""
    # Read the definition with its passwords: without them, defining it again would remove them.
    return _definition(_look_up(connection, wanted), libvirt.VIR_DOMAIN_XML_SECURE)


def _definition(domain: DomainHandle, flags: int) -> Definition:
    """The Definition of a domain; ``flags`` for its texts."""
    is_active = domain.isActive()
    # libvirt knows an inactive domain only because it has a definition: each question takes its time.
    has_xml = not is_active or domain.isPersistent()
    xml = domain.XMLDesc(flags | libvirt.VIR_DOMAIN_XML_INACTIVE) if has_xml else None
    live = domain.XMLDesc(flags) if is_active else None
    return Definition(domain.name(), domain.UUIDString(), xml, live, domain.ID())


def look_up_run(connection: Connection, uuid: str, run: int, device: object) -> DomainHandle:
    """
    The domain, to be changed while this run of it lasts: the next one has disks of its own. ``device`` is for
    messages. GuestError if the run has ended. Raises libvirt's own errors, too.

    A handle keeps the id that the domain had when it was looked up, but its calls find the domain by its
    UUID.
    """
    domain = connection.lookupByUUIDString(uuid)
    if domain.ID() != run:
        raise started_again(device, "Nothing was done in this step")
    return domain


def started_again(device: object, now: str) -> GuestError:
    """The error for a guest that is not in the same run any more. ``now``: what holds, as a sentence."""
    return GuestError(
        "the guest has ended, or was started again meanwhile",
        device=str(device),
        hint=f"{now}. Run the task again",
    )


def _look_up(connection: Connection, wanted: str) -> DomainHandle:
    for look in (connection.lookupByName, connection.lookupByUUIDString):
        try:
            return look(wanted)
        except libvirt.libvirtError as error:
            if error.get_error_code() not in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_INVALID_ARG):
                raise
    raise GuestError(
        "libvirt knows no domain of this name or uuid",
        device=wanted,
        hint=f"virsh -c {connection.getURI()} list --all shows those it knows",
    )
