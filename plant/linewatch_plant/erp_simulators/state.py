# SPDX-License-Identifier: Apache-2.0
"""What a simulator knows: the orders as the product keeps them, who may call, what goes wrong, what was asked."""

import hmac
import json
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from linewatch_plant.erp_simulators.faults import Faults

# An order as it is shown to tests: the same names for every product.
Shown = Mapping[str, Any]


@dataclass(slots=True)
class State:
    """Everything that the simulator knows."""

    client_id: str
    client_secret: str
    token_life_s: float
    # As the product keeps them, oldest first; each has an "id" of the simulator's own.
    orders: list[dict[str, Any]] = field(default_factory=list)
    # Token -> monotonic second at which it ends.
    tokens: dict[str, float] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    calls: Counter[str] = field(default_factory=Counter)
    # TCP connections that were used; a client that keeps them makes few.
    connections: set[tuple[str, int]] = field(default_factory=set)
    # Of the last request: the headers that bear its credentials, which some gateways show in their errors.
    headers: dict[str, str] = field(default_factory=dict)
    # Holds the orders over a restart; None: they end with the process.
    file: Path | None = None

    def add(self, order: dict[str, Any]) -> dict[str, Any]:
        """Takes an order, on disk before it is answered."""
        self.orders.append(order)
        self.keep()
        return order

    def order(self, name: str, value: Any) -> dict[str, Any] | None:
        """The oldest order that has this value there."""
        return next((order for order in self.orders if order.get(name) == value), None)

    def other_than(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """The newest order that is another one; the test has made one."""
        return next(other for other in reversed(self.orders) if other is not order)

    def answered_for(self, order: dict[str, Any] | None) -> dict[str, Any] | None:
        """What a read of the order answers: the order, or what the faults make of it."""
        if order is None or not self.faults.strikes("read_another"):
            return order
        self.calls["read_another"] += 1
        return self.other_than(order)

    def keep(self) -> None:
        """Writes the orders, where a file is named."""
        if self.file:
            fresh = self.file.with_suffix(".new")
            fresh.write_text(json.dumps(self.orders))
            fresh.replace(self.file)

    def spoilt(self, fault: str, answer: Response) -> Response:
        """The answer of a call that a fault struck, counted."""
        self.calls[fault] += 1
        return answer

    def new_token(self) -> str:
        """A token that ends after `token_life_s`."""
        now = time.monotonic()
        self.tokens = {token: ends for token, ends in self.tokens.items() if ends > now}
        token = secrets.token_urlsafe(24)
        self.tokens[token] = now + self.token_life_s
        self.calls["token"] += 1
        return token

    def is_token(self, token: str) -> bool:
        """Whether this token is good now."""
        return self.tokens.get(token, float("-inf")) >= time.monotonic()

    def is_secret(self, shown: str) -> bool:
        """Whether this is the present secret."""
        return hmac.compare_digest(shown.encode(), self.client_secret.encode())


def state_of(request: Request) -> State:
    """The simulator's state; remembers the connection that the request came by."""
    erp: State = request.app.state.erp
    bearing = ("authorization", "apikey", "x-api-key", "cookie", "x-csrf-token")
    erp.headers = {name: value for name, value in request.headers.items() if name in bearing}
    if request.client:
        erp.connections.add((request.client.host, request.client.port))
    return erp


@dataclass(frozen=True, slots=True)
class Product:
    """One product's part of a simulator."""

    name: str
    # Starlette routes of its API.
    routes: list[Any]
    # An order as tests see it: id, external_reference, status, notes and whatever has a name of ours.
    shown: Callable[[dict[str, Any]], Shown]
    # Enters what a technician does, in the product's own fields: state, finding, found_failure, note, by, at.
    technician: Callable[[dict[str, Any], Mapping[str, str]], None]


def unavailable() -> Response:
    """What a load balancer says while nothing is behind it."""
    return JSONResponse({"error": "down"}, 503)
