# SPDX-License-Identifier: Apache-2.0
"""SAP S/4HANA: an order is a maintenance notification, over OData 2 (API_MAINTNOTIFICATION; S/4HANA 2021 and later, Cloud).

Read: the service's metadata at api.sap.com (OP_API_MAINTNOTIFICATION); SAP Gateway, "Cross-Site Request Forgery
Protection" and "Settings for Idempotent Services" (help.sap.com). The natural key is MaintNotifExtReferenceNumber, 20
characters, which SAP turns into upper case: ours has 19, hex digits only, and is looked up as SAP keeps it. RequestID is
made from the reference, so that a repeat within SAP's retention gives the first answer again.
Not verified: how a PATCH of MaintNotifLongTextForEdit changes the text; `long_text` says what the plant found.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from erp.http import Answer, checked
from erp.login import Caller
from erp.oauth import ClientAuth
from erp.orders import MOST, OrdersByReference, about, checked_reference, listed
from erp.port import ErpOrder, ErpRefusedError, ErpStatus, Finding, State
from erp.rest import at, text_at
from erp.sap_service import SapService, ended_at, told, zone_of
from erp.settings import Common
from erp.text import Anchor, anchor_in, cut, describe, line, mark, noted, without_own
from erp.transcript import Hidden
from erp.words import finding_of, state_of

# MaxLength in the metadata.
TEXT, LONG_TEXT, OBJECT, REFERENCE = 40, 1333, 40, 20
# NotifProcessingPhase.
STATES: Mapping[str, State] = {
    "1": "open", "2": "open", "3": "in_progress", "4": "completed", "5": "cancelled",
}  # fmt: skip
PRIORITIES = {"urgent": "1", "high": "2", "medium": "3", "low": "4"}
FINDINGS: Mapping[str, Finding] = {}
NUMBER = re.compile(r"[0-9A-Za-z]{1,12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SapSettings(Common):
    """How this plant uses notifications."""

    # Client of an on-premise system, such as "100"; empty: the user's own.
    client: str = ""
    # Of the plant: SAP keeps the start of a malfunction as a date and a time of day.
    time_zone: str = "UTC"
    service_path: str = "/sap/opu/odata/sap/API_MAINTNOTIFICATION"
    # `basic`: the secret has user and password of a communication user; `oauth`: client_id and client_secret.
    auth: Literal["basic", "oauth"] = "basic"
    token_url: str = ""
    scope: str = ""
    client_auth: ClientAuth = "basic"
    # M1: maintenance request, M2: malfunction report.
    notification_type: str = "M2"
    # EAMS_EQUI: equipment, EAMS_FL: functional location; empty: SAP finds out.
    object_type: str = ""
    # Where the technician's finding stands on the notification.
    finding_at: str = "MaintNotificationCode"
    # Whether a PATCH of the long text adds to it or replaces it.
    long_text: Literal["append", "replace"] = "append"
    repeatability: bool = True


class SapErp(OrdersByReference):
    """Maintenance notifications."""

    def __init__(self, caller: Caller, settings: SapSettings, hidden: Hidden) -> None:
        self._service = SapService(caller, settings.service_path, settings.client, hidden)
        self._settings = settings
        self._path = "/MaintenanceNotification"
        self._zone = zone_of(settings.time_zone)

    def find_all(self, reference: str) -> list[ErpOrder]:
        """Every notification with it, oldest first: SAP numbers them in their order."""
        wanted = checked_reference(reference).upper()
        if len(wanted) > REFERENCE:
            raise ErpRefusedError(f"{wanted!r} is longer than SAP's external reference number ({REFERENCE})")
        query = {
            "$filter": f"MaintNotifExtReferenceNumber eq '{wanted}'",
            "$orderby": "MaintenanceNotification asc",
            "$top": str(MOST),
        }
        answer = self._service.read(self._path, query)
        found = listed(at(answer.json(), "d.results"), answer)
        same = [order for order in found if text_at(order, "MaintNotifExtReferenceNumber").upper() == wanted]
        if found and not same:
            raise ErpRefusedError("SAP answered the search with notifications of another reference number")
        return [_order(order, answer) for order in same]

    def _post(self, body: Mapping[str, Any], order: Mapping[str, Any]) -> Answer:
        headers = self._repeatable(order)
        answer = self._service.modify("POST", self._path, body, headers)
        if headers and _is_outdated(answer) and not self.find_by_reference(str(order["external_reference"])):
            # SAP has forgotten what became of a request that old; the reference tells that nothing did.
            answer = self._service.modify("POST", self._path, body, {})
        return answer

    def _made(self, answer: Answer) -> tuple[ErpOrder, str]:
        made = at(checked(answer, told).json(), "d")
        return _order(made, answer), _reference(made)

    def status(self, erp_id: str) -> ErpStatus:
        """From the processing phase; what was found from the first item's damage code."""
        s = self._settings
        order = self._read(erp_id)
        phase = text_at(order, "NotifProcessingPhase")
        state = state_of(phase, {**STATES, **s.states})
        if text_at(order, "MaintNotifRejectionReasonCode"):
            state = "cancelled"
        code = text_at(order, s.finding_at)
        return ErpStatus(
            state=state,
            status=text_at(order, "ConcatenatedActiveSystStsName") or phase,
            finding=finding_of(code, {**FINDINGS, **s.findings}) if state == "completed" else None,
            found_failure=self._damage(erp_id) if state == "completed" else "",
            # The one text of a notification is ours first.
            note=without_own(text_at(order, "MaintNotificationLongText")),
            by=text_at(order, "PersonResponsible"),
            ended_at=ended_at(order, self._zone) if state in {"completed", "cancelled"} else "",
            reference=_reference(order),
        )

    def anchor(self, erp_id: str) -> Anchor:
        """From the long text."""
        return anchor_in(self.text(erp_id))

    def text(self, erp_id: str) -> str:
        """The whole long text, with what we wrote."""
        return text_at(self._read(erp_id), "MaintNotificationLongText")

    def add_note(self, erp_id: str, key: str, text: str) -> None:
        """Adds to the long text, unless the mark is in it."""
        path = self._one(erp_id)
        before = self.text(erp_id)
        if mark(key) in before:
            return
        added = noted(key, line(text, LONG_TEXT), LONG_TEXT)
        if self._settings.long_text == "replace":
            added = cut(before, LONG_TEXT - len(added) - 1) + "\n" + added
        checked(self._service.modify("PATCH", path, {"MaintNotifLongTextForEdit": added}, {}), told)

    def withdraw(self, erp_id: str) -> None:
        """Completes a notification that was only a trial."""
        self._one(erp_id)
        query = {"MaintenanceNotification": f"'{erp_id}'"}
        checked(self._service.modify("POST", "/CompleteMaintNotification", None, {}, query), told)

    def _one(self, erp_id: str) -> str:
        if not NUMBER.fullmatch(erp_id):
            raise ErpRefusedError(f"{erp_id[:40]!r} is no notification number")
        return f"{self._path}('{erp_id}')"

    def _read(self, erp_id: str) -> Any:
        answer = self._service.read(self._one(erp_id))
        order = at(answer.json(), "d")
        # SAP knows a number without its leading zeros, too, and a person may have written it so.
        about(erp_id.lstrip("0"), text_at(order, "MaintenanceNotification").lstrip("0"), answer)
        return order

    def _damage(self, erp_id: str) -> str:
        answer = self._service.read(f"{self._one(erp_id)}/to_Item", {"$top": "1"})
        items = listed(at(answer.json(), "d.results"), answer)
        return text_at(items[0], "MaintNotifDamageCodeName") if items else ""

    def _body(self, order: Mapping[str, Any]) -> dict[str, Any]:
        s = self._settings
        asset = str(order["asset_id"])
        priority = str(order.get("priority", ""))
        body: dict[str, Any] = {
            "NotificationType": s.notification_type,
            "NotificationText": line(str(order.get("title", "")), TEXT),
            "MaintNotifExtReferenceNumber": str(order["external_reference"]).upper(),
            "TechnicalObject": cut(s.assets.get(asset, asset), OBJECT),
            "MaintNotifLongTextForEdit": describe(order, LONG_TEXT),
        }
        if found := {**PRIORITIES, **s.priorities}.get(priority):
            body["MaintPriority"] = found
        if s.object_type:
            body["TechObjIsEquipOrFuncnlLoc"] = s.object_type
        if observed := order.get("observed_at"):
            moment = datetime.fromisoformat(str(observed)).astimezone(self._zone)
            # Edm.DateTime has no zone: midnight of the plant's day, written as if it were UTC's.
            midnight = datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
            body["MalfunctionStartDate"] = f"/Date({int(midnight.timestamp() * 1000)})/"
            body["MalfunctionStartTime"] = moment.strftime("PT%HH%MM%SS")
        return {**body, **s.constants}

    def _repeatable(self, order: Mapping[str, Any]) -> dict[str, str]:
        reserved = order.get("reserved_at")
        # Both headers must be the same at a repeat, from another process, too: so they come from the order alone.
        if not self._settings.repeatability or not reserved:
            return {}
        request_id = hashlib.sha256(str(order["external_reference"]).encode()).hexdigest()[:32].upper()
        created = datetime.fromisoformat(str(reserved)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"RequestID": request_id, "RepeatabilityCreation": created}


def _is_outdated(answer: Answer) -> bool:
    return answer.status == 412 or (400 <= answer.status < 500 and "RequestID" in told(answer))


def _reference(order: Any) -> str:
    """Ours has no upper case; SAP keeps nothing else."""
    return text_at(order, "MaintNotifExtReferenceNumber").lower()


def _order(order: Any, answer: Answer) -> ErpOrder:
    number = text_at(order, "MaintenanceNotification")
    if not number:
        raise answer.unclear(f"has no notification number: {answer.excerpt[:120]}")
    return ErpOrder(number, text_at(order, "ConcatenatedActiveSystStsName"))
