# SPDX-License-Identifier: Apache-2.0
"""What of a release must become a new component version, and what stands already.

A component version never changes in AWS, so each gets the digest of its content as a tag: recipe without its version,
and the artifacts' digests. A component whose content is the same as in an earlier release keeps that release's version,
so that a release that only changes inference restarts only inference.
"""

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from linewatch_fleet.greengrass import PENDING, Greengrass, reason_of
from linewatch_fleet.versions import version_key

CONTENT_TAG: Final = "linewatch:content"
RELEASE_TAG: Final = "linewatch:release"

# What AWS writes into a recipe that it keeps, where the recipe says nothing else.
_RECIPE_DEFAULTS: Final = {"ComponentType": "aws.greengrass.generic", "Lifecycle": {}}
_ARTIFACT_DEFAULTS: Final = {"Unarchive": "NONE", "Permission": {"Read": "OWNER", "Execute": "NONE"}}
_ARTIFACT_FOUND_OUT: Final = ("Digest", "Algorithm")


@dataclass(frozen=True, slots=True)
class Standing:
    """What is to be done with one component of a release.

    Attributes:
        version: the version that the release uses, which may be an earlier release's.
        action: `create`; `replace` a version that never became deployable; `wait` for one that is being made; `keep`.
        refusal: why the release can't be published with this component; empty when it can.
    """

    name: str
    version: str
    action: Literal["create", "replace", "wait", "keep"]
    detail: str = ""
    refusal: str = ""


def content_digest(recipe: Mapping[str, Any], artifacts: Mapping[str, str]) -> str:
    """The digest of a component's content: everything but its version number. `artifacts`: digest by file name."""
    content = {"recipe": normalised(recipe), "artifacts": dict(artifacts)}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def normalised(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe without its version and without what AWS adds, so that two can be compared."""
    plain = copy.deepcopy(dict(recipe))
    plain.pop("ComponentVersion", None)
    for key, default in _RECIPE_DEFAULTS.items():
        if plain.get(key) == default:
            del plain[key]
    for manifest in plain.get("Manifests", []):
        for artifact in manifest.get("Artifacts", []):
            for key in _ARTIFACT_FOUND_OUT:
                artifact.pop(key, None)
            for key, default in _ARTIFACT_DEFAULTS.items():
                if artifact.get(key) == default:
                    del artifact[key]
    return {key: value for key, value in plain.items() if value not in (None, [], {})}


def standing(cloud: Greengrass, recipe: Mapping[str, Any], artifacts: Mapping[str, str]) -> Standing:
    """Compares one component of a release with the versions that are in the account."""
    name, version = recipe["ComponentName"], recipe["ComponentVersion"]
    digest = content_digest(recipe, artifacts)
    found = cloud.component(name, version)
    if found is not None:
        return _same_version(cloud, found, recipe, digest)
    earlier = [one for one in cloud.versions(name) if version_key(one) < version_key(version)]
    newest = max(earlier, key=version_key, default=None)
    if newest:
        before = cloud.component(name, newest)
        if (
            before
            and before["status"]["componentState"] == "DEPLOYABLE"
            and _same_content(cloud, before, recipe, digest)
        ):
            return Standing(name, newest, "keep", f"unchanged since {newest}")
    return Standing(name, version, "create", f"new version, after {newest}" if newest else "new component")


def _same_version(
    cloud: Greengrass, found: Mapping[str, Any], recipe: Mapping[str, Any], digest: str
) -> Standing:
    name, version = recipe["ComponentName"], recipe["ComponentVersion"]
    state = found["status"]["componentState"]
    if state == "FAILED":
        # It can't be deployed, so nobody runs it; its number is free again once it is deleted.
        return Standing(name, version, "replace", f"an earlier try failed: {reason_of(found['status'])}")
    if not _same_content(cloud, found, recipe, digest):
        return Standing(
            name,
            version,
            "keep",
            refusal=f"{name} {version} is there with other content, and a component version never changes; "
            "raise the version (VERSION for services, the package's own for a model) and make a new release",
        )
    if state in PENDING:
        return Standing(name, version, "wait", "being made")
    if state != "DEPLOYABLE":
        return Standing(
            name, version, "keep", refusal=f"{name} {version} is {state} in AWS; raise the version"
        )
    return Standing(name, version, "keep", "there")


def _same_content(
    cloud: Greengrass, found: Mapping[str, Any], recipe: Mapping[str, Any], digest: str
) -> bool:
    tagged = found.get("tags", {}).get(CONTENT_TAG)
    if tagged:
        return bool(tagged == digest)
    # Somebody made it with another tool: the recipe is all that can be compared.
    kept = cloud.recipe(recipe["ComponentName"], found["componentVersion"])
    return kept is not None and normalised(kept) == normalised(recipe)
