# SPDX-License-Identifier: Apache-2.0
"""Looks through an ONNX file's protobuf, without a parser's help, for references to other files.

ONNX Runtime 1.31.1 loaded and ran tensor data from a hard link beside the model in a trial of crafted files, so a
model with external data is refused before the runtime sees it. Only the messages that can hold a tensor are entered.
"""

from collections.abc import Iterator, Mapping

from linewatch_inference.errors import PackageRefused

MAX_MODEL_BYTES = 512 * 1024 * 1024
_MAX_DEPTH = 64  # graphs within If, Loop and Scan; deeper is an attack

# message -> field number -> message inside it (onnx.proto, IR 3 to 13)
_INSIDE: Mapping[str, Mapping[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Node": {5: "Attribute"},
    "Function": {7: "Node", 11: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14


def refuse_external_data(model: bytes, where: str) -> None:
    """Passes a model that holds all its data.

    Raises:
        PackageRefused: it is too large, is no protobuf message, or names data outside itself.
    """
    if len(model) > MAX_MODEL_BYTES:
        raise PackageRefused(f"{where}: {len(model)} bytes, at most {MAX_MODEL_BYTES}")
    try:
        _walk(memoryview(model), "Model", where, 0)
    except (IndexError, ValueError) as error:
        raise PackageRefused(f"{where}: is no ONNX model; export it again") from error


def _walk(message: memoryview, kind: str, where: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise PackageRefused(f"{where}: graphs are nested deeper than {_MAX_DEPTH}")
    for number, value in _fields(message):
        if kind == "Tensor" and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value == 1)):
            raise PackageRefused(f"{where}: keeps tensors in another file; save it with all its data inside")
        inside = _INSIDE[kind].get(number)
        if inside and isinstance(value, memoryview):
            _walk(value, inside, where, depth + 1)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field number and value: an integer, or the bytes of a length-delimited field; fixed-width ones are skipped."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        wire = key & 7
        if wire == 0:
            number, at = _varint(message, at)
            yield key >> 3, number
        elif wire == 2:
            length, at = _varint(message, at)
            if length > len(message) - at:
                raise ValueError("cut short")
            yield key >> 3, message[at : at + length]
            at += length
        elif wire in {1, 5}:
            at += 8 if wire == 1 else 4
        else:
            raise ValueError("unknown wire type")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("number too long")
