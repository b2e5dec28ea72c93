# SPDX-License-Identifier: Apache-2.0
"""Uploads to a real S3 stand-in, which compares every checksum: whole, once, resumed, and never before events."""

import asyncio
import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from brokers import until, wait_for

from linewatch_forwarder.evidence import part
from linewatch_forwarder.evidence.files import EvidenceFile, WaitingFiles
from linewatch_forwarder.evidence.notes import EvidenceNotes, state_dir_of
from linewatch_forwarder.evidence.s3_upload import PART_BYTES, Failure, Interrupted, Pace, S3Upload, Vanished
from linewatch_forwarder.evidence.uploads import TRIES_OF_A_FILE, EvidenceUploads
from linewatch_plant.ministack_process import REGION, delete, end, launched

FAST = 1e9
PIECE = 65_536
"""Bytes that the HTTP client reads of a body at once, at most."""
PREFIX = "evidence/linewatch-plant-1-device-1-forwarder/"
DAY = "20261121"


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of a real stand-in."""
    place = tmp_path_factory.mktemp("s3")
    process, http_port, _ = launched(place, False)
    yield f"http://127.0.0.1:{http_port}"
    end(process)
    delete(place, everything=False)


class Tap:
    """Passes HTTP on to S3, counts it, and spoils what it is told to."""

    def __init__(self, to: str) -> None:
        self.asked: list[tuple[str, str, int]] = []
        """Method, path with query, bytes of the body."""
        self.spoil: Callable[[str, str, bytes], bytes | tuple[int, str] | None] = lambda *_: None
        """Given method, path and body: another body, or a status and code to answer with at once, or None."""
        tap = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(size := int(self.headers.get("content-length", 0)))
                if len(body) < size:  # cut off: S3 has nothing to answer
                    self.close_connection = True
                    return
                tap.asked.append((self.command, self.path, len(body)))
                spoilt = tap.spoil(self.command, self.path, body)
                if isinstance(spoilt, tuple):
                    status, code = spoilt
                    self._answer(
                        status, {}, f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
                    )
                    return
                passed = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
                answer = requests.request(
                    self.command,
                    to + self.path,
                    data=body if spoilt is None else spoilt,
                    headers=passed,
                    timeout=20,
                )
                self._answer(answer.status_code, dict(answer.headers), answer.content)

            def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in {
                        "content-length",
                        "transfer-encoding",
                        "connection",
                        "date",
                        "server",
                    }:
                        self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_PUT = do_POST = do_GET = do_DELETE = do_HEAD = handle_any  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def sent(self, method: str, part: str = "") -> list[tuple[str, str, int]]:
        return [one for one in self.asked if one[0] == method and part in one[1]]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def tap(account: str) -> Iterator[Tap]:
    made = Tap(account)
    yield made
    made.close()


def session() -> boto3.Session:
    return boto3.Session("test", "test", region_name=REGION)


class To(boto3.Session):
    """A session whose clients go to one endpoint."""

    def __init__(self, url: str) -> None:
        super().__init__("test", "test", region_name=REGION)
        self._url = url

    def client(self, service: str, **more: Any) -> Any:  # type: ignore[override]
        return super().client(service, endpoint_url=self._url, **more)


@pytest.fixture
def bucket(account: str, request: pytest.FixtureRequest) -> str:
    name = "evidence-" + hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    To(account).client("s3").create_bucket(
        Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    return name


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "evidence" / "line-1" / DAY).mkdir(parents=True)
    return tmp_path / "evidence"


def put(root: Path, name: str, content: bytes, line: str = "line-1") -> EvidenceFile:
    path = root / line / DAY / name
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".half-{name}")  # as capture writes: nobody sees half of it
    half.write_bytes(content)
    half.replace(path)
    return EvidenceFile(line, f"{DAY}/{name}", path, len(content))


def key_of(content: bytes, ending: str = ".jpg") -> str:
    digest = hashlib.sha256(content).hexdigest()
    return f"{PREFIX}sha256/{digest[:2]}/{digest}{ending}"


def upload_to(url: str, bucket: str, tmp_path: Path, bytes_per_s: float = FAST) -> S3Upload:
    return S3Upload(To(url), bucket, PREFIX, tmp_path / "upload.json", Pace(bytes_per_s))


def object_of(account: str, bucket: str, key: str) -> dict[str, Any]:
    found = To(account).client("s3").get_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
    return {**found, "content": found["Body"].read()}


# ---------------------------------------------------------------- one file


def test_a_file_lies_under_its_digest_with_type_and_checksum(
    account: str, tap: Tap, bucket: str, root: Path, tmp_path: Path
) -> None:
    content = b"\xff\xd8 a picture"

    assert upload_to(tap.url, bucket, tmp_path).upload(put(root, "a.review.jpg", content)) == len(content)

    found = object_of(account, bucket, key_of(content))
    assert found["content"] == content
    assert found["ContentType"] == "image/jpeg"
    assert found["ChecksumSHA256"] == base64.b64encode(hashlib.sha256(content).digest()).decode()


def test_what_is_damaged_on_the_way_is_refused_by_s3_and_is_not_there(
    account: str, tap: Tap, bucket: str, root: Path, tmp_path: Path
) -> None:
    content = b"\xff\xd8 a picture"
    tap.spoil = lambda method, _path, body: bytes([body[0] ^ 1]) + body[1:] if method == "PUT" else None

    with pytest.raises(Failure) as failed:
        upload_to(tap.url, bucket, tmp_path).upload(put(root, "a.jpg", content))

    assert (failed.value.reason, failed.value.heals, failed.value.of_file) == ("damaged", True, True)
    with pytest.raises(Exception, match="NoSuchKey"):
        object_of(account, bucket, key_of(content))


def test_what_the_cloud_has_already_is_not_written_again(
    account: str, tap: Tap, bucket: str, root: Path, tmp_path: Path
) -> None:
    content = b"\xff\xd8 a picture"
    upload_to(account, bucket, tmp_path).upload(put(root, "a.jpg", content))
    written = object_of(account, bucket, key_of(content))["LastModified"]

    upload_to(tap.url, bucket, tmp_path).upload(put(root, "b.jpg", content))

    assert [one[0] for one in tap.asked] == ["PUT"]
    assert object_of(account, bucket, key_of(content))["LastModified"] == written


def test_a_file_that_was_let_go_is_no_error(tap: Tap, bucket: str, root: Path, tmp_path: Path) -> None:
    file = put(root, "a.jpg", b"x")
    file.path.unlink()

    with pytest.raises(Vanished):
        upload_to(tap.url, bucket, tmp_path).upload(file)
    assert tap.asked == []


def test_a_link_is_not_followed(tap: Tap, bucket: str, root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    file = put(root, "a.jpg", b"x")
    file.path.unlink()
    file.path.symlink_to(tmp_path / "secret")

    with pytest.raises(OSError, match="symbolic links"):
        upload_to(tap.url, bucket, tmp_path).upload(file)
    assert tap.asked == []


# ---------------------------------------------------------------- large files, in parts

LARGE = b"".join(hashlib.sha256(str(n).encode()).digest() for n in range((2 * PART_BYTES + 1000) // 32))


def test_a_large_file_goes_in_parts_each_with_its_checksum(
    account: str, tap: Tap, bucket: str, root: Path, tmp_path: Path
) -> None:
    upload_to(tap.url, bucket, tmp_path).upload(put(root, "a.png", LARGE))

    assert [size for _, _, size in tap.sent("PUT", "partNumber")] == [
        PART_BYTES,
        PART_BYTES,
        len(LARGE) - 2 * PART_BYTES,
    ]
    found = object_of(account, bucket, key_of(LARGE, ".png"))
    assert found["content"] == LARGE
    assert found["ContentType"] == "image/png"
    assert found["ChecksumSHA256"].endswith("-3")
    assert not (tmp_path / "upload.json").exists()


def test_a_damaged_part_is_refused_and_only_it_is_sent_again(
    account: str, tap: Tap, bucket: str, root: Path, tmp_path: Path
) -> None:
    tap.spoil = lambda _method, path, body: b"x" + body[1:] if "partNumber=2" in path else None
    upload, file = upload_to(tap.url, bucket, tmp_path), put(root, "a.png", LARGE)
    with pytest.raises(Failure, match="BadDigest"):
        upload.upload(file)

    tap.spoil = lambda *_: None
    upload.upload(file)

    numbers = [path.partition("partNumber=")[2][0] for _, path, _ in tap.sent("PUT", "partNumber")]
    assert numbers == ["1", "2", "2", "3"]
    assert object_of(account, bucket, key_of(LARGE, ".png"))["content"] == LARGE


KILLED = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
import boto3
from linewatch_forwarder.evidence import part
from linewatch_forwarder.evidence.files import EvidenceFile
from linewatch_forwarder.evidence.s3_upload import Pace, S3Upload
class To(boto3.Session):
    def client(self, service, **more):
        return super().client(service, endpoint_url={url!r}, **more)
path = Path({path_of_file!r})
upload = S3Upload(To("test", "test", region_name={region!r}), {bucket!r}, {prefix!r}, Path({record!r}), Pace(1e9))
upload.upload(EvidenceFile("line-1", "x", path, path.stat().st_size))
"""


@pytest.mark.parametrize("killed_at", ["partNumber=2", "partNumber=3", "uploadId= of the last request"])
def test_kill_9_in_the_middle_resumes_without_sending_done_parts_again(
    account: str, tap: Tap, bucket: str, root: Path, tmp_path: Path, killed_at: str
) -> None:
    file = put(root, "a.png", LARGE)
    program = KILLED.format(
        path=sys.path, url=tap.url, path_of_file=str(file.path), region=REGION, bucket=bucket, prefix=PREFIX,
        record=str(tmp_path / "upload.json"),
    )  # fmt: skip
    is_last = "last" in killed_at

    def kill(method: str, path: str, _body: bytes) -> tuple[int, str] | None:
        if killed_at in path or (is_last and method == "POST" and "uploadId=" in path):
            process.kill()
            process.wait()
            return (500, "InternalError")
        return None

    tap.spoil = kill
    process = subprocess.Popen([sys.executable, "-c", program])
    wait_for(lambda: process.poll() is not None, "the kill", 60)
    done = {"partNumber=2": 1, "partNumber=3": 2}.get(killed_at, 3)
    tap.spoil = lambda *_: None
    tap.asked.clear()

    upload_to(tap.url, bucket, tmp_path).upload(file)

    assert len(tap.sent("PUT", "partNumber")) == 3 - done, "only what S3 does not have"
    assert tap.sent("POST", "uploads") == [], "the same upload, no second one"
    assert object_of(account, bucket, key_of(LARGE, ".png"))["content"] == LARGE
    assert To(account).client("s3").list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []


def test_an_upload_whose_file_is_gone_is_ended(
    account: str, tap: Tap, bucket: str, root: Path, tmp_path: Path
) -> None:
    upload, file = upload_to(tap.url, bucket, tmp_path), put(root, "a.png", LARGE)
    tap.spoil = lambda _method, path, _body: (503, "SlowDown") if "partNumber=2" in path else None
    with pytest.raises(Failure) as failed:
        upload.upload(file)
    assert (failed.value.reason, failed.value.heals) == ("busy", True)
    assert upload.begun == file.path

    file.path.unlink()
    upload.forget(file.path)

    assert upload.begun is None
    assert To(account).client("s3").list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []


def test_an_upload_that_s3_has_forgotten_is_begun_anew(
    account: str, tap: Tap, bucket: str, root: Path, tmp_path: Path
) -> None:
    file = put(root, "a.png", LARGE)
    record = {"path": str(file.path), "bucket": bucket, "key": key_of(LARGE, ".png"), "upload_id": "gone"}
    (tmp_path / "upload.json").write_text(json.dumps(record))

    upload_to(tap.url, bucket, tmp_path).upload(file)

    assert object_of(account, bucket, key_of(LARGE, ".png"))["content"] == LARGE


def test_a_record_that_a_power_loss_tore_is_passed_over(
    account: str, bucket: str, root: Path, tmp_path: Path
) -> None:
    (tmp_path / "upload.json").write_text('{"path": "/x')

    upload_to(account, bucket, tmp_path).upload(put(root, "a.png", LARGE))

    assert object_of(account, bucket, key_of(LARGE, ".png"))["content"] == LARGE


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("status", "code", "heals", "says"),
    [
        (403, "AccessDenied", False, "must allow s3:PutObject on"),
        (404, "NoSuchBucket", False, "FORWARDER_EVIDENCE_BUCKET must name a bucket"),
        (400, "AuthorizationHeaderMalformed", False, "FORWARDER_AWS_REGION must be the region"),
        (403, "ExpiredToken", True, "ExpiredToken"),
        (403, "RequestTimeTooSkewed", True, "RequestTimeTooSkewed"),
        (503, "SlowDown", True, "SlowDown"),
        (500, "InternalError", True, "InternalError"),
        (409, "ConditionalRequestConflict", True, "ConditionalRequestConflict"),
        (400, "EntityTooLarge", False, "EntityTooLarge"),
    ],
)
def test_a_refusal_says_whether_it_heals_and_names_the_remedy(
    tap: Tap, bucket: str, root: Path, tmp_path: Path, status: int, code: str, heals: bool, says: str
) -> None:  # fmt: skip
    tap.spoil = lambda *_: (status, code)

    with pytest.raises(Failure, match=says) as failed:
        upload_to(tap.url, bucket, tmp_path).upload(put(root, "a.jpg", b"x"))

    assert failed.value.heals is heals
    assert len(tap.sent("PUT")) == 1, "the pace of tries is ours"


def test_a_portal_that_redirects_everything_is_a_bad_network_and_no_fault_of_ours(
    tap: Tap, bucket: str, root: Path, tmp_path: Path
) -> None:
    """Regression: boto3 asked for the bucket's region, was redirected again, and ended in a RecursionError."""
    tap.spoil = lambda *_: (301, "Moved")

    with pytest.raises(Failure, match="not S3's answer") as failed:
        upload_to(tap.url, bucket, tmp_path).upload(put(root, "a.jpg", b"x"))
    assert (failed.value.reason, failed.value.heals) == ("network", True)


def test_a_network_that_is_away_heals(bucket: str, root: Path, tmp_path: Path) -> None:
    with pytest.raises(Failure) as failed:
        upload_to("http://127.0.0.1:9", bucket, tmp_path).upload(put(root, "a.jpg", b"x"))
    assert (failed.value.reason, failed.value.heals) == ("network", True)


def test_without_credentials_it_says_so(
    bucket: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    bare = S3Upload(boto3.Session(region_name=REGION), bucket, PREFIX, tmp_path / "upload.json", Pace(FAST))

    with pytest.raises(Failure, match="credentials") as failed:
        bare.upload(put(root, "a.jpg", b"x"))
    assert failed.value.reason == "credentials"


# ---------------------------------------------------------------- pace


def test_the_pace_is_kept_and_a_stop_cuts_within_a_second(
    tap: Tap, bucket: str, root: Path, tmp_path: Path
) -> None:
    rate = 50_000
    upload = upload_to(tap.url, bucket, tmp_path, rate)
    file = put(root, "a.jpg", bytes(1_000_000))
    raised: list[BaseException] = []

    def call() -> None:
        try:
            upload.upload(file)
        except BaseException as error:  # noqa: BLE001 - looked at below
            raised.append(error)

    thread = threading.Thread(target=call)
    begun = time.monotonic()
    thread.start()
    wait_for(lambda: upload._pace.sent_bytes > 0, "some bytes")
    sent = upload._pace.sent_bytes
    assert sent <= (time.monotonic() - begun + 0.1) * rate + PIECE, "the pace is kept"
    upload._pace.stop.set()
    thread.join(60)

    assert not thread.is_alive()
    # In bytes, which a busy machine does not stretch: what was on its way, and no wait for the pace.
    assert upload._pace.sent_bytes - sent <= PIECE
    assert isinstance(raised[0], Interrupted)


# ---------------------------------------------------------------- the flow


def uploading() -> bool:
    """Whether a file is under way. By its task: other tests of this process may have left a thread that still ends."""
    return any(task.get_name() == "evidence upload" for task in asyncio.all_tasks())


class Flow:
    """The uploads over real files, with events that wait as told."""

    def __init__(self, url: str, bucket: str, root: Path, tmp_path: Path, bytes_per_s: float = FAST) -> None:
        self.notes = EvidenceNotes(state_dir_of(root))
        self.files = WaitingFiles(root, self.notes)
        self.pace = Pace(bytes_per_s)
        self.why = ""
        upload = S3Upload(To(url), bucket, PREFIX, tmp_path / "upload.json", self.pace)
        self.uploads = EvidenceUploads(self.files, self.notes, upload, self.pace, lambda: self.why)
        self.stop = asyncio.Event()

    def told(self, name: str) -> Any:
        return self.uploads.told()[name]

    async def during(self, *conditions: Callable[[], object], deadline_s: float = 120) -> None:
        running = asyncio.create_task(self.uploads.run(self.stop))
        try:
            for condition in conditions:
                await until(condition, f"{self.uploads.told()}", deadline_s)
        finally:
            self.stop.set()
            await asyncio.wait_for(running, 60)
            self.stop = asyncio.Event()


@pytest.mark.anyio
async def test_the_most_valuable_goes_first_and_what_an_order_holds_before_all(
    account: str, tap: Tap, bucket: str, root: Path, tmp_path: Path
) -> None:
    names = ["4.jpg", "1.ok.jpg", "3.review.jpg", "2.review.jpg", "2.review.heatmap.png", "5.ok.jpg"]
    content = {name: f"picture {name}".encode() for name in names}
    for name in names:
        put(root, name, content[name])
    flow = Flow(tap.url, bucket, root, tmp_path)
    flow.notes.pin(["5"])

    await flow.during(lambda: flow.told("uploaded") == 6)

    wanted = ["5.ok.jpg", "2.review.heatmap.png", "2.review.jpg", "3.review.jpg", "4.jpg", "1.ok.jpg"]
    keys = [path.partition("?")[0].rpartition("/")[2].partition(".")[0] for _, path, _ in tap.sent("PUT")]
    assert keys == [hashlib.sha256(content[name]).hexdigest() for name in wanted]
    assert flow.told("state") == "idle" or flow.told("waiting_files") == 0
    assert sorted((state_dir_of(root) / "uploaded/line-1").read_text().split()) == sorted(
        f"{DAY}/{n}" for n in names
    )


@pytest.mark.anyio
async def test_nothing_is_sent_while_events_wait_and_what_is_under_way_stops_within_a_second(
    tap: Tap, bucket: str, root: Path, tmp_path: Path
) -> None:
    put(root, "1.jpg", bytes(2_000_000))
    flow = Flow(tap.url, bucket, root, tmp_path, 100_000)
    flow.why = "7 events wait"

    running = asyncio.create_task(flow.uploads.run(flow.stop))
    await until(lambda: flow.told("why") == "7 events wait", "waiting")
    assert flow.pace.sent_bytes == 0
    flow.why = ""
    await until(lambda: flow.pace.sent_bytes > 50_000, "under way")
    flow.why, sent = "events again", flow.pace.sent_bytes
    await until(lambda: not uploading(), "the upload's end")
    # In bytes, which a busy machine does not stretch: no more than a second's, and the piece in hand.
    assert flow.pace.sent_bytes - sent <= 100_000 + PIECE
    assert flow.told("state") == "waiting"
    flow.stop.set()
    await asyncio.wait_for(running, 60)
    assert tap.sent("PUT") == [], "half a body is no object"


@pytest.mark.anyio
async def test_what_only_a_person_can_heal_is_told_with_the_remedy_and_not_tried_fast(
    tap: Tap,
    bucket: str,
    root: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(root, "1.jpg", b"x")
    tap.spoil = lambda *_: (403, "AccessDenied")
    rests: list[tuple[float, float]] = []

    def no_rest(least: float, most: float) -> float:
        rests.append((least, most))
        return 0.0

    monkeypatch.setattr("linewatch_forwarder.evidence.uploads.random.uniform", no_rest)
    flow = Flow(tap.url, bucket, root, tmp_path)

    await flow.during(lambda: len(rests) >= 12)

    assert all(least >= 5 for least, _ in rests)
    assert rests[-1][1] == 600
    assert "must allow s3:PutObject on" in flow.told("trouble")
    assert [record.message for record in caplog.records].count("evidence_not_uploaded") == 1, "said once"


@pytest.mark.anyio
async def test_a_file_that_s3_never_takes_holds_up_no_other(
    tap: Tap, bucket: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linewatch_forwarder.evidence.uploads.random.uniform", lambda *_: 0.0)
    poison = put(root, "1.jpg", b"poison")
    put(root, "2.jpg", b"good")
    tap.spoil = lambda _method, _path, body: (400, "EntityTooLarge") if body == b"poison" else None
    flow = Flow(tap.url, bucket, root, tmp_path)

    await flow.during(lambda: flow.told("uploaded") == 1)

    assert len(tap.asked) == TRIES_OF_A_FILE + 1
    assert poison.path.exists()


@pytest.mark.anyio
async def test_it_goes_on_when_the_cloud_is_back(
    account: str, tap: Tap, bucket: str, root: Path, tmp_path: Path
) -> None:
    put(root, "1.jpg", b"x")
    tap.spoil = lambda *_: (503, "SlowDown")
    flow = Flow(tap.url, bucket, root, tmp_path)

    def heal() -> bool:
        if len(tap.asked) >= 2:
            tap.spoil = lambda *_: None
        return flow.told("uploaded") == 1

    await flow.during(heal)
    assert flow.told("trouble") == ""


@pytest.mark.anyio
async def test_after_the_notes_are_lost_nothing_is_written_twice(
    account: str, tap: Tap, bucket: str, root: Path, tmp_path: Path
) -> None:
    for number in range(5):
        put(root, f"{number}.jpg", f"picture {number}".encode())
    await (first := Flow(account, bucket, root, tmp_path)).during(lambda: first.told("uploaded") == 5)
    client = To(account).client("s3")
    before = {one["Key"]: one["LastModified"] for one in client.list_objects_v2(Bucket=bucket)["Contents"]}
    (state_dir_of(root) / "uploaded/line-1").unlink()

    await (again := Flow(tap.url, bucket, root, tmp_path)).during(lambda: again.told("uploaded") == 5)

    assert {
        one["Key"]: one["LastModified"] for one in client.list_objects_v2(Bucket=bucket)["Contents"]
    } == before
    assert len(tap.sent("PUT")) == 5


@pytest.mark.anyio
async def test_a_fault_of_our_own_is_told_and_takes_nothing_along(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(part, "AGAIN_S", 0.01)
    runs = 0

    async def run() -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise ZeroDivisionError

    await asyncio.wait_for(part.keep_going(run, asyncio.Event()), 60)

    assert runs == 3
    assert [record.message for record in caplog.records].count("evidence_fault") == 2


class _Way:
    """An uplink and a delivery, as far as the gate asks them."""

    is_connected, trouble, behind_s = True, "", 0.0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, ""),
        ({"behind_s": 0.4}, ""),
        ({"behind_s": 0.6}, "events are waiting"),
        ({"trouble": "0x87"}, "the cloud does not take every event"),
        ({"is_connected": False}, "the uplink is away"),
    ],
)
def test_evidence_waits_for_every_event(change: dict[str, Any], why: str) -> None:
    way = _Way()
    for name, value in change.items():
        setattr(way, name, value)

    assert part.why_wait(way, way)() == why  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_the_status_can_be_asked_while_files_come_and_go(
    account: str, bucket: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: the status counted the files in the event loop while a thread took them out."""
    monkeypatch.setattr("linewatch_forwarder.evidence.files.LOOK_EVERY_S", 0.0)
    for number in range(1000):
        put(root, f"{number}.jpg", b"x")
    flow = Flow(account, bucket, root, tmp_path)
    failed: list[BaseException] = []
    enough = threading.Event()

    def ask() -> None:
        try:
            while not enough.is_set():
                flow.uploads.told()
        except BaseException as error:  # noqa: BLE001 - looked at below
            failed.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    await flow.during(lambda: flow.told("uploaded") >= 30, deadline_s=240)
    enough.set()
    asking.join(60)
    assert not asking.is_alive()
    assert failed == []


@pytest.mark.anyio
async def test_a_new_file_and_one_that_is_half_written(
    account: str, bucket: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linewatch_forwarder.evidence.files.LOOK_EVERY_S", 0.05)
    put(root, ".1.jpg", b"half")
    put(root, "notes.txt", b"of somebody else")
    flow = Flow(account, bucket, root, tmp_path)
    (root / "latest" / "line-1").mkdir(parents=True)
    (root / "latest" / "line-1" / "station-1.jpg").write_bytes(b"latest")

    def another() -> bool:
        put(root, "2.jpg", b"new", "line-2")
        return True

    await flow.during(lambda: flow.told("state") == "idle", another, lambda: flow.told("uploaded") == 1)

    assert flow.told("waiting_files") == 0
    assert flow.files.count == 0
