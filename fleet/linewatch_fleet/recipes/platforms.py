# SPDX-License-Identifier: Apache-2.0
"""Rules about manifests: which devices take which, on classic and on lite."""

from collections.abc import Iterator, Mapping
from typing import Any

from linewatch_fleet.recipes.findings import Place, rule
from linewatch_fleet.recipes.reading import Recipe

_OWN = {"os", "architecture", "architecture.detail", "runtime"}
_LITE = {"*", "aws_nucleus_lite"}
_ARCHITECTURES = {"amd64", "x86", "arm", "aarch64", "*"}
_DETAILS = {f"armv{n}{end}" for n in (6, 7, 8) for end in "lb"} | {"*"}


def _custom(platform: Mapping[str, Any]) -> list[str]:
    return [key for key in platform if key not in _OWN]


@rule("no-platform", "error", "Nucleus lite refuses a manifest without Platform, and takes none that does not name the system.",
      'Write at least {"os": "linux", "runtime": "*"}.')  # fmt: skip
def _no_platform(recipe: Recipe) -> Iterator[Place]:
    return ((path, "no os") for path, platform in recipe.platforms if "os" not in platform)


@rule("no-runtime", "error", "Nucleus lite skips a manifest that does not name it, and the deployment fails there.",
      'Write "runtime": "*"; only a manifest with an attribute of your own, for classic, goes without.')  # fmt: skip
def _no_runtime(recipe: Recipe) -> Iterator[Place]:
    for path, platform in recipe.platforms:
        if "os" in platform and "runtime" not in platform and not _custom(platform):
            yield path, "no runtime"


@rule("custom-platform-on-lite", "error", "Nucleus lite does not look at attributes of your own: every device takes this manifest.",
      "Leave runtime out of it, so that only classic takes it.")  # fmt: skip
def _custom_platform_on_lite(recipe: Recipe) -> Iterator[Place]:
    for path, platform in recipe.platforms:
        if platform.get("runtime") in _LITE and _custom(platform):
            yield path, ", ".join(_custom(platform))


@rule(
    "platform-regex",
    "error",
    "Nucleus lite compares texts only: no device there matches.",
    "Write a manifest for each value.",
)
def _platform_regex(recipe: Recipe) -> Iterator[Place]:
    for path, platform in recipe.platforms:
        for key, value in platform.items():
            if isinstance(value, str) and len(value) > 1 and value.startswith("/") and value.endswith("/"):
                yield f"{path}.{key}", value


@rule("architecture-name", "error", "No nucleus reports that name, so no device matches.",
      "amd64, x86, arm or aarch64; in architecture.detail armv6l, armv7l, armv8l (or …b).")  # fmt: skip
def _architecture_name(recipe: Recipe) -> Iterator[Place]:
    for path, platform in recipe.platforms:
        for key, known in (("architecture", _ARCHITECTURES), ("architecture.detail", _DETAILS)):
            value = platform.get(key, "*")
            if isinstance(value, str) and value not in known and not value.startswith("/"):
                yield f"{path}.{key}", value


@rule("manifest-order", "error", "The first manifest that matches wins: this one is never taken.",
      "Put the manifest with more conditions first.")  # fmt: skip
def _manifest_order(recipe: Recipe) -> Iterator[Place]:
    for later, (path, platform) in enumerate(recipe.platforms):
        for earlier_path, earlier in recipe.platforms[:later]:
            if _covers(earlier, platform):
                yield path, f"{earlier_path} takes all of its devices"
                break


def _covers(general: Mapping[str, Any], special: Mapping[str, Any]) -> bool:
    """Whether every device of `special` matches `general` on classic."""
    return all(
        value == "*"
        or special.get(key) == value
        or (key == "runtime" and value in _LITE and value == special.get(key))
        for key, value in general.items()
    )
