# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N802 - rpcs are called as in the proto
"""inference.GRPCInferenceService: the Open Inference Protocol v2 with its model repository extension."""

import functools
from collections.abc import Callable
from typing import TypeVar

import grpc

from linewatch_inference.errors import InferenceRefused
from linewatch_inference.grpc_errors import abort, abort_internal
from linewatch_inference.inspection import Inspection
from linewatch_inference.repository import Repository
from linewatch_inference.session import Tensor
from linewatch_inference.tensors import arrays_of, datatype, raw_of
from open_inference.v2 import open_inference_pb2 as oip
from open_inference.v2 import open_inference_pb2_grpc

SERVER_NAME = "linewatch-inference"
SERVICE_VERSION = "0.1.0"
"""Of this software; the same as in pyproject.toml."""
EXTENSIONS = ("model_repository",)
PLATFORM = "onnxruntime_onnx"

Servicer = TypeVar("Servicer")
Request = TypeVar("Request")
Response = TypeVar("Response")


def _told(
    method: Callable[[Servicer, Request, grpc.ServicerContext], Response],
) -> Callable[[Servicer, Request, grpc.ServicerContext], Response]:
    """Errors of an rpc become status codes."""

    @functools.wraps(method)
    def answered(servicer: Servicer, request: Request, context: grpc.ServicerContext) -> Response:
        try:
            return method(servicer, request, context)
        except InferenceRefused as error:
            abort(context, error)
        except Exception as error:  # noqa: BLE001 - a bug here: the caller gets an id, the log the traceback
            abort_internal(context, error)

    return answered


class OpenInferenceServicer(open_inference_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Tensors in, tensors out."""

    def __init__(self, inspection: Inspection) -> None:
        self._inspection = inspection
        self._repository: Repository = inspection.repository

    @_told
    def ServerLive(self, _: oip.ServerLiveRequest, __: grpc.ServicerContext) -> oip.ServerLiveResponse:
        """True: it answers."""
        return oip.ServerLiveResponse(live=True)

    @_told
    def ServerReady(self, _: oip.ServerReadyRequest, __: grpc.ServicerContext) -> oip.ServerReadyResponse:
        """Whether every configured model is in service."""
        return oip.ServerReadyResponse(ready=self._repository.is_complete)

    @_told
    def ModelReady(self, request: oip.ModelReadyRequest, _: grpc.ServicerContext) -> oip.ModelReadyResponse:
        """Whether this model can be asked; an unknown one is not ready."""
        try:
            with self._repository.model(request.name, request.version):
                return oip.ModelReadyResponse(ready=True)
        except InferenceRefused:
            return oip.ModelReadyResponse(ready=False)

    @_told
    def ServerMetadata(
        self, _: oip.ServerMetadataRequest, __: grpc.ServicerContext
    ) -> oip.ServerMetadataResponse:
        """Who we are."""
        return oip.ServerMetadataResponse(name=SERVER_NAME, version=SERVICE_VERSION, extensions=EXTENSIONS)

    @_told
    def ModelMetadata(
        self, request: oip.ModelMetadataRequest, _: grpc.ServicerContext
    ) -> oip.ModelMetadataResponse:
        """The tensors of a model."""
        with self._repository.model(request.name, request.version) as model:
            ready = [
                one for one in self._repository.index() if one.state == "READY" and one.name == request.name
            ]
            return oip.ModelMetadataResponse(
                name=request.name,
                versions=[one.version for one in ready],
                platform=PLATFORM,
                inputs=[_described(one) for one in model.session.inputs.values()],
                outputs=[_described(one) for one in model.session.outputs.values()],
            )

    @_told
    def ModelInfer(
        self, request: oip.ModelInferRequest, context: grpc.ServicerContext
    ) -> oip.ModelInferResponse:
        """Runs the graph."""
        feeds = arrays_of(request.inputs, request.raw_input_contents)
        outputs, model = self._inspection.infer(
            request.model_name, request.model_version, feeds, [one.name for one in request.outputs],
            budget_s=context.time_remaining(),
        )  # fmt: skip
        response = oip.ModelInferResponse(model_name=model.name, model_version=model.version, id=request.id)
        for name, values in outputs.items():
            response.outputs.add(name=name, datatype=datatype(values.dtype), shape=values.shape)
            response.raw_output_contents.append(raw_of(values))
        return response

    @_told
    def RepositoryIndex(
        self, request: oip.RepositoryIndexRequest, _: grpc.ServicerContext
    ) -> oip.RepositoryIndexResponse:
        """The models and their state."""
        entries = [one for one in self._repository.index() if one.state == "READY" or not request.ready]
        index = oip.RepositoryIndexResponse.ModelIndex
        return oip.RepositoryIndexResponse(
            models=[
                index(name=one.name, version=one.version, state=one.state, reason=one.reason)
                for one in entries
            ]
        )

    @_told
    def RepositoryModelLoad(
        self, request: oip.RepositoryModelLoadRequest, _: grpc.ServicerContext
    ) -> oip.RepositoryModelLoadResponse:
        """Parameters: `version` (string; the newest without it), `beside` (bool; the active one stays)."""
        asked = request.parameters
        wanted = asked["version"].string_param if "version" in asked else ""
        beside = asked["beside"].bool_param if "beside" in asked else False
        self._repository.load(request.model_name, wanted, beside=beside)
        return oip.RepositoryModelLoadResponse()

    @_told
    def RepositoryModelUnload(
        self, request: oip.RepositoryModelUnloadRequest, _: grpc.ServicerContext
    ) -> oip.RepositoryModelUnloadResponse:
        """Parameter: `version` (string; all of the name without it)."""
        asked = request.parameters
        self._repository.unload(
            request.model_name, asked["version"].string_param if "version" in asked else ""
        )
        return oip.RepositoryModelUnloadResponse()


def _described(tensor: Tensor) -> oip.ModelMetadataResponse.TensorMetadata:
    described = oip.ModelMetadataResponse.TensorMetadata
    return described(name=tensor.name, datatype=datatype(tensor.dtype), shape=tensor.shape)
