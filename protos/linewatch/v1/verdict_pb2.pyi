from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Verdict(_message.Message):
    __slots__ = ("result", "label", "score", "is_anomalous", "severity", "failure_mode", "class_scores", "regions", "time_to_failure", "quality_flags", "model", "timings")
    class Result(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNSPECIFIED: _ClassVar[Verdict.Result]
        OK: _ClassVar[Verdict.Result]
        NG: _ClassVar[Verdict.Result]
        REVIEW: _ClassVar[Verdict.Result]
    UNSPECIFIED: Verdict.Result
    OK: Verdict.Result
    NG: Verdict.Result
    REVIEW: Verdict.Result
    RESULT_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    IS_ANOMALOUS_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    FAILURE_MODE_FIELD_NUMBER: _ClassVar[int]
    CLASS_SCORES_FIELD_NUMBER: _ClassVar[int]
    REGIONS_FIELD_NUMBER: _ClassVar[int]
    TIME_TO_FAILURE_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FLAGS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    result: Verdict.Result
    label: str
    score: float
    is_anomalous: bool
    severity: float
    failure_mode: str
    class_scores: _containers.RepeatedCompositeFieldContainer[ClassScore]
    regions: _containers.RepeatedCompositeFieldContainer[Region]
    time_to_failure: TimeToFailure
    quality_flags: _containers.RepeatedScalarFieldContainer[str]
    model: ModelReference
    timings: Timings
    def __init__(self, result: _Optional[_Union[Verdict.Result, str]] = ..., label: _Optional[str] = ..., score: _Optional[float] = ..., is_anomalous: _Optional[bool] = ..., severity: _Optional[float] = ..., failure_mode: _Optional[str] = ..., class_scores: _Optional[_Iterable[_Union[ClassScore, _Mapping]]] = ..., regions: _Optional[_Iterable[_Union[Region, _Mapping]]] = ..., time_to_failure: _Optional[_Union[TimeToFailure, _Mapping]] = ..., quality_flags: _Optional[_Iterable[str]] = ..., model: _Optional[_Union[ModelReference, _Mapping]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ...) -> None: ...

class ClassScore(_message.Message):
    __slots__ = ("label", "score")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    label: str
    score: float
    def __init__(self, label: _Optional[str] = ..., score: _Optional[float] = ...) -> None: ...

class Region(_message.Message):
    __slots__ = ("label", "score", "x", "y", "width", "height", "area_px")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    AREA_PX_FIELD_NUMBER: _ClassVar[int]
    label: str
    score: float
    x: float
    y: float
    width: float
    height: float
    area_px: float
    def __init__(self, label: _Optional[str] = ..., score: _Optional[float] = ..., x: _Optional[float] = ..., y: _Optional[float] = ..., width: _Optional[float] = ..., height: _Optional[float] = ..., area_px: _Optional[float] = ...) -> None: ...

class TimeToFailure(_message.Message):
    __slots__ = ("p10", "p50", "p90", "unit", "horizon", "beyond_horizon")
    P10_FIELD_NUMBER: _ClassVar[int]
    P50_FIELD_NUMBER: _ClassVar[int]
    P90_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    HORIZON_FIELD_NUMBER: _ClassVar[int]
    BEYOND_HORIZON_FIELD_NUMBER: _ClassVar[int]
    p10: float
    p50: float
    p90: float
    unit: str
    horizon: float
    beyond_horizon: bool
    def __init__(self, p10: _Optional[float] = ..., p50: _Optional[float] = ..., p90: _Optional[float] = ..., unit: _Optional[str] = ..., horizon: _Optional[float] = ..., beyond_horizon: _Optional[bool] = ...) -> None: ...

class ModelReference(_message.Message):
    __slots__ = ("name", "version", "digest", "variant", "execution_provider", "training_data_digest")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_PROVIDER_FIELD_NUMBER: _ClassVar[int]
    TRAINING_DATA_DIGEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    digest: str
    variant: str
    execution_provider: str
    training_data_digest: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., digest: _Optional[str] = ..., variant: _Optional[str] = ..., execution_provider: _Optional[str] = ..., training_data_digest: _Optional[str] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("queue_ms", "preprocess_ms", "predict_ms", "postprocess_ms")
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    PREPROCESS_MS_FIELD_NUMBER: _ClassVar[int]
    PREDICT_MS_FIELD_NUMBER: _ClassVar[int]
    POSTPROCESS_MS_FIELD_NUMBER: _ClassVar[int]
    queue_ms: float
    preprocess_ms: float
    predict_ms: float
    postprocess_ms: float
    def __init__(self, queue_ms: _Optional[float] = ..., preprocess_ms: _Optional[float] = ..., predict_ms: _Optional[float] = ..., postprocess_ms: _Optional[float] = ...) -> None: ...
