# SPDX-License-Identifier: Apache-2.0
"""Whatever is changed in what was stored about an order, `verify` names it. Pure, exhaustive over every field's bytes."""

import copy
import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from api.dossier import FORMAT, Dossier, DossierError, anchor_from, from_json, to_json
from api.stated import stated
from api.verifying import Finding, findings, notes
from api.why import why
from erp.text import Anchor
from linewatch.records import Entry, digest_of, following
from outcomes.outcome import of_order, to_item
from work_orders.order_items import document_digest, from_item
from work_orders.order_table import plain
from work_orders.policy_data import PATH
from work_orders.policy_data import digest_of as canonical_digest

REFERENCE = "lw-0123456789abcdef"
MODEL = "sha256:" + "ab" * 32
STEP = {
    "at": "2026-11-21T10:00:04.000Z", "band": "automatic", "priority": "urgent", "risk": 0.93, "why": "worse",
    "event_id": "event-2",
}  # fmt: skip
FIELDS = ("chain", "at", "what", "by", "detail", "previous", "digest")


def chain(name: str, *steps: tuple[str, str, dict[str, Any]]) -> list[Entry]:
    made: list[Entry] = []
    for second, (what, by, detail) in enumerate(steps):
        at = f"2026-11-21T10:00:{second:02d}.000Z"
        made.append(following(made[-1] if made else None, name, at, what, by, detail))
    return made


def saved() -> dict[str, Any]:
    """An order that was tried twice, approved, placed, escalated, closed and corrected, as `why --save` keeps it."""
    policy = json.loads(PATH.read_text())
    event = {
        "id": "event-1",
        "type": "InferenceCompleted",
        "data": {
            "origin": {"site": "plant-1", "taken_at": "2026-11-21T09:59:59.000Z"},
            "verdict": {
                "result": "NG", "label": "HPC", "score": 0.93, "severity": 0.93,
                "model": {"name": "turbofan", "version": "1.0.0", "digest": MODEL},
            },
            "evidence": [{"kind": "window", "path": "event-1.csv", "digest": "sha256:" + "cd" * 32}],
        },
    }  # fmt: skip
    document = json.dumps({
        "risk": 0.65, "event_ids": ["event-1", "event-gone"], "event_digests": {"event-1": canonical_digest(event)},
        "evidence": event["data"]["evidence"], "policy_version": policy["version"],  # type: ignore[index]
        "policy_digest": canonical_digest(policy), "model": {"name": "turbofan", "version": "1.0.0", "digest": MODEL},
        "persistence": [{"event_id": "event-1", "risk": 0.65, "over": True}],
    })  # fmt: skip
    call = {
        "method": "POST",
        "path": "/work-orders",
        "outcome": "500",
        "ms": 12,
        "request_digest": "",
        "answer": "no",
    }
    entries = chain(
        REFERENCE,
        ("opened", "policy", {"status": "awaiting_approval", "band": "approval", "document_digest": document_digest(document),
                              "asset_id": "TF-01", "failure_mode": "hpc-degradation", "episode": 1, "hold_until": 0.0}),
        ("approved", "M. Keller", {"reason": "heard it too"}),
        ("tried", "erp", {"why": "POST answered 500", "attempt": 1, "calls": [call]}),
        ("created", "erp", {"erp_id": "WO-7", "erp_status": "OPEN", "attempts": 1, "calls": [{**call, "outcome": "201"}]}),
        ("escalated", "policy", {"text": "worse", **STEP}),
        ("closed", "A. Yılmaz", {"finding": "no_fault", "note": "", "found_failure": "", "source": "console",
                                 "closed_at": "2026-11-21T10:00:04.000Z", "highest_risk": 0.97}),
        ("corrected", "A. Yılmaz", {"finding": "confirmed", "note": "blade", "found_failure": "", "source": "console",
                                    "corrected_at": "2026-11-21T10:00:05.000Z"}),
    )  # fmt: skip
    order = {
        **stated(entries), "reference": REFERENCE, "escalations": json.dumps([STEP]),
        "document": document, "head": entries[-1].digest, "records": len(entries), "attempts": 1, "lease_until": 0,
    }  # fmt: skip
    outcome = plain(
        to_item(
            of_order(
                from_item(order), "confirmed", order["closed_at"],
                source="console", corrected_at=order["corrected_at"],
            )
        )
    )  # fmt: skip
    model = (
        "model_loaded",
        "enrich",
        {"name": "turbofan", "digest": MODEL, "training_data_digest": "sha256:" + "ef" * 32},
    )
    put = ("put", "admin", {"version": policy["version"], "digest": canonical_digest(policy)})
    chains = {
        REFERENCE: entries, "policy": chain("policy", put), f"model/{MODEL}": chain(f"model/{MODEL}", model),
    }  # fmt: skip
    dossier = Dossier(order, chains, {"event-1": event}, policy, {**outcome, "expires_at": 2_000_000_000})
    return to_json(dossier, Anchor(REFERENCE, entries[2].digest))


def found(content: dict[str, Any]) -> list[Finding]:
    """What verify finds in a file's content, having gone through JSON as the file has."""
    read = json.loads(json.dumps(content))
    return findings(from_json(read), anchor_from(read))


def numbered(content: dict[str, Any]) -> tuple[str, int | None]:
    faults = found(content)
    assert faults, "the change was not seen"
    return faults[0].where, faults[0].number


def test_what_was_not_touched_is_as_it_was_written() -> None:
    assert found(saved()) == []
    told = why(from_json(saved()), anchor_from(saved()))
    assert told["verified"]
    assert [part["model"]["training_data_digest"] for part in told["parts"] if part["is_kept"]] == [
        "sha256:" + "ef" * 32
    ]
    assert [call["number"] for call in told["erp"]["calls"]] == [2, 3]


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("number", range(7))
def test_one_changed_byte_in_any_field_of_any_entry_names_that_entry(number: int, name: str) -> None:
    original = saved()["chains"][REFERENCE][number][name]

    for place in range(len(original)):
        content = saved()
        flipped = chr(ord(original[place]) ^ 1)
        content["chains"][REFERENCE][number][name] = original[:place] + flipped + original[place + 1 :]
        assert numbered(content) == (REFERENCE, number), (place, flipped)


@pytest.mark.parametrize("number", range(7))
def test_a_changed_number_names_the_entry(number: int) -> None:
    content = saved()
    content["chains"][REFERENCE][number]["number"] = 99

    assert numbered(content) == (REFERENCE, number)


def rehashed(content: dict[str, Any], number: int) -> None:
    """Changes an entry as somebody does who knows how digests are made."""
    item = content["chains"][REFERENCE][number]
    item["by"] = "nobody"
    item["digest"] = digest_of(Entry(**{**item, "digest": ""}))


@pytest.mark.parametrize("number", range(7))
def test_an_entry_that_was_rehashed_is_seen_where_the_next_one_does_not_follow(number: int) -> None:
    content = saved()
    rehashed(content, number)

    # Of two that do not fit, nobody can say which was changed: the later one is named, and says so.
    assert numbered(content) == (REFERENCE, number + 1)
    assert "replaced" in found(content)[0].why


@pytest.mark.parametrize("number", range(7))
def test_an_entry_that_was_removed_or_put_in_is_seen_at_its_place(number: int) -> None:
    removed, doubled = saved(), saved()
    del removed["chains"][REFERENCE][number]
    doubled["chains"][REFERENCE].insert(number, copy.deepcopy(doubled["chains"][REFERENCE][number]))

    assert numbered(removed) == (REFERENCE, number)
    assert numbered(doubled) == (REFERENCE, number + 1)


@pytest.mark.parametrize("number", range(6))
def test_a_swapped_pair_is_seen_at_its_first(number: int) -> None:
    content = saved()
    entries = content["chains"][REFERENCE]
    entries[number], entries[number + 1] = entries[number + 1], entries[number]

    assert numbered(content) == (REFERENCE, number)


@pytest.mark.parametrize("left", range(7))
def test_a_chain_whose_end_was_cut_is_seen_by_the_head(left: int) -> None:
    content = saved()
    del content["chains"][REFERENCE][left:]

    assert numbered(content) == (REFERENCE, left)


def forged(content: dict[str, Any]) -> None:
    """A whole chain of one's own, with everything on the order that follows from it."""
    entries = content["chains"][REFERENCE]
    made = chain(
        REFERENCE,
        *((one["what"], one["by"].replace("Keller", "Killer"), json.loads(one["detail"])) for one in entries),
    )
    content["chains"][REFERENCE] = to_json(Dossier({}, {REFERENCE: made}))["chains"][REFERENCE]
    content["order"] |= {"decided_by": "M. Killer"}
    content["outcome"] |= {"approved_by": "M. Killer"}


def test_a_whole_chain_that_was_replaced_is_seen_by_the_head_and_with_the_head_by_the_erp() -> None:
    content = saved()
    forged(content)
    assert numbered(content) == (REFERENCE, 7)

    content["order"]["head"] = content["chains"][REFERENCE][-1]["digest"]

    assert numbered(content) == ("erp", None)
    # The control: without the anchor nothing can see it, and the page says so.
    del content["anchor"]
    assert found(content) == []
    assert any("the ERP was not asked" in note for note in notes(from_json(content), None))


def test_an_erp_order_of_another_reference_is_told_as_that_and_not_as_a_replaced_chain() -> None:
    """`verify` said "the whole chain was replaced" of an id that the ERP had given to two orders."""
    content = saved()
    content["anchor"] = {"reference": "lw-fedcba9876543210", "digest": "sha256:" + "0" * 64}

    (fault,) = found(content)

    assert (fault.where, fault.number) == ("erp", None)
    assert "the ERP's order WO-7 bears the reference lw-fedcba9876543210" in fault.why
    assert "replaced" not in fault.why
    # Whoever forged this order's digest into it as well is told the same, and so is one without any digest.
    for digest in (saved()["anchor"]["digest"], ""):
        content["anchor"]["digest"] = digest
        assert found(content) == [fault]
    # A reference that the ERP's text has lost is nobody's; the digest speaks for itself.
    content["anchor"] = {**saved()["anchor"], "reference": ""}
    assert found(content) == []
    content["anchor"]["digest"] = "sha256:" + "0" * 64
    assert "the whole chain was replaced" in found(content)[0].why


CHANGES: list[tuple[str, Callable[[dict[str, Any]], Any], str]] = [
    ("the order's status", lambda c: c["order"].update(status="created"), "order"),
    ("who approved", lambda c: c["order"].update(decided_by="somebody else"), "order"),
    ("the ERP's id", lambda c: c["order"].update(erp_id="WO-8"), "order"),
    ("the finding", lambda c: c["order"].update(finding="no_fault"), "order"),
    ("the band", lambda c: c["order"].update(band="approval"), "order"),
    ("the head", lambda c: c["order"].update(head="sha256:" + "0" * 64), REFERENCE),
    ("no head any more", lambda c: c["order"].pop("head"), "order"),
    ("the number of records", lambda c: c["order"].update(records=6), "order"),
    ("a byte of the facts", lambda c: c["order"].update(document=c["order"]["document"].replace("0.65", "0.66")), "document"),
    ("facts that are none", lambda c: c["order"].update(document="[]"), "document"),
    ("a threshold of the policy", lambda c: c["policy"]["bands"][0].update(on=0.81), "policy"),
    ("the score of a frame", lambda c: c["events"]["event-1"]["data"]["verdict"].update(score=0.94), "event event-1"),
    ("the digest of a frame", lambda c: c["events"]["event-1"]["data"]["evidence"][0].update(digest="sha256:0"), "event event-1"),
    ("the model's record", lambda c: c["chains"][f"model/{MODEL}"][0].update(detail="{}"), f"model/{MODEL}"),
    ("the policy's record", lambda c: c["chains"]["policy"][0].update(by="nobody"), "policy"),
    ("another chain in its place", lambda c: c["chains"].update({f"model/{MODEL}": c["chains"]["policy"]}), f"model/{MODEL}"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "change", "where"), CHANGES, ids=[what for what, _, _ in CHANGES])
def test_what_lies_beside_the_chain_is_checked_against_it(
    what: str, change: Callable[[dict[str, Any]], Any], where: str
) -> None:
    content = saved()
    change(content)

    assert numbered(content)[0] == where, what


def test_any_flipped_bit_of_the_file_is_named_or_the_file_is_refused_with_a_reason() -> None:
    """Of every byte one bit; a space between two JSON values is no content, and nothing else may pass."""
    text = json.dumps(saved(), ensure_ascii=False).encode()
    chance = random.Random(5)
    before = json.loads(text)
    unseen = []
    for place in range(len(text)):
        changed = bytearray(text)
        changed[place] ^= 1 << chance.randrange(8)
        try:
            content = json.loads(bytes(changed))
            if content == before:
                continue
            if found(content) or content.get("anchor") != before["anchor"]:
                continue
        except (DossierError, UnicodeDecodeError, json.JSONDecodeError):
            continue
        unseen.append((place, bytes(text[max(0, place - 30) : place + 10])))

    # The name of a chain that nothing asks for, or of an attribute that no record is about, are no promise.
    assert [where for place, where in unseen if b"chains" in where] == []
    assert len(unseen) < 80, unseen
    assert all(_is_beside_the_promise(where) for _, where in unseen), unseen


def _is_beside_the_promise(where: bytes) -> bool:
    names = (
        b'"events"',
        b'"event-1": {',
        b'"policy": ',
        b'"reason"',
        b'"anchor"',
        b'"found_failure"',
        b'"note"',
        b'"outcome"',
        b'"hold_until',
        b'"expires_at',
        b'"attempts"',
        b'"lease_until"',
    )
    return any(name in where for name in names)


@pytest.mark.parametrize("anchor", ["sha256:0", {}, {"reference": "x"}, {"reference": "x", "digest": 5}, []])
def test_an_anchor_that_is_none_is_refused_with_a_reason(anchor: Any) -> None:
    with pytest.raises(DossierError, match="anchor can't be read"):
        anchor_from({**saved(), "anchor": anchor})


@pytest.mark.parametrize(
    "content",
    [
        None, [], {}, {"format": FORMAT}, {"format": FORMAT, "order": {}, "chains": {}, "events": {}, "policy": None},
        {**saved(), "chains": {"x": [{}]}}, {**saved(), "chains": []}, {**saved(), "order": {"reference": "x"}},
        {**saved(), "events": {"a": 5}}, {**saved(), "order": {**saved()["order"], "document": "{"}},
        {**saved(), "order": {**saved()["order"], "status": "\ud800"}},
    ],
)  # fmt: skip
def test_what_is_no_saved_order_is_refused_with_a_reason(content: Any) -> None:
    with pytest.raises(DossierError, match=r"saved order|can't be read"):
        from_json(content)


def test_an_order_of_a_release_before_records_says_that_nothing_covers_it() -> None:
    content = saved()
    content["chains"] = {}
    del content["order"]["head"]
    content["outcome"] = None
    content["order"]["history"] = [
        {"at": "2026-11-20T10:00:00Z", "what": "opened", "by": "policy", "detail": "band"}
    ]

    told = why(from_json(content))

    assert (told["verified"], told["fault"]) == (False, None)
    assert [one["text"] for one in told["entries"]] == ["opened by policy: band"]
    assert any("nothing covers it" in note for note in told["not_checked"])


@pytest.mark.parametrize(
    ("origin", "taken_at", "is_known"),
    [
        ({}, "2026-11-21T09:59:59.000Z", False),
        ({"clock": {"synchronised": True}}, "2026-11-21T09:59:59.000Z", True),
        ({"corrected_at": "2026-11-21T10:00:07.000Z"}, "2026-11-21T10:00:07.000Z", True),
    ],
    ids=["unset", "synchronised", "corrected"],
)
def test_a_time_by_a_clock_that_nobody_had_set_is_told_as_that(
    origin: dict[str, Any], taken_at: str, is_known: bool
) -> None:
    """The order's page said that it is not known, and its timeline told it as if it were."""
    content = saved()
    content["events"]["event-1"]["data"]["origin"] |= origin

    (part,) = (one for one in why(from_json(content))["parts"] if one["is_kept"])

    assert (part["taken_at"], part["is_time_known"]) == (taken_at, is_known)
