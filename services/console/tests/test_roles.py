# SPDX-License-Identifier: Apache-2.0
"""Who may use which address: every address, every role, and nobody."""

from pathlib import Path

import pytest
from console_process import PASSWORDS, CloudServer, Console, Start, ask, users_in
from console_stand_in import work_order

from linewatch_console.people import ROLES
from linewatch_console.web import ADDRESSES

EXPECTED = {
    ("GET", "/healthz"): None,
    ("GET", "/login"): None,
    ("POST", "/login"): None,
    ("GET", "/oidc/start"): None,
    ("GET", "/oidc/callback"): None,
    ("GET", "/"): "viewer",
    ("POST", "/logout"): "viewer",
    ("GET", "/metrics"): "viewer",
    ("GET", "/api/me"): "viewer",
    ("GET", "/api/stream"): "viewer",
    ("GET", "/api/work-orders"): "viewer",
    ("GET", "/api/work-orders/{reference}"): "viewer",
    ("GET", "/api/work-orders/{reference}/why"): "viewer",
    ("GET", "/api/verify/{reference}"): "viewer",
    ("GET", "/api/accuracy"): "viewer",
    ("GET", "/api/pilot-exit"): "viewer",
    ("GET", "/api/policy"): "viewer",
    ("GET", "/api/assets"): "viewer",
    ("GET", "/evidence/{path:path}"): "viewer",
    ("POST", "/api/work-orders/{reference}/{verb}"): "approver",
    ("POST", "/api/escapes"): "approver",
    ("POST", "/api/policy"): "admin",
    ("GET", "/api/audit"): "admin",
}
"""The least role; None: open. Said here once more, so that a change of it is seen."""

NOT_ALLOWED = {401, 403}


def test_every_address_is_in_the_table_below() -> None:
    assert {(address.method, address.path): address.role for address in ADDRESSES} == EXPECTED


def asked(console: Console, method: str, path: str, headers: dict[str, str]) -> int:
    address = path.replace("{path:path}", "x.jpg").format(reference="lw-1", verb="approve")
    content = {"json": {"no such field": 1}} if method == "POST" else {}
    with console.http.stream(method, address, headers=headers, **content) as answer:  # type: ignore[arg-type]
        return answer.status_code


@pytest.mark.parametrize(("method", "path"), sorted(EXPECTED), ids=str)
def test_who_has_not_signed_in_sees_nothing_but_the_way_in(signing: Console, method: str, path: str) -> None:
    status = asked(signing, method, path, {"Origin": signing.url})

    least = EXPECTED[method, path]
    expected = {401} if path.startswith(("/api", "/evidence", "/metrics")) else {303}
    if least is None:
        assert status != 401 or (method, path) == ("POST", "/login")
    else:
        assert status in expected


@pytest.mark.parametrize("role", ROLES)
def test_each_role_may_what_it_may_and_nothing_above(signing: Console, cloud: CloudServer, role: str) -> None:
    cloud.stand_in.add(work_order("lw-1"))
    assert signing.sign_in(role, PASSWORDS[role]) == 303
    headers = {"Origin": signing.url, "X-CSRF-Token": signing.csrf()}

    for (method, path), least in EXPECTED.items():
        if least is None or path == "/logout":
            continue
        status = asked(signing, method, path, headers)
        if ROLES.index(role) >= ROLES.index(least):  # type: ignore[arg-type]
            assert status not in NOT_ALLOWED, (method, path)
        else:
            assert status == 403, (method, path)

    assert cloud.stand_in.decided == []


@pytest.mark.parametrize(
    ("method", "path"), sorted(key for key, role in EXPECTED.items() if key[0] == "POST" and role)
)
@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({"Origin": "http://elsewhere.example"}, "this page"),
        ({"Origin": ""}, "this page"),
        ({"Origin": "null"}, "this page"),
        ({"X-CSRF-Token": "guess"}, "token"),
        ({"X-CSRF-Token": ""}, "token"),
    ],
    ids=["elsewhere", "no origin", "null", "guessed token", "no token"],
)
def test_nothing_changes_without_origin_and_token(
    signing: Console, cloud: CloudServer, method: str, path: str, headers: dict[str, str], why: str
) -> None:
    cloud.stand_in.add(work_order("lw-1"))
    signing.sign_in("admin", PASSWORDS["admin"])
    address = path.format(reference="lw-1", verb="approve")

    good = {"Origin": signing.url, "X-CSRF-Token": signing.csrf()}
    answer = signing.http.request(method, address, json={}, headers=good | headers)

    assert answer.status_code == 403
    assert why in answer.json()["error"]
    assert cloud.stand_in.decided == []
    assert signing.http.get("/api/me").status_code == 200, "nobody was signed out"


def test_refused_for_the_role_is_told_and_written_down(signing: Console, cloud: CloudServer) -> None:
    cloud.stand_in.add(work_order("lw-1"))
    signing.sign_in("viewer", PASSWORDS["viewer"])

    answer = signing.post("/api/work-orders/lw-1/approve", {})

    assert answer.json() == {"error": "this needs the role approver; yours is viewer"}
    signing.http.cookies.clear()
    signing.sign_in("admin", PASSWORDS["admin"])
    entries = signing.http.get("/api/audit").json()["entries"]
    newest = next(one for one in entries if one["what"] == "refused")
    assert (newest["by"], newest["detail"]["needs"]) == ("viewer", "approver")
    assert newest["detail"]["address"] == "/api/work-orders/lw-1/approve"


def test_on_loopback_without_a_way_to_sign_in_one_is_an_approver_and_no_admin(start: Start) -> None:
    console = start(CONSOLE_OPERATOR_NAME="J. Müller")

    me = console.http.get("/api/me").json()

    assert (me["name"], me["role"], me["sign_in"]) == ("J. Müller", "approver", "none")
    assert console.http.get("/api/audit").status_code == 403


def test_one_password_for_all_still_makes_an_approver(start: Start, tmp_path: Path) -> None:
    """As 0.2.0 was set up."""
    (tmp_path / "password").write_text("correct horse battery\n")
    console = start(
        CONSOLE_HOST="0.0.0.0", CONSOLE_PASSWORD_FILE=str(tmp_path / "password"), CONSOLE_OPERATOR_NAME="shift lead",
    )  # fmt: skip

    assert console.sign_in("", "correct horse battery") == 303
    me = console.http.get("/api/me").json()

    assert (me["name"], me["role"], me["sign_in"]) == ("shift lead", "approver", "password")


def test_a_list_of_users_takes_the_place_of_the_one_password(start: Start, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("correct horse battery\n")
    console = start(
        CONSOLE_PASSWORD_FILE=str(tmp_path / "password"), CONSOLE_USERS_FILE=str(users_in(tmp_path))
    )

    assert console.sign_in("", "correct horse battery") == 401
    assert console.sign_in("supervisor", "correct horse battery") == 401
    assert console.sign_in("approver", PASSWORDS["approver"]) == 303


def test_a_list_of_users_that_is_not_there_opens_nothing(start: Start, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("correct horse battery\n")
    file = tmp_path / "users.json"
    console = start(CONSOLE_PASSWORD_FILE=str(tmp_path / "password"), CONSOLE_USERS_FILE=str(file))

    assert console.http.get("/api/me").status_code == 401
    assert console.sign_in("supervisor", "correct horse battery") == 503

    users_in(tmp_path)

    assert console.sign_in("approver", PASSWORDS["approver"]) == 303


def test_methods_that_no_address_has_are_refused(signing: Console) -> None:
    signing.sign_in("admin", PASSWORDS["admin"])

    for method in ("PUT", "DELETE", "PATCH", "TRACE"):
        answer = ask(f"{signing.url}/api/work-orders/lw-1", method, cookies=signing.http.cookies)
        assert answer.status_code == 405
