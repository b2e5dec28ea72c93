# SPDX-License-Identifier: Apache-2.0
"""Recipes from the templates in recipes/: which components there are, with which images, keys and artifacts.

A template is a recipe with two differences: a script is the list of the files it is joined from, and @NAME@ is filled
in. All manifests of a recipe share its one lifecycle, so that the recipe stays within what nucleus lite reads.
"""

import copy
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from linewatch_fleet.config import Platform
from linewatch_fleet.errors import BadInput
from linewatch_fleet.recipes import MODELS, TEMPLATES, archive

SERVICES = ("Broker", "Inference", "Capture", "Forwarder", "Console")
ARCHITECTURES: dict[str, Platform] = {"amd64": "linux/amd64", "aarch64": "linux/arm64"}

PRIVATE_ECR = re.compile(r"^\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(\.cn)?(/|$)")

_SETTINGS = r"""$(env | sed -nE "s/^($LW_PREFIX)([A-Z_]+)=.*/-e \1\2/p")"""
"""docker's arguments that pass on every variable of the service's that Setenv sets, without its value. Not one by one:
the names, a second time, took more of nucleus lite's buffer than the rest of the script."""

_PLACEHOLDER = re.compile(r"@([A-Z_-]+)@")

ECR_DEPENDENCIES = {
    # An empty component that only has to be there; a restart of it would take ours along if it were HARD.
    "aws.greengrass.DockerApplicationManager": {"VersionRequirement": "~2.0.0", "DependencyType": "SOFT"},
    "aws.greengrass.TokenExchangeService": {"VersionRequirement": "~2.0.0", "DependencyType": "SOFT"},
}


@dataclass(frozen=True, slots=True)
class ImageReference:
    """One image where devices pull it from."""

    reference: str
    """registry/repository@sha256:..., without a tag: the classic nucleus refuses both together."""
    platforms: frozenset[Platform]


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file of a component, in the cloud at s3://<bucket>/<component>/<version>/<name>."""

    name: str
    package: Path
    """The model package that it is made of."""

    def content(self) -> bytes:
        """The file's bytes."""
        return archive.packed(self.package)


@dataclass(frozen=True, slots=True)
class Component:
    """A component version, ready to be published or deployed locally."""

    name: str
    version: str
    recipe: dict[str, Any]
    artifacts: tuple[Artifact, ...] = ()

    @property
    def text(self) -> str:
        """The recipe as it is written to files and sent to AWS: compact, because nucleus lite bounds its size."""
        return json.dumps(self.recipe, ensure_ascii=False, separators=(",", ":")) + "\n"


def references(
    images: Mapping[str, tuple[str, str, Iterable[Platform]]], registry: str, prefix: str = ""
) -> dict[str, ImageReference]:
    """What devices pull: images by name as (repository, digest, platforms), in `registry` below `prefix`."""
    host = f"{registry}/" if registry else ""
    return {
        name: ImageReference(f"{host}{prefix}{repository}@{digest}", frozenset(platforms))
        for name, (repository, digest, platforms) in images.items()
    }


def components_of(
    images: Mapping[str, ImageReference],
    version: str,
    captures: int = 2,
    packages: Mapping[str, Path] | None = None,
    bucket: str = "",
    keys: Path = MODELS / "trusted-keys",
    *,
    is_local: bool = False,
    pulls: bool | None = None,
) -> list[Component]:
    """Every component of a release.

    Args:
        images: by name, as `references` makes them; "inference-jetson" may be missing.
        version: the release's.
        captures: stations of a device.
        packages: model packages by name, each a folder <version>/; default: the newest released of each in models/.
        bucket: where the artifacts lie in the cloud.
        keys: folder with the Ed25519 keys (*.pem) that the release's models must be signed by.
        is_local: for a deployment from the device's own command line, whose files come from a folder: no artifact in
            the cloud, which nucleus lite would try to fetch.
        pulls: whether the nucleus fetches the images, for which ECR needs two of AWS's components; default: unless
            `is_local`.

    Raises:
        BadInput: an image, a key or a package is missing.
    """
    components = [service("Broker", images, version, {"CLIENTS": clients(captures)})]
    components.append(service("Inference", images, version, {"RELEASE_KEYS": key_bodies(keys)}))
    components += [service("Capture", images, version, capture(number)) for number in range(1, captures + 1)]
    components += [service(name, images, version) for name in ("Forwarder", "Console")]
    found = released_packages() if packages is None else packages
    components += [model(name, package, bucket) for name, package in sorted(found.items())]
    if is_local:
        for component in components:
            _make_local(component.recipe, keep="docker:" if pulls else ())
    return components


def _make_local(recipe: dict[str, Any], keep: str | tuple[str, ...]) -> None:
    if not keep:
        recipe.pop("ComponentDependencies", None)
    for manifest in recipe["Manifests"]:
        manifest["Artifacts"] = [one for one in manifest["Artifacts"] if one["Uri"].startswith(keep)]


def service(
    name: str, images: Mapping[str, ImageReference], version: str, texts: Mapping[str, str] | None = None
) -> Component:
    """One service's component."""
    image = name.lower()
    if image not in images:
        raise BadInput(f"there is no image {image!r}; build it with `make images`")
    template = _template(name)
    own = {"VERSION": version, "IMAGE": images[image].reference, "SETTINGS": _SETTINGS}
    jetson = images.get(f"{image}-jetson")
    own["JETSON"] = jetson.reference if jetson else ""
    recipe: dict[str, Any] = _filled(template, {**own, **(texts or {})})
    recipe["Manifests"] = [
        manifest
        for manifest in recipe["Manifests"]
        if _serves(manifest, images[image].platforms, jetson.platforms if jetson else frozenset())
    ]
    if not recipe["Manifests"]:
        raise BadInput(f"image {image!r} has none of the platforms {', '.join(ARCHITECTURES.values())}")
    if PRIVATE_ECR.match(images[image].reference):
        recipe["ComponentDependencies"] = copy.deepcopy(ECR_DEPENDENCIES)
    return _component(recipe)


def model(name: str, package: Path, bucket: str) -> Component:
    """One model's component; its version is the package's."""
    if not (package / "metadata.json").is_file():
        raise BadInput(
            f"{package} is no model package: it has no metadata.json; make one with `linewatch package`"
        )
    file = archive.file_name(name, package.name)
    texts = {
        "MODEL": name,
        "VERSION": package.name,
        "BUCKET": bucket,
        "COMPONENT": f"io.linewatch.model.{name}",
        "FILE": file,
    }
    return _component(_filled(_template("model"), texts), (Artifact(file, package),))


def capture(number: int) -> dict[str, str]:
    """What tells the stations of one device apart; the first has no number."""
    plain = "" if number == 1 else str(number)
    return {"NUMBER": plain, "-NUMBER": plain and f"-{plain}", "LINE": f"line-{number}"}


def clients(captures: int) -> str:
    """Who gets a password at the broker. Separated by commas: nucleus lite exports values without quotes."""
    return ",".join(["inference", "forwarder", "console", *(f"line-{n}" for n in range(1, captures + 1))])


def key_bodies(folder: Path) -> str:
    """The public keys of a folder as one line: the bodies of their PEM files, separated by commas."""
    bodies = []
    for path in sorted(folder.glob("*.pem")):
        text = path.read_bytes()
        try:
            known = isinstance(load_pem_public_key(text), Ed25519PublicKey)
        except ValueError:
            known = False
        if not known:
            raise BadInput(f"{path}: is no Ed25519 public key in PEM form")
        bodies.append(
            "".join(line for line in text.decode().split("\n") if not line.startswith("-----")).strip()
        )
    if not bodies:
        raise BadInput(
            f"{folder} holds no *.pem, so a device would trust no model; put the public keys there"
        )
    return ",".join(bodies)


def released_packages(models: Path = MODELS) -> dict[str, Path]:
    """The newest released package of each model in the repository."""
    found = {}
    for releases in sorted(models.glob("*/releases")):
        versions = [path for path in releases.iterdir() if (path / "metadata.json").is_file()]
        if versions:
            found[releases.parent.name] = max(
                versions, key=lambda path: [int(n) for n in path.name.split(".")]
            )
    return found


def _serves(manifest: Mapping[str, Any], platforms: frozenset[Platform], jetson: frozenset[Platform]) -> bool:
    platform = manifest["Platform"]
    has = jetson if "io.linewatch.accelerator" in platform else platforms
    return "architecture" not in platform or ARCHITECTURES[platform["architecture"]] in has


def _component(recipe: dict[str, Any], artifacts: tuple[Artifact, ...] = ()) -> Component:
    return Component(recipe["ComponentName"], recipe["ComponentVersion"], recipe, artifacts)


def _template(name: str) -> dict[str, Any]:
    """A template with its scripts' text in place."""
    template: dict[str, Any] = json.loads((TEMPLATES / f"{name}.json").read_text(encoding="utf-8"))
    for step in template["Lifecycle"]["all"].values():
        if "Script" in step:
            step["Script"] = _script(step["Script"])
    return template


def _script(names: Iterable[str]) -> str:
    """The files' text without comments, empty lines and indentation: nucleus lite reads a recipe of 8,196 bytes."""
    lines = [
        line.strip() for name in names for line in (TEMPLATES / name).read_text(encoding="utf-8").splitlines()
    ]
    return "\n".join(line for line in lines if line and not line.startswith("#"))


def _filled(template: Any, texts: Mapping[str, str]) -> Any:
    """The template with every @NAME@ replaced. KeyError: a template names something that nobody fills in."""
    if isinstance(template, dict):
        return {key: _filled(value, texts) for key, value in template.items()}
    if isinstance(template, list):
        return [_filled(value, texts) for value in template]
    if isinstance(template, str):
        return _PLACEHOLDER.sub(lambda found: texts[found[1]], template)
    return template
