# SPDX-License-Identifier: Apache-2.0
"""What work_orders relies on, kept by every adapter against its product's simulator over HTTP.

A simulator is no product: docs/erp.md says what could not be verified, and `linewatch erp check` tries the real one.
"""

import base64
import html
import inspect
import json
import logging
import math
import re
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import requests
from cloud_line import wait_for
from erp_products import CANARY, HASTY_S, PRODUCTS, Connected, credentials, serving

from erp import http as erp_http
from erp.port import Erp, ErpAwayError, ErpError, ErpOrder, ErpRefusedError, ErpUnavailableError
from erp.text import Anchor
from erp.transcript import Call, recorded
from work_orders import placing

# The call that ends, and what stands around it on a busy machine; a drip takes 40 s and more, no answer two minutes.
PATIENCE_S = HASTY_S * 2 + 20


@pytest.fixture(scope="module", params=PRODUCTS)
def product(request: pytest.FixtureRequest) -> Iterator[Connected]:
    with serving(request.param) as connected:
        yield connected


@pytest.fixture(autouse=True)
def _quiet_after(product: Connected) -> Iterator[None]:
    yield
    names = {name: 0 for name in _faults(product) if name not in {"late_ms", "retry_after_s"}}
    product.simulator.set_faults(**names)


def _faults(product: Connected) -> Mapping[str, int]:
    known: dict[str, int] = requests.get(f"{product.url}/admin/faults", timeout=30).json()
    return known


def a_reference() -> str:
    return "lw-" + uuid.uuid4().hex[:16]


def an_order(reference: str, **changed: Any) -> dict[str, Any]:
    """What placing.payload gives."""
    return {
        "external_reference": reference,
        "equipment_id": "COMP-7",
        "asset_id": "COMP-7",
        "episode": 3,
        "title": "Fan degradation: Compressor 7",
        "failure_mode": "fan-degradation",
        "failure_type": "Fan degradation",
        "location": "hall A",
        "criticality": "A",
        "severity": 0.93,
        "risk": 0.91,
        "priority": "urgent",
        "recommended_action": "Inspect fan blades",
        "time_to_failure": {
            "p10": 12,
            "p50": 20,
            "p90": 31,
            "unit": "cycle",
            "hours": None,
            "beyond_horizon": False,
        },
        "ai_generated": True,
        "event_ids": ["0192aaaa-0000-7000-8000-000000000001"],
        "evidence": [{"kind": "frame", "path": "line-1/0001.jpg", "sha256": "ab" * 8}],
        "model": {"name": "turbofan", "version": "2.1.0", "digest": "sha256:0f"},
        "observed_at": "2026-11-21T10:11:12Z",
        "record_digest": "sha256:cafe",
        "reserved_at": "2026-11-21T10:11:30Z",
        **changed,
    }


def leaves(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for entry in value.values():
            yield from leaves(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from leaves(entry)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def said_by(product: Connected, reference: str) -> str:
    """Everything that the simulator keeps of the order, as a person reads it."""
    (kept,) = product.kept(reference)
    text = json.dumps(kept["record"], ensure_ascii=False)
    return html.unescape(text.replace('\\"', '"').replace("\\n", "\n"))


# ------------------------------------------------------------------------------------------------- find and create


def test_what_is_not_there_is_not_found(product: Connected) -> None:
    assert product.erp.find_by_reference(a_reference()) is None
    assert list(product.erp.find_all(a_reference())) == []


def test_an_order_is_created_and_found_by_its_reference(product: Connected) -> None:
    reference = a_reference()

    made = product.erp.create(an_order(reference))

    found = product.erp.find_by_reference(reference)
    assert found is not None
    assert found.id == made.id
    assert len(product.kept(reference)) == 1


def test_of_several_orders_the_oldest_is_found(product: Connected) -> None:
    reference = a_reference()
    made = [product.erp.create(an_order(reference, record_digest=f"sha256:{n}", observed_at=f"2026-11-21T10:1{n}:00Z"))
            for n in range(3)] if product.product != "sap" else _doubled_in_sap(product, reference)  # fmt: skip

    assert [order.id for order in product.erp.find_all(reference)] == [order.id for order in made]
    found = product.erp.find_by_reference(reference)
    assert found is not None
    assert found.id == made[0].id


def _doubled_in_sap(product: Connected, reference: str) -> list[ErpOrder]:
    erp = product.adapter(repeatability=False)
    return [erp.create(an_order(reference)) for _ in range(3)]


def test_an_order_carries_every_field(product: Connected) -> None:
    reference = a_reference()
    order = an_order(reference)

    product.erp.create(order)

    said = said_by(product, reference).casefold()
    missing = [leaf for leaf in leaves(order) if leaf.casefold() not in said]
    assert missing == []


def test_the_fields_of_the_contract_are_those_of_the_payload() -> None:
    """So that a field which is added to the payload is carried, too."""
    named = set(re.findall(r'"([a-z_]+)"', inspect.getsource(placing.payload)))
    not_payload = {"asset_name", "created_at"}  # read there, not written
    assert named - not_payload <= set(an_order("x")), "add it to an_order above"


# --------------------------------------------------------------------------------------------------- unclear answers

UNCLEAR = (
    "error_500_after_create", "hang_after_create", "html_502_after_create", "html_200_after_create",
    "redirect_after_create", "truncated_after_create", "reset_after_create", "drip_after_create", "large_after_create",
    "error_in_200_after_create", "error_500_create_late",
)  # fmt: skip


def _asking(product: Connected, fault: str) -> Erp:
    """The adapter, signed in; in haste where the answer never comes."""
    erp = product.adapter(timeout_s=HASTY_S) if _is_endless(fault) else product.erp
    wait_for(lambda: _is_signed_in(erp), "a search that is answered")
    return erp


def _is_endless(fault: str) -> bool:
    return "hang" in fault or "drip" in fault


def _is_signed_in(erp: Erp) -> bool:
    try:
        return erp.find_by_reference(a_reference()) is None
    except ErpUnavailableError:
        return False


@pytest.mark.parametrize("fault", UNCLEAR)
def test_an_unclear_answer_may_have_created_and_the_order_is_found(product: Connected, fault: str) -> None:
    reference = a_reference()
    erp = _asking(product, fault)
    product.simulator.set_faults(**{fault: 1, "late_ms": 50})

    # What is asked before the order itself, a token or an asset, may be late for one in haste on a busy machine: that is
    # the clear no of an ERP that is away, and the fault has not struck. A no that was none would end in a second order.
    for _ in range(10 if _is_endless(fault) else 1):
        began = time.monotonic()
        with pytest.raises(ErpUnavailableError) as told:
            erp.create(an_order(reference))
        assert time.monotonic() - began < PATIENCE_S
        if told.value.may_have_created:
            break

    assert told.value.may_have_created
    assert wait_for(lambda: product.erp.find_by_reference(reference), "the order that was made")
    assert len(product.kept(reference)) == 1


@pytest.mark.parametrize(
    "fault",
    ["find_500", "find_html", "find_redirect", "find_truncated", "find_drip", "find_large", "find_hang"],
)
def test_a_search_without_an_answer_is_never_a_no(product: Connected, fault: str) -> None:
    erp = _asking(product, fault)
    product.simulator.set_faults(**{fault: 1})
    began = time.monotonic()

    with pytest.raises(ErpUnavailableError) as told:
        erp.find_by_reference(a_reference())

    assert not told.value.may_have_created
    assert time.monotonic() - began < PATIENCE_S


def test_too_many_calls_create_nothing_and_say_how_long_to_wait(product: Connected) -> None:
    reference = a_reference()
    product.simulator.set_faults(too_many=1, retry_after_s=11)

    with pytest.raises(ErpUnavailableError) as told:
        product.erp.create(an_order(reference))

    assert not told.value.may_have_created
    assert told.value.retry_after_s == 11
    assert product.kept(reference) == []


def test_a_conflict_is_the_order_that_is_there(product: Connected) -> None:
    reference = a_reference()
    made = product.erp.create(an_order(reference))
    product.simulator.set_faults(conflict=1)

    assert product.adapter(**_once(product)).create(an_order(reference)).id == made.id
    assert len(product.kept(reference)) == 1


def test_a_conflict_without_an_order_is_unclear(product: Connected) -> None:
    product.simulator.set_faults(conflict=1)

    with pytest.raises(ErpUnavailableError) as told:
        product.erp.create(an_order(a_reference()))

    assert told.value.may_have_created


def _once(product: Connected) -> dict[str, Any]:
    """Without SAP's repeatable requests, which answer before the fault can strike."""
    return {"repeatability": False} if product.product == "sap" else {}


@pytest.mark.parametrize("fault", ["refuse", "forbidden", "precondition"])
def test_a_clear_no_is_told_in_the_products_words(product: Connected, fault: str) -> None:
    reference = a_reference()
    product.simulator.set_faults(**{fault: -1})

    with pytest.raises(ErpRefusedError) as told:
        product.erp.create(an_order(reference))

    assert fault in str(told.value)
    if fault == "forbidden":
        assert "permissions" in str(told.value)
    assert product.kept(reference) == []


def test_a_refusal_of_a_double_is_the_order_that_is_there(product: Connected) -> None:
    """A unique field in the product refuses in whatever words it has."""
    reference = a_reference()
    made = product.erp.create(an_order(reference))
    product.simulator.set_faults(refuse=1)

    assert product.adapter(**_once(product)).create(an_order(reference)).id == made.id


def test_away_is_told_before_anything_is_asked(product: Connected) -> None:
    # Bound, so that nobody else listens there meanwhile.
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        nobody = Connected(product.product, product.simulator, product.secrets, product.erp, url)
        for call in (
            lambda erp: erp.find_by_reference(a_reference()),
            lambda erp: erp.create(an_order(a_reference())),
        ):
            with pytest.raises(ErpAwayError) as told:
                call(nobody.adapter())
            assert not told.value.may_have_created


def test_a_wrong_secret_is_away_and_said(product: Connected) -> None:
    product.simulator.rotate("another one")
    try:
        with pytest.raises(ErpError) as told:
            product.adapter().find_by_reference(a_reference())
    finally:
        product.simulator.rotate(CANARY)

    assert re.search("secret|permissions", str(told.value))
    assert product.erp.find_by_reference(a_reference()) is None


def test_a_rotation_fails_no_order(product: Connected) -> None:
    """Whichever is changed first, the ERP or Secrets Manager."""
    references = [a_reference() for _ in range(4)]
    try:
        product.erp.create(an_order(references[0]))
        product.rotate("second+secret")
        product.simulator.set_faults(revoke_tokens=1)
        product.erp.create(an_order(references[1]))
        # Secrets Manager has the third already, the ERP not yet.
        product.secrets.rotate(**credentials(product.product, "third+secret"))
        product.simulator.set_faults(revoke_tokens=1)
        product.erp.create(an_order(references[2]))
        product.adapter().create(an_order(references[3]))
    finally:
        product.rotate(CANARY)

    assert [len(product.kept(reference)) for reference in references] == [1, 1, 1, 1]


# ---------------------------------------------------------------------------------------- answers about another order


def test_an_answer_with_another_order_gives_ours(product: Connected) -> None:
    """A proxy or a cache mixes two answers up: ours was made, and the answer speaks of somebody else's."""
    theirs, mine = product.erp.create(an_order(a_reference())), a_reference()
    product.simulator.set_faults(another_after_create=1)

    made = product.adapter(**_once(product)).create(an_order(mine))

    assert product.simulator.calls()["another_after_create"] == 1
    assert made.id == product.kept(mine)[0]["id"] != theirs.id
    assert len(product.kept(mine)) == 1


def test_an_answer_with_another_order_that_can_not_be_looked_up_is_unclear(product: Connected) -> None:
    product.erp.create(an_order(a_reference()))
    mine = a_reference()
    product.simulator.set_faults(another_after_create=1, find_500=1)

    with pytest.raises(ErpUnavailableError) as told:
        product.adapter(**_once(product)).create(an_order(mine))

    assert told.value.may_have_created
    assert product.erp.find_by_reference(mine) is not None


def test_a_status_that_is_another_orders_is_not_believed(product: Connected) -> None:
    mine, theirs = (product.erp.create(an_order(a_reference())) for _ in range(2))
    product.simulator.technician(theirs.id, state="completed", finding=product.code("no_fault"), by="Ida")
    for call in (product.erp.status, product.erp.anchor):
        product.simulator.set_faults(read_another=1)
        with pytest.raises(ErpUnavailableError, match="answered with") as told:
            call(mine.id)
        assert not told.value.may_have_created

    assert product.erp.status(mine.id).state == "open"


def test_a_status_of_the_orders_own_double_is_not_believed(product: Connected) -> None:
    """It bears our reference, and another id: a double that was cancelled must not end ours."""
    reference, erp = a_reference(), product.adapter(**_once(product))
    mine, double = (erp.create(an_order(reference, observed_at=f"2026-11-21T10:1{n}:00Z")) for n in range(2))
    product.simulator.technician(double.id, state="cancelled")
    product.simulator.set_faults(read_another=1)

    with pytest.raises(ErpUnavailableError, match="answered with"):
        erp.status(mine.id)


@pytest.mark.parametrize("product", ["sap", "maximo"], indirect=True)
def test_a_note_is_not_put_on_the_order_that_was_answered_instead(product: Connected) -> None:
    """Maximo's notes go where the answer to a search points, SAP's are told by the text that was read; the others ask by id."""
    theirs = a_reference()
    made = product.erp.create(an_order(a_reference()))
    product.erp.create(an_order(theirs))
    product.simulator.set_faults(read_another=1)

    with pytest.raises(ErpUnavailableError, match="answered with"):
        product.erp.add_note(made.id, "k", "only for us")

    assert "only for us" not in "".join(product.kept(theirs)[0]["notes"])


def test_a_status_tells_whose_order_it_is(product: Connected) -> None:
    reference = a_reference()

    # A name that would like to be a reference.
    made = product.erp.create(an_order(reference, title="Fan [lw-0000000000000000]"))

    assert product.erp.status(made.id).reference == reference


# --------------------------------------------------------------------------------------------------- status and notes


@pytest.mark.parametrize("state", ["open", "in_progress", "completed", "cancelled"])
def test_the_state_is_told_in_the_ports_words(product: Connected, state: str) -> None:
    made = product.erp.create(an_order(a_reference()))
    if state != "open":
        product.simulator.technician(made.id, state=state)

    status = product.erp.status(made.id)

    assert status.state == state
    assert status.status
    assert status.finding == ("unstated" if state == "completed" else None)


@pytest.mark.parametrize("finding", ["confirmed", "other_fault", "no_fault"])
def test_what_the_technician_found_comes_back(product: Connected, finding: str) -> None:
    made = product.erp.create(an_order(a_reference()))
    product.simulator.technician(
        made.id, state="completed", finding=product.code(finding), found_failure="bearing worn", by="Ida",
        at="2026-11-20T13:14:15Z",
    )  # fmt: skip

    status = product.erp.status(made.id)

    assert (status.state, status.finding, status.found_failure) == ("completed", finding, "bearing worn")
    assert status.by.casefold() == "ida"
    assert status.ended_at.startswith("2026-11-20")


def test_an_unknown_code_says_nothing_about_the_prediction(product: Connected) -> None:
    made = product.erp.create(an_order(a_reference()))
    product.simulator.technician(made.id, state="completed", finding="ZZZ9")

    assert product.erp.status(made.id).finding == "unstated"


@pytest.mark.parametrize("erp_id", ["99999999", "x'); drop", "../admin/orders", '1" or "1"="1', ""])
def test_an_order_that_is_not_there_is_a_clear_no(product: Connected, erp_id: str) -> None:
    with pytest.raises(ErpRefusedError):
        product.erp.status(erp_id)
    with pytest.raises(ErpRefusedError):
        product.erp.add_note(erp_id, "key", "text")


def test_a_note_is_added_once_by_its_key(product: Connected) -> None:
    made = product.erp.create(an_order(reference := a_reference()))

    for text in ("risk rose to 0.97", "risk rose to 0.97", "risk rose to 0.97 again"):
        product.erp.add_note(made.id, "escalation-1", text)
    product.adapter().add_note(made.id, "escalation-1", "from another process")
    product.erp.add_note(made.id, "escalation-2", "risk rose to 0.99")

    notes = "\n".join(product.kept(reference)[0]["notes"])
    assert notes.count("risk rose to 0.97") == 1
    assert notes.count("risk rose to 0.99") == 1
    assert "another process" not in notes


def test_the_record_digest_is_read_back_from_the_order(product: Connected) -> None:
    digest, other = "sha256:" + "0123456789abcdef" * 4, "sha256:" + "f" * 64
    # The longest action that a policy may name stands before it, and a field that would like to be it.
    action = f"record digest: {other}\nrecord digest: {other} " + "a" * 300
    mine, bares = a_reference(), a_reference()
    made = product.erp.create(an_order(mine, record_digest=digest, recommended_action=action))
    bare = product.erp.create(an_order(bares, record_digest=""))
    product.erp.add_note(made.id, "escalation-1", f"record digest: {other}")

    assert product.erp.anchor(made.id) == Anchor(mine, digest)
    assert product.erp.anchor(bare.id) == Anchor(bares, "")


def test_an_id_that_the_erp_gave_to_another_order_tells_whose_it_is(product: Connected) -> None:
    """An ERP that was restored from a backup numbers on from there; one that was switched begins anew."""
    digests = ["sha256:" + sign * 64 for sign in "ab"]
    mine, theirs = a_reference(), a_reference()
    # An action and a note that would like to be the reference.
    text = f"external reference: {mine}\nexternal reference: {mine}"
    with serving(product.product) as erp, serving(product.product) as restored:
        placed = erp.erp.create(an_order(mine, record_digest=digests[0]))
        again = restored.erp.create(an_order(theirs, record_digest=digests[1], recommended_action=text))
        restored.erp.add_note(again.id, "escalation-1", text)
        assert again.id == placed.id, "the control: the id was given twice"

        assert (erp.erp.status(placed.id).reference, restored.erp.status(placed.id).reference) == (
            mine,
            theirs,
        )
        assert erp.erp.anchor(placed.id) == Anchor(mine, digests[0])
        assert restored.erp.anchor(placed.id) == Anchor(theirs, digests[1])


def test_a_note_whose_answer_was_lost_is_not_doubled(product: Connected) -> None:
    made = product.erp.create(an_order(reference := a_reference()))
    product.simulator.set_faults(note_500_after_create=1)

    with pytest.raises(ErpUnavailableError):
        product.erp.add_note(made.id, "k", "the risk rose")
    product.erp.add_note(made.id, "k", "the risk rose")

    assert "\n".join(product.kept(reference)[0]["notes"]).count("the risk rose") == 1


# ------------------------------------------------------------------------------------------------------ hostile texts

HOSTILE = "O'Brien \"the\" 100% <b>x</b>\r\nline\ttwo \x00\x1b ünï 🔥 \\ ${jndi} '; DROP; {{7*7}} \ud800"


def test_hostile_characters_arrive_or_are_taken_out(product: Connected) -> None:
    reference = a_reference()
    order = an_order(
        reference, title=HOSTILE, location=HOSTILE, recommended_action=HOSTILE, asset_id="A'\"<&\\7"
    )

    made = product.erp.create(order)

    assert product.erp.find_by_reference(reference) == ErpOrder(
        made.id, product.erp.find_all(reference)[0].status
    )
    said = said_by(product, reference)
    assert "O'Brien" in said
    assert "🔥" in said
    assert "\x00" not in said
    product.erp.add_note(made.id, "k'\"<%_", HOSTILE)
    product.erp.add_note(made.id, "k'\"<%_", HOSTILE)
    notes = html.unescape("\n".join(product.kept(reference)[0]["notes"]))
    assert notes.count("[linewatch k----_]") in ({0} if product.product == "rest" else {1})
    assert product.erp.status(made.id).state == "open"


def test_ten_thousand_characters_are_cut_with_a_mark(product: Connected) -> None:
    reference = a_reference()
    long = "word " * 2000
    order = an_order(reference, title=long, recommended_action=long, location=long, asset_id="A" * 300)

    made = product.erp.create(order)
    product.erp.add_note(made.id, "long", long)
    product.erp.add_note(made.id, "long", long)

    assert product.erp.find_by_reference(reference) is not None
    assert "…" in said_by(product, reference)
    marks = sum(note.count("[linewatch long]") for note in product.kept(reference)[0]["notes"])
    assert marks == (0 if product.product == "rest" else 1)


@pytest.mark.parametrize(
    "reference",
    [
        "' or 1 eq 1 or 'a' eq '",
        'x" or siteid="BEDFORD',
        "%",
        "_",
        "lw-%",
        "",
        "a" * 200,
        '"]], [["id", ">", 0]]',
        "]",
    ],
)
def test_a_hostile_reference_finds_nobody_elses_order(product: Connected, reference: str) -> None:
    product.erp.create(an_order(a_reference()))

    if product.product == "rest":  # a parameter of a URL, whatever stands in it
        assert list(product.erp.find_all(reference)) == []
    else:
        with pytest.raises(ErpRefusedError, match="no reference"):
            product.erp.find_all(reference)


def test_an_unknown_asset_is_refused_or_named_in_the_text(product: Connected) -> None:
    reference = a_reference()
    order = an_order(reference, asset_id="UNKNOWN-9", equipment_id="UNKNOWN-9")

    if product.product in {"sap", "maximo"}:  # they check it themselves
        with pytest.raises(ErpRefusedError, match="UNKNOWN-9"):
            product.erp.create(order)
        assert product.kept(reference) == []
    else:
        product.erp.create(order)
        assert "UNKNOWN-9" in said_by(product, reference)


def test_an_order_is_put_on_no_machine_but_its_own(product: Connected) -> None:
    """The search for the asset shows others, and one of them first: an ERP that widens or drops the filter."""
    reference, gone = a_reference(), a_reference()
    searches = product.product in {
        "odoo",
        "atlas",
    }  # the others are sent the asset's id as it is, and check it
    product.simulator.set_faults(assets_of_others=2)

    product.erp.create(an_order(reference, asset_id="STRINGER-7", equipment_id="STRINGER-7"))
    if searches:  # those that others refuse
        product.erp.create(an_order(gone, asset_id="UNKNOWN-9", equipment_id="UNKNOWN-9"))

    assert product.simulator.calls().get("assets_of_others", 0) == (2 if searches else 0)
    numbers = {"odoo": 1000 + len("STRINGER-7"), "atlas": 500 + len("STRINGER-7")}
    assert product.kept(reference)[0]["equipment_id"] == numbers.get(product.product, "STRINGER-7")
    assert "STRINGER-7" in said_by(product, reference)
    if searches:
        assert not product.kept(gone)[0]["equipment_id"]
        assert "UNKNOWN-9" in said_by(product, gone)


# --------------------------------------------------------------------------------------------------- bounds and secrets


def test_calls_go_over_connections_that_are_kept(product: Connected, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erp_http, "IDLE_S", math.inf)  # however long the test stood still
    before = product.simulator.calls()["connections"]
    erp = product.adapter()

    for _ in range(10):
        erp.find_by_reference(a_reference())

    # The adapter's, and the ones that asked for these counts do not count.
    assert product.simulator.calls()["connections"] - before <= 2


def _everything_goes_wrong(product: Connected) -> Iterator[tuple[Callable[[], object], dict[str, int]]]:
    erp = product.adapter(timeout_s=0.6)
    order = an_order(a_reference())
    made = product.erp.create(order)
    yield (lambda: erp.find_by_reference(a_reference())), {"revoke_tokens": 1}
    for fault in (
        "find_500",
        "find_echo",
        "find_html",
        "find_truncated",
        "find_redirect",
        "down",
        "token_503",
    ):
        yield (lambda: product.adapter().find_by_reference(a_reference())), {fault: 1}
    for fault in (
        "error_500",
        "html_200_after_create",
        "refuse",
        "forbidden",
        "hang_after_create",
        "too_many",
    ):
        yield (lambda: erp.create(an_order(a_reference()))), {fault: 1}
    yield (lambda: erp.status("nobody")), {}
    yield (lambda: erp.add_note(made.id, "k", "t")), {"note_500_after_create": 1}


def test_no_secret_is_read_in_errors_logs_and_transcripts(
    product: Connected, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []
    calls: list[Call] = []
    with caplog.at_level(logging.DEBUG):
        for call, faults in _everything_goes_wrong(product):
            product.simulator.set_faults(**faults)
            with recorded() as heard:
                try:
                    call()
                except ErpError as error:
                    seen: BaseException | None = error
                    while seen is not None:
                        told.append(f"{seen!r} {seen} {vars(seen)}")
                        seen = seen.__cause__ or seen.__context__
            calls.extend(heard)
            product.simulator.set_faults(
                **dict.fromkeys((name for name in faults if name != "revoke_tokens"), 0)
            )
    product.simulator.rotate("another one")
    try:
        with recorded() as heard, pytest.raises(ErpError) as refused:
            product.adapter().find_by_reference(a_reference())
    finally:
        product.simulator.rotate(CANARY)
    text = "\n".join([*told, str(refused.value), *map(str, calls), *map(str, heard), caplog.text])

    assert len(calls) > 10
    assert any("***" in call.answer for call in calls)  # what was shown in an answer is taken out there
    assert len(told) > 8
    for form in forms(CANARY):
        assert form not in text
    assert "canary" not in text


def forms(secret: str) -> list[str]:
    pair = f"linewatch:{secret}"
    encoded = f"linewatch:{quote_plus(secret)}"
    return [secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1],
            base64.b64encode(secret.encode()).decode(), base64.b64encode(pair.encode()).decode(),
            base64.b64encode(encoded.encode()).decode()]  # fmt: skip


def test_the_transcript_tells_each_call(product: Connected) -> None:
    reference = a_reference()

    product.erp.find_by_reference(reference)
    with recorded() as calls:
        product.erp.find_by_reference(reference)
        product.erp.create(an_order(reference))
        product.simulator.set_faults(error_500=1)
        with pytest.raises(ErpUnavailableError):
            product.erp.create(an_order(a_reference()))

    outcomes = [call.outcome for call in calls]
    assert outcomes[0] == "200"
    assert outcomes[-1] == "500" or "500" in outcomes
    assert any(call.method == "POST" and call.request_digest.startswith("sha256:") for call in calls)
    assert all(call.ms >= 0 and len(call.answer) <= 300 for call in calls)
