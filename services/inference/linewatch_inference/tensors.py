# SPDX-License-Identifier: Apache-2.0
"""Open Inference Protocol tensors to numpy and back, without a copy where the bytes allow it."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from linewatch_inference.errors import WrongShape
from open_inference.v2 import open_inference_pb2

# datatype -> numpy's type and the field of InferTensorContents; FP16 has none and travels raw only
DATATYPES: Mapping[str, tuple[type[np.generic], str]] = {
    "BOOL": (np.bool_, "bool_contents"),
    "UINT8": (np.uint8, "uint_contents"),
    "UINT16": (np.uint16, "uint_contents"),
    "UINT32": (np.uint32, "uint_contents"),
    "UINT64": (np.uint64, "uint64_contents"),
    "INT8": (np.int8, "int_contents"),
    "INT16": (np.int16, "int_contents"),
    "INT32": (np.int32, "int_contents"),
    "INT64": (np.int64, "int64_contents"),
    "FP16": (np.float16, ""),
    "FP32": (np.float32, "fp32_contents"),
    "FP64": (np.float64, "fp64_contents"),
}
_NAMES = {np.dtype(kind): name for name, (kind, _) in DATATYPES.items()}

Input = open_inference_pb2.ModelInferRequest.InferInputTensor


def datatype(dtype: np.dtype[np.generic]) -> str:
    """The protocol's word for a numpy type."""
    return _NAMES[dtype]


def arrays_of(inputs: Sequence[Input], raw: Sequence[bytes]) -> dict[str, NDArray[np.generic]]:
    """The request's tensors by name; raw ones are views of its bytes.

    Raises:
        WrongShape: naming the tensor and what does not fit.
    """
    if raw and any(tensor.HasField("contents") for tensor in inputs):
        raise WrongShape("raw_input_contents: raw and typed contents are mixed; send all inputs in one form")
    if raw and len(raw) != len(inputs):
        raise WrongShape(
            f"raw_input_contents: {len(raw)} entries for {len(inputs)} inputs; send one for each"
        )
    arrays: dict[str, NDArray[np.generic]] = {}
    for index, tensor in enumerate(inputs):
        if tensor.name in arrays:
            raise WrongShape(f"inputs.{tensor.name}: is given twice")
        if tensor.datatype not in DATATYPES:
            raise WrongShape(
                f"inputs.{tensor.name}: datatype {tensor.datatype!r} is not served; use {', '.join(DATATYPES)}"
            )
        if any(size < 0 for size in tensor.shape):
            raise WrongShape(f"inputs.{tensor.name}: shape {list(tensor.shape)} has a negative size")
        arrays[tensor.name] = _raw_array(tensor, raw[index]) if raw else _typed_array(tensor)
    return arrays


def _raw_array(tensor: Input, data: bytes) -> NDArray[np.generic]:
    kind = np.dtype(DATATYPES[tensor.datatype][0]).newbyteorder("<")
    size = math.prod(tensor.shape) * kind.itemsize
    if len(data) != size:
        raise WrongShape(f"inputs.{tensor.name}: {len(data)} bytes, shape {list(tensor.shape)} needs {size}")
    return np.frombuffer(data, kind).reshape(tuple(tensor.shape))


def _typed_array(tensor: Input) -> NDArray[np.generic]:
    kind, field = DATATYPES[tensor.datatype]
    if not field:
        raise WrongShape(
            f"inputs.{tensor.name}: {tensor.datatype} has no typed contents; send raw_input_contents"
        )
    other = [one.name for one, _ in tensor.contents.ListFields() if one.name != field]
    if other:
        raise WrongShape(f"inputs.{tensor.name}: {tensor.datatype} belongs in {field}, not in {other[0]}")
    values = getattr(tensor.contents, field)
    if len(values) != math.prod(tensor.shape):
        raise WrongShape(
            f"inputs.{tensor.name}: {len(values)} values, shape {list(tensor.shape)} needs {math.prod(tensor.shape)}"
        )
    try:
        return np.array(values, dtype=kind).reshape(tuple(tensor.shape))
    except OverflowError as error:
        raise WrongShape(f"inputs.{tensor.name}: a value does not fit {tensor.datatype}") from error


def raw_of(values: NDArray[np.generic]) -> bytes:
    """Little-endian, row by row."""
    return np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
