# SPDX-License-Identifier: Apache-2.0
"""IBM Maximo Manage: an order is a work order of an object structure, over the REST/JSON API with an API key.

Read: IBM's "Maximo NextGen REST API" guide (developer.ibm.com), "Mastering the MAS REST API", published error answers
(BMXAA4590E, BMXAA9301E). The reference lies in an attribute that the plant adds, LWREFERENCE: EXTERNALREFID belongs to the
integration framework and is shorter than a reference in a default database.
Not verified: lengths of fields in this version; that `patchtype: MERGE` adds a worklog entry without touching the others.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from erp.http import Answer, checked
from erp.login import Caller
from erp.orders import MOST, OrdersByReference, about, checked_reference, identified, listed
from erp.port import ErpOrder, ErpRefusedError, ErpStatus, ErpUnavailableError, Finding, State
from erp.rest import at, text_at
from erp.settings import Common, needed
from erp.text import Anchor, anchor_in, cut, describe, line, mark, noted
from erp.words import finding_of, state_of

# Of WORKORDER and WORKLOG in a default database.
DESCRIPTION, LONG, ASSET = 100, 32_000, 25
PRIORITIES = {"urgent": "1", "high": "2", "medium": "3", "low": "4"}
# Internal values of the synonym domain WOSTATUS; a plant's synonyms go into `states`.
STATES: Mapping[str, State] = {
    "WAPPR": "open", "WPCOND": "open", "APPR": "open", "WSCH": "open", "WMATL": "open", "WSGN": "open",
    "INPRG": "in_progress", "COMP": "completed", "CLOSE": "completed", "CAN": "cancelled",
}  # fmt: skip
FINDINGS: Mapping[str, Finding] = {
    "confirmed": "confirmed", "other_fault": "other_fault", "no_fault": "no_fault", "unstated": "unstated",
}  # fmt: skip
ID = re.compile(r"([A-Za-z0-9_-]{1,8})/([A-Za-z0-9_.-]{1,30})")
LEAN = {"lean": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MaximoSettings(Common):
    """How this plant uses work orders."""

    siteid: str = needed()
    object_structure: str = "mxapiwo"
    worktype: str = "CM"
    reference_attribute: str = "lwreference"
    finding_attribute: str = "lwfinding"
    found_failure_attribute: str = "lwfound"


class MaximoErp(OrdersByReference):
    """Work orders; an id is "<site>/<wonum>"."""

    def __init__(self, caller: Caller, settings: MaximoSettings) -> None:
        self._caller = caller
        self._settings = settings
        self._path = f"/os/{settings.object_structure}"

    def find_all(self, reference: str) -> list[ErpOrder]:
        """Every work order with it, oldest first."""
        s = self._settings
        where = f'{s.reference_attribute}="{checked_reference(reference)}"'
        found, answer = self._search(where, f"wonum,siteid,status,{s.reference_attribute}")
        same = [order for order in found if text_at(order, s.reference_attribute) == reference]
        if found and not same:
            raise ErpRefusedError(
                f"Maximo answered the search with work orders of another {s.reference_attribute}"
            )
        return [identified(ErpOrder(self._id(order), text_at(order, "status")), answer) for order in same]

    def _id(self, order: Mapping[str, Any]) -> str:
        number = text_at(order, "wonum")
        return f"{text_at(order, 'siteid') or self._settings.siteid}/{number}" if number else ""

    def _post(self, body: Mapping[str, Any], _order: Mapping[str, Any]) -> Answer:
        """It waits for approval in Maximo as any other (WAPPR)."""
        headers = {"properties": f"wonum,siteid,status,{self._settings.reference_attribute}"}
        return self._caller.send("POST", self._path, query=LEAN, json_body=body, headers=headers)

    def _is_there(self, answer: Answer) -> bool:
        # A version that does not know the header `properties` has created what it can be asked for.
        return super()._is_there(answer) or (answer.status == 201 and not answer.body)

    def _made(self, answer: Answer) -> tuple[ErpOrder, str]:
        made = checked(answer, told).json()
        number = self._id(made)
        if not number:
            raise answer.unclear(f"has no wonum: {answer.excerpt[:120]}")
        return ErpOrder(number, text_at(made, "status")), text_at(made, self._settings.reference_attribute)

    def status(self, erp_id: str) -> ErpStatus:
        """From the status, a synonym of WOSTATUS."""
        s = self._settings
        names = ("status", "changeby", "actfinish", "statusdate",
                 s.finding_attribute, s.found_failure_attribute, s.reference_attribute)  # fmt: skip
        order, _ = self._one(erp_id, ",".join(names))
        word = text_at(order, "status")
        state = state_of(word, {**STATES, **s.states})
        ended = text_at(order, "actfinish") or text_at(order, "statusdate")
        return ErpStatus(
            state=state,
            status=word,
            finding=finding_of(text_at(order, s.finding_attribute), {**FINDINGS, **s.findings})
            if state == "completed"
            else None,
            found_failure=text_at(order, s.found_failure_attribute),
            by=text_at(order, "changeby"),
            ended_at=ended if state in {"completed", "cancelled"} else "",
            reference=text_at(order, s.reference_attribute),
        )

    def anchor(self, erp_id: str) -> Anchor:
        """From the long description."""
        order, _ = self._one(erp_id, "description_longdescription")
        return anchor_in(text_at(order, "description_longdescription"))

    def add_note(self, erp_id: str, key: str, text: str) -> None:
        """Adds a worklog entry, unless one bears the mark."""
        order, href = self._one(erp_id, "worklog{description,description_longdescription}")
        worklog = at(order, "worklog")
        logs = worklog if isinstance(worklog, list) else []
        if any(
            mark(key) in text_at(log, name)
            for log in logs
            for name in ("description", "description_longdescription")
        ):
            return
        # The mark goes first in the short text: a search in Maximo shows only that.
        entry = {
            "description": cut(f"{mark(key)} {' '.join(text.split())}", DESCRIPTION),
            "description_longdescription": noted(key, text, LONG),
            "logtype": "CLIENTNOTE",
        }
        headers = {"x-method-override": "PATCH", "patchtype": "MERGE"}
        path = f"{self._path}/{href}"
        checked(
            self._caller.send("POST", path, query=LEAN, json_body={"worklog": [entry]}, headers=headers), told
        )

    def withdraw(self, erp_id: str) -> None:
        """Cancels a work order that was only a trial."""
        _, href = self._one(erp_id, "status")
        headers = {"x-method-override": "PATCH"}
        path = f"{self._path}/{href}"
        checked(
            self._caller.send("POST", path, query=LEAN, json_body={"status": "CAN"}, headers=headers), told
        )

    def _body(self, order: Mapping[str, Any]) -> dict[str, Any]:
        s = self._settings
        asset = str(order["asset_id"])
        body: dict[str, Any] = {
            "siteid": s.siteid,
            "worktype": s.worktype,
            "description": line(str(order.get("title", "")), DESCRIPTION),
            "description_longdescription": describe(order, LONG),
            "assetnum": cut(s.assets.get(asset, asset), ASSET),
            s.reference_attribute: str(order["external_reference"]),
        }
        if priority := {**PRIORITIES, **s.priorities}.get(str(order.get("priority", ""))):
            body["wopriority"] = int(priority)
        if observed := order.get("observed_at"):
            body["reportdate"] = str(observed)[:30]
        return {**body, **s.constants}

    def _one(self, erp_id: str, names: str) -> tuple[Mapping[str, Any], str]:
        """The order and the last part of its href, by which Maximo addresses it."""
        parts = ID.fullmatch(erp_id)
        if not parts:
            raise ErpRefusedError(f"{erp_id[:40]!r} is no site and work order number")
        found, answer = self._search(f'siteid="{parts[1]}" and wonum="{parts[2]}"', f"wonum,siteid,{names}")
        if not found:
            raise ErpRefusedError(f"Maximo has no work order {erp_id}")
        about(erp_id, self._id(found[0]), answer)
        # Only the last part of the href: its host is what Maximo believes to be called.
        href = urlsplit(text_at(found[0], "href")).path.rpartition("/")[2]
        if not href:
            raise answer.unclear("has no href")
        return found[0], href

    def _search(self, where: str, names: str) -> tuple[list[Mapping[str, Any]], Answer]:
        query = {
            **LEAN,
            "oslc.where": where,
            "oslc.select": names,
            "oslc.orderBy": "+workorderid",
            "oslc.pageSize": str(MOST),
        }
        answer = checked(self._caller.send("GET", self._path, query=query), told)
        return listed(at(answer.json(), "member"), answer), answer


def told(answer: Answer) -> str:
    """The message with its BMXAA code, lean or with namespaces."""
    try:
        body = answer.json()
    except ErpUnavailableError:
        return ""
    # With namespaces: the names hold no dot.
    said = at(body, "Error.message") or at(body, "oslc:Error.oslc:message") or ""
    return cut(str(said), 300)
