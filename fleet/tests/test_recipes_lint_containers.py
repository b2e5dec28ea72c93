# SPDX-License-Identifier: Apache-2.0
"""The linter sees what a `docker run` hands out, in whichever way it is written: names of the command, quotes, variables."""

import json
from pathlib import Path
from typing import Any

import pytest

from linewatch_fleet.recipes import lint
from linewatch_fleet.recipes.docker_commands import docker_runs, options

GOOD: dict[str, Any] = json.loads((Path(__file__).parent / "pitfalls" / "none.json").read_text())
SCRIPT: str = GOOD["Manifests"][0]["Lifecycle"]["startup"]["Script"]

OPTIONS = [
    *(("host-files", one) for one in (
        "-v /:/host", "-v /etc:/etc:ro", "-v /run:/run", "-v /var/run:/var/run", "-v /var/lib/docker:/d:ro", "-v/:/host",
        "--volume=/:/host", "--volume /var/lib/docker/volumes:/d", "-v //:/host", "-v /home/..:/host", "-v /etc/:/x",
        "--mount type=bind,source=/,target=/host", "--mount=type=bind,src=/etc,dst=/e,readonly", "-v /etc/cron.d:/c",
        "-v /etc/shadow:/s:ro", "-v /proc/sys:/p", '-v "/":/host', "-v '/:/host'", '--mount "type=bind,src=/run,dst=/r"',
    )),
    *(("docker-socket-mounted", one) for one in (
        "-v /run/docker.sock:/d", '-v "/var/run/docker.sock":/d', "--mount type=bind,src=/var/run/docker.sock,dst=/d",
    )),
    *(("cap-add", one) for one in ("--cap-add ALL", "--cap-add=NET_ADMIN", '--cap-add "SYS_ADMIN"')),
    *(("host-device", one) for one in (
        "--device /dev/mem", "--device=/dev/sda", '--device "/dev/nvme0n1:/dev/x"', "--device /dev", "--device /dev/mmcblk0",
    )),
    *(("host-namespace", one) for one in (
        "--pid host", "--ipc=host", '--uts "host"', "--userns=host", "--pid='host'", "--cgroupns host",
    )),
    *(("unconfined", one) for one in (
        "--security-opt seccomp=unconfined", '--security-opt="apparmor=unconfined"', "--security-opt apparmor:unconfined",
        "--security-opt label=disable", "--security-opt systempaths=unconfined",
    )),
    *(("published-everywhere", one) for one in (
        "-p 80:80/udp", "-p [::]:80:80", "-p 8080", "-P", "--publish-all", "--publish-all=true", "-p80:80", "-p 0.0.0.0:80:80",
        "--publish=80:80", '-p "80:80"', "-p :80:80", "-p 8000-8010:8000-8010", "--publish published=80,target=80",
    )),
    *(("privileged-container", one) for one in ("--privileged", "--privileged=true")),
    ("restart-policy", '--restart "always"'),
]  # fmt: skip

REPLACED = [
    *(("runs-as-root", "10001:10001", one) for one in ("0", "00:00", "root", '"0"', "root:root", "'0:10001'", "+0")),
    ("runs-as-root", "--user 10001:10001", "-u0"),
    ("runs-as-root", "--user 10001:10001", '--user="0"'),
    *(("host-network", "network press", one) for one in ('network "host"', "network='host'", "net host", "network name=host")),
    *(("no-memory-limit", "128m", one) for one in ("0", "0m", '"0"')),
    ("no-cpu-limit", "--cpus 1", "--cpus 0"),
    ("no-cpu-limit", "--cpus 1", "--cpus=0.0"),
    ("no-pids-limit", "--pids-limit 64", "--pids-limit -1"),
    ("no-pids-limit", "--pids-limit 64", "--pids-limit=0"),
    ("no-new-privileges", "no-new-privileges", "no-new-privileges=false"),
    ("no-new-privileges", "no-new-privileges", "no-new-privileges:false"),
    ("no-read-only", "--read-only", "--read-only=false"),
    ("no-init", "--init", "--init=false"),
    *(("value-run-as-code", "docker rm", f"{one}\ndocker rm") for one in (
        'eval "$PRESS_LINE"', "eval $PRESS_LINE", 'sh -c "$PRESS_LINE"', "bash -ec $PRESS_LINE", 'sh -c "echo $PRESS_LINE"',
        "eval `echo $PRESS_LINE`",
    )),
]  # fmt: skip

NAMES = [
    "docker container run",
    "docker create",
    "docker  run",
    "docker container create",
    "docker --log-level=error run",
]

HARMLESS = [
    "-v /var/lib/press:/data", "-v /etc/localtime:/etc/localtime:ro", "-v press:/data", "--device /dev/video0",
    "-p 127.0.0.1:80:80", '-p "127.0.0.1:$PORT:80"', "-p [::1]:80:80/tcp", "-p 10.0.0.5:80:80", "--pid container:press",
    "--mount type=tmpfs,target=/t", "--mount type=volume,source=x,target=/x", "--privileged=false", "--restart no",
    "--device /dev/nvhost-gpu", "-v /run/greengrass/ipc.sock:/run/greengrass/ipc.sock", '-v "$PLACE:/data"',
]  # fmt: skip


def rules_of(script: str, **setenv: str) -> set[str]:
    recipe = json.loads(json.dumps(GOOD))
    recipe["Manifests"][0]["Lifecycle"]["startup"]["Script"] = script
    recipe["Manifests"][0]["Lifecycle"]["Setenv"].update(setenv)
    return {finding.rule for finding in lint.lint_text(json.dumps(recipe))}


def changed(old: str, new: str) -> str:
    assert SCRIPT.count(old) == 1 or old == "docker rm"
    return SCRIPT.replace(old, new)


def test_the_script_that_all_this_is_made_from_is_right() -> None:
    assert rules_of(SCRIPT) == set()


@pytest.mark.parametrize(("rule", "option"), OPTIONS)
def test_exactly_its_rule_finds_an_option(rule: str, option: str) -> None:
    assert rules_of(changed("docker run --rm", f"docker run {option} --rm")) == {rule}


@pytest.mark.parametrize(("rule", "old", "new"), REPLACED)
def test_exactly_its_rule_finds_a_change(rule: str, old: str, new: str) -> None:
    assert rules_of(changed(old, new)) == {rule}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("rule", "option"),
    [("host-files", "-v /:/host"), ("privileged-container", "--privileged"), ("cap-add", "--cap-add ALL")],
)
def test_every_name_of_the_command_is_seen(name: str, rule: str, option: str) -> None:
    assert rules_of(changed("docker run --rm", f"{name} {option} --rm")) == {rule}
    assert "no-cap-drop" in rules_of(changed("docker run --rm", f"{name} --rm").replace("--cap-drop ALL", ""))


@pytest.mark.parametrize("option", HARMLESS)
def test_what_does_no_harm_is_not_found(option: str) -> None:
    assert rules_of(changed("docker run --rm", f"docker run {option} --rm")) == set()


@pytest.mark.parametrize("mode", ["$MODE", '"$MODE"'])
def test_a_fixed_value_in_a_variable_is_seen(mode: str) -> None:
    script = changed("network press", f"network {mode}")
    assert rules_of(script, MODE="host") == {"host-network"}
    assert rules_of(f"MODE=host\n{script}") == {"host-network"}
    assert rules_of(script, MODE="press") == set()


def test_a_command_that_stands_in_quotes_is_no_code_of_a_value() -> None:
    assert rules_of(changed("docker rm", 'sh -c \'echo "$1"\' x "$PRESS_LINE"\ndocker rm')) == set()


def test_what_set_collects_belongs_to_the_command() -> None:
    (run,) = docker_runs('set -- "$@" -v "/:/x"\ndocker container run "$@" image', {})
    assert list(options(run, "--volume")) == ["/:/x"]
    assert run.startswith("docker run ")
