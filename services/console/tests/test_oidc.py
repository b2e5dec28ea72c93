# SPDX-License-Identifier: Apache-2.0
"""Signing in with an identity provider: a real one as a process, and one that lies."""

import contextlib
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import uvicorn
from console_process import (
    DEADLINE_S,
    PASSWORDS,
    Console,
    Start,
    answers,
    ask,
    free_port,
    over,
    stranger,
    users_in,
    wait_for,
)
from oidc_stand_in import CLIENT_ID, CLIENT_SECRET, StandInProvider, new_key

from linewatch_console.oidc import name_of, role_of

ROLE_MAP = "line-leads=approver,admins=admin,everybody=viewer"


def oidc(issuer: str, port: int, folder: Path, **more: str) -> dict[str, str]:
    (folder / "client-secret").write_text(CLIENT_SECRET)
    return {
        "CONSOLE_PORT": str(port), "CONSOLE_PUBLIC_URL": f"http://127.0.0.1:{port}", "CONSOLE_OIDC_ISSUER": issuer,
        "CONSOLE_OIDC_CLIENT_ID": CLIENT_ID, "CONSOLE_OIDC_CLIENT_SECRET_FILE": str(folder / "client-secret"),
        "CONSOLE_OIDC_ROLE_CLAIM": "groups", "CONSOLE_OIDC_ROLE_MAP": ROLE_MAP,
    } | more  # fmt: skip


@pytest.fixture
def provider() -> Iterator[StandInProvider]:
    port, console_port = free_port(), free_port()
    stand_in = StandInProvider(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{console_port}/oidc/callback")
    stand_in.person = {"email": "keller@plant.example", "email_verified": True, "groups": ["line-leads"]}
    config = uvicorn.Config(stand_in.app(), host="127.0.0.1", port=port, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for("the provider listens", lambda: answers(port))
    yield stand_in
    server.should_exit = server.force_exit = True
    thread.join(DEADLINE_S)
    assert not thread.is_alive(), "the provider did not end"


@pytest.fixture
def console(start: Start, provider: StandInProvider, tmp_path: Path) -> Console:
    port = urlsplit(provider.redirect_uri).port
    assert port is not None
    return start(**oidc(provider.url, port, tmp_path))


def sign_in(console: Console, follow: Callable[[str], str] | None = None) -> httpx.Response:
    """Goes the way that a browser goes; `follow` changes the address that the provider leads back to."""
    away = console.http.get("/oidc/start")
    assert away.status_code == 303, away.text
    back = ask(away.headers["location"]).headers["location"]
    return console.http.get(follow(back) if follow else back)


def me(console: Console) -> dict[str, Any] | None:
    answer = console.http.get("/api/me")
    return dict(answer.json()) if answer.status_code == 200 else None


def test_who_the_provider_knows_is_signed_in_with_the_mapped_role(console: Console) -> None:
    assert 'href="/oidc/start"' in console.http.get("/login").text

    answer = sign_in(console)

    assert answer.status_code == 200, (
        "a page of our own: after a redirect the Strict cookie would not be sent"
    )
    assert '<meta http-equiv="refresh" content="0;url=/">' in answer.text
    told = me(console)
    assert told is not None
    assert (told["name"], told["role"], told["sign_in"]) == ("keller@plant.example", "approver", "oidc")
    cookies = answer.headers.get_list("set-cookie")
    assert any("linewatch_session=" in one and "samesite=strict" in one.lower() for one in cookies)


def test_sign_in_is_written_down_with_the_providers_own_name(
    console: Console, provider: StandInProvider
) -> None:
    provider.person["groups"] = ["admins"]
    sign_in(console)

    entries = console.http.get("/api/audit").json()["entries"]
    detail = next(one["detail"] for one in entries if one["what"] == "signed_in")

    assert (detail["how"], detail["subject"], detail["role"]) == ("oidc", "s-1", "admin")


@pytest.mark.parametrize(
    ("lie", "why"),
    [
        ({"iss": "https://elsewhere.example"}, "iss"), ({"iss": None}, "iss"),
        ({"aud": "another-client"}, "aud"), ({"aud": ["another-client"]}, "aud"), ({"aud": None}, "aud"),
        ({"aud": [CLIENT_ID, "another"], "azp": "another"}, "azp"),
        ({"exp": 1}, "expired"), ({"exp": None}, "exp"), ({"iat": 9e9}, ""), ({"nonce": "another"}, "nonce"),
        ({"nonce": None}, "nonce"), ({"sub": None}, "sub"), ({"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"}, "at_hash"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_token_that_does_not_hold_signs_nobody_in(
    console: Console, provider: StandInProvider, lie: dict[str, Any], why: str
) -> None:
    provider.changes = lie

    answer = sign_in(console)

    assert answer.status_code == 403
    assert "the ID token does not hold" in answer.text
    assert why in answer.text
    assert me(console) is None


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_token_that_anybody_could_have_signed_signs_nobody_in(
    console: Console, provider: StandInProvider, algorithm: str
) -> None:
    provider.algorithm = algorithm

    assert sign_in(console).status_code == 403
    assert me(console) is None


def test_token_of_another_key_signs_nobody_in(console: Console, provider: StandInProvider) -> None:
    provider.told_key, provider.key = provider.key, new_key()

    assert sign_in(console).status_code == 403
    assert me(console) is None


def test_two_who_come_at_once_are_both_signed_in_with_keys_that_only_one_has_read(
    console: Console, provider: StandInProvider
) -> None:
    second = Console(console.port, console.evidence_dir, console.process)
    provider.holds_keys = True
    with ThreadPoolExecutor(2) as pool:
        answers_of = [pool.submit(sign_in, console)]
        wait_for("the first waits for the keys", lambda: provider.key_reads == 1)
        answers_of.append(pool.submit(sign_in, second))
        wait_for("the second has its token", lambda: provider.tokens == 2)
        with contextlib.suppress(TimeoutError):  # it waits, too
            answers_of[1].result(0.5)
        provider.holds_keys = False
        assert [one.result(DEADLINE_S).status_code for one in answers_of] == [200, 200]
    second.http.close()
    assert provider.key_reads == 1


def test_keys_that_do_not_come_are_asked_for_once_for_all_who_wait(
    console: Console, provider: StandInProvider
) -> None:
    """One after the other, each would have waited for as long again."""
    second = Console(console.port, console.evidence_dir, console.process)
    provider.holds_keys = True
    with ThreadPoolExecutor(2) as pool:
        answers_of = [pool.submit(sign_in, console)]
        wait_for("the first waits for the keys", lambda: provider.key_reads == 1)
        answers_of.append(pool.submit(sign_in, second))
        assert [one.result(DEADLINE_S).status_code for one in answers_of] == [503, 503]
    provider.holds_keys = False
    second.http.close()
    assert provider.key_reads == 1


def test_provider_may_change_its_keys_at_any_time(console: Console, provider: StandInProvider) -> None:
    assert sign_in(console).status_code == 200
    provider.key = new_key()
    console.http.cookies.clear()

    def again() -> bool:
        return sign_in(console).status_code == 200

    wait_for("the new keys are read", again)
    assert provider.key_reads <= 4, "a token can't make us ask without end"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda back: re.sub(r"state=[^&]*", "state=guess", back), "not begun here"),
        (lambda back: re.sub(r"state=[^&]*", "", back), "not begun here"),
        (lambda back: re.sub(r"code=[^&]*", "code=guess", back), "invalid_grant"),
        (lambda back: re.sub(r"code=[^&]*", "error=access_denied", back), "access_denied"),
        (lambda back: back + "&iss=https%3A%2F%2Felsewhere.example", "another identity provider"),
    ],
    ids=["state", "no state", "code", "error", "issuer"],
)
def test_way_back_that_was_changed_signs_nobody_in(
    console: Console, change: Callable[[str], str], why: str
) -> None:
    answer = sign_in(console, change)

    assert answer.status_code == 403
    assert why in answer.text
    assert me(console) is None


def test_somebody_elses_way_back_signs_nobody_in(console: Console) -> None:
    """Login CSRF: the attacker's own code and state, sent to a victim's browser, which began another sign-in, or none."""
    with stranger(console.url) as attacker:
        away = attacker.get("/oidc/start").headers["location"]
        back = ask(away).headers["location"]

        console.http.get("/oidc/start")
        answer = console.http.get(back)

        assert answer.status_code == 403
        assert "another browser" in answer.text
        assert me(console) is None
        assert attacker.get(back).status_code == 403, "a sign-in is used once"


def test_the_sign_ins_cookie_can_be_planted_by_no_other_host_behind_a_proxy(
    start: Start, provider: StandInProvider, tmp_path: Path
) -> None:
    """Found in review: behind TLS the sign-in's own cookie had a plain name, which any host of the domain can set."""
    port = urlsplit(provider.redirect_uri).port
    assert port is not None
    provider.redirect_uri = "https://console.plant.example/oidc/callback"
    console = start(**oidc(provider.url, port, tmp_path, CONSOLE_PUBLIC_URL="https://console.plant.example"))
    headers = {"Host": "console.plant.example"}
    away = console.http.get("/oidc/start", headers=headers)
    given = away.headers["set-cookie"]
    assert given.startswith("__Host-linewatch_oidc=")
    assert "Secure" in given
    assert "Path=/" in given
    assert "domain" not in given.lower()
    back = urlsplit(ask(away.headers["location"]).headers["location"])
    key, _, value = given.partition(";")[0].partition("=")

    way_back = f"{back.path}?{back.query}"
    planted = ask(console.url + way_back, headers=headers | {"Cookie": f"linewatch_oidc={value}"})
    assert planted.status_code == 403
    away = console.http.get("/oidc/start", headers=headers)
    key, _, value = away.headers["set-cookie"].partition(";")[0].partition("=")
    back = urlsplit(ask(away.headers["location"]).headers["location"])
    answer = ask(f"{console.url}{back.path}?{back.query}", headers=headers | {"Cookie": f"{key}={value}"})

    assert answer.status_code == 200
    ended = [one for one in answer.headers.get_list("set-cookie") if one.startswith("__Host-linewatch_oidc=")]
    assert len(ended) == 1
    assert "Max-Age=0" in ended[0]
    assert "Secure" in ended[0], "else a browser keeps it"


def test_way_back_is_used_once(console: Console) -> None:
    used: list[str] = []

    def remember(back: str) -> str:
        used.append(back)
        return back

    assert sign_in(console, remember).status_code == 200

    assert console.http.get(used[0]).status_code == 403


def test_who_has_no_role_is_refused_and_told_whom_to_ask(console: Console, provider: StandInProvider) -> None:
    provider.person["groups"] = ["canteen"]

    answer = sign_in(console)

    assert answer.status_code == 403
    assert "keller@plant.example has no role at this console" in answer.text
    assert me(console) is None


def test_signing_out_offers_the_providers_own_way_out(console: Console, provider: StandInProvider) -> None:
    sign_in(console)

    form = {"csrf": console.csrf()}
    answer = console.http.post("/logout", data=form, headers={"Origin": console.url})

    address = re.findall(r'href="([^"]*/leave[^"]*)"', answer.text)[0].replace("&amp;", "&")
    assert parse_qs(urlsplit(address).query)["post_logout_redirect_uri"] == [f"{console.url}/login"]
    assert address.startswith(provider.url)
    assert me(console) is None


def test_provider_that_is_away_is_told_and_the_local_users_get_in(start: Start, tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    console = start(**oidc(nobody, free_port(), tmp_path, CONSOLE_USERS_FILE=str(users_in(tmp_path))))

    answer = console.http.get("/oidc/start")

    assert answer.status_code == 503
    assert "the identity provider does not answer" in answer.text
    assert console.sign_in("admin", PASSWORDS["admin"]) == 303
    told = me(console)
    assert told is not None
    assert (told["name"], told["role"]) == ("admin", "admin")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"issuer": "https://elsewhere.example"}, "another issuer"),
        ({"token_endpoint": "http://elsewhere.example/token"}, "not https"),
        ({"jwks_uri": None}, "not https"),
    ],
    ids=["issuer", "plain http", "left out"],
)
def test_provider_that_describes_itself_wrongly_is_not_trusted(
    console: Console, provider: StandInProvider, changes: dict[str, Any], why: str
) -> None:
    provider.metadata_changes = changes

    answer = console.http.get("/oidc/start")

    assert answer.status_code == 503
    assert why in answer.text


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"CONSOLE_OIDC_ISSUER": "http://login.example"}, "CONSOLE_OIDC_ISSUER must start with https://"),
        ({"CONSOLE_PUBLIC_URL": ""}, "CONSOLE_PUBLIC_URL must be set"),
        ({"CONSOLE_PUBLIC_URL": "http://console.plant.example"}, "https://host"),
        ({"CONSOLE_OIDC_ROLE_MAP": ""}, "CONSOLE_OIDC_ROLE_MAP must be set"),
        ({"CONSOLE_OIDC_ROLE_MAP": "leads=king"}, "CONSOLE_OIDC_ROLE_MAP"),
        ({"CONSOLE_OIDC_SCOPES": "email"}, "CONSOLE_OIDC_SCOPES must contain openid"),
        ({"CONSOLE_OIDC_CLIENT_SECRET_FILE": "/nowhere"}, "CONSOLE_OIDC_CLIENT_SECRET_FILE: /nowhere"),
    ],
)
def test_settings_that_would_let_the_wrong_ones_in_end_the_start(
    environment: dict[str, str], tmp_path: Path, settings: dict[str, str], named: str
) -> None:
    env = environment | oidc("https://login.example", free_port(), tmp_path) | settings

    done = subprocess.run(
        [sys.executable, "-m", "linewatch_console"],
        env=env,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )

    assert done.returncode == 2
    assert named in done.stderr
    assert CLIENT_SECRET not in done.stderr


ROLES = {"leads": "approver", "admins": "admin"}


@pytest.mark.parametrize(
    ("claims", "claim", "roles", "role"),
    [
        ({"groups": ["leads", "admins"]}, "groups", ROLES, "admin"),
        ({"groups": "leads"}, "groups", ROLES, "approver"),
        ({"realm_access": {"roles": ["leads"]}}, "realm_access.roles", ROLES, "approver"),
        ({"https://plant.example/roles": ["leads"]}, "https://plant.example/roles", ROLES, "approver"),
        ({"groups": ["canteen"]}, "groups", ROLES, None), ({}, "groups", ROLES, None),
        ({"groups": [["leads"]]}, "groups", ROLES, None), ({"groups": {"leads": 1}}, "groups", ROLES, None),
        ({"groups": ["canteen"]}, "groups", ROLES | {"*": "viewer"}, "viewer"),
        ({"groups": ["*"]}, "groups", {"*": "viewer", "leads": "admin"}, "viewer"),
    ],
)  # fmt: skip
def test_role_comes_from_the_claim(claims: dict[str, Any], claim: str, roles: Any, role: str | None) -> None:
    assert role_of(claims, claim, roles) == role


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"email": "a@b.example", "sub": "1"}, "a@b.example"),
        ({"email": "a@b.example", "email_verified": False, "preferred_username": "a", "sub": "1"}, "a"),
        ({"email": "", "sub": "1"}, "1"), ({"email": "a\r\nX-Linewatch-Role: admin", "sub": "1"}, "aX-Linewatch-Role: admin"),
        ({"email": "x" * 200, "sub": "1"}, "x" * 80), ({"email": ["a"], "sub": "1"}, "1"),
    ],
)  # fmt: skip
def test_name_is_one_that_can_be_recorded(claims: dict[str, Any], name: str) -> None:
    assert name_of(claims, "email") == name


def test_provider_that_others_wrote(start: Start, tmp_path: Path) -> None:
    """oidc-provider-mock, as a process of its own."""
    port = free_port()
    user = {"sub": "s-9", "email": "ivanova@plant.example", "groups": ["line-leads"]}
    process = subprocess.Popen(
        [sys.executable, "-m", "oidc_provider_mock", "--port", str(port), "--require-nonce", "true", "--user-claims", json.dumps(user)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for("the provider listens", lambda: answers(port))
        console = start(**oidc(f"http://127.0.0.1:{port}", free_port(), tmp_path))

        away = console.http.get("/oidc/start").headers["location"]
        with stranger() as browser:
            back = browser.post(away, data={"sub": "s-9"})
        assert back.status_code in {302, 303}, back.text
        answer = console.http.get(back.headers["location"])

        assert answer.status_code == 200, answer.text
        told = me(console)
        assert told is not None
        assert (told["name"], told["role"]) == ("ivanova@plant.example", "approver")
    finally:
        over(process)


def test_session_of_a_provider_ends_when_it_is_old(
    start: Start, provider: StandInProvider, tmp_path: Path
) -> None:
    port = urlsplit(provider.redirect_uri).port
    assert port is not None
    console = start(**oidc(provider.url, port, tmp_path, CONSOLE_SESSION_HOURS="0.001"))
    before = time.monotonic()
    assert sign_in(console).status_code == 200
    # Not the browser's own forgetting: a cookie that is sent on.
    cookies = {"linewatch_session": console.http.cookies["linewatch_session"]}

    def status() -> int:
        return ask(f"{console.url}/api/me", cookies=cookies).status_code

    # A machine that stood still for the whole session has nothing to say of its beginning.
    assert status() == 200 or time.monotonic() - before > 0.001 * 3600
    wait_for("the session ends", lambda: status() == 401)
