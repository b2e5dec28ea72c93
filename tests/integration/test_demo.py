# SPDX-License-Identifier: Apache-2.0
"""The whole plant as its user runs it: `python -m linewatch_plant.demo`, real processes, real parts."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

DEADLINE_S = 240


def demo(*arguments: str, json_file: Path | None = None) -> subprocess.Popen[str]:
    written = ["--json", str(json_file)] if json_file else []
    return subprocess.Popen(
        [sys.executable, "-m", "linewatch_plant.demo", *written, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        output, _ = process.communicate(timeout=DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.terminate()
        output, _ = process.communicate(timeout=30)
        pytest.fail(f"the demo did not end within {DEADLINE_S} s:\n{output}")
    return process.returncode, output


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def assert_every_hop_agrees(summary: dict[str, Any], parts: int) -> None:
    assert summary["parts"]["sent"] == parts
    assert (
        summary["parts"]["judged"] + summary["parts"]["not_inspected"] + summary["parts"]["skipped"] == parts
    )
    assert len(set(summary["events"].values())) == 1, summary["events"]
    assert summary["events"]["enriched"] >= summary["parts"]["judged"] + summary["parts"]["not_inspected"]
    assert summary["work_orders"]["doubled"] == 0
    assert summary["work_orders"]["created"] == summary["work_orders"]["in_erp"]


def test_parts_are_judged_on_both_lines_and_every_hop_agrees(tmp_path: Path) -> None:
    code, output = ended(demo("--parts", "120", "--rate", "12", json_file=tmp_path / "demo.json"))

    assert code == 0, output
    summary = json.loads((tmp_path / "demo.json").read_text())
    assert_every_hop_agrees(summary, 120)
    assert summary["parts"]["judged"] == 120
    assert set(summary["models"]) == {"pv-el-cells", "turbofan"}
    assert sum(sum(model["labels"].values()) for model in summary["models"].values()) == 120
    assert summary["latency_ms"]["frame_to_verdict"]["p50"] > 0
    # The sample has cracked cells in a row and an engine at the end of its life: somebody has to be told.
    orders = summary["work_orders"]
    assert orders["created"] + orders["awaiting_approval"] >= 1
    assert "console: http://127.0.0.1:" in output
    told = re.findall(
        r"^sign in at http://127\.0\.0\.1:\d+/ as (\w+), password [a-z2-9]{4}(?:-[a-z2-9]{4}){3}$",
        output,
        re.MULTILINE,
    )
    assert "orders list demo\n" in output, (
        "how its account is asked is told: cloud/tests/test_demo_account.py"
    )
    assert sorted(told[:3]) == ["admin", "approver", "viewer"]
    assert set(told[2:]) == {"approver"}, "who decides is told last, and again"


def test_an_outage_of_the_uplink_loses_and_doubles_nothing(tmp_path: Path) -> None:
    code, output = ended(
        demo(
            "--parts",
            "80",
            "--rate",
            "10",
            "--outage",
            "6",
            "--broker",
            "embedded",
            json_file=tmp_path / "demo.json",
        )
    )

    assert code == 0, output
    assert "UPLINK CUT" in output
    assert_every_hop_agrees(json.loads((tmp_path / "demo.json").read_text()), 80)


def test_ctrl_c_stops_every_process_within_10_s() -> None:
    process = demo("--rate", "5")
    assert process.stdout is not None
    for line in process.stdout:
        if "running" in line:
            break
    children = family(process)
    assert (
        len(children) >= 8
    )  # broker, erp, cloud and its workers, inference, two captures, forwarder, console

    started = time.monotonic()
    os.kill(process.pid, signal.SIGINT)
    ended(process)

    assert time.monotonic() - started < 10
    _, alive = psutil.wait_procs(children, timeout=2)
    assert alive == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--images", "/nowhere"], "IMAGES=/nowhere"),
        (["--model", "no-such-model"], "no-such-model"),
        (["--rate", "0"], "RATE"),
    ],
)
def test_what_can_not_start_says_why_and_ends(arguments: list[str], named: str) -> None:
    code, output = ended(demo(*arguments, "--parts", "2"))

    assert code == 2, output
    assert named in output


def test_an_empty_folder_is_told_by_its_name(tmp_path: Path) -> None:
    code, output = ended(demo("--images", str(tmp_path), "--parts", "2"))

    assert code == 2, output
    assert str(tmp_path) in output
    assert "CAPTURE_PATH" in output


def test_a_package_with_a_changed_byte_is_told_and_the_other_line_goes_on(tmp_path: Path) -> None:
    released = Path(__file__).resolve().parents[2] / "models" / "pv-el-cells" / "releases"
    shutil.copytree(released, tmp_path / "pv-el-cells" / "releases")
    graph = next(tmp_path.rglob("model.onnx"))
    changed = bytearray(graph.read_bytes())
    changed[len(changed) // 2] ^= 1
    graph.chmod(0o644)
    graph.write_bytes(changed)

    code, output = ended(
        demo("--models-dir", str(tmp_path), "--parts", "20", "--rate", "8", json_file=tmp_path / "demo.json")
    )

    assert code == 1, output
    assert "DISAGREES: line-1/station-1 judged no part" in output
    assert "model.onnx: its sha256 is not the one in metadata.json" in output
    summary = json.loads((tmp_path / "demo.json").read_text())
    assert summary["parts"] == {"sent": 20, "judged": 10, "not_inspected": 10, "skipped": 0}
    assert set(summary["events"].values()) == {20}  # the other line went on, and no part is lost


def test_an_unreadable_image_is_recorded_with_its_reason_and_the_line_goes_on(tmp_path: Path) -> None:
    sample = Path(__file__).resolve().parents[2] / "plant" / "sample" / "pv-el-cells" / "images" / "1-steady"
    images = tmp_path / "images"
    images.mkdir()
    for image in sorted(sample.glob("*.jpg"))[:4]:
        shutil.copy(image, images)
    (images / "broken.jpg").write_bytes(b"no picture at all")

    code, output = ended(
        demo("--images", str(images), "--parts", "20", "--rate", "8", json_file=tmp_path / "demo.json")
    )

    assert code == 0, output
    summary = json.loads((tmp_path / "demo.json").read_text())
    assert summary["parts"] == {"sent": 20, "judged": 18, "not_inspected": 2, "skipped": 0}


def test_a_taken_console_port_is_told_by_its_setting() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, output = ended(demo("--console-port", str(port), "--parts", "2"))

    assert code == 2, output
    assert f"CONSOLE_PORT={port}" in output
