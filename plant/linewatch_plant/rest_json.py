# SPDX-License-Identifier: Apache-2.0
"""An AWS service of our own that speaks REST-JSON to real AWS SDKs, driven by botocore's own model of the service.

Requests are parsed and responses are written by the model alone, and both are checked against it: required members,
types, patterns, enumerations, ranges, and names that the model does not know. A stand-in so made can't agree with our
code about a field that AWS has never heard of.

What differs from AWS: requests are not authenticated; an unknown member of a request's body is refused (AWS ignores it);
patterns are applied to the whole value.
"""

import base64
import binascii
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, unquote

import botocore.session
import uvicorn
from botocore.model import OperationModel, ServiceModel, Shape
from botocore.validate import ParamValidator
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from linewatch_plant.processes import PlantError

START_S = 60.0

Handler = Callable[[dict[str, Any]], dict[str, Any]]


class Refusal(Exception):
    """An error that the service answers with: one that its model names for the operation."""

    def __init__(self, code: str, message: str, **members: Any) -> None:
        super().__init__(message)
        self.code = code
        self.members = {"message": message, **members}


@dataclass(frozen=True, slots=True)
class _Route:
    operation: OperationModel
    path: re.Pattern[str]


class RestJsonService:
    """Answers the operations that `handlers` names, by their name in the model; it is an ASGI application.

    A handler gets the request's members and returns the response's; datetime for a timestamp, bytes for a blob.
    """

    def __init__(self, service: str, handlers: Mapping[str, Handler]) -> None:
        self.model: ServiceModel = botocore.session.get_session().get_service_model(service)
        self._handlers = handlers
        self._lock = threading.Lock()
        self._routes = [
            _Route(operation, _path_pattern(operation.http["requestUri"]))
            for operation in map(self.model.operation_model, handlers)
        ]
        self.calls: list[tuple[str, dict[str, Any]]] = []
        """Every operation that was called, with its members, also those that were refused."""
        self.denied: set[str] = set()
        """Operations that answer AccessDeniedException."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request of an SDK."""
        request = Request(scope, receive)
        body = await request.body()
        raw_path = scope["raw_path"].split(b"?")[0].decode("ascii")
        response = self._answer(request.method, raw_path, scope["query_string"].decode(), body)
        await response(scope, receive, send)

    def _answer(self, method: str, path: str, query: str, body: bytes) -> Response:
        for route in self._routes:
            found = route.path.fullmatch(path)
            if found and route.operation.http["method"] == method:
                break
        else:
            return _json(
                404, {"message": f"{method} {path} is not an operation of this stand-in"}, "UnknownOperation"
            )
        operation = route.operation
        try:
            members = _members(operation, found.groupdict(), query, body)
            self.calls.append((operation.name, members))
            if operation.name in self.denied:
                resource = f"perform: {self.model.signing_name}:{operation.name}"
                raise Refusal("AccessDeniedException", f"User is not authorized to {resource}")
            _check(operation.input_shape, members)
            with self._lock:
                content = self._handlers[operation.name](members)
        except Refusal as refusal:
            return self._refuse(operation, refusal)
        if operation.output_shape is None:
            return Response(status_code=operation.http.get("responseCode", 200))
        # A wrong answer is this stand-in's own fault: let it be seen as one.
        content = _present(content)
        _check_own(operation.output_shape, content)
        return _json(operation.http.get("responseCode", 200), _written(operation.output_shape, content))

    def _refuse(self, operation: OperationModel, refusal: Refusal) -> Response:
        shapes = {shape.name: shape for shape in operation.error_shapes}
        if refusal.code == "AccessDeniedException" and refusal.code not in shapes:
            return _json(403, refusal.members, refusal.code)  # IAM's own word, whatever the model names
        if refusal.code not in shapes:
            raise AssertionError(f"{operation.name} does not know {refusal.code}: {refusal}")
        shape = shapes[refusal.code]
        _check_own(shape, refusal.members)
        return _json(
            shape.metadata["error"]["httpStatusCode"], _written(shape, refusal.members), refusal.code
        )


class Serving:
    """The service on a free port of loopback, in a thread of its own."""

    def __init__(self, application: RestJsonService, port: int = 0) -> None:
        config = uvicorn.Config(application, "127.0.0.1", port, log_level="warning", lifespan="off",
                                timeout_graceful_shutdown=1)  # fmt: skip
        self._server = uvicorn.Server(config)
        self._socket = config.bind_socket()
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)
        self._thread.start()
        deadline = time.monotonic() + START_S
        while not self._server.started:
            if time.monotonic() > deadline:
                raise PlantError(f"{self.url} did not start within {START_S:.0f} s")
            time.sleep(0.005)

    def stop(self) -> None:
        """Ends it."""
        self._server.should_exit = True
        self._thread.join(START_S)
        self._socket.close()


def _path_pattern(uri: str) -> re.Pattern[str]:
    path = uri.split("?", maxsplit=1)[0]
    parts = re.split(r"\{(\w+)(\+?)\}", path)
    pattern = re.escape(parts[0])
    for name, greedy, literal in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        pattern += f"(?P<{name}>{'.+' if greedy else '[^/]+'})" + re.escape(literal)
    return re.compile(pattern)


def _members(operation: OperationModel, labels: Mapping[str, str], query: str, body: bytes) -> dict[str, Any]:
    """The request's members, from path, query and body."""
    shape = operation.input_shape
    members: dict[str, Any] = {}
    asked = parse_qs(query, keep_blank_values=True)
    try:
        content = json.loads(body) if body else {}
    except ValueError as error:
        raise _invalid(f"the body is not JSON: {error}", "CANNOT_PARSE") from error
    for name, member in shape.members.items():
        wire = member.serialization.get("name", name)
        match member.serialization.get("location"):
            case "uri":
                members[name] = unquote(labels[wire])
            case "querystring" if wire in asked:
                values = asked.pop(wire)
                members[name] = values if member.type_name == "list" else _scalar(member, values[0])
            case None if wire in content:
                members[name] = _read(member, content.pop(wire))
    for unknown in [*asked, *content]:
        raise _invalid(f"{operation.name} has no member {unknown!r}")
    return members


def _scalar(shape: Shape, text: str) -> Any:
    if shape.type_name in ("integer", "long"):
        try:
            return int(text)
        except ValueError as error:
            raise _invalid(f"{text!r} is not a number") from error
    return text == "true" if shape.type_name == "boolean" else text


def _read(shape: Shape, value: Any) -> Any:
    """A value of the wire, as Python's."""
    match shape.type_name:
        case "structure" if isinstance(value, dict):
            return {
                key: _read(shape.members[key], item) if key in shape.members else item
                for key, item in value.items()
            }
        case "list" if isinstance(value, list):
            return [_read(shape.member, item) for item in value]
        case "map" if isinstance(value, dict):
            return {key: _read(shape.value, item) for key, item in value.items()}
        case "blob" if isinstance(value, str):
            try:
                return base64.b64decode(value, validate=True)
            except binascii.Error as error:
                raise _invalid(f"not base64: {error}", "CANNOT_PARSE") from error
    return value


def _written(shape: Shape, value: Any) -> Any:
    """A value of Python's, as the wire has it."""
    match shape.type_name:
        case "structure":
            return {
                member.serialization.get("name", name): _written(member, value[name])
                for name, member in shape.members.items()
                if name in value
            }
        case "list":
            return [_written(shape.member, item) for item in value]
        case "map":
            return {key: _written(shape.value, item) for key, item in value.items()}
        case "blob":
            return base64.b64encode(value).decode()
        case "timestamp":
            return round(value.timestamp(), 3) if isinstance(value, datetime) else value
    return value


def _present(value: Any) -> Any:
    """Without the members that are None: AWS leaves them out."""
    if isinstance(value, dict):
        return {key: _present(item) for key, item in value.items() if item is not None}
    return [_present(item) for item in value] if isinstance(value, list) else value


def _check(shape: Shape, members: Mapping[str, Any]) -> None:
    """Raises a ValidationException for what the model does not allow."""
    report = ParamValidator().validate(members, shape)
    problems = (
        [report.generate_report()] if report.has_errors() else list(_problems(shape, members, shape.name))
    )
    if problems:
        raise _invalid("; ".join(problems))


def _check_own(shape: Shape, members: Mapping[str, Any]) -> None:
    try:
        _check(shape, members)
    except Refusal as error:
        raise AssertionError(f"the stand-in's own answer breaks the model: {error}") from error


def _problems(shape: Shape, value: Any, path: str) -> Iterator[str]:
    """What botocore's validator leaves to the service: patterns, enumerations, lengths, unknown members."""
    limits = shape.metadata
    match shape.type_name:
        case "structure":
            for key, item in value.items():
                if key not in shape.members:
                    yield f"{path} has no member {key!r}"
                else:
                    yield from _problems(shape.members[key], item, f"{path}.{key}")
        case "list":
            for index, item in enumerate(value):
                yield from _problems(shape.member, item, f"{path}[{index}]")
        case "map":
            for key, item in value.items():
                yield from _problems(shape.key, key, f"{path} key {key!r}")
                yield from _problems(shape.value, item, f"{path}[{key!r}]")
        case "string":
            yield from _text_problems(limits, value, path)
    size = value if isinstance(value, int | float) else len(value) if hasattr(value, "__len__") else None
    if size is not None and not limits.get("min", size) <= size <= limits.get("max", size):
        yield f"{path}: {size} is not between {limits.get('min', 'any')} and {limits.get('max', 'any')}"


def _text_problems(limits: Mapping[str, Any], value: str, path: str) -> Iterator[str]:
    if "enum" in limits and value not in limits["enum"]:
        yield f"{path}: {value!r} is none of {', '.join(limits['enum'])}"
    if "pattern" in limits and not re.fullmatch(limits["pattern"], value):
        yield f"{path}: {value!r} does not match {limits['pattern']}"


def _invalid(message: str, reason: str = "FIELD_VALIDATION_FAILED") -> Refusal:
    return Refusal("ValidationException", message, reason=reason)


def _json(status: int, content: Any, error: str = "") -> Response:
    headers = {"x-amzn-ErrorType": error} if error else {}
    return Response(json.dumps(content), status, headers, "application/json")
