# SPDX-License-Identifier: Apache-2.0
"""The cloud's HTTP API, as a client sees it: work orders, what a person decides on them, and what is told of them.

Each call ends in time and reads a bounded answer. What the API answers is checked against cloud_shapes, so that a wrong
answer is told as one and not shown as a half-empty page. No call is ever repeated by itself.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from prometheus_client import Counter
from pydantic import ValidationError

from linewatch_console.cloud_shapes import (
    CloudChain,
    CloudEntry,
    EvidenceAddress,
    OrderList,
    Shape,
    Summary,
    WorkOrder,
)
from linewatch_console.people import Person
from linewatch_console.settings import read_secret

REQUEST_TIMEOUT_S = 10.0
REPORT_TIMEOUT_S = 20.0
"""A report over months of outcomes may take longer than a list."""
DECISION_TIMEOUT_S = 20.0
"""A decision may wait for the ERP."""
MOST_ORDERS = 100
MOST_PAGES = 50
"""Of a chain, which the cloud bounds at 1,000 entries."""
KEPT_S = 2.0
"""A connection that nothing used for so long is not used again: servers and what stands before them close theirs after
5 s (uvicorn) and more, and what is asked in that moment is never answered.
"""
LARGEST_ANSWER_BYTES = 8 * 1024 * 1024
"""The API gives 6 MB at most (a Lambda's answer)."""
HUNG_UP = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
LONGEST_REFUSAL = 4_000
"""Characters of a refusal that a person is shown; of a policy it has a line for each mistake."""

requests = Counter("linewatch_console_cloud_requests", "Requests to the cloud API", ["outcome"])


class CloudAway(Exception):
    """No usable answer. The text says why, for people. Nothing was sent, or nothing that changes anything."""


class CloudUnclear(CloudAway):
    """A decision went out and its answer did not come: it may or may not have been taken."""


class CloudRefused(Exception):
    """The API answered and said no; `status` is the HTTP status, `order` what a conflict told of the order."""

    def __init__(self, status: int, detail: str, order: dict[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.order = order


Answer = TypeVar("Answer", bound=Shape)


class CloudApi:
    """One client with one connection pool; `token_file` is read for each request."""

    def __init__(self, url: str, token_file: Path | None) -> None:
        self.url = url.rstrip("/")
        self._token_file = token_file
        limits = httpx.Limits(keepalive_expiry=KEPT_S)
        self._client = httpx.AsyncClient(timeout=REQUEST_TIMEOUT_S, limits=limits, trust_env=False)

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def summary(self) -> Summary:
        """The counts. Raises CloudAway, CloudRefused, as all calls here."""
        return _shaped(Summary, await self._get("/summary"))

    async def page(self, query: Mapping[str, str]) -> OrderList:
        """A page of orders, newest first; `query`: status, limit, asset_id, next."""
        asked = {"limit": str(MOST_ORDERS), **query}
        return _shaped(OrderList, await self._get("/work-orders", asked))

    async def work_order(self, reference: str) -> WorkOrder:
        """One order with its history."""
        return _shaped(WorkOrder, await self._get(f"/work-orders/{reference}"))

    async def records(self, chain: str) -> list[CloudEntry]:
        """Every entry of a chain, page by page."""
        entries: list[CloudEntry] = []
        following: int | None = 0
        for _ in range(MOST_PAGES):
            query = {"from": str(following)} if following else {}
            content = await self._get(f"/records/{quote(chain, safe='')}", query, timeout_s=REPORT_TIMEOUT_S)
            page = _shaped(CloudChain, content)
            entries += page.entries
            following = page.next
            if following is None:
                return entries
        raise CloudAway(f"the chain {chain} has more than {MOST_PAGES} pages")

    async def evidence(self, query: Mapping[str, str]) -> EvidenceAddress:
        """Where a file of evidence can be had; `query`: path, thing."""
        return _shaped(EvidenceAddress, await self._get("/evidence", query))

    async def document(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """An answer that goes on to the page as it is: a report, the policy, the assets, why an order exists."""
        return _object(await self._get(path, query, timeout_s=REPORT_TIMEOUT_S))

    async def send(
        self, path: str, body: Mapping[str, str] | str, person: Person, audit_digest: str, follows: str = ""
    ) -> dict[str, Any]:
        """Takes a decision of `person` to the cloud; a text goes by PUT, as it is. Raises CloudUnclear too.

        `by` is in the body for an API of 0.2.0; the headers are what the present one goes by.
        """
        headers = {
            # Percent-encoded UTF-8: a header is ASCII, and a name can't smuggle a second one.
            "X-Linewatch-User": quote(person.name, safe=" @.-_"),
            "X-Linewatch-Role": person.role,
            "X-Linewatch-Audit": audit_digest,
        }
        if follows:
            # Digest of the policy that the person saw; the API refuses where another one holds by then.
            headers["X-Linewatch-Follows"] = follows
        if isinstance(body, str):
            method, content = "PUT", body
        else:
            method, content = "POST", json.dumps({**body, "by": person.name})
        headers["Content-Type"] = "application/json"
        answer = await self._ask(method, path, body=content, headers=headers, timeout_s=DECISION_TIMEOUT_S)
        try:
            return _object(answer)
        except CloudAway as error:
            raise CloudUnclear(str(error)) from error

    async def _get(
        self, path: str, query: Mapping[str, str] | None = None, timeout_s: float = REQUEST_TIMEOUT_S
    ) -> bytes:
        return await self._ask("GET", path, query=query, timeout_s=timeout_s)

    async def _ask(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: str | None = None,
        headers: Mapping[str, str] | None = None, timeout_s: float, is_again: bool = False,
    ) -> bytes:  # fmt: skip
        token = read_secret(self._token_file) if self._token_file else ""
        if not token:
            requests.labels("no_token").inc()
            raise CloudAway(f"CONSOLE_CLOUD_API_TOKEN_FILE: {self._token_file} holds no token")
        unclear = CloudAway if method == "GET" else CloudUnclear
        has_answered = False
        try:
            async with self._client.stream(
                method, self.url + path, params=dict(query or {}), content=body,
                timeout=timeout_s, headers={"Authorization": f"Bearer {token}", **(headers or {})},
            ) as answer:  # fmt: skip
                has_answered = True
                content = await _read(answer)
        except (
            httpx.ConnectError,
            httpx.ConnectTimeout,
            httpx.PoolTimeout,
            httpx.UnsupportedProtocol,
        ) as error:
            # Before the first byte went out: certainly nothing was taken.
            requests.labels("unreachable").inc()
            raise CloudAway(_why(error)) from error
        except httpx.HTTPError as error:
            if method == "GET" and isinstance(error, HUNG_UP) and not has_answered and not is_again:
                # Most often a kept connection that the other side has just closed. A read may be asked twice.
                return await self._ask(
                    method, path, query=query, headers=headers, timeout_s=timeout_s, is_again=True
                )
            requests.labels("unreachable").inc()
            raise unclear(_why(error)) from error
        requests.labels(f"{answer.status_code // 100}xx").inc()
        return _judged(answer.status_code, content, unclear)


async def _read(answer: httpx.Response) -> bytes:
    content = b""
    async for chunk in answer.aiter_bytes():
        content += chunk
        if len(content) > LARGEST_ANSWER_BYTES:
            raise httpx.ReadError(f"the answer is larger than {LARGEST_ANSWER_BYTES >> 20} MB")
    return content


def _judged(status: int, content: bytes, unclear: type[CloudAway]) -> bytes:
    """The content of a good answer. Raises what the others mean."""
    if status == 401:
        raise CloudAway("the cloud API does not accept the token in CONSOLE_CLOUD_API_TOKEN_FILE")
    if status >= 500:
        raise unclear(f"the cloud API failed with HTTP {status}")
    if status >= 300:
        told = _told(content)
        order = told.get("order") or told.get("work_order")
        detail = told.get("error") or told.get("message") or told.get("detail") or f"HTTP {status}"
        raise CloudRefused(status, str(detail)[:LONGEST_REFUSAL], order if isinstance(order, dict) else None)
    return content


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


def _object(content: bytes) -> dict[str, Any]:
    told = _told(content)
    if not told:
        raise CloudAway("the cloud API's answer is not understood: it is no JSON object")
    return told


def _told(content: bytes) -> dict[str, Any]:
    try:
        told = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}
