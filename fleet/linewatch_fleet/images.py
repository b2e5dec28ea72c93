# SPDX-License-Identifier: Apache-2.0
"""build/images.json: what `make images` built, from which commit, and where it pushed it."""

import json
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from linewatch_fleet.config import Platform
from linewatch_fleet.errors import BadInput
from linewatch_fleet.manifest import Commit, Digest, Repository, Version

DEFAULT_FILE: Final = Path("build/images.json")

RELEASED: Final = ("broker", "capture", "console", "forwarder", "inference")
VARIANTS: Final = ("inference-jetson",)
"""Released when they were built."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class BuiltPlatform(_Strict):
    """One platform of an image."""

    digest: Digest


class BuiltImage(_Strict):
    """One image."""

    repository: Repository
    digest: Digest
    platforms: dict[Platform, BuiltPlatform] = Field(min_length=1)


class BuiltImages(_Strict):
    """The whole file."""

    schema_: Literal["linewatch.images/v1"] = Field(alias="schema")
    commit: Commit
    dirty: bool
    version: Version
    registry: str
    """Where they lie; empty: only in the engine's own store, which nothing can be promoted from."""
    images: dict[str, BuiltImage]


def read_images(path: Path) -> BuiltImages:
    """The file. Raises BadInput, naming each wrong field."""
    try:
        return BuiltImages.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise BadInput(f"there is no file {path}; make it with: make images") from error
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in one['loc']) or 'file'}: {one['msg']}" for one in error.errors()
        ]
        raise BadInput(f"{path}: " + "; ".join(problems) + "; make it again with: make images") from error
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: can't be read: {error}; make it again with: make images") from error
