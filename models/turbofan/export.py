# SPDX-License-Identifier: Apache-2.0
"""Write build/model.onnx and build/model.int8.onnx from build/turbofan.pt, and check that they say the same.

The int8 variant quantises the members' weights per channel (dynamic quantisation of the matrix products); the
normalisation and the calibration stay fp32, because a rounded regime mean would be a wrong reading.
"""

import argparse
import os
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnx
import torch
from network import MEMBERS, WINDOW, Calibration, Ensemble, Normaliser
from numpy.typing import NDArray
from onnxruntime import InferenceSession, SessionOptions
from onnxruntime.quantization import QuantType, quantize_dynamic

from linewatch_models.prognostics_data import read_engines, windows

HERE = Path(__file__).parent
OUTPUTS = ("rul", "failure_mode_prob", "p_fail_30", "severity")
OPSET = 17
IR_VERSION = 9
PARITY = 2e-3  # cycles; PyTorch against onnxruntime


def load(path: Path) -> Ensemble:
    """Rebuild the trained ensemble."""
    saved = torch.load(path, weights_only=True)
    normaliser = Normaliser()
    normaliser.load_state_dict(saved["normaliser"])
    members = []
    for recipe, (name, state) in zip(saved["recipes"], saved["members"], strict=True):
        member = MEMBERS[name](**recipe["shape"])
        member.load_state_dict(state)
        members.append(member)
    return Ensemble(normaliser, members, Calibration(**saved["calibration"])).eval()


def export(ensemble: Ensemble, path: Path) -> None:
    """Write the fp32 graph with a free batch, for onnxruntime 1.19 and later."""
    torch.onnx.export(
        ensemble,
        (torch.zeros(2, WINDOW, 24),),
        str(path),
        input_names=["window"],
        output_names=list(OUTPUTS),
        dynamic_axes={name: {0: "N"} for name in ("window", *OUTPUTS)},
        opset_version=OPSET,
        dynamo=False,
    )
    model = onnx.load(path)
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def quantise(source: Path, target: Path) -> None:
    """Quantise the weights of the linear layers; convolutions stay fp32, they are few and lose most."""
    quantize_dynamic(source, target, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True, weight_type=QuantType.QInt8,
                     nodes_to_exclude=[node.name for node in onnx.load(source).graph.node if node.name.startswith("/normaliser")])  # fmt: skip
    model = onnx.load(target)
    model.ir_version = IR_VERSION
    onnx.save(model, target)


def answer(path: Path, asked: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Run a graph on one thread, outputs by name."""
    options = SessionOptions()
    options.intra_op_num_threads = 1
    session = InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return dict(zip(OUTPUTS, session.run(list(OUTPUTS), {"window": asked}), strict=True))


def check(ensemble: Ensemble, fp32: Path, int8: Path, data_dir: Path) -> None:
    """Compare PyTorch, fp32 and int8 on every tenth window of val, and the order of the quantiles."""
    asked = np.concatenate([windows(engine)[::10] for engine in read_engines(data_dir, "val")])
    with torch.no_grad():
        wanted = dict(zip(OUTPUTS, (part.numpy() for part in ensemble(torch.from_numpy(asked))), strict=True))
    plain, small = answer(fp32, asked), answer(int8, asked)
    parity = float(np.abs(plain["rul"] - wanted["rul"]).max())
    print(f"{len(asked)} windows: PyTorch to ONNX at most {parity:.1e} cycles")
    gap = np.abs(small["rul"][:, 1] - plain["rul"][:, 1])
    print(
        f"int8 to fp32: mean {gap.mean():.3f}, p99 {np.percentile(gap, 99):.3f}, max {gap.max():.3f} cycles"
    )
    if parity > PARITY:
        raise SystemExit(f"the exported graph differs from the trained network by {parity} cycles")
    for said in (plain, small):
        if not (np.diff(said["rul"], axis=1) >= 0).all():
            raise SystemExit("p10 <= p50 <= p90 does not hold")
    print(f"sizes: fp32 {fp32.stat().st_size:,} bytes, int8 {int8.stat().st_size:,} bytes")


def main() -> None:
    """Export, quantise, compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder laid out like data/cmapss")
    parser.add_argument("--build", type=Path, default=HERE / "build")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    fp32, int8 = arguments.build / "model.onnx", arguments.build / "model.int8.onnx"
    ensemble = load(arguments.build / "turbofan.pt")
    export(ensemble, fp32)
    quantise(fp32, int8)
    check(ensemble, fp32, int8, arguments.data)


if __name__ == "__main__":
    main()
