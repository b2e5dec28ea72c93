# SPDX-License-Identifier: Apache-2.0
"""release.yaml: everything that one release consists of, each by its digest. It is signed; nothing is added later."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from linewatch_fleet.config import Platform, read_yaml

SCHEMA: Final = "linewatch.release/v1"

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Version = Annotated[
    str, StringConstraints(pattern=r"^\d{1,6}\.\d{1,6}\.\d{1,6}(-[0-9A-Za-z.-]+)?$", max_length=64)
]
Repository = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+([._/-][a-z0-9]+)*$", max_length=200)]
Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Image(_Strict):
    """One image; the digest is the index's where there is more than one platform."""

    repository: Repository
    digest: Digest
    platforms: list[Platform] = Field(min_length=1)


class ModelPackage(_Strict):
    """One model; the digest is that of its zip."""

    version: Version
    digest: Digest


class Template(_Strict):
    """A file of the release's commit, by its content."""

    path: str
    digest: Digest


class TestReport(_Strict):
    """The JUnit report of the tests that ran on this commit."""

    __test__ = False  # pytest looks for classes of this name
    digest: Digest
    passed: int = Field(ge=0)
    failed: int = Field(ge=0)
    skipped: int = Field(ge=0)


class Release(_Strict):
    """The manifest."""

    schema_: Literal["linewatch.release/v1"] = Field(default=SCHEMA, alias="schema")
    version: Version
    commit: Commit
    dirty: bool = False
    """Made from a tree that differed from the commit; no gate lets it pass."""
    created: datetime
    """The commit's time, so that the same commit makes the same manifest."""
    images: dict[str, Image] = Field(min_length=1)
    models: dict[str, ModelPackage] = {}
    recipes: dict[str, Template] = {}
    """Every file that recipes are rendered from, by name; the rendered recipe also depends on the environment's registry."""
    cloud: Template
    """cloud/template.yaml."""
    test_report: TestReport | None = None


def read_release(path: Path) -> Release:
    """The manifest. Raises BadInput, naming each wrong field."""
    return read_yaml(path, Release, "make one with `linewatch release`")


def release_text(release: Release) -> bytes:
    """The manifest as it lies in its file and is signed: the same bytes for the same content."""
    content = release.model_dump(mode="json", by_alias=True, exclude_none=True)
    return yaml.safe_dump(content, sort_keys=False, width=120).encode()


def write_release(release: Release, path: Path) -> None:
    """Writes the manifest."""
    path.write_bytes(release_text(release))
