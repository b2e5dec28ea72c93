# SPDX-License-Identifier: Apache-2.0
"""HTTP as all adapters speak it: bounded in time and size, connections kept, errors told in the port's words.

The whole call ends within `timeout_s`, and within its caller's own time (deadline.within), however slowly the answer drips: a socket's own time-out begins anew with every
byte, so a timer shuts the connection down. Not covered is the resolver's time for the host's name. Redirects are not
followed: an API that redirects has lost its session and shows a page to sign in, and credentials must not follow it.
"""

import hashlib
import json
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

import certifi
import urllib3

from erp.deadline import Deadline, kept, left_of, watched
from erp.port import ErpAwayError, ErpRefusedError, ErpUnavailableError
from erp.transcript import EXCERPT, Call, Hidden, record

# Of an answer, unpacked. The largest that is asked for is a page of a few orders.
MAX_BYTES = 2 * 1024 * 1024
# A connection unused for longer is not trusted: servers and what stands before them close theirs after 5 s and more, a
# Lambda is frozen between events, and an order that is posted in the moment of the close is unclear until it was looked up.
IDLE_S = 2.0
# Longest time that a Retry-After may ask for; the sweep comes after that anyway.
MAX_RETRY_AFTER_S = 900.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whatever its status."""

    # "POST /work-orders", for messages.
    what: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    # The body's beginning, without secrets.
    excerpt: str
    # The call creates nothing, so that no answer to it is unclear.
    is_safe: bool
    # What a Cookie header needs to go on with this session; empty where none was set.
    cookies: str = ""
    # What must not be repeated from the body.
    hidden: Hidden = field(default_factory=Hidden)

    def json(self) -> Any:
        """Raises ErpUnavailableError: a proxy's page, or half an answer."""
        try:
            return json.loads(self.body)
        except ValueError:
            # Not "from error": that one carries the whole body.
            raise ErpUnavailableError(
                f"{self.what} answered {self.status} and no JSON: {self.excerpt[:120]}",
                may_have_created=not self.is_safe,
            ) from None

    def unclear(self, why: str) -> ErpUnavailableError:
        """The error for an answer that tells nothing about what became of the call."""
        return ErpUnavailableError(f"{self.what} {why}", may_have_created=not self.is_safe)


class Http:
    """One API at one base address."""

    def __init__(self, base_url: str, timeout_s: float, hidden: Hidden, ca_pem: str = "") -> None:
        parts = urlsplit(base_url)
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._prefix = parts.path.rstrip("/")
        self._timeout_s = timeout_s
        self._hidden = hidden
        self._tls = _tls(ca_pem) if parts.scheme == "https" else None
        self._lock = threading.Lock()
        self._pool: urllib3.HTTPConnectionPool | None = None
        self._used_at = float("-inf")

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        json_body: Any = None,
        form: str | None = None,
        headers: Mapping[str, str] | None = None,
        is_safe: bool | None = None,
        holds_secret: bool = False,
    ) -> Answer:
        """The answer of any status.

        Raises:
            ErpAwayError: there is no connection, or no time for it, so nothing was asked.
            ErpUnavailableError: no whole answer; `may_have_created` unless the call is safe.
        """
        safe = method in {"GET", "HEAD"} if is_safe is None else is_safe
        target = path + (f"?{urlencode(query)}" if query else "")
        sent = dict(headers or {})
        body: bytes | None = None
        if json_body is not None:
            body = json.dumps(json_body, separators=(",", ":"), allow_nan=False).encode()
            sent["Content-Type"] = "application/json"
        elif form is not None:
            body = form.encode()
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        sent = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "linewatch",
            **sent,
        }
        seconds = left_of(self._timeout_s)
        if not seconds:
            raise ErpAwayError(
                f"{method} {self._hidden.out_of(path)}: no time is left for it here; nothing was asked"
            )
        digest = "sha256:" + hashlib.sha256(body).hexdigest() if body and not holds_secret else ""
        what = f"{method} {self._hidden.out_of(path)}"
        asked_at = time.monotonic()
        outcome, excerpt = "UnicodeError", ""
        until = Deadline(seconds)
        try:
            status, received, content = self._exchange(method, target, body, sent, until, repeat=safe)
            outcome = str(status)
            excerpt = "" if holds_secret else self._hidden.excerpt(content.decode("utf-8", "replace"))
            return Answer(
                what, status, received, content, excerpt, safe, self._cookies(received), self._hidden
            )
        except (UnicodeError, ValueError):
            # Told below: the error of the library holds the header, and with it the secret.
            pass
        except urllib3.exceptions.HTTPError as error:
            outcome = type(error).__name__
            if not until.may_have_left:
                raise ErpAwayError(f"{what}: no connection ({outcome})") from error
            raise ErpUnavailableError(
                f"{what}: no whole answer ({outcome})", may_have_created=not safe
            ) from error
        finally:
            ms = round((time.monotonic() - asked_at) * 1000)
            shown = self._hidden.excerpt(self._prefix + target)
            record(Call(method, shown, outcome, ms, digest, excerpt))
        raise ErpAwayError(f"{what}: the secret or a setting has characters that a header can't bear")

    def _cookies(self, received: urllib3.HTTPHeaderDict) -> str:
        pairs = [header.partition(";")[0].strip() for header in received.getlist("set-cookie")]
        for pair in pairs:
            self._hidden.add(pair.partition("=")[2])
        return "; ".join(pairs)

    def _exchange(
        self,
        method: str,
        target: str,
        body: bytes | None,
        headers: Mapping[str, str],
        until: Deadline,
        *,
        repeat: bool,
    ) -> tuple[int, urllib3.HTTPHeaderDict, bytes]:
        with kept(until):
            for is_last in (not repeat, True):
                try:
                    return self._once(method, target, body, headers, until)
                except urllib3.exceptions.ProtocolError:
                    # A kept connection that the other side had just closed. Only what creates nothing is sent twice.
                    if is_last or until.is_over:
                        raise
        raise AssertionError("not reached")

    def _once(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str], until: Deadline
    ) -> tuple[int, urllib3.HTTPHeaderDict, bytes]:
        response = self._connections().urlopen(
            method,
            self._prefix + target,
            body,
            headers,
            retries=False,
            redirect=False,
            timeout=urllib3.Timeout(until.left_s()),
            preload_content=False,
        )
        content = b""
        try:
            while chunk := response.read(65536):
                content += chunk
                if len(content) > MAX_BYTES:
                    raise urllib3.exceptions.ResponseError(f"answer larger than {MAX_BYTES} bytes")
            if until.is_over:
                # A body without a length ends where the timer cut it.
                raise urllib3.exceptions.ReadTimeoutError(self._connections(), target, "the time is over")
        except BaseException:
            response.close()
            raise
        response.release_conn()
        with self._lock:
            self._used_at = (
                time.monotonic()
            )  # from its end on it is idle; a slow ERP keeps its connections, too
        return response.status, response.headers, content

    def _connections(self) -> urllib3.HTTPConnectionPool:
        with self._lock:
            now = time.monotonic()
            if self._pool is None or now - self._used_at > IDLE_S:
                if self._pool is not None:
                    self._pool.close()
                self._pool = watched(self._origin, self._tls)
            self._used_at = now
            return self._pool


def _tls(ca_pem: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certifi.where())
    if ca_pem:
        context.load_verify_locations(cadata=ca_pem)
    return context


def checked(answer: Answer, explain: Callable[[Answer], str] | None = None) -> Answer:
    """The answer if it says yes (2xx); otherwise raises what it means for the order.

    `explain` finds the product's own words in a refusal.
    """
    status = answer.status
    if 200 <= status < 300:
        return answer
    # A gateway may show the request, credentials and all, in its error.
    said = answer.hidden.out_of(explain(answer) if explain else "") or answer.excerpt
    what = f"{answer.what} answered {status}: {said}"
    if status == 401:
        raise ErpAwayError(f"{answer.what} answered 401 to fresh credentials; look at the ERP's secret")
    if status in {423, 425, 429}:
        raise ErpUnavailableError(what, retry_after_s=retry_after_s(answer.headers))
    if status >= 500 or status in {408, 409} or 300 <= status < 400:
        # A proxy that gave up answers 502 or 504 while the ERP behind it goes on.
        if 300 <= status < 400:
            what = f"{answer.what} redirects ({status}), as to a page to sign in: {said}"
        raise ErpUnavailableError(
            what, may_have_created=not answer.is_safe, retry_after_s=retry_after_s(answer.headers)
        )
    remedy = "; the ERP's user may not do this, look at its permissions" if status == 403 else ""
    raise ErpRefusedError(what[: EXCERPT * 3] + remedy)


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Seconds of a Retry-After, bounded; 0 where there is none, or a date, which few send."""
    said = headers.get("Retry-After", "")
    return min(float(said), MAX_RETRY_AFTER_S) if said.isdecimal() else 0.0
