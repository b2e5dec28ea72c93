# SPDX-License-Identifier: Apache-2.0
"""What an ONNX file must be before it is packaged: valid, whole in one file, of operators that the device has."""

import onnx
from google.protobuf.message import DecodeError

from linewatch_inference.errors import PackageRefused
from linewatch_inference.onnx_safety import refuse_external_data

OPSETS = range(11, 24)
"""Opset 11 is the oldest that exporters of today write; 23 the newest that the device's ONNX Runtime was tried with."""

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})


def check_graph(graph: bytes, where: str) -> None:
    """Passes an ONNX file that can be packaged.

    Raises:
        PackageRefused: naming what is wrong and the remedy.
    """
    refuse_external_data(graph, where)
    try:
        model = onnx.load_model_from_string(graph)
        onnx.checker.check_model(model, full_check=True)
    except (DecodeError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise PackageRefused(f"{where}: is no valid ONNX model: {error}") from error
    for node in model.graph.node:  # not opset_import: quantisers list domains that no node uses
        if node.domain not in DOMAINS:
            raise PackageRefused(
                f"{where}: {node.op_type} of {node.domain!r} is no operator that the device has"
            )
    for opset in model.opset_import:
        if opset.domain in {"", "ai.onnx"} and opset.version not in OPSETS:
            raise PackageRefused(
                f"{where}: opset {opset.version}; export it with one of {OPSETS.start} to {OPSETS.stop - 1}"
            )
