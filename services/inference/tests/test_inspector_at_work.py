# SPDX-License-Identifier: Apache-2.0
"""linewatch.v1.Inspector at work: queue, deadlines, streams, models that are replaced, what is counted and logged."""

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from inspector_calls import NG, OK, TIMEOUT_S, image_request, refused, window_request
from running_server import Running, wait_until
from tiny_models import described, encoded, make_package, picture, spots_graph, window

from linewatch.v1 import inspector_pb2 as messages


def test_full_queue_is_told_at_once_and_a_waiting_part_is_judged(
    serve: Callable[..., Running], released: Path
) -> None:
    running = serve(released, workers=1, queue_limit=1)
    with running.admission.worker(None):
        waiting = running.inspector.Inspect.future(image_request(encoded(picture())), timeout=TIMEOUT_S)
        wait_until(lambda: running.admission.waiting == 1)

        code, reason, _ = refused(running, image_request(encoded(picture())))

        assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "busy")
    assert waiting.result().verdict.result == OK
    assert waiting.result().verdict.timings.queue_ms > 0


def test_deadline_ends_the_wait_for_a_worker(serve: Callable[..., Running], released: Path) -> None:
    running = serve(released, workers=1, queue_limit=4)
    with running.admission.worker(None):
        code, _, _ = refused(running, image_request(encoded(picture())), timeout=0.2)

        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        wait_until(lambda: running.admission.waiting == 0)


def test_message_beyond_the_limit_is_refused(serve: Callable[..., Running], released: Path) -> None:
    running = serve(released, max_message_bytes=4096)

    code, _, _ = refused(running, image_request(bytes(10_000)))

    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_stream_that_came_in_while_the_streams_were_ended_is_ended_too(running: Running) -> None:
    """Accepted before the stop and begun behind it: it would hold the stop for as long as parts may drain."""
    running.server.inspector.stop_streams()
    caller_leaves = threading.Event()

    def silent() -> Iterator[messages.InspectRequest]:
        caller_leaves.wait(TIMEOUT_S)
        yield from ()

    with pytest.raises(grpc.RpcError) as ended:
        list(running.inspector.InspectStream(silent(), timeout=5.0))
    caller_leaves.set()

    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE


def test_stream_answers_in_order_and_goes_on_after_a_bad_part(running: Running) -> None:
    requests = [image_request(encoded(picture(10))), image_request(b"no image"), window_request(window(90.0))]
    requests[0].id, requests[1].id, requests[2].id = "a", "b", "c"

    answers = list(running.inspector.InspectStream(iter(requests), timeout=TIMEOUT_S))

    assert [answer.id for answer in answers] == ["a", "b", "c"]
    assert [answer.WhichOneof("answer") for answer in answers] == ["response", "error", "response"]
    assert answers[1].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert answers[1].error.reason == "unreadable_image"


def test_stream_beyond_the_limit_is_refused(serve: Callable[..., Running], released: Path) -> None:
    running = serve(released, stream_limit=1)
    hold = threading.Event()

    def slow() -> object:
        yield image_request(encoded(picture()))
        hold.wait(TIMEOUT_S)

    first = running.inspector.InspectStream(slow(), timeout=TIMEOUT_S)
    assert next(first).response.verdict.result == OK
    with pytest.raises(grpc.RpcError) as caught:
        list(running.inspector.InspectStream(iter([image_request(encoded(picture()))]), timeout=TIMEOUT_S))
    hold.set()

    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert list(first) == []


def test_model_is_replaced_while_calls_run_and_none_fails(
    serve: Callable[..., Running], own_copy: Path
) -> None:
    running = serve(own_copy)
    make_package(own_copy, described("segmentation", "1.1.0"), spots_graph(gain=0.5), own_copy / "key.pem")
    request = image_request(encoded(picture(10)))
    with ThreadPoolExecutor(3) as callers:
        stop = threading.Event()

        def ask() -> list[tuple[str, int]]:
            told = []
            while not stop.is_set():
                verdict = running.inspector.Inspect(request, timeout=TIMEOUT_S).verdict
                told.append((verdict.model.version, verdict.result))
            return told

        asking = [callers.submit(ask) for _ in range(3)]
        for version in ("1.1.0", "1.0.0", "1.1.0"):
            running.repository.load("spots", version)
        stop.set()
        told = [answer for one in asking for answer in one.result()]

    assert set(told) <= {("1.0.0", NG), ("1.1.0", OK)}
    after = running.inspector.Inspect(request, timeout=TIMEOUT_S).verdict
    assert (after.model.version, after.result) == ("1.1.0", OK)


def test_requests_are_counted_by_outcome(running: Running) -> None:
    running.inspector.Inspect(image_request(encoded(picture(10))), timeout=TIMEOUT_S)
    refused(running, image_request(b"no image"))
    refused(running, image_request(b"no image", "nobody"))
    refused(running, messages.InspectRequest(model_name="spots"))

    def count(model: str, version: str, outcome: str) -> float | None:
        labels = {"model": model, "version": version, "outcome": outcome}
        return running.registry.get_sample_value("linewatch_inference_requests_total", labels)

    assert count("spots", "1.0.0", "ng") == 1
    assert count("spots", "1.0.0", "unreadable_image") == 1
    assert count("", "", "model_not_found") == 1
    assert count("", "", "wrong_shape") == 1
    assert (
        running.registry.get_sample_value("linewatch_inference_predict_seconds_count", {"model": "spots"})
        == 1
    )


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(("sent", "logged"), [(TRACE, TRACE), ("nonsense", None), (TRACE[:-2] + "00", None)])
def test_sampled_trace_context_is_in_the_log(
    running: Running, caplog: pytest.LogCaptureFixture, sent: str, logged: str | None
) -> None:
    caplog.set_level(logging.INFO)

    running.inspector.Inspect(
        image_request(encoded(picture())), timeout=TIMEOUT_S, metadata=(("traceparent", sent),)
    )

    told = [
        record.__dict__.get("traceparent") for record in caplog.records if record.getMessage() == "inspected"
    ]
    assert told == ([logged] if logged else [])


def test_graph_that_fails_is_an_internal_error_with_an_id_and_told_once(
    serve: Callable[..., Running], own_copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_package(
        own_copy, described("segmentation", "1.1.0"), spots_graph(brittle=True), own_copy / "key.pem"
    )
    running = serve(own_copy)

    told = [refused(running, image_request(encoded(picture(0)))) for _ in range(2)]

    assert {answer[:2] for answer in told} == {(grpc.StatusCode.INTERNAL, "internal")}
    words = told[0][2]
    logged = [record for record in caplog.records if record.getMessage() == "internal_error"]
    assert words.split()[2].removesuffix(";") == logged[0].__dict__["error_id"]
    assert "NaN" not in words
    assert "Traceback" not in words
    assert logged[0].exc_info
    assert [event for event in running.events.heard if event[0] == "EngineError"] == [
        ("EngineError", "spots", "output score: no finite number")
    ]
    assert (
        running.inspector.Inspect(image_request(encoded(picture(10))), timeout=TIMEOUT_S).verdict.result == NG
    )
