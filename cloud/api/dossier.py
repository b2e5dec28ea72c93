# SPDX-License-Identifier: Apache-2.0
"""Everything that is stored about one order, gathered for `why` and `verify`; and as a file that needs no cloud.

The file holds what was stored, byte for byte where bytes are hashed: whoever has it can recompute every digest.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from erp.text import Anchor
from linewatch.records import Entry
from work_orders.order_items import WorkOrder
from work_orders.order_table import plain
from work_orders.records import from_item, to_item

FORMAT = "linewatch-order/1"
POLICY_CHAIN = "policy"
# Times that an order is read again because an entry came while its chain was read. Entries are people's and the ERP's: more
# than one in the milliseconds of a read is rare.
MOST_READS = 5


class DossierError(Exception):
    """The file is no saved order; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Dossier:
    """One order and all that its records name."""

    # Every stored attribute; `document` is the text that was hashed.
    order: Mapping[str, Any]
    # The order's own (its reference), `policy`, and `model/<digest>` of each model that spoke.
    chains: Mapping[str, Sequence[Entry]]
    # CloudEvents by id, of those that are still kept.
    events: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    # The document of the policy that held; None where it is not known any more.
    policy: Mapping[str, Any] | None = None
    # What accuracy counts of the order, by what its end says; empty: nothing is there, None: it was not read.
    outcome: Mapping[str, Any] | None = None

    @property
    def reference(self) -> str:
        """The order's."""
        return str(self.order["reference"])

    @property
    def entries(self) -> Sequence[Entry]:
        """The order's own chain."""
        return self.chains.get(self.reference, ())

    @property
    def document(self) -> Mapping[str, Any]:
        """The facts that the order was opened with."""
        document = json.loads(self.order["document"])
        return document if isinstance(document, dict) else {}


class _Orders(Protocol):
    def get(self, reference: str) -> WorkOrder | None: ...

    def outcome_of(self, order: WorkOrder) -> Mapping[str, Any] | None: ...


class _Records(Protocol):
    def of(self, chain: str) -> list[Entry]: ...


class _Events(Protocol):
    def get(self, event_ids: Sequence[str]) -> list[dict[str, Any]]: ...


class _Policies(Protocol):
    def document(self, version: str | None) -> dict[str, Any] | None: ...


def gather(
    order: WorkOrder, orders: _Orders, records: _Records, events: _Events, policies: _Policies,
    bundled: Mapping[str, Any],
) -> Dossier:  # fmt: skip
    """Reads what there is of the order. `bundled`: the policy that the release brought, for orders made under it."""
    order, entries, outcome = _of_one_moment(order, orders, records)
    ids = list(dict.fromkeys(order.document.get("event_ids", ())))
    found = {event["id"]: event for event in events.get(ids)} if ids else {}
    digests = {model_of(event).get("digest") for event in found.values()}
    digests.add((order.document.get("model") or {}).get("digest"))
    names = [POLICY_CHAIN, *sorted(f"model/{digest}" for digest in digests if digest)]
    version = order.document.get("policy_version")
    policy = policies.document(version) if version else None
    if policy is None and bundled.get("version") == version:
        policy = dict(bundled)
    chains = {order.reference: entries, **{name: records.of(name) for name in names}}
    return Dossier(plain(order.item), chains, found, policy, plain(outcome))


def _of_one_moment(
    order: WorkOrder, orders: _Orders, records: _Records
) -> tuple[WorkOrder, list[Entry], Mapping[str, Any] | None]:
    """The order, its chain and its outcome, between which nothing was written: its head is the same before and after the chain is read.

    An entry that came meanwhile would read as one that was appended, or an end that was cut off. Both reads are consistent.
    """
    for _ in range(MOST_READS):
        entries, outcome = records.of(order.reference), orders.outcome_of(order)
        now = orders.get(order.reference)
        if now is None or now.head == order.head:
            return now or order, entries, outcome
        order = now
    return order, records.of(order.reference), orders.outcome_of(order)


def model_of(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the verdict says of its model."""
    model: Mapping[str, Any] = (event["data"].get("verdict") or {}).get("model") or {}
    return model


def to_json(dossier: Dossier, anchor: Anchor | None = None) -> dict[str, Any]:
    """The dossier as it is saved. `anchor`: what the ERP's order bears, None: not asked."""
    return {
        "format": FORMAT,
        "order": dict(dossier.order),
        "chains": {name: [to_item(entry) for entry in entries] for name, entries in dossier.chains.items()},
        "events": dict(dossier.events),
        "policy": dossier.policy,
        "outcome": dossier.outcome,
        "anchor": anchor and asdict(anchor),
    }


def from_json(content: Any) -> Dossier:
    """The dossier that was saved. What was changed in it is no error here: `verify` finds it. Raises DossierError."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DossierError(f"is no saved order: format {FORMAT} is due")
    try:
        # What can't be written in UTF-8 can't have been hashed.
        json.dumps(content, ensure_ascii=False).encode()
        chains = {
            str(name): [_entry(name, place, item) for place, item in enumerate(items)]
            for name, items in content["chains"].items()
        }
        # Files of before have none.
        outcome = content.get("outcome")
        dossier = Dossier(content["order"], chains, content["events"], content["policy"], outcome)
        if outcome is not None:
            outcome.items()
        json.loads(dossier.order["document"])
        _ = dossier.reference, [event["data"] for event in dossier.events.values()]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DossierError(
            f"is a saved order with something missing or of a wrong kind: {error!r}"
        ) from error
    return dossier


def anchor_from(content: Mapping[str, Any]) -> Anchor | None:
    """What the ERP's order bore when the dossier was saved; None where it was not asked. Raises DossierError."""
    kept = content.get("anchor")
    if kept is None:
        return None
    try:
        anchor = Anchor(kept["reference"], kept["digest"])
    except (KeyError, TypeError) as error:
        raise DossierError(f"is a saved order whose anchor can't be read: {error!r}") from error
    if not isinstance(anchor.reference, str) or not isinstance(anchor.digest, str):
        raise DossierError("is a saved order whose anchor can't be read: two texts are due")
    return anchor


def _entry(chain: str, place: int, item: Mapping[str, Any]) -> Entry:
    try:
        return from_item(item)
    except (KeyError, TypeError, ValueError) as error:
        raise DossierError(f"chain {chain}: entry {place} can't be read: {error!r}") from error
