# SPDX-License-Identifier: Apache-2.0
"""The words of an MQTT connection: where it goes, what it hears, what comes, and what can go wrong."""

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


class MqttError(Exception):
    """The broker or the way to it did not take a request."""


class NotConnected(MqttError):
    """There is no connection, or it broke before the answer. Try again later.

    `code` is the reason code of the broker's DISCONNECT; 0 where it gave none.
    """

    def __init__(self, reason: str, code: int = 0) -> None:
        super().__init__(reason)
        self.code = code


class Refused(MqttError):
    """The broker answered with a failure code, kept in `code`."""

    def __init__(self, what: str, code: int, name: str) -> None:
        super().__init__(f"{what}: 0x{code:02x} {name}")
        self.code = code


class NobodySubscribed(MqttError):
    """The broker took the message and dropped it: no subscription matched."""


class ClosedWhenRefused(ssl.SSLSocket):
    """Closed where a connection ends before or in its handshake; else the garbage collector would find it."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: D102 - ssl's own
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:  # noqa: D102 - ssl's own
        try:
            return super().recv(buflen, flags)
        except ConnectionError:
            # Reset before the handshake: Python 3.11 looks like this whether anybody is there.
            if self._sslobj is None:  # type: ignore[attr-defined]
                self.close()
            raise


class TlsContext(Protocol):
    """Who makes the TLS context of the next connection."""

    def context(self) -> ssl.SSLContext:
        """Called once for each connection. May raise OSError or ValueError: the connection then fails, with that text."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Files for TLS. Certificate and key make it mutual."""

    ca_file: Path
    certificate_file: Path | None = None
    key_file: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Reads the files anew, so that a renewed certificate is used at the next connection."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        context.sslsocket_class = ClosedWhenRefused
        if self.certificate_file:
            context.load_cert_chain(self.certificate_file, self.key_file)
        return context


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the broker is and who we are to it. `role` stands for the client id in metrics; give each one of its own."""

    host: str
    port: int
    client_id: str
    username: str | None = None
    password_file: Path | None = None
    tls: TlsContext | None = None
    role: str = "other"


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker says of us, retained, when we vanish, or leave without a last word."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Subscriptions:
    """What we hear.

    Attributes:
        topics: topic filters, QoS 1.
        manual_ack: the receiver calls `acknowledge` for each message, after it is safe.
        session_expiry_s: how long the broker keeps the session, and what is queued in it, while we are away.
        receive_maximum: messages that may be unacknowledged at once; a commit can't group more than this.
        optional: a broker that refuses to subscribe us is told in the log, and the session goes on without.
    """

    topics: Sequence[str] = ()
    manual_ack: bool = False
    session_expiry_s: int = 0
    receive_maximum: int = 200
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it came. `session` ties its acknowledgement to the connection that brought it."""

    topic: str
    payload: bytes
    qos: int
    packet_id: int
    retain: bool
    user_properties: Mapping[str, str]
    session: object = field(repr=False)
