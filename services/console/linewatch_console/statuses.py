# SPDX-License-Identifier: Apache-2.0
"""The retained status messages of the other services, as far as the page shows them."""

import math
from typing import Annotated, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

LARGEST_STATUS_BYTES = 64 * 1024

Text = Annotated[str, StringConstraints(max_length=300)]
Word = Annotated[str, StringConstraints(max_length=80)]
Count = Annotated[int, Field(ge=0)]


def _two_digits(value: float | None) -> float | None:
    """As exact as a person reads it, so that what wavers a little is no change that every page is sent."""
    return round(value, 1 - math.floor(math.log10(abs(value)))) if value else value


def _whole_minutes(seconds: float | None) -> float | None:
    return seconds if seconds is None or seconds < 120 else seconds // 60 * 60


Rough = Annotated[float | None, Field(ge=0), AfterValidator(_two_digits)]
Lasting = Annotated[float | None, Field(ge=0), AfterValidator(_whole_minutes)]


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
    """The forwarder's way to the cloud. `since` is RFC 3339 by the device's wall clock, `for_s` by one that never jumps."""

    connected: bool
    since: Word = ""
    for_s: Lasting = None
    detail: Text = ""
    certificate_days: float | None = None
    promise: Text = ""
    """What it means that an event was delivered."""
    handed_over: Count = 0
    """Events that somebody took who may still lose them; kept on the device for now."""


class Drain(_Status):
    """How the backlog leaves: caught_up, draining, growing, stopped or unknown. None: not known."""

    state: Word = "unknown"
    rate_per_s: Rough = None
    seconds: Rough = None


class DeadLetter(_Status):
    """An event that can never be delivered."""

    number: Count
    event_id: Word = ""
    stream: Word = ""
    reason: Text = ""


class DeadLetters(_Status):
    """What lies aside on the device; more than `count` where `is_more`."""

    count: Count = 0
    is_more: bool = False
    newest: Annotated[list[DeadLetter], Field(max_length=16)] = []


class Evidence(_Status):
    """The upload of evidence: off, idle, uploading, waiting (`why`) or troubled (`trouble`)."""

    state: Word = ""
    why: Text = ""
    trouble: Text = ""
    waiting_files: Count = 0
    waiting_bytes: Count = 0
    uploaded: Count | None = None
    uploaded_bytes: Count | None = None
    pinned: Count | None = None
    """Parts whose evidence open work orders hold on this device."""


class Moving(_Status):
    """A move to the other kind of streams that is not done. `order_broken`: fresh events go before moved ones."""

    events: Count = 0
    reason: Text = ""
    order_broken: bool = False


class Stream(_Status):
    """One durable stream of the forwarder. `retention_s`: what it holds at the present rate; None: not known."""

    name: Word
    events: Count = 0
    bytes: Count = 0
    max_bytes: Count = 0
    oldest_age_s: float = 0
    stored: Count = 0
    delivered: Count = 0
    buried: Count = 0
    dropped: Count = 0
    dropped_by: Annotated[dict[Word, Count], Field(max_length=16)] = {}
    rate_per_s: Rough = None
    retention_s: Rough = None
    retention_limit: Word = ""
    full: Text = ""
    trouble: Text = ""


class ForwarderStatus(_Status):
    """linewatch/v1/{site}/device/forwarder/status. An older forwarder says less; that is no error."""

    state: Word
    uplink: Uplink | None = None
    drain: Drain | None = None
    dead_letters: DeadLetters | None = None
    evidence: Evidence | None = None
    unavailable: Text = ""
    twin: Text = ""
    moving: Moving | None = None
    streams: Annotated[list[Stream], Field(max_length=64)] = []
    streams_left_out: Count = 0


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
    """The execution provider that computes it."""
    state: Word = ""
    """READY, LOADING or UNAVAILABLE; READY is one whose self test passed."""
    reason: Annotated[str, AfterValidator(lambda text: text[:300])] = ""
    """Why it is not in service, such as what of its self test failed."""
    thresholds: Thresholds | None = None


Cut = Annotated[str, AfterValidator(lambda text: text[:80])]
"""A name that nobody bounds, such as a folder's: shown in part, and no reason to forget the status."""


def _first_64(told: object) -> object:
    return told[:64] if isinstance(told, list) else told


class RestingModel(_Status):
    """A version that lies on the device and serves nothing: what a rollback would go to."""

    name: Cut
    version: Cut = ""


class InferenceStatus(_Status):
    """linewatch/v1/{site}/device/inference/status."""

    state: Word
    models: Annotated[list[ServedModel], Field(max_length=64)] = []
    on_disk: Annotated[list[RestingModel], BeforeValidator(_first_64)] = []
    on_disk_more: Count = 0
    """Resting versions that the status has no room for."""


Status = TypeVar("Status", bound=_Status)


def read_status(kind: type[Status], payload: bytes) -> Status | None:
    """The status; None when it is not one."""
    if len(payload) > LARGEST_STATUS_BYTES:
        return None
    try:
        return kind.model_validate_json(payload)
    except ValidationError:
        return None
