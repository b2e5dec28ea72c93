# SPDX-License-Identifier: Apache-2.0
"""`build/demo/linewatch`: the verbs of docs/trying.md over a demo's account, as somebody types them."""

import json
import subprocess
from pathlib import Path

import pytest

from linewatch_plant.demo_account import ENVIRONMENT, shown, write_operator
from linewatch_plant.standin_cloud import StandinCloud


def test_verbs_about_orders_answer_in_the_demo(cloud: StandinCloud, tmp_path: Path) -> None:
    command = write_operator(cloud, tmp_path)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        # A shell's own environment, without one of ours.
        return subprocess.run(
            [command, *arguments], env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    listed, policy = run("orders", "list", ENVIRONMENT, "--json"), run("policy", "show", ENVIRONMENT)

    stuck = [one for one in json.loads(listed.stdout) if one["is_stuck"]]
    assert listed.returncode == (4 if stuck else 0), listed.stderr  # other tests leave orders there
    assert policy.returncode == 0, policy.stderr
    assert '"bands"' in policy.stdout


def test_script_is_shown_as_it_is_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown(tmp_path / "build" / "demo" / "linewatch") == "build/demo/linewatch"
    assert shown(Path("/elsewhere/linewatch")) == "/elsewhere/linewatch"
