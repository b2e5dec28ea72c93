# SPDX-License-Identifier: Apache-2.0
"""The cloud's HTTP API, as a client sees it: work orders and what a person decides on them.

Each call ends in time. What the API answers is checked against the shapes below, so that a wrong answer is told as one
and not shown as a half-empty page.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import httpx
from prometheus_client import Counter
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from linewatch_console.settings import read_secret

REQUEST_TIMEOUT_S = 5.0
DECISION_TIMEOUT_S = 20.0
"""A decision may wait for the ERP."""
MOST_ORDERS = 100

requests = Counter("linewatch_console_cloud_requests", "Requests to the cloud API", ["outcome"])


class CloudAway(Exception):
    """No usable answer. The text says why, for people."""


class CloudRefused(Exception):
    """The API answered and said no; `status` is the HTTP status."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class _Shape(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, content: Any) -> Any:
        """The API sends null for what an order does not have."""
        if isinstance(content, dict):
            return {name: value for name, value in content.items() if value is not None}
        return content


class Interval(_Shape):
    """Time to failure. `hours` where the machine's cycle period is known."""

    p10: float | None = None
    p50: float | None = None
    p90: float | None = None
    unit: str = ""
    horizon: float | None = None
    hours: dict[str, float | None] | None = None
    beyond_horizon: bool = False


class OrderEvidence(_Shape):
    """A file of the part that spoke for the order."""

    kind: str
    path: str = ""
    media_type: str = ""
    digest: str = ""


class HistoryEntry(_Shape):
    """Something that happened to the order."""

    at: str
    what: str
    by: str | None = ""
    detail: str | None = ""


class OrderModel(_Shape):
    """Which model spoke."""

    name: str = ""
    version: str = ""
    digest: str = ""


class WorkOrder(_Shape):
    """A work order as the cloud keeps it."""

    reference: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,80}$")]
    status: Literal["awaiting_approval", "creating", "created", "rejected", "parked", "closed"]
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
    history: list[HistoryEntry] = []


class OrderList(_Shape):
    """The answer of GET /work-orders."""

    work_orders: list[WorkOrder]


class Bands(_Shape):
    """Risks from which an order awaits approval and from which it is made without one."""

    approval: float = 0.5
    automatic: float = 0.8


class OrderCounts(_Shape):
    """How many work orders ended where."""

    created: int = 0
    suppressed: int = 0
    awaiting_approval: int = 0
    rejected: int = 0
    creating: int = 0
    parked: int = 0


class Summary(_Shape):
    """The answer of GET /summary."""

    enriched: int
    work_orders: OrderCounts
    pilot: bool = False
    bands: Bands = Bands()


Answer = TypeVar("Answer", bound=_Shape)


class CloudApi:
    """One client with one connection pool; `token_file` is read for each request."""

    def __init__(self, url: str, token_file: Path | None) -> None:
        self._url = url.rstrip("/")
        self._token_file = token_file
        self._client = httpx.AsyncClient(timeout=REQUEST_TIMEOUT_S, trust_env=False)

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def summary(self) -> Summary:
        """The counts. Raises CloudAway, CloudRefused, as all calls here."""
        return await self._get("/summary", Summary)

    async def work_orders(self) -> list[WorkOrder]:
        """The newest orders, newest first."""
        return (await self._get(f"/work-orders?limit={MOST_ORDERS}", OrderList)).work_orders

    async def work_order(self, reference: str) -> WorkOrder:
        """One order with its history."""
        return await self._get(f"/work-orders/{reference}", WorkOrder)

    async def decide(self, reference: str, decision: str, by: str, reason: str) -> WorkOrder:
        """Approves or rejects; `decision` is "approve" or "reject". 409 when it awaits no approval any more."""
        body = {"by": by, "reason": reason}
        answer = await self._ask("POST", f"/work-orders/{reference}/{decision}", body, DECISION_TIMEOUT_S)
        return _shaped(WorkOrder, answer)

    async def _get(self, path: str, shape: type[Answer]) -> Answer:
        return _shaped(shape, await self._ask("GET", path, None, REQUEST_TIMEOUT_S))

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None, timeout_s: float) -> bytes:
        token = read_secret(self._token_file) if self._token_file else ""
        if not token:
            requests.labels("no_token").inc()
            raise CloudAway(f"CONSOLE_CLOUD_API_TOKEN_FILE: {self._token_file} holds no token")
        try:
            answer = await self._client.request(
                method, self._url + path, json=body, timeout=timeout_s,
                headers={"Authorization": f"Bearer {token}"},
            )  # fmt: skip
        except httpx.HTTPError as error:
            requests.labels("unreachable").inc()
            raise CloudAway(_why(error)) from error
        requests.labels(f"{answer.status_code // 100}xx").inc()
        if answer.status_code in {401, 403}:
            raise CloudAway("the cloud API does not accept the token in CONSOLE_CLOUD_API_TOKEN_FILE")
        if answer.status_code >= 500:
            raise CloudAway(f"the cloud API failed with HTTP {answer.status_code}")
        if answer.status_code >= 400:
            raise CloudRefused(answer.status_code, _detail(answer))
        return answer.content


def _why(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    if isinstance(error, httpx.ConnectError):
        return "nothing answers at its address"
    return str(error) or type(error).__name__


def _shaped(shape: type[Answer], content: bytes) -> Answer:
    try:
        return shape.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"])
        raise CloudAway(f"the cloud API's answer is not understood: {place}: {first['msg']}") from error


def _detail(answer: httpx.Response) -> str:
    try:
        content = answer.json()
    except ValueError:
        return f"HTTP {answer.status_code}"
    told = (
        content.get("error") or content.get("message") or content.get("detail")
        if isinstance(content, dict)
        else ""
    )
    return str(told or f"HTTP {answer.status_code}")[:300]
