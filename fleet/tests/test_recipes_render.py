# SPDX-License-Identifier: Apache-2.0
"""Our recipes as they are rendered: for an account, for a local deployment, from what `make images` built."""

import copy
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from rendered_recipes import BOTH, ECR, components, digest, references

from linewatch_capture.settings import Settings as Capture
from linewatch_console.settings import Settings as Console
from linewatch_fleet import errors
from linewatch_fleet.errors import BadInput
from linewatch_fleet.recipes import MODELS, archive, render
from linewatch_fleet.recipes.lint import lint_text, unsafe_values
from linewatch_forwarder.settings import Settings as Forwarder
from linewatch_inference.settings import Settings as Inference

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {"CAPTURE_": Capture, "CONSOLE_": Console, "FORWARDER_": Forwarder, "INFERENCE_": Inference}


def named(name: str, **changed: Any) -> render.Component:
    return next(one for one in components(**changed) if one.name == f"io.linewatch.{name}")


def lifecycle(component: render.Component) -> dict[str, Any]:
    return component.recipe["Lifecycle"]["all"]


def test_a_release_has_a_component_for_each_service_station_and_model() -> None:
    assert {one.name: one.version for one in components(captures=3)} == {
        **dict.fromkeys(
            [
                "io.linewatch.Broker",
                "io.linewatch.Inference",
                "io.linewatch.Forwarder",
                "io.linewatch.Console",
            ],
            "0.2.0",
        ),
        **dict.fromkeys(["io.linewatch.Capture", "io.linewatch.Capture2", "io.linewatch.Capture3"], "0.2.0"),
        "io.linewatch.model.pv-el-cells": "1.0.0",
        "io.linewatch.model.turbofan": "1.0.0",
    }


def test_stations_of_one_device_share_neither_name_nor_line_nor_source() -> None:
    made = [one for one in components(captures=3) if "Capture" in one.name]
    defaults = [one.recipe["ComponentConfiguration"]["DefaultConfiguration"] for one in made]

    for key in ("Name", "Line", "SourceDirectory"):
        assert len({one[key] for one in defaults}) == 3
    assert len({lifecycle(one)["Setenv"]["LW_PART"] for one in made}) == 3


def test_every_station_gets_a_password_by_default() -> None:
    clients = named("Broker", captures=4).recipe["ComponentConfiguration"]["DefaultConfiguration"]["Clients"]

    assert clients.split(",") == ["inference", "forwarder", "console", "line-1", "line-2", "line-3", "line-4"]


@pytest.mark.parametrize("component", components(), ids=lambda one: one.name)
def test_every_variable_that_a_recipe_sets_is_a_setting_of_its_service(component: render.Component) -> None:
    script = " ".join(step["Script"] for name, step in lifecycle(component).items() if name != "Setenv")
    own = {name for name in lifecycle(component)["Setenv"] if not name.startswith("LW_")}
    prefix = lifecycle(component)["Setenv"].get("LW_PREFIX", "-")
    passed = set(re.findall(rf"-e ({prefix}[A-Z_]+)", script)) | {
        prefix + rest for rest in re.findall(r'-e "\$LW_PREFIX"([A-Z_]+)', script)
    }

    assert not own or render._SETTINGS in script, "test_recipes_scripts.py runs it"
    if prefix in SETTINGS:
        assert {name.removeprefix(prefix).lower() for name in passed} <= set(SETTINGS[prefix].model_fields)


@pytest.mark.parametrize("component", components(), ids=lambda one: one.name)
def test_defaults_are_texts_and_each_is_used(component: render.Component) -> None:
    defaults = component.recipe["ComponentConfiguration"]["DefaultConfiguration"]
    used = set(re.findall(r"\{configuration:/(\w+)\}", component.text))

    assert all(isinstance(value, str) for value in defaults.values())
    assert used == set(defaults)


def test_the_documentation_has_every_key_with_its_default() -> None:
    page = (ROOT / "docs" / "recipes.md").read_text()
    told = set(re.findall(r"^\| (\w[\w.*-]*) \| `(\w+)` \| (?:`([^`]*)`)? \|", page, re.MULTILINE))

    assert told == {
        (one.name.removeprefix("io.linewatch.").replace("model.pv-el-cells", "model.*"), key, value)
        for one in components()
        if not one.name.endswith((".turbofan", ".Capture2"))
        for key, value in one.recipe["ComponentConfiguration"]["DefaultConfiguration"].items()
    }


def test_the_documented_access_of_the_nucleus_uplink_is_one_that_both_nuclei_take() -> None:
    """It is not in the recipe: who chooses that uplink merges it into the component's configuration."""
    page = (ROOT / "docs" / "recipes.md").read_text()
    (told,) = [
        json.loads(one) for one in re.findall(r"```json\n(.*?)```", page, re.DOTALL) if "accessControl" in one
    ]
    ((policy_id, policy),) = told["accessControl"]["aws.greengrass.ipc.mqttproxy"].items()
    recipe = copy.deepcopy(named("Forwarder").recipe)
    recipe["ComponentConfiguration"]["DefaultConfiguration"] |= told

    assert policy_id.startswith("io.linewatch.Forwarder:")
    assert policy == {
        "operations": ["aws.greengrass#PublishToIoTCore"],
        "resources": ["linewatch/v1/plant-1/*"],
    }
    assert told["Settings"] == "UPLINK=greengrass_ipc"
    found = {one.rule for one in lint_text(json.dumps(recipe)) if one.severity == "error"}
    assert found <= {"recipe-too-big"}, "as a recipe; a configuration has no such bound"
    assert unsafe_values({"Settings": told["Settings"] + ",EVENT_BUS=linewatch-dev"}) == []


@pytest.mark.parametrize("component", components(captures=16), ids=lambda one: one.name)
def test_nothing_needs_access_and_nothing_depends_on_another_of_ours(component: render.Component) -> None:
    assert "accessControl" not in component.text
    assert all(
        name.startswith("aws.greengrass.") for name in component.recipe.get("ComponentDependencies", {})
    )
    assert len(component.text.encode()) < 8192


def test_a_private_ecr_registry_brings_its_two_dependencies_and_no_other_registry_does() -> None:
    dependencies = named("Capture").recipe["ComponentDependencies"]
    assert {name: one["DependencyType"] for name, one in dependencies.items()} == {
        "aws.greengrass.DockerApplicationManager": "SOFT", "aws.greengrass.TokenExchangeService": "SOFT",
    }  # fmt: skip
    for registry in ("127.0.0.1:5000", "public.ecr.aws", "registry.example.com", ""):
        assert all("ComponentDependencies" not in one.recipe for one in components(references(registry)))


def test_images_are_named_by_digest_only() -> None:
    images = [
        artifact["Uri"] for one in components() for manifest in one.recipe["Manifests"] for artifact in manifest["Artifacts"]
        if artifact["Uri"].startswith("docker:")
    ]  # fmt: skip

    assert images
    assert all(
        re.fullmatch(rf"docker:{re.escape(ECR)}/staging/linewatch/[a-z-]+@sha256:[0-9a-f]{{64}}", one)
        for one in images
    )


def test_the_jetson_manifest_is_first_for_classic_only_and_has_its_own_image() -> None:
    jetson, *others = named("Inference").recipe["Manifests"]

    assert jetson["Platform"] == {
        "os": "linux",
        "architecture": "aarch64",
        "io.linewatch.accelerator": "jetson",
    }
    assert "linewatch/inference-jetson@" in jetson["Artifacts"][0]["Uri"]
    assert [one["Platform"]["architecture"] for one in others] == ["amd64", "aarch64"]
    assert all(one["Platform"]["runtime"] == "*" for one in others)


def test_without_a_jetson_image_there_is_no_manifest_for_it() -> None:
    inference = named("Inference", images=references(jetson=False))

    assert len(inference.recipe["Manifests"]) == 2
    assert lifecycle(inference)["Setenv"]["LW_JETSON_IMAGE"] == ""


def test_a_platform_that_was_not_built_has_no_manifest() -> None:
    (manifest,) = named("Broker", images=references(platforms=BOTH[:1])).recipe["Manifests"]

    assert manifest["Platform"]["architecture"] == "amd64"


def test_a_local_deployment_fetches_no_file() -> None:
    for one in components(is_local=True, pulls=True):
        assert "s3:" not in one.text
    for one in components(is_local=True):
        assert all(manifest["Artifacts"] == [] for manifest in one.recipe["Manifests"])
        assert "ComponentDependencies" not in one.recipe
    assert named("model.turbofan", is_local=True).artifacts[0].name == "turbofan-1.0.0.tar"


def test_in_the_cloud_a_models_file_lies_below_its_component_and_version() -> None:
    model = named("model.turbofan")

    (artifact,) = model.recipe["Manifests"][0]["Artifacts"]
    assert artifact == {
        "Uri": "s3://linewatch-artifacts-prod/io.linewatch.model.turbofan/1.0.0/turbofan-1.0.0.tar"
    }


def test_a_package_makes_the_same_file_whatever_its_times_modes_and_place(tmp_path: Path) -> None:
    package = MODELS / "turbofan" / "releases" / "1.0.0"
    copy = tmp_path / "1.0.0"
    for path in sorted(package.rglob("*"), reverse=True):
        if path.is_file():
            place = copy / path.relative_to(package)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
            place.chmod(0o600)

    packed = archive.packed(copy)
    assert packed == archive.packed(package)
    assert archive.digest(copy) == f"sha256:{hashlib.sha256(packed).hexdigest()}"
    with tarfile.open(fileobj=io.BytesIO(packed)) as file:
        assert {(one.uid, one.gid, one.mtime) for one in file} == {(0, 0, 0)}
        assert "metadata.json" in file.getnames()


def test_the_same_release_renders_the_same_bytes() -> None:
    assert [one.text for one in components()] == [one.text for one in components()]


def test_inference_trusts_the_keys_of_the_release_and_no_placeholder_stays() -> None:
    keys = lifecycle(named("Inference"))["Setenv"]["LW_RELEASE_KEYS"]

    for path in (MODELS / "trusted-keys").glob("*.pem"):
        assert path.read_text().splitlines()[1] in keys.split(",")
    assert all(not re.search(r"@[A-Z_-]+@", one.text) for one in components())


def test_what_is_missing_or_wrong_is_named(tmp_path: Path) -> None:
    images = references()
    del images["capture"]
    with pytest.raises(BadInput, match="'capture'; build it with `make images`"):
        components(images)
    with pytest.raises(BadInput, match=r"holds no \*.pem"):
        components(keys=tmp_path)
    (tmp_path / "key.pem").write_text("no key")
    with pytest.raises(BadInput, match="is no Ed25519 public key"):
        components(keys=tmp_path)
    with pytest.raises(BadInput, match="is no model package"):
        components(packages={"mine": tmp_path})


def render_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "linewatch_fleet.cli", "recipes", "render", *arguments]
    return subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=120)


def images_json(folder: Path, names: list[str]) -> Path:
    images = {
        name: {
            "repository": f"linewatch/{name}", "digest": digest(number),
            "platforms": {"linux/amd64": {"digest": digest(number)}},
        }
        for number, name in enumerate(names)
    }  # fmt: skip
    path = folder / "images.json"
    path.write_text(json.dumps({
        "schema": "linewatch.images/v1", "commit": "a" * 40, "dirty": False, "version": "0.2.0",
        "registry": "127.0.0.1:5000", "images": images,
    }))  # fmt: skip
    return path


def test_render_writes_recipes_and_files_for_a_local_deployment(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "io.linewatch.Broker-0.1.0.json").write_text("of another time")
    images = images_json(tmp_path, ["broker", "capture", "console", "forwarder", "inference"])
    said = render_command("--images", str(images), "--out", str(tmp_path), "--json")

    assert said.returncode == errors.OK, said.stderr
    told = {one["name"]: one["version"] for one in json.loads(said.stdout)}
    assert {path.stem for path in (tmp_path / "recipes").iterdir()} == {f"{n}-{v}" for n, v in told.items()}
    assert (
        tmp_path / "artifacts/io.linewatch.model.turbofan/1.0.0/turbofan-1.0.0.tar"
    ).stat().st_size > 100_000


@pytest.mark.parametrize(
    ("registry", "is_told"),
    [(None, True), ("localhost:5000", True), ("127.0.0.1", True), ("", False),
     ("registry.example.com", False), ("127.0.0.1.example.com", False)],
)  # fmt: skip
def test_render_tells_when_other_devices_can_not_reach_the_registry(
    tmp_path: Path, registry: str | None, is_told: bool
) -> None:
    images = images_json(tmp_path, ["broker", "capture", "console", "forwarder", "inference"])
    more = [] if registry is None else ["--registry", registry]
    said = render_command("--images", str(images), "--out", str(tmp_path), "--json", *more)

    assert said.returncode == errors.OK, said.stderr
    assert ("on another device: make recipes REGISTRY=host, or a bundle" in said.stderr) is is_told
    assert ("images lie in this machine's engine only" in said.stderr) is (registry == "")
    json.loads(said.stdout)


def test_render_prints_as_many_calls_of_ggl_cli_as_the_components_need(tmp_path: Path) -> None:
    images = images_json(tmp_path, ["broker", "capture", "console", "forwarder", "inference"])
    said = render_command("--images", str(images), "--out", str(tmp_path), "--captures", "16")

    calls = [
        line for line in said.stderr.replace("\n--add", " --add").split("on the device:") if "ggl-cli" in line
    ]
    assert [call.count("--add-component") for call in calls] == [10, 10, 2]
    assert sum(call.count("io.linewatch.Capture") for call in calls) == 16


def test_render_without_images_says_what_to_do(tmp_path: Path) -> None:
    said = render_command("--images", str(tmp_path / "images.json"), "--out", str(tmp_path))

    assert said.returncode == errors.USAGE
    assert "make images" in said.stderr
    assert "Traceback" not in said.stderr
