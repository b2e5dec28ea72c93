# SPDX-License-Identifier: Apache-2.0
"""Why does this order exist: what was seen, which model and which rule spoke, who decided, what the ERP answered. Pure.

One timeline, made from the order's records and verified against them (verifying.py).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from api.dossier import Dossier, model_of
from api.telling import told
from api.verifying import Finding, findings, notes, training_of
from erp.text import Anchor
from linewatch.records import Entry
from work_orders.observed import observed_at

# Entries of one answer; Lambda answers with 6 MB at most, and an entry with its ERP calls may have 35 KB.
SHOWN_FIRST, SHOWN_LAST = 20, 130


def why(dossier: Dossier, anchor: Anchor | None = None) -> dict[str, Any]:
    """The answer of GET /work-orders/{reference}/why."""
    wrong = findings(dossier, anchor)
    entries = dossier.entries
    cut = len(entries) > SHOWN_FIRST + SHOWN_LAST
    shown = [*entries[:SHOWN_FIRST], *entries[-SHOWN_LAST:]] if cut else entries
    return {
        "reference": dossier.reference,
        "verified": bool(entries) and not wrong,
        "fault": shown_finding(wrong[0]) if wrong else None,
        "faults": [shown_finding(one) for one in wrong[:50]],
        "not_checked": notes(dossier, anchor),
        "head": dossier.order.get("head", ""),
        "entries": [entry_of(entry) for entry in shown] if entries else _before(dossier),
        "left_out": len(entries) - len(shown),
        "parts": [_part(dossier, event_id) for event_id in dossier.document.get("event_ids", ())],
        "policy": {
            "version": dossier.document.get("policy_version"),
            "digest": dossier.document.get("policy_digest"),
            "is_known": dossier.policy is not None,
            "document": dossier.policy,
        },
        "erp": {
            "id": dossier.order.get("erp_id"),
            "status": dossier.order.get("erp_status"),
            "record_digest": dossier.order.get("record_digest"),
            "calls": _calls(entries)[-200:],
        },
    }


def shown_finding(finding: Finding) -> dict[str, Any]:
    """What is wrong, as JSON."""
    return {"where": finding.where, "number": finding.number, "why": finding.why}


def entry_of(entry: Entry) -> dict[str, Any]:
    """One entry with its sentence. A changed one may hold anything."""
    try:
        detail = json.loads(entry.detail)
    except ValueError:
        detail = {}
    detail = detail if isinstance(detail, dict) else {}
    return {
        "number": entry.number,
        "at": entry.at,
        "what": entry.what,
        "by": entry.by,
        "text": _sentence(entry, detail),
        "detail": detail,
        "digest": entry.digest,
        "previous": entry.previous,
    }


def _sentence(entry: Entry, detail: Mapping[str, Any]) -> str:
    try:
        return told(entry.what, entry.by, detail)
    except (KeyError, TypeError, ValueError):
        return f"{entry.what} by {entry.by}; its detail can't be read"


def _before(dossier: Dossier) -> list[dict[str, Any]]:
    """The history of an order of release 0.2.0: told, and covered by nothing."""
    return [
        {
            "number": None,
            "at": one.get("at", ""),
            "what": one.get("what", ""),
            "by": one.get("by", ""),
            "text": f"{one.get('what', '')} by {one.get('by', '')}: {one.get('detail', '')}",
            "detail": {},
            "digest": "",
            "previous": "",
        }
        for one in dossier.order.get("history", ())
    ]


def _part(dossier: Dossier, event_id: str) -> dict[str, Any]:
    event = dossier.events.get(event_id)
    evidence = [
        {name: one.get(name) for name in ("kind", "path", "digest", "media_type")}
        for one in dossier.document.get("evidence", ())
        if str(one.get("path", "")).startswith(event_id)
    ]
    risks = {one.get("event_id"): one.get("risk") for one in dossier.document.get("persistence", ())}
    if event is None:
        return {
            "event_id": event_id, "taken_at": None, "result": None, "label": None, "score": None, "severity": None,
            "risk": risks.get(event_id), "evidence": evidence, "model": dict(dossier.document.get("model") or {}),
            "is_time_known": False, "is_kept": False,
        }  # fmt: skip
    verdict, model = event["data"].get("verdict") or {}, model_of(event)
    origin = event["data"].get("origin", {})
    known = observed_at(origin)
    chain: Sequence[Entry] = dossier.chains.get(f"model/{model.get('digest')}", ())
    return {
        "event_id": event_id,
        "taken_at": known or origin.get("taken_at"),
        # Whether the clock that told it was right.
        "is_time_known": known is not None,
        "result": verdict.get("result"),
        "label": verdict.get("label"),
        "score": verdict.get("score"),
        "severity": verdict.get("severity"),
        "risk": risks.get(event_id),
        "evidence": evidence
        or [
            {name: one.get(name) for name in ("kind", "path", "digest", "media_type")}
            for one in event["data"].get("evidence", ())
        ],
        "model": {
            **{name: model.get(name) for name in ("name", "version", "digest")},
            "training_data_digest": training_of(chain),
        },
        "is_kept": True,
    }


def _calls(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Every call to the ERP, with the number of the entry that holds it."""
    return [
        {"number": entry.number, "at": entry.at, **call}
        for entry in entries
        for call in entry_of(entry)["detail"].get("calls", ())
        if isinstance(call, dict)
    ]
