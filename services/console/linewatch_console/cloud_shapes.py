# SPDX-License-Identifier: Apache-2.0
"""What the cloud's HTTP API answers, as far as the console relies on it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator


class Shape(BaseModel):
    """What is not named here passes as it came: a newer cloud may say more."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, content: Any) -> Any:
        """The API sends null for what an order does not have."""
        if isinstance(content, dict):
            return {name: value for name, value in content.items() if value is not None}
        return content


class Interval(Shape):
    """Time to failure. `hours` where the machine's cycle period is known."""

    p10: float | None = None
    p50: float | None = None
    p90: float | None = None
    unit: str = ""
    horizon: float | None = None
    hours: dict[str, float | None] | None = None
    beyond_horizon: bool = False


class OrderEvidence(Shape):
    """A file of the part that spoke for the order."""

    kind: str
    path: str = ""
    media_type: str = ""
    digest: str = ""


class HistoryEntry(Shape):
    """Something that happened to the order."""

    at: str
    what: str
    by: str | None = ""
    detail: str | None = ""


class OrderModel(Shape):
    """Which model spoke."""

    name: str = ""
    version: str = ""
    digest: str = ""


class Approval(Shape):
    """How long an order may wait for a person, and what becomes of it then."""

    announced_at: str | None = None
    reminded_at: str | None = None
    expires_at: str | None = None
    on_expiry: str = ""


class WorkOrder(Shape):
    """A work order as the cloud keeps it."""

    reference: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,80}$")]
    status: Literal["awaiting_approval", "creating", "created", "rejected", "parked", "merged", "closed"]
    asset_id: str
    asset_name: str = ""
    location: str = ""
    criticality: str = ""
    site: str = ""
    line: str = ""
    station: str = ""
    failure_mode: str
    failure_type: str = ""
    severity: float | None = None
    risk: float | None = None
    band: str = ""
    ai_generated: bool = True
    recommended_action: str = ""
    time_to_failure: Interval | None = None
    evidence: list[OrderEvidence] = []
    evidence_left_out: int = 0
    """Files of its parts that the order has no room to name."""
    event_ids: list[str] = []
    model: OrderModel | None = None
    erp_id: str | None = None
    erp_status: str | None = None
    episode: int | None = None
    observed_at: str | None = None
    created_at: str
    decided_at: str | None = None
    decided_by: str | None = None
    reason: str | None = None
    pilot: bool = False
    priority: str | float | None = None
    hold_until: str | float | None = None
    merged_into: str | None = None
    merged: list[str] = []
    escalations: list[dict[str, Any]] | int = []
    approval: Approval | None = None
    finding: str | None = None
    found_failure: str | None = None
    closed_at: str | None = None
    closed_by: str | None = None
    note: str | None = None
    head: str | None = None
    records: int | None = None
    history: list[HistoryEntry] = []
    persistence: list[dict[str, Any]] = []
    thresholds: dict[str, Any] = {}
    raised_in: str = ""
    """The band at its opening; an escalation changes `band` alone. Orders of before do not say it."""
    asset: dict[str, Any] | None = None
    similar: list[dict[str, Any]] = []
    is_refused: bool = False
    """Parked because the ERP refused it: nothing happens by itself."""
    failure: str | None = None
    """What the last try in the ERP ended with."""
    standing: dict[str, Any] | None = None
    """Where it stands, why, and what happens next, in the cloud's words; of a single order only."""


class OrderList(Shape):
    """The answer of GET /work-orders."""

    work_orders: list[WorkOrder]
    next: str | None = None
    """Where the next page begins."""
    left_out: int = 0
    """Orders of this page that are not understood; the others are shown, and this is said beside them."""
    first_fault: str = ""

    @model_validator(mode="before")
    @classmethod
    def _understood(cls, content: Any) -> Any:
        """One odd order hides no other. Where none is understood, the answer is a wrong one and stays it."""
        listed = content.get("work_orders") if isinstance(content, dict) else None
        if not isinstance(listed, list):
            return content
        read, faults = [], []
        for one in listed:
            try:
                read.append(WorkOrder.model_validate(one))
            except ValidationError as error:
                first = error.errors()[0]
                name = one.get("reference") if isinstance(one, dict) else None
                place = ".".join(map(str, first["loc"]))
                faults.append(f"{str(name)[:80]}: {place}: {first['msg']}")
        if faults and not read:
            return content
        return {**content, "work_orders": read, "left_out": len(faults), "first_fault": "".join(faults[:1])}


class Bands(Shape):
    """Risks from which an order awaits approval and from which it is made without one."""

    approval: float = 0.5
    automatic: float = 0.8


class OrderCounts(Shape):
    """How many work orders ended where."""

    created: int = 0
    suppressed: int = 0
    awaiting_approval: int = 0
    rejected: int = 0
    creating: int = 0
    parked: int = 0
    merged: int = 0
    closed: int = 0


class Summary(Shape):
    """The answer of GET /summary."""

    enriched: int
    work_orders: OrderCounts
    pilot: bool = False
    bands: Bands = Bands()


class CloudEntry(Shape):
    """An entry of a hash chain as the API shows it; `detail` as text, or already parsed."""

    number: int
    at: str
    what: str
    by: str = ""
    detail: Any = ""
    digest: str
    previous: str


class CloudChain(Shape):
    """The answer of GET /records/{chain}, oldest first."""

    entries: list[CloudEntry]
    next: int | None = None
    """The number to go on with."""


class EvidenceAddress(Shape):
    """The answer of GET /evidence: where the file can be had for a minute."""

    url: str
