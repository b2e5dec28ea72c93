# SPDX-License-Identifier: Apache-2.0
"""An ERP that dedupes nothing, below the product's own adapter: its transport is replaced, all above it is the real one.

What goes wrong with a call is drawn by the seed. The promise that is relied upon is kept: what the ERP does not answer
it commits within `settle_s`, or never.
"""

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import urllib3

from erp.http import Http
from erp.login import BearerLogin, Caller
from erp.oauth import Tokens
from erp.rest import HttpErp, RestSettings
from erp.transcript import Hidden

TIMEOUT_S = 5.0
TOKEN_LIFE_S = 600.0

CREATE_FAULTS = ("500", "500 made", "hang", "hang made", *("late", "late hang") * 2, "429", "garbage", "garbage made",
                 "refused", "reset made", "no connection", "409 made")  # fmt: skip
FIND_FAULTS = ("500", "garbage", "hang", "429", "no connection", "404")


@dataclass(slots=True)
class ErpServer:
    """State and behaviour of the ERP."""

    chance: random.Random
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    later: Callable[[float, Callable[[], None]], None]
    settle_s: float
    # Of a hundred calls, how many are spoiled.
    percent: float = 0.0
    # It keeps a unique index on the reference and answers 409.
    is_unique: bool = False
    # Times at which every call is answered 503.
    away: list[tuple[float, float]] = field(default_factory=list)
    orders: list[dict[str, Any]] = field(default_factory=list)
    tokens: dict[str, float] = field(default_factory=dict)
    secret: str = "first-secret"
    # Wanted of a fixed crash point: the next create is spoiled so.
    next_create: str = ""
    # And one that comes late comes after so many seconds; None: by chance.
    late_s: float | None = None
    counted: dict[str, int] = field(default_factory=dict)

    def answer(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """Status and body. Raises what urllib3 raises."""
        parts = urlsplit(target)
        if any(begin <= self.clock() < end for begin, end in self.away):
            return 503, b"<html>maintenance</html>"
        if parts.path == "/oauth/token":
            return self._token(headers)
        given = headers.get("Authorization", "").removeprefix("Bearer ")
        if self.tokens.get(given, 0.0) < self.clock():
            return 401, b'{"error": "invalid_token"}'
        if self._strikes(0.1):
            self.tokens.clear()  # rotated, or the server restarted
        if parts.path == "/work-orders" and method == "POST":
            return self._create(json.loads(body or b"{}"))
        if parts.path == "/work-orders":
            return self._find(parse_qs(parts.query)["external_reference"][0])
        order = next(one for one in self.orders if one["id"] == parts.path.split("/")[2])
        return (
            self._notes(method, order, body) if parts.path.endswith("/notes") else self._status(method, order)
        )

    def revoke(self) -> None:
        """Every token is forgotten."""
        self.tokens.clear()

    def of(self, reference: str) -> list[dict[str, Any]]:
        """The orders with this reference."""
        return [order for order in self.orders if order["external_reference"] == reference]

    def technician(self, ended_at: str) -> None:
        """Ends one of the orders, or says something else of one that has ended."""
        if not self.orders:
            return
        ended = [order for order in self.orders if order["status"] != "OPEN"]
        order = self.chance.choice(ended if ended and self.chance.random() < 0.5 else self.orders)
        if order["status"] == "OPEN":
            order["status"] = self.chance.choice(("COMPLETED", "COMPLETED", "COMPLETED", "CANCELLED"))
            order |= {"completed_at": ended_at, "completed_by": "yilmaz"}
        order["finding"] = self.chance.choice(("confirmed", "other_fault", "no_fault", ""))

    def _token(self, headers: Mapping[str, str]) -> tuple[int, bytes]:
        if self._strikes(0.3):
            return 503, b"busy"
        token = f"token-{len(self.tokens)}-{self.chance.getrandbits(48):x}"
        self.tokens[token] = self.clock() + TOKEN_LIFE_S
        body = {"access_token": token, "token_type": "Bearer", "expires_in": TOKEN_LIFE_S}
        return 200, json.dumps(body).encode()

    def _create(self, order: Mapping[str, Any]) -> tuple[int, bytes]:
        fault, self.next_create = self.next_create, ""
        if not fault and self._strikes(1):
            fault = self.chance.choice(CREATE_FAULTS)
        if fault:
            self.counted[fault] = self.counted.get(fault, 0) + 1
        if fault in ("late", "late hang"):
            late_s = self.late_s if self.late_s is not None else self.chance.uniform(0, self.settle_s - 1)
            self.later(self.clock() + late_s, lambda: self._make(order))
        elif fault.endswith("made") or not fault:
            if self.is_unique and self.of(order["external_reference"]):
                return 409, b'{"error": "external_reference exists"}'
            made = self._make(order)
            if not fault:
                return 201, json.dumps(made).encode()
        return self._spoilt(fault)

    def _spoilt(self, fault: str) -> tuple[int, bytes]:
        kind = fault.removesuffix(" made")
        if kind == "no connection":
            raise NoConnectionError
        if kind in ("hang", "late hang"):
            self.sleep(TIMEOUT_S)
            raise urllib3.exceptions.ReadTimeoutError(None, "/", "read timed out")  # type: ignore[arg-type]
        if kind == "reset":
            raise urllib3.exceptions.ProtocolError("Connection aborted.")
        if kind == "garbage":
            return 200, b"<html>It works!</html>"
        if kind == "refused":
            return 422, b'{"error": "plant code is unknown"}'
        if kind == "late":
            return 504, b"gateway time-out"
        return int(kind), b'{"error": "spoilt"}'

    def _find(self, reference: str) -> tuple[int, bytes]:
        if self._strikes(0.5):
            return self._spoilt(self.chance.choice(FIND_FAULTS))
        return 200, json.dumps({"work_orders": self.of(reference)}).encode()

    def _status(self, method: str, order: Mapping[str, Any]) -> tuple[int, bytes]:
        assert method == "GET"
        if self._strikes(0.5):
            return self._spoilt(self.chance.choice(("500", "garbage", "hang", "429", "no connection", "404")))
        return 200, json.dumps(order).encode()

    def _notes(self, method: str, order: dict[str, Any], body: bytes | None) -> tuple[int, bytes]:
        if method == "GET":
            if self._strikes(0.5):
                return self._spoilt(self.chance.choice(("500", "garbage", "hang", "429")))
            return 200, json.dumps({"notes": order["notes"]}).encode()
        fault = (
            self.chance.choice(("500", "hang", "500 made", "hang made", "429")) if self._strikes(1) else ""
        )
        if fault.endswith("made") or not fault:
            order["notes"].append(json.loads(body or b"{}"))
            if not fault:
                return 201, b"{}"
        return self._spoilt(fault)

    def _make(self, order: Mapping[str, Any]) -> dict[str, Any]:
        if self.is_unique and (there := self.of(order["external_reference"])):
            return there[0]
        moment = f"{self.clock():.3f}"
        made = {
            **order,
            "id": f"WO-{len(self.orders) + 1}",
            "status": "OPEN",
            "created_at": moment,
            "notes": [],
        }
        self.orders.append(made)
        return made

    def _strikes(self, share: float) -> bool:
        return self.chance.uniform(0, 100) < self.percent * share


class NoConnectionError(Exception):
    """Nothing was asked."""


class VirtualHttp(Http):
    """The product's HTTP with everything but the wire."""

    def __init__(self, server: ErpServer, step: Callable[[str], None], hidden: Hidden) -> None:
        super().__init__("http://127.0.0.1:1", TIMEOUT_S, hidden)
        self._server = server
        self._step = step

    def _exchange(  # type: ignore[override]
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str], until: Any, *, repeat: bool
    ) -> tuple[int, Mapping[str, str], bytes]:  # fmt: skip
        what = "create" if (method, target) == ("POST", "/work-orders") else method
        self._step(f"before erp {what}")
        try:
            until.may_have_left = True
            status, content = self._server.answer(method, target, body, headers)
        except NoConnectionError:
            until.may_have_left = False
            raise urllib3.exceptions.NewConnectionError(None, "refused") from None  # type: ignore[arg-type]
        self._step(f"after erp {what}")
        retry = urllib3.HTTPHeaderDict({"Retry-After": "40"} if status == 429 else {})
        return status, retry, content


def adapter(server: ErpServer, step: Callable[[str], None], clock: Callable[[], float]) -> HttpErp:
    """The product's REST adapter with a token cache of its own, as one Lambda has it."""
    hidden = Hidden()
    tokens = Tokens("http://127.0.0.1:1/oauth/token", _Secret(server), TIMEOUT_S, hidden, clock=clock)  # type: ignore[arg-type]
    http = VirtualHttp(server, step, hidden)
    tokens._http = http
    return HttpErp(Caller(http, BearerLogin(tokens)), RestSettings())


class _Secret:
    def __init__(self, server: ErpServer) -> None:
        self._server = server

    def read(self, stage: str = "AWSCURRENT") -> Mapping[str, str]:
        return {"client_id": "linewatch", "client_secret": self._server.secret}
