# SPDX-License-Identifier: Apache-2.0
"""Our own schema of a recipe, in the letters that nucleus lite insists on; the official one compares without them."""

from typing import Any

from linewatch_fleet.recipes.reading import STEPS

_TEXT = {"type": "string"}
_WHOLE = {
    "anyOf": [
        {"type": "integer", "minimum": 1},
        {"type": "string", "pattern": r"^([1-9]\d*|\{configuration:[^}]+\})$"},
    ]
}
_STEP = {
    "anyOf": [
        _TEXT,
        {
            "type": "object",
            "required": ["Script"],
            "additionalProperties": False,
            "properties": {
                "Script": _TEXT,
                "RequiresPrivilege": {"enum": [True, False, "true", "false"]},
                "Skipif": {"type": "string", "pattern": r"^(onpath|exists) \S.*$"},
                "Timeout": _WHOLE,
                "Setenv": {"type": "object"},
            },
        },
    ]
}
_LIFECYCLE = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"Setenv": {"type": "object"}} | dict.fromkeys(STEPS, _STEP),
}
_ARTIFACT = {
    "type": "object",
    "required": ["Uri"],
    "additionalProperties": False,
    "properties": {
        "Uri": _TEXT,
        "Digest": _TEXT,
        "Algorithm": {"enum": ["SHA-256"]},
        "Unarchive": {"enum": ["NONE", "ZIP"]},
        "Permission": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "Read": {"enum": ["NONE", "OWNER", "ALL"]},
                "Execute": {"enum": ["NONE", "OWNER", "ALL"]},
            },
        },
    },
}
_MANIFEST = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "Name": _TEXT,
        "Platform": {"type": "object", "additionalProperties": _TEXT},
        "Lifecycle": _LIFECYCLE,
        "Selections": {"type": "array", "items": _TEXT},
        "Artifacts": {"type": "array", "items": _ARTIFACT},
    },
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["RecipeFormatVersion", "ComponentName", "ComponentVersion", "Manifests"],
    "additionalProperties": False,
    "properties": {
        "RecipeFormatVersion": {"const": "2020-01-25"},
        "ComponentName": _TEXT,
        "ComponentVersion": _TEXT,
        "ComponentDescription": _TEXT,
        "ComponentPublisher": _TEXT,
        "ComponentType": _TEXT,
        "ComponentSource": _TEXT,
        "ComponentConfiguration": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"DefaultConfiguration": {"type": "object"}},
        },
        "ComponentDependencies": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "required": ["VersionRequirement"],
                "additionalProperties": False,
                "properties": {"VersionRequirement": _TEXT, "DependencyType": {"enum": ["HARD", "SOFT"]}},
            },
        },
        "Manifests": {"type": "array", "minItems": 1, "items": _MANIFEST},
        # Steps at once, or below `all` and other selections.
        "Lifecycle": {
            "type": "object",
            "properties": {"Setenv": {"type": "object"}} | dict.fromkeys(STEPS, _STEP),
            "additionalProperties": _LIFECYCLE,
        },
    },
}  # fmt: skip
