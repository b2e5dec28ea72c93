# SPDX-License-Identifier: Apache-2.0
"""fleet.yaml: the environments that images and releases go through. fleet.example.yaml explains every key."""

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from linewatch_fleet.errors import BadInput

DEFAULT_FILE = Path("fleet.yaml")

Severity = Literal["CRITICAL", "HIGH", "MEDIUM", "LOW", "INFORMATIONAL", "UNDEFINED"]
Platform = Literal["linux/amd64", "linux/arm64"]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,19}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Waiver(_Strict):
    """A finding that was looked at and is accepted for a while."""

    id: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Za-z0-9._:-]{3,63}$")]
    """The finding's name, such as CVE-2026-12345."""
    reason: Annotated[str, StringConstraints(min_length=10)]
    """Why it does no harm here. Whoever reviews fleet.yaml reads this."""
    until: date
    """The last day on which it counts, in UTC."""
    images: list[str] = []
    """Images it holds for; empty: all."""


class Gate(_Strict):
    """What a release must show before its images enter an environment."""

    max_findings: dict[Severity, int] = {"CRITICAL": 0, "HIGH": 0}
    """Most findings of a severity that the scan of an image may have; a severity that is not named has no limit."""
    scan: Literal["required", "if-present", "off"] = "required"
    """Whether the scan's findings must be there (from ECR, or from a report file)."""
    signature: bool = True
    """The release must be signed by a key of `trusted_keys`."""
    test_report: bool = True
    """The release must carry a test report without failures."""
    platforms: list[Platform] = ["linux/amd64", "linux/arm64"]
    """Platforms that every image must have."""
    waivers: list[Waiver] = []
    """Findings that are not counted."""


class Rollout(_Strict):
    """How fast a deployment spreads over a thing group, and when it stops by itself."""

    base_per_minute: int = Field(default=5, ge=1, le=1000)
    increment_factor: float = Field(default=1.5, ge=1.1, le=5)
    maximum_per_minute: int = Field(default=50, ge=1, le=1000)
    increase_after_successes: int = Field(default=10, ge=1)
    abort_percentage: float = Field(default=10, gt=0, le=100)
    """Share of failed devices from which the rollout is cancelled."""
    abort_after_devices: int = Field(default=5, ge=1)
    """... counted from so many devices that have finished."""
    timeout_minutes: int = Field(default=60, ge=1, le=10080)
    """A device that is still in progress after this is counted as timed out. Bounds a pull that hangs."""
    notify_timeout_s: int = Field(default=60, ge=1)
    """How long the nucleus waits for a component's answer to an update; capture defers while a part is judged."""


class Environment(_Strict):
    """One stage: an account, a region, a registry, what may enter it, and whom it reaches."""

    name: Name
    account: Annotated[str, StringConstraints(pattern=r"^\d{12}$")]
    region: Annotated[str, StringConstraints(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")]
    profile: str | None = None
    """Profile of the AWS configuration; empty: boto3's usual chain."""
    registry: str = ""
    """Host (and port) of the registry; empty: the account's private ECR."""
    repository_prefix: Annotated[str, StringConstraints(pattern=r"^([a-z0-9._-]+/)*$")] = ""
    """Put before linewatch/<image>, such as `staging/`, where environments share one registry."""
    kms_key: str = ""
    """Key that new ECR repositories are encrypted with; empty: the registry's own AES-256."""
    promotes_from: Name | None = None
    """The environment whose images enter this one; empty: what `make images` built."""
    gate: Gate = Gate()
    site: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]+$")] = "plant-1"
    thing_group: str = ""
    """Thing group of the devices; empty: linewatch-<name>."""
    stack_name: Annotated[str, StringConstraints(pattern=r"^([A-Za-z][A-Za-z0-9-]{0,127})?$")] = ""
    """The CloudFormation stack; empty: linewatch-<name>. One that was made by hand with 0.2.0 has another name."""
    components: dict[str, str] = {}
    """Versions of AWS's own components that replace the pinned ones."""
    configuration: dict[str, dict[str, str]] = {}
    """Configuration merged into our components, by component name: texts by key."""
    rollout: Rollout = Rollout()
    parameters: dict[str, str] = {}
    """Parameters of cloud/template.yaml, such as ErpBaseUrl."""

    @property
    def registry_host(self) -> str:
        """Where images of this environment lie."""
        suffix = ".cn" if self.region.startswith("cn-") else ""
        return self.registry or f"{self.account}.dkr.ecr.{self.region}.amazonaws.com{suffix}"

    @property
    def group(self) -> str:
        """The thing group of the environment's devices."""
        return self.thing_group or f"linewatch-{self.name}"

    @property
    def stack(self) -> str:
        """The CloudFormation stack of cloud/template.yaml."""
        return self.stack_name or f"linewatch-{self.name}"


class Fleet(_Strict):
    """The whole file."""

    environments: list[Environment] = Field(min_length=1)
    trusted_keys: list[Path] = []
    """Public keys (PEM) that releases must be signed by, relative to this file."""
    captures: int = Field(default=2, ge=1, le=4)
    """Capture components that are rendered: one per station of a device. cloud/template.yaml has log groups for so many."""

    @model_validator(mode="after")
    def _stages_are_known(self) -> "Fleet":
        names = [environment.name for environment in self.environments]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"environments: {name!r} is there twice")
        for environment in self.environments:
            source = environment.promotes_from
            if source and (source not in names or source == environment.name):
                raise ValueError(
                    f"environments: {environment.name}: promotes_from: {source!r} is not another environment here"
                )
        return self

    def environment(self, name: str) -> Environment:
        """The environment of that name. Raises BadInput."""
        for environment in self.environments:
            if environment.name == name:
                return environment
        known = ", ".join(environment.name for environment in self.environments)
        raise BadInput(f"there is no environment {name!r} in fleet.yaml; there are: {known}")


def read_fleet(path: Path = DEFAULT_FILE) -> Fleet:
    """The fleet file. Raises BadInput, naming each wrong field.

    Whether the keys are there is asked where a signature is judged: an account is provisioned before there is one.
    """
    fleet = read_yaml(path, Fleet, "copy fleet.example.yaml and fill it in")
    return fleet.model_copy(update={"trusted_keys": [path.parent / key for key in fleet.trusted_keys]})


Model = TypeVar("Model", bound=BaseModel)


def read_yaml(path: Path, model: type[Model], remedy: str) -> Model:
    """A YAML file as a checked model. Raises BadInput, naming each wrong field."""
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInput(f"there is no file {path}; {remedy}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"{path}: can't be read: {error}") from error
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in problem['loc']) or 'file'}: {problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors()
        ]
        raise BadInput(f"{path}: " + "; ".join(problems)) from error
