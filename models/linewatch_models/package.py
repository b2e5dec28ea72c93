# SPDX-License-Identifier: Apache-2.0
"""Makes a model package: `python -m linewatch_models.package --onnx FILE --description FILE [...]` (`make package`).

The same inputs give the same bytes, except created_at (SOURCE_DATE_EPOCH sets it). A released version is never
overwritten with other content.
"""

import argparse
import datetime
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from linewatch_inference.errors import InferenceRefused, PackageRefused
from linewatch_inference.metadata import Description
from linewatch_inference.metadata_file import InvalidDescription, parse
from linewatch_inference.model import model_of, open_model
from linewatch_inference.package import GRAPHS, METADATA, SIGNATURE, read_package
from linewatch_inference.session import SessionOptions
from linewatch_models import signing
from linewatch_models.golden_samples import EXPECTED, Golden, judge_samples, read_samples
from linewatch_models.onnx_check import check_graph

TOLERANCE = {"fp32": 0.01, "int8": 0.05}
"""Relative difference of outputs that another machine may show: decoders differ by a grey level, int8 kernels by a step."""

LEGAL = ("LICENSE", "LICENCE", "ATTRIBUTION", "NOTICE", "COPYING")


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a package is made of."""

    description: Description
    description_json: Mapping[str, object]
    graphs: Mapping[str, bytes]
    samples: Mapping[str, bytes]
    papers: Mapping[str, bytes]


def main(arguments: Sequence[str] | None = None) -> int:
    """0 packaged or unchanged, 1 refused, with one line per problem on stderr."""
    asked = _arguments(arguments)
    try:
        inputs = read_inputs(asked)
        out = (
            asked.out
            or Path("models") / inputs.description.model_name / "releases" / inputs.description.model_version
        )
        key, public = (
            (signing.read_key(asked.signing_key), None) if asked.signing_key else signing.own_key(Path())
        )
        files, golden = make_files(inputs)
        outcome = release(inputs, files, key, out)
    except (InvalidDescription, InferenceRefused, signing.NoSigningKey, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    _tell(inputs, golden, outcome, out, public)
    return 0


def read_inputs(asked: argparse.Namespace) -> Inputs:
    """Reads and checks what the command line names.

    Raises:
        InvalidDescription, PackageRefused, OSError: naming the file, the key and the remedy.
    """
    text = asked.description.read_bytes()
    description = parse(Description, text, asked.description.name)
    graphs = {"fp32": asked.onnx.read_bytes()} | ({"int8": asked.int8.read_bytes()} if asked.int8 else {})
    for variant, graph in graphs.items():
        check_graph(graph, str(asked.onnx if variant == "fp32" else asked.int8))
    beside = asked.description.parent
    golden = asked.golden or (beside / "golden" if (beside / "golden").is_dir() else None)
    return Inputs(
        description,
        json.loads(text),
        graphs,
        read_samples(golden, description),
        _papers(asked, description, beside),
    )


def _papers(asked: argparse.Namespace, description: Description, beside: Path) -> dict[str, bytes]:
    """Card, licences and attribution: those named, else those beside the description."""
    card = asked.card or (beside / "card.md" if (beside / "card.md").is_file() else None)
    papers = {"card.md": card.read_bytes()} if card else {}
    legal = asked.licence or [
        path for path in sorted(beside.iterdir()) if path.name.upper().startswith(LEGAL) and path.is_file()
    ]
    papers |= {path.name: path.read_bytes() for path in legal}
    if description.attribution and not any(name.upper().startswith("ATTRIBUTION") for name in papers):
        papers["ATTRIBUTION.md"] = f"{description.attribution}\n".encode()
    return papers


def make_files(inputs: Inputs) -> tuple[dict[str, bytes], Golden]:
    """Every file of the package but metadata.json and its signature. Raises PackageRefused."""
    models = {
        variant: model_of(inputs.description, graph, variant, "", SessionOptions())
        for variant, graph in inputs.graphs.items()
    }
    golden = judge_samples(inputs.samples, models)
    graphs = {GRAPHS[variant]: graph for variant, graph in inputs.graphs.items()}
    return {**graphs, **golden.files, **inputs.papers}, golden


def metadata_json(inputs: Inputs, files: Mapping[str, bytes]) -> bytes:
    """The text of metadata.json."""
    made_at = int(os.environ.get("SOURCE_DATE_EPOCH") or datetime.datetime.now(datetime.UTC).timestamp())
    created_at = datetime.datetime.fromtimestamp(made_at, datetime.UTC).isoformat().replace("+00:00", "Z")
    told = {
        **inputs.description_json,
        "created_at": created_at,
        "input_shape": [size if isinstance(size, int) else -1 for size in inputs.description.input.shape],
        "files": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
            for name, data in sorted(files.items())
        },
        "golden": {"expected": EXPECTED, "tolerance": TOLERANCE},
    }
    return json.dumps(told, indent=2, ensure_ascii=False).encode() + b"\n"


def release(inputs: Inputs, files: Mapping[str, bytes], key: Ed25519PrivateKey, out: Path) -> str:
    """Puts a package at `out`, whole or not at all, after the device's own loader has taken it.

    Returns:
        "made", "unchanged", or "signed again" when only the signature was another.

    Raises:
        PackageRefused: `out` holds the same version with other content, or has a name that no device would find.
    """
    name, version = inputs.description.model_name, inputs.description.model_version
    if out.name != version or name not in {out.parent.name, out.parent.parent.name}:
        raise PackageRefused(f"--out: {out} is neither {name}/{version} nor {name}/releases/{version}")
    text = metadata_json(inputs, files)
    if out.exists():
        return _released_before(out, text, key)
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / name / version
        _write(made, {**files, METADATA: text, SIGNATURE: signing.sign(text, key)})
        package = read_package(made, [key.public_key()])
        for variant in GRAPHS:
            open_model(package, variant, SessionOptions())
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = out.with_name(f".{version}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(made, partial)
        partial.rename(out)
    return "made"


def _released_before(out: Path, text: bytes, key: Ed25519PrivateKey) -> str:
    before = (out / METADATA).read_bytes()
    if _without_time(before) != _without_time(text):
        raise PackageRefused(
            f"{out}: this version is released with other content; raise model_version in the description"
        )
    read_package(out)  # the files must still be those of its metadata.json
    signature = signing.sign(before, key)
    if (out / SIGNATURE).is_file() and (out / SIGNATURE).read_bytes() == signature:
        return "unchanged"
    (out / SIGNATURE).write_bytes(signature)
    return "signed again"


def _without_time(text: bytes) -> dict[str, object]:
    return {key: value for key, value in json.loads(text).items() if key != "created_at"}


def _write(directory: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _tell(inputs: Inputs, golden: Golden, outcome: str, out: Path, public: Path | None) -> None:
    print(f"{outcome}: {out}")
    sizes = ", ".join(f"{variant} {len(graph) / 1e6:.2f} MB" for variant, graph in inputs.graphs.items())
    print(f"graphs: {sizes}; golden samples: {len(inputs.samples)}")
    if golden.int8_differences:
        told = ", ".join(f"{role} {gap:.4f}" for role, gap in sorted(golden.int8_differences.items()))
        print(f"int8 to fp32, largest relative difference: {told}")
        print(f"int8 and fp32 give the same result on {golden.int8_same_result} of {len(inputs.samples)}")
    if public:
        print(
            f"signed with this checkout's own key; trust it with INFERENCE_TRUSTED_KEYS_DIR={public.parent} ({public.name})"
        )


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m linewatch_models.package", description="Makes a checked, signed model package."
    )
    parser.add_argument("--onnx", type=Path, required=True, help="the fp32 graph")
    parser.add_argument(
        "--description", type=Path, required=True, help="description.json; see models/README.md"
    )
    parser.add_argument("--int8", type=Path, help="the same model quantised")
    parser.add_argument(
        "--golden",
        type=Path,
        help="directory of samples, or a text file with one path a line; default: golden/ beside the description",
    )
    parser.add_argument("--card", type=Path, help="model card; default: card.md beside the description")
    parser.add_argument(
        "--licence",
        type=Path,
        action="append",
        help="licence or attribution file, may be repeated; default: those beside the description",
    )
    parser.add_argument(
        "--signing-key",
        type=Path,
        help="Ed25519 private key (PEM); default: this checkout's own, below build/signing",
    )
    parser.add_argument("--out", type=Path, help="default: models/<name>/releases/<version>")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
