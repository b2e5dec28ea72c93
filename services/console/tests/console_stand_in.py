# SPDX-License-Identifier: Apache-2.0
"""The cloud's HTTP API as the console knows it: a small application that keeps work orders in memory."""

import asyncio
import datetime
import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from api.errors import BadRequestError
from api.request import Request as CloudRequest
from linewatch.records import Entry, first_fault, following
from work_orders.policy_reading import PolicyError, parse

TOKEN = "a-token-for-tests"


def work_order(reference: str, **changes: Any) -> dict[str, Any]:
    return {
        "reference": reference,
        "status": "awaiting_approval",
        "asset_id": "STR-01",
        "asset_name": "cell stringer 1",
        "location": "hall A, line 1",
        "criticality": "B",
        "site": "plant-1",
        "line": "line-1",
        "station": "station-1",
        "failure_mode": "cell-crack",
        "failure_type": "Stringer cracks cells (solder head pressure or gripper alignment)",
        "severity": 0.91,
        "risk": 0.66,
        "band": "approval",
        "ai_generated": True,
        "recommended_action": "Check solder head pressure, gripper alignment and the cell stack's feed",
        "time_to_failure": None,
        "evidence": [],
        "event_ids": ["0198-1"],
        "model": {"name": "pv-el-cells", "version": "1.0.0", "digest": "sha256:00"},
        "erp_id": None,
        "erp_status": None,
        "episode": 1,
        "created_at": "2026-11-21T04:00:00Z",
        "decided_at": None,
        "decided_by": None,
        "reason": None,
        "pilot": False,
        "history": [
            {"at": "2026-11-21T04:00:00Z", "what": "opened", "by": "policy", "detail": "band approval"}
        ],
    } | changes


MOVES = {
    "approve": ({"awaiting_approval"}, "created"),
    "reject": ({"awaiting_approval"}, "rejected"),
    "merge": ({"awaiting_approval"}, "merged"),
    "close": ({"created", "parked", "closed"}, "closed"),
    "replay": ({"parked"}, "parked"),
}
OPEN = ("awaiting_approval", "creating", "created", "parked")
MOST_ENTRIES = 5
"""Of a chain in one answer."""
LEAST_ROLE = ("viewer", "approver", "admin")


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass
class StandInCloud:
    orders: dict[str, dict[str, Any]] = field(default_factory=dict)
    chains: dict[str, list[Entry]] = field(default_factory=dict)
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Answers of /accuracy, /pilot-exit, /policy, /assets; asked for as they are."""
    parts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    """Evidence by path."""
    decided: list[tuple[str, str, str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    escapes: list[dict[str, str]] = field(default_factory=list)
    fails_with: int = 0
    hangs: bool = False
    """Takes decisions and never answers."""
    holds_list: bool = False
    """Has read the orders, and does not answer yet."""
    looks: int = 0
    """How often the console has begun to look at it."""
    lists: int = 0
    """How often the orders were read for it."""
    suppressed: int = 0
    enriched: int = 0
    pilot: bool = False
    bands: dict[str, float] = field(default_factory=lambda: {"approval": 0.5, "automatic": 0.8})

    def add(self, order: dict[str, Any]) -> None:
        self.orders[order["reference"]] = order
        if order["reference"] not in self.chains:
            self.record(order["reference"], "opened", "policy", {"band": order["band"]}, order["created_at"])

    def record(self, reference: str, what: str, by: str, detail: Any, at: str = "") -> None:
        chain = self.chains.setdefault(reference, [])
        chain.append(following(chain[-1] if chain else None, reference, at or now(), what, by, detail))
        if reference in self.orders:
            self.orders[reference] |= {"head": chain[-1].digest, "records": len(chain)}

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/summary", self._summary),
                Route("/work-orders", self._list),
                Route("/work-orders/{reference}", self._one),
                Route("/work-orders/{reference}/why", self._why),
                Route("/work-orders/{reference}/{verb}", self._decide, methods=["POST"]),
                Route("/records/{chain:path}", self._records),
                Route("/escapes", self._escape, methods=["POST"]),
                Route("/policy", self._put_policy, methods=["PUT"]),
                Route("/evidence", self._evidence),
                Route("/store/{path:path}", self._store),
                *(Route(f"/{name}", self._report) for name in ("accuracy", "pilot-exit", "policy", "assets")),
            ]
        )

    def _refused(self, request: Request) -> Response | None:
        if self.fails_with:
            return JSONResponse({"error": "it hurts"}, self.fails_with)
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return JSONResponse({"error": "bearer token missing or wrong"}, 401)
        return None

    async def _summary(self, request: Request) -> Response:
        self.looks += 1
        # list(): a test may add an order in its own thread meanwhile.
        statuses = [order["status"] for order in list(self.orders.values())]
        names = ("created", "awaiting_approval", "rejected", "creating", "parked", "merged", "closed")
        counts = {name: statuses.count(name) for name in names}
        body = {
            "enriched": self.enriched,
            "work_orders": counts | {"suppressed": self.suppressed},
            "pilot": self.pilot,
            "bands": self.bands,
        }
        return self._refused(request) or JSONResponse(body)

    async def _list(self, request: Request) -> Response:
        newest_first = sorted(list(self.orders.values()), key=lambda order: order["created_at"], reverse=True)  # noqa: C414
        asked = {name: request.query_params.get(name) for name in ("status", "asset_id")}
        detail = ("history", "persistence", "thresholds", "raised_in", "asset", "similar")
        orders = [
            {name: value for name, value in list(order.items()) if name not in detail}
            for order in newest_first
            if all(value in (None, order[name]) for name, value in asked.items())
        ]
        limit = int(request.query_params.get("limit", "50"))
        self.lists += 1
        while self.holds_list:  # noqa: ASYNC110 - of another thread
            await asyncio.sleep(0.01)
        return self._refused(request) or JSONResponse({"work_orders": orders[:limit]})

    async def _one(self, request: Request) -> Response:
        order = self.orders.get(request.path_params["reference"])
        missing = JSONResponse({"error": "no such work order"}, 404)
        return self._refused(request) or (JSONResponse(order) if order else missing)

    async def _why(self, request: Request) -> Response:
        reference = request.path_params["reference"]
        order = self.orders.get(reference)
        if refused := self._refused(request):
            return refused
        if order is None:
            return JSONResponse({"error": "no such work order"}, 404)
        entries = list(self.chains[reference])
        fault = first_fault(entries, order.get("head"))
        shown = [
            {name: value for name, value in asdict(entry).items() if name != "chain"}
            | {"detail": json.loads(entry.detail), "text": f"{entry.what} by {entry.by}"}
            for entry in entries
        ]
        policy = self.reports.get("policy", {})
        answer = {
            "reference": reference,
            "verified": fault is None,
            "fault": {"number": fault.number, "why": fault.why} if fault else None,
            "head": order.get("head"),
            "entries": shown,
            "parts": self.parts.get(reference, []),
            "policy": {
                "version": order.get("policy_version", "2.0.0"),
                "digest": order.get("policy_digest", "sha256:" + "ab" * 32),
                "document": policy.get("document"),
                "is_known": bool(policy),
            },
            "erp": {
                "id": order.get("erp_id"),
                "status": order.get("erp_status"),
                "record_digest": entries[0].digest if order.get("erp_id") else None,
                "calls": [call for entry in entries for call in json.loads(entry.detail).get("calls", [])],
            },
        }
        return JSONResponse(answer)

    async def _records(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        entries = self.chains.get(request.path_params["chain"])
        if entries is None:
            return JSONResponse({"error": "no such chain"}, 404)
        first = int(request.query_params.get("from", "0"))
        page = [asdict(entry) for entry in entries[first : first + MOST_ENTRIES]]
        following = first + len(page) if len(entries) > first + len(page) else None
        return JSONResponse({"chain": entries[0].chain, "entries": page, "next": following})

    async def _decide(self, request: Request) -> Response:
        if refused := self._refused(request) or self._role_refused(request):
            return refused
        body = await request.json()
        reference, verb = request.path_params["reference"], request.path_params["verb"]
        order = self.orders.get(reference)
        if order is None or verb not in MOVES:
            return JSONResponse({"error": "no such work order"}, 404)
        least, ends_as = MOVES[verb]
        # As cloud/api: one that quiet hours hold back can be approved and rejected, and merged by nobody.
        is_held = order["status"] == "creating" and bool(order.get("hold_until"))
        if order["status"] not in least and not (is_held and verb in ("approve", "reject")):
            return JSONResponse({"error": f"it is {order['status']}", "order": order}, 409)
        if verb == "merge" and (why := self._why_not_into(order, body["into"])):
            status, told = why
            return JSONResponse({"error": told} | ({"order": order} if status == 409 else {}), status)
        by, reason = unquote(request.headers.get("x-linewatch-user", body["by"])), body.get("reason", "")
        self.decided.append((reference, verb, by, reason))
        self.headers.append(dict(request.headers))
        order |= {"status": ends_as, "hold_until": None}
        if verb == "merge":
            order["merged_into"] = body["into"]
            self.orders[body["into"]].setdefault("merged", []).append(reference)
        if verb == "close":
            order |= {name: body.get(name, "") for name in ("finding", "found_failure", "note")}
            order |= {"closed_at": now(), "closed_by": by}
        elif verb == "replay":
            order["is_refused"] = False
        else:
            order |= {"decided_at": now(), "decided_by": by, "reason": reason}
        if verb == "approve":
            order |= {"erp_id": f"ERP-{len(self.decided):04d}", "erp_status": "open"}
        order["history"] = [*order["history"], {"at": now(), "what": verb, "by": by, "detail": reason}]
        self.record(reference, verb, by, {name: value for name, value in body.items() if name != "by"})
        if self.hangs:
            await asyncio.Event().wait()
        return JSONResponse(order)

    def _why_not_into(self, order: dict[str, Any], reference: str) -> tuple[int, str] | None:
        """As cloud/api: an open order of the same asset or the same line takes it in."""
        into = self.orders.get(reference)
        if into is None:
            return 400, "into: no such work order"
        if into is order:
            return 409, "an order can't be merged into itself"
        if into["status"] not in OPEN:
            return 409, f"{reference} is {into['status']}: an open order is due"
        if order["asset_id"] != into["asset_id"] and (order["site"], order["line"]) != (into["site"], into["line"]):  # fmt: skip
            return 409, f"{reference} is of another asset on another line"
        return None

    async def _escape(self, request: Request) -> Response:
        if refused := self._refused(request) or self._role_refused(request):
            return refused
        body = await request.json()
        self.escapes.append(body)
        number = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]
        return JSONResponse({"reference": f"escape-{number}", "recorded_at": now(), **body}, 201)

    async def _put_policy(self, request: Request) -> Response:
        """With the cloud's own reader of a request and of a policy: its words are what the page shows."""
        if refused := self._refused(request):
            return refused
        if request.headers.get("x-linewatch-role") != "admin":
            return JSONResponse({"error": "may not do this; admin may"}, 403)
        try:
            content = CloudRequest("PUT", (), {}, {}, await request.body()).content()
            data = parse(content)
        except (BadRequestError, PolicyError) as error:
            return JSONResponse({"error": str(error)}, 400)
        present = self.reports["policy"]
        if present["version"] == data.version and present["digest"] != data.digest:
            told = f"version {data.version} exists with another content; give this one a version of its own"
            return JSONResponse({"error": told}, 409)
        self.reports["policy"] = {
            "version": data.version, "digest": data.digest, "document": content, "pilot": data.pilot.is_on,
        }  # fmt: skip
        by = unquote(request.headers["x-linewatch-user"])
        self.record("policy", "put", by, {"version": data.version, "digest": data.digest})
        return JSONResponse(self.reports["policy"])

    async def _evidence(self, request: Request) -> Response:
        path = request.query_params.get("path", "")
        if refused := self._refused(request):
            return refused
        if path not in self.files:
            return JSONResponse({"error": "no such evidence"}, 404)
        return JSONResponse({"url": f"{request.base_url}store/{path}?X-Amz-Signature=00"})

    async def _store(self, request: Request) -> Response:
        return Response(self.files[request.path_params["path"]])

    async def _report(self, request: Request) -> Response:
        report = self.reports.get(request.url.path.strip("/"))
        missing = JSONResponse({"error": "no such report"}, 404)
        return self._refused(request) or (JSONResponse(report) if report is not None else missing)

    @staticmethod
    def _role_refused(request: Request) -> Response | None:
        role = request.headers.get("x-linewatch-role", "approver")
        if role not in LEAST_ROLE[1:]:
            return JSONResponse({"error": f"{role} may not decide"}, 403)
        return None
