# SPDX-License-Identifier: Apache-2.0
"""Atlas CMMS (Grashjs/cmms), a work order over its REST API with an API key.

Read: the project's source: WorkOrderController, CommentController, ApiKeyAuthFilter, WorkOrderBase, WorkOrder,
WrapperSpecification, GlobalExceptionHandlerController, RateLimitFilter. Its search knows the columns of a work order, not
the values of custom fields, so the reference stands at the end of the title, in brackets. A wrong key is answered with 403.
What the technician writes at completion is one text, `feedback`; its first word tells the finding.
Not verified: the order in which a version without the comments' endpoint refuses notes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from erp.http import Answer, checked
from erp.login import Caller
from erp.orders import MOST, OrdersByReference, about, checked_reference, identified, listed
from erp.port import ErpOrder, ErpRefusedError, ErpStatus, Finding, State
from erp.rest import at, text_at, told
from erp.settings import Common
from erp.text import Anchor, anchor_in, cut, describe, line, mark, noted
from erp.words import finding_of, state_of

# Columns of its table; a longer text is an error 500 of the database.
TITLE, TEXT = 255, 10_000
# Of a comment nothing is said; one page on a screen.
COMMENT = 4000
PRIORITIES = {"urgent": "HIGH", "high": "HIGH", "medium": "MEDIUM", "low": "LOW"}
STATES: Mapping[str, State] = {
    "OPEN": "open", "IN_PROGRESS": "in_progress", "ON_HOLD": "in_progress", "COMPLETE": "completed",
}  # fmt: skip
FINDINGS: Mapping[str, Finding] = {
    "confirmed": "confirmed", "other_fault": "other_fault", "no_fault": "no_fault", "unstated": "unstated",
}  # fmt: skip
# The reference at a title's end, and no bracket of a person's.
REFERENCE_AT_END = re.compile(r"\[(lw-[A-Za-z0-9._:-]{1,61})\]\Z")
# An unknown key leaves the call anonymous, which ends as 403.
REFUSALS = frozenset({401, 403})


@dataclass(frozen=True, slots=True, kw_only=True)
class AtlasSettings(Common):
    """How this plant uses work orders."""

    # By this field of an asset our asset id is looked up.
    asset_field: str = "serialNumber"


class AtlasErp(OrdersByReference):
    """Work orders."""

    def __init__(self, caller: Caller, settings: AtlasSettings) -> None:
        self._caller = caller
        self._settings = settings

    def find_all(self, reference: str) -> list[ErpOrder]:
        """Every work order whose title ends with it, oldest first."""
        end = f"[{checked_reference(reference)}]"
        field = {"field": "title", "operation": "cn", "value": end, "values": []}
        found, answer = self._search("/work-orders/search", field)
        # `cn` looks anywhere in the title and takes _ for a wildcard: whatever it found is looked at again.
        same = [_order(order) for order in found if text_at(order, "title").endswith(end)]
        return [identified(order, answer) for order in same]

    def _post(self, body: Mapping[str, Any], _order: Mapping[str, Any]) -> Answer:
        return self._caller.send("POST", "/work-orders", json_body=body)

    def _made(self, answer: Answer) -> tuple[ErpOrder, str]:
        made = checked(answer, told).json()
        if not text_at(made, "id"):
            raise answer.unclear(f"has no id: {answer.excerpt[:120]}")
        return _order(made), _reference(made)

    def status(self, erp_id: str) -> ErpStatus:
        """From the status; one that was archived before it was complete is cancelled."""
        s = self._settings
        order = self._one(erp_id)
        word = text_at(order, "status")
        state = state_of(word, {**STATES, **s.states})
        if at(order, "archived") is True and state != "completed":
            state = "cancelled"
        feedback = text_at(order, "feedback")
        code, _, rest = feedback.partition(";")
        found, _, note = rest.strip().partition(";")
        by = " ".join(
            filter(None, (text_at(order, "completedBy.firstName"), text_at(order, "completedBy.lastName")))
        )
        return ErpStatus(
            state=state,
            status=word,
            finding=finding_of(code, {**FINDINGS, **s.findings}) if state == "completed" else None,
            found_failure=found.strip() if state == "completed" else "",
            note=cut(note.strip() or feedback, TEXT),
            by=by,
            ended_at=text_at(order, "completedOn"),
            reference=_reference(order),
        )

    def anchor(self, erp_id: str) -> Anchor:
        """From the description."""
        return anchor_in(text_at(self._one(erp_id), "description"))

    def add_note(self, erp_id: str, key: str, text: str) -> None:
        """Adds a comment, unless one bears the mark."""
        number = _id(erp_id)
        answer = checked(
            self._caller.send("POST", f"/comments/search/{number}", json_body={}, is_safe=True), told
        )
        if any(mark(key) in text_at(comment, "content") for comment in listed(answer.json(), answer)):
            return
        body = {"content": noted(key, text, COMMENT), "workOrder": {"id": number}}
        checked(self._caller.send("POST", "/comments", json_body=body), told)

    def withdraw(self, erp_id: str) -> None:
        """Completes a work order that was only a trial."""
        path = f"/work-orders/{_id(erp_id)}/change-status"
        checked(self._caller.send("PATCH", path, json_body={"status": "COMPLETE"}), told)

    def _body(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """An asset that Atlas does not know is named in the text only."""
        s = self._settings
        end = f" [{order['external_reference']}]"
        body: dict[str, Any] = {
            "title": line(str(order.get("title", "")), TITLE - len(end)) + end,
            "description": describe(order, TEXT),
        }
        if priority := {**PRIORITIES, **s.priorities}.get(str(order.get("priority", ""))):
            body["priority"] = priority
        asset_id = str(order["asset_id"])
        asked = s.assets.get(asset_id, asset_id)
        field = {"field": s.asset_field, "operation": "eq", "value": asked, "values": []}
        found, _ = self._search("/assets/search", field)
        # Whatever the search found: an order on another machine is worse than one that names it in the text.
        if same := [asset for asset in found if text_at(asset, s.asset_field) == asked]:
            body["asset"] = {"id": at(same[0], "id")}
        return {**body, **s.constants}

    def _one(self, erp_id: str) -> Any:
        number = _id(erp_id)
        answer = checked(self._caller.send("GET", f"/work-orders/{number}"), told)
        order = answer.json()
        about(str(number), text_at(order, "id"), answer)
        return order

    def _search(self, path: str, field: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], Answer]:
        asked = {
            "filterFields": [field],
            "pageNum": 0,
            "pageSize": MOST,
            "sortField": "id",
            "direction": "ASC",
        }
        answer = checked(self._caller.send("POST", path, json_body=asked, is_safe=True), told)
        return listed(at(answer.json(), "content"), answer), answer


def _id(erp_id: str) -> int:
    if not erp_id.isdecimal() or len(erp_id) > 18:
        raise ErpRefusedError(f"{erp_id[:40]!r} is no id of a work order")
    return int(erp_id)


def _reference(order: Any) -> str:
    found = REFERENCE_AT_END.search(text_at(order, "title"))
    return found[1] if found else ""


def _order(order: Mapping[str, Any]) -> ErpOrder:
    return ErpOrder(text_at(order, "id"), text_at(order, "status"))
