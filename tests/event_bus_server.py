# SPDX-License-Identifier: Apache-2.0
"""A stand-in for EventBridge's PutEvents over HTTP, in AWS's JSON protocol: real SDKs talk to it.

Every request is checked against botocore's own model of the service, and against the limits that the model does not
know (256 KB a call). What an entry meets is chosen by the test; what was accepted is kept, in order.
"""

import datetime
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import botocore.session
from botocore.validate import ParamValidator

from linewatch_plant.processes import free_port

MOST_BYTES = 256 * 1024
PUT_EVENTS = botocore.session.get_session().get_service_model("events").operation_model("PutEvents")


@dataclass(slots=True)
class EventBusServer:
    """Attributes:
    judge: the code that an entry fails with; empty: it is accepted.
    refuse: HTTP status and code that whole calls meet; None: they are answered.
    hang: takes calls and does not answer until it is set to False or the server stops.
    calls: the entries of each call that got so far as to be judged, as they came.
    accepted: their event details, oldest first.
    keys: access keys that signed.
    wrong: requests that the model does not allow, with the reason. Tests expect none.
    """

    judge: Callable[[dict[str, Any]], str] = lambda _: ""
    refuse: tuple[int, str] | None = None
    hang: bool = False
    port: int = 0
    calls: list[list[dict[str, Any]]] = field(default_factory=list)
    accepted: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    requests: int = 0
    _server: ThreadingHTTPServer | None = None
    _stopped: threading.Event = field(default_factory=threading.Event)
    _judging: threading.Lock = field(default_factory=threading.Lock)

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
        self._server = server
        threading.Thread(target=server.serve_forever, name="event bus", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ids(self) -> list[str]:
        """Event ids that were accepted, oldest first."""
        return [one["id"] for one in self.accepted]

    def answer(self, target: str, key: str, body: bytes) -> tuple[int, dict[str, Any]]:
        self.requests += 1
        while self.hang and not self._stopped.wait(0.02):
            pass
        if self.refuse:
            status, code = self.refuse
            return status, {"__type": f"com.amazonaws.events#{code}", "message": "told by the test"}
        asked = json.loads(body)
        if problem := _problem(target, asked):
            self.wrong.append(problem)
            return 400, {"__type": "ValidationException", "message": problem}
        if sum(_size(one) for one in asked["Entries"]) > MOST_BYTES:
            return 400, {
                "__type": "ValidationException",
                "message": "Total size of the entries is over the limit",
            }
        with self._judging:
            self.keys.append(key)
            self.calls.append(asked["Entries"])
            answers = [self._judged(one) for one in asked["Entries"]]
        return 200, {"FailedEntryCount": sum("ErrorCode" in one for one in answers), "Entries": answers}

    def _judged(self, entry: dict[str, Any]) -> dict[str, str]:
        if code := self.judge(entry):
            return {"ErrorCode": code, "ErrorMessage": "told by the test"}
        try:
            detail = json.loads(entry["Detail"])
        except ValueError:
            detail = None
        if not isinstance(detail, dict):
            return {"ErrorCode": "MalformedDetail", "ErrorMessage": "Detail is malformed."}
        self.accepted.append(detail)
        return {"EventId": f"of-the-bus-{len(self.accepted)}"}


def _problem(target: str, asked: dict[str, Any]) -> str:
    """What the service's model does not allow; empty when it allows the request."""
    if target != "AWSEvents.PutEvents":
        return f"target {target}"
    typed = {"Entries": [dict(one) for one in asked.get("Entries", [])]}
    for entry in typed["Entries"]:
        unknown = entry.keys() - PUT_EVENTS.input_shape.members["Entries"].member.members.keys()
        if unknown:
            return f"unknown: {unknown}"
        if "Time" in entry:
            entry["Time"] = datetime.datetime.fromtimestamp(entry["Time"], datetime.UTC)
    if len(typed["Entries"]) > 10:
        return f"{len(typed['Entries'])} entries"
    report = ParamValidator().validate(typed, PUT_EVENTS.input_shape)
    return str(report.generate_report())


def _size(entry: dict[str, Any]) -> int:
    texts = (entry["Source"], entry["DetailType"], entry["Detail"], *entry.get("Resources", ()))
    return sum(len(one.encode()) for one in texts) + (14 if "Time" in entry else 0)


def _handler(server: EventBusServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            key = self.headers.get("Authorization", "").partition("Credential=")[2].partition("/")[0]
            status, answer = server.answer(self.headers.get("X-Amz-Target", ""), key, body)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:  # a client that is gone
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    return Handler
