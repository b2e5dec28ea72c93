# SPDX-License-Identifier: Apache-2.0
"""A stand-in for AWS IoT Greengrass Stream Manager: its wire protocol over TCP, for the SDK's own client.

    with StreamManagerServer(tokens={"secret"}) as server:
        start_service(port=server.port)
        server.stop(); server.start()       # a restart: what was flushed is there again, sessions are gone
        server.power_cut()                  # the same, and what flush_on_write did not put on disk is gone too

What it does as Stream Manager does: sequence numbers from 0; segments, and data that is freed by whole segments only,
at the size with OverwriteOldestData or by age, delivered or not; RejectNewData; reads that begin at the oldest number;
NotEnoughMessages; descriptions; updates, with UpdateNotAllowed for another persistence and for a size that is too small
for what is there; a token at the connect. Its age is by the wall clock (`jump` moves it).

What can be made to go wrong: `hold` answers late, `drop_connections`, `drop_answers`, `refuse`, `freeze`, `damage`.

Wire: the client sends the byte 1 and frames, the server answers 1 and frames. A frame is a length (int32, big-endian,
counted from behind it), an operation (1 byte) and a CBOR map. Names and numbers: stream_manager.data of the SDK.
"""

import contextlib
import functools
import socket
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import cbor2
from stream_manager.data import Operation, Persistence, ResponseStatusCode, StrategyOnFull

from linewatch_plant.processes import free_port

PROTOCOL = "1.1.0"

_ANSWERS = {
    Operation.CreateMessageStream: Operation.CreateMessageStreamResponse,
    Operation.DeleteMessageStream: Operation.DeleteMessageStreamResponse,
    Operation.AppendMessage: Operation.AppendMessageResponse,
    Operation.ReadMessages: Operation.ReadMessagesResponse,
    Operation.ListStreams: Operation.ListStreamsResponse,
    Operation.DescribeMessageStream: Operation.DescribeMessageStreamResponse,
    Operation.UpdateMessageStream: Operation.UpdateMessageStreamResponse,
}

LARGEST_MESSAGE = 64 * 1024 * 1024


class Refused(Exception):
    """An error answer."""

    def __init__(self, status: ResponseStatusCode, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(slots=True)
class Stored:
    sequence: int
    payload: bytes
    at: float


@dataclass(slots=True)
class Stream:
    """One message stream: segments, oldest first, the last one is written to."""

    definition: dict[str, Any]
    overhead: int
    segments: list[list[Stored]] = field(default_factory=lambda: [[]])
    next_sequence: int = 0
    flushed: int = -1
    freed: list[Stored] = field(default_factory=list)
    """What was freed, in order: what a test compares with what was delivered."""

    @property
    def messages(self) -> list[Stored]:
        return [one for segment in self.segments for one in segment]

    def size(self, segment: list[Stored]) -> int:
        return sum(len(one.payload) + self.overhead for one in segment)

    @property
    def total(self) -> int:
        return sum(self.size(segment) for segment in self.segments)

    def free_oldest(self) -> None:
        self.freed += self.segments.pop(0)
        if not self.segments:
            self.segments.append([])

    def append(self, payload: bytes, now: float) -> int:
        size, limit = len(payload) + self.overhead, self.definition.get("maxSize", 256 * 1024 * 1024)
        if size > min(limit, LARGEST_MESSAGE):
            raise Refused(ResponseStatusCode.RequestPayloadTooLarge, "the message is larger than the stream")
        if (
            self.total + size > limit
            and self.definition["strategyOnFull"] == StrategyOnFull.RejectNewData.value
        ):
            raise Refused(ResponseStatusCode.InvalidRequest, "the stream is full")
        while self.total + size > limit:
            self.free_oldest()
        if self.segments[-1] and self.size(self.segments[-1]) + size > self.definition.get(
            "streamSegmentSize", 16 << 20
        ):
            self.segments.append([])
        self.segments[-1].append(Stored(self.next_sequence, payload, now))
        self.next_sequence += 1
        if self.definition.get("flushOnWrite"):
            self.flushed = self.next_sequence - 1
        return self.next_sequence - 1

    def expire(self, now: float) -> None:
        """Whole segments whose youngest message is too old; the one that is written to as well."""
        ttl = self.definition.get("timeToLiveMillis")
        while ttl is not None and self.segments[0] and (now - self.segments[0][-1].at) * 1000 > ttl:
            self.free_oldest()


class StreamManagerServer:
    """Listens on loopback on a port of its own, which it keeps over restarts."""

    def __init__(self, tokens: Collection[str] | None = None, overhead: int = 24) -> None:
        """`tokens`: None lets everybody in. `overhead`: bytes that each message takes beside its payload."""
        self.tokens = tokens
        self.overhead = overhead
        self.streams: dict[str, Stream] = {}
        self.requests: dict[str, int] = defaultdict(int)
        self.connects = 0
        self.port = 0
        self._offset_s = 0.0
        self._lock = threading.RLock()
        self._listener: socket.socket | None = None
        self._connections: set[socket.socket] = set()
        self._holding: tuple[Operation, bool] | None = None
        self._held: list[tuple[socket.socket, Callable[[], bytes]]] = []
        self._dropping = 0
        self._refusals: list[tuple[Operation, ResponseStatusCode]] = []
        self._damaged: set[tuple[str, int]] = set()
        self._handlers: dict[Operation, Callable[[dict[str, Any]], dict[str, Any]]] = {
            Operation.CreateMessageStream: self._create,
            Operation.UpdateMessageStream: self._update,
            Operation.DeleteMessageStream: self._delete,
            Operation.AppendMessage: self._append,
            Operation.ReadMessages: self._read,
            Operation.ListStreams: self._list,
            Operation.DescribeMessageStream: self._describe,
        }
        self._thawed = threading.Event()
        self._thawed.set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thawed.set()
        self.stop()

    # --- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        # Of no connection's range: between a stop and a start the system would give the port to anybody.
        self.port = self.port or free_port()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        if self._listener:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.drop_connections()

    def restart(self) -> None:
        self.stop()
        self.start()

    def power_cut(self) -> None:
        """What was not flushed is gone."""
        self.stop()
        with self._lock:
            for stream in self.streams.values():
                for segment in stream.segments:
                    segment[:] = [one for one in segment if one.sequence <= stream.flushed]
                stream.next_sequence = stream.flushed + 1
        self.start()

    # --- what goes wrong -----------------------------------------------------------------------------------------------

    def drop_connections(self) -> None:
        with self._lock:
            connections, self._connections = self._connections, set()
        for one in connections:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def drop_answers(self, count: int) -> None:
        """Carries out the next requests and ends the connection instead of an answer."""
        self._dropping = count

    def hold(self, operation: Operation, *, undone: bool = False) -> None:
        """Keeps the answer to the next request of this kind until `release`; `undone`: carries it out only then."""
        self._holding = (operation, undone)

    @property
    def holds(self) -> bool:
        return bool(self._held)

    def release(self) -> None:
        """Sends what was held, on the connection it belongs to, if that is still there."""
        held, self._held = self._held, []
        for connection, answer in held:
            content = answer()
            with contextlib.suppress(OSError):
                connection.sendall(content)

    def refuse(self, operation: Operation, status: ResponseStatusCode, times: int = 1) -> None:
        """Answers the next requests of this kind with an error and does nothing."""
        self._refusals += [(operation, status)] * times

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Takes requests and neither carries them out nor answers, until the end of the block."""
        self._thawed.clear()
        try:
            yield
        finally:
            self._thawed.set()

    def damage(self, name: str, sequence: int, payload: bytes | None = None) -> None:
        """Another payload; none: its file can't be read there."""
        with self._lock:
            if payload is None:
                self._damaged.add((name, sequence))
            else:
                next(one for one in self.streams[name].messages if one.sequence == sequence).payload = payload

    def mend(self) -> None:
        self._damaged.clear()

    def jump(self, seconds: float) -> None:
        """Moves the wall clock; what is too old by it goes."""
        self._offset_s += seconds
        with self._lock:
            for stream in self.streams.values():
                stream.expire(self._now())

    # --- the wire ------------------------------------------------------------------------------------------------------

    def _now(self) -> float:
        return time.time() + self._offset_s

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with (
            contextlib.suppress(OSError, EOFError, struct.error),
            connection,
            connection.makefile("rb") as incoming,
        ):
            if _exactly(incoming, 1) != b"\x01" or not self._welcome(connection, incoming):
                return
            while True:
                operation, request = _frame(incoming)
                self._thawed.wait()
                answered = functools.partial(self._answered, operation, request)
                if self._holding is not None and operation == self._holding[0].value:
                    undone, self._holding = self._holding[1], None
                    answer = b"" if undone else answered()
                    self._held.append((connection, answered if undone else functools.partial(bytes, answer)))
                    continue
                answer = answered()
                if self._dropping > 0:
                    self._dropping -= 1
                    return
                connection.sendall(answer)
        with self._lock:
            self._connections.discard(connection)

    def _welcome(self, connection: socket.socket, incoming: Any) -> bool:
        operation, request = _frame(incoming)
        self._thawed.wait()
        self.connects += 1
        answer = {
            "requestId": request.get("requestId"),
            "protocolVersion": PROTOCOL,
            "serverVersion": "2.2.0",
        }
        status = ResponseStatusCode.Success
        if operation != Operation.Connect.value:
            status = ResponseStatusCode.UnexpectedOperation
        elif self.tokens is not None and request.get("authToken") not in self.tokens:
            status = ResponseStatusCode.Unauthorized
        answer |= {
            "status": status.value,
            "supportedProtocolVersions": [PROTOCOL, "1.0.0"],
            "clientIdentifier": "test",
        }
        connection.sendall(b"\x01" + _framed(Operation.ConnectResponse, answer))
        return status is ResponseStatusCode.Success

    def _answered(self, number: int, request: dict[str, Any]) -> bytes:
        answer: dict[str, Any] = {
            "requestId": request["requestId"],
            "status": ResponseStatusCode.Success.value,
        }
        operation = next((one for one in Operation if one.value == number), None)
        if operation not in _ANSWERS:
            answer["status"] = ResponseStatusCode.UnknownOperation.value
            return _framed(Operation.UnknownOperationError, answer)
        with self._lock:
            self.requests[operation.name] += 1
            try:
                for index, (refused, status) in enumerate(self._refusals):
                    if refused is operation:
                        del self._refusals[index]
                        raise Refused(status, "as the test told")
                answer |= self._handlers[operation](request)
            except Refused as error:
                answer |= {"status": error.status.value, "errorMessage": str(error)}
        return _framed(_ANSWERS[operation], answer)

    # --- what it is asked ------------------------------------------------------------------------------------------------

    def _stream(self, name: str) -> Stream:
        if name not in self.streams:
            raise Refused(ResponseStatusCode.ResourceNotFound, f"the stream {name} does not exist")
        self.streams[name].expire(self._now())
        return self.streams[name]

    def _create(self, request: dict[str, Any]) -> dict[str, Any]:
        definition = request["definition"]
        if definition["name"] in self.streams:
            raise Refused(ResponseStatusCode.InvalidRequest, "the message stream already exists")
        if definition.get("maxSize", 256 << 20) < definition.get("streamSegmentSize", 16 << 20):
            raise Refused(ResponseStatusCode.InvalidRequest, "maxSize is below streamSegmentSize")
        self.streams[definition["name"]] = Stream(definition, self.overhead)
        return {}

    def _update(self, request: dict[str, Any]) -> dict[str, Any]:
        definition = request["definition"]
        stream = self._stream(definition["name"])
        file = Persistence.File.value
        if definition.get("persistence", file) != stream.definition.get("persistence", file):
            raise Refused(ResponseStatusCode.UpdateNotAllowed, "persistence can't be updated")
        if definition.get("maxSize", 256 << 20) < stream.total:
            raise Refused(ResponseStatusCode.UpdateNotAllowed, "maxSize is below the stream's present size")
        stream.definition = definition
        return {}

    def _delete(self, request: dict[str, Any]) -> dict[str, Any]:
        self._stream(request["name"])
        del self.streams[request["name"]]
        return {}

    def _append(self, request: dict[str, Any]) -> dict[str, Any]:
        return {
            "sequenceNumber": self._stream(request["name"]).append(bytes(request["payload"]), self._now())
        }

    def _read(self, request: dict[str, Any]) -> dict[str, Any]:
        name, options = request["streamName"], request.get("readMessagesOptions", {})
        first = options.get("desiredStartSequenceNumber", 0)
        found = [one for one in self._stream(name).messages if one.sequence >= first][
            : options.get("maxMessageCount", 1)
        ]
        if len(found) < options.get("minMessageCount", 1):
            raise Refused(ResponseStatusCode.NotEnoughMessages, "not enough messages")
        if any((name, one.sequence) in self._damaged for one in found):
            raise Refused(ResponseStatusCode.MessageStoreReadError, "a segment can't be read")
        return {
            "messages": [
                {
                    "streamName": name,
                    "sequenceNumber": one.sequence,
                    "ingestTime": int(one.at * 1000),
                    "payload": one.payload,
                }
                for one in found
            ]
        }

    def _list(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"streams": list(self.streams)}

    def _describe(self, request: dict[str, Any]) -> dict[str, Any]:
        stream = self._stream(request["name"])
        messages = stream.messages
        oldest = messages[0].sequence if messages else stream.next_sequence
        status = {
            "oldestSequenceNumber": oldest, "newestSequenceNumber": stream.next_sequence - 1, "totalBytes": stream.total,
        }  # fmt: skip
        return {
            "messageStreamInfo": {
                "definition": stream.definition,
                "storageStatus": status,
                "exportStatuses": [],
            }
        }


def _exactly(incoming: Any, count: int) -> bytes:
    found: bytes = incoming.read(count)
    if len(found) < count:
        raise EOFError
    return found


def _frame(incoming: Any) -> tuple[int, dict[str, Any]]:
    (length,) = struct.unpack(">i", _exactly(incoming, 4))
    operation = _exactly(incoming, 1)[0]
    return operation, cbor2.loads(_exactly(incoming, length - 1))


def _framed(operation: Operation, content: dict[str, Any]) -> bytes:
    body = cbor2.dumps(content)
    return struct.pack(">ib", len(body) + 1, operation.value) + body
