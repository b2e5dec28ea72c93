# SPDX-License-Identifier: Apache-2.0
"""The uplink's CA, certificate and key from files, watched: what is renewed there is used without a restart.

Files are looked at by what is in them, so that a bind mount, a swapped symlink and a file written in place are all the
same. What can't be used (half written, a key of another certificate) is told and changes nothing: the session goes on,
and the next one begins with what was good. A renewed pair that the cloud does not take is tried by turns with the one
before it.
"""

import asyncio
import hashlib
import logging
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import Gauge

from linewatch_forwarder.uplinks import files
from linewatch_runtime.mqtt import Tls

log = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0

WARN_BELOW_DAYS = 14.0
"""Time enough for a person to notice, and to renew."""

_UNUSABLE = Gauge(
    "linewatch_forwarder_certificate_unusable", "1 while the uplink's certificate files can't be used"
)

_IGNORE_DATES = 0x20_0000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL's x509_vfy.h, which Python's ssl has no name for."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """What was in the files at one moment. `expires_at` is in seconds since 1970."""

    context: ssl.SSLContext
    digest: str
    expires_at: float


class Certificates:
    """Makes the TLS context of each connection to the cloud (linewatch_runtime.mqtt.TlsContext)."""

    def __init__(
        self, ca_file: Path, certificate_file: Path, key_file: Path,
        clock: Callable[[], float] = time.time, look_every_s: float = LOOK_EVERY_S,
    ) -> None:  # fmt: skip
        """Raises ValueError, with the variable and the remedy, when the files can't be used."""
        self._files = (ca_file, certificate_file, key_file)
        self._clock = clock
        self._look_every_s = look_every_s
        self._pair = _pair(*self._files)
        self._before: _Pair | None = None  # what the cloud took last, while it has not taken `_pair` yet
        self._offered = self._pair
        self._only_before = False
        self._told = ""
        self._unusable = ""
        _UNUSABLE.set_function(lambda: float(bool(self._unusable)))

    @property
    def days_left(self) -> float:
        """Of the certificate that the newest good files hold, by the wall clock; below 0 it has expired."""
        return (self._pair.expires_at - self._clock()) / 86_400

    @property
    def trouble(self) -> str:
        """What a person should do about the files; empty where nothing is to do."""
        if self._unusable:
            return f"the certificate files can't be used, and what was in them before stays in use: {self._unusable}"
        day = time.strftime("%Y-%m-%d", time.gmtime(self._pair.expires_at))
        if self.days_left <= 0:
            return f"the uplink's certificate expired on {day}; put a new one, with its key, in place of it"
        if self.days_left < WARN_BELOW_DAYS:
            return f"the uplink's certificate expires on {day}; renew it"
        if self._only_before:
            return "the cloud takes the certificate before the present one only; is the present one active?"
        return ""

    def context(self) -> ssl.SSLContext:
        """Of the newest good pair; until the cloud has taken it, by turns with the pair that it took before."""
        turn_of_before = self._before is not None and self._offered is self._pair
        self._offered = self._before if self._before is not None and turn_of_before else self._pair
        return self._offered.context

    def accepted(self) -> None:
        """The cloud took what `context` gave last."""
        self._only_before = self._offered is not self._pair
        if not self._only_before:
            self._before = None

    async def watch(self, renewed: Callable[[], Awaitable[None]]) -> None:
        """Calls `renewed` after each change to a pair that can be used, until it is cancelled."""
        while True:
            await asyncio.sleep(self._look_every_s)
            if self._take(await asyncio.to_thread(self._read)):
                await renewed()

    def _read(self) -> _Pair | str:
        """What is in the files now, or why it can't be used."""
        try:
            found = _pair(*self._files)
            return self._pair if found.digest == self._pair.digest else found
        except (OSError, ValueError) as error:
            return str(error) or type(error).__name__

    def _take(self, found: _Pair | str) -> bool:
        """Whether that is something new to use."""
        if isinstance(found, str):
            # Said at the second look: certificate and key can't be written in one moment.
            if found == self._told != self._unusable:
                log.error("certificates_unusable", extra={"reason": found})
                self._unusable = found
            self._told = found
            return False
        self._told = self._unusable = ""
        if found is self._pair:
            return False
        self._before = self._before or self._pair
        self._pair, self._offered, self._only_before = (
            found,
            self._before,
            False,
        )  # so `found` is offered first
        log.info("certificates_renewed", extra={"days_left": round(self.days_left, 1)})
        return True


def _pair(ca_file: Path, certificate_file: Path, key_file: Path) -> _Pair:
    """Raises ValueError when the files can't be used, or change while they are read."""
    files.check(ca_file, certificate_file, key_file)  # first: it names what is missing, and the remedy
    digest = _digest(ca_file, certificate_file, key_file)
    context = Tls(ca_file, certificate_file, key_file).context()
    expires_at = _expires_at(certificate_file, key_file)
    if _digest(ca_file, certificate_file, key_file) != digest:
        raise ValueError("the files are being written")
    return _Pair(context, digest, expires_at)


def _digest(*paths: Path) -> str:
    whole = hashlib.sha256()
    for path in paths:
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def _expires_at(certificate_file: Path, key_file: Path) -> float:
    """Seconds since 1970. Python's ssl tells a certificate's dates of a peer only: so both ends of a handshake in memory
    have it, and trust it alone. Raises ValueError when that does not come about.
    """
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode, server.verify_mode = False, ssl.CERT_NONE, ssl.CERT_REQUIRED
    server.load_verify_locations(cafile=certificate_file)
    server.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(_IGNORE_DATES)
    for context in (server, client):
        context.load_cert_chain(certificate_file, key_file)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True))
    try:
        for _ in range(3):  # two flights each way, and one to spare
            for side in sides:
                _go_on(side)
        peer = sides[1].getpeercert()
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(f"{certificate_file}: {error}") from error
    if not peer:
        raise ValueError(f"{certificate_file}: its dates can't be read")
    return float(ssl.cert_time_to_seconds(str(peer["notAfter"])))


def _go_on(side: ssl.SSLObject) -> None:
    """Goes on with a handshake as far as it gets."""
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return
