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
import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from linewatch_runtime.lifecycle import in_daemon_thread, to_the_end
from linewatch_runtime.mqtt_client import (
    CONNECT_TIMEOUT_S,
    MOST_IN_FLIGHT,
    SessionClient,
    message_of,
    new_client,
    packet_size,
)
from linewatch_runtime.mqtt_sessions import Sessions
from linewatch_runtime.mqtt_words import (
    Endpoint,
    Message,
    MqttError,
    NobodySubscribed,
    NotConnected,
    Refused,
    Subscriptions,
    Tls,
    TlsContext,
    Will,
)

log = logging.getLogger(__name__)

NO_MATCHING_SUBSCRIBERS = 0x10
FIRST_FAILURE = 0x80
PROTOCOL_ERROR = 0x82
TOPIC_NAME_INVALID = 0x90
PACKET_TOO_LARGE = 0x95

PUBLISH_TIMEOUT_S = 10.0
SLOWEST_BYTES_PER_S = 4 * 1024
"""Half of what a way of 64 kbit/s carries; what is on its way gets time by it. Without, a message of 128 KB was given up
there after 10 s, and sent again, for ever."""
LONGEST_EXTRA_S = 32.0
KEEPALIVE_S = 20

LONGEST_TOLD = 256
"""Characters of a topic in an error; one may have 65,535."""

__all__ = [
    "Connection", "Endpoint", "Message", "MqttError", "NobodySubscribed", "NotConnected", "Refused", "Subscriptions",
    "Tls", "TlsContext", "Will",
]  # fmt: skip


class _End(NamedTuple):
    """Why a session ended; `code` is the broker's, 0 where it gave none."""

    reason: str
    code: int = 0
    by_us: bool = False


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
        self._ended: asyncio.Future[_End] | None = None
        self._trouble = ""
        self._sessions = Sessions(endpoint.client_id, endpoint.role)
        self._window = asyncio.Semaphore(1)
        self._unanswered_bytes = 0
        self._is_kept = True
        self.largest_packet = 0
        """Bytes of the largest packet that the broker takes in this session, by its CONNACK; 0: it named no limit."""
        self.is_subscribed = False
        """Whether the broker let us subscribe in this session; with `optional` it need not."""
        self.has_said_last_word = False
        """To be set once the broker has our last status. Else it tells our will, whatever ends us, a fault of our own too."""
        self.connected = asyncio.Event()
        """Set while publishing is possible."""
        self.messages: asyncio.Queue[Message] = asyncio.Queue()
        """What came in. Bounded by the broker: it sends no more than `receive_maximum` unacknowledged."""
        self.on_connected: list[Callable[[], None]] = []
        """Called in the event loop at each new session, before `connected` is set; add yours, others may wait for it too."""

    @property
    def trouble(self) -> str:
        """Why there is no connection, for people; empty while there is one."""
        return self._trouble

    @property
    def twin(self) -> str:
        """Says that another process uses our client id, for people; empty where nothing looks like it."""
        return self._sessions.twin

    async def run(self) -> None:
        """Connects, and connects again with full jitter, until it is cancelled."""
        while True:
            renewed = False
            try:
                renewed = await self._session()
            except (OSError, MqttError, TimeoutError, ValueError) as error:
                self._sessions.fail()
                reason = str(error) or type(error).__name__
                if reason != self._trouble:
                    log.warning("mqtt_unreachable", extra={"broker": self._broker, "reason": reason})
                self._trouble = reason
            if not renewed:
                await asyncio.sleep(self._sessions.pause_s())

    def renew(self) -> None:
        """Ends the session in good order and begins a new one at once, as with a new certificate.

        What is on its way then fails with NotConnected: call it while nothing is.
        """
        self.connected.clear()
        self._give_up(_End("renewed", by_us=True))

    async def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, needs_subscriber: bool = False,
        user_properties: Mapping[str, str] | None = None, content_type: str = "",
    ) -> None:  # fmt: skip
        """Publishes with QoS 1 and returns once the broker has acknowledged.

        Raises:
            NotConnected: no connection, or it broke first, or no answer in PUBLISH_TIMEOUT_S and the time that its bytes take.
            NobodySubscribed: `needs_subscriber`, and no subscription matched: the message is gone.
            Refused: the broker's access list or a limit does not allow it, or no packet can have such a topic. Of a packet
                that is larger than the broker takes nothing is sent: some brokers end the connection for it, and with it
                all else that is on its way.
        """
        client = self._client
        if client is None or not self.connected.is_set():
            raise NotConnected(self._broker)
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if user_properties:
            properties.UserProperty = list(user_properties.items())
        if content_type:
            properties.ContentType = content_type
        size = packet_size(topic, payload, properties)
        if 0 < self.largest_packet < size:
            told = f"Packet too large: {size} bytes, and the broker takes {self.largest_packet}"
            raise Refused(f"publish to {topic[:LONGEST_TOLD]}", PACKET_TOO_LARGE, told)
        async with self._window:  # first come, first served: the order is kept
            if client is not self._client:
                raise NotConnected(f"{self._broker}: the connection broke")
            code = await self._acknowledged(client, topic, payload, retain, properties)
        if code.value >= FIRST_FAILURE:
            raise Refused(f"publish to {topic[:LONGEST_TOLD]}", code.value, code.getName())
        if needs_subscriber and code.value == NO_MATCHING_SUBSCRIBERS:
            raise NobodySubscribed(topic)

    async def _acknowledged(
        self,
        client: paho.Client,
        topic: str,
        payload: bytes,
        retain: bool,
        properties: Properties,
    ) -> ReasonCode:
        try:
            sent = client.publish(topic, payload, qos=1, retain=retain, properties=properties)
        except ValueError as error:  # paho's word for what no packet can say, as a topic of 65,536 bytes
            raise Refused(f"publish to {topic[:LONGEST_TOLD]}", TOPIC_NAME_INVALID, str(error)) from error
        # Without a connection: the session ended while this was handed to it, perhaps because of it. Its end says why.
        if sent.rc not in (paho.MQTT_ERR_SUCCESS, paho.MQTT_ERR_NO_CONN):
            raise NotConnected(paho.error_string(sent.rc))
        answer: asyncio.Future[ReasonCode] = asyncio.get_running_loop().create_future()
        self._pending[sent.mid] = answer
        self._unanswered_bytes += len(payload)
        patience_s = PUBLISH_TIMEOUT_S + min(LONGEST_EXTRA_S, self._unanswered_bytes / SLOWEST_BYTES_PER_S)
        try:
            # Not wait_for: in Python 3.11 it swallows a cancellation that comes together with the answer.
            async with asyncio.timeout(patience_s):
                return await answer
        except TimeoutError:
            # A broker that takes packets and answers none is as good as gone: start over with a new session.
            reason = f"{self._broker} did not acknowledge in {patience_s:.0f} s"
            self._give_up(_End(reason))
            raise NotConnected(reason) from None
        finally:
            self._unanswered_bytes -= len(payload)
            self._pending.pop(sent.mid, None)

    def acknowledge(self, message: Message) -> None:
        """Acknowledges a message of this session; one of an earlier session is left for the broker to send again."""
        if self._client is not None and message.session is self._client and message.qos > 0:
            self._client.ack(message.packet_id, message.qos)

    def _give_up(self, end: _End) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(end)

    @property
    def _broker(self) -> str:
        return f"{self.endpoint.host}:{self.endpoint.port}"

    async def _session(self) -> bool:
        """One connection from CONNECT to its end. Returns whether we ended it, to have a new one at once."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[_End] = loop.create_future()
        self._ended = ended
        accepted: asyncio.Future[None] = loop.create_future()
        # Nobody asks for it where we are cancelled before; asyncio would tell of a failure that is none.
        accepted.add_done_callback(lambda one: one.cancelled() or one.exception())
        client = self._new_client(loop, accepted, ended)
        await self._open(client)
        self._client = client
        end = _End("")
        try:
            client.loop_start()
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await accepted
            log.info("mqtt_connected", extra={"broker": self._broker, "client_id": self.endpoint.client_id})
            self._trouble = ""
            self._sessions.begin(is_kept=self._is_kept)
            for call in self.on_connected:
                call()
            self.connected.set()
            end = await ended
            self._sessions.end(end.code, by_us=end.by_us)
            self._trouble = end.reason
            log.log(
                logging.INFO if end.by_us else logging.WARNING,
                "mqtt_disconnected", extra={"broker": self._broker, "reason": end.reason},
            )  # fmt: skip
            return end.by_us
        finally:
            self.connected.clear()
            self._client = None
            for answer in self._pending.values():
                if not answer.done():
                    told = f"{self._broker}: the connection broke" + f" ({end.reason})" * bool(end.code)
                    answer.set_exception(NotConnected(told, end.code))
            del accepted  # its error holds this frame, and with it the client, until a collection
            with_will = self._will is not None and not self.has_said_last_word
            await to_the_end(lambda: client.close(with_will=with_will))

    async def _open(self, client: SessionClient) -> None:
        """Sends CONNECT. Where it fails, or nobody waits for it any more, the client is closed."""
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = self._subscriptions.session_expiry_s
        properties.ReceiveMaximum = self._subscriptions.receive_maximum
        at = (self.endpoint.host, self.endpoint.port, KEEPALIVE_S)
        clean = self._subscriptions.session_expiry_s == 0
        # Two can let go of the client: the call when it is back, and who waits for it. It is closed by the second of them.
        is_let_go = threading.Lock()

        def connect() -> None:
            try:
                client.connect(*at, clean_start=clean, properties=properties)
            except BaseException:
                client.close()
                raise
            if not is_let_go.acquire(blocking=False):
                client.close()

        try:
            await in_daemon_thread(connect)
        except BaseException:
            if not is_let_go.acquire(blocking=False):
                client.close()
            raise

    def _new_client(
        self, loop: asyncio.AbstractEventLoop, accepted: asyncio.Future[None], ended: asyncio.Future[_End]
    ) -> SessionClient:
        client = new_client(self.endpoint, self._subscriptions, self._will)

        def from_thread(function: Callable[..., None], *arguments: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process is ending
                loop.call_soon_threadsafe(function, *arguments)

        def connected(
            _c: object, _u: object, flags: paho.ConnectFlags, code: ReasonCode, limits: Properties | None
        ) -> None:
            from_thread(self._on_connect, client, accepted, code, limits, flags.session_present)

        def subscribed(_c: object, _u: object, _mid: int, codes: list[ReasonCode], _p: object) -> None:
            from_thread(self._on_subscribe, accepted, codes)

        def received(_c: object, _u: object, message: paho.MQTTMessage) -> None:
            from_thread(self.messages.put_nowait, message_of(message, client))

        def published(_c: object, _u: object, mid: int, code: ReasonCode, _p: object) -> None:
            from_thread(self._on_publish, mid, code)

        def disconnected(
            _c: object, _u: object, flags: paho.DisconnectFlags, code: ReasonCode, _p: object
        ) -> None:
            # Where the broker said nothing paho makes up a code. One of them is worth knowing: an answer that it can't
            # read, as mosquitto 2.0.11's to a publish over its message_size_limit.
            said = flags.is_disconnect_packet_from_server or code.value == PROTOCOL_ERROR
            from_thread(_on_disconnect, accepted, ended, code, said)

        client.on_connect = connected
        client.on_subscribe = subscribed
        client.on_message = received
        client.on_publish = published
        client.on_disconnect = disconnected
        return client

    def _on_connect(
        self, client: paho.Client, accepted: asyncio.Future[None], code: ReasonCode, limits: Properties | None,
        session_present: bool,
    ) -> None:  # fmt: skip
        if accepted.done():
            return
        self._is_kept = session_present or self._subscriptions.session_expiry_s == 0
        self.largest_packet = getattr(limits, "MaximumPacketSize", 0)
        # paho does not read the broker's limit, and a broker may end the session of a client that exceeds it (0x93).
        allowed = getattr(limits, "ReceiveMaximum", MOST_IN_FLIGHT)
        self._window = asyncio.Semaphore(min(allowed, self._subscriptions.receive_maximum))
        if code.value >= FIRST_FAILURE:
            accepted.set_exception(Refused("connect", code.value, code.getName()))
        elif self._subscriptions.topics:
            options = SubscribeOptions(qos=1)
            client.subscribe([(topic, options) for topic in self._subscriptions.topics])
        else:
            accepted.set_result(None)

    def _on_subscribe(self, accepted: asyncio.Future[None], codes: list[ReasonCode]) -> None:
        if accepted.done():
            return
        refused = next((code for code in codes if code.value >= FIRST_FAILURE), None)
        self.is_subscribed = refused is None
        if refused is not None and self._subscriptions.optional:
            topics = list(self._subscriptions.topics)
            log.warning("mqtt_not_subscribed", extra={"topics": topics, "reason": refused.getName()})
            accepted.set_result(None)
        elif refused is not None:
            accepted.set_exception(Refused("subscribe", refused.value, refused.getName()))
        else:
            accepted.set_result(None)

    def _on_publish(self, mid: int, code: ReasonCode) -> None:
        answer = self._pending.get(mid)
        if answer is not None and not answer.done():
            answer.set_result(code)


def _on_disconnect(
    accepted: asyncio.Future[None], ended: asyncio.Future[_End], code: ReasonCode, said: bool
) -> None:
    reason = code.getName()
    if not accepted.done():
        accepted.set_exception(NotConnected(reason))
    if not ended.done():
        ended.set_result(_End(reason, code.value if said and code.value >= FIRST_FAILURE else 0))
