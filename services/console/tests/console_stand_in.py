# SPDX-License-Identifier: Apache-2.0
"""The cloud's HTTP API as the console knows it: a small application that keeps work orders in memory."""

from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

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


@dataclass
class StandInCloud:
    orders: dict[str, dict[str, Any]] = field(default_factory=dict)
    decided: list[tuple[str, str, str, str]] = field(default_factory=list)
    fails_with: int = 0
    suppressed: int = 0
    enriched: int = 0

    def add(self, order: dict[str, Any]) -> None:
        self.orders[order["reference"]] = order

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/summary", self._summary),
                Route("/work-orders", self._list),
                Route("/work-orders/{reference}", self._one),
                Route("/work-orders/{reference}/{verb}", self._decide, methods=["POST"]),
            ]
        )

    def _refused(self, request: Request) -> Response | None:
        if self.fails_with:
            return JSONResponse({"error": "it hurts"}, self.fails_with)
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return JSONResponse({"error": "bearer token missing or wrong"}, 401)
        return None

    async def _summary(self, request: Request) -> Response:
        statuses = [order["status"] for order in self.orders.values()]
        counts = {name: statuses.count(name) for name in ("created", "awaiting_approval", "rejected")}
        body = {
            "enriched": self.enriched,
            "work_orders": counts | {"suppressed": self.suppressed},
            "pilot": False,
        }
        return self._refused(request) or JSONResponse(body)

    async def _list(self, request: Request) -> Response:
        newest_first = sorted(self.orders.values(), key=lambda order: order["created_at"], reverse=True)
        orders = [
            {name: value for name, value in order.items() if name != "history"} for order in newest_first
        ]
        return self._refused(request) or JSONResponse({"work_orders": orders})

    async def _one(self, request: Request) -> Response:
        order = self.orders.get(request.path_params["reference"])
        missing = JSONResponse({"error": "no such work order"}, 404)
        return self._refused(request) or (JSONResponse(order) if order else missing)

    async def _decide(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        body = await request.json()
        reference, verb = request.path_params["reference"], request.path_params["verb"]
        order = self.orders.get(reference)
        if order is None:
            return JSONResponse({"error": "no such work order"}, 404)
        if order["status"] != "awaiting_approval":
            return JSONResponse({"error": f"it is {order['status']}"}, 409)
        self.decided.append((reference, verb, body["by"], body["reason"]))
        order["status"] = "created" if verb == "approve" else "rejected"
        order["decided_by"], order["reason"] = body["by"], body["reason"]
        order["history"] = [
            *order["history"],
            {"at": "2026-11-21T04:05:00Z", "what": verb, "by": body["by"], "detail": body["reason"]},
        ]
        return JSONResponse(order)
