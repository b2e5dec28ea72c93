# SPDX-License-Identifier: Apache-2.0
"""An OData 2 service of SAP Gateway: CSRF tokens, clients of a system, its errors and its times."""

import re
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from erp.http import Answer, checked
from erp.login import Caller
from erp.port import ErpAwayError, ErpUnavailableError
from erp.rest import at, text_at
from erp.settings import SettingsError
from erp.transcript import Hidden


class SapService:
    """One service. `client` of the system, such as "100"; empty: the user's own."""

    def __init__(self, caller: Caller, path: str, client: str, hidden: Hidden) -> None:
        self._caller = caller
        self._root = path.rstrip("/")
        self._client = {"sap-client": client} if client else {}
        self._hidden = hidden
        self._lock = threading.Lock()
        # CSRF token and session cookie belong together.
        self._csrf: Mapping[str, str] = {}

    def read(self, path: str, query: Mapping[str, str] | None = None) -> Answer:
        """What lies there. Raises ErpError."""
        asked = {**self._client, **(query or {}), "$format": "json"}
        return checked(self._caller.send("GET", self._root + path, query=asked), told)

    def modify(
        self,
        method: str,
        path: str,
        body: Any,
        headers: Mapping[str, str],
        query: Mapping[str, str] | None = None,
    ) -> Answer:
        """The answer of any status. Sends a CSRF token; where SAP no longer knows it, once more: that created nothing."""
        asked = {**self._client, **(query or {})} or None
        for _ in range(2):
            csrf = self._csrf_headers()
            sent = {**headers, **csrf}
            answer = self._caller.send(method, self._root + path, json_body=body, headers=sent, query=asked)
            if answer.status != 403 or answer.headers.get("x-csrf-token", "").lower() != "required":
                return answer
            with self._lock:
                if self._csrf == csrf:
                    self._csrf = {}
        raise ErpAwayError("SAP refuses a fresh CSRF token; does a proxy drop its cookies?")

    def _csrf_headers(self) -> Mapping[str, str]:
        with self._lock:
            if not self._csrf:
                query = {**self._client, "$format": "json"}
                fetch = {"X-CSRF-Token": "Fetch"}
                answer = checked(self._caller.send("GET", self._root + "/", headers=fetch, query=query), told)
                token = answer.headers.get("x-csrf-token", "")
                if not token:
                    raise ErpAwayError(
                        f"{answer.what} gave no CSRF token; look at service_path in ERP_SETTINGS"
                    )
                self._hidden.add(token)
                self._csrf = {"X-CSRF-Token": token, "Cookie": answer.cookies}
            return self._csrf


def told(answer: Answer) -> str:
    """OData 2's message, with the details that SAP adds."""
    try:
        body = answer.json()
    except ErpUnavailableError:
        return ""
    said = text_at(body, "error.message.value") or text_at(body, "error.message")
    details = at(body, "error.innererror.errordetails")
    more = [text_at(detail, "message") for detail in details[:3]] if isinstance(details, list) else []
    return "; ".join(dict.fromkeys([entry for entry in (said, *more) if entry]))


def zone_of(name: str) -> ZoneInfo:
    """The zone of that name. Raises SettingsError."""
    try:
        return ZoneInfo(name)
    except (ValueError, ZoneInfoNotFoundError, OSError):
        raise SettingsError(f"ERP_SETTINGS: time_zone {name!r} is no zone such as Europe/Berlin") from None


# Where SAP tells the day only.
_DAY_END = 86_399


def ended_at(order: Any, zone: ZoneInfo) -> str:
    """When a notification was completed, by the plant's clock: RFC 3339, UTC; empty where SAP does not tell."""
    day = re.fullmatch(r"/Date\((-?\d+)[^)]*\)/", text_at(order, "NotificationCompletionDate"))
    time = re.fullmatch(r"PT(\d+)H(\d+)M(\d+)S", text_at(order, "CompletionTime"))
    if not day:
        return ""
    seconds = int(day[1]) / 1000 + (
        int(time[1]) * 3600 + int(time[2]) * 60 + int(time[3]) if time else _DAY_END
    )
    try:
        local = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=zone)
        return local.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        return ""  # no year of ours
