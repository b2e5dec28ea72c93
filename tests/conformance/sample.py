# SPDX-License-Identifier: Apache-2.0
"""Recipes of plain shell, for the rules of the stand-ins themselves; they need no engine."""

from typing import Any

from conformance.recipe import Recipe


def shell(
    *, version: str = "1.0.0", configuration: dict[str, Any] | None = None, platform: dict[str, str] | None = None,
    **lifecycle: Any,
) -> Recipe:  # fmt: skip
    """A component with these lifecycle steps."""
    return Recipe(
        {
            "RecipeFormatVersion": "2020-01-25",
            "ComponentName": "io.linewatch.test.Shell",
            "ComponentVersion": version,
            "ComponentConfiguration": {"DefaultConfiguration": configuration or {}},
            "Manifests": [
                {
                    "Platform": {"os": "linux", "runtime": "*", **(platform or {})},
                    "Lifecycle": lifecycle,
                    "Artifacts": [],
                }
            ],
        }
    )
