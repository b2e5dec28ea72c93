# SPDX-License-Identifier: Apache-2.0
"""Tells people that an order waits for them: SNS, whose subscribers read mails or take JSON at a webhook.

What is due follows from the order alone, so whoever looks at it sees to it: the flow at the next event, `watch` by the
clock, the sweep for orders that are in the ERP. One at a time announces (claim_announcing) and marks what was announced. So
each kind comes effectively once: twice only where a process dies between SNS's answer and the mark, or SNS took it later than
aws.ANNOUNCE waits. That SNS is away stops nothing and costs seconds; the next look tries again.

The deadline that an announcement names is kept on the order: a policy that is put later does not change it.
"""

import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from work_orders.order_items import OPEN, WorkOrder, text_of
from work_orders.orders import WorkOrders
from work_orders.policy_data import PolicyData
from work_orders.quiet_hours import quiet_until
from work_orders.subscribers import Subscribers

Kind = Literal["waiting", "reminder", "escalated", "expired"]

CLAIM_S = 60.0
"""Longer than one call of SNS may take (aws.ANNOUNCE)."""
EXPIRED = "nobody decided within"
"""How the policy's reason begins when an approval expired."""
# SNS: a subject has less than 100 characters, ASCII, on one line.
SUBJECT = 99
LONGEST_FIELD = 300

log = Logger(child=True)


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be announced, and the order's attributes that say that it was."""

    kind: Kind
    marks: Mapping[str, Any]


def due(order: WorkOrder, data: PolicyData, now_s: float) -> Due | None:
    """The next thing to announce about the order, None where there is nothing, or quiet hours hold it. Pure."""
    quiet = quiet_until(data.quiet_hours, datetime.fromtimestamp(now_s, UTC), order.risk)
    return None if quiet is not None else _due(order, data, now_s)


def _due(order: WorkOrder, data: PolicyData, now_s: float) -> Due | None:
    item, at = order.item, text_of(now_s)
    if order.status == "awaiting_approval" and not item.get("announced_at"):
        marks = {"announced_at": at, "escalations_announced": len(order.escalations)}
        return Due("waiting", marks | _deadline(order, data, now_s))
    if order.status in OPEN and len(order.escalations) > int(item.get("escalations_announced", 0)):
        return Due("escalated", {"escalations_announced": len(order.escalations)})
    if order.status == "awaiting_approval":
        if order.expires_approval_at and order.expires_approval_at <= at:
            return None  # what comes next is the expiry, not a reminder
        last = max(str(item.get("announced_at")), str(item.get("reminded_at") or ""))
        if datetime.fromisoformat(last).timestamp() + data.approval.remind_after_hours * 3600 <= now_s:
            return Due("reminder", {"reminded_at": at, "reminders": int(item.get("reminders", 0)) + 1})
    elif is_expired(order) and not item.get("expiry_announced_at"):
        return Due("expired", {"expiry_announced_at": at})
    return None


def is_expired(order: WorkOrder) -> bool:
    """Whether the policy decided because nobody did."""
    return order.item.get("decided_by") == "policy" and str(order.item.get("reason", "")).startswith(EXPIRED)


def _deadline(order: WorkOrder, data: PolicyData, now_s: float) -> dict[str, Any]:
    then = data.approval.on_expiry
    # The pilot promises that no order is made without a person's word.
    if then == "keep" or (then == "create" and order.document.get("pilot")):
        return {"expires_approval_at": "", "on_expiry": "keep"}
    ends = now_s + timedelta(hours=data.approval.expire_after_hours).total_seconds()
    return {"expires_approval_at": text_of(ends), "on_expiry": then}


@dataclass(frozen=True, slots=True)
class Announcer:
    """Where announcements go. Without a topic, or anybody who is subscribed, nothing is announced, and so nothing expires."""

    sns: Any = None
    topic_arn: str = ""
    # Without a slash at its end; empty where nobody told.
    console_url: str = ""
    environment: str = ""
    # Of the topic; made from it where it is None.
    subscribers: Subscribers | None = None

    def __post_init__(self) -> None:
        if self.subscribers is None:
            object.__setattr__(self, "subscribers", Subscribers(self.sns, self.topic_arn))

    def announce(self, order: WorkOrder, orders: WorkOrders, data: PolicyData, now_s: float) -> WorkOrder:
        """Announces what is due, if anything is; the order as it is afterwards."""
        if not self.topic_arn or due(order, data, now_s) is None:
            return order
        assert self.subscribers is not None
        if not self.subscribers.are_there():
            if self.subscribers.is_unknown:
                orders.announce_later(order.reference)
            return order
        claimed = orders.claim_announcing(order.reference, CLAIM_S)
        if claimed is None:
            return order
        # What was due when it was read may have been announced since.
        what = due(claimed, data, now_s)
        if what is None or not self._publish(claimed, what, data):
            orders.mark(order.reference, announcing_until=0)
            if what is not None:
                orders.announce_later(order.reference)
            return claimed
        orders.mark(order.reference, announcing_until=0, **what.marks)
        log.info("announced", extra={"reference": order.reference, "kind": what.kind})
        return orders.get(order.reference) or claimed

    def _publish(self, order: WorkOrder, what: Due, data: PolicyData) -> bool:
        facts = facts_of(order, what, data, self.console_url, self.environment)
        text = text_for_people(facts)
        forms = {
            "default": text,
            **dict.fromkeys(("http", "https", "sqs", "lambda"), json.dumps({**facts, "text": text})),
        }
        labels = {
            name: str(facts[name])
            for name in ("kind", "criticality", "priority", "line", "environment")
            if facts[name]
        }
        try:
            self.sns.publish(
                TopicArn=self.topic_arn,
                Subject=subject(facts),
                Message=json.dumps(forms),
                MessageStructure="json",
                MessageAttributes={
                    name: {"DataType": "String", "StringValue": value} for name, value in labels.items()
                },
            )
        except (ClientError, BotoCoreError) as error:
            assert self.subscribers is not None
            self.subscribers.failed(error)
            log.warning(
                "not_announced", extra={"reference": order.reference, "kind": what.kind, "why": str(error)}
            )
            return False
        return True


SILENT = Announcer()
"""Where nobody is told."""


def facts_of(
    order: WorkOrder, what: Due, data: PolicyData, console_url: str, environment: str
) -> dict[str, Any]:
    """What an announcement says, as a webhook gets it."""
    document, item = order.document, {**order.item, **what.marks}
    return {
        "kind": what.kind,
        "reference": order.reference,
        "status": order.status,
        "asset_id": order.asset_id,
        "asset_name": document.get("asset_name"),
        "location": document.get("location"),
        "line": document.get("line"),
        "criticality": document.get("criticality"),
        "failure_mode": order.failure_mode,
        "failure_type": document.get("failure_type"),
        "risk": order.risk,
        "priority": order.priority,
        "band": order.band,
        "thresholds": document.get("thresholds"),
        "needed": document.get("needed"),
        "observations": document.get("observations"),
        "time_to_failure": order.time_to_failure,
        "recommended_action": order.recommended_action
        or data.failure_mode(order.failure_mode).action(order.risk),
        "waiting_since": item.get("created_at"),
        "expires_at": item.get("expires_approval_at") or None,
        "on_expiry": item.get("on_expiry"),
        "reason": item.get("reason"),
        "link": f"{console_url.rstrip('/')}/#/orders/{order.reference}" if console_url else None,
        "environment": environment,
    }


def subject(facts: Mapping[str, Any]) -> str:
    """One line that tells on a locked phone what it is about."""
    begin = {
        "waiting": "Approve?",
        "reminder": "Still waiting:",
        "escalated": "Worse:",
        "expired": "Expired:",
    }
    what = f"{_line(facts['asset_name'] or facts['asset_id'])}: {_line(facts['failure_type'] or facts['failure_mode'])}"
    plain = unicodedata.normalize("NFKD", f"{begin[facts['kind']]} risk {facts['risk']:.2f}, {what}")
    ascii_only = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return ascii_only.encode("ascii", "replace").decode()[:SUBJECT].rstrip()


def text_for_people(facts: Mapping[str, Any]) -> str:
    """What a supervisor reads on a phone: what, how bad, how long, what to do, where, until when."""
    place = ", ".join(_line(facts[name]) for name in ("location", "line") if facts[name])
    names = f"{_line(facts['asset_name'] or facts['asset_id'])} ({facts['asset_id']})"
    lines = [
        f"{names}{', ' + place if place else ''}, criticality {_line(facts['criticality'] or 'unknown')}",
        _line(facts["failure_type"] or facts["failure_mode"]),
        "",
        _risk(facts),
        _time_to_failure(facts["time_to_failure"]),
        f"What to do: {_line(facts['recommended_action'])}",
        "",
        *_next(facts),
    ]
    return "\n".join(line for line, before in zip(lines, ["-", *lines], strict=False) if line or before)


def _risk(facts: Mapping[str, Any]) -> str:
    thresholds = facts["thresholds"] or {}
    bands = "; ".join(
        # Orders of before do not say whether the threshold itself counts.
        f"{name} {'from' if band.get('inclusive', True) else 'above'} {band['on']:.2f}"
        for name, band in sorted(thresholds.items())
        if "on" in band
    )
    seen = f", by {facts['needed']} of {facts['observations']} parts" if facts["needed"] else ""
    return f"Risk {facts['risk']:.2f} ({facts['priority'] or 'no priority'}){seen}{'. Bands: ' + bands if bands else ''}"


def _time_to_failure(stated: Mapping[str, Any] | None) -> str:
    if not stated:
        return "Time to failure: not known"
    if stated.get("beyond_horizon"):
        return "Time to failure: beyond what the model looks at"
    hours = stated.get("hours")
    points, unit = (hours, "hours") if hours else (stated, f"{stated.get('unit', 'cycle')}s")
    if "p50" not in points:
        return "Time to failure: not known"
    between = (
        f" ({_amount(points['p10'])} to {_amount(points['p90'])})"
        if "p10" in points and "p90" in points
        else ""
    )
    return f"Time to failure: {_amount(points['p50'])} {unit}{between}"


def _amount(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def _next(facts: Mapping[str, Any]) -> list[str]:
    where = facts["link"] or f"the console, order {facts['reference']}"
    if facts["kind"] == "expired":
        done = "rejected" if facts["status"] == "rejected" else "approved by the policy"
        return [f"The order was {done}: {_line(facts['reason'])}.", f"See {where}"]
    if facts["status"] != "awaiting_approval":
        return [f"The order is {facts['status']}; its priority is {facts['priority']} now.", f"See {where}"]
    if not facts["expires_at"]:
        return [f"Approve, merge or reject: {where}", "It waits until somebody decides."]
    then = {"reject": "it is rejected", "create": "it is created in the ERP"}.get(
        str(facts["on_expiry"]), "it waits on"
    )
    until = datetime.fromisoformat(facts["expires_at"]).astimezone(UTC)
    return [
        f"Approve, merge or reject: {where}",
        f"If nobody decides until {until:%Y-%m-%d %H:%M} UTC, {then}.",
    ]


def _line(text: object) -> str:
    """One line without control characters, of bounded length: names come from tables that people fill."""
    shown = "".join(letter if letter.isprintable() else " " for letter in str(text))
    return " ".join(shown.split())[:LONGEST_FIELD]
