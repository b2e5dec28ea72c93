# SPDX-License-Identifier: Apache-2.0
"""What a person may send: each decision's fields, checked here so that the page gets a plain answer at once."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

Reference = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,80}$")]
Reason = Annotated[str, StringConstraints(strip_whitespace=True, max_length=500)]
NeededReason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]
Short = Annotated[str, StringConstraints(strip_whitespace=True, max_length=120)]
NeededShort = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=120)]
Note = Annotated[str, StringConstraints(strip_whitespace=True, max_length=1000)]


class NotADecision(Exception):
    """The body can't be used; the text names the field and what it has to be."""


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Approve(_Asked):
    """Makes the order."""

    reason: Reason = ""


class Reject(_Asked):
    """Ends the episode without an order."""

    reason: NeededReason


class Merge(_Asked):
    """The same matter as another order."""

    into: Reference
    reason: NeededReason


class Replay(_Asked):
    """A parked order is tried again in the ERP."""

    reason: Reason = ""


class Close(_Asked):
    """What the technician found; a second one corrects the first."""

    finding: Annotated[str, StringConstraints(pattern=r"^(confirmed|other_fault|no_fault|unstated)$")]
    note: Note = ""
    found_failure: Short = ""


class Escape(_Asked):
    """A failure that nobody was told of."""

    asset_id: NeededShort
    failure_mode: NeededShort
    found_at: NeededShort
    note: Note = ""


VERBS: dict[str, type[_Asked]] = {
    "approve": Approve, "reject": Reject, "merge": Merge, "replay": Replay, "close": Close,
}  # fmt: skip

_REMEDY = {
    "reason": "a reason of 1 to 500 characters is needed",
    "into": "the reference of the order that stays is needed",
    "finding": "it must be confirmed, other_fault, no_fault or unstated",
}


def asked(kind: type[_Asked], content: Any) -> dict[str, str]:
    """The fields that were set. Raises NotADecision."""
    if not isinstance(content, dict):
        raise NotADecision("the body must be a JSON object")
    try:
        return kind.model_validate(content).model_dump(exclude_defaults=True)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "body"
        why = _REMEDY.get(name) if first["type"] != "extra_forbidden" else "there is no such field"
        raise NotADecision(f"{name}: {why or first['msg']}") from error
