# SPDX-License-Identifier: Apache-2.0
"""Judges a released model on labelled data: `python -m linewatch_models.evaluate --model NAME --data DIR` (`make evaluate`).

Every part goes through the device's own code, from the file to the verdict, on one thread; fp32 and int8 alike.
"""

import argparse
import datetime
import json
import math
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from linewatch_inference.errors import InferenceRefused
from linewatch_inference.model import open_model
from linewatch_inference.package import GRAPHS, Package, locate, read_package
from linewatch_inference.session import SessionOptions
from linewatch_models import evaluate_images, evaluate_windows

MODELS_DIR = Path(__file__).resolve().parents[1]

TABLE_KEYS = (
    "auroc", "ap", "f1", "escape_rate", "overkill_rate", "recall_at_frr", "accuracy", "macro_f1", "threshold",
    "rmse", "nasa_score", "failure_type_macro_f1", "interval_coverage", "announced", "false_alarms_per_1000_cycles",
    "ettf_mae_at_alarm", "latency_ms", "size_mb", "n",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """0 evaluated, 1 could not, with the reason on stderr."""
    asked = _arguments(arguments)
    try:
        directory = asked.package or locate(MODELS_DIR, asked.model)
        report = evaluate(read_package(directory.resolve()), asked.data, asked.split)
    except (InferenceRefused, FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(table(report))
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n")
        print(f"written: {asked.json}")
    return 0


def evaluate(package: Package, data_dir: Path, split: str) -> dict[str, Any]:
    """The figures of VISION.md section 4 for fp32, with those of int8 under `int8` where the package has one.

    Raises:
        FileNotFoundError, ValueError: the folder is not laid out as the model's kind needs it.
    """
    by_variant = {
        variant: _figures(package, variant, data_dir, split)
        for variant in GRAPHS
        if GRAPHS[variant] in package.files
    }
    metadata = package.metadata
    report = {
        "model": metadata.model_name,
        "version": metadata.model_version,
        "digest": package.digest,
        "data": data_dir.resolve().name,
        "split": split,
        "evaluated_at": datetime.datetime.now(datetime.UTC)
        .isoformat(timespec="seconds")
        .replace("+00:00", "Z"),
        "machine": machine(),
        **by_variant["fp32"],
    }
    return report | ({"int8": by_variant["int8"]} if "int8" in by_variant else {})


def _figures(package: Package, variant: str, data_dir: Path, split: str) -> dict[str, Any]:
    model = open_model(package, variant, SessionOptions())
    if model.description.model_type == "prognostics":
        figures = evaluate_windows.figures(model, data_dir, split)
    elif model.description.model_type == "segmentation":
        figures = evaluate_images.segmentation_figures(model, data_dir, split)
    else:
        figures = evaluate_images.classification_figures(model, data_dir, split)
    figures["size_mb"] = round(len(package.files[GRAPHS[variant]]) / 1e6, 3)
    plain: dict[str, Any] = _plain(figures)
    return plain


def _plain(value: Any) -> Any:
    """For JSON: a figure that there was nothing to count for is null, not NaN."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def machine() -> dict[str, Any]:
    """What the latencies were measured on."""
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    return {
        "cpu": cpu or platform.machine(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "threads_used": 1,
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
    }


def table(report: Mapping[str, Any]) -> str:
    """The report for a person: one line a figure, fp32 beside int8."""
    int8 = report.get("int8", {})
    head = f"{report['model']} {report['version']} on {report['data']}/{report['split']} ({report['machine']['cpu']})"
    lines = [head, f"{'':36}{'fp32':>12}{'int8':>12}"]
    for key in TABLE_KEYS:
        if key in report:
            lines += _rows(key, report[key], int8.get(key))
    for label, figures in report.get("per_class", {}).items():
        lines += _rows(label, figures, int8.get("per_class", {}).get(label))
    return "\n".join(lines)


def _rows(key: str, fp32: Any, int8: Any) -> list[str]:
    if isinstance(fp32, Mapping):
        return [
            row
            for name, value in fp32.items()
            for row in _rows(f"{key} {name}", value, (int8 or {}).get(name))
        ]
    return [f"{key:36}{_cell(fp32):>12}{_cell(int8):>12}"]


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m linewatch_models.evaluate", description="Judges a released model on labelled data."
    )
    parser.add_argument("--model", required=True, help="name below models/; its newest release is judged")
    parser.add_argument(
        "--data", type=Path, required=True, help="labelled folder, laid out like the one it was trained on"
    )
    parser.add_argument("--split", default="test", help="which part of the data (default: test)")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    parser.add_argument("--package", type=Path, help="a package directory, instead of the newest release")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
