# SPDX-License-Identifier: Apache-2.0
"""The command line as a whole: help, files, exit codes."""

import subprocess
import sys
from pathlib import Path

import pytest
from annotated_types import Le

from linewatch_fleet.config import Fleet, read_fleet
from linewatch_fleet.errors import BadInput

ROOT = Path(__file__).resolve().parents[2]


def linewatch(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "linewatch_fleet.cli", *arguments],
        check=False,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_help_lists_every_verb_with_what_it_does() -> None:
    said = linewatch("--help")

    assert said.returncode == 0
    for verb in ("release", "promote", "provision", "deploy", "rollback", "doctor", "bundle"):
        assert f"\n  {verb}" in said.stdout


def test_an_unknown_verb_is_a_usage_error() -> None:
    assert linewatch("depoly").returncode == 2


def test_the_example_fleet_file_is_valid(tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").write_text((ROOT / "fleet.example.yaml").read_text())

    fleet = read_fleet(tmp_path / "fleet.yaml")

    assert [environment.name for environment in fleet.environments] == ["dev", "staging", "prod"]
    assert fleet.environment("prod").registry_host == "333333333333.dkr.ecr.eu-central-1.amazonaws.com"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("environments: []", "environments"),
        ("environments: [{name: dev, account: '1', region: eu-central-1}]", "environments.0.account"),
        ("environments: [{name: dev, account: '111111111111', region: eu-central-1, regoin: x}]", "regoin"),
        (
            "environments: [{name: dev, account: '111111111111', region: eu-central-1, promotes_from: qa}]",
            "promotes_from",
        ),
        ("[", "can't be read"),
        (
            "{captures: 5, environments: [{name: dev, account: '111111111111', region: eu-central-1}]}",
            "captures",
        ),
    ],
)
def test_a_wrong_fleet_file_names_the_field(tmp_path: Path, wrong: str, named: str) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text(wrong)

    with pytest.raises(BadInput, match=named):
        read_fleet(path)


def test_every_capture_that_a_fleet_may_have_can_send_its_logs_to_the_cloud() -> None:
    template = (ROOT / "cloud" / "template.yaml").read_text()
    [most] = [one.le for one in Fleet.model_fields["captures"].metadata if isinstance(one, Le)]
    names = ["Capture", *(f"Capture{number}" for number in range(2, int(str(most)) + 1))]

    for name in names:
        group = f"/aws/greengrass/UserComponent/${{AWS::Region}}/io.linewatch.{name}"
        assert f'{{LogGroupName: !Sub "{group}", RetentionInDays: 30}}' in template
        assert f'log-group:{group}:*"' in template


def test_a_stack_of_another_name_is_named_in_the_fleet_file(tmp_path: Path) -> None:
    """0.2.0's was made by hand as `linewatch`; without its name `provision` would make a second one, with empty tables."""
    one = "account: '111111111111', region: eu-central-1"
    file = tmp_path / "fleet.yaml"
    file.write_text(f"environments: [{{name: prod, {one}, stack_name: linewatch}}, {{name: dev, {one}}}]")

    assert [environment.stack for environment in read_fleet(file).environments] == [
        "linewatch",
        "linewatch-dev",
    ]

    file.write_text(f"environments: [{{name: prod, {one}, stack_name: 'line_watch'}}]")
    with pytest.raises(BadInput, match="stack_name"):
        read_fleet(file)
