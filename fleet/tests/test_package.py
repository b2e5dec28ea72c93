# SPDX-License-Identifier: Apache-2.0
"""`linewatch package` on a committed model's own graph, description and samples."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RELEASE = ROOT / "models/pv-el-cells/releases/1.0.0"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of somebody's own: another name, the committed graph, two golden samples."""
    place = tmp_path_factory.mktemp("own")
    description = json.loads((ROOT / "models/pv-el-cells/description.json").read_text())
    description |= {"model_name": "own-cells", "model_version": "2.0.0"}
    (place / "description.json").write_text(json.dumps(description))
    (place / "model.onnx").write_bytes((RELEASE / "model.onnx").read_bytes())
    (place / "golden").mkdir()
    for sample in (
        sorted((RELEASE / "golden").glob("*.jpg"))[:2] or sorted((RELEASE / "golden").glob("*.png"))[:2]
    ):
        (place / "golden" / sample.name).write_bytes(sample.read_bytes())
    return place


def package(place: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "linewatch_fleet.cli", "package", "--onnx", "model.onnx", "--description", "description.json", *more],
        cwd=place, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_a_dry_run_checks_and_writes_nothing(workplace: Path) -> None:
    before = sorted(workplace.rglob("*"))

    said = package(workplace, "--dry-run", "--json")

    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)["outcome"] == "would be made"
    assert sorted(workplace.rglob("*")) == before


def test_a_package_is_made_once_and_kept(workplace: Path) -> None:
    made, again = package(workplace, "--json"), package(workplace, "--json")

    assert (made.returncode, again.returncode) == (0, 0), made.stderr
    assert json.loads(made.stdout)["outcome"] == "made"
    assert json.loads(again.stdout)["outcome"] == "unchanged"
    assert (workplace / "models/own-cells/releases/2.0.0/metadata.json.sig").is_file()


def test_a_file_that_is_no_graph_is_refused_with_its_name(workplace: Path) -> None:
    (workplace / "bad.onnx").write_bytes(b"not a graph")

    said = subprocess.run(
        [sys.executable, "-m", "linewatch_fleet.cli", "package", "--onnx", "bad.onnx", "--description", "description.json"],
        cwd=workplace, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip

    assert said.returncode in {2, 3}
    assert "bad.onnx" in said.stderr
    assert "Traceback" not in said.stderr


def test_a_missing_file_is_named(workplace: Path) -> None:
    said = package(workplace, "--card", "nowhere.md")

    assert said.returncode == 2
    assert "nowhere.md" in said.stderr
