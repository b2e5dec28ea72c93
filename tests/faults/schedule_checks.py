# SPDX-License-Identifier: Apache-2.0
"""What has to hold once the faults have ended and everybody is at rest; each broken promise as a sentence."""

import json
from collections import Counter
from typing import Any

from faults.schedule_aws import shadow_of
from faults.schedule_world import CRITICALITY, DEVICE, LETS_THROUGH, POISON, Station, World

from api.dossier import gather
from api.policies import bundled
from api.verifying import findings
from linewatch.records import Entry, first_fault
from work_orders.episodes import reference as reference_of
from work_orders.observing import Desk
from work_orders.order_items import ENDED, NEVER, OPEN, WorkOrder
from work_orders.policy import decide
from work_orders.records import Records

STATUS_OF = {
    "opened": "", "approved": "creating", "rejected": "rejected", "merged": "merged", "parked": "parked",
    "created": "created", "closed": "closed", "asked": "awaiting_approval",
}  # fmt: skip


def broken(world: World) -> list[str]:
    """Empty where every promise was kept."""
    desk = world.desk()
    scanned = world.dynamodb.scan(TableName=world.tables["WorkOrdersTable"])["Items"]
    orders = desk.orders.get_many([item["reference"] for item in scanned])
    episodes = world.dynamodb.scan(TableName=world.tables["EpisodesTable"])["Items"]
    return [
        *_lost(world, orders, episodes),
        *_doubled(world),
        *(fault for order in orders for fault in _order(world, order, desk.records)),
        *_ends(world, orders, desk.records),
        *(
            f"{order.reference}: verify: {fault.where}: {fault.why}"
            for order in orders
            for fault in findings(
                gather(order, desk.orders, desk.records, desk.events, desk.policies, bundled())
            )
        ),
        *_shadows(orders),
        *(fault for station in world.stations for fault in _policy(world, station, orders, desk)),
        *(fault for station in world.stations for fault in _crossed(station, desk)),
        *(["the queue is not empty"] if world.queue else []),
        *(f"dead letter: {body[:80]}" for body in world.dead if body not in POISON),
    ]


def _lost(world: World, orders: list[WorkOrder], episodes: list[dict[str, Any]]) -> list[str]:
    told = []
    there = {order.reference: order for order in orders}
    numbers = {item["asset_id"]: int(item["episode"]) for item in episodes}
    for station in world.stations:
        if not numbers.get(station.asset_id):
            told.append(f"lost: {station.asset_id} crossed its band and has no episode")
        for number in range(1, numbers.get(station.asset_id, 0) + 1):
            reference = reference_of(station.asset_id, "hpc-degradation", number)
            order = there.get(reference)
            if order is None:
                told.append(f"lost: {station.asset_id} episode {number} has no order")
            elif order.status in ("creating",) or (order.status == "parked" and not order.is_refused):
                told.append(f"lost: {reference} is {order.status} at rest")
            elif order.status == "created" and [o["id"] for o in world.erp.of(reference)][:1] != [
                order.erp_id
            ]:
                told.append(f"lost: {reference} is created as {order.erp_id}, the ERP has it not")
    for item in episodes:
        mine = there.get(reference_of(item["asset_id"], item["failure_mode"], int(item["episode"])))
        held = False
        if mine is not None:
            held = _goes_on(mine, there)
        if item["is_open"] != held:
            told.append(
                f"{mine.reference if mine else item}: episode open {item['is_open']}, order {mine and mine.status}"
            )
    return told


def _goes_on(order: WorkOrder, there: dict[str, WorkOrder]) -> bool:
    """Whether the order's case has not ended: its own, or that of the order which took it in at last."""
    while order.merged_into:
        order = there[order.merged_into]
    return order.status in OPEN


def _doubled(world: World) -> list[str]:
    by_reference = Counter(order["external_reference"] for order in world.erp.orders)
    by_episode = Counter((o["asset_id"], o["failure_mode"], o["episode"]) for o in world.erp.orders)
    return [
        f"doubled: {key} is {count} times in the ERP"
        for counts in (by_reference, by_episode)
        for key, count in counts.items()
        if count > 1
    ]


def _order(world: World, order: WorkOrder, records: Records) -> list[str]:
    told = []
    entries = records.of(order.reference)
    name = f"{order.reference} ({order.status})"
    if fault := first_fault(entries, order.head):
        told.append(f"{name}: record {fault.number}: {fault.why}")
    if order.records != len(entries):
        told.append(f"{name}: {order.records} records are counted, {len(entries)} are there")
    if (recorded := _recorded_status(entries)) != order.status:
        told.append(f"{name}: the records say {recorded}")
    now = world.hub.now
    if order.lease_until >= now or int(order.item.get("notes_lease_until", 0)) >= now:
        told.append(f"{name}: a lease is left")
    if order.shadow != "written":
        told.append(f"{name}: shadow is {order.shadow}")
    if order.is_in_another:
        if "expires_at" in order.item:
            told.append(f"{name}: {order.merged_into} can't end without it, and it is forgotten some day")
    elif order.status in ENDED:
        stored = world.dynamodb.scan(TableName=world.tables["RecordsTable"])["Items"]
        if any("expires_at" not in one for one in stored if one["chain"] == order.reference):
            told.append(f"{name}: it has ended, and a record of it is kept for ever")
    if order.status == "created" and order.due_at != NEVER:
        told.append(f"{name}: something is due at {order.due_at} for ever")
    if order.status == "closed" and not order.erp_id and world.erp.of(order.reference):
        told.append(f"{name}: the ERP has an order of it that nobody knows of")
    in_erp = next((o for o in world.erp.orders if o["id"] == order.erp_id), None) if order.erp_id else None
    if in_erp is not None:
        told += _notes(name, order, entries, in_erp)
    return told


def _policy(world: World, station: Station, orders: list[WorkOrder], desk: Desk) -> list[str]:
    """What the policy asks for was done: nothing is weaker, earlier or more often by itself than it says."""
    mine = [order for order in orders if order.asset_id == station.asset_id]
    told, by_itself = [], 0
    rule = desk.data.rule("machine", CRITICALITY)
    bands = [band.name for band in rule.bands]
    for order in mine:
        name = f"{order.reference} ({order.status})"
        entries = desk.records.of(order.reference)
        steps = [(bands.index(one["band"]), -one["risk"]) for one in order.escalations]
        if steps != sorted(steps, reverse=True):
            told.append(f"{name}: an escalation fell: {order.escalations}")
        if not entries or entries[0].what != "opened":
            told.append(f"{name}: its records do not begin with how it was opened")
            continue
        opened = json.loads(entries[0].detail)
        whats = {entry.what: entry for entry in entries}
        by_policy = "approved" in whats and whats["approved"].by == "policy"
        by_itself += opened["status"] == "creating" or by_policy
        in_erp = [float(one["created_at"]) for one in world.erp.of(order.reference)]
        until = opened["hold_until"] if "released" not in whats else 0.0
        if in_erp and min(in_erp) < until:
            told.append(f"{name}: it was held until {until} and is in the ERP since {min(in_erp)}")
        if in_erp and until >= world.pilot_from and "asked" not in whats:
            told.append(f"{name}: its hold ended at {until} in a pilot, and nobody was asked")
        if order.status in OPEN:
            state = desk.states.of_asset(station.asset_id)[0]
            latch = desk.episodes.get(station.asset_id, order.failure_mode).latch(state.station)
            now = decide(state.observations, order.failure_mode, rule, latch)
            word = desk.data.severity_word(now.risk)
            if (
                now.band
                and order.highest_risk is not None
                and int(now.risk * 100) > int(order.highest_risk * 100)
            ):
                told.append(f"{name}: its parts reached {now.risk}, and it keeps {order.highest_risk}")
            if now.band and bands.index(now.band) < bands.index(order.band):
                told.append(f"{name}: the band {now.band} was crossed, the order is of {order.band}")
            if now.band and desk.data.is_worse(word, order.priority):
                told.append(f"{name}: its risk is {now.risk}, its priority {order.priority}")
            if now.risk >= LETS_THROUGH and order.hold_until > world.hub.now:
                told.append(f"{name}: risk {now.risk} is held")
        told += _taken_in(world, station, order, orders, desk)
    if by_itself > (most := desk.data.rate_limit.orders):
        told.append(f"{station.asset_id}: {by_itself} orders went by themselves, {most} may")
    return told


def _taken_in(
    world: World, station: Station, order: WorkOrder, orders: list[WorkOrder], desk: Desk
) -> list[str]:
    """A merged order's parts make the order worse that its case goes on in."""
    there = {one.reference: one for one in orders}
    into = order
    while into.merged_into:
        into = there[into.merged_into]
    merged_at = order.item.get("decided_at", "")
    if into is order or into.status not in OPEN or not station.sent or station.sent[-1]["time"] <= merged_at:
        return []
    rule = desk.data.rule("machine", CRITICALITY)
    state = desk.states.of_asset(station.asset_id)[0]
    latch = desk.episodes.get(station.asset_id, order.failure_mode).latch(state.station)
    now = decide(state.observations, order.failure_mode, rule, latch)
    word = desk.data.severity_word(now.risk)
    if now.band and now.risk > into.risk and desk.data.is_worse(word, into.priority):
        return [
            f"{order.reference}: its risk is {now.risk}, {into.reference} took it in and is of {into.priority}"
        ]
    return []


def _crossed(station: Station, desk: Desk) -> list[str]:
    """A band that is crossed has an open episode, whoever spoke last: the station, a person, the technician."""
    rule = desk.data.rule("machine", CRITICALITY)
    told = []
    for state in desk.states.of_asset(station.asset_id):
        episode = desk.episodes.get(station.asset_id, "hpc-degradation")
        now = decide(state.observations, episode.failure_mode, rule, episode.latch(state.station))
        if now.band and not episode.is_open:
            told.append(
                f"lost: {station.asset_id} crossed {now.band} after episode {episode.number}, none is open"
            )
    return told


def _ends(world: World, orders: list[WorkOrder], records: Records) -> list[str]:
    """One end for each order that was closed, with one outcome; and what the ERP says, where no person said otherwise."""
    told = []
    outcomes = world.dynamodb.scan(TableName=world.tables["OutcomesTable"])["Items"]
    for order in orders:
        name, item = f"{order.reference} ({order.status})", order.item
        ends = [entry for entry in records.of(order.reference) if entry.what == "closed"]
        mine = [outcome for outcome in outcomes if outcome["reference"] == order.reference]
        if not len(ends) == len(mine) == (order.status == "closed"):
            told.append(
                f"doubled or lost: {name} was closed {len(ends)} times, {len(mine)} outcomes are kept"
            )
        told += [
            f"{name}: its outcome says {one['finding']}, it says {item['finding']}"
            for one in mine
            if one["finding"] != item["finding"]
        ]
        erp = next((one for one in world.erp.orders if one["id"] == order.erp_id), None)
        if erp is None or erp["status"] == "OPEN":
            continue
        says = erp["finding"] if erp["status"] == "COMPLETED" else ""
        if order.status != "closed":
            told.append(f"lost: {name} is {erp['status']} in the ERP")
        elif says and item["finding"] != says and item["finding_source"] != "console":
            told.append(f"lost: the ERP says of {name} {says}, it says {item['finding']}")
    return told


def acts_of_poll(world: World) -> tuple[int, int]:
    """How many orders the poll ended, and how many findings it corrected."""
    records = world.dynamodb.scan(TableName=world.tables["RecordsTable"])["Items"]
    told = [(one["what"], json.loads(one["detail"]).get("source")) for one in records]
    return told.count(("closed", "erp_poll")), told.count(("corrected", "erp_poll"))


def acts_of_policy(world: World) -> tuple[int, int, int, int]:
    """How many escalations, holds, ends of holds and orders above the rate limit the schedule led to."""
    records = world.dynamodb.scan(TableName=world.tables["RecordsTable"])["Items"]
    opened = [json.loads(one["detail"]) for one in records if one["what"] == "opened"]
    return (
        sum(one["what"] == "escalated" for one in records),
        sum(bool(one["hold_until"]) for one in opened),
        sum(one["what"] == "released" and one["by"] == "policy" for one in records),
        sum(one["why"].startswith("rate limit") for one in opened),
    )


def _recorded_status(entries: list[Entry]) -> str:
    status = ""
    for entry in entries:
        if entry.what == "opened":
            status = json.loads(entry.detail)["status"]
        status = STATUS_OF.get(entry.what) or status
    return status


def _notes(name: str, order: WorkOrder, entries: list[Entry], in_erp: dict[str, Any]) -> list[str]:
    keys = Counter(note["key"] for note in in_erp["notes"])
    wanted = {f"merged/{json.loads(e.detail)['merged']}" for e in entries if e.what == "absorbed"}
    wanted |= {f"escalated/{n + 1}" for n in range(len(order.escalations))}
    # What people said here, of orders that were known to be there.
    placed = [e.number for e in entries if e.what in ("created", "answered")][:1] or [len(entries)]
    ends = [
        e for e in entries
        if e.what in ("closed", "corrected") and e.number > placed[0] and json.loads(e.detail)["source"] == "console"
    ]  # fmt: skip
    wanted |= {"closed" if e.what == "closed" else f"corrected/{e.number}" for e in ends}
    refused = {json.loads(e.detail)["key"] for e in entries if e.what == "note_refused"}
    told = [f"{name}: note {key} is {count} times in the ERP" for key, count in keys.items() if count > 1]
    told += [f"{name}: note {key} is not in the ERP" for key in wanted - keys.keys() - refused]
    if order.pending_notes:
        told.append(f"{name}: notes are pending at rest")
    return told


def _shadows(orders: list[WorkOrder]) -> list[str]:
    core = {order.asset_id: (order.reference, order.erp_id) for order in orders if order.status == "created"}
    # Of a merged order, too, until the one has ended that took it in.
    there = {order.reference: order for order in orders}
    held = {order.asset_id: order.reference for order in orders if _goes_on(order, there)}
    shown_core = {
        asset: (entry["reference"], entry["erp_id"])
        for asset, modes in shadow_of(DEVICE).items()
        for entry in modes.values()
    }
    shown_held = {
        asset: entry["reference"]
        for asset, modes in shadow_of(f"{DEVICE}-forwarder").items()
        for entry in modes.values()
    }
    told = (
        [] if shown_core == core else [f"the core device's shadow shows {shown_core}, the orders are {core}"]
    )
    return told + (
        [] if shown_held == held else [f"the forwarder's shadow shows {shown_held}, the orders are {held}"]
    )
