# SPDX-License-Identifier: Apache-2.0
"""What lies below every adapter: one moment at which a call ends, connections, TLS, the token's life. Real sockets."""

import contextlib
import datetime
import json
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from erp_products import SecretsManager, environment, serving

from erp import http as erp_http
from erp.choose import erp_of
from erp.deadline import within
from erp.http import Http, checked
from erp.oauth import Tokens
from erp.port import ErpAwayError, ErpRefusedError, ErpUnavailableError
from erp.sap import SapSettings
from erp.secret import Secret
from erp.settings import SettingsError, read
from erp.transcript import MAX_CALLS, Call, Hidden, record, recorded

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
# What a machine that is busy may add to a time-out; still less than the 25 s of a whole drip.
BUSY_S = 15.0
# Of a server that never answers in time. A time-out that begins before the connection stands would say that nothing was sent.
TIMEOUT_S = 2.0
# Of a server that answers, however late.
PATIENT_S = 60.0


@dataclass
class Server:
    """A TCP server whose connections are each handled by `handle(connection, number)`."""

    handle: Callable[[socket.socket, int], None]
    context: ssl.SSLContext | None = None
    accepted: int = 0
    requests: list[bytes] = field(default_factory=list)
    port: int = 0

    @contextlib.contextmanager
    def running(self) -> Iterator["Server"]:
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                self.accepted += 1
                threading.Thread(target=self._serve, args=(connection, self.accepted), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield self
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError), connection:
            if not self.context:
                self.handle(connection, number)
                return
            with self.context.wrap_socket(connection, server_side=True) as protected:
                self.handle(protected, number)

    def read(self, connection: socket.socket) -> bytes:
        """One request, with its body."""
        got = b""
        while b"\r\n\r\n" not in got:
            chunk = connection.recv(65536)
            if not chunk:
                return b""
            got += chunk
        head, _, body = got.partition(b"\r\n\r\n")
        length = next(
            (
                int(line.split(b":")[1])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length")
            ),
            0,
        )
        while len(body) < length:
            body += connection.recv(65536)
        self.requests.append(head + b"\r\n\r\n" + body)
        return self.requests[-1]


def dripping(server: Server, text: bytes) -> Callable[[socket.socket, int], None]:
    def handle(connection: socket.socket, _number: int) -> None:
        server.read(connection)
        stop = threading.Event()
        for place in range(len(text)):
            connection.sendall(text[place : place + 1])
            stop.wait(0.05)

    return handle


@pytest.mark.parametrize("headers_first", [False, True])
def test_an_answer_that_drips_ends_at_the_time_out(headers_first: bool) -> None:
    """Each byte comes soon enough for a socket's own time-out; the whole would take 25 seconds."""
    head = OK.replace(b"Content-Length: 2", b"Content-Length: 500").partition(b"{")[0]
    server = Server(lambda *_: None)
    server.handle = dripping(server, (b"" if headers_first else b"HTTP/1.1 200 OK\r\nX: ") + b" " * 500)
    if headers_first:
        drip = dripping(server, b" " * 500)

        def handle(connection: socket.socket, number: int) -> None:
            connection.sendall(head)
            drip(connection, number)

        server.handle = handle
    with server.running():
        http = Http(f"http://127.0.0.1:{server.port}", TIMEOUT_S, Hidden())
        began = time.monotonic()

        with pytest.raises(ErpUnavailableError) as told:
            http.send("POST", "/", json_body={})

        assert time.monotonic() - began < TIMEOUT_S + BUSY_S
        assert told.value.may_have_created


def test_an_answer_without_end_is_left_at_its_limit() -> None:
    """A busy machine reads 2 MB in far less than the time-out."""
    sent = 0

    def handle(connection: socket.socket, _number: int) -> None:
        nonlocal sent
        server.read(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[")
        while True:
            sent += connection.send(b" " * 65536)

    server = Server(handle)
    with server.running():
        with pytest.raises(ErpUnavailableError, match="ResponseError"):
            Http(f"http://127.0.0.1:{server.port}", 30, Hidden()).send("GET", "/")

        assert sent < 20 * erp_http.MAX_BYTES


def test_a_handshake_that_never_ends_is_no_connection() -> None:
    server = Server(lambda connection, _: dripping_forever(connection))
    with server.running():
        http = Http(f"https://127.0.0.1:{server.port}", TIMEOUT_S, Hidden())
        began = time.monotonic()

        with pytest.raises(ErpAwayError):
            http.send("POST", "/", json_body={})

        assert time.monotonic() - began < TIMEOUT_S + BUSY_S


def dripping_forever(connection: socket.socket) -> None:
    # A TLS record of 16 KB that comes byte by byte.
    stop = threading.Event()
    connection.sendall(b"\x16\x03\x03\x40\x00")
    for _ in range(500):
        connection.sendall(b"\x02")
        stop.wait(0.05)


def test_a_kept_connection_that_was_closed_costs_a_search_nothing_and_an_order_no_double(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other side closes after one answer without saying so; a search is sent again, an order is not."""

    def handle(connection: socket.socket, number: int) -> None:
        server.read(connection)
        connection.sendall(OK)
        server.read(connection)  # and no answer: closed

    monkeypatch.setattr(erp_http, "IDLE_S", math.inf)  # however long the test stood still
    server = Server(handle)
    with server.running():
        http = Http(f"http://127.0.0.1:{server.port}", PATIENT_S, Hidden())
        http.send("GET", "/")
        assert http.send("GET", "/").status == 200
        assert len(server.requests) == 3

        with pytest.raises(ErpUnavailableError) as told:
            http.send("POST", "/", json_body={"n": 1})

        assert told.value.may_have_created
        assert sum(b'{"n":1}' in request for request in server.requests) == 1


def test_a_connection_that_was_idle_for_long_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def handle(connection: socket.socket, _number: int) -> None:
        while server.read(connection):
            connection.sendall(OK)

    monkeypatch.setattr(erp_http, "IDLE_S", math.inf)
    server = Server(handle)
    with server.running():
        http = Http(f"http://127.0.0.1:{server.port}", PATIENT_S, Hidden())
        for _ in range(3):
            http.send("GET", "/")
        assert server.accepted == 1
        monkeypatch.setattr(erp_http, "IDLE_S", -1.0)

        http.send("GET", "/")

        assert server.accepted == 2


def test_an_erp_that_answers_slowly_keeps_its_connection() -> None:
    """It is idle from the answer on, not from the request."""

    def handle(connection: socket.socket, number: int) -> None:
        while server.read(connection):
            if number == 1:
                http._used_at -= 4.0  # what the answer takes
            connection.sendall(OK)

    server = Server(handle)
    with server.running():
        http = Http(f"http://127.0.0.1:{server.port}", PATIENT_S, Hidden())
        http.send("GET", "/")
        http.send("GET", "/")
        assert server.accepted == 1


def test_an_order_is_not_posted_on_a_connection_that_its_server_may_be_closing() -> None:
    """Uvicorn closes one after 5 s: what was posted in that moment was reset, and the order unclear."""

    def handle(connection: socket.socket, _number: int) -> None:
        while server.read(connection):
            connection.sendall(OK)

    server = Server(handle)
    with server.running():
        http = Http(f"http://127.0.0.1:{server.port}", PATIENT_S, Hidden())
        http.send("GET", "/")
        http._used_at -= 4.0

        assert http.send("POST", "/", json_body={}).status == 200
        assert server.accepted == 2


def test_a_private_authority_is_trusted_where_it_is_named_and_only_there(tmp_path: Path) -> None:
    authority, context = _authority(tmp_path)

    def handle(connection: socket.socket, _number: int) -> None:
        server.read(connection)
        connection.sendall(OK)

    server = Server(handle, context)
    with server.running():
        url = f"https://127.0.0.1:{server.port}"
        with pytest.raises(ErpAwayError, match="no connection"):
            Http(url, PATIENT_S, Hidden()).send("GET", "/")

        assert Http(url, PATIENT_S, Hidden(), authority).send("GET", "/").status == 200


def _authority(place: Path) -> tuple[str, ssl.SSLContext]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "plant")])
    now = datetime.datetime.now(datetime.UTC)
    import ipaddress

    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (place / "c.pem").write_bytes(pem)
    (place / "k.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place / "c.pem", place / "k.pem")
    return pem.decode(), context


def test_a_wrong_authority_is_named_at_start() -> None:
    with pytest.raises(SettingsError, match="ca_pem"):
        erp_of(
            environment("atlas", "http://127.0.0.1:9", ca_pem="no certificate"),
            SecretsManager(api_key="k" * 8),
        )


# --------------------------------------------------------------------------------------------------------- the token


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Endpoint:
    """A token endpoint whose answers a test names."""

    life: object = 3600
    status: int = 200
    body: bytes | None = None
    fetched: int = 0
    server: Server | None = None

    def handle(self, connection: socket.socket, _number: int) -> None:
        assert self.server
        while self.server.read(connection):
            self.fetched += 1
            shown = {"access_token": f"token-{self.fetched}", "token_type": "Bearer", "expires_in": self.life}
            body = self.body if self.body is not None else json.dumps(shown).encode()
            head = f"HTTP/1.1 {self.status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()
    made.server = Server(made.handle)
    with made.server.running():
        yield made


def tokens(endpoint: Endpoint, clock: Clock, **secret: str) -> Tokens:
    assert endpoint.server
    value = secret or {"client_id": "linewatch", "client_secret": "canary-secret"}
    hidden = Hidden()
    secrets = Secret(SecretsManager(**value), "erp", hidden)
    return Tokens(f"http://127.0.0.1:{endpoint.server.port}/t", secrets, PATIENT_S, hidden, clock=clock)


def test_a_token_is_kept_for_its_life_and_refreshed_a_minute_early(endpoint: Endpoint) -> None:
    clock = Clock()
    kept = tokens(endpoint, clock)

    assert [kept.get() for _ in range(3)] == ["token-1"] * 3
    clock.now += 3600 - 61
    assert kept.get() == "token-1"
    clock.now += 2
    assert kept.get() == "token-2"


def test_a_short_life_is_used_for_half_of_it(endpoint: Endpoint) -> None:
    clock = Clock()
    endpoint.life = 30
    kept = tokens(endpoint, clock)

    assert kept.get() == "token-1"
    clock.now += 14
    assert kept.get() == "token-1"
    clock.now += 2
    assert kept.get() == "token-2"


def test_an_endpoint_that_is_away_at_the_early_refresh_stops_nothing_yet(endpoint: Endpoint) -> None:
    clock = Clock()
    kept = tokens(endpoint, clock)
    kept.get()
    endpoint.status = 503
    clock.now += 3600 - 30

    assert kept.get() == "token-1"
    clock.now += 31
    with pytest.raises(ErpAwayError, match="503"):
        kept.get()


def test_many_callers_fetch_one_token(endpoint: Endpoint) -> None:
    kept = tokens(endpoint, Clock())

    with ThreadPoolExecutor(16) as pool:
        got = set(pool.map(lambda _: kept.get(), range(64)))

    assert got == {"token-1"}
    assert endpoint.fetched == 1


def test_a_newer_token_is_not_dropped_by_a_late_401(endpoint: Endpoint) -> None:
    kept = tokens(endpoint, Clock())
    old = kept.get()
    kept.forget(old)
    new = kept.get()

    kept.forget(old)

    assert kept.get() == new


@pytest.mark.parametrize(
    "body",
    [b"{}", b"[]", b"null", b"<html>", b'{"access_token": "canary-token"', b'{"access_token": "canary-token", "token_type": "Bearer", "expires_in": "soon"}',
     b'{"access_token": "canary-token", "token_type": "Bearer", "expires_in": NaN}'],
)  # fmt: skip
def test_an_answer_without_a_token_is_away_and_shows_nothing(endpoint: Endpoint, body: bytes) -> None:
    endpoint.body = body

    with pytest.raises(ErpAwayError) as told:
        tokens(endpoint, Clock()).get()

    assert "canary" not in repr(told.value) + str(told.value.__cause__) + repr(told.value.__cause__)


def test_a_life_that_is_not_told_is_taken_for_short(endpoint: Endpoint) -> None:
    endpoint.body = b'{"access_token": "one", "token_type": "Bearer"}'
    clock = Clock()
    kept = tokens(endpoint, clock)
    kept.get()
    clock.now += 500
    kept.get()
    assert endpoint.fetched == 1
    clock.now += 100
    kept.get()
    assert endpoint.fetched == 2


@pytest.mark.parametrize("value", [{"client_id": "x"}, {"password": "canary-secret"}])
def test_a_secret_without_what_is_needed_is_named_and_not_shown(
    endpoint: Endpoint, value: dict[str, str]
) -> None:
    with pytest.raises(ErpAwayError) as told:
        tokens(endpoint, Clock(), **value).get()

    assert "client_" in str(told.value)
    assert "canary" not in str(told.value)


@pytest.mark.parametrize("key", ["canary-κλειδί", "canary\nX-Injected: 1", "canary\x00"])
def test_a_key_that_no_header_can_bear_is_away_and_not_shown(key: str) -> None:
    erp = erp_of(environment("atlas", "http://127.0.0.1:9"), SecretsManager(api_key=key))

    with recorded() as calls, pytest.raises(ErpAwayError) as told:
        erp.find_by_reference("lw-1")

    shown = f"{told.value!r} {told.value.__cause__!r} {told.value.__context__!r} {calls}"
    assert "canary" not in shown


@pytest.mark.parametrize(
    "text", ["canary-secret", '"canary-secret"', '{"client_id": 1, "client_secret": "canary-secret"}', "{"]
)
def test_a_secret_that_is_no_json_object_of_texts_is_away_and_not_shown(text: str) -> None:
    manager = SecretsManager()
    manager.stages["AWSCURRENT"] = text

    with pytest.raises(ErpAwayError) as told:
        Secret(manager, "erp", Hidden()).read()

    assert told.value.__cause__ is None
    assert "canary" not in str(told.value)


def test_a_client_that_wants_its_secret_in_the_form_gets_it_there() -> None:
    with serving("rest") as connected:
        for style in ("basic", "body"):
            assert connected.adapter(client_auth=style).find_by_reference("lw-none") is None


# ------------------------------------------------------------------------------------------------- transcript, settings


def test_a_transcript_is_bounded_and_only_of_what_is_inside() -> None:
    call = Call("GET", "/", "200", 1, "", "")
    record(call)
    with recorded() as outer:
        record(call)
        with recorded() as inner:
            for _ in range(MAX_CALLS + 5):
                record(call)
        record(call)

    assert (len(outer), len(inner)) == (2, MAX_CALLS)


def test_credentials_that_a_gateway_shows_in_its_own_words_are_taken_out() -> None:
    hidden = Hidden()
    hidden.add("canary-secret")
    body = b'{"message": "not with Bearer canary-secret"}'
    answer = erp_http.Answer(
        "POST /x", 422, {}, body, hidden.excerpt(body.decode()), is_safe=False, hidden=hidden
    )

    with pytest.raises(ErpRefusedError) as told:
        checked(answer, lambda answer: str(answer.json()["message"]))

    assert str(told.value) == "POST /x answered 422: not with Bearer ***"


def test_a_cut_answer_shows_no_half_of_a_secret() -> None:
    hidden = Hidden()
    hidden.add("canary-secret-of-some-length")

    shown = hidden.excerpt("x" * 290 + "canary-secret-of-some-length" + "y" * 100)

    assert "canary" not in shown
    assert len(shown) == 300


@pytest.mark.parametrize(
    ("status", "kind", "may"),
    [(400, ErpRefusedError, False), (404, ErpRefusedError, False), (422, ErpRefusedError, False),
     (401, ErpAwayError, False), (429, ErpUnavailableError, False), (408, ErpUnavailableError, True),
     (500, ErpUnavailableError, True), (504, ErpUnavailableError, True), (302, ErpUnavailableError, True)],
)  # fmt: skip
def test_each_status_means_one_thing_for_an_order(status: int, kind: type[Exception], may: bool) -> None:
    answer = erp_http.Answer("POST /x", status, {"Retry-After": "5"}, b"{}", "{}", is_safe=False)

    with pytest.raises(kind) as told:
        checked(answer)

    assert type(told.value) is kind
    assert getattr(told.value, "may_have_created", False) == may


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("5", 5), ("99999", 900), ("-1", 0), ("nan", 0), ("Wed, 21 Oct 2026 07:28:00 GMT", 0)],
)
def test_a_retry_after_is_bounded(said: str, seconds: float) -> None:
    assert erp_http.retry_after_s({"Retry-After": said}) == seconds


def test_settings_say_what_is_missing() -> None:
    from erp.odoo import OdooSettings

    with pytest.raises(SettingsError, match="database must be set"):
        read(OdooSettings, "{}")
    assert read(SapSettings, "{}").notification_type == "M2"


def test_all_calls_together_end_within_their_callers_time_and_none_is_begun_after_it() -> None:
    def say_nothing(connection: socket.socket, _number: int) -> None:
        while connection.recv(1000):
            pass

    server = Server(say_nothing)
    with server.running():
        http = Http(f"http://127.0.0.1:{server.port}", 60.0, Hidden())
        begin = time.monotonic()
        with within(TIMEOUT_S):
            with pytest.raises(ErpUnavailableError) as asked:
                http.send("POST", "/work-orders", json_body={})
            with within(60.0), pytest.raises(ErpAwayError, match="no time is left") as not_asked:
                http.send("POST", "/work-orders", json_body={})
        took_s = time.monotonic() - begin

    assert (asked.value.may_have_created, not_asked.value.may_have_created) == (True, False)
    assert server.accepted == 1
    assert took_s < TIMEOUT_S + BUSY_S
