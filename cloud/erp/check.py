# SPDX-License-Identifier: Apache-2.0
"""Whether a real ERP does what work orders rely on: the contract, step by step, for `linewatch erp check`.

What only reads comes first and is all that is done without `asset_id`. With it one order is made, found, noted and
withdrawn. Nothing is made twice: a step that fails ends what builds upon it.
"""

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from erp.port import Erp, ErpError, ErpOrder, ErpUnavailableError
from erp.text import mark
from erp.transcript import Call, recorded

# Three of the calls that one placing makes must fit into a function's time.
SLOW_S = 3.0


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was tried."""

    name: str
    # None: it could not be tried, or only a person can.
    is_good: bool | None
    told: str
    # What was said to the ERP for it, without secrets.
    calls: tuple[Call, ...] = ()


class _NotKeptError(Exception):
    """The ERP answered, and not as work orders need it."""


def _expect(is_kept: bool, otherwise: str) -> None:
    if not is_kept:
        raise _NotKeptError(otherwise)


def run(erp: Erp, *, asset_id: str = "", erp_id: str = "") -> Iterator[Step]:
    """The steps, as they end. `erp_id`: an order that is there, whose status is read."""
    yield from _reading(erp, erp_id)
    if asset_id:
        yield from _making(erp, asset_id)


def _reading(erp: Erp, erp_id: str) -> Iterator[Step]:
    yield _tried("signs in and searches", lambda: _none_found(erp))
    yield _tried("searches in time", lambda: _in_time(erp))
    if erp_id:
        yield _tried(f"reads the status of {erp_id}", lambda: str(erp.status(erp_id)))


def _none_found(erp: Erp) -> str:
    found = list(erp.find_all(new_reference()))
    if found:
        raise _NotKeptError(f"a reference that nobody gave finds {found[0].id}: the search does not filter")
    return "a reference that nobody gave finds nothing"


def _in_time(erp: Erp) -> str:
    began = time.monotonic()
    erp.find_all(new_reference())
    seconds = time.monotonic() - began
    _expect(
        seconds <= SLOW_S,
        f"a search took {seconds:.1f} s; more than {SLOW_S:.0f} s is too slow for the functions",
    )
    return f"{seconds * 1000:.0f} ms"


def _making(erp: Erp, asset_id: str) -> Iterator[Step]:
    order = trial_order(new_reference(), asset_id)
    made: list[ErpOrder] = []
    yield _tried("creates an order", lambda: _created(erp, order, made))
    if not made:
        return
    (new,) = made
    yield _tried("finds it by its reference, once", lambda: _once(erp, order["external_reference"], new))
    yield _tried("reads it as open", lambda: _open(erp, new))
    yield _tried("adds a note once by its key", lambda: _noted(erp, new))
    yield _tried("keeps what was written", lambda: _kept(erp, order, new))
    yield _withdrawn(erp, new)


def _created(erp: Erp, order: dict[str, Any], made: list[ErpOrder]) -> str:
    try:
        made.append(erp.create(order))
    except ErpUnavailableError:
        # As work orders do: an unclear answer is looked up, or the sandbox would keep the order.
        if found := erp.find_by_reference(order["external_reference"]):
            made.append(found)
        raise
    return f"{made[0].id} ({order['external_reference']})"


def _once(erp: Erp, reference: str, new: ErpOrder) -> str:
    found = [order.id for order in erp.find_all(reference)]
    _expect(
        found == [new.id],
        f"the search gives {found} and not {new.id}; is its index behind, or the reference cut?",
    )
    return reference


def _open(erp: Erp, new: ErpOrder) -> str:
    status = erp.status(new.id)
    _expect(
        status.state == "open",
        f"a new order is {status.state} ({status.status}); look at `states` in ERP_SETTINGS",
    )
    return status.status


def _noted(erp: Erp, new: ErpOrder) -> str:
    with recorded() as first:
        erp.add_note(new.id, "check", "A note of linewatch erp check.")
    with recorded() as second:
        erp.add_note(new.id, "check", "A note of linewatch erp check.")
    _expect(len(second) < len(first), "the note was added again: its mark was not found")
    return mark("check")


def _kept(erp: Erp, order: dict[str, Any], new: ErpOrder) -> str:
    whole: Callable[[str], str] | None = getattr(erp, "text", None)
    note = whole(new.id) if whole else erp.status(new.id).note
    if not note:
        return "this product's status tells no text; look at the order yourself"
    _expect(order["recommended_action"] in note, "the note has replaced the text; set long_text to replace")
    return "text and note are both there"


def _withdrawn(erp: Erp, new: ErpOrder) -> Step:
    withdraw: Callable[[str], None] | None = getattr(erp, "withdraw", None)
    if withdraw is None:
        return Step("ends it", None, f"end {new.id} in the ERP yourself")

    def end() -> str:
        withdraw(new.id)
        state = erp.status(new.id).state
        _expect(state in {"completed", "cancelled"}, f"it is {state} after that; end {new.id} yourself")
        return state

    return _tried("ends it", end)


def _tried(name: str, attempt: Callable[[], str]) -> Step:
    with recorded() as calls:
        try:
            told, is_good = attempt(), True
        except (ErpError, _NotKeptError) as error:
            told, is_good = str(error), False
    return Step(name, is_good, told, tuple(calls))


def new_reference() -> str:
    """Of a trial; as long as an order's."""
    return "lw-" + uuid.uuid4().hex[:16]


def trial_order(reference: str, asset_id: str) -> dict[str, Any]:
    """An order that says that it is none, with every field of placing.payload."""
    return {
        "external_reference": reference,
        "equipment_id": asset_id,
        "asset_id": asset_id,
        "episode": 1,
        "title": "TEST of linewatch, please ignore",
        "failure_mode": "test",
        "failure_type": "Test of the connection",
        "location": "nowhere",
        "criticality": "C",
        "severity": 0.1,
        "risk": 0.1,
        "priority": "low",
        "recommended_action": "Nothing: this order tests the connection and is withdrawn at once",
        "time_to_failure": None,
        "ai_generated": True,
        "event_ids": [],
        "evidence": [],
        "model": {},
    }
