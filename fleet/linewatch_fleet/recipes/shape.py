# SPDX-License-Identifier: Apache-2.0
"""Rules about the recipe's shape: keys, types, sizes."""

import difflib
import re
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft7Validator
from jsonschema.exceptions import ValidationError

from linewatch_fleet.recipes.findings import Place, rule
from linewatch_fleet.recipes.reading import STEPS, Recipe
from linewatch_fleet.recipes.schema import SCHEMA

LITE_BUFFER_BYTES = 8192
"""Nucleus lite reads a recipe file into a buffer of 8,196 bytes, and cleans up images with one of 8,192."""
SCRIPT_CHARACTERS = 10_000

_VALIDATOR = Draft7Validator(SCHEMA)

_SEMVER = re.compile(
    r"^(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$"
)


_KINDS = {"RequiresPrivilege": "privilege-value", "Skipif": "skipif-value", "Timeout": "timeout-value"}


def _problems(recipe: Recipe) -> Iterator[tuple[str, str, str]]:
    """(kind, path, what) of everything that the schema refuses; kind is the rule's id."""
    for error in _VALIDATOR.iter_errors(recipe.document):
        for one in _innermost(error):
            yield from _problem(one)


def _innermost(error: ValidationError) -> list[ValidationError]:
    """An object that is no right step is told by what is wrong in the object, not by being no text."""
    if error.validator == "anyOf" and isinstance(error.instance, dict):
        return [one for one in error.context or [] if one.schema_path[0] == 1]
    return [error]


def _problem(error: Any) -> Iterator[tuple[str, str, str]]:
    path = _path(list(error.absolute_path))
    last = error.absolute_path[-1] if error.absolute_path else ""
    if error.validator == "required":
        # jsonschema tells one missing key at a time. One that is there in other letters is key-case's business.
        present = {str(key).lower() for key in error.instance}
        for key in error.validator_value:
            if key.lower() not in present and f"'{key}'" in error.message:
                yield "missing-key", path or "recipe", f"{key} is missing"
    elif error.validator == "additionalProperties" and error.schema["additionalProperties"] is False:
        known = list(error.schema["properties"])
        yield from (_unknown(path, str(key), known) for key in error.instance if key not in known)
    else:
        yield _KINDS.get(last, "wrong-type"), path or "recipe", error.message[:200]


def _unknown(path: str, key: str, known: list[str]) -> tuple[str, str, str]:
    place = f"{path}.{key}".lstrip(".")
    same = next((name for name in known if name.lower() == key.lower()), None)
    if same:
        return "key-case", place, f"write {same}"
    near = difflib.get_close_matches(key.lower(), [name.lower() for name in known], n=1)
    meant = next((name for name in known if near and name.lower() == near[0]), None)
    kind = "unknown-step" if "startup" in known else "unknown-key"
    return kind, place, f"did you mean {meant}?" if meant else f"known are {', '.join(known)}"


def _path(parts: list[Any]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")


def _of(kind: str, recipe: Recipe) -> Iterator[Place]:
    return ((path, found) for one, path, found in _problems(recipe) if one == kind)


@rule("missing-key", "error", "The cloud and both nuclei refuse a recipe without it.", "Add it.")
def _missing_key(recipe: Recipe) -> Iterator[Place]:
    return _of("missing-key", recipe)


@rule("wrong-type", "error", "The cloud refuses it, or a device reads something else than you wrote.",
      "Write what the recipe reference says.")  # fmt: skip
def _wrong_type(recipe: Recipe) -> Iterator[Place]:
    return _of("wrong-type", recipe)


@rule("unknown-key", "error", "The nucleus ignores keys that it does not know, without a word.",
      "Correct it, or take it out.")  # fmt: skip
def _unknown_key(recipe: Recipe) -> Iterator[Place]:
    return _of("unknown-key", recipe)


@rule("unknown-step", "error", "A step that no nucleus knows is never run, without a word.",
      f"Use one of {', '.join(STEPS)}.")  # fmt: skip
def _unknown_step(recipe: Recipe) -> Iterator[Place]:
    return _of("unknown-step", recipe)


@rule("key-case", "error", "Nucleus lite tells upper from lower case: it does not see this key.",
      "Steps in lower case; Script, Setenv, Timeout, RequiresPrivilege and Uri as written here.")  # fmt: skip
def _key_case(recipe: Recipe) -> Iterator[Place]:
    return _of("key-case", recipe)


@rule("privilege-value", "error", "Only true and false count; lite fails the deployment, classic takes it for false.",
      "Write true or false.")  # fmt: skip
def _privilege_value(recipe: Recipe) -> Iterator[Place]:
    return _of("privilege-value", recipe)


@rule("skipif-value", "error", "The cloud refuses it.", "Write `onpath PROGRAM` or `exists FILE`.")
def _skipif_value(recipe: Recipe) -> Iterator[Place]:
    return _of("skipif-value", recipe)


@rule("timeout-value", "error", "Lite fails the deployment; classic falls back to its default.",
      "Write whole seconds above 0.")  # fmt: skip
def _timeout_value(recipe: Recipe) -> Iterator[Place]:
    return _of("timeout-value", recipe)


@rule(
    "repeated-key",
    "error",
    "Of two equal keys the last one counts, and the first is lost without a word.",
    "Keep one.",
)
def _repeated_key(recipe: Recipe) -> Iterator[Place]:
    return (("recipe", key) for key in recipe.repeated)


@rule("bad-name", "error", "AWS refuses the name.", "At most 128 letters, digits, and - _ . of ASCII.")
def _bad_name(recipe: Recipe) -> Iterator[Place]:
    name = recipe.document.get("ComponentName")
    if isinstance(name, str) and not re.fullmatch(r"[a-zA-Z0-9\-_.]{1,128}", name):
        yield "ComponentName", repr(name[:140])


@rule("not-semver", "error", "AWS refuses the version, and the official schema does not see it.",
      "MAJOR.MINOR.PATCH, each at most 999999, 64 characters in all.")  # fmt: skip
def _not_semver(recipe: Recipe) -> Iterator[Place]:
    version = recipe.document.get("ComponentVersion")
    if isinstance(version, str) and (len(version) > 64 or not _SEMVER.match(version)):
        yield "ComponentVersion", repr(version[:80])


@rule("recipe-too-big", "error", "Nucleus lite reads recipes into a buffer of 8 KB; a longer one can't be read there.",
      "Put logic into the image; share one lifecycle (Lifecycle.all) between manifests; write compact JSON.")  # fmt: skip
def _recipe_too_big(recipe: Recipe) -> Iterator[Place]:
    size = len(recipe.text.encode())
    if size > LITE_BUFFER_BYTES:
        yield "recipe", f"{size} bytes, {LITE_BUFFER_BYTES} at most"


@rule(
    "script-too-long",
    "error",
    "Nucleus lite takes scripts of at most 10,000 characters.",
    "Put logic into the image.",
)
def _script_too_long(recipe: Recipe) -> Iterator[Place]:
    for step in recipe.steps:
        text = step.body.get("Script")
        if isinstance(text, str) and len(text.encode()) >= SCRIPT_CHARACTERS:
            yield f"{step.path}.Script", f"{len(text.encode())} bytes"


@rule("yaml-recipe", "warning", "A local deployment on nucleus lite makes a text of every value in a YAML recipe.",
      "Write JSON.")  # fmt: skip
def _yaml_recipe(recipe: Recipe) -> Iterator[Place]:
    if recipe.is_yaml:
        yield "recipe", "YAML"


@rule("component-type", "warning", "AWS sets it; nucleus lite runs generic components only.", "Leave it out.")
def _component_type(recipe: Recipe) -> Iterator[Place]:
    return (
        (key, str(recipe.document[key]))
        for key in ("ComponentType", "ComponentSource")
        if key in recipe.document
    )


@rule("version-in-name", "warning",
      "With another name for another version, the new component starts before the old one has ended: names and ports clash.",
      "The same name for all versions; ComponentVersion is the place for it.")  # fmt: skip
def _version_in_name(recipe: Recipe) -> Iterator[Place]:
    found = re.search(r"[-._](v\d+(\.\d+)*|\d+\.\d+(\.\d+)*)$", recipe.name)
    if found:
        yield "ComponentName", recipe.name
