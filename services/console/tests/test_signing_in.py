# SPDX-License-Identifier: Apache-2.0
"""The list of users, sessions, and what slows guessing down, seen from a browser's side of a real process."""

import contextlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from console_process import (
    DEADLINE_S,
    PASSWORDS,
    CloudServer,
    Console,
    Start,
    ask,
    quick_hash,
    stranger,
    users_in,
    wait_for,
)
from console_stand_in import work_order

from linewatch_console.people import Person
from linewatch_console.sessions import MOST_OF_ONE_PERSON, MOST_SESSIONS, Sessions
from linewatch_console.sign_in import SignIn
from linewatch_console.throttle import WRONG_PER_NAME_AND_ADDRESS, Throttle
from linewatch_console.user_list import HASHER, User, UserList, is_password, read_users, write_users


def users(file: Path, *arguments: str, password: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "linewatch_console.users", "--file", str(file), *arguments]
    return subprocess.run(
        command, input=password + "\n", capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


@pytest.mark.anyio
@pytest.mark.parametrize("change", ["removed", "demoted"])
async def test_sign_in_stands_on_the_list_by_which_it_was_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """The list may change while the password is reckoned: then the session has to end like one from before."""
    password = "a long enough password"
    before = User(name="M. Keller", role="admin", password=quick_hash(password))
    write_users(tmp_path / "users.json", {before.name: before})
    listed = UserList(tmp_path / "users.json")
    sign_in = SignIn("users", Throttle(time.monotonic, b"k" * 32), listed, "", "")

    def slowly(user: User | None, offered: str, like: User | None) -> bool:
        after = {before.name: before.model_copy(update={"role": "viewer"})} if change == "demoted" else {}
        write_users(tmp_path / "users.json", after)
        assert listed.look()
        return is_password(user, offered, like)

    monkeypatch.setattr("linewatch_console.sign_in.is_password", slowly)
    known = await sign_in.by_password(before.name, password, "127.0.0.1", "")

    assert not sign_in.stands("users", known.person, known.stamp)


def test_users_are_added_changed_listed_checked_and_removed(tmp_path: Path) -> None:
    file = tmp_path / "users.json"
    secret = "a long enough password"

    assert users(file, "add", "M. Keller", "--role", "approver", password=secret).returncode == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert secret not in file.read_text()
    assert users(file, "check", "M. Keller", password=secret).returncode == 0
    assert users(file, "check", "M. Keller", password="another password").returncode == 1
    assert users(file, "check", "Nobody", password=secret).returncode == 1

    generated = users(file, "add", "M. Keller", "--role", "admin", "--generate").stdout
    password = re.findall(r"password: (\S+)", generated)[0]
    assert users(file, "check", "M. Keller", password=password).returncode == 0
    assert users(file, "list").stdout == "admin     M. Keller\n"
    assert "1 users, 1 of them admin" in users(file, "check").stdout

    assert users(file, "remove", "M. Keller").returncode == 0
    assert users(file, "list").stdout == ""
    assert "there is no 'M. Keller'" in users(file, "remove", "M. Keller").stderr


@pytest.mark.parametrize(
    ("arguments", "password", "why"),
    [
        (["add", "A", "--role", "approver"], "short", "12 to 256 characters"),
        (["add", "A", "--role", "approver"], "x" * 257, "12 to 256 characters"),
        (["add", "a\nb", "--role", "approver"], "a long enough password", "visible characters"),
        (["add", " a", "--role", "approver"], "a long enough password", "no blank"),
        (["add", "A", "--role", "king"], "a long enough password", "invalid choice"),
    ],
    ids=["short", "long", "line break", "blank", "role"],
)
def test_user_that_can_not_be_is_refused(
    tmp_path: Path, arguments: list[str], password: str, why: str
) -> None:
    told = users(tmp_path / "users.json", *arguments, password=password)

    assert told.returncode == 2
    assert why in told.stderr
    assert not (tmp_path / "users.json").exists()


def test_first_users_are_made_once_with_passwords_for_their_owner_only(tmp_path: Path) -> None:
    file, passwords = tmp_path / "users.json", tmp_path / "sign-in"

    users(file, "init", "--passwords", str(passwords))
    first = passwords.read_text()
    users(file, "init", "--passwords", str(passwords))

    assert passwords.read_text() == first
    assert passwords.stat().st_mode & 0o777 == 0o600
    made = dict(line.split() for line in first.splitlines())
    assert {user.name: user.role for user in read_users(file).values()} == {role: role for role in made}
    assert users(file, "check", "admin", password=made["admin"]).returncode == 0


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "JSON"),
        ('{"users": [{"name": "a", "role": "king", "password": "x"}]}', "users.0.role"),
        ('{"users": [{"name": "a", "role": "admin", "password": "plain text"}]}', "no Argon2 hash"),
        ('{"users": [{"name": "a", "role": "admin", "password": "$argon2id$v=19$m=9999999,t=3,p=1$c2FsdHNhbHQ$aGFzaA"}]}', "KiB"),
        ('{"users": [], "user": 1}', "user"),
    ],
    ids=["no json", "role", "plain password", "costs", "unknown field"],
)  # fmt: skip
def test_list_that_can_not_be_used_lets_nobody_in_and_says_why(
    start: Start, tmp_path: Path, content: str, why: str
) -> None:
    file = tmp_path / "users.json"
    file.write_text(content)
    console = start(CONSOLE_USERS_FILE=str(file))

    assert console.http.get("/healthz").status_code == 200
    assert console.sign_in("a", "plain text") == 503
    told = users(file, "check")
    assert told.returncode == 2
    assert why in told.stderr
    assert "plain text" not in told.stderr


def test_removed_user_is_out_within_seconds_and_so_is_the_open_page(start: Start, tmp_path: Path) -> None:
    file = users_in(tmp_path)
    console = start(CONSOLE_USERS_FILE=str(file))
    assert console.sign_in("approver", PASSWORDS["approver"]) == 303
    with console.http.stream("GET", "/api/stream") as stream:
        lines = stream.iter_lines()
        next(lines)

        users(file, "remove", "approver")

        assert list(lines) is not None, "the stream ended"
    assert console.http.get("/api/me").status_code == 401
    assert console.sign_in("approver", PASSWORDS["approver"]) == 401


@pytest.mark.parametrize("change", ["role", "password"])
def test_user_with_another_role_or_password_signs_in_anew(start: Start, tmp_path: Path, change: str) -> None:
    file = users_in(tmp_path)
    console = start(CONSOLE_USERS_FILE=str(file))
    console.sign_in("approver", PASSWORDS["approver"])
    before = read_users(file)["approver"]
    changes = {"role": "viewer"} if change == "role" else {"password": quick_hash("another password")}

    write_users(file, read_users(file) | {"approver": before.model_copy(update=changes)})

    wait_for("the session ends", lambda: console.http.get("/api/me").status_code == 401)


def test_list_that_breaks_leaves_who_is_in_and_lets_nobody_new_in(start: Start, tmp_path: Path) -> None:
    file = users_in(tmp_path)
    console = start(CONSOLE_USERS_FILE=str(file))
    console.sign_in("approver", PASSWORDS["approver"])
    whole = file.read_text()

    file.write_text(whole[:40])

    form = {"name": "viewer", "password": PASSWORDS["viewer"]}
    with stranger(console.url) as other:
        answer = other.post("/login", data=form, headers={"Origin": console.url})
        assert answer.status_code == 503
        assert "The list of users" in answer.text
        assert console.http.get("/api/me").status_code == 200

        file.write_text(whole)

        assert other.post("/login", data=form, headers={"Origin": console.url}).status_code == 303


def test_a_session_planted_before_signing_in_is_worth_nothing(signing: Console) -> None:
    signing.sign_in("viewer", PASSWORDS["viewer"])
    planted = signing.http.cookies["linewatch_session"]

    signing.sign_in("admin", PASSWORDS["admin"])

    assert signing.http.cookies["linewatch_session"] != planted
    with_planted = ask(f"{signing.url}/api/me", cookies={"linewatch_session": planted})
    assert with_planted.status_code == 401


def test_signing_out_ends_the_session_and_its_streams(signing: Console) -> None:
    signing.sign_in("viewer", PASSWORDS["viewer"])
    key = signing.http.cookies["linewatch_session"]
    cookies = {"linewatch_session": key}
    with stranger(cookies=cookies) as page, page.stream("GET", f"{signing.url}/api/stream") as stream:
        lines = stream.iter_lines()
        next(lines)

        assert signing.sign_out() == 303

        assert list(lines) is not None, "the stream ended"
    assert ask(f"{signing.url}/api/me", cookies={"linewatch_session": key}).status_code == 401


def test_session_ends_when_it_is_not_used_or_old() -> None:
    now = [0.0]
    sessions = Sessions(lambda: now[0], idle_s=100, longest_s=250)
    idle, used = (sessions.open(Person(name, "viewer"), "users") for name in ("idle", "used"))

    for at in (90, 180, 240):
        now[0] = at
        if found := sessions.of(used.key):
            sessions.use(found)

    assert sessions.of(idle.key) is None
    assert idle.ended.is_set()
    assert sessions.of(used.key) is used
    now[0] = 251
    sessions.sweep(lambda _: True)
    assert used.ended.is_set()


def test_sessions_are_bounded_and_nobody_can_push_others_out() -> None:
    sessions = Sessions(lambda: 0.0, 100, 100)
    other = sessions.open(Person("other", "viewer"), "users")

    own = [sessions.open(Person("greedy", "viewer"), "users") for _ in range(MOST_SESSIONS)]

    assert sessions.of(other.key) is other
    assert sum(sessions.of(one.key) is not None for one in own) == MOST_OF_ONE_PERSON


def test_known_and_unknown_names_are_answered_alike(signing: Console) -> None:
    """Same words, same status; and a hash is reckoned for both."""
    answers = []
    for name in ("viewer", "no such name"):
        answer = signing.http.post(
            "/login", data={"name": name, "password": "wrong"}, headers={"Origin": signing.url}
        )
        answers.append((answer.status_code, answer.text.replace(name, "")))

    assert answers[0] == answers[1]


def test_an_unknown_name_costs_as_much_as_a_known_one(start: Start, tmp_path: Path) -> None:
    costly = User(name="known", role="viewer", password=HASHER.hash("the password of known"))
    write_users(tmp_path / "users.json", {"known": costly})
    console = start(CONSOLE_USERS_FILE=str(tmp_path / "users.json"))
    process = psutil.Process(console.process.pid)
    worked_s = {"known": 0.0, "unknown": 0.0}
    for number in range(4):
        for kind in worked_s:
            name = "known" if kind == "known" else f"unknown {number}"
            before = process.cpu_times()
            assert console.sign_in(name, "wrong") == 401
            after = process.cpu_times()
            worked_s[kind] += after.user + after.system - before.user - before.system

    # The console's own work: what a clock shows beside it is what else this machine does.
    assert 0.4 < worked_s["known"] / worked_s["unknown"] < 2.5, worked_s
    assert worked_s["known"] > 0.1, "of next to nothing one can't say that it is as much"


def test_a_stranger_is_stopped_and_a_browser_that_was_here_is_not(start: Start, tmp_path: Path) -> None:
    console = start(CONSOLE_USERS_FILE=str(users_in(tmp_path)))
    assert console.sign_in("approver", PASSWORDS["approver"]) == 303
    console.sign_out()

    with stranger(console.url) as guesser:
        for name in ("approver", "no such name"):
            tries = [
                guesser.post(
                    "/login", data={"name": name, "password": "guess"}, headers={"Origin": console.url}
                )
                for _ in range(WRONG_PER_NAME_AND_ADDRESS + 1)
            ]
            assert [one.status_code for one in tries] == [401] * WRONG_PER_NAME_AND_ADDRESS + [429], name
        right = {"name": "approver", "password": PASSWORDS["approver"]}
        assert guesser.post("/login", data=right, headers={"Origin": console.url}).status_code == 429
        other = {"name": "viewer", "password": PASSWORDS["viewer"]}
        assert guesser.post("/login", data=other, headers={"Origin": console.url}).status_code == 303

    assert console.sign_in("approver", PASSWORDS["approver"]) == 303


def test_wrong_tries_are_forgotten_and_what_is_remembered_is_bounded() -> None:
    now = [0.0]
    throttle = Throttle(lambda: now[0], b"key")
    for number in range(20_000):
        throttle.wrong(f"name {number}", f"10.0.{number % 250}.{number % 200}", "")
    assert len(throttle._wrong) <= 4096
    for _ in range(5):
        throttle.wrong("a", "192.0.2.1", "")
    assert throttle.wait_s("a", "192.0.2.1", "") > 0
    assert throttle.wait_s("a", "192.0.2.1", throttle.mark("a")) == 0
    assert throttle.wait_s("a", "192.0.2.1", throttle.mark("b")) > 0

    now[0] = 901

    assert throttle.wait_s("a", "192.0.2.1", "") == 0


def test_made_up_names_and_addresses_of_one_network_are_counted_together(
    start: Start, tmp_path: Path
) -> None:
    throttle = Throttle(lambda: 0.0, b"key")
    for number in range(5):
        throttle.wrong("a", f"2001:db8:1:2::{number}", "")
    assert throttle.wait_s("a", "2001:db8:1:2:ffff::1", "") > 0
    assert throttle.wait_s("a", "2001:db8:1:3::1", "") == 0

    (tmp_path / "password").write_text("correct horse battery\n")
    console = start(CONSOLE_PASSWORD_FILE=str(tmp_path / "password"))
    tries = [console.sign_in(f"name {number}", "guess") for number in range(WRONG_PER_NAME_AND_ADDRESS + 1)]
    assert tries == [401] * WRONG_PER_NAME_AND_ADDRESS + [429]


def sent_sign_in(console: Console, number: int) -> socket.socket:
    """A wrong try of a name that nobody has, sent; its answer is on its way."""
    form = f"name=name+{number}&password=guess"
    connection = socket.create_connection(("127.0.0.1", console.port), DEADLINE_S)
    connection.sendall(
        f"POST /login HTTP/1.1\r\nHost: 127.0.0.1:{console.port}\r\nOrigin: {console.url}\r\n"
        f"Content-Length: {len(form)}\r\nConnection: close\r\n\r\n{form}".encode()
    )
    return connection


def test_a_flood_of_sign_ins_leaves_the_page_its_memory_and_cores(start: Start, tmp_path: Path) -> None:
    costly = {"known": User(name="known", role="viewer", password=HASHER.hash("the password of known"))}
    write_users(tmp_path / "users.json", costly)
    console = start(CONSOLE_USERS_FILE=str(tmp_path / "users.json"))

    # All are there before the first is looked at, whichever of the two is quicker on this machine.
    with contextlib.ExitStack() as many:
        console.process.send_signal(signal.SIGSTOP)
        try:
            strangers = [many.enter_context(sent_sign_in(console, number)) for number in range(30)]
        finally:
            console.process.send_signal(signal.SIGCONT)
        statuses = [int(one.recv(65536).split()[1]) for one in strangers]
        status = Path(f"/proc/{console.process.pid}/status").read_text()

    assert set(statuses) <= {401, 429}
    assert 429 in statuses, "more than the queue holds were let in"
    assert int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) < 200 * 1024


def test_cookies_are_for_tls_only_behind_a_proxy_and_only_its_name_is_answered(
    start: Start, tmp_path: Path
) -> None:
    console = start(
        CONSOLE_USERS_FILE=str(users_in(tmp_path)), CONSOLE_PUBLIC_URL="https://console.plant.example"
    )
    headers = {"Host": "console.plant.example", "Origin": "https://console.plant.example"}

    assert console.http.get("/login").status_code == 421
    assert console.http.get("/healthz").status_code == 200
    form = {"name": "viewer", "password": PASSWORDS["viewer"]}
    plain = console.http.post(
        "/login", data=form, headers=headers | {"Origin": "http://console.plant.example"}
    )
    assert plain.status_code == 403
    answer = console.http.post("/login", data=form, headers=headers)

    assert answer.status_code == 303
    assert answer.headers["location"] == "/"
    assert "max-age" in answer.headers["strict-transport-security"]
    for cookie in answer.headers.get_list("set-cookie"):
        assert "Secure" in cookie
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.lower()
    # The browser's mark too: a planted one would open the throttle of somebody's name.
    names = {cookie.partition("=")[0] for cookie in answer.headers.get_list("set-cookie")}
    assert names == {"__Host-linewatch_session", "__Host-linewatch_browser"}


@pytest.mark.parametrize("trusted", [True, False])
def test_a_proxys_word_for_the_address_counts_only_where_it_is_trusted(
    start: Start, tmp_path: Path, trusted: bool
) -> None:
    settings = {"CONSOLE_TRUSTED_PROXIES": "127.0.0.1"} if trusted else {}
    console = start(CONSOLE_USERS_FILE=str(users_in(tmp_path)), **settings)

    console.sign_in("admin", PASSWORDS["admin"], **{"X-Forwarded-For": "192.0.2.77"})

    entries = console.http.get("/api/audit").json()["entries"]
    told = next(one for one in entries if one["what"] == "signed_in")["detail"]["from"]
    assert told == ("192.0.2.77" if trusted else "127.0.0.1")


def test_private_answers_are_kept_by_no_cache(signing: Console) -> None:
    signing.sign_in("admin", PASSWORDS["admin"])

    for path in ("/", "/api/me", "/api/audit", "/api/work-orders", "/metrics", "/login"):
        assert signing.http.get(path).headers["cache-control"] == "no-store", path


def test_what_is_offered_as_password_is_in_no_log(
    start: Start, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    console = start(CONSOLE_USERS_FILE=str(users_in(tmp_path)), CONSOLE_LOG_LEVEL="DEBUG")
    mistaken = "typed into the wrong field"

    console.sign_in("viewer", mistaken)
    console.sign_in(mistaken, "x")
    console.sign_in("admin", PASSWORDS["admin"])
    audit = console.http.get("/api/audit").text
    session = console.http.cookies["linewatch_session"]

    written = capfd.readouterr()
    for secret in (mistaken, PASSWORDS["admin"], session):
        assert secret not in audit
        assert secret not in written.out + written.err
    assert '"sign_in_failed"' in audit


def test_after_signing_in_one_is_led_nowhere_else(signing: Console) -> None:
    form = {"name": "viewer", "password": PASSWORDS["viewer"], "next": "https://elsewhere.example/"}
    answer = signing.http.post("/login?next=//elsewhere.example", data=form, headers={"Origin": signing.url})

    assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_no_redirect_leads_to_the_name_in_the_host_header(signing: Console) -> None:
    """Regression: a slash at the end of an address was answered with a redirect to the Host header's name."""
    signing.sign_in("viewer", PASSWORDS["viewer"])

    for path in ("/api/me/", "/login/", "//", "/static", "/evidence/", "/api/work-orders/lw-1/"):
        answer = signing.http.get(path, headers={"Host": "elsewhere.example"})
        assert "elsewhere.example" not in answer.headers.get("location", ""), path


def test_decisions_are_the_persons_own(signing: Console, cloud: CloudServer) -> None:
    cloud.stand_in.add(work_order("lw-1"))
    signing.sign_in("approver", PASSWORDS["approver"])

    assert signing.post("/api/work-orders/lw-1/approve", {"reason": "seen"}).status_code == 200

    sent = cloud.stand_in.headers[-1]
    assert (sent["x-linewatch-user"], sent["x-linewatch-role"]) == ("approver", "approver")
    assert cloud.stand_in.decided == [("lw-1", "approve", "approver", "seen")]


def test_name_of_any_language_goes_to_the_cloud_whole(
    start: Start, cloud: CloudServer, tmp_path: Path
) -> None:
    name = "Łukasz Müller 山田"
    user = User(name=name, role="approver", password=quick_hash(PASSWORDS["approver"]))
    write_users(tmp_path / "users.json", {name: user})
    cloud.stand_in.add(work_order("lw-1"))
    console = start(
        CONSOLE_USERS_FILE=str(tmp_path / "users.json"), CONSOLE_CLOUD_API_URL=f"http://127.0.0.1:{cloud.port}",
        CONSOLE_CLOUD_API_TOKEN_FILE=str(tmp_path / "token"),
    )  # fmt: skip
    console.sign_in(name, PASSWORDS["approver"])

    console.post("/api/work-orders/lw-1/approve", {})

    assert cloud.stand_in.decided == [("lw-1", "approve", name, "")]


def test_sessions_open_while_one_signs_out_at_once_are_consistent(signing: Console) -> None:
    """Many requests while the session ends: each is answered whole, none after the end is let in."""
    signing.sign_in("viewer", PASSWORDS["viewer"])
    cookies = dict(signing.http.cookies)
    ended = threading.Event()
    heard: list[int] = []
    late: list[int] = []

    def look() -> None:
        while not ended.is_set():
            heard.append(ask(f"{signing.url}/api/me", cookies=cookies).status_code)
        late.append(ask(f"{signing.url}/api/me", cookies=cookies).status_code)

    askers = [threading.Thread(target=look) for _ in range(4)]
    for one in askers:
        one.start()
    wait_for("they ask", lambda: len(heard) >= len(askers))
    signing.sign_out()
    ended.set()
    for one in askers:
        one.join(2 * DEADLINE_S)

    assert set(heard) <= {200, 401}
    assert late == [401] * 4
