# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the Greengrass nucleus's IPC server: AWS event-stream RPC over a unix socket, standard library only.

The part of it that our services use: connect with a token (SVCUID), UpdateState, SubscribeToComponentUpdates (a
stream), DeferComponentUpdate, PublishToIoTCore; whatever else is asked meets UnauthorizedError. The real client
(awsiotsdk) talks to it.

    with NucleusIpc(tmp_path / "ipc.socket", tokens={"token-of-capture"}) as nucleus:
        start_service(env=nucleus.environment("token-of-capture"))
        nucleus.wait_for_state("token-of-capture")            # RUNNING, once the service is ready
        answers = nucleus.ask_to_update("deployment-1")       # who defers, and for how long, in ms
        waited_s = nucleus.update("deployment-1")             # asks until nobody defers, as the classic nucleus does
        nucleus.stop(); nucleus.start()                       # a nucleus that restarts: the socket is a new file

    nucleus.published                                        # what it took, as the spooler did; `forget()` loses it
    nucleus.on_publish = lambda one: ("ServiceError", "Message spool is full. Message could not be added.")

Modes: `lite` answers ServiceError to component updates, as nucleus lite 2.6.0 does; `hang` accepts and never answers. `largest` ends a connection that sends more bytes in a message, as lite's buffer does.

Wire: total length, length of headers, CRC-32 of these two (big-endian, 4 bytes each); headers; payload; CRC-32 of all
before. A header is: length of name (1 byte), name, type (1 byte), value; 4 is an int32, 7 a string with 2 bytes of
length. Numbers of types and flags: awscrt.eventstream.rpc, MessageType and MessageFlag.
"""

import base64
import contextlib
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

SOCKET_VARIABLE = "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT"
TOKEN_VARIABLE = "SVCUID"

APPLICATION_MESSAGE, APPLICATION_ERROR, PING, PING_RESPONSE, CONNECT, CONNECT_ACK = range(6)
CONNECTION_ACCEPTED, TERMINATE_STREAM = 1, 2

GREENGRASS = "aws.greengrass#"
UNSUPPORTED = {"message": "unsupported operation"}

Headers = dict[str, int | str]

WAIT_S = 60.0
"""For what a service does, its start included: no guarantee, and it costs nothing where it is done."""


@dataclass(frozen=True, slots=True)
class Reported:
    """A state that a component reported: RUNNING or ERRORED; `at` by time.monotonic()."""

    token: str
    state: str
    at: float


@dataclass(frozen=True, slots=True)
class Deferral:
    """An answer to a pre-update event; `recheck_after_ms` 0 means go."""

    token: str
    deployment_id: str
    recheck_after_ms: int
    message: str
    at: float


@dataclass(frozen=True, slots=True)
class Published:
    """A message that a component asked to have published to IoT Core."""

    token: str
    topic: str
    payload: bytes
    qos: str


DIE = ("", "die")
"""An answer of `on_publish`: the connection ends without one."""

SPOOL_FULL = ("ServiceError", "Message spool is full. Message could not be added.")


@dataclass(eq=False, slots=True)
class _Client:
    """A connection. Its own thread reads; anybody may write."""

    peer: socket.socket
    token: str = ""
    streams: set[int] = field(default_factory=set)
    """Streams that subscribed to component updates."""
    writing: threading.Lock = field(default_factory=threading.Lock)

    def send(self, message_type: int, flags: int, stream: int, payload: Any, shape: str = "") -> None:
        headers: Headers = {":message-type": message_type, ":message-flags": flags, ":stream-id": stream}
        if shape:
            headers |= {":content-type": "application/json", "service-model-type": GREENGRASS + shape}
        with self.writing, contextlib.suppress(OSError):  # it may have gone meanwhile
            self.peer.sendall(encoded(headers, json.dumps(payload).encode() if payload is not None else b""))


class NucleusIpc:
    """The server. Its lists grow; `changed` tells of each new entry."""

    def __init__(
        self, path: Path, *, tokens: Collection[str] | None = None, lite: bool = False, hang: bool = False,
        largest: int = 0,
    ) -> None:  # fmt: skip
        """`tokens`: of known components; None lets every one in. Paths of unix sockets may have 107 bytes."""
        self.path = path
        self.tokens = tokens
        self.lite = lite
        self.hang = hang
        self.states: list[Reported] = []
        self.deferrals: list[Deferral] = []
        self.refused: list[str] = []
        """Tokens that were turned away."""
        self.connections = 0
        """Connections that were ever accepted by the socket, whatever became of them."""
        self.largest = largest
        self.published: list[Published] = []
        """What was taken, oldest first; what `forget` lost is not in it any more."""
        self.asked_to_publish = 0
        self.on_publish: Callable[[Published], tuple[str, str] | None] = lambda _: None
        """None takes the message; else the error's shape and its message."""
        self.on_state: Callable[[Reported], None] = lambda _: None
        """Called in a thread of the server at each UpdateState."""
        self.changed = threading.Condition()
        self._listener: socket.socket | None = None
        self._clients: list[_Client] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listens on a new socket file, that any user may connect to."""
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self.path.chmod(0o666)
        self._listener.listen()
        threading.Thread(target=self._accept, args=(self._listener,), name="ipc accept", daemon=True).start()

    def stop(self) -> None:
        """Ends every connection and takes the socket file away."""
        if self._listener is None:
            return
        listener, self._listener = self._listener, None
        with contextlib.suppress(OSError):  # wakes accept()
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        self.path.unlink(missing_ok=True)
        with self.changed:
            clients, self._clients = self._clients, []
        for client in clients:
            with contextlib.suppress(OSError):
                client.peer.shutdown(socket.SHUT_RDWR)

    def forget(self) -> list[Published]:
        """Loses what it took: a nucleus with its spooler in memory that ends before it has published. Returns it."""
        with self.changed:
            lost, self.published = self.published, []
            return lost

    def environment(self, token: str) -> dict[str, str]:
        """The variables that the nucleus sets for a component."""
        return {SOCKET_VARIABLE: str(self.path), TOKEN_VARIABLE: token}

    def states_of(self, token: str) -> list[str]:
        """What a component reported, oldest first."""
        with self.changed:
            return [one.state for one in self.states if one.token == token]

    def wait_for_state(
        self, token: str, state: str = "RUNNING", *, times: int = 1, timeout_s: float = WAIT_S
    ) -> None:
        """Returns when the component has reported the state `times` times. Raises TimeoutError."""
        with self.changed:
            if not self.changed.wait_for(
                lambda: [one.state for one in self.states if one.token == token].count(state) >= times,
                timeout_s,
            ):
                raise TimeoutError(
                    f"{token} did not report {state} {times} times in {timeout_s:g} s: {self.states}"
                )

    def subscribers(self) -> list[str]:
        """Tokens of the components that want to be asked before an update."""
        with self.changed:
            return [client.token for client in self._clients for _ in client.streams]

    def wait_for_subscribers(self, count: int, timeout_s: float = WAIT_S) -> None:
        """Returns when so many components are subscribed. Raises TimeoutError."""
        with self.changed:
            if not self.changed.wait_for(
                lambda: sum(len(one.streams) for one in self._clients) >= count, timeout_s
            ):
                raise TimeoutError(f"{count} components did not subscribe in {timeout_s:g} s")

    def ask_to_update(
        self, deployment_id: str, *, restarting: bool = False, timeout_s: float = WAIT_S
    ) -> dict[str, int]:
        """Pushes a pre-update event to all subscribers. Token -> recheck_after_ms of those that answered in time."""
        event = {"preUpdateEvent": {"deploymentId": deployment_id, "isGgcRestarting": restarting}}
        with self.changed:
            before = len(self.deferrals)
            asked = [(client, stream) for client in self._clients for stream in client.streams]
        for client, stream in asked:
            client.send(APPLICATION_MESSAGE, 0, stream, event, "ComponentUpdatePolicyEvents")

        def answers() -> dict[str, int]:
            mine = [one for one in self.deferrals[before:] if one.deployment_id == deployment_id]
            return {one.token: one.recheck_after_ms for one in mine}

        with self.changed:
            self.changed.wait_for(lambda: len(answers()) >= len({one.token for one, _ in asked}), timeout_s)
            return answers()

    def update(self, deployment_id: str, *, timeout_s: float = 60.0) -> float:
        """Asks, waits for the longest deferral, asks again, until nobody defers. Returns the seconds that it took.

        Who does not answer within `timeout_s` is not waited for. (UpdateSystemPolicyService of the classic nucleus.)
        """
        started = time.monotonic()
        while longest_ms := max(self.ask_to_update(deployment_id, timeout_s=timeout_s).values(), default=0):
            time.sleep(longest_ms / 1000)
        return time.monotonic() - started

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            client = _Client(peer)
            with self.changed:
                self.connections += 1
                if self._listener is listener:
                    self._clients.append(client)
                else:  # stopped in between
                    peer.close()
                self.changed.notify_all()
            threading.Thread(target=self._serve, args=(client,), name="ipc client", daemon=True).start()

    def _serve(self, client: _Client) -> None:
        try:
            with client.peer, client.peer.makefile("rb") as reader:
                while message := decoded(reader.read, self.largest):
                    if not self.hang:
                        self._answer(client, *message)
        except (OSError, ValueError, KeyError):
            pass
        finally:
            with self.changed:
                if client in self._clients:
                    self._clients.remove(client)
                self.changed.notify_all()

    def _answer(self, client: _Client, headers: Headers, payload: bytes) -> None:
        kind, stream = headers[":message-type"], int(headers[":stream-id"])
        if kind == CONNECT:
            token = str(json.loads(payload)["authToken"])
            if self.tokens is not None and token not in self.tokens:
                with self.changed:
                    self.refused.append(token)
                    self.changed.notify_all()
                client.send(CONNECT_ACK, 0, 0, None)
                raise ValueError(token)
            client.token = token
            client.send(CONNECT_ACK, CONNECTION_ACCEPTED, 0, None)
        elif kind == PING:
            client.send(PING_RESPONSE, 0, 0, None)
        elif int(headers[":message-flags"]) & TERMINATE_STREAM:
            with self.changed:
                client.streams.discard(stream)
        elif not client.token:
            raise ValueError("a message before CONNECT")
        else:
            name = str(headers["operation"]).removeprefix(GREENGRASS)
            self._operation(client, stream, name, json.loads(payload))

    def _operation(self, client: _Client, stream: int, name: str, asked: Mapping[str, Any]) -> None:
        if self.lite and name in {"SubscribeToComponentUpdates", "DeferComponentUpdate"}:
            client.send(APPLICATION_ERROR, TERMINATE_STREAM, stream, UNSUPPORTED, "ServiceError")
        elif name == "UpdateState":
            reported = Reported(client.token, str(asked["state"]), time.monotonic())
            with self.changed:
                self.states.append(reported)
                self.changed.notify_all()
            self.on_state(reported)
            client.send(APPLICATION_MESSAGE, TERMINATE_STREAM, stream, {}, "UpdateStateResponse")
        elif name == "SubscribeToComponentUpdates":
            client.send(APPLICATION_MESSAGE, 0, stream, {}, "SubscribeToComponentUpdatesResponse")
            with self.changed:
                client.streams.add(stream)
                self.changed.notify_all()
        elif name == "DeferComponentUpdate":
            deferral = Deferral(
                client.token, str(asked["deploymentId"]), int(asked.get("recheckAfterMs") or 0),
                str(asked.get("message") or ""), time.monotonic(),
            )  # fmt: skip
            client.send(APPLICATION_MESSAGE, TERMINATE_STREAM, stream, {}, "DeferComponentUpdateResponse")
            with self.changed:
                self.deferrals.append(deferral)
                self.changed.notify_all()
        elif name == "PublishToIoTCore":
            self._publish(client, stream, asked)
        else:
            refusal = {"message": f"{name} is not allowed"}
            client.send(APPLICATION_ERROR, TERMINATE_STREAM, stream, refusal, "UnauthorizedError")

    def _publish(self, client: _Client, stream: int, asked: Mapping[str, Any]) -> None:
        payload = base64.b64decode(asked.get("payload") or "", validate=True)
        one = Published(client.token, str(asked["topicName"]), payload, str(asked.get("qos")))
        with self.changed:
            self.asked_to_publish += 1
            refusal = self.on_publish(one)
            if refusal is None:
                self.published.append(one)
            self.changed.notify_all()
        if refusal == DIE:
            raise ValueError("told to die")
        if refusal:
            client.send(APPLICATION_ERROR, TERMINATE_STREAM, stream, {"message": refusal[1]}, refusal[0])
        else:
            client.send(APPLICATION_MESSAGE, TERMINATE_STREAM, stream, {}, "PublishToIoTCoreResponse")


def encoded(headers: Headers, payload: bytes) -> bytes:
    """A message as bytes."""
    block = b""
    for name, value in headers.items():
        block += struct.pack("!B", len(name)) + name.encode()
        if isinstance(value, int):
            block += struct.pack("!Bi", 4, value)
        else:
            block += struct.pack("!BH", 7, len(value.encode())) + value.encode()
    prelude = struct.pack("!II", 16 + len(block) + len(payload), len(block))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + block + payload
    return message + struct.pack("!I", zlib.crc32(message))


def decoded(read: Callable[[int], bytes], largest: int = 0) -> tuple[Headers, bytes] | None:
    """The next message; None at the end. Raises ValueError for a wrong CRC, a header of another type, more bytes."""
    start = read(12)
    if len(start) < 12:
        return None
    total, size, crc = struct.unpack("!III", start)
    if largest and total > largest:
        raise ValueError("larger than the buffer")
    rest = read(total - 12)
    if crc != zlib.crc32(start[:8]) or struct.unpack("!I", rest[-4:])[0] != zlib.crc32(start + rest[:-4]):
        raise ValueError("CRC")
    headers: Headers = {}
    at = 0
    while at < size:
        length = rest[at]
        name, kind = rest[at + 1 : at + 1 + length].decode(), rest[at + 1 + length]
        at += length + 2
        if kind == 4:
            headers[name] = struct.unpack_from("!i", rest, at)[0]
            at += 4
        elif kind == 7:
            (length,) = struct.unpack_from("!H", rest, at)
            headers[name] = rest[at + 2 : at + 2 + length].decode()
            at += 2 + length
        else:
            raise ValueError(f"header {name}: type {kind}")
    return headers, rest[size:-4]
