import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from linewatch.v1 import verdict_pb2 as _verdict_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Inspection(_message.Message):
    __slots__ = ("origin", "part_id", "verdict", "not_inspected", "frame_to_verdict_s", "evidence", "cycle_period_s")
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    PART_ID_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    NOT_INSPECTED_FIELD_NUMBER: _ClassVar[int]
    FRAME_TO_VERDICT_S_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    CYCLE_PERIOD_S_FIELD_NUMBER: _ClassVar[int]
    origin: Origin
    part_id: str
    verdict: _verdict_pb2.Verdict
    not_inspected: NotInspected
    frame_to_verdict_s: float
    evidence: _containers.RepeatedCompositeFieldContainer[Evidence]
    cycle_period_s: float
    def __init__(self, origin: _Optional[_Union[Origin, _Mapping]] = ..., part_id: _Optional[str] = ..., verdict: _Optional[_Union[_verdict_pb2.Verdict, _Mapping]] = ..., not_inspected: _Optional[_Union[NotInspected, _Mapping]] = ..., frame_to_verdict_s: _Optional[float] = ..., evidence: _Optional[_Iterable[_Union[Evidence, _Mapping]]] = ..., cycle_period_s: _Optional[float] = ...) -> None: ...

class PartsSkipped(_message.Message):
    __slots__ = ("origin", "count", "reason")
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    origin: Origin
    count: int
    reason: str
    def __init__(self, origin: _Optional[_Union[Origin, _Mapping]] = ..., count: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class EventsDropped(_message.Message):
    __slots__ = ("origin", "stream", "count", "reason")
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    origin: Origin
    stream: str
    count: int
    reason: str
    def __init__(self, origin: _Optional[_Union[Origin, _Mapping]] = ..., stream: _Optional[str] = ..., count: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Engine(_message.Message):
    __slots__ = ("origin", "model", "message", "service_version")
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_VERSION_FIELD_NUMBER: _ClassVar[int]
    origin: Origin
    model: _verdict_pb2.ModelReference
    message: str
    service_version: str
    def __init__(self, origin: _Optional[_Union[Origin, _Mapping]] = ..., model: _Optional[_Union[_verdict_pb2.ModelReference, _Mapping]] = ..., message: _Optional[str] = ..., service_version: _Optional[str] = ...) -> None: ...

class Origin(_message.Message):
    __slots__ = ("site", "line", "station", "epoch", "sequence", "taken_at", "clock", "corrected_at")
    SITE_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    STATION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TAKEN_AT_FIELD_NUMBER: _ClassVar[int]
    CLOCK_FIELD_NUMBER: _ClassVar[int]
    CORRECTED_AT_FIELD_NUMBER: _ClassVar[int]
    site: str
    line: str
    station: str
    epoch: int
    sequence: int
    taken_at: _timestamp_pb2.Timestamp
    clock: Clock
    corrected_at: _timestamp_pb2.Timestamp
    def __init__(self, site: _Optional[str] = ..., line: _Optional[str] = ..., station: _Optional[str] = ..., epoch: _Optional[int] = ..., sequence: _Optional[int] = ..., taken_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., clock: _Optional[_Union[Clock, _Mapping]] = ..., corrected_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Clock(_message.Message):
    __slots__ = ("boot_id", "monotonic_s", "synchronised")
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    MONOTONIC_S_FIELD_NUMBER: _ClassVar[int]
    SYNCHRONISED_FIELD_NUMBER: _ClassVar[int]
    boot_id: str
    monotonic_s: float
    synchronised: bool
    def __init__(self, boot_id: _Optional[str] = ..., monotonic_s: _Optional[float] = ..., synchronised: _Optional[bool] = ...) -> None: ...

class NotInspected(_message.Message):
    __slots__ = ("reason", "message")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class Evidence(_message.Message):
    __slots__ = ("kind", "digest", "path", "media_type", "size_bytes")
    KIND_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    kind: str
    digest: str
    path: str
    media_type: str
    size_bytes: int
    def __init__(self, kind: _Optional[str] = ..., digest: _Optional[str] = ..., path: _Optional[str] = ..., media_type: _Optional[str] = ..., size_bytes: _Optional[int] = ...) -> None: ...
