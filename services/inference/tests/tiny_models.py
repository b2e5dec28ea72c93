# SPDX-License-Identifier: Apache-2.0
"""Three tiny graphs, one of each model type, whose answers a person can foresee; and packages around them."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from onnx import TensorProto, helper, numpy_helper

from linewatch_models.package import main as package
from linewatch_models.signing import public_pem

SIDE = 32


def spots_graph(gain: float = 1.0, slow: int = 0, *, brittle: bool = False) -> bytes:
    """Segmentation: how dark (class dark) and how bright (class bright) each 2x2 place of a grey picture is.

    A brittle one answers NaN to a picture with a black pixel.
    """
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["planes", "scale"], ["light"]),
        helper.make_node("Sub", ["one", "light"], ["shade"]),
        helper.make_node("Mul", ["shade", "gain"], ["dark"]),
        helper.make_node("Mul", ["light", "dim"], ["bright"]),
        helper.make_node("Concat", ["dark", "bright"], ["both"], axis=1),
        helper.make_node("MaxPool", ["both"], ["heatmap"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("ReduceMax", ["heatmap"], ["class_scores"], axes=[2, 3], keepdims=0),
        helper.make_node("ReduceMax", ["class_scores"], ["score"], axes=[1], keepdims=0),
    ]
    constants = {"scale": 1 / 255, "one": 1.0, "gain": gain, "dim": 0.1}
    initializers = [numpy_helper.from_array(np.float32(value), name) for name, value in constants.items()]
    if brittle:
        nodes[-1].output[0] = "sound_score"
        nodes += [
            helper.make_node("ReduceMin", ["light"], ["darkest"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Log", ["darkest"], ["log"]),
            helper.make_node("Mul", ["log", "zero"], ["spoiling"]),
            helper.make_node("Add", ["sound_score", "spoiling"], ["score"]),
        ]
        initializers.append(numpy_helper.from_array(np.float32(0.0), "zero"))
    if slow:
        nodes[-1].output[0] = "quick_score"
        nodes += _slow_nodes(slow)
        initializers += [
            numpy_helper.from_array(np.eye(256, dtype=np.float32), "eye"),
            numpy_helper.from_array(np.int64(slow), "rounds"),
            numpy_helper.from_array(np.bool_(True), "yes"),
        ]
    return _graph(
        nodes, initializers, ("image", TensorProto.UINT8, ["N", SIDE, SIDE, 1]),
        [("score", ["N"]), ("class_scores", ["N", 2]), ("heatmap", ["N", 2, SIDE // 2, SIDE // 2])],
    )  # fmt: skip


def _slow_nodes(rounds: int) -> list[onnx.NodeProto]:
    """Multiplies unit matrices `rounds` times and adds zero times the sum to the score."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_in"], ["go_out"]),
            helper.make_node("MatMul", ["carried", "eye"], ["next"]),
        ],
        "round",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", TensorProto.FLOAT, [256, 256]),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [256, 256]),
        ],
    )
    return [
        helper.make_node("Add", ["eye", "quick_score"], ["start"]),
        helper.make_node("Loop", ["rounds", "yes", "start"], ["ended"], body=body),
        helper.make_node("ReduceSum", ["ended"], ["total"], keepdims=0),
        helper.make_node("Sub", ["total", "total"], ["nothing"]),
        helper.make_node("Add", ["quick_score", "nothing"], ["score"]),
    ]


def colours_graph() -> bytes:
    """Classification: probabilities by the mean of each colour plane, NCHW float."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("Mul", ["flat", "sharpness"], ["logits"]),
    ]
    sharpness = numpy_helper.from_array(np.float32(10.0), "sharpness")
    return _graph(nodes, [sharpness], ("image", TensorProto.FLOAT, ["N", 3, 8, 8]), [("logits", ["N", 3])])


def wear_graph() -> bytes:
    """Prognostics: 8 records of (load, temperature, life left); life left of the last record is the answer."""
    nodes = [
        helper.make_node("Gather", ["window", "last"], ["record"], axis=1),
        helper.make_node("Gather", ["record", "life"], ["p50"], axis=1),
        helper.make_node("Add", ["p50", "spread"], ["rul"]),
        helper.make_node("Mul", ["p50", "per_horizon"], ["share"]),
        helper.make_node("Sub", ["one", "share"], ["bad"]),
        helper.make_node("Concat", ["share", "bad"], ["failure_mode_prob"], axis=1),
        helper.make_node("Flatten", ["bad"], ["bad_row"]),
        helper.make_node("Squeeze", ["bad_row", "second"], ["severity"]),
    ]
    constants = {
        "last": np.int64(7), "life": np.array([2], np.int64), "spread": np.array([-5, 0, 5], np.float32),
        "per_horizon": np.float32(1 / 100), "one": np.float32(1.0), "second": np.array([1], np.int64),
    }  # fmt: skip
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    return _graph(
        nodes, initializers, ("window", TensorProto.FLOAT, ["N", 8, 3]),
        [("rul", ["N", 3]), ("failure_mode_prob", ["N", 2]), ("severity", ["N"])],
    )  # fmt: skip


def _graph(
    nodes: list[Any], initializers: list[Any], given: tuple[str, int, list[Any]], told: list[Any]
) -> bytes:
    graph = helper.make_graph(
        nodes, "tiny", [helper.make_tensor_value_info(*given)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in told], initializers,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def described(model_type: str, version: str = "1.0.0", **changes: Any) -> dict[str, Any]:
    """A description that fits the graph of that type."""
    common = {
        "model_version": version, "model_type": model_type, "framework": "onnx", "target_devices": ["x86_64"],
        "licence": "Apache-2.0", "attribution": "made here",
        "training_data": {"name": "drawn here", "licence": "Apache-2.0", "sha256": "4c" * 32},
    }  # fmt: skip
    by_type: dict[str, dict[str, Any]] = {
        "segmentation": {
            "model_name": "spots",
            "output_classes": ["ok", "dark", "bright"],
            "input": {
                "name": "image", "shape": ["N", SIDE, SIDE, 1], "dtype": "uint8", "layout": "NHWC",
                "colour_order": "GRAY", "resize": "area", "normalisation": None,
            },
            "outputs": {"score": "score", "class_scores": "class_scores", "heatmap": "heatmap"},
            "thresholds": {"ng": 0.8, "review": 0.5, "class": {"dark": 0.8}, "region": {"dark": 0.6, "bright": 0.6}},
            "failure_modes": {"dark": "dark-spot"},
            "quality": {"min_mean": 20.0, "max_mean": 250.0, "min_laplacian_var": 1.0, "min_width": 16},
        },
        "classification": {
            "model_name": "colours",
            "output_classes": ["red", "green", "blue"],
            "ok_classes": ["green"],
            "input": {
                "name": "image", "shape": ["N", 3, 8, 8], "dtype": "float32", "layout": "NCHW",
                "colour_order": "RGB", "resize": "linear",
                "normalisation": {"scale": 0.00392156862745098, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
            },
            "outputs": {"logits": "logits"},
            "thresholds": {"ng": 0.8, "review": 0.5},
            "failure_modes": {"red": "too-red", "blue": "too-blue"},
        },
        "prognostics": {
            "model_name": "wear",
            "output_classes": ["none", "worn"],
            "input": {
                "name": "window", "shape": ["N", 8, 3], "dtype": "float32",
                "channels": ["load", "temperature", "life"], "units": ["kN", "degC", "cycle"],
            },
            "outputs": {"rul": "rul", "failure_mode_prob": "failure_mode_prob", "severity": "severity"},
            "thresholds": {"ng": 0.8, "review": 0.5},
            "failure_modes": {"worn": "wear-out"},
            "time_to_failure": {"unit": "cycle", "horizon": 100},
            "guards": {
                "frozen": {"channels": ["temperature"], "min_equal": 4},
                "regimes": {"channels": ["load"], "points": [[10.0], [20.0]], "scale": [10.0], "max_distance": 0.2},
            },
        },
    }  # fmt: skip
    return common | by_type[model_type] | changes


GRAPHS = {"segmentation": spots_graph, "classification": colours_graph, "prognostics": wear_graph}


def window(life: float, *, records: int = 8) -> np.ndarray:
    """A healthy-looking window that ends with `life` cycles left."""
    values = np.empty((records, 3), np.float32)
    values[:, 0] = np.where(np.arange(records) % 2, 10.5, 19.5)
    values[:, 1] = 60.0 + np.arange(records) * 0.25
    values[:, 2] = life + np.arange(records)[::-1]
    return values


def picture(spot: int | None = None, *, size: int = SIDE * 2, light: int = 180) -> np.ndarray:
    """A grey picture with a little texture; a square of grey level `spot` at x 16..27, y 32..39."""
    pixels = np.full((size, size), light, np.uint8)
    pixels[::4] += 6
    if spot is not None:
        pixels[32:40, 16:28] = spot
    return pixels


def encoded(pixels: np.ndarray, suffix: str = ".png") -> bytes:
    """The picture as a file."""
    return bytes(cv2.imencode(suffix, pixels)[1])


def make_package(
    root: Path, description: dict[str, Any], graph: bytes, key: Path, *, int8: bytes | None = None
) -> Path:
    """Packages with the project's own tool: root/models/<name>/<version>."""
    work = root / "work" / f"{description['model_name']}-{description['model_version']}"
    (work / "golden").mkdir(parents=True, exist_ok=True)
    (work / "description.json").write_text(json.dumps(description))
    (work / "model.onnx").write_bytes(graph)
    (work / "card.md").write_text("A model for tests.\n")
    if description["model_type"] == "prognostics":
        rows = [",".join(f"{value}" for value in row) for row in window(40.0)]
        (work / "golden" / "worn.csv").write_text("\n".join(["load,temperature,life", *rows]) + "\n")
    elif description["model_type"] == "segmentation":
        (work / "golden" / "spot.png").write_bytes(encoded(picture(10)))
    else:
        (work / "golden" / "grey.png").write_bytes(encoded(np.full((8, 8, 3), 120, np.uint8)))
    out = root / "models" / description["model_name"] / description["model_version"]
    asked = ["--onnx", f"{work / 'model.onnx'}", "--description", f"{work / 'description.json'}"]
    if int8:
        (work / "model.int8.onnx").write_bytes(int8)
        asked += ["--int8", f"{work / 'model.int8.onnx'}"]
    out.parent.mkdir(parents=True, exist_ok=True)
    assert package([*asked, "--signing-key", f"{key}", "--out", f"{out}"]) == 0
    return out


def make_key(directory: Path, name: str = "key") -> tuple[Path, Path]:
    """A signing key and the directory that trusts it."""
    key = Ed25519PrivateKey.generate()
    private = directory / f"{name}.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    trusted = directory / f"trusted-{name}"
    trusted.mkdir()
    (trusted / "key.pem").write_bytes(public_pem(key.public_key()))
    return private, trusted
