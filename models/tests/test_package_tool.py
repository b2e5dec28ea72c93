# SPDX-License-Identifier: Apache-2.0
"""`make package` and `make evaluate`: what they refuse, what they promise, and the README's example."""

import json
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from onnx import TensorProto, helper

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "services/inference/tests"))

from tiny_models import colours_graph, described, encoded, make_key, make_package, picture, spots_graph

from linewatch_inference.errors import PackageRefused
from linewatch_inference.package import read_package, read_trusted_keys
from linewatch_models import evaluate, package

README = Path(__file__).resolve().parents[1] / "README.md"


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A description, a graph and samples of a tiny segmentation model, in the current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    (tmp_path / "description.json").write_text(json.dumps(described("segmentation")))
    (tmp_path / "model.onnx").write_bytes(spots_graph())
    (tmp_path / "golden").mkdir()
    (tmp_path / "golden" / "spot.png").write_bytes(encoded(picture(10)))
    (tmp_path / "golden" / "good.jpg").write_bytes(encoded(picture(), ".jpg"))
    (tmp_path / "LICENSE").write_text("Apache-2.0\n")
    return tmp_path


def make(*more: str, out: str = "models/spots/releases/1.0.0") -> int:
    return package.main(["--onnx", "model.onnx", "--description", "description.json", "--out", out, *more])


def describe(**changes: object) -> None:
    Path("description.json").write_text(json.dumps(described("segmentation") | changes))


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def test_own_key_signs_and_its_public_half_is_trusted(
    inputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make() == 0

    made = read_package(
        inputs / "models/spots/releases/1.0.0", read_trusted_keys(inputs / "build/trusted-keys")
    )
    assert made.is_signed
    assert made.metadata.input_shape == (-1, 32, 32, 1)
    assert made.metadata.created_at == "2023-11-14T22:13:20Z"
    assert {
        "LICENSE",
        "ATTRIBUTION.md",
        "golden/spot.png",
        "golden/good.jpg",
        "golden/expected.json",
    } <= made.files.keys()
    assert (inputs / "build/signing/model-signing.pem").stat().st_mode & 0o077 == 0
    assert "INFERENCE_TRUSTED_KEYS_DIR=build/trusted-keys" in capsys.readouterr().out


def test_same_inputs_give_the_same_bytes(inputs: Path) -> None:
    assert make(out="a/spots/1.0.0") == make(out="b/spots/1.0.0") == 0

    assert contents(inputs / "a") == contents(inputs / "b")


def test_time_alone_is_no_new_release(
    inputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make() == 0
    before = contents(inputs / "models")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")

    assert make() == 0

    assert "unchanged" in capsys.readouterr().out
    assert contents(inputs / "models") == before


def test_another_key_only_signs_again(inputs: Path, tmp_path: Path) -> None:
    assert make() == 0
    before = contents(inputs / "models")
    key, trusted = make_key(tmp_path)

    assert make("--signing-key", str(key)) == 0

    after = contents(inputs / "models")
    assert {name for name in before if before[name] != after[name]} == {
        "spots/releases/1.0.0/metadata.json.sig"
    }
    assert read_package(inputs / "models/spots/releases/1.0.0", read_trusted_keys(trusted)).is_signed


def test_released_version_is_not_overwritten(inputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make() == 0
    before = contents(inputs / "models")
    (inputs / "model.onnx").write_bytes(spots_graph(gain=0.9))

    assert make() == 1

    assert "raise model_version" in capsys.readouterr().err
    assert contents(inputs / "models") == before


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"modle_name": "x"}, "modle_name: there is no such key; did you mean 'model_name'?"),
        ({"model_version": "1.0"}, "model_version"),
        ({"model_type": "detection"}, "model_type"),
        ({"outputs": {"score": "score", "heatmap": "heatmap"}}, "the role 'class_scores' is missing"),
        (
            {"outputs": {"score": "scor", "class_scores": "class_scores", "heatmap": "heatmap"}},
            "the graph has no output scor",
        ),
        ({"output_classes": ["ok", "dark"], "failure_modes": {}}, "thresholds.region: 'bright' is no class"),
        ({"failure_modes": {"drak": "x"}}, "'drak' is no class; did you mean 'dark'?"),
        ({"thresholds": {"ng": 0.3, "review": 0.5}}, "review must not be above ng"),
        (
            {"input": described("segmentation")["input"] | {"shape": ["N", 33, 32, 1]}},
            "input.shape: the graph takes",
        ),
        (
            {"input": described("segmentation")["input"] | {"shape": ["N", "H", 32, 1]}},
            "only the first dimension",
        ),
        (
            {"input": described("segmentation")["input"] | {"name": "picture"}},
            "input.name: the graph's inputs are image",
        ),
        (
            {"input": described("segmentation")["input"] | {"dtype": "float32"}},
            "input.dtype: the graph takes uint8",
        ),
        (
            {"input": described("segmentation")["input"] | {"colour_order": "RGB"}},
            "1 channels do not fit colour_order RGB",
        ),
    ],
)
def test_wrong_description_is_told_by_its_key(
    inputs: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object], told: str
) -> None:
    describe(**changes)

    assert make() == 1

    assert told in capsys.readouterr().err
    assert not (inputs / "models").exists()


def test_missing_key_is_told(inputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    description = described("segmentation")
    del description["thresholds"]
    (inputs / "description.json").write_text(json.dumps(description))

    assert make() == 1

    assert "description.json: thresholds: the key is missing; add it" in capsys.readouterr().err


def old_opset() -> bytes:
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in "ab"]
    graph = helper.make_graph([helper.make_node("Relu", ["a"], ["b"])], "old", tensors[:1], tensors[1:])
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=6
    ).SerializeToString()


@pytest.mark.parametrize(
    ("graph", "told"), [(b"no model", "is no ONNX model"), (old_opset(), "opset 9; export it")]
)
def test_graph_that_can_not_be_packaged_is_refused(
    inputs: Path, capsys: pytest.CaptureFixture[str], graph: bytes, told: str
) -> None:
    (inputs / "model.onnx").write_bytes(graph)

    assert make() == 1

    assert told in capsys.readouterr().err


def test_int8_that_turns_a_result_round_is_refused(inputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (inputs / "int8.onnx").write_bytes(spots_graph(gain=0.4))

    assert make("--int8", "int8.onnx") == 1

    assert "golden/spot.png: fp32 says NG, int8 says OK" in capsys.readouterr().err


def test_int8_is_compared_with_fp32(inputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (inputs / "int8.onnx").write_bytes(spots_graph(gain=0.99))

    assert make("--int8", "int8.onnx") == 0

    assert "int8 and fp32 give the same result on 2 of 2" in capsys.readouterr().out


def test_place_that_no_device_would_look_at_is_refused(
    inputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make(out="spots-1.0.0") == 1

    assert "--out: spots-1.0.0 is neither" in capsys.readouterr().err


def test_samples_from_a_list_and_none_for_a_sensor_model(
    inputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (inputs / "chosen.txt").write_text("# the bad one\ngolden/spot.png\n")
    assert make("--golden", "chosen.txt") == 0
    assert "golden samples: 1" in capsys.readouterr().out

    (inputs / "empty").mkdir()
    assert make("--golden", "empty") == 1
    assert "golden: 0 samples" in capsys.readouterr().err


def test_the_readmes_description_can_be_packaged_as_it_stands(inputs: Path) -> None:
    example = re.search(r"```json\n(.*?)```", README.read_text(), re.DOTALL)
    assert example
    (inputs / "caps").mkdir()
    (inputs / "caps" / "description.json").write_text(example[1])
    tensors = {"input": ["N", 3, 224, 224], "output": ["N", 3]}
    given, told = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in tensors.items()
    )
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["means"]),
        helper.make_node("Flatten", ["means"], ["output"]),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "caps", [given], [told]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    (inputs / "caps" / "best.onnx").write_bytes(model.SerializeToString())

    asked = ["--onnx", "caps/best.onnx", "--description", "caps/description.json"]
    Path("models/bottle-caps/releases").mkdir(parents=True)
    assert package.main(asked) == 0

    assert read_package(inputs / "models/bottle-caps/releases/1.0.0").metadata.model_name == "bottle-caps"


def test_classifier_is_evaluated_on_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key, _ = make_key(tmp_path)
    made = make_package(tmp_path, described("classification"), colours_graph(), key)
    colours = {"red": (0, 0, 255), "green": (0, 255, 0), "blue": (255, 0, 0)}
    for label, colour in colours.items():
        (tmp_path / "data/test" / label).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "data/test" / label / "1.png"), np.full((16, 16, 3), colour, np.uint8))
    cv2.imwrite(str(tmp_path / "data/test/red/wrong.png"), np.full((16, 16, 3), colours["blue"], np.uint8))
    report = tmp_path / "report.json"

    asked = [
        "--model",
        "colours",
        "--data",
        f"{tmp_path / 'data'}",
        "--package",
        f"{made}",
        "--json",
        f"{report}",
    ]
    assert evaluate.main(asked) == 0

    told = json.loads(report.read_text())
    assert (told["accuracy"], told["n"], told["model"], told["split"]) == (0.75, 4, "colours", "test")
    assert told["per_class"]["green"]["f1"] == 1.0
    assert set(told["latency_ms"]) == {"p50", "p95", "p99"}
    assert "macro_f1" in capsys.readouterr().out


def test_segmentation_is_evaluated_with_the_keys_of_the_yardstick(tmp_path: Path) -> None:
    key, _ = make_key(tmp_path)
    description = described("segmentation") | {
        "output_classes": ["ok", "dark", "crack"], "failure_modes": {},
        "thresholds": {"ng": 0.8, "review": 0.5, "class": {"dark": 0.8, "crack": 0.8}, "region": {"dark": 0.6, "crack": 0.6}},
    }  # fmt: skip
    made = make_package(tmp_path, description, spots_graph(), key, int8=spots_graph(gain=0.999))
    data = tmp_path / "data"
    (data / "masks/test").mkdir(parents=True)
    (data / "test").mkdir()
    rows = ["file,split,verdict,dark,crack,module"]
    for number in range(4):
        bad = number % 2
        (data / f"test/M1_{number}.png").write_bytes(encoded(picture(10 if bad else None)))
        mask = np.zeros((64, 64), np.uint8)
        mask[32:40, 16:28] = bad
        (data / f"masks/test/M1_{number}.png").write_bytes(encoded(mask))
        rows.append(f"test/M1_{number}.png,test,{'defect' if bad else 'ok'},{bad},0,M1")
    (data / "labels.csv").write_text("\n".join(rows) + "\n")

    report = evaluate.evaluate(read_package(made), data, "test")

    assert (report["auroc"], report["f1"], report["escape_rate"], report["overkill_rate"], report["n"]) == (
        1.0,
        1.0,
        0.0,
        0.0,
        4,
    )
    assert report["per_class"]["dark"] == {
        "f1": 1.0,
        "blob_recall": 1.0,
        "pixel_f1": pytest.approx(1.0, abs=0.15),
    }
    assert {"ap", "recall_at_frr", "threshold", "latency_ms", "size_mb", "per_family"} <= report.keys()
    assert {"auroc", "latency_ms", "size_mb", "n"} <= report["int8"].keys()
    assert report["machine"]["threads_used"] == 1
    json.dumps(report, allow_nan=False)


def test_evaluate_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(["--model", "nobody", "--data", f"{tmp_path}"]) == 1

    assert "nobody: no package below" in capsys.readouterr().err


def test_samples_of_a_sensor_model_must_be_given(tmp_path: Path) -> None:
    from linewatch_inference.metadata import Description
    from linewatch_models.golden_samples import read_samples

    with pytest.raises(PackageRefused, match="a sensor model needs samples of its own"):
        read_samples(None, Description.model_validate(described("prognostics")))
