# SPDX-License-Identifier: Apache-2.0
"""The retained status messages of the other services, as far as the page shows them."""

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

LARGEST_STATUS_BYTES = 64 * 1024

Text = Annotated[str, StringConstraints(max_length=300)]
Word = Annotated[str, StringConstraints(max_length=80)]
Count = Annotated[int, Field(ge=0)]


class _Status(BaseModel):
    """Unknown fields are ignored: a newer service may say more."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False, protected_namespaces=())


class SpoolState(_Status):
    """How full capture's own spool is."""

    events: Count = 0
    bytes: Count = 0
    max_bytes: Count = 0


class CaptureStatus(_Status):
    """linewatch/v1/{site}/{line}/{station}/status."""

    state: Word
    detail: Text = ""
    source: Word = ""
    model: Word = ""
    sent: Count | None = None
    judged: Count | None = None
    not_inspected: Count | None = None
    skipped: Count | None = None
    spool: SpoolState | None = None


class Uplink(_Status):
    """The forwarder's way to the cloud. `since` is RFC 3339."""

    connected: bool
    since: Word = ""
    detail: Text = ""


class Stream(_Status):
    """One durable stream of the forwarder."""

    name: Word
    events: Count = 0
    bytes: Count = 0
    max_bytes: Count = 0
    oldest_age_s: float = 0
    stored: Count = 0
    delivered: Count = 0
    buried: Count = 0
    dropped: Count = 0
    full: Text = ""


class ForwarderStatus(_Status):
    """linewatch/v1/{site}/device/forwarder/status."""

    state: Word
    uplink: Uplink | None = None
    streams: Annotated[list[Stream], Field(max_length=64)] = []


class Thresholds(_Status):
    """Scores from which a part is REVIEW and NG, where the model's package tells them."""

    review: float
    ng: float


class ServedModel(_Status):
    """One model of the inference service."""

    name: Word
    version: Word = ""
    digest: Word = ""
    variant: Word = ""
    provider: Word = ""
    state: Word = ""
    thresholds: Thresholds | None = None


class InferenceStatus(_Status):
    """linewatch/v1/{site}/device/inference/status."""

    state: Word
    models: Annotated[list[ServedModel], Field(max_length=64)] = []


Status = TypeVar("Status", bound=_Status)


def read_status(kind: type[Status], payload: bytes) -> Status | None:
    """The status; None when it is not one."""
    if len(payload) > LARGEST_STATUS_BYTES:
        return None
    try:
        return kind.model_validate_json(payload)
    except ValidationError:
        return None
