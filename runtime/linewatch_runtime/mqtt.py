# SPDX-License-Identifier: Apache-2.0
"""An MQTT 5 connection that comes back by itself, over paho-mqtt.

Each session has a client object of its own. An acknowledgement goes to the client that received the message, so one
that comes late, after a reconnect, can't acknowledge a new message that happens to have the same packet id; that
mistake lost 5 of 5 messages in a trial. The broker sends the old one again instead.

`publish` returns only for a reason code that means the broker has the message and somebody for it: codes from 0x80
are refusals, and 0x10 is a success code for a message that nobody was subscribed to, which is gone.
"""

import asyncio
import contextlib
import logging
import random
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from linewatch_runtime.lifecycle import in_daemon_thread

log = logging.getLogger(__name__)

NO_MATCHING_SUBSCRIBERS = 0x10
FIRST_FAILURE = 0x80
SESSION_TAKEN_OVER = 0x8E

CONNECT_TIMEOUT_S = 10.0
PUBLISH_TIMEOUT_S = 10.0
LONGEST_BACKOFF_S = 15.0
KEEPALIVE_S = 20
SHORT_SESSION_S = 2.0
SHORT_SESSIONS = 5
"""Sessions in a row that ended within SHORT_SESSION_S: most likely two processes share a client id, and each one's
connect ends the other's session. Few brokers say so: mosquitto 2.0.11 and rumqttd just close."""


class MqttError(Exception):
    """The broker or the way to it did not take a request."""


class NotConnected(MqttError):
    """There is no connection, or it broke before the answer. Try again later."""


class Refused(MqttError):
    """The broker answered with a failure code, kept in `code`."""

    def __init__(self, what: str, code: int, name: str) -> None:
        super().__init__(f"{what}: 0x{code:02x} {name}")
        self.code = code


class NobodySubscribed(MqttError):
    """The broker took the message and dropped it: no subscription matched."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Files for TLS. Certificate and key make it mutual."""

    ca_file: Path
    certificate_file: Path | None = None
    key_file: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Reads the files anew, so that a renewed certificate is used at the next connection."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        if self.certificate_file:
            context.load_cert_chain(self.certificate_file, self.key_file)
        return context


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the broker is and who we are to it."""

    host: str
    port: int
    client_id: str
    username: str | None = None
    password_file: Path | None = None
    tls: Tls | None = None


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker says of us, retained, when we vanish."""

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


class Connection:
    """Keeps one session with a broker. Run `run()` as a task; use the rest from the same event loop."""

    def __init__(
        self, endpoint: Endpoint, subscriptions: Subscriptions | None = None, will: Will | None = None
    ) -> None:
        self.endpoint = endpoint
        self._subscriptions = subscriptions or Subscriptions()
        self._will = will
        self._client: paho.Client | None = None
        self._pending: dict[int, asyncio.Future[ReasonCode]] = {}
        self._ended: asyncio.Future[str] | None = None
        self._trouble = ""
        self.connected = asyncio.Event()
        """Set while publishing is possible."""
        self.messages: asyncio.Queue[Message] = asyncio.Queue()
        """What came in. Bounded by the broker: it sends no more than `receive_maximum` unacknowledged."""
        self.on_connected: Callable[[], None] = lambda: None
        """Called in the event loop at each new session, before `connected` is set."""

    @property
    def trouble(self) -> str:
        """Why there is no connection, for people; empty while there is one."""
        return self._trouble

    async def run(self) -> None:
        """Connects, and connects again with full jitter, until it is cancelled."""
        attempt = short = 0
        while True:
            started = time.monotonic()
            try:
                await self._session()
                attempt = 0
                short = short + 1 if time.monotonic() - started < SHORT_SESSION_S else 0
                if short == SHORT_SESSIONS:
                    hint = f"does another process use the client id {self.endpoint.client_id}?"
                    log.error("mqtt_sessions_short", extra={"broker": self._broker, "reason": hint})
            except (OSError, MqttError, TimeoutError, ValueError) as error:
                reason = str(error) or type(error).__name__
                if reason != self._trouble:
                    log.warning("mqtt_unreachable", extra={"broker": self._broker, "reason": reason})
                self._trouble = reason
            attempt = min(attempt + 1, 8)
            await asyncio.sleep(random.uniform(0.05, min(LONGEST_BACKOFF_S, 0.25 * 2**attempt)))  # noqa: S311

    async def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, needs_subscriber: bool = False,
        user_properties: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Publishes with QoS 1 and returns once the broker has acknowledged.

        Raises:
            NotConnected: no connection, or it broke first, or no answer in PUBLISH_TIMEOUT_S.
            NobodySubscribed: `needs_subscriber`, and no subscription matched: the message is gone.
            Refused: the broker's access list or a limit does not allow it.
        """
        if self._client is None or not self.connected.is_set():
            raise NotConnected(self._broker)
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if user_properties:
            properties.UserProperty = list(user_properties.items())
        sent = self._client.publish(topic, payload, qos=1, retain=retain, properties=properties)
        if sent.rc != paho.MQTT_ERR_SUCCESS:
            raise NotConnected(paho.error_string(sent.rc))
        answer: asyncio.Future[ReasonCode] = asyncio.get_running_loop().create_future()
        self._pending[sent.mid] = answer
        try:
            # Not wait_for: in Python 3.11 it swallows a cancellation that comes together with the answer.
            async with asyncio.timeout(PUBLISH_TIMEOUT_S):
                code = await answer
        except TimeoutError:
            # A broker that takes packets and answers none is as good as gone: start over with a new session.
            reason = f"{self._broker} did not acknowledge in {PUBLISH_TIMEOUT_S:g} s"
            self._give_up(reason)
            raise NotConnected(reason) from None
        finally:
            self._pending.pop(sent.mid, None)
        if code.value >= FIRST_FAILURE:
            raise Refused(f"publish to {topic}", code.value, code.getName())
        if needs_subscriber and code.value == NO_MATCHING_SUBSCRIBERS:
            raise NobodySubscribed(topic)

    def acknowledge(self, message: Message) -> None:
        """Acknowledges a message of this session; one of an earlier session is left for the broker to send again."""
        if self._client is not None and message.session is self._client and message.qos > 0:
            self._client.ack(message.packet_id, message.qos)

    def _give_up(self, reason: str) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(reason)

    @property
    def _broker(self) -> str:
        return f"{self.endpoint.host}:{self.endpoint.port}"

    async def _session(self) -> None:
        """One connection from CONNECT to its end."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[str] = loop.create_future()
        self._ended = ended
        accepted: asyncio.Future[None] = loop.create_future()
        client = self._new_client(loop, accepted, ended)
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = self._subscriptions.session_expiry_s
        properties.ReceiveMaximum = self._subscriptions.receive_maximum
        clean = self._subscriptions.session_expiry_s == 0
        self._client = client
        try:
            at = (self.endpoint.host, self.endpoint.port, KEEPALIVE_S)
            await in_daemon_thread(lambda: client.connect(*at, clean_start=clean, properties=properties))
            client.loop_start()
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await accepted
            log.info("mqtt_connected", extra={"broker": self._broker, "client_id": self.endpoint.client_id})
            self._trouble = ""
            self.on_connected()
            self.connected.set()
            reason = await ended
            self._trouble = reason
            log.warning("mqtt_disconnected", extra={"broker": self._broker, "reason": reason})
        finally:
            self.connected.clear()
            self._client = None
            for answer in self._pending.values():
                if not answer.done():
                    answer.set_exception(NotConnected(f"{self._broker}: the connection broke"))
            with contextlib.suppress(ValueError):
                client.disconnect()
            await asyncio.shield(asyncio.to_thread(client.loop_stop))
            if (left_open := client.socket()) is not None:  # paho closes it only when it is collected
                left_open.close()

    def _new_client(
        self, loop: asyncio.AbstractEventLoop, accepted: asyncio.Future[None], ended: asyncio.Future[str]
    ) -> paho.Client:
        client = paho.Client(
            CallbackAPIVersion.VERSION2, self.endpoint.client_id, protocol=paho.MQTTv5,
            manual_ack=self._subscriptions.manual_ack, reconnect_on_failure=False,
        )  # fmt: skip
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(self._subscriptions.receive_maximum)
        if self.endpoint.username:
            secret = self.endpoint.password_file.read_text().strip() if self.endpoint.password_file else None
            client.username_pw_set(self.endpoint.username, secret)
        if self.endpoint.tls:
            client.tls_set_context(self.endpoint.tls.context())
        if self._will:
            client.will_set(self._will.topic, self._will.payload, qos=1, retain=True)

        def from_thread(function: Callable[..., None], *arguments: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process is ending
                loop.call_soon_threadsafe(function, *arguments)

        def connected(_c: object, _u: object, _flags: object, code: ReasonCode, _p: object) -> None:
            from_thread(self._on_connect, client, accepted, code)

        def subscribed(_c: object, _u: object, _mid: int, codes: list[ReasonCode], _p: object) -> None:
            from_thread(_on_subscribe, accepted, codes, self._subscriptions)

        def received(_c: object, _u: object, message: paho.MQTTMessage) -> None:
            from_thread(self.messages.put_nowait, _message(message, client))

        def published(_c: object, _u: object, mid: int, code: ReasonCode, _p: object) -> None:
            from_thread(self._on_publish, mid, code)

        def disconnected(_c: object, _u: object, _flags: object, code: ReasonCode, _p: object) -> None:
            from_thread(_on_disconnect, accepted, ended, code)

        client.on_connect = connected
        client.on_subscribe = subscribed
        client.on_message = received
        client.on_publish = published
        client.on_disconnect = disconnected
        return client

    def _on_connect(self, client: paho.Client, accepted: asyncio.Future[None], code: ReasonCode) -> None:
        if accepted.done():
            return
        if code.value >= FIRST_FAILURE:
            accepted.set_exception(Refused("connect", code.value, code.getName()))
        elif self._subscriptions.topics:
            options = SubscribeOptions(qos=1)
            client.subscribe([(topic, options) for topic in self._subscriptions.topics])
        else:
            accepted.set_result(None)

    def _on_publish(self, mid: int, code: ReasonCode) -> None:
        answer = self._pending.get(mid)
        if answer is not None and not answer.done():
            answer.set_result(code)


def _on_subscribe(accepted: asyncio.Future[None], codes: list[ReasonCode], wanted: Subscriptions) -> None:
    if accepted.done():
        return
    refused = next((code for code in codes if code.value >= FIRST_FAILURE), None)
    if refused is not None and wanted.optional:
        log.warning("mqtt_not_subscribed", extra={"topics": list(wanted.topics), "reason": refused.getName()})
        accepted.set_result(None)
    elif refused is not None:
        accepted.set_exception(Refused("subscribe", refused.value, refused.getName()))
    else:
        accepted.set_result(None)


def _on_disconnect(accepted: asyncio.Future[None], ended: asyncio.Future[str], code: ReasonCode) -> None:
    reason = code.getName()
    if code.value == SESSION_TAKEN_OVER:
        log.error("mqtt_client_id_taken", extra={"reason": "another process connects with this client id"})
    if not accepted.done():
        accepted.set_exception(NotConnected(reason))
    if not ended.done():
        ended.set_result(reason)


def _message(message: paho.MQTTMessage, client: paho.Client) -> Message:
    pairs = getattr(message.properties, "UserProperty", None) or []
    return Message(
        message.topic, bytes(message.payload), message.qos, message.mid, message.retain, dict(pairs), client
    )
