# SPDX-License-Identifier: Apache-2.0
"""What paho-mqtt is asked for, and what it does not do itself: one client for one session, sizes, messages."""

import contextlib
import socket

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from linewatch_runtime.mqtt_words import Endpoint, Message, Subscriptions, Will

CONNECT_TIMEOUT_S = 10.0

MOST_IN_FLIGHT = 65_535
"""Publishes without an acknowledgement where a broker names no limit of its own (MQTT 5, 3.2.2.3.3)."""


WITH_WILL = ReasonCode(PacketTypes.DISCONNECT, identifier=0x04)
"""Disconnect with will message (MQTT 5, 3.14.2.1)."""

GOODBYE_S = 2.0
"""For a DISCONNECT to leave. Where the broker reads nothing, or slowly, and the kernel's buffer is full, it can't."""


class SessionClient(paho.Client):
    """A client for one session, which closes its sockets itself; paho's leaves them to the garbage collector."""

    def close(self, *, with_will: bool = False) -> None:
        """Says goodbye, and returns when the thread has ended and the sockets are closed. Blocks twice GOODBYE_S at most.

        `with_will`: the broker is to tell the will, as if we had vanished.
        """
        try:
            with contextlib.suppress(ValueError):
                self.disconnect(WITH_WILL if with_will else None)
            self._end_thread()
        finally:
            self._reset_sockets()  # the connection's, and the two by which the thread is woken
            # The callbacks hold the client that holds them; without them it goes now, with its TLS context.
            self.on_connect = self.on_subscribe = self.on_message = None
            self.on_publish = self.on_disconnect = None

    def _end_thread(self) -> None:
        # Not paho's loop_stop: it joins what may be None by now, the thread's last act, and waits without end.
        thread = self._thread
        self._thread_terminate = True
        if thread is None or not thread.is_alive():
            return
        thread.join(GOODBYE_S)
        if thread.is_alive() and isinstance(connection := self.socket(), socket.socket):
            with contextlib.suppress(OSError):
                # Not an SSLSocket's own, which takes its TLS away while the thread uses it.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        thread.join(GOODBYE_S)


def new_client(endpoint: Endpoint, subscriptions: Subscriptions, will: Will | None) -> SessionClient:
    """A client without callbacks. Raises OSError or ValueError where a file of the endpoint can't be used."""
    client = SessionClient(
        CallbackAPIVersion.VERSION2, endpoint.client_id, protocol=paho.MQTTv5,
        manual_ack=subscriptions.manual_ack, reconnect_on_failure=False,
    )  # fmt: skip
    client.connect_timeout = CONNECT_TIMEOUT_S
    client.max_inflight_messages_set(MOST_IN_FLIGHT)  # the connection keeps the broker's own limit
    if endpoint.username:
        secret = endpoint.password_file.read_text().strip() if endpoint.password_file else None
        client.username_pw_set(endpoint.username, secret)
    if endpoint.tls:
        client.tls_set_context(endpoint.tls.context())
    if will:
        client.will_set(will.topic, will.payload, qos=1, retain=True)
    return client


def packet_size(topic: str, payload: bytes, properties: Properties) -> int:
    """Bytes of a PUBLISH with QoS 1 (MQTT 5, 3.3): header, length, topic with its length, packet id, the rest."""
    rest = 2 + len(topic.encode()) + 2 + len(properties.pack()) + len(payload)  # type: ignore[no-untyped-call]
    return 1 + next(count for count in (1, 2, 3, 4) if rest < 128**count) + rest


def message_of(message: paho.MQTTMessage, client: paho.Client) -> Message:
    """The message as the rest of the process knows it; `client` stands for the session."""
    pairs = getattr(message.properties, "UserProperty", None) or []
    return Message(
        message.topic, bytes(message.payload), message.qos, message.mid, message.retain, dict(pairs), client
    )
