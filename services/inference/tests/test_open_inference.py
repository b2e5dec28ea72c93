# SPDX-License-Identifier: Apache-2.0
"""The Open Inference Protocol over a real server."""

from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from running_server import Running
from tiny_models import described, make_package, spots_graph, window

from linewatch_inference.server import INSPECTOR, OPEN_INFERENCE
from open_inference.v2 import open_inference_pb2 as oip

TIMEOUT_S = 60.0


def wear_request(values: np.ndarray, *, raw: bool, datatype: str = "FP32") -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(model_name="wear", id="call-7")
    tensor = request.inputs.add(name="window", datatype=datatype, shape=values.shape)
    if raw:
        request.raw_input_contents.append(values.tobytes())
    else:
        tensor.contents.fp32_contents.extend(values.ravel())
    return request


def arrays(response: oip.ModelInferResponse) -> dict[str, np.ndarray]:
    return {
        told.name: np.frombuffer(data, np.float32).reshape(tuple(told.shape))
        for told, data in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def test_raw_and_typed_tensors_give_the_same_answer_and_the_id_comes_back(running: Running) -> None:
    batch = np.stack([window(10.0), window(60.0)])

    raw = running.open_inference.ModelInfer(wear_request(batch, raw=True), timeout=TIMEOUT_S)
    typed = running.open_inference.ModelInfer(wear_request(batch, raw=False), timeout=TIMEOUT_S)

    assert (raw.id, raw.model_name, raw.model_version) == ("call-7", "wear", "1.0.0")
    assert [one.datatype for one in raw.outputs] == ["FP32", "FP32", "FP32"]
    np.testing.assert_array_equal(arrays(raw)["rul"], [[5, 10, 15], [55, 60, 65]])
    assert {name: values.tolist() for name, values in arrays(raw).items()} == {
        name: values.tolist() for name, values in arrays(typed).items()
    }


def test_typed_bytes_and_chosen_outputs(running: Running) -> None:
    request = oip.ModelInferRequest(model_name="spots", outputs=[{"name": "score"}])
    tensor = request.inputs.add(name="image", datatype="UINT8", shape=[1, 32, 32, 1])
    tensor.contents.uint_contents.extend([255] * 1024)

    told = arrays(running.open_inference.ModelInfer(request, timeout=TIMEOUT_S))

    assert list(told) == ["score"]
    np.testing.assert_allclose(told["score"], [0.1], atol=1e-6)


def _mixed(request: oip.ModelInferRequest) -> None:
    request.raw_input_contents.append(b"1234")


def _two_raw(request: oip.ModelInferRequest) -> None:
    request.inputs[0].ClearField("contents")
    request.raw_input_contents.extend([b"1", b"2"])


def _short(request: oip.ModelInferRequest) -> None:
    request.inputs[0].shape[1] = 9


def _negative(request: oip.ModelInferRequest) -> None:
    request.inputs[0].shape[0] = -1


def _other_name(request: oip.ModelInferRequest) -> None:
    request.inputs[0].name = "windows"


def _other_type(request: oip.ModelInferRequest) -> None:
    request.inputs[0].datatype = "FP64"


def _text(request: oip.ModelInferRequest) -> None:
    request.inputs[0].datatype = "BYTES"


def _nan(request: oip.ModelInferRequest) -> None:
    request.inputs[0].contents.fp32_contents[5] = float("nan")


def _no_such_output(request: oip.ModelInferRequest) -> None:
    request.outputs.add(name="rull")


def _nothing(request: oip.ModelInferRequest) -> None:
    request.inputs[0].shape[0] = 0
    request.inputs[0].ClearField("contents")


@pytest.mark.parametrize(
    "spoil",
    [_mixed, _two_raw, _short, _negative, _other_name, _other_type, _text, _nan, _no_such_output, _nothing],
)
def test_tensors_that_do_not_fit_are_refused(
    running: Running, spoil: Callable[[oip.ModelInferRequest], None]
) -> None:
    request = wear_request(window(10.0)[np.newaxis], raw=False)
    spoil(request)

    with pytest.raises(grpc.RpcError) as caught:
        running.open_inference.ModelInfer(request, timeout=TIMEOUT_S)

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    reason = dict(caught.value.trailing_metadata())["linewatch-reason"]
    assert reason == ("not_finite" if spoil is _nan else "wrong_shape")


def test_metadata_tells_names_types_and_free_dimensions(running: Running) -> None:
    told = running.open_inference.ModelMetadata(oip.ModelMetadataRequest(name="wear"), timeout=TIMEOUT_S)
    server = running.open_inference.ServerMetadata(oip.ServerMetadataRequest(), timeout=TIMEOUT_S)

    assert (told.platform, list(told.versions)) == ("onnxruntime_onnx", ["1.0.0"])
    assert [(one.name, one.datatype, list(one.shape)) for one in told.inputs] == [
        ("window", "FP32", [-1, 8, 3])
    ]
    assert [one.name for one in told.outputs] == ["rul", "failure_mode_prob", "severity"]
    assert list(server.extensions) == ["model_repository"]


def test_liveness_and_readiness(running: Running) -> None:
    stub = running.open_inference

    assert stub.ServerLive(oip.ServerLiveRequest(), timeout=TIMEOUT_S).live
    assert stub.ServerReady(oip.ServerReadyRequest(), timeout=TIMEOUT_S).ready
    assert stub.ModelReady(oip.ModelReadyRequest(name="spots"), timeout=TIMEOUT_S).ready
    assert not stub.ModelReady(oip.ModelReadyRequest(name="spots", version="7.0.0"), timeout=TIMEOUT_S).ready
    assert not stub.ModelReady(oip.ModelReadyRequest(name="nobody"), timeout=TIMEOUT_S).ready


def test_repository_loads_beside_in_place_and_unloads(serve: Callable[..., Running], own_copy: Path) -> None:
    running = serve(own_copy, models="spots")
    stub = running.open_inference
    for version in ("1.1.0", "1.2.0"):
        make_package(
            own_copy, described("segmentation", version), spots_graph(gain=0.5), own_copy / "key.pem"
        )

    def index() -> dict[str, str]:
        told = stub.RepositoryIndex(oip.RepositoryIndexRequest(), timeout=TIMEOUT_S)
        return {f"{one.name} {one.version}": one.state for one in told.models}

    assert index() == {
        "spots 1.0.0": "READY", "spots 1.1.0": "UNAVAILABLE", "spots 1.2.0": "UNAVAILABLE",
        "wear 1.0.0": "UNAVAILABLE", "colours 1.0.0": "UNAVAILABLE",
    }  # fmt: skip
    beside = {"version": {"string_param": "1.1.0"}, "beside": {"bool_param": True}}
    stub.RepositoryModelLoad(
        oip.RepositoryModelLoadRequest(model_name="spots", parameters=beside), timeout=TIMEOUT_S
    )
    with running.repository.model("spots") as active, running.repository.model("spots", "1.1.0") as other:
        assert (active.reference.version, other.reference.version) == ("1.0.0", "1.1.0")

    stub.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="spots"), timeout=TIMEOUT_S)
    assert (index()["spots 1.0.0"], index()["spots 1.1.0"], index()["spots 1.2.0"]) == (
        "UNAVAILABLE",
        "READY",
        "READY",
    )

    stub.RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name="spots"), timeout=TIMEOUT_S)
    assert "READY" not in index().values()
    with pytest.raises(grpc.RpcError) as caught:
        stub.RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name="spots"), timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    info = [one for one in running.registry.collect() if one.name == "linewatch_inference_model_info"]
    assert info[0].samples == []


def test_load_tells_what_is_wrong_with_the_package(serve: Callable[..., Running], own_copy: Path) -> None:
    running = serve(own_copy)
    (own_copy / "models/spots/1.0.0/card.md").write_text("changed")

    for name, code in (("spots", grpc.StatusCode.FAILED_PRECONDITION), ("nobody", grpc.StatusCode.NOT_FOUND)):
        with pytest.raises(grpc.RpcError) as caught:
            running.open_inference.RepositoryModelLoad(
                oip.RepositoryModelLoadRequest(model_name=name), timeout=TIMEOUT_S
            )
        assert caught.value.code() is code


def test_health_follows_the_models(running: Running) -> None:
    stub = health_pb2_grpc.HealthStub(running.channel)

    def told() -> set[int]:
        names = ("", INSPECTOR, OPEN_INFERENCE)
        return {
            stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT_S).status
            for name in names
        }

    assert told() == {health_pb2.HealthCheckResponse.SERVING}
    for name in ("spots", "wear", "colours"):
        running.repository.unload(name)
    assert told() == {health_pb2.HealthCheckResponse.NOT_SERVING}


def test_reflection_lists_both_services(running: Running) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(running.channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")

    told = next(iter(stub.ServerReflectionInfo(iter([asked]), timeout=TIMEOUT_S)))

    names = {one.name for one in told.list_services_response.service}
    assert {INSPECTOR, OPEN_INFERENCE, "grpc.health.v1.Health"} <= names
    assert (INSPECTOR, OPEN_INFERENCE) == ("linewatch.v1.Inspector", "inference.GRPCInferenceService")
