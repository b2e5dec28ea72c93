# SPDX-License-Identifier: Apache-2.0
"""The two kinds of durable streams as the common suite opens, kills and fills them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stream_manager_server import StreamManagerServer

from linewatch_forwarder.streams.embedded import EmbeddedStreams
from linewatch_forwarder.streams.port import DurableStreams
from linewatch_forwarder.streams.sdk import Session
from linewatch_forwarder.streams.stream_manager import open_streams
from linewatch_runtime.records import Record, StreamLimit, WhenFull
from linewatch_runtime.spool import Spool, SpoolWorker

LINE = "predictions-line-1"
TOPIC = "linewatch/v1/plant-1/line-1/station-1/inspection"
ROOM = 256 * 1024
SEGMENT = ROOM // 16

PLENTY = StreamLimit(64 * ROOM, when_full=WhenFull.SHED_GOOD)
"""More than any test writes."""


def record(number: int, *, alarm: bool = False, stream: str = LINE, size: int = 600) -> Record:
    """An event whose bytes are all its own."""
    payload = (f"event {number} of {stream}; ".encode() * (size // 20 + 1))[:size]
    return Record(f"{stream}-{number:06}", stream, TOPIC, payload, alarm)


class Kind:
    """One kind of streams on one disk; opened again and again."""

    def __init__(self, name: str, folder: Path, server: StreamManagerServer | None) -> None:
        self.name = name
        self.folder = folder
        self.server = server

    def open(self, limit: StreamLimit | None = None) -> DurableStreams:
        limit = limit or StreamLimit(ROOM, when_full=WhenFull.SHED_GOOD)
        if self.server is None:
            return EmbeddedStreams(SpoolWorker(lambda: Spool(self.folder / "forwarder.db", limit)))
        session = Session("127.0.0.1", self.server.port)
        return open_streams(self.folder / "stream-manager.db", session, limit, SEGMENT, 64 << 20)

    @contextmanager
    def opened(self, limit: StreamLimit | None = None) -> Iterator[DurableStreams]:
        streams = self.open(limit)
        try:
            yield streams
        finally:
            streams.close()

    def restart_server(self) -> None:
        """Of what holds the events, where that is a process of its own."""
        if self.server:
            self.server.restart()

    @property
    def arguments(self) -> list[str]:
        """Of the writer process (stream_writer.py)."""
        return [self.name, str(self.folder), str(self.server.port if self.server else 0)]
