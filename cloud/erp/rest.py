# SPDX-License-Identifier: Apache-2.0
"""A generic REST API with JSON and OAuth 2 client credentials, whose names are data (RestSettings).

    POST <orders>                          the order -> 200 or 201 with its id
    GET  <orders>?<reference>=<value>      {"work_orders": [...]}
    GET  <order>                           the order, with the technician's finding once it is completed
    GET  <notes>, POST <notes>             {"key", "text"}

Where the ERP honours an Idempotency-Key (draft-ietf-httpapi-idempotency-key-header), the reference is sent as one, as a
second line of defence: the search by reference stays the first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from erp.http import Answer, checked
from erp.login import Caller
from erp.oauth import ClientAuth
from erp.orders import OrdersByReference, about, listed
from erp.port import WORD, ErpOrder, ErpRefusedError, ErpStatus, ErpUnavailableError, Finding, State
from erp.settings import Common
from erp.text import Anchor, cut
from erp.words import finding_of, state_of

# Of one text in the order; longer ones are cut with a mark.
TEXT_LIMIT = 4000
STATES: Mapping[str, State] = {
    "OPEN": "open", "IN_PROGRESS": "in_progress", "COMPLETED": "completed", "CANCELLED": "cancelled",
}  # fmt: skip
FINDINGS: Mapping[str, Finding] = {
    "confirmed": "confirmed", "other_fault": "other_fault", "no_fault": "no_fault", "unstated": "unstated",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class RestSettings(Common):
    """Paths, names and words of one plant's API. A place in an answer is names with dots: `data.id`."""

    # Empty: <base>/oauth/token.
    token_url: str = ""
    scope: str = ""
    audience: str = ""
    client_auth: ClientAuth = "basic"
    orders_path: str = "/work-orders"
    order_path: str = "/work-orders/{id}"
    # Empty: the ERP has no notes of its own, they go nowhere.
    notes_path: str = "/work-orders/{id}/notes"
    # Query parameter of the search, and where an order bears the reference.
    reference_parameter: str = "external_reference"
    reference_at: str = "external_reference"
    # Where the search's list stands; empty: the answer is the list.
    list_at: str = "work_orders"
    id_at: str = "id"
    created_at: str = "created_at"
    status_at: str = "status"
    finding_at: str = "finding"
    found_failure_at: str = "found_failure"
    note_at: str = "note"
    by_at: str = "completed_by"
    ended_at: str = "completed_at"
    # Our name -> theirs, with dots. What is not named here is sent under our name, or not, with `only_named`.
    fields: Mapping[str, str] = field(default_factory=dict)
    only_named: bool = False
    idempotency_key: bool = False


class HttpErp(OrdersByReference):
    """The generic API."""

    def __init__(self, caller: Caller, settings: RestSettings) -> None:
        self._caller = caller
        self._settings = settings

    def find_all(self, reference: str) -> list[ErpOrder]:
        """Every order with this external reference, oldest first."""
        s = self._settings
        answer = checked(
            self._caller.send("GET", s.orders_path, query={s.reference_parameter: reference}), told
        )
        found = at(answer.json(), s.list_at) if s.list_at else answer.json()
        if not isinstance(found, list):
            raise answer.unclear(f"has no list at {s.list_at!r}: ERP_SETTINGS list_at")
        orders = [order for order in found if str(at(order, s.reference_at)) == reference]
        if found and not orders:
            # An API that does not know the parameter shows all orders; the first of them is somebody else's.
            raise ErpRefusedError(
                f"the search by {s.reference_parameter!r} gave orders without the reference at "
                f"{s.reference_at!r}; look at reference_parameter and reference_at in ERP_SETTINGS"
            )
        orders.sort(key=lambda order: str(at(order, s.created_at) or ""))
        return [self._order(order, answer) for order in orders]

    def _post(self, body: Mapping[str, Any], order: Mapping[str, Any]) -> Answer:
        s = self._settings
        headers = {"Idempotency-Key": f'"{order["external_reference"]}"'} if s.idempotency_key else {}
        return self._caller.send("POST", s.orders_path, json_body=body, headers=headers)

    def _made(self, answer: Answer) -> tuple[ErpOrder, str]:
        made = checked(answer, told).json()
        return self._order(made, answer), text_at(made, self._settings.reference_at)

    def status(self, erp_id: str) -> ErpStatus:
        """Where the order stands and what was found."""
        s = self._settings
        order = self._one(erp_id)
        word = text_at(order, s.status_at)
        state = state_of(word, {**STATES, **s.states})
        code = text_at(order, s.finding_at)
        return ErpStatus(
            state=state,
            status=word,
            finding=finding_of(code, {**FINDINGS, **s.findings}) if state == "completed" else None,
            found_failure=text_at(order, s.found_failure_at),
            note=cut(text_at(order, s.note_at), TEXT_LIMIT),
            by=text_at(order, s.by_at),
            ended_at=text_at(order, s.ended_at),
            reference=text_at(order, s.reference_at),
        )

    def anchor(self, erp_id: str) -> Anchor:
        """The reference and the record digest that the order bears (placing.payload)."""
        s = self._settings
        order = self._one(erp_id)
        digest = text_at(order, s.fields.get("record_digest", "record_digest"))
        return Anchor(cut(text_at(order, s.reference_at), WORD), cut(digest, WORD))

    def add_note(self, erp_id: str, key: str, text: str) -> None:
        """Adds a note, unless one with this key is there."""
        if not self._settings.notes_path:
            return
        path = _path(self._settings.notes_path, erp_id)
        answer = checked(self._caller.send("GET", path), told)
        notes = listed(at(answer.json(), "notes") or [], answer)
        if any(at(note, "key") == key for note in notes):
            return
        answer = self._caller.send("POST", path, json_body={"key": key, "text": cut(text, TEXT_LIMIT)})
        if answer.status != 409:  # 409: another caller was faster
            checked(answer, told)

    def _body(self, order: Mapping[str, Any]) -> dict[str, Any]:
        s = self._settings
        body: dict[str, Any] = dict(s.constants)
        mapped = {"asset_id": s.assets, "equipment_id": s.assets, "priority": s.priorities}
        for name, told in order.items():
            value = mapped.get(name, {}).get(str(told), told)
            if name in s.fields or not s.only_named:
                put(
                    body,
                    s.fields.get(name, name),
                    cut(value, TEXT_LIMIT) if isinstance(value, str) else value,
                )
        return body

    def _one(self, erp_id: str) -> Any:
        answer = checked(self._caller.send("GET", _path(self._settings.order_path, erp_id)), told)
        order = answer.json()
        about(erp_id, text_at(order, self._settings.id_at), answer)
        return order

    def _order(self, body: Any, answer: Answer) -> ErpOrder:
        found = text_at(body, self._settings.id_at)
        if not found:
            # A 200 with an error inside, for instance.
            raise answer.unclear(f"has no id at {self._settings.id_at!r}: {answer.excerpt}")
        return ErpOrder(found, text_at(body, self._settings.status_at))


def _path(template: str, erp_id: str) -> str:
    if not erp_id:
        raise ErpRefusedError("an empty id is no order's")
    return template.replace("{id}", quote(erp_id, safe=""))


def told(answer: Answer) -> str:
    """The API's own words in a refusal, wherever it keeps them."""
    try:
        body = answer.json()
    except ErpUnavailableError:
        return ""
    for place in ("message", "error_description", "detail", "title", "error.message", "error"):
        if isinstance(said := at(body, place), str) and said:
            return cut(said, 300)
    return ""


def at(body: Any, place: str) -> Any:
    """What stands at `names.with.dots`; None where nothing does."""
    for name in place.split("."):
        if isinstance(body, Mapping):
            body = body.get(name)
        elif isinstance(body, Sequence) and not isinstance(body, str) and name.isdecimal():
            body = body[int(name)] if int(name) < len(body) else None
        else:
            return None
    return body


def text_at(body: Any, place: str) -> str:
    """What stands there as a text; empty where nothing does."""
    value = at(body, place) if place else None
    return "" if value is None or isinstance(value, (dict, list)) else str(value)


def put(body: dict[str, Any], place: str, value: Any) -> None:
    """Sets `names.with.dots`."""
    *outer, last = place.split(".")
    for name in outer:
        body = body.setdefault(name, {})
    body[last] = value
