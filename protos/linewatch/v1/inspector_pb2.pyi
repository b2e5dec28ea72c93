from linewatch.v1 import verdict_pb2 as _verdict_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class InspectRequest(_message.Message):
    __slots__ = ("id", "model_name", "model_version", "encoded_image", "raw_image", "shared_memory_image", "sensor_window", "with_heatmap")
    ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ENCODED_IMAGE_FIELD_NUMBER: _ClassVar[int]
    RAW_IMAGE_FIELD_NUMBER: _ClassVar[int]
    SHARED_MEMORY_IMAGE_FIELD_NUMBER: _ClassVar[int]
    SENSOR_WINDOW_FIELD_NUMBER: _ClassVar[int]
    WITH_HEATMAP_FIELD_NUMBER: _ClassVar[int]
    id: str
    model_name: str
    model_version: str
    encoded_image: EncodedImage
    raw_image: RawImage
    shared_memory_image: SharedMemoryImage
    sensor_window: SensorWindow
    with_heatmap: bool
    def __init__(self, id: _Optional[str] = ..., model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., encoded_image: _Optional[_Union[EncodedImage, _Mapping]] = ..., raw_image: _Optional[_Union[RawImage, _Mapping]] = ..., shared_memory_image: _Optional[_Union[SharedMemoryImage, _Mapping]] = ..., sensor_window: _Optional[_Union[SensorWindow, _Mapping]] = ..., with_heatmap: _Optional[bool] = ...) -> None: ...

class EncodedImage(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class RawImage(_message.Message):
    __slots__ = ("data", "width", "height", "channels")
    DATA_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    width: int
    height: int
    channels: int
    def __init__(self, data: _Optional[bytes] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., channels: _Optional[int] = ...) -> None: ...

class SharedMemoryImage(_message.Message):
    __slots__ = ("name", "offset", "width", "height", "channels")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    name: str
    offset: int
    width: int
    height: int
    channels: int
    def __init__(self, name: _Optional[str] = ..., offset: _Optional[int] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., channels: _Optional[int] = ...) -> None: ...

class SensorWindow(_message.Message):
    __slots__ = ("values", "rows", "channels", "padded_rows")
    VALUES_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    PADDED_ROWS_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    rows: int
    channels: int
    padded_rows: int
    def __init__(self, values: _Optional[_Iterable[float]] = ..., rows: _Optional[int] = ..., channels: _Optional[int] = ..., padded_rows: _Optional[int] = ...) -> None: ...

class InspectResponse(_message.Message):
    __slots__ = ("id", "verdict", "heatmap")
    ID_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    HEATMAP_FIELD_NUMBER: _ClassVar[int]
    id: str
    verdict: _verdict_pb2.Verdict
    heatmap: Heatmap
    def __init__(self, id: _Optional[str] = ..., verdict: _Optional[_Union[_verdict_pb2.Verdict, _Mapping]] = ..., heatmap: _Optional[_Union[Heatmap, _Mapping]] = ...) -> None: ...

class Heatmap(_message.Message):
    __slots__ = ("values", "width", "height")
    VALUES_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    values: bytes
    width: int
    height: int
    def __init__(self, values: _Optional[bytes] = ..., width: _Optional[int] = ..., height: _Optional[int] = ...) -> None: ...

class InspectStreamResponse(_message.Message):
    __slots__ = ("id", "response", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: str
    response: InspectResponse
    error: InspectError
    def __init__(self, id: _Optional[str] = ..., response: _Optional[_Union[InspectResponse, _Mapping]] = ..., error: _Optional[_Union[InspectError, _Mapping]] = ...) -> None: ...

class InspectError(_message.Message):
    __slots__ = ("code", "reason", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    reason: str
    message: str
    def __init__(self, code: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...
