# SPDX-License-Identifier: Apache-2.0
"""Where the faults strike: around the call that makes an order, around the search, around a note."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.background import BackgroundTask
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse

from linewatch_plant.erp_simulators.faults import DRIP_S, HANG_S, LARGE
from linewatch_plant.erp_simulators.state import State

# The product's own error body: HTTP status, what is wrong.
Error = Callable[[int, str], Response]

# Answers that come instead of an order, with their status; `refuse` may differ from product to product.
INSTEAD = {
    "error_500": 500, "too_many": 429, "refuse": 422, "forbidden": 403, "conflict": 409, "precondition": 412,
}  # fmt: skip
PAGE = (
    "<!doctype html><html><head><title>502 Bad Gateway</title></head><body><h1>Bad Gateway</h1></body></html>"
)
SIGN_IN = "<!doctype html><html><body><form action=/login method=post>Sign in</form></body></html>"


async def creating(
    erp: State,
    make: Callable[[], dict[str, Any]],
    answer: Callable[[dict[str, Any]], Response],
    error: Error,
    refuse_status: int = 422,
) -> Response:
    """Makes an order and answers it, or what the faults make of that. `make` adds the order to the state."""
    for fault, status in {**INSTEAD, "refuse": refuse_status}.items():
        if erp.faults.strikes(fault):
            spoilt = erp.spoilt(fault, error(status, fault))
            if status == 429:
                spoilt.headers["Retry-After"] = str(erp.faults.retry_after_s)
            return spoilt
    if erp.faults.strikes("error_500_create_late"):
        late = error(500, "error_500_create_late")
        late.background = BackgroundTask(_create_late, erp, make, erp.faults.late_ms / 1000)
        return erp.spoilt("error_500_create_late", late)
    made = make()
    if erp.faults.strikes("another_after_create"):
        return erp.spoilt("another_after_create", answer(erp.other_than(made)))
    said = answer(made)
    if spoilt_after := await _after(erp, said, error):
        return spoilt_after
    erp.calls["created"] += 1
    return said


async def _after(erp: State, said: Response, error: Error) -> Response | None:
    whole = bytes(said.body)
    answers: dict[str, Callable[[], Response]] = {
        "error_500_after_create": lambda: error(500, "error_500_after_create"),
        "html_502_after_create": lambda: HTMLResponse(PAGE, 502),
        "html_200_after_create": lambda: HTMLResponse(SIGN_IN),
        "redirect_after_create": lambda: RedirectResponse("/login", 302),
        "truncated_after_create": lambda: _json(whole[: len(whole) // 2]),
        "reset_after_create": lambda: _too_short(whole),
        "empty_after_create": lambda: Response(status_code=201),
        "drip_after_create": lambda: StreamingResponse(
            _dripping(whole + b" " * 300), media_type="application/json"
        ),
        "large_after_create": lambda: _json(b"[" + b" " * LARGE + b"]"),
        "error_in_200_after_create": lambda: JSONResponse({"error": {"code": "E1", "message": "no"}}),
    }
    for fault, spoil in answers.items():
        if erp.faults.strikes(fault):
            return erp.spoilt(fault, spoil())
    if erp.faults.strikes("hang_after_create"):
        erp.calls["hang_after_create"] += 1
        await asyncio.sleep(HANG_S)
    return None


async def finding(erp: State, search: Callable[[], Response], error: Error) -> Response:
    """Answers a search, or what the faults make of it."""
    answers: dict[str, Callable[[], Response]] = {
        "find_500": lambda: error(500, "find_500"),
        "find_echo": lambda: error(500, str(erp.headers)),
        "find_html": lambda: HTMLResponse(SIGN_IN),
        "find_redirect": lambda: RedirectResponse("/login", 302),
        "find_truncated": lambda: _json(bytes(search().body)[:-1] or b"{"),
        "find_drip": lambda: StreamingResponse(_dripping(b" " * 200), media_type="application/json"),
        "find_large": lambda: _json(b"[" + b" " * LARGE + b"]"),
    }
    for fault, spoil in answers.items():
        if erp.faults.strikes(fault):
            return erp.spoilt(fault, spoil())
    if erp.faults.strikes("find_hang"):
        erp.calls["find_hang"] += 1
        await asyncio.sleep(HANG_S)
    erp.calls["found"] += 1
    return search()


async def noting(erp: State, add: Callable[[], Response], error: Error) -> Response:
    """Adds a note, or what the faults make of it."""
    said = add()
    erp.keep()
    erp.calls["noted"] += 1
    if erp.faults.strikes("note_500_after_create"):
        return erp.spoilt("note_500_after_create", error(500, "note_500_after_create"))
    return said


async def _create_late(erp: State, make: Callable[[], dict[str, Any]], late_s: float) -> None:
    await asyncio.sleep(late_s)
    make()
    erp.calls["created_late"] += 1


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _too_short(whole: bytes) -> Response:
    """Says how long it is and ends before: the connection breaks in the middle."""
    return _Broken(whole[: len(whole) // 2], media_type="application/json")


class _Broken(Response):
    async def __call__(self, _scope: Any, _receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        length = str(len(self.body) + 100).encode()
        headers = [(b"content-length", length), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 201, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})  # uvicorn closes the connection


async def _dripping(whole: bytes) -> AsyncIterator[bytes]:
    for place in range(len(whole)):
        yield whole[place : place + 1]
        await asyncio.sleep(DRIP_S)
