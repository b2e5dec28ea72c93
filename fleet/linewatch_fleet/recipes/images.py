# SPDX-License-Identifier: Apache-2.0
"""Rules about artifacts, dependencies and access."""

import re
from collections.abc import Iterator
from typing import Any

from linewatch_fleet.recipes.findings import Place, rule
from linewatch_fleet.recipes.reading import Recipe
from linewatch_fleet.recipes.render import PRIVATE_ECR

TOKEN_EXCHANGE = "aws.greengrass.TokenExchangeService"  # noqa: S105 - a component's name
DOCKER_MANAGER = "aws.greengrass.DockerApplicationManager"

_REFERENCE = re.compile(r"[^\s\"'=]+@sha256:[0-9a-fA-F]+")
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*:[0-9a-fA-F]{32,}")
_MOST_SLASHES = 7


def _tag(image: str) -> str:
    return image.partition("@")[0].rpartition("/")[2].partition(":")[2]


@rule(
    "tag-and-digest",
    "error",
    "Classic refuses a reference with both a tag and a digest.",
    "Leave the tag out.",
)
def _tag_and_digest(recipe: Recipe) -> Iterator[Place]:
    return ((path, image) for path, image in recipe.images if "@" in image and _tag(image))


@rule("image-not-pinned", "error",
      "A tag may mean another image tomorrow; latest is pulled again at each start, and fails offline.",
      "Name the image by its digest.")  # fmt: skip
def _image_not_pinned(recipe: Recipe) -> Iterator[Place]:
    return ((path, image) for path, image in recipe.images if "@" not in image)


@rule(
    "image-name",
    "error",
    "Classic refuses the reference.",
    "A repository in lower case, and sha256: with 64 hexadecimal digits.",
)
def _image_name(recipe: Recipe) -> Iterator[Place]:
    for path, image in recipe.images:
        name, at, digest = image.partition("@")
        repository = name.partition("/")[2] or name
        if repository != repository.lower() or (at and not _DIGEST.fullmatch(digest)):
            yield path, image


def _used(recipe: Recipe) -> dict[str, str]:
    """Path by image reference in scripts and in Setenv."""
    return {found[0]: path for path, text in recipe.texts() for found in _REFERENCE.finditer(text)}


@rule("image-not-run", "error", "The artifact only fetches the image; nothing here runs it.",
      "Use the same reference in the script.")  # fmt: skip
def _image_not_run(recipe: Recipe) -> Iterator[Place]:
    used = _used(recipe)
    return ((path, image) for path, image in recipe.images if "@" in image and image not in used)


@rule("image-not-listed", "error", "The nucleus fetches and signs in only for images among the artifacts; `docker run` can't.",
      "List it as a docker: artifact, in the same words.")  # fmt: skip
def _image_not_listed(recipe: Recipe) -> Iterator[Place]:
    listed = {image for _, image in recipe.images}
    for image, path in _used(recipe).items():
        # A recipe without any image among its artifacts is for a device whose images are loaded by hand.
        if listed and image not in listed:
            yield path, image


@rule("compose-images", "error", "Without docker: artifacts the nucleus does not sign in at ECR for what compose pulls.",
      "List each image of the compose file as an artifact.")  # fmt: skip
def _compose_images(recipe: Recipe) -> Iterator[Place]:
    if not recipe.images:
        yield from (
            (f"{s.path}.Script", "docker compose")
            for s in recipe.steps
            if re.search(r"\bdocker[ -]compose\b", s.script)
        )


@rule("artifact-scheme", "error", "Nuclei fetch from s3:, greengrass: and docker: only; lite fails the deployment.",
      "Upload it to the artifact bucket.")  # fmt: skip
def _artifact_scheme(recipe: Recipe) -> Iterator[Place]:
    return (
        (path, uri)
        for path, uri in recipe.artifacts
        if not uri.startswith(("s3://", "greengrass:", "docker:"))
    )


@rule("ecr-dependencies", "error", "Without them the nucleus can't sign in at a private ECR registry.",
      f"Depend on {DOCKER_MANAGER} and on {TOKEN_EXCHANGE}, SOFT.")  # fmt: skip
def _ecr_dependencies(recipe: Recipe) -> Iterator[Place]:
    if any(PRIVATE_ECR.match(image) for _, image in recipe.images):
        missing = [name for name in (DOCKER_MANAGER, TOKEN_EXCHANGE) if name not in recipe.dependencies]
        yield from (("ComponentDependencies", f"{name} is missing") for name in missing)


@rule("token-exchange-hard", "error",
      "Each restart of token exchange restarts this component, past any deferral; on lite it may not start at boot.",
      '"DependencyType": "SOFT".')  # fmt: skip
def _token_exchange_hard(recipe: Recipe) -> Iterator[Place]:
    one = recipe.dependencies.get(TOKEN_EXCHANGE)
    if one is not None and one.get("DependencyType", "HARD") == "HARD":
        yield f"ComponentDependencies.{TOKEN_EXCHANGE}", str(one.get("DependencyType", "HARD by default"))


@rule("hard-dependency", "warning", "Each restart of the other component restarts this one, past any deferral.",
      '"DependencyType": "SOFT", and wait in the script for what is needed.')  # fmt: skip
def _hard_dependency(recipe: Recipe) -> Iterator[Place]:
    for name, one in recipe.dependencies.items():
        if name != TOKEN_EXCHANGE and one.get("DependencyType", "HARD") == "HARD":
            yield f"ComponentDependencies.{name}", str(one.get("DependencyType", "HARD by default"))


@rule("open-version", "error", "An unbounded requirement lets a deployment bring any new version of it, unasked.",
      "Bound it, such as ~2.0.0.")  # fmt: skip
def _open_version(recipe: Recipe) -> Iterator[Place]:
    for name, one in recipe.dependencies.items():
        wanted = str(one.get("VersionRequirement", "~0"))
        if wanted.strip() in {"*", "", "latest"} or (">" in wanted and "<" not in wanted):
            yield f"ComponentDependencies.{name}.VersionRequirement", repr(wanted)


@rule("classic-only-dependency", "error", "It is a plugin of the classic nucleus: on lite there is no such component.",
      "A broker of your own; a queue of your own on disk.")  # fmt: skip
def _classic_only_dependency(recipe: Recipe) -> Iterator[Place]:
    for name in recipe.dependencies:
        if name.startswith("aws.greengrass.clientdevices.") or name == "aws.greengrass.DiskSpooler":
            yield f"ComponentDependencies.{name}", name


def _policies(recipe: Recipe) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """(path, service, id, policy) of accessControl."""
    control = recipe.defaults.get("accessControl") if isinstance(recipe.defaults, dict) else None
    for service, policies in (control if isinstance(control, dict) else {}).items():
        for id_, policy in (policies if isinstance(policies, dict) else {}).items():
            if isinstance(policy, dict):
                yield f"DefaultConfiguration.accessControl.{service}.{id_}", service, id_, policy


def _resources(policy: dict[str, Any]) -> list[str]:
    found = policy.get("resources", [])
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []


@rule("access-too-wide", "error", "A component that may do everything is one bug away from every topic of the device.",
      "Name operations and resources.")  # fmt: skip
def _access_too_wide(recipe: Recipe) -> Iterator[Place]:
    for path, _, _, policy in _policies(recipe):
        operations = policy.get("operations", [])
        wide = [one for one in operations if one == "*"] if isinstance(operations, list) else []
        wide += [one for one in _resources(policy) if one in {"*", "#"}]
        yield from ((path, one) for one in wide)


@rule("access-pattern", "error", "Nucleus lite takes * at the end only, and refuses a ${ that is no ${*}, ${?} or ${$}.",
      "End with *, or write ${*}, ${?}, ${$} for the characters themselves.")  # fmt: skip
def _access_pattern(recipe: Recipe) -> Iterator[Place]:
    for path, _, _, policy in _policies(recipe):
        for resource in _resources(policy):
            plain = re.sub(r"\$\{[*?$]\}", "", resource)
            if "*" in plain[:-1] or "${" in plain:
                yield path, resource


@rule("access-id", "warning", "Policy ids are one name space for the device: the second one of a name replaces the first.",
      "Begin it with the component's name.")  # fmt: skip
def _access_id(recipe: Recipe) -> Iterator[Place]:
    return (
        (path, id_)
        for path, _, id_, _ in _policies(recipe)
        if recipe.name and not id_.startswith(recipe.name)
    )


@rule("topic-too-deep", "error", "IoT Core takes topics with at most 7 slashes.", "Shorten the topic.")
def _topic_too_deep(recipe: Recipe) -> Iterator[Place]:
    for path, service, _, policy in _policies(recipe):
        if service == "aws.greengrass.ipc.mqttproxy":
            for resource in _resources(policy):
                if resource.count("/") > _MOST_SLASHES and not resource.startswith("$aws/rules/"):
                    yield path, resource
