# SPDX-License-Identifier: Apache-2.0
"""From a release's manifest to its components, rendered for one environment; and whether its images are there."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from linewatch_fleet.aws import Account, explained
from linewatch_fleet.config import Environment, Fleet
from linewatch_fleet.credentials import docker_credentials
from linewatch_fleet.errors import GateRefused
from linewatch_fleet.manifest import Image, Release
from linewatch_fleet.oci import digest_of
from linewatch_fleet.recipes import MODELS, TEMPLATES, archive, render
from linewatch_fleet.registry import Registry


def components(
    fleet: Fleet, environment: Environment, release: Release, bucket: str
) -> list[render.Component]:
    """Every component of a release. Raises GateRefused when this checkout is not the release's."""
    differing = [
        part.path for part in release.recipes.values() if _digest(TEMPLATES.parent / part.path) != part.digest
    ]
    packages = {name: MODELS / name / "releases" / model.version for name, model in release.models.items()}
    differing += [
        f"model {name} {model.version}"
        for name, model in release.models.items()
        if not packages[name].is_dir() or archive.digest(packages[name]) != model.digest
    ]
    if differing:
        raise GateRefused(
            f"this checkout is not release {release.version}: {', '.join(sorted(differing)[:5])} "
            f"differ; check out commit {release.commit[:12]}"
        )
    images = {
        name: (image.repository, image.digest, image.platforms) for name, image in release.images.items()
    }
    references = render.references(images, environment.registry_host, environment.repository_prefix)
    return render.components_of(references, release.version, fleet.captures, packages, bucket)


def missing_images(account: Account, release: Release) -> list[str]:
    """The images that devices of the environment could not pull."""
    environment = account.environment
    has = (
        partial(
            _registry_has, Registry(environment.registry, partial(docker_credentials, environment.registry))
        )
        if environment.registry
        else partial(_ecr_has, account.client("ecr"), environment.account)
    )
    return [
        f"{environment.repository_prefix}{image.repository}@{image.digest}"
        for _, image in sorted(release.images.items())
        if not has(environment.repository_prefix + image.repository, image)
    ]


def _registry_has(registry: Registry, repository: str, image: Image) -> bool:
    return registry.manifest(repository, image.digest) is not None


def _ecr_has(ecr: Any, registry_id: str, repository: str, image: Image) -> bool:
    try:
        ecr.describe_images(
            registryId=registry_id,
            repositoryName=repository,
            imageIds=[{"imageDigest": image.digest}],
        )
    except ClientError as error:
        if error.response["Error"]["Code"] in ("ImageNotFoundException", "RepositoryNotFoundException"):
            return False
        with explained():
            raise
    return True


def artifact_digests(component: render.Component) -> dict[str, str]:
    """The digest of each artifact by its file name."""
    return {artifact.name: digest_of(artifact.content()) for artifact in component.artifacts}


def artifact_key(component: render.Component, name: str) -> str:
    """Where an artifact lies in the bucket: what the recipe's Uri says behind the bucket's name."""
    return f"{component.name}/{component.version}/{name}"


def uris(recipe: Mapping[str, Any]) -> Iterator[str]:
    """Every artifact that a recipe names."""
    for manifest in recipe.get("Manifests", []):
        for artifact in manifest.get("Artifacts", []):
            yield artifact["Uri"]


def _digest(path: Path) -> str:
    return digest_of(path.read_bytes()) if path.is_file() else ""
