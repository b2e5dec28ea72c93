# SPDX-License-Identifier: Apache-2.0
"""Stand-ins that give AWS credentials, as servers of their own: IoT's credential provider, over mutual TLS, and the
nucleus's token exchange service, over HTTP on loopback. Each answer holds new credentials; what was asked is kept.
"""

import datetime
import json
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from brokers import Certificates

from linewatch_plant.processes import free_port

ROLE_ALIAS = "linewatch-test"


@dataclass(slots=True)
class Asked:
    """One request: who asked (the certificate's common name, or the token), for what, and for which thing."""

    who: str
    path: str
    thing: str


@dataclass(slots=True)
class CredentialServer:
    """`certificates` make it IoT's credential provider; `token` makes it the token exchange service.

    Attributes:
        life_s: how long the credentials are valid that it gives.
        status: what it answers; other than 200 it gives none.
        body: sent instead of credentials.
        hang: takes requests and does not answer until `stop`.
    """

    certificates: Certificates | None = None
    token: str = ""
    life_s: float = 3600.0
    status: int = 200
    body: bytes = b""
    hang: bool = False
    asked: list[Asked] = field(default_factory=list)
    _server: ThreadingHTTPServer | None = None
    _stopped: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listens; on the port of before, if it did."""
        self._stopped.clear()
        # Of no connection's range: between a stop and a start the system would give the port to anybody.
        self.port = self.port or free_port()
        server = ThreadingHTTPServer(("127.0.0.1", self.port), _handler(self))
        server.daemon_threads = True
        if self.certificates:
            context = ssl.create_default_context(
                ssl.Purpose.CLIENT_AUTH, cafile=str(self.certificates.ca_file)
            )
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_cert_chain(self.certificates.server_file, self.certificates.server_key_file)
            # Each handshake in its own thread: one that fails must not end accept().
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._server = server
        threading.Thread(target=server.serve_forever, name="credentials", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def settings(self) -> dict[str, str]:
        """The forwarder's variables for IoT's credential provider, without those of its certificate."""
        return {"FORWARDER_CREDENTIALS_HOST": f"localhost:{self.port}", "FORWARDER_ROLE_ALIAS": ROLE_ALIAS}

    def environment(self) -> dict[str, str]:
        """What the nucleus sets for a component that depends on the token exchange service."""
        return {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://localhost:{self.port}/2016-11-01/credentialprovider/",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": self.token,
        }

    def answer(self, asked: Asked) -> tuple[int, bytes]:
        self.asked.append(asked)
        number = len(self.asked)
        if self.hang:
            self._stopped.wait(60)
        if self.body:
            return self.status, self.body
        if self.status != 200:
            return self.status, json.dumps({"message": "told by the test"}).encode()
        ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=self.life_s)
        if self.token:
            if asked.who != self.token:
                return 403, b"{}"
            given: dict[str, Any] = {
                "AccessKeyId": f"ASIA{number}", "SecretAccessKey": f"secret-{number}", "Token": f"token-{number}",
                "Expiration": ends.isoformat(),
            }  # fmt: skip
            return 200, json.dumps(given).encode()
        if asked.path != f"/role-aliases/{ROLE_ALIAS}/credentials":
            return 404, json.dumps({"message": "Role alias does not exist"}).encode()
        given = {
            "accessKeyId": f"ASIA{number}", "secretAccessKey": f"secret-{number}", "sessionToken": f"token-{number}",
            "expiration": ends.isoformat(timespec="seconds").replace("+00:00", "Z"),
        }  # fmt: skip
        return 200, json.dumps({"credentials": given}).encode()


def _handler(server: CredentialServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 60

        def do_GET(self) -> None:
            who = self.headers.get("Authorization", "")
            if isinstance(self.connection, ssl.SSLSocket):
                subject = self.connection.getpeercert()["subject"]  # type: ignore[index]
                who = dict(pair for part in subject for pair in part)["commonName"]  # type: ignore[misc,union-attr,call-overload]
            status, body = server.answer(Asked(who, self.path, self.headers.get("x-amzn-iot-thingname", "")))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:  # a client that is refused, or gone
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    return Handler
