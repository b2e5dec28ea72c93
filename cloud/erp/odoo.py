# SPDX-License-Identifier: Apache-2.0
"""Odoo 19 and later: an order is a `maintenance.request`, over the JSON-2 API.

Read: Odoo's documentation, developer/reference/external_api (19.0), and the sources of addons/maintenance and addons/mail.
The reference lies in a custom field. Odoo 17 and 18 have no JSON-2 API and are not served: their XML-RPC and JSON-RPC send
the password in every body and are gone with Odoo 22 (docs/decisions/0034).
Not verified: whether `message_post` keeps the line feeds of a plain text; the mark by which a note is known stands either way.
"""

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from erp.http import Answer, checked
from erp.login import Caller
from erp.orders import MOST, OrdersByReference, about, checked_reference, identified, listed
from erp.port import ErpOrder, ErpRefusedError, ErpStatus, Finding, State
from erp.rest import text_at, told
from erp.settings import Common, needed
from erp.text import Anchor, anchor_in, describe, line, mark, noted
from erp.words import finding_of

# `name` is a column without a limit; a title on a card has one.
TITLE, TEXT = 200, 10_000
MODEL = "maintenance.request"
PRIORITIES = {"urgent": "3", "high": "2", "medium": "1", "low": "0"}
FINDINGS: Mapping[str, Finding] = {
    "confirmed": "confirmed", "other_fault": "other_fault", "no_fault": "no_fault", "unstated": "unstated",
}  # fmt: skip
# Stages in another language would have other names.
CONTEXT = {"lang": "en_US"}
# The app's own; a stage that is not named is told by its `done`.
STATES: Mapping[str, State] = {"new request": "open", "in progress": "in_progress"}


@dataclass(frozen=True, slots=True, kw_only=True)
class OdooSettings(Common):
    """How this plant uses maintenance requests."""

    database: str = needed()
    reference_field: str = "x_linewatch_reference"
    # Custom fields for the technician's finding (a selection of our words, or `findings` maps its values) and what it was.
    finding_field: str = "x_linewatch_finding"
    found_failure_field: str = "x_linewatch_found"
    # By this field of maintenance.equipment the asset id is looked up.
    equipment_field: str = "serial_no"


class OdooErp(OrdersByReference):
    """Maintenance requests."""

    def __init__(self, caller: Caller, settings: OdooSettings) -> None:
        self._caller = caller
        self._settings = settings

    def find_all(self, reference: str) -> list[ErpOrder]:
        """Every request with it, oldest first, archived ones too."""
        field = self._settings.reference_field
        asked = {
            "domain": [[field, "=", checked_reference(reference)]],
            "fields": [field, "stage_id"],
            "order": "id asc",
            "limit": MOST,
        }
        answer = self._call(MODEL, "search_read", asked, is_safe=True)
        found = listed(answer.json(), answer)
        same = [request for request in found if request.get(field) == reference]
        if found and not same:
            raise ErpRefusedError(f"Odoo answered the search with requests of another {field}")
        return [
            identified(ErpOrder(text_at(request, "id"), _name(request.get("stage_id"))), answer)
            for request in same
        ]

    def _post(self, body: Mapping[str, Any], _order: Mapping[str, Any]) -> Answer:
        return self._send(MODEL, "create", {"vals_list": [body]}, is_safe=False)

    def _made(self, answer: Answer) -> tuple[ErpOrder, str]:
        """Odoo answers with a number only, which may be anybody's."""
        made = checked(answer, told).json()
        if not isinstance(made, list) or len(made) != 1 or not isinstance(made[0], int):
            raise answer.unclear(f"has no id: {answer.excerpt[:120]}")
        return ErpOrder(str(made[0]), ""), ""

    def status(self, erp_id: str) -> ErpStatus:
        """From the stage, and `archive`, which is how a request is cancelled."""
        s = self._settings
        row = self._read(
            erp_id, "stage_id", "archive", "close_date", "user_id",
            s.finding_field, s.found_failure_field, s.reference_field,
        )  # fmt: skip
        stage = _name(row.get("stage_id"))
        state = "cancelled" if row.get("archive") else self._state(row.get("stage_id"), stage)
        code = str(row.get(s.finding_field) or "")
        closed = str(row.get("close_date") or "")
        return ErpStatus(
            state=state,
            status=stage,
            finding=finding_of(code, {**FINDINGS, **s.findings}) if state == "completed" else None,
            found_failure=str(row.get(s.found_failure_field) or ""),
            by=_name(row.get("user_id")),
            # Odoo keeps the day only: its end is not before the technician's.
            ended_at=f"{closed}T23:59:59Z" if closed else "",
            reference=str(row.get(s.reference_field) or ""),
        )

    def anchor(self, erp_id: str) -> Anchor:
        """From the description, an HTML field."""
        lines = re.split(r"<[^>]*>", text_at(self._read(erp_id, "description"), "description"))
        return anchor_in("\n".join(html.unescape(one) for one in lines))

    def add_note(self, erp_id: str, key: str, text: str) -> None:
        """Posts an internal note, unless the mark is in one."""
        number = _id(erp_id)
        domain = [["model", "=", MODEL], ["res_id", "=", number], ["body", "ilike", mark(key)]]
        asked = {"domain": domain, "fields": ["body"], "limit": 20}
        answer = self._call("mail.message", "search_read", asked, is_safe=True)
        # `ilike` takes _ and % for wildcards: whatever it found is looked at again.
        if any(mark(key) in html.unescape(text_at(note, "body")) for note in listed(answer.json(), answer)):
            return
        note = {
            "ids": [number],
            "body": noted(key, text, TEXT),
            "message_type": "comment",
            "subtype_xmlid": "mail.mt_note",
        }
        self._call(MODEL, "message_post", note, is_safe=False)

    def withdraw(self, erp_id: str) -> None:
        """Archives a request that was only a trial."""
        self._call(MODEL, "write", {"ids": [_id(erp_id)], "vals": {"archive": True}}, is_safe=False)

    def _body(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """An asset that Odoo does not know is named in the text only."""
        s = self._settings
        values: dict[str, Any] = {
            "name": line(str(order.get("title", "")), TITLE),
            "maintenance_type": "corrective",
            s.reference_field: str(order["external_reference"]),
            # An HTML field: Odoo would take tags in our texts for its own.
            "description": "<br/>".join(html.escape(describe(order, TEXT)).splitlines()),
        }
        if priority := {**PRIORITIES, **s.priorities}.get(str(order.get("priority", ""))):
            values["priority"] = priority
        if equipment := self._equipment(str(order["asset_id"])):
            values["equipment_id"] = equipment
        return {**values, **s.constants}

    def _equipment(self, asset_id: str) -> int | None:
        s = self._settings
        wanted = s.assets.get(asset_id, asset_id)
        asked = {
            "domain": [[s.equipment_field, "=", wanted]],
            "fields": [s.equipment_field],
            "limit": MOST,
        }
        answer = self._call("maintenance.equipment", "search_read", asked, is_safe=True)
        found = listed(answer.json(), answer)
        # Whatever the search found: an order on another machine is worse than one that names it in the text.
        same = [one for one in found if text_at(one, s.equipment_field) == wanted]
        number = same[0].get("id") if same else None
        return number if isinstance(number, int) else None

    def _read(self, erp_id: str, *names: str) -> Mapping[str, Any]:
        asked = {"ids": [_id(erp_id)], "fields": list(names)}
        answer = self._call(MODEL, "read", asked, is_safe=True)
        rows = listed(answer.json(), answer)
        if not rows:
            raise ErpRefusedError(f"Odoo has no {MODEL} {erp_id}")
        about(str(_id(erp_id)), text_at(rows[0], "id") or "no id", answer)
        return rows[0]

    def _state(self, stage: Any, name: str) -> State:
        known = {**STATES, **{word.casefold(): state for word, state in self._settings.states.items()}}
        if name.casefold() in known:
            return known[name.casefold()]
        number = stage[0] if isinstance(stage, list) and stage else 0
        asked = {"ids": [number], "fields": ["done"]}
        answer = self._call("maintenance.stage", "read", asked, is_safe=True)
        rows = [row for row in listed(answer.json(), answer) if row.get("id") == number]
        return "completed" if rows and rows[0].get("done") else "in_progress"

    def _call(self, model: str, method: str, body: Mapping[str, Any], *, is_safe: bool) -> Answer:
        return checked(self._send(model, method, body, is_safe=is_safe), told)

    def _send(self, model: str, method: str, body: Mapping[str, Any], *, is_safe: bool) -> Answer:
        headers = {"X-Odoo-Database": self._settings.database} if self._settings.database else {}
        whole = {**body, "context": CONTEXT}
        return self._caller.send(
            "POST", f"/json/2/{model}/{method}", json_body=whole, headers=headers, is_safe=is_safe
        )


def _id(erp_id: str) -> int:
    if not erp_id.isdecimal() or len(erp_id) > 18:
        raise ErpRefusedError(f"{erp_id[:40]!r} is no id of a {MODEL}")
    return int(erp_id)


def _name(pair: Any) -> str:
    """A many2one is read as [id, name], or false."""
    return str(pair[1]) if isinstance(pair, list) and len(pair) == 2 else ""
