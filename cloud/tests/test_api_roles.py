# SPDX-License-Identifier: Apache-2.0
"""Who may do what, and what a wrong request is told: every route, every role, every field."""

import base64
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.errors import BadRequestError, ForbiddenError, NotFoundError
from api.request import MAX_BODY, MAX_DEPTH, MAX_TEXT, OWN_NAMES, ROLES, Request, identified, read
from api.routes import ROUTES, admit, route_of

WORDS = {"{reference}": "lw-0123456789abcdef", "{event_id}": "event-1", "{chain+}": "model/sha256:00"}


def event(method: str, path: str, body: str | None = None, **headers: str) -> dict[str, Any]:
    """What API Gateway sends, payload format 2.0."""
    return {
        "requestContext": {"http": {"method": method, "path": path}},
        "headers": headers,
        "body": body,
        "isBase64Encoded": False,
    }


def tried(call: Callable[[], Any]) -> tuple[Any, Any]:
    """What the call gave, or how it refused; anything else that it raises fails the test."""
    try:
        return call(), None
    except BadRequestError as error:
        return None, error


def placed(path: str) -> str:
    return "/" + "/".join(WORDS.get(part, part) for part in path.split("/"))


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_each_route_is_found_by_its_own_address_and_admits_its_role_and_those_above(route: Any) -> None:
    found, request = route_of(read(event(route.method, placed(route.path)), 0.0))

    assert found is route
    if route.role is None:
        return
    for role in ROLES:
        acting = identified(
            Request(**{
                name: getattr(request, name) for name in request.__slots__ if name not in ("headers", "role")
            }, headers={"x-linewatch-user": "A", "x-linewatch-role": role})
        )  # fmt: skip
        if ROLES.index(role) >= ROLES.index(route.role):
            admit(route, acting)
        else:
            with pytest.raises(ForbiddenError, match=route.role):
                admit(route, acting)


def test_whoever_changes_something_is_no_viewer() -> None:
    changing = [route for route in ROUTES if route.method != "GET"]

    assert changing
    assert all(route.role in (None, "approver", "admin") for route in changing)
    assert [route.path for route in ROUTES if route.role is None] == ["erp/events"]


@pytest.mark.parametrize(
    "path", ["/", "/work-orders/a/b", "/work-orders/a/approve/b", "/records", "/erp", "//summary/x"]
)
def test_what_is_no_route_is_not_found(path: str) -> None:
    with pytest.raises(NotFoundError):
        route_of(read(event("GET", path), 0.0))


@given(name=st.text(min_size=1, max_size=60))
def test_a_user_of_any_letters_arrives_as_it_was_sent_or_is_refused_by_name(name: str) -> None:
    try:
        sent = quote(name, safe="")
    except UnicodeEncodeError:
        return  # a lone surrogate is in no header
    request = read(event("GET", "/summary", **{"X-Linewatch-User": sent, "X-Linewatch-Role": "viewer"}), 0.0)
    known, refused = tried(lambda: identified(request))
    assert known.user == name.strip() if known else refused.field == "X-Linewatch-User"
    assert known is None or known.user.casefold() not in OWN_NAMES


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({"X-Linewatch-User": "A"}, "X-Linewatch-Role"),
        ({"X-Linewatch-Role": "approver"}, "X-Linewatch-User"),
        ({"X-Linewatch-User": "A", "X-Linewatch-Role": "owner"}, "X-Linewatch-Role"),
        ({"X-Linewatch-User": "%ff%fe", "X-Linewatch-Role": "viewer"}, "X-Linewatch-User"),
        ({"X-Linewatch-User": "A%00B", "X-Linewatch-Role": "viewer"}, "X-Linewatch-User"),
        # Under these names Linewatch itself decides: nobody else may, or a record could not tell them apart.
        ({"X-Linewatch-User": "Policy", "X-Linewatch-Role": "approver"}, "X-Linewatch-User"),
        ({"X-Linewatch-User": "%20erp%20", "X-Linewatch-Role": "approver"}, "X-Linewatch-User"),
        ({"X-Linewatch-User": "A" * 201, "X-Linewatch-Role": "viewer"}, "X-Linewatch-User"),
    ],
)
def test_half_an_identity_is_none(headers: dict[str, str], field: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        identified(read(event("GET", "/summary", **headers), 0.0))

    assert refused.value.field == field


def test_consoles_of_releases_before_are_approvers_and_nobody_in_particular() -> None:
    request = identified(read(event("GET", "/summary"), 0.0))

    assert (request.role, request.user) == ("approver", "")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=20,
)


@given(content=JSON | st.dictionaries(st.sampled_from(["by", "reason", "into"]), JSON))
def test_any_json_is_a_body_of_texts_or_a_refusal_that_names_a_field(content: Any) -> None:
    def texts() -> list[str]:
        body = read(event("POST", "/x", json.dumps(content)), 0.0).body(("by", "reason", "into"))
        return [body.text(name, is_needed=False) for name in ("by", "reason", "into")]

    found, refused = tried(texts)

    assert refused is None or (refused.field and str(refused).startswith(f"{refused.field}: "))
    assert found is None or all(isinstance(text, str) and len(text) <= MAX_TEXT for text in found)


@given(raw=st.binary(max_size=200) | st.text(max_size=200))
def test_any_bytes_are_a_body_or_a_refusal(raw: bytes | str) -> None:
    sent = event("POST", "/x", raw if isinstance(raw, str) else base64.b64encode(raw).decode())
    sent["isBase64Encoded"] = isinstance(raw, bytes)

    content, refused = tried(lambda: read(sent, 0.0).content())

    assert isinstance(content, dict) if refused is None else refused.field


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("[" * 100_000, "body"),
        ('{"reason":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1), "body"),
        ('{"reason": "a", "reason": "b"}', "reason"),
        ('{"finding": 1}', "finding"),
        ('{"reason": NaN}', "body"),
        ('{"raeson": "x"}', "raeson"),
        (json.dumps({"reason": "x" * (MAX_TEXT + 1)}), "reason"),
        (json.dumps({"reason": "a\u202eb\x00"}), "reason"),
        ('{"reason": "\\ud800"}', "reason"),
        ('{"a": "' + "x" * MAX_BODY + '"}', "body"),
        ("null", "body"),
        ("\ud800", "body"),
    ],
)
def test_hostile_bodies_are_refused_by_name(body: str, field: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        read(event("POST", "/x", body), 0.0).body(("reason", "finding")).text(
            "finding" if field == "finding" else "reason"
        )

    assert refused.value.field == field


def test_numbers_of_a_query_have_their_bounds() -> None:
    def request(**query: str) -> Request:
        return read({**event("GET", "/x"), "queryStringParameters": query}, 0.0)

    assert request().whole("limit", 50, 1, 200) == 50
    assert request(limit="3").whole("limit", 50, 1, 200) == 3
    for wrong in ("0", "201", "1.5", "many", "nan", "inf", "-1", "1e400", "٣x"):
        with pytest.raises(BadRequestError, match="limit"):
            request(limit=wrong).whole("limit", 50, 1, 200)


def test_a_route_never_takes_anothers_place() -> None:
    """Addresses made of the routes' own words, in any order, lead to a route whose pattern they match, or nowhere."""
    chance = random.Random(7)
    words = sorted({part for route in ROUTES for part in route.path.split("/")} | {"x", "lw-1"})
    for _ in range(3_000):
        path = [chance.choice(words) for _ in range(chance.randint(1, 4))]
        try:
            route, request = route_of(
                read(event(chance.choice(["GET", "POST", "PUT"]), "/" + "/".join(path)), 0.0)
            )
        except NotFoundError:
            continue
        made = "/".join(request.place.get(part.strip("{+}"), part) for part in route.path.split("/"))
        assert made == "/".join(path)


def test_the_readme_lists_every_route_with_its_role_and_no_other() -> None:
    page = (Path(__file__).parents[1] / "README.md").read_text()
    listed = re.findall(
        r"^\| `(GET|POST|PUT) ([^`]+)` \| (viewer|approver|admin|who can sign) \|", page, re.M
    )

    assert listed == [(route.method, route.path, route.role or "who can sign") for route in ROUTES]
