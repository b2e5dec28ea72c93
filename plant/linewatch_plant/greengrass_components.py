# SPDX-License-Identifier: Apache-2.0
"""The greengrassv2 stand-in's component versions: made, looked at, listed, never changed. See standin_greengrass.py."""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import yaml

from linewatch_plant.rest_json import Refusal

PUBLIC = {
    "aws.greengrass.Nucleus": ("2.17.0", "2.18.0"),
    "aws.greengrass.NucleusLite": ("2.5.0", "2.6.0"),
    "aws.greengrass.Cli": ("2.17.0", "2.18.0"),
    "aws.greengrass.DockerApplicationManager": ("2.0.15", "2.0.16"),
    "aws.greengrass.TokenExchangeService": ("2.0.3",),
    "aws.greengrass.StreamManager": ("2.2.1", "2.3.0"),
    "aws.greengrass.LogManager": ("2.3.10", "2.3.11"),
}
"""AWS's own components and some of their versions; a test that needs others says so."""

SEMVER = re.compile(r"\d{1,6}\.\d{1,6}\.\d{1,6}(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")
NAME = re.compile(r"[a-zA-Z0-9-_.]{1,128}")
_COMPONENT_ARN = re.compile(r"arn:aws:greengrass:[^:]*:([^:]*):components:([^:]+)(?::versions:([^:]+))?")


class ComponentRegistry:
    """The account's component versions and AWS's own."""

    def __init__(
        self,
        account: str,
        region: str,
        page: int,
        public: Mapping[str, Sequence[str]],
        artifact: Callable[[str], bytes | None] | None,
    ) -> None:
        self.account, self.region, self.page = account, region, page
        self.describes_until_deployable = 1
        self._artifact = artifact
        self._components: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._answers: dict[str, dict[str, Any]] = {}
        for name, versions in public.items():
            for version in versions:
                self._keep("aws", {"ComponentName": name, "ComponentVersion": version}, {}, "DEPLOYABLE")

    def create_component_version(self, asked: dict[str, Any]) -> dict[str, Any]:
        """CreateComponentVersion."""
        token = asked.get("clientToken", "")
        if token in self._answers:
            return self._answers[token]
        recipe = _recipe(asked)
        name, version = recipe["ComponentName"], recipe["ComponentVersion"]
        if (self.account, name, version) in self._components:
            raise Refusal(
                "ConflictException",
                f"Component [{name} : {version}] for account [{self.account}] already exists",
                resourceId=self._component_arn(self.account, name, version),
                resourceType="componentVersion",
            )
        entry = self._keep(self.account, recipe, asked.get("tags", {}), "REQUESTED")
        missing = self._resolve_artifacts(recipe)
        if missing:
            entry["errors"] = {"artifact": f"Failed to get the artifact {missing} from S3"}
        answer = {**_short(entry), "creationTimestamp": entry["created"], "status": _status(entry)}
        if token:
            self._answers[token] = answer
        return answer

    def _resolve_artifacts(self, recipe: dict[str, Any]) -> str:
        """Writes what the service works out into the recipe; the first artifact that is not there, or ""."""
        for manifest in recipe.get("Manifests", []):
            for artifact in manifest.get("Artifacts", []):
                uri = artifact.get("Uri") or artifact.get("URI") or ""
                if uri.startswith("s3://") and self._artifact is not None:
                    content = self._artifact(uri)
                    if content is None:
                        return uri
                    digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
                    artifact.update(Digest=digest, Algorithm="SHA-256")
                artifact.setdefault("Unarchive", "NONE")
                artifact.setdefault("Permission", {"Read": "OWNER", "Execute": "NONE"})
        recipe.setdefault("ComponentType", "aws.greengrass.generic")
        recipe.setdefault("Lifecycle", {})
        return ""

    def describe_component(self, asked: dict[str, Any]) -> dict[str, Any]:
        """DescribeComponent: each look brings a new version nearer to DEPLOYABLE."""
        entry = self.version(asked["arn"])
        if entry["state"] in ("REQUESTED", "INITIATED"):
            entry["looks"] += 1
            if entry["looks"] >= self.describes_until_deployable:
                entry["state"] = "FAILED" if entry["errors"] else "DEPLOYABLE"
            else:
                entry["state"] = "INITIATED"
        return {
            **_short(entry),
            "creationTimestamp": entry["created"],
            "publisher": entry["recipe"].get("ComponentPublisher", ""),
            "description": entry["recipe"].get("ComponentDescription", ""),
            "status": _status(entry),
            "tags": entry["tags"] or None,
        }

    def get_component(self, asked: dict[str, Any]) -> dict[str, Any]:
        """GetComponent."""
        entry = self.version(asked["arn"])
        form = asked.get("recipeOutputFormat", "JSON")
        text = json.dumps(entry["recipe"]) if form == "JSON" else yaml.safe_dump(entry["recipe"])
        return {"recipeOutputFormat": form, "recipe": text.encode(), "tags": entry["tags"] or None}

    def list_components(self, asked: dict[str, Any]) -> dict[str, Any]:
        """ListComponents."""
        owner = "aws" if asked.get("scope") == "PUBLIC" else self.account
        newest: dict[str, dict[str, Any]] = {}
        for entry in self._components.values():
            if entry["owner"] == owner:
                name = entry["componentName"]
                newest[name] = max(newest.get(name, entry), entry, key=_order)
        shown = [
            {
                "arn": entry["arn"].partition(":versions:")[0],
                "componentName": name,
                "latestVersion": {
                    "arn": entry["arn"],
                    "componentVersion": entry["componentVersion"],
                    "creationTimestamp": entry["created"],
                },
            }
            for name, entry in sorted(newest.items())
        ]
        return paged(self.page, "components", shown, asked)

    def list_component_versions(self, asked: dict[str, Any]) -> dict[str, Any]:
        """ListComponentVersions."""
        entries = [
            entry for entry in self._components.values() if entry["arn"].startswith(f"{asked['arn']}:")
        ]
        if not entries:
            raise not_found(asked["arn"], "component")
        shown = [_short(entry) for entry in sorted(entries, key=_order, reverse=True)]
        return paged(self.page, "componentVersions", shown, asked)

    def delete_component(self, asked: dict[str, Any]) -> dict[str, Any]:
        """DeleteComponent."""
        entry = self.version(asked["arn"])
        del self._components[entry["owner"], entry["componentName"], entry["componentVersion"]]
        return {}

    def _keep(
        self, owner: str, recipe: dict[str, Any], tags: Mapping[str, str], state: str
    ) -> dict[str, Any]:
        name, version = recipe["ComponentName"], recipe["ComponentVersion"]
        entry = {
            "owner": owner,
            "arn": self._component_arn(owner, name, version),
            "componentName": name,
            "componentVersion": version,
            "recipe": recipe,
            "tags": dict(tags),
            "state": state,
            "errors": {},
            "looks": 0,
            "created": datetime.now(UTC),
        }
        self._components[owner, name, version] = entry
        return entry

    def _component_arn(self, owner: str, name: str, version: str) -> str:
        return f"arn:aws:greengrass:{self.region}:{owner}:components:{name}:versions:{version}"

    def version(self, arn: str) -> dict[str, Any]:
        """What is kept of a component version."""
        found = _COMPONENT_ARN.fullmatch(arn)
        entry = self._components.get((found[1], found[2], found[3])) if found else None
        if entry is None:
            raise not_found(arn, "componentVersion")
        return entry


def paged(page: int, name: str, entries: list[Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """The page of `entries` that is asked for, as the member `name`."""
    try:
        start = int(asked.get("nextToken", "0"))
    except ValueError as error:
        raise Refusal("ValidationException", "nextToken is not one of ours") from error
    end = start + min(page, asked.get("maxResults", page))
    return {name: entries[start:end], "nextToken": str(end) if end < len(entries) else None}


def not_found(name: str, kind: str) -> Refusal:
    """The answer for what is not there."""
    return Refusal(
        "ResourceNotFoundException", f"{kind} {name} does not exist", resourceId=name, resourceType=kind
    )


def invalid(message: str) -> Refusal:
    """The answer for a wrong request."""
    return Refusal("ValidationException", message, reason="FIELD_VALIDATION_FAILED")


def _recipe(asked: Mapping[str, Any]) -> dict[str, Any]:
    if ("inlineRecipe" in asked) == ("lambdaFunction" in asked) or "inlineRecipe" not in asked:
        raise invalid("this stand-in takes inlineRecipe, and nothing else")
    try:
        recipe = yaml.safe_load(asked["inlineRecipe"].decode())  # JSON is YAML
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise invalid(f"The recipe is neither JSON nor YAML: {error}") from error
    if not isinstance(recipe, dict) or recipe.get("RecipeFormatVersion") != "2020-01-25":
        raise invalid("RecipeFormatVersion must be 2020-01-25")
    if not NAME.fullmatch(str(recipe.get("ComponentName", ""))):
        raise invalid("ComponentName is missing or has other characters than a-z, A-Z, 0-9, -, _ and .")
    if str(recipe["ComponentName"]).startswith("aws.greengrass."):
        raise invalid("aws.greengrass is reserved")
    if not SEMVER.fullmatch(str(recipe.get("ComponentVersion", ""))):
        raise invalid("ComponentVersion is not a semantic version")
    if not recipe.get("Manifests"):
        raise invalid("Manifests is missing or empty")
    return recipe


def _short(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: entry[name] for name in ("arn", "componentName", "componentVersion")}


def _status(entry: Mapping[str, Any]) -> dict[str, Any]:
    words = {"FAILED": "The component version could not be made", "DEPLOYABLE": "NONE"}
    return {
        "componentState": entry["state"],
        "message": words.get(entry["state"], "NONE"),
        "errors": entry["errors"] if entry["state"] == "FAILED" else {},
        "vendorGuidance": "ACTIVE",
    }


def _order(entry: Mapping[str, Any]) -> tuple[list[int], bool, str]:
    core, _, tail = entry["componentVersion"].partition("-")
    return [int(number) for number in core.partition("+")[0].split(".")], not tail, tail
