# SPDX-License-Identifier: Apache-2.0
"""The linter: each pitfall of GREENGRASS as a sample that exactly its rule finds, and our recipes broken on purpose."""

import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rendered_recipes import components, references

from linewatch_fleet import errors
from linewatch_fleet.recipes import lint
from linewatch_fleet.recipes.findings import RULES
from linewatch_fleet.recipes.render import Component

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = sorted(path for path in (Path(__file__).parent / "pitfalls").iterdir() if path.suffix != ".md")

COMPANIONS = {"script-too-long": {"recipe-too-big"}}
"""A script of 10,000 characters can't stand in a recipe of 8 KB."""


def rules_of(text: str) -> set[str]:
    return {finding.rule for finding in lint.lint_text(text)}


def linewatch(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "linewatch_fleet.cli", "recipes", *arguments]
    return subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_exactly_the_pitfalls_own_rule_finds_it(sample: Path) -> None:
    found = {finding.rule for finding in lint.lint_file(sample)}

    expected = set() if sample.stem == "none" else {sample.stem} | COMPANIONS.get(sample.stem, set())
    assert found == expected


def test_every_rule_has_a_sample() -> None:
    assert {path.stem for path in SAMPLES} - {"none"} == set(RULES)


def test_every_rule_stands_in_the_documentation_with_its_severity() -> None:
    page = (ROOT / "docs" / "recipes.md").read_text()

    told = dict(re.findall(r"^\| `([a-z-]+)` \| (error|warning) \|", page, re.MULTILINE))
    assert told == {rule.id: rule.severity for rule in RULES.values()}


def test_every_pitfall_names_where_it_is_known_from() -> None:
    table = (ROOT / "fleet/tests/pitfalls/README.md").read_text()

    assert set(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)) == set(RULES)


@pytest.mark.parametrize("local", [True, False], ids=["local", "cloud"])
def test_our_recipes_are_clean(local: bool) -> None:
    made = components(is_local=local, pulls=True)

    assert {one.name: [(f.rule, f.path, f.found) for f in lint.lint_text(one.text)] for one in made} == {
        one.name: [] for one in made
    }


# --- our own recipes, broken ---------------------------------------------------------------------------------------

OURS = {one.name: one for one in components()}
SERVICES = [name for name in OURS if ".model." not in name]
CLIENTS = [name for name in SERVICES if not name.endswith("Broker")]


def lifecycle(recipe: dict[str, Any]) -> dict[str, Any]:
    return recipe["Lifecycle"]["all"]


def replaced(old: str, new: str = "") -> Callable[[dict[str, Any]], None]:
    def change(recipe: dict[str, Any]) -> None:
        found = 0
        for step in lifecycle(recipe).values():
            if isinstance(step.get("Script"), str):
                found += step["Script"].count(old)
                step["Script"] = step["Script"].replace(old, new)
        assert found, f"{recipe['ComponentName']} has no {old!r} to break"

    return change


def setenv(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda recipe: lifecycle(recipe)["Setenv"].update({key: value})


def platform(key: str, value: str | None) -> Callable[[dict[str, Any]], None]:
    def change(recipe: dict[str, Any]) -> None:
        for manifest in recipe["Manifests"]:
            manifest["Platform"].pop(key, None)
            manifest["Platform"].update({key: value} if value else {})

    return change


def renamed_step(old: str, new: str) -> Callable[[dict[str, Any]], None]:
    def change(recipe: dict[str, Any]) -> None:
        lifecycle(recipe)[new] = lifecycle(recipe).pop(old)

    return change


def artifact(uri: Callable[[str], str]) -> Callable[[dict[str, Any]], None]:
    def change(recipe: dict[str, Any]) -> None:
        for manifest in recipe["Manifests"]:
            for one in manifest["Artifacts"]:
                one["Uri"] = uri(one["Uri"])

    return change


def dropped(*path: str) -> Callable[[dict[str, Any]], None]:
    def change(recipe: dict[str, Any]) -> None:
        at: Any = recipe
        for key in path[:-1]:
            at = at[key]
        del at[path[-1]]

    return change


def backwards(recipe: dict[str, Any]) -> None:
    recipe["Manifests"].reverse()


BROKEN: list[tuple[str, list[str], Callable[[dict[str, Any]], None]]] = [
    ("no-read-only", SERVICES, replaced("--read-only ")),
    ("no-cap-drop", SERVICES, replaced("--cap-drop ALL")),
    ("no-new-privileges", SERVICES, replaced("--security-opt no-new-privileges")),
    ("no-user", SERVICES, replaced("--user 10001:10001")),
    ("runs-as-root", SERVICES, replaced("--user 10001:10001", "--user 0:0")),
    ("no-memory-limit", SERVICES, replaced("--memory ", "--mem ")),
    ("no-cpu-limit", SERVICES, replaced("--cpus ", "--cpu-shares ")),
    ("no-pids-limit", SERVICES, replaced("--pids-limit", "--pids")),
    ("no-log-limit", SERVICES, replaced("--log-driver local --log-opt max-size=10m")),
    ("no-init", SERVICES, replaced("--init ")),
    ("no-name", SERVICES, replaced('--name "$LW_NAME"')),
    ("no-rm-first", SERVICES, replaced('docker rm -f "$LW_NAME"', "true")),
    ("detached-unseen", SERVICES, replaced("docker run --rm --init", "docker run -d --rm --init")),
    ("restart-policy", SERVICES, replaced("--rm --init", "--restart=always --init")),
    ("terminal", SERVICES, replaced("--rm --init", "-it --rm --init")),
    ("privileged-container", SERVICES, replaced("--rm --init", "--privileged --rm --init")),
    # Of the forwarder the rule sees that it passes Stream Manager's token on, which is a right to the host's network.
    ("host-network", [name for name in SERVICES if name != "io.linewatch.Forwarder"],
     replaced('--network "$LW_NETWORK"', "--network host")),
    ("docker-socket-mounted", SERVICES, replaced("--rm --init", "-v /var/run/docker.sock:/d.sock --rm --init")),
    ("pulls-always", SERVICES, replaced("--rm --init", "--pull always --rm --init")),
    ("published-everywhere", ["io.linewatch.Console"], replaced("127.0.0.1:$LW_PORT:8080", "$LW_PORT:8080")),
    ("nvidia-runtime", ["io.linewatch.Inference"], replaced("--runtime=nvidia", "--gpus=all")),
    ("manifest-order", ["io.linewatch.Inference"], backwards),
    ("socket-not-mounted", CLIENTS, replaced(
        '-v "$socket:$socket" -e SVCUID -e AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT', "-e SVCUID")),
    ("startup-without-notify", CLIENTS, replaced("systemd-notify", "true")),
    ("startup-falls-through", CLIENTS, replaced('\nexit "$code"')),
    ("startup-default-timeout", CLIENTS, dropped("Lifecycle", "all", "startup", "Timeout")),
    ("shutdown-too-short", SERVICES, replaced("docker stop -t 12", "docker stop -t 20")),
    ("docker-without-privilege", SERVICES, dropped("Lifecycle", "all", "shutdown", "RequiresPrivilege")),
    ("run-and-startup", CLIENTS, lambda r: lifecycle(r).update(run={"Script": "exit 1"})),
    ("key-case", SERVICES, renamed_step("shutdown", "Shutdown")),
    ("unknown-step", SERVICES, renamed_step("shutdown", "shutdwon")),
    ("global-without-all", SERVICES, lambda r: r.update(Lifecycle=lifecycle(r))),
    ("tag-and-digest", SERVICES, artifact(lambda uri: uri.replace("@", ":0.2.0@"))),
    ("image-not-pinned", SERVICES, artifact(lambda uri: uri.partition("@")[0] + ":latest")),
    ("image-not-run", SERVICES, artifact(lambda uri: uri[:-4] + "0000")),
    ("image-not-listed", SERVICES, artifact(lambda uri: uri[:-4] + "0000")),
    ("image-name", SERVICES, artifact(lambda uri: uri.replace("linewatch/", "Linewatch/"))),
    ("artifact-scheme", list(OURS), artifact(lambda _: "https://example.com/file")),
    ("no-runtime", SERVICES, platform("runtime", None)),
    ("no-platform", list(OURS), platform("os", None)),
    ("platform-regex", SERVICES, platform("architecture", "/amd64|aarch64/")),
    ("architecture-name", SERVICES, platform("architecture", "arm64")),
    ("custom-platform-on-lite", SERVICES, platform("io.linewatch.accelerator", "jetson")),
    ("setenv-not-text", list(OURS), setenv("LW_NUMBER", 8080)),
    ("setenv-name", list(OURS), setenv("LW-NAME", "x")),
    ("setenv-blank", list(OURS), setenv("LW_LIST", "a b")),
    ("unknown-variable", list(OURS), setenv("LW_THING", "{iot:thingname}")),
    ("missing-default", list(OURS), setenv("LW_MISSING", "{configuration:/Nothing}")),
    ("cross-component-variable", list(OURS), setenv("LW_OTHER", "{a.b:configuration:/Port}")),
    ("configuration-in-script", SERVICES, replaced('"$LW_MEMORY"', '"{configuration:/Memory}"')),
    ("stray-brace", SERVICES, replaced('"$LW_NAME"', '"${LW_NAME}"')),
    ("not-semver", list(OURS), lambda r: r.update(ComponentVersion="0.2")),
    ("bad-name", list(OURS), lambda r: r.update(ComponentName="io/linewatch")),
    ("missing-key", list(OURS), dropped("Manifests")),
    ("unknown-key", list(OURS), lambda r: r.update(ComponentVerison="1.0.0")),
    ("recipe-too-big", list(OURS), lambda r: r.update(ComponentDescription="x" * 8192)),
    ("ecr-dependencies", SERVICES, dropped("ComponentDependencies")),
    ("token-exchange-hard", SERVICES, dropped(
        "ComponentDependencies", "aws.greengrass.TokenExchangeService", "DependencyType")),
    ("hard-dependency", SERVICES, dropped(
        "ComponentDependencies", "aws.greengrass.DockerApplicationManager", "DependencyType")),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "names", "change"), BROKEN, ids=[rule for rule, _, _ in BROKEN])
def test_a_recipe_of_ours_that_is_broken_is_caught(
    rule: str, names: list[str], change: Callable[[dict[str, Any]], None]
) -> None:
    for name in names:
        recipe = copy.deepcopy(OURS[name].recipe)
        change(recipe)

        assert rule in rules_of(json.dumps(recipe, separators=(",", ":"))), name


def keys_of(recipe: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of every key whose letters a nucleus cares about: not names of variables, settings or attributes."""
    own = {"Setenv", "DefaultConfiguration", "Platform", "ComponentDependencies"}
    items = (
        recipe.items() if isinstance(recipe, dict) else enumerate(recipe) if isinstance(recipe, list) else []
    )
    found = []
    for key, value in items:
        if isinstance(key, str):
            found.append((*path, key))
        if key not in own:
            found += keys_of(value, (*path, key))
    return found


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_key_with_a_typing_error_anywhere_is_caught(data: st.DataObject) -> None:
    component = OURS[data.draw(st.sampled_from(sorted(OURS)))]
    recipe = copy.deepcopy(component.recipe)
    *path, key = data.draw(st.sampled_from(keys_of(recipe)))
    at: Any = recipe
    for step in path:
        at = at[step]
    wrong = data.draw(st.sampled_from([key.swapcase(), key[1:], key + "s", key[:1] + key]))
    at[wrong] = at.pop(key)

    assert rules_of(json.dumps(recipe)), f"{component.name}: {path} {key} -> {wrong}"


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_brace_anywhere_in_a_script_is_caught(data: st.DataObject) -> None:
    component = OURS[data.draw(st.sampled_from(sorted(OURS)))]
    recipe = copy.deepcopy(component.recipe)
    step = data.draw(st.sampled_from([key for key in lifecycle(recipe) if key != "Setenv"]))
    script = lifecycle(recipe)[step]["Script"]
    at = data.draw(st.integers(0, len(script)))
    lifecycle(recipe)[step]["Script"] = (
        script[:at] + data.draw(st.sampled_from(["{", "}", "{x}", "${A}"])) + script[at:]
    )

    assert "stray-brace" in rules_of(json.dumps(recipe))


# --- the command -----------------------------------------------------------------------------------------------------


def test_lint_refuses_errors_and_names_place_reason_and_remedy() -> None:
    said = linewatch("lint", str(ROOT / "fleet/tests/pitfalls/unknown-step.json"))

    assert said.returncode == errors.REFUSED
    assert "Manifests[0].Lifecycle.shutdwon" in said.stderr
    assert "did you mean shutdown?" in said.stderr


def test_lint_passes_a_good_recipe_and_only_tells_warnings() -> None:
    assert linewatch("lint", str(ROOT / "fleet/tests/pitfalls/none.json")).returncode == errors.OK
    said = linewatch("lint", str(ROOT / "fleet/tests/pitfalls/yaml-recipe.yaml"))
    assert said.returncode == errors.OK
    assert "yaml-recipe" in said.stderr


def test_lint_as_json_is_one_document() -> None:
    said = linewatch("lint", "--json", str(ROOT / "fleet/tests/pitfalls/no-init.json"))

    assert said.returncode == errors.REFUSED
    (finding,) = json.loads(said.stdout)
    assert (finding["rule"], finding["severity"]) == ("no-init", "error")


@pytest.mark.parametrize(
    ("text", "named"), [("[1]", "is no recipe"), ("{", "neither JSON nor YAML"), ('"x', "neither")]
)
def test_what_is_no_recipe_is_bad_input(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(text)
    said = linewatch("lint", str(path))

    assert said.returncode == errors.USAGE
    assert named in said.stderr
    assert "Traceback" not in said.stderr


def test_a_missing_file_is_bad_input() -> None:
    said = linewatch("lint", "nowhere.json")

    assert said.returncode == errors.USAGE
    assert "make recipes" in said.stderr


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from([
            "Manifests", "Lifecycle", "all", "startup", "Setenv", "Script", "Platform", "Artifacts", "Uri", "os",
            "ComponentConfiguration", "DefaultConfiguration", "accessControl", "resources", "ComponentDependencies",
            "Timeout", "ComponentName", "ComponentVersion",
        ]),
        inner, max_size=4,
    ),
    max_leaves=25,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(["Manifests", "Lifecycle", "ComponentName", "ComponentConfiguration",
                                        "ComponentDependencies", "ComponentVersion"]), json_values))  # fmt: skip
def test_no_recipe_however_wrong_breaks_the_linter(document: dict[str, Any]) -> None:
    assert rules_of(json.dumps(document))


def test_values_that_lite_would_cut_off_are_named() -> None:
    (message,) = lint.unsafe_values({"OperatorName": "Jane Doe", "Site": "plant-1", "Port": 8080})

    assert message.startswith("OperatorName: 'Jane Doe'")


def test_references_name_no_tag() -> None:
    assert all(":" not in one.reference.partition("@")[0] for one in references().values())
    assert isinstance(next(iter(OURS.values())), Component)
