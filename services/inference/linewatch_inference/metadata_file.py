# SPDX-License-Identifier: Apache-2.0
"""Reads description.json and metadata.json; every problem is told by its key, with the remedy."""

import json
from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from linewatch_inference.metadata import (
    Description,
    FrozenGuard,
    Golden,
    Guards,
    Input,
    Metadata,
    Normalisation,
    Quality,
    RegimesGuard,
    Thresholds,
    TimeToFailureMeaning,
    TrainingData,
    near,
)


class InvalidDescription(Exception):
    """The JSON can't be used; one line for each problem, naming the key and the remedy."""


Kind = TypeVar("Kind", Description, Metadata)


def parse(kind: type[Kind], text: bytes, where: str) -> Kind:
    """The JSON as `kind`. Raises InvalidDescription with one line per problem, each beginning with `where`."""
    try:
        loaded = json.loads(text)
    except ValueError as error:
        raise InvalidDescription(f"{where}: no JSON: {error}") from error
    try:
        return kind.model_validate_json(json.dumps(loaded))
    except ValidationError as error:
        raise InvalidDescription(
            "\n".join(_told(where, dict(problem)) for problem in error.errors())
        ) from error


def _told(where: str, problem: dict[str, object]) -> str:
    location = problem["loc"]
    path = [str(step) for step in location] if isinstance(location, tuple) else []
    key = ".".join(path) or "description"
    if problem["type"] == "extra_forbidden":
        known = _known_keys(path[:-1])
        return f"{where}: {key}: there is no such key{near(path[-1], known) or '; remove it'}"
    if problem["type"] == "missing":
        return f"{where}: {key}: the key is missing; add it"
    return f"{where}: {key}: {str(problem['msg']).removeprefix('Value error, ')}"


def _known_keys(path: Sequence[str]) -> list[str]:
    """The keys of the object at `path`."""
    nested: dict[str, type[BaseModel]] = {
        "input": Input, "thresholds": Thresholds, "quality": Quality, "guards": Guards, "frozen": FrozenGuard,
        "regimes": RegimesGuard, "training_data": TrainingData, "normalisation": Normalisation,
        "time_to_failure": TimeToFailureMeaning, "golden": Golden,
    }  # fmt: skip
    model = nested.get(path[-1]) if path else Metadata
    return [field.alias or name for name, field in model.model_fields.items()] if model else []
