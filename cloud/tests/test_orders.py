# SPDX-License-Identifier: Apache-2.0
"""Each way in which an order may change, and what it leaves in its chain of records.

On the DynamoDB of the schedules, which tests/faults/test_memory_dynamodb.py holds against the stand-in's.
"""

import json
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from faults.memory_dynamodb import MemoryDynamoDb
from faults.schedule_aws import tables

from api import deciding, telling
from api.dossier import Dossier
from api.errors import ConflictError
from api.verifying import findings
from erp.port import ErpOrder, ErpRefusedError, ErpUnavailableError
from erp.text import Anchor
from linewatch.records import first_fault
from work_orders import order_items
from work_orders.episodes import Episode, Episodes
from work_orders.order_escalating import Rise
from work_orders.order_items import MOST_ESCALATIONS, MOST_MERGED, NEVER, WorkOrder, history_of, text_of
from work_orders.order_table import plain
from work_orders.order_tries import LOOK_AGAIN_S
from work_orders.orders import WorkOrders
from work_orders.placing import Patience
from work_orders.records import Records
from work_orders.telling import tell

NOW = 1_795_233_600.0
PATIENCE = Patience(tries=3, retry_base_s=300.0, lease_s=90.0, settle_s=30.0)


class Shop:
    """Tables, a clock that the test turns, and the orders upon them."""

    def __init__(self) -> None:
        self.now = NOW
        self.dynamodb = MemoryDynamoDb()
        for name, arguments in tables().items():
            self.dynamodb.create_table(TableName=name, **arguments)
        self.episodes = Episodes(self.dynamodb, "EpisodesTable")
        self.records = Records(self.dynamodb, "RecordsTable")
        self.orders = WorkOrders(
            self.dynamodb, "WorkOrdersTable", self.episodes, self.records, outcomes_table="OutcomesTable",
            order_days=10.0, clock=lambda: self.now, pause=lambda _: None,
        )  # fmt: skip

    def open(self, asset_id: str = "A", status: str = "awaiting_approval", **more: Any) -> WorkOrder:
        episode = self.episodes.get(asset_id, "wear")
        document = {"risk": "0.7", "priority": "medium", "failure_type": "Wear", "asset_name": asset_id}
        opened = self.orders.open(episode, status, "approval", document, **more)
        assert opened is not None
        return opened

    def created(self, asset_id: str = "A") -> WorkOrder:
        order = self.orders.lease(self.open(asset_id, "creating").reference, 90)
        assert order is not None
        made = self.orders.created(order, ErpOrder(f"WO-{asset_id}", "OPEN"))
        assert made is not None
        return made

    def closed_episodes(self, *asset_ids: str) -> list[Episode]:
        return [self.episodes.get(asset_id, "wear").closed({}) for asset_id in asset_ids]

    def whats(self, order: WorkOrder) -> list[str]:
        """What the chain tells of, when it verifies."""
        now, entries = self.now_of(order), self.records.of(order.reference)
        assert first_fault(entries, now.head) is None
        assert now.records == len(entries)
        return [entry.what for entry in entries]

    def now_of(self, order: WorkOrder) -> WorkOrder:
        now = self.orders.get(order.reference)
        assert now is not None
        return now


@pytest.fixture
def shop() -> Shop:
    return Shop()


def test_every_step_is_in_the_chain_with_who_took_it(shop: Shop) -> None:
    order = shop.open()
    assert shop.orders.confirm(order.reference, "mei", "heard it") is not None
    leased = shop.orders.lease(order.reference, 90)
    assert leased is not None
    shop.orders.created(leased, ErpOrder("WO-1", "OPEN"))
    shop.orders.close(order, shop.closed_episodes("A"), "omar", "confirmed", "worn seal")
    assert not shop.orders.correct(order, "omar", "no_fault", ""), "what was not seen can't be corrected"
    shop.orders.correct(
        shop.now_of(order), "omar", "other_fault", "it was the bearing", found_failure="bearing"
    )

    assert shop.whats(order) == ["opened", "approved", "created", "closed", "corrected"]
    shown = history_of(shop.records.of(order.reference))
    assert [(one["by"], one["detail"]) for one in shown[1:]] == [
        ("mei", "heard it"), ("erp", "WO-1"), ("omar", "confirmed: worn seal"), ("omar", "other_fault: it was the bearing"),
    ]  # fmt: skip
    now = shop.now_of(order)
    assert (now.item["finding"], now.item["found_failure"], now.item["closed_by"]) == (
        "other_fault",
        "bearing",
        "omar",
    )


def test_an_order_that_is_closed_while_the_erp_is_told_of_it_is_still_looked_at_after_its_end(
    shop: Shop,
) -> None:
    order = shop.created()
    talking = shop.orders.lease_notes(order.reference, 90)
    assert talking is not None
    assert shop.orders.close(order, shop.closed_episodes("A"), "omar", "confirmed", "")

    shop.orders.rest_notes(talking, due_s=None)

    assert shop.orders.due("closed", 10) == [order.reference]
    ended = shop.orders.lease_notes(order.reference, 90)
    assert ended is not None
    shop.orders.rest_notes(ended, due_s=None)
    assert shop.orders.due("closed", 10) == []


def meanwhile(shop: Shop, monkeypatch: pytest.MonkeyPatch, what: Callable[[], object]) -> None:
    """Has something happen once between the reading and the writing of the next change."""
    real, waiting = shop.dynamodb.transact_write_items, [what]

    def transact(**request: Any) -> Any:
        if waiting:
            waiting.pop()()
        return real(**request)

    monkeypatch.setattr(shop.dynamodb, "transact_write_items", transact)


def test_a_decision_that_lost_only_to_a_note_is_made_all_the_same(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = shop.open()
    meanwhile(shop, monkeypatch, lambda: shop.orders.add_note(order, "n", "also noisy", "mei"))

    assert shop.orders.confirm(order.reference, "omar", "") is not None

    assert shop.whats(order) == ["opened", "note", "approved"]


def test_of_two_decisions_the_second_does_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    order = shop.open()
    meanwhile(shop, monkeypatch, lambda: shop.orders.confirm(order.reference, "mei", ""))

    assert not shop.orders.reject(order, shop.closed_episodes("A"), "omar", "a sensor")

    assert shop.whats(order) == ["opened", "approved"]
    assert shop.episodes.get("A", "wear").is_open


def test_a_held_order_can_be_placed_after_its_time_or_when_it_is_released(shop: Shop) -> None:
    held, released = (shop.open(a, "creating", hold_until=NOW + 600, why="quiet hours") for a in "AB")
    assert shop.orders.lease(held.reference, 90) is None
    assert shop.orders.due("creating", 10) == []

    assert shop.orders.release(released, "mei", "it can't wait") is not None

    assert shop.orders.due("creating", 10) == [released.reference]
    assert shop.orders.lease(released.reference, 90) is not None
    assert shop.orders.release(released, "omar", "") is None, "it is being placed"
    shop.now += 601
    assert held.reference in shop.orders.due("creating", 10)
    assert shop.orders.lease(held.reference, 90) is not None


def test_a_merged_order_ends_with_the_other_and_the_erp_is_told_once(shop: Shop) -> None:
    into, order = shop.created("A"), shop.open("B")

    assert shop.orders.merge(order, into, "mei", "one cause")
    assert not shop.orders.merge(order, into, "omar", "again")

    assert shop.whats(order) == ["opened", "merged"]
    assert shop.whats(into) == ["opened", "created", "absorbed"]
    assert shop.now_of(order).merged_into == into.reference
    assert shop.episodes.get("B", "wear").is_open
    assert [note["key"] for note in shop.now_of(into).pending_notes] == [f"merged/{order.reference}"]
    assert not shop.orders.close(into, shop.closed_episodes("A"), "mei", "confirmed", ""), (
        "B's would stay open"
    )
    assert shop.orders.close(into, shop.closed_episodes("A", "B"), "mei", "confirmed", "")
    assert not shop.episodes.get("B", "wear").is_open


def test_an_order_that_ended_or_is_full_takes_no_other(shop: Shop) -> None:
    ended, full = shop.created("A"), shop.created("B")
    assert shop.orders.close(ended, shop.closed_episodes("A"), "mei", "confirmed", "")
    for number in range(MOST_MERGED):
        assert shop.orders.merge(shop.open(f"C{number}"), full, "mei", "")
    last = shop.open("D")

    assert not shop.orders.merge(last, ended, "mei", "")
    assert not shop.orders.merge(last, full, "mei", "")
    assert not shop.orders.merge(last, last, "mei", "")
    assert shop.whats(last) == ["opened"]


def escalated(shop: Shop, order: WorkOrder, risk: float, priority: str) -> WorkOrder | None:
    rise = Rise(band="automatic", priority=priority, risk=risk, why="it got worse", at_event="e")
    return shop.orders.escalate(order, rise)


def test_severity_only_rises_and_the_erp_hears_of_each_step(shop: Shop) -> None:
    order = shop.created()

    assert escalated(shop, order, 0.85, "high") is not None
    assert escalated(shop, order, 0.84, "urgent") is None
    assert escalated(shop, order, 0.86, "high") is None, "nothing that anybody would act upon"
    risen = escalated(shop, order, 0.95, "urgent")

    assert risen is not None
    assert (risen.band, risen.priority, risen.risk) == ("automatic", "urgent", 0.95)
    assert [note["key"] for note in risen.pending_notes] == ["escalated/1", "escalated/2"]
    for number in range(MOST_ESCALATIONS):
        escalated(shop, order, 0.951 + number / 1e4, f"p{number}")
    assert len(shop.now_of(order).escalations) == MOST_ESCALATIONS


def test_an_order_of_release_0_2_is_taken_over_with_its_history(shop: Shop) -> None:
    order = shop.open()
    old = {
        **{k: v for k, v in order.item.items() if k not in ("head", "records", "hold_until")},
        "history": [
            {"at": "2026-11-01T00:00:00Z", "what": "opened", "by": "policy", "detail": "band approval"}
        ],
    }
    shop.dynamodb.put_item(TableName="WorkOrdersTable", Item=old)
    shop.dynamodb._tables["RecordsTable"].items.clear()

    assert shop.orders.confirm(order.reference, "mei", "heard it") is not None

    assert shop.whats(order) == ["before_records", "approved"]
    assert [one["what"] for one in history_of(shop.records.of(order.reference))] == ["opened", "approved"]


def test_a_chain_is_bounded_says_so_and_still_records_the_end(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("work_orders.order_items.MOST_RECORDS", 5)
    order = shop.created()
    for number in range(8):
        shop.orders.add_note(order, f"n{number}", "text", "mei")
    shop.orders.close(order, shop.closed_episodes("A"), "mei", "confirmed", "")

    assert shop.whats(order) == ["opened", "created", "note", "note", "note", "full", "closed"]
    assert int(shop.now_of(order).item["unrecorded"]) == 5
    assert not shop.orders.correct(shop.now_of(order), "mei", "no_fault", "")
    assert is_as_written(shop, order)


def is_as_written(shop: Shop, order: WorkOrder) -> bool:
    now = shop.now_of(order)
    return findings(Dossier(plain(now.item), {now.reference: shop.records.of(now.reference)})) == []


@pytest.mark.parametrize("notes", range(6))
def test_a_full_chain_tells_of_every_escalation_and_says_once_that_it_is_full(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, notes: int
) -> None:
    """`verify` called an honest order forged: it had escalated, and its chain had no room to say so."""
    monkeypatch.setattr("work_orders.order_items.MOST_RECORDS", 4)
    order = shop.created()
    for number in range(notes):
        shop.orders.add_note(order, f"n{number}", "text", "mei")

    assert escalated(shop, order, 0.85, "high") is not None
    assert escalated(shop, order, 0.95, "urgent") is not None
    shop.orders.add_note(order, "late", "text", "mei")

    assert is_as_written(shop, order)
    whats = shop.whats(order)
    assert (whats.count("escalated"), whats.count("full")) == (2, 1)
    assert shop.now_of(order).priority == "urgent"


@pytest.mark.parametrize("corrections", [1, 3])
def test_a_full_chain_takes_no_correction_rather_than_one_without_its_record(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, corrections: int
) -> None:
    order = shop.created()
    shop.orders.close(order, shop.closed_episodes("A"), "mei", "no_fault", "")
    monkeypatch.setattr("work_orders.order_items.MOST_RECORDS", 3 + corrections - 1)

    taken = [
        shop.orders.correct(shop.now_of(order), "mei", finding, "")
        for finding in ("confirmed", "no_fault", "other_fault", "confirmed")
    ]

    assert taken == [number < corrections - 1 for number in range(4)]
    assert is_as_written(shop, order)
    with pytest.raises(ConflictError, match="can't be corrected any more: its"):
        raise deciding._conflict(order, "closed", SimpleNamespace(orders=shop.orders))  # type: ignore[arg-type]


def test_an_id_that_the_erp_tells_late_is_recorded_by_a_full_chain_too(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = shop.orders.lease(shop.open("A", "creating").reference, 90)
    assert order is not None
    assert shop.orders.failed(order, "no answer", "parked", 0) is not None
    shop.now += 200
    assert shop.orders.close(order, shop.closed_episodes("A"), "mei", "no_fault", "")
    monkeypatch.setattr("work_orders.order_items.MOST_RECORDS", 3)

    for number in range(3):
        shop.orders.created(order, ErpOrder(f"WO-{number}", "OPEN"))

    assert shop.now_of(order).erp_id == "WO-0"
    assert shop.whats(order) == ["opened", "parked", "closed", "answered", "full"]


def test_what_belongs_to_an_arrow_is_not_marked(shop: Shop) -> None:
    order = shop.open()

    shop.orders.mark(order.reference, announced_at="2026-11-21T00:00:00Z", reminders=1)
    with pytest.raises(ValueError, match="not to be marked: status"):
        shop.orders.mark(order.reference, status="created")

    assert shop.now_of(order).item["announced_at"] == "2026-11-21T00:00:00Z"


class Notes:
    """An ERP that keeps notes, and answers as it is told."""

    def __init__(self, refuses: bool = False, orders: tuple[str, ...] = ("WO-A",)) -> None:
        self.notes: list[tuple[str, str]] = []
        self.refuses = refuses
        self.orders = orders

    def add_note(self, erp_id: str, key: str, text: str) -> None:
        if self.refuses:
            raise ErpRefusedError("the order is archived")
        self.notes.append((erp_id, key))

    def find_all(self, reference: str) -> list[ErpOrder]:
        return [ErpOrder(one, "OPEN") for one in self.orders]


def test_a_note_is_told_once_and_one_that_the_erp_does_not_want_is_given_up(shop: Shop) -> None:
    order, erp = shop.created(), Notes()
    assert shop.orders.add_note(order, "k", "text", "mei")
    assert not shop.orders.add_note(order, "k", "text", "mei")
    tell(order.reference, shop.orders, erp, PATIENCE)  # type: ignore[arg-type]
    assert not shop.orders.add_note(order, "k", "text", "omar")
    tell(order.reference, shop.orders, erp, PATIENCE)  # type: ignore[arg-type]
    assert erp.notes == [("WO-A", "k")]

    assert shop.orders.add_note(order, "l", "text", "mei")
    tell(order.reference, shop.orders, Notes(refuses=True), PATIENCE)  # type: ignore[arg-type]

    assert shop.whats(order) == ["opened", "created", "note", "note_told", "note", "note_refused"]
    said = [one["detail"] for one in history_of(shop.records.of(order.reference))]
    assert said[2:] == ["text", "k", "text", "the order is archived"], (
        "each line of the history says which note"
    )
    assert shop.now_of(order).pending_notes == ()


def test_an_hour_after_its_creation_a_double_is_named_and_told(shop: Shop) -> None:
    order, erp = shop.created(), Notes(orders=("WO-A", "WO-late"))
    assert shop.orders.due("created", 10) == []
    shop.now += LOOK_AGAIN_S + 1
    assert shop.orders.due("created", 10) == [order.reference]

    tell(order.reference, shop.orders, erp, PATIENCE)  # type: ignore[arg-type]

    assert shop.whats(order) == ["opened", "created", "doubled", "note_told"]
    assert json.loads(shop.records.of(order.reference)[2].detail)["doubles"] == ["WO-late"]
    assert erp.notes == [("WO-late", "duplicate/WO-late")]
    assert shop.now_of(order).due_at == NEVER


class Bearing(Notes):
    """And whose orders say what they bear: id -> reference; of others it has none."""

    def __init__(self, orders: tuple[str, ...], bears: Mapping[str, str]) -> None:
        super().__init__(orders=orders)
        self.bears = bears

    def anchor(self, erp_id: str) -> Anchor:
        if erp_id not in self.bears:
            raise ErpRefusedError(f"no order {erp_id}")
        return Anchor(self.bears[erp_id], "")


@pytest.mark.parametrize(
    "bears", [{"WO-A": "lw-ffffffffffffffff"}, {"WO-A": ""}, {}], ids=["foreign", "lost", "none"]
)
@pytest.mark.parametrize("doubles", [(), ("WO-late",)])
def test_the_order_that_bears_the_reference_is_taken_over_and_no_double_of_a_strangers(
    shop: Shop, doubles: tuple[str, ...], bears: Mapping[str, str]
) -> None:
    """The ERP was asked to cancel the right order: it was called a duplicate of the foreign one that was recorded."""
    order, erp = shop.created(), Bearing(("WO-ours", *doubles), bears)
    shop.orders.add_note(order, "escalated/1", "the risk rose", "policy")
    shop.now += LOOK_AGAIN_S + 1

    tell(order.reference, shop.orders, erp, PATIENCE)  # type: ignore[arg-type]

    now = shop.now_of(order)
    assert (now.erp_id, now.shadow) == ("WO-ours", "pending")
    assert list(now.item.get("doubles", ())) == list(doubles)
    assert erp.notes == [("WO-ours", "escalated/1"), *((one, f"duplicate/{one}") for one in doubles)]
    taken = next(entry for entry in shop.records.of(order.reference) if entry.what == "taken_over")
    detail = json.loads(taken.detail)
    assert (detail["erp_id"], detail["was"]) == ("WO-ours", "WO-A")
    assert "WO-ours, not WO-A" in telling.told("taken_over", "erp", detail)
    assert not shop.orders.is_to_be_looked_at(now)
    assert is_as_written(shop, order)


def test_an_order_that_a_search_does_not_show_and_says_itself_that_it_is_ours_stays_ours(shop: Shop) -> None:
    """One that has ended already, or whose title a technician changed."""
    order = shop.created()
    erp = Bearing(("WO-late",), {"WO-A": order.reference, "WO-late": order.reference})
    shop.now += LOOK_AGAIN_S + 1

    tell(order.reference, shop.orders, erp, PATIENCE)  # type: ignore[arg-type]

    assert shop.now_of(order).erp_id == "WO-A"
    assert erp.notes == [("WO-late", "duplicate/WO-late")]


def test_who_can_not_be_asked_whose_order_it_is_looks_again(shop: Shop) -> None:
    class Away(Bearing):
        def anchor(self, erp_id: str) -> Anchor:
            raise ErpUnavailableError("GET answered 503")

    order, erp = shop.created(), Away(("WO-ours",), {})
    shop.now += LOOK_AGAIN_S + 1

    with pytest.raises(ErpUnavailableError):
        tell(order.reference, shop.orders, erp, PATIENCE)  # type: ignore[arg-type]

    now = shop.now_of(order)
    assert (now.erp_id, erp.notes) == ("WO-A", [])
    assert shop.orders.is_to_be_looked_at(now)
    shop.now += 4000
    assert shop.orders.due("created", 10) == [order.reference]


def test_a_refused_order_is_nobodys_but_a_persons(shop: Shop) -> None:
    order = shop.orders.lease(shop.open("A", "creating").reference, 90)
    assert order is not None
    shop.orders.failed(order, "POST answered 422: plant code", "parked", 0, is_refused=True)
    shop.now += 1e6
    assert shop.orders.due("parked", 10) == []

    replayed = shop.orders.replay(order.reference, "mei", "the code is known now")

    assert replayed is not None
    assert not replayed.is_refused
    assert shop.orders.due("parked", 10) == [order.reference]
    assert shop.whats(order) == ["opened", "parked", "replayed"]


def test_who_lost_the_lease_writes_no_failed_try(shop: Shop) -> None:
    first = shop.orders.lease(shop.open("A", "creating").reference, 90)
    assert first is not None
    shop.now += 200
    assert shop.orders.lease(first.reference, 90) is not None

    assert shop.orders.failed(first, "POST answered 500", "creating", 30, due_s=60) is None

    assert (shop.now_of(first).attempts, shop.now_of(first).lease_until) == (0, NOW + 290)


def test_an_ended_orders_records_go_on_the_day_on_which_it_goes(shop: Shop) -> None:
    order = shop.created()
    outcome: Mapping[str, Any] = {"month": "2026-11", "id": "x", "closed_at": text_of(NOW + 5)}
    assert shop.orders.close(order, shop.closed_episodes("A"), "mei", "confirmed", "", outcome=outcome)
    ended = shop.now_of(order)

    shop.orders.give_records_their_end(ended)

    due = NOW + 10 * 86_400
    entries = shop.dynamodb.scan("RecordsTable")["Items"]
    assert {int(item["expires_at"]) for item in entries} == {due} == {int(ended.item["expires_at"])}
    assert ended.item["closed_at"] == outcome["closed_at"]
    assert shop.dynamodb.scan("OutcomesTable")["Items"] == [{**outcome, "expires_at": due}]
    assert shop.whats(order)[-1] == "closed", "what is deleted when is not part of what is hashed"


def test_pages_of_orders_go_on_where_the_last_one_ended(shop: Shop) -> None:
    made = []
    for number in range(5):
        shop.now += 1
        made.append(shop.open(f"A{number}"))
    first = shop.orders.references(None, 3)
    last = shop.now_of(made[2])

    assert first == [order.reference for order in reversed(made[2:])]
    after = (last.item["created_at"], last.reference)
    assert shop.orders.references(None, 3, after) == [made[1].reference, made[0].reference]
    assert [order.reference for order in shop.orders.get_many([*first, "lw-none"])] == first


def test_a_long_note_is_cut(shop: Shop) -> None:
    order = shop.created()

    assert shop.orders.add_note(order, "k", "x" * 5_000, "mei")

    assert len(shop.now_of(order).pending_notes[0]["text"]) == order_items.NOTE_CHARACTERS
