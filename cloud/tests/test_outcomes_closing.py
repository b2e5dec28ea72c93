# SPDX-License-Identifier: Apache-2.0
"""What a technician finds reaches the order once, whoever tells it first. Real tables, real ERP simulator."""

import json
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from cloud_line import PATIENT, Eventually, Line

from erp.port import ErpAwayError, ErpOrder, ErpRefusedError, ErpStatus, ErpUnavailableError
from linewatch_plant.erp_simulator import ErpClient
from linewatch_plant.standin_cloud import StandinCloud
from outcomes import polling
from outcomes.closing import close
from outcomes.outcome import Outcome, from_item
from watch.handler import JOBS
from work_orders.observing import Desk, observe
from work_orders.order_items import WorkOrder
from work_orders.sweep import sweep
from work_orders.wiring import desk_of

DAY_S = 86_400.0


@pytest.fixture(scope="session")
def desk(environment: dict[str, str]) -> Desk:
    """A Lambda's desk in this process, without a pilot."""
    return replace(desk_of({**environment, **PATIENT, "LEASE_S": "1"}), pilot=False)


@pytest.fixture(autouse=True)
def _polled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTCOME_POLL_S", "0")


def see(line: Line, desk: Desk, *events: dict[str, Any]) -> None:
    """Has the flow observe these events, without queues and Lambdas in between."""
    key = {"station_key": f"plant-1/{line.line}/station-1"}
    asset = desk.dynamodb.get_item(TableName=line.cloud.outputs["AssetsTable"], Key=key)["Item"]
    for event in events:
        item = {"event_id": event["id"], "event": json.dumps(event)}
        desk.dynamodb.put_item(TableName=line.cloud.outputs["EventsTable"], Item=item)
        observe({"event": event, "asset": asset}, desk)


def orders_of(line: Line, desk: Desk) -> list[WorkOrder]:
    """The asset's orders, oldest first."""
    found = desk.orders.get_many(desk.orders.references(None, 1000))
    return [order for order in reversed(found) if order.asset_id == line.asset_id]


@pytest.fixture
def created(machine: Line, desk: Desk) -> WorkOrder:
    """An order that the ERP has."""
    see(machine, desk, *(machine.severity(0.95) for _ in range(5)))
    (order,) = orders_of(machine, desk)
    assert order.status == "created"
    return order


def swept(desk: Desk) -> None:
    """One run looks at so many orders of a kind, and other files of this account leave theirs behind: some runs."""
    for _ in range(5):
        sweep(desk)


def again(order: WorkOrder, desk: Desk) -> WorkOrder:
    now = desk.orders.get(order.reference)
    assert now is not None
    return now


def outcomes_of(order: WorkOrder, desk: Desk, cloud: StandinCloud) -> list[Outcome]:
    pages = desk.dynamodb.get_paginator("scan").paginate(TableName=cloud.outputs["OutcomesTable"])
    items = [item for page in pages for item in page["Items"] if item["reference"] == order.reference]
    assert all(int(item["expires_at"]) > time.time() + 3000 * DAY_S for item in items)
    return [from_item(item) for item in items]


def entries(order: WorkOrder, desk: Desk) -> list[str]:
    return [entry.what for entry in desk.records.of(order.reference)]


class Told:
    """An ERP that answers `status` as it is told to and counts who was asked for."""

    def __init__(self, answer: Callable[[], ErpStatus]) -> None:
        self.answer = answer
        self.asked: list[str] = []

    def status(self, erp_id: str) -> ErpStatus:
        self.asked.append(erp_id)
        return self.answer()

    def find_by_reference(self, reference: str) -> ErpOrder | None:
        raise AssertionError(reference)

    find_all = create = add_note = find_by_reference


def raising(error: Exception) -> Told:
    def answer() -> ErpStatus:
        raise error

    return Told(answer)


def test_a_finding_in_the_erp_closes_the_order_and_is_its_outcome(
    created: WorkOrder, desk: Desk, erp: ErpClient, cloud: StandinCloud, eventually: Eventually
) -> None:
    erp.technician(
        created.erp_id,
        state="completed",
        finding="confirmed",
        found_failure="HPC",
        note="washed",
        by="A. Yilmaz",
    )

    eventually(lambda: polling.job(desk) and again(created, desk).status == "closed", "the end")

    order = again(created, desk)
    assert [order.item[name] for name in ("finding", "found_failure", "note", "closed_by", "finding_source")] == [
        "confirmed", "HPC", "washed", "A. Yilmaz", "erp_poll",
    ]  # fmt: skip
    (outcome,) = outcomes_of(created, desk, cloud)
    assert (outcome.finding, outcome.source, outcome.closed_at) == (
        "confirmed",
        "erp_poll",
        order.item["closed_at"],
    )
    assert (outcome.model, outcome.criticality, outcome.band) == ("turbofan 1.0.0", "A", "automatic")
    assert outcome.risk == outcome.highest_risk == 0.95
    assert not desk.episodes.get(order.asset_id, order.failure_mode).is_open


def test_polling_again_changes_nothing(
    created: WorkOrder, desk: Desk, erp: ErpClient, cloud: StandinCloud
) -> None:
    erp.technician(created.erp_id, state="completed", finding="no_fault", by="A. Yilmaz")
    assert polling.poll_one(created.reference, desk) == "ended"
    before = again(created, desk).head

    assert [polling.poll_one(created.reference, desk) for _ in range(3)] == ["same"] * 3

    assert again(created, desk).head == before
    assert len(outcomes_of(created, desk, cloud)) == 1


def test_what_was_found_on_another_order_with_our_id_ends_nothing(
    created: WorkOrder, desk: Desk, erp: ErpClient, cloud: StandinCloud
) -> None:
    """An ERP that was restored from a backup gives an id twice; a proxy answers with another's order."""
    told = Told(
        lambda: ErpStatus(
            "completed", "COMPLETED", "no_fault", by="somebody", reference="lw-ffffffffffffffff"
        )
    )
    with pytest.raises(ErpRefusedError, match="is the order of lw-ffffffffffffffff"):
        polling.poll_one(created.reference, replace(desk, erp=told))
    other = {
        **dict.fromkeys(("title", "asset_id"), "other"),
        "external_reference": f"lw-{uuid.uuid4().hex[:16]}",
    }
    theirs = desk.erp.create(other)
    erp.technician(theirs.id, state="completed", finding="no_fault", by="somebody")
    erp.set_faults(read_another=1)
    with pytest.raises(ErpUnavailableError, match=f"{created.erp_id} and was answered with {theirs.id}"):
        polling.poll_one(created.reference, desk)
    assert polling.poll_one(created.reference, desk) == "open"

    assert again(created, desk).status == "created"
    assert outcomes_of(created, desk, cloud) == []


def test_an_order_that_is_worked_on_stays_open(created: WorkOrder, desk: Desk, erp: ErpClient) -> None:
    erp.technician(created.erp_id, state="in_progress", by="A. Yilmaz")

    assert polling.poll_one(created.reference, desk) == "open"

    assert again(created, desk).status == "created"


def test_what_the_erp_cancels_ends_without_a_finding_and_counts_for_nothing(
    created: WorkOrder, desk: Desk, erp: ErpClient, cloud: StandinCloud
) -> None:
    erp.technician(
        created.erp_id, state="cancelled", finding="confirmed", note="line is sold", by="A. Yilmaz"
    )

    assert polling.poll_one(created.reference, desk) == "ended"

    order = again(created, desk)
    assert order.item["finding"] == "unstated"
    assert order.item["note"] == "cancelled in the ERP (CANCELLED): line is sold"
    assert [one.finding for one in outcomes_of(created, desk, cloud)] == ["unstated"]


def test_a_finding_on_a_cancelled_order_is_not_believed_whatever_the_adapter_says(
    created: WorkOrder, desk: Desk
) -> None:
    told = Told(lambda: ErpStatus("cancelled", "CANC", "confirmed", found_failure="HPC"))

    assert polling.poll_one(created.reference, replace(desk, erp=told)) == "ended"

    assert [again(created, desk).item[name] for name in ("finding", "found_failure")] == ["unstated", ""]


def test_an_order_completed_while_the_alarm_still_crosses_is_raised_again_by_later_parts_only(
    created: WorkOrder, machine: Line, desk: Desk, erp: ErpClient
) -> None:
    see(machine, desk, *(machine.severity(0.95) for _ in range(3)))
    erp.technician(created.erp_id, state="completed", finding="other_fault", by="A. Yilmaz")
    assert polling.poll_one(created.reference, desk) == "ended"

    see(machine, desk, *machine.events)
    see(machine, desk, *(machine.severity(0.95) for _ in range(3)))
    assert len(orders_of(machine, desk)) == 1
    see(machine, desk, machine.severity(0.95))

    first, second = orders_of(machine, desk)
    assert (first.status, second.status) == ("closed", "created")
    assert (first.episode, second.episode) == (1, 2)


@pytest.mark.parametrize("round_", range(6))
def test_console_and_poll_at_once_end_it_once(
    round_: int, created: WorkOrder, desk: Desk, erp: ErpClient, cloud: StandinCloud
) -> None:
    erp.technician(created.erp_id, state="completed", finding="no_fault", by="the ERP")

    with ThreadPoolExecutor(3) as pool:
        console = pool.submit(close, created, desk, by="M. Keller", finding="confirmed", note="cracked")
        polls = [pool.submit(polling.poll_one, created.reference, desk) for _ in range(2)]
    answers = [poll.result() for poll in polls]

    order = again(created, desk)
    winner = order.item["finding_source"]
    assert console.result() == (winner == "console")
    assert answers.count("ended") == (winner == "erp_poll")
    assert entries(created, desk).count("closed") == 1
    (outcome,) = outcomes_of(created, desk, cloud)
    assert (outcome.finding, outcome.source) == (order.item["finding"], winner)
    # The other finding comes in by a person only.
    assert polling.poll_one(created.reference, desk) == "same"
    assert close(order, desk, by="M. Keller", finding="other_fault")
    assert polling.poll_one(created.reference, desk) == "same"
    assert again(created, desk).item["finding"] == "other_fault"
    assert [one.finding for one in outcomes_of(created, desk, cloud)] == ["other_fault"]


def test_a_finding_that_changes_in_the_erp_corrects_what_the_erp_said(
    created: WorkOrder, desk: Desk, erp: ErpClient, cloud: StandinCloud
) -> None:
    erp.technician(created.erp_id, state="completed", by="A. Yilmaz")
    assert polling.poll_one(created.reference, desk) == "ended"
    assert again(created, desk).item["finding"] == "unstated"
    (before,) = outcomes_of(created, desk, cloud)
    erp.technician(
        created.erp_id, state="completed", finding="confirmed", found_failure="HPC", by="A. Yilmaz"
    )

    assert polling.poll_one(created.reference, desk) == "corrected"

    (after,) = outcomes_of(created, desk, cloud)
    assert (after.id, after.finding, after.found_failure) == (before.id, "confirmed", "HPC")
    assert after.corrected_at > after.closed_at
    assert entries(created, desk)[-1] == "corrected"
    # Silence takes nothing back.
    erp.technician(created.erp_id, state="completed", finding="", by="A. Yilmaz")
    assert polling.poll_one(created.reference, desk) == "same"


def test_a_poll_that_is_behind_does_not_write_over_what_a_person_said_meanwhile(
    created: WorkOrder, desk: Desk, cloud: StandinCloud
) -> None:
    assert close(created, desk, by="erp", finding="unstated", source="erp_poll")
    read_by_the_poll = again(created, desk)
    assert close(read_by_the_poll, desk, by="M. Keller", finding="no_fault")

    assert not close(read_by_the_poll, desk, by="erp", finding="confirmed", source="erp_poll")

    assert again(created, desk).item["finding"] == "no_fault"
    assert [one.finding for one in outcomes_of(created, desk, cloud)] == ["no_fault"]


def test_a_merged_order_ends_with_the_one_it_was_merged_into(
    created: WorkOrder, desk: Desk, cloud: StandinCloud, request: pytest.FixtureRequest
) -> None:
    other = Line.register(cloud, request.node.name + " other", "machine")
    see(other, desk, *(other.severity(0.65) for _ in range(5)))
    (waiting,) = orders_of(other, desk)
    assert desk.orders.merge(waiting, created, "M. Keller", "one crew")

    assert close(again(created, desk), desk, by="A. Yilmaz", finding="confirmed")

    assert not desk.episodes.get(waiting.asset_id, waiting.failure_mode).is_open
    assert not desk.episodes.get(created.asset_id, created.failure_mode).is_open
    assert len(outcomes_of(created, desk, cloud)) == 1
    assert outcomes_of(waiting, desk, cloud) == []


def test_what_people_say_here_the_erps_order_is_told_once_each_and_what_it_says_itself_is_not(
    machine: Line, created: WorkOrder, desk: Desk, erp: ErpClient
) -> None:
    """Closed in the console, its order stayed open without a word, and the next alarm opened another beside it."""

    def notes(reference: str) -> list[str]:
        swept(desk)
        [found] = [one for one in erp.orders() if one["external_reference"] == reference]
        return [json.dumps(note, ensure_ascii=False) for note in found["notes"]]

    assert close(created, desk, by="M. Keller", finding="confirmed", note="washed", found_failure="HPC")
    [ended] = notes(created.reference)
    for part in ("Closed in Linewatch by M. Keller", "confirmed (HPC)", "end it here", "washed"):
        assert part in ended

    assert close(
        again(created, desk), desk, by="M. Keller", finding="confirmed", note="washed", found_failure="HPC"
    )
    assert notes(created.reference) == [ended], "the same again is no news"

    for finding in ("no_fault", "other_fault"):
        assert close(again(created, desk), desk, by="A. Roy", finding=finding, note="it was the sensor")  # type: ignore[arg-type]
    first, *corrected = notes(created.reference)
    assert first == ended
    assert [("Corrected in Linewatch by A. Roy" in one, "end it here" in one) for one in corrected] == [
        (True, False)
    ] * 2
    assert ["no_fault" in one for one in corrected] == [True, False]
    assert again(created, desk).pending_notes == ()

    see(machine, desk, *(machine.severity(0.95) for _ in range(5)))
    following = next(one for one in orders_of(machine, desk) if one.reference != created.reference)
    erp.technician(following.erp_id, state="completed", finding="confirmed", by="A. Yilmaz")
    polling.poll_one(following.reference, desk)
    assert again(following, desk).status == "closed"
    assert notes(following.reference) == []


def test_an_erp_that_is_away_ends_the_run_and_no_order(created: WorkOrder, desk: Desk) -> None:
    away = raising(ErpAwayError("no token"))

    assert polling.job(replace(desk, erp=away))["unanswered"] == 1

    assert len(away.asked) == 1
    assert again(created, desk).status == "created"


def test_some_calls_without_an_answer_end_the_run_and_one_order_is_not_asked_for_ever(
    created: WorkOrder, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        polling, "_some", lambda _, status: [again(created, desk)] if status == "created" else []
    )
    silent = raising(ErpUnavailableError("500"))
    assert polling.job(replace(desk, erp=silent))["unanswered"] == 1
    monkeypatch.setattr(
        polling, "_some", lambda _, status: [again(created, desk)] * 9 if status == "created" else []
    )

    assert polling.job(replace(desk, erp=silent))["unanswered"] == polling.MOST_UNANSWERED


def test_an_order_that_the_erp_does_not_know_holds_up_no_other(
    created: WorkOrder, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "_some", lambda _, status: [created, created] if status == "created" else [])

    counted = polling.job(replace(desk, erp=raising(ErpRefusedError("404"))))

    assert (counted["asked"], counted["refused"]) == (2, 2)


def test_an_order_is_asked_for_at_most_so_often_and_the_longest_waiting_first(
    created: WorkOrder, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = desk.clock()
    told = Told(lambda: ErpStatus("open", "OPEN"))

    def polled(reference: str, seconds_ago: float | None) -> WorkOrder:
        at = {} if seconds_ago is None else {"polled_at": polling.text_of(now - seconds_ago)}
        return replace(created, reference=reference, item={**created.item, "erp_id": reference, **at})

    orders = [polled("a", 100), polled("b", 2000), polled("c", None), polled("d", 1000), polled("e", 800)]
    monkeypatch.setattr(polling, "_some", lambda _, status: orders if status == "created" else [])
    monkeypatch.setattr(type(desk.orders), "mark", lambda *_, **__: None)
    monkeypatch.setenv("OUTCOME_POLL_S", "900")

    assert polling.job(replace(desk, erp=told))["asked"] == 3

    assert told.asked == ["c", "b", "d"]


def test_one_run_asks_for_a_bounded_number(
    created: WorkOrder, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "_some", lambda *_: [created] * 200)
    # A busy machine may take longer than a run's seconds to write so many marks.
    monkeypatch.setattr(polling, "MOST_S", 600.0)
    told = Told(lambda: ErpStatus("open", "OPEN"))

    assert polling.job(replace(desk, erp=told))["asked"] == polling.MOST_ASKED


def test_a_closed_order_is_asked_for_once_a_day_for_thirty_days(
    created: WorkOrder, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert close(created, desk, by="M. Keller", finding="confirmed")
    monkeypatch.setattr(
        polling, "_some", lambda _, status: [again(created, desk)] if status == "closed" else []
    )
    told = Told(lambda: ErpStatus("completed", "DONE", "no_fault"))
    start = desk.clock()

    def asked(after_s: float) -> int:
        return polling.job(replace(desk, erp=told, clock=lambda: start + after_s))["asked"]

    assert [asked(0), asked(3600), asked(DAY_S + 1), asked(29 * DAY_S), asked(31 * DAY_S)] == [1, 0, 1, 1, 0]
    assert again(created, desk).item["finding"] == "confirmed"


def test_a_hint_about_an_order_that_is_not_there_or_not_placed_does_nothing(
    machine: Line, desk: Desk
) -> None:
    see(machine, desk, *(machine.severity(0.65) for _ in range(5)))
    (waiting,) = orders_of(machine, desk)

    assert polling.poll_one("lw-none", desk) == "unknown"
    assert polling.poll_one(waiting.reference, desk) == "not_placed"


def test_the_deployed_watch_polls_with_its_own_role(
    created: WorkOrder, desk: Desk, erp: ErpClient, cloud: StandinCloud, eventually: Eventually
) -> None:
    assert JOBS["outcomes"] is polling.job
    erp.technician(created.erp_id, state="completed", finding="confirmed", by="A. Yilmaz")
    name = cloud.outputs["WatchFunctionName"]

    def runs() -> bool:
        answer = cloud.client("lambda").invoke(FunctionName=name, Payload=b"{}")
        counted = json.loads(answer["Payload"].read())
        assert counted.get("failed") == [], counted
        return again(created, desk).status == "closed"

    eventually(runs, "the end")
