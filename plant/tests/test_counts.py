# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from linewatch_plant.counts import Counts, doubled, edge_counts, percentile
from linewatch_runtime.spool import Record, Spool


def agreeing() -> Counts:
    counts = Counts()
    counts.parts.update(sent=10, judged=8, not_inspected=1, skipped=1)
    counts.judged = {"line-1/station-1": 8}
    counts.events.update(published=10, stored=10, delivered=10, enriched=10)
    counts.work_orders.update(created=1, in_erp=1)
    return counts


def test_hops_that_agree_have_no_disagreement() -> None:
    assert agreeing().disagreements() == []


@pytest.mark.parametrize(
    ("group", "name", "word"),
    [
        ("parts", "sent", "accounted for"),
        ("events", "published", "published"),
        ("events", "stored", "stored"),
        ("events", "delivered", "delivered"),
        ("events", "enriched", "enriched"),
        ("work_orders", "in_erp", "in the ERP"),
        ("work_orders", "doubled", "doubled"),
    ],
)
def test_one_off_at_any_hop_is_a_disagreement_that_names_the_hop(group: str, name: str, word: str) -> None:
    counts = agreeing()
    getattr(counts, group)[name] += 1

    assert any(word in told for told in counts.disagreements())


def test_waiting_ends_when_it_can_change_nothing_more() -> None:
    counts = agreeing()
    assert not counts.on_their_way()

    counts.judged["line-2/machine-1"] = 0
    counts.dead_letters = 1
    assert not counts.on_their_way()

    counts.backlog = 1
    assert counts.on_their_way()


def test_a_station_that_judged_nothing_is_a_disagreement() -> None:
    counts = agreeing()
    counts.judged["line-2/machine-1"] = 0

    assert counts.disagreements() == ["line-2/machine-1 judged no part"]


def test_an_event_that_is_missing_at_every_hop_is_still_missed() -> None:
    counts = agreeing()
    counts.events = dict.fromkeys(counts.events, 8)

    assert any("8 events published" in told for told in counts.disagreements())


@pytest.mark.parametrize("name", ["unplaced", "dead_letters"])
def test_what_waits_for_a_person_is_a_disagreement(name: str) -> None:
    counts = agreeing()
    setattr(counts, name, 1)

    assert len(counts.disagreements()) == 1


def test_counts_are_read_from_the_spools_of_running_services(tmp_path: Path) -> None:
    capture, forwarder = Spool(tmp_path / "capture.db"), Spool(tmp_path / "forwarder.db")
    event = Record("a", "predictions-line-1", "t", b"{}")
    engine = Record("b", "events-device", "t", b"{}")
    capture.append([event], {"sent": 2, "judged": 1, "skipped": 1})
    forwarder.append([event, engine])
    forwarder.settle(["a"])

    spools = {"line-1/station-1": tmp_path / "capture.db", "line-2/machine-1": tmp_path / "not-made-yet.db"}
    counts = edge_counts(spools, tmp_path / "forwarder.db")

    assert counts.parts == {"sent": 2, "judged": 1, "not_inspected": 0, "skipped": 1}
    assert counts.events == {"published": 1, "stored": 1, "delivered": 1, "enriched": 0}
    assert counts.judged == {"line-1/station-1": 1, "line-2/machine-1": 0}
    assert counts.backlog == 1  # the device's own event
    capture.close()
    forwarder.close()


def test_an_order_with_a_reference_seen_before_is_doubled() -> None:
    one = {"external_reference": "lw-1", "asset_id": "A", "failure_mode": "x", "episode": 1}
    other_mode = {"external_reference": "lw-2", "asset_id": "A", "failure_mode": "y", "episode": 1}
    same_episode = {"external_reference": "lw-3", "asset_id": "A", "failure_mode": "x", "episode": 1}

    assert doubled([one, other_mode]) == 0
    assert doubled([one, other_mode, dict(one)]) == 1
    assert doubled([one, same_episode]) == 1


def test_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([], 0.5) is None
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([float(n) for n in range(1, 101)], 0.99) == 99.0
    assert percentile([7.0], 0.99) == 7.0
