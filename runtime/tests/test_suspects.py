# SPDX-License-Identifier: Apache-2.0
"""Which event ends the connections, without a broker."""

import random

import pytest

from linewatch_runtime.records import Record, Stored
from linewatch_runtime.suspects import BREAKS_BY_CHANCE, PROOFS, PROOFS_WITHOUT_A_REASON, Suspects

TOO_LARGE = 0x95


def rows(*event_ids: str) -> list[Stored]:
    return [Stored(number, Record(one, "stream", "topic", b""), 0.0) for number, one in enumerate(event_ids)]


def ids(chosen: list[Stored]) -> list[str]:
    return [row.record.event_id for row in chosen]


def published(suspects: Suspects, waiting: list[str], culprit: str, code: int) -> str:
    """One round against a broker that ends the connection for the culprit. The one that is then known."""
    sent = ids(suspects.choose(rows(*waiting)))
    if culprit in sent:
        return suspects.broke(sent, code)
    suspects.passed(sent)
    for one in sent:
        waiting.remove(one)
    return ""


@pytest.mark.parametrize(("code", "most"), [(TOO_LARGE, PROOFS), (0, PROOFS_WITHOUT_A_REASON)])
def test_culprit_is_found_and_the_others_pass(code: int, most: int) -> None:
    suspects, waiting, rounds = Suspects(), [f"event {number}" for number in range(50)], 0

    while not (found := published(suspects, waiting, "event 20", code)):
        rounds += 1
        assert rounds < 200

    assert found == "event 20"
    waiting.remove(found)
    while waiting:
        assert not published(suspects, waiting, "", code)
    assert not suspects.are_some
    assert rounds <= 50 + BREAKS_BY_CHANCE + 2 * most


def test_all_goes_out_at_once_while_nobody_is_suspected() -> None:
    suspects = Suspects()
    suspects.broke(["a", "b"], 0)

    assert ids(suspects.choose(rows("a", "b"))) == ["a", "b"]


def test_culprit_that_is_alone_in_the_spool_holds_up_nobody_and_waits_for_proof() -> None:
    suspects = Suspects()

    assert not any(suspects.broke(["a"], 0) for _ in range(100))
    assert [suspects.broke(["a"], TOO_LARGE) for _ in range(PROOFS)][-1] == "a"


def test_network_that_breaks_at_random_condemns_nobody() -> None:
    """Each publish has a chance of a third to meet a break that no broker gives a reason for."""
    for seed in range(200):
        chance, suspects, waiting = random.Random(seed), Suspects(), [str(number) for number in range(60)]
        while waiting:
            sent = ids(suspects.choose(rows(*waiting)))
            if chance.random() < 1 / 3:
                assert not suspects.broke(sent, 0), seed
            else:
                suspects.passed(sent)
                waiting = [one for one in waiting if one not in sent]


def test_what_has_left_the_spool_is_suspected_no_more() -> None:
    suspects = Suspects()
    suspects.broke(["a", "b"], TOO_LARGE)
    assert suspects.are_some

    suspects.forget({"c"})

    assert not suspects.are_some
