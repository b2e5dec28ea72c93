# SPDX-License-Identifier: Apache-2.0
"""Rules about recipe variables and what they are put into: scripts, Setenv, and the default configuration."""

import re
from collections.abc import Iterator
from typing import Any

from linewatch_fleet.recipes.findings import Place, rule
from linewatch_fleet.recipes.reading import Recipe

# The classic nucleus's own pattern, and with it what both nuclei agree on.
_VARIABLE = re.compile(r"\{([\w.-]+):([^:{}]*)\}")
_ANY_BRACES = re.compile(r"\{[^{}]*\}?|\}")
_KNOWN = {
    ("artifacts", "path"), ("artifacts", "decompressedPath"), ("work", "path"), ("kernel", "rootPath"),
    ("iot", "thingName"),
}  # fmt: skip
_LITE_VARIABLE_BYTES = 256

UNQUOTED = re.compile(r"[\s;&|<>()'#*?\[\]~]")
"""What ends or changes a value that a shell reads without quotes."""

_ABSENT = object()


def _variables(recipe: Recipe) -> Iterator[tuple[str, str, str, str]]:
    """(path, whole, kind, argument) of every variable."""
    for path, text in recipe.texts():
        for found in _VARIABLE.finditer(text):
            yield path, found[0], found[1], found[2]


def _default(recipe: Recipe, pointer: str) -> Any:
    at = recipe.defaults
    for key in pointer.strip("/").split("/") if pointer.strip("/") else []:
        key = key.replace("~1", "/").replace("~0", "~")  # noqa: PLW2901
        at = at.get(key, _ABSENT) if isinstance(at, dict) else _ABSENT
    return at


@rule("stray-brace", "error", "Nucleus lite takes every brace for a recipe variable: the component goes BROKEN.",
      "$NAME instead of ${NAME}; `docker ps --filter` instead of --format; put JSON and awk into the image.")  # fmt: skip
def _stray_brace(recipe: Recipe) -> Iterator[Place]:
    for path, text in recipe.texts():
        rest = _CROSS.sub("", _VARIABLE.sub("", text))
        yield from ((path, found[0][:60]) for found in _ANY_BRACES.finditer(rest))


_CROSS = re.compile(r"\{[\w.-]+:[\w]+:[^:{}]*\}")


@rule("cross-component-variable", "error", "Nucleus lite has no variables of other components: BROKEN there.",
      "Give this component the value in its own configuration.")  # fmt: skip
def _cross_component(recipe: Recipe) -> Iterator[Place]:
    for path, text in recipe.texts():
        yield from ((path, found[0]) for found in _CROSS.finditer(text))


@rule("unknown-variable", "error", "Classic leaves it in the text as it is; lite ends with BROKEN.",
      "Use configuration:/pointer, artifacts:path, artifacts:decompressedPath, work:path, kernel:rootPath or iot:thingName.")  # fmt: skip
def _unknown_variable(recipe: Recipe) -> Iterator[Place]:
    for path, whole, kind, argument in _variables(recipe):
        if kind != "configuration" and (kind, argument) not in _KNOWN:
            yield path, whole
        elif len(whole) > _LITE_VARIABLE_BYTES:
            yield path, f"{whole[:40]}… is longer than {_LITE_VARIABLE_BYTES} bytes"


@rule("missing-default", "error", "A pointer to nothing stays in the script on classic and is BROKEN on lite.",
      "Put it into DefaultConfiguration, with an empty text at least.")  # fmt: skip
def _missing_default(recipe: Recipe) -> Iterator[Place]:
    for path, whole, kind, argument in _variables(recipe):
        if kind == "configuration" and _default(recipe, argument) is _ABSENT:
            yield path, whole


@rule("object-in-text", "warning", "An object or list is put in as JSON, with quotes that the shell then reads.",
      "Point at a text inside it.")  # fmt: skip
def _object_in_text(recipe: Recipe) -> Iterator[Place]:
    for path, whole, kind, argument in _variables(recipe):
        if kind == "configuration" and isinstance(_default(recipe, argument), dict | list):
            yield path, whole


@rule("configuration-in-script", "error", "Classic escapes nothing: a value with quotes or $( ) is run as a command.",
      "Pass it by Setenv, and on to the container with `docker run -e NAME`.")  # fmt: skip
def _configuration_in_script(recipe: Recipe) -> Iterator[Place]:
    return (
        (path, whole) for path, whole, kind, _ in _variables(recipe)
        if kind == "configuration" and path.endswith(".Script")
    )  # fmt: skip


def _all_setenv(recipe: Recipe) -> Iterator[tuple[str, str, Any]]:
    for lifecycle in recipe.lifecycles:
        for key, value in lifecycle.setenv.items():
            yield f"{lifecycle.path}.Setenv.{key}", key, value
        for step in lifecycle.steps:
            own = step.body.get("Setenv")
            for key, value in (own if isinstance(own, dict) else {}).items():
                yield f"{step.path}.Setenv.{key}", key, value


@rule(
    "setenv-not-text",
    "error",
    "Nucleus lite takes texts only: a number or true makes the component BROKEN.",
    "Quote it.",
)
def _setenv_not_text(recipe: Recipe) -> Iterator[Place]:
    return ((path, repr(value)) for path, _, value in _all_setenv(recipe) if not isinstance(value, str))


@rule(
    "setenv-name",
    "error",
    "Nucleus lite refuses names that a shell does not take.",
    "Letters, digits and _, no digit first.",
)
def _setenv_name(recipe: Recipe) -> Iterator[Place]:
    return (
        (path, key)
        for path, key, _ in _all_setenv(recipe)
        if not re.fullmatch(r"[A-Za-z_]\w*", key, re.ASCII)
    )


@rule("setenv-blank", "error",
      "Nucleus lite writes `export NAME=value` without quotes, in releases that are in use: a blank cuts the value off.",
      "Separate a list by commas; no blanks, quotes, ; & | < > ( ) # * ? in defaults.")  # fmt: skip
def _setenv_blank(recipe: Recipe) -> Iterator[Place]:
    for path, _, value in _all_setenv(recipe):
        if not isinstance(value, str):
            continue
        if UNQUOTED.search(_VARIABLE.sub("", value)):
            yield path, repr(value)
        for found in _VARIABLE.finditer(value):
            default = _default(recipe, found[2]) if found[1] == "configuration" else ""
            if isinstance(default, str) and UNQUOTED.search(default):
                yield path, f"{found[0]} is {default!r} by default"


@rule("variable-in-defaults", "error", "Nucleus lite puts nothing into a configuration, and classic only if it is told to.",
      "Put it together in Setenv or in the script.")  # fmt: skip
def _variable_in_defaults(recipe: Recipe) -> Iterator[Place]:
    return (
        (path, value)
        for path, value in _leaves(recipe.defaults)
        if isinstance(value, str) and _VARIABLE.search(value)
    )


@rule("number-in-defaults", "warning", "A number may come back as 8080.0, a truth as a text: each nucleus its own way.",
      "Quote it, and read it leniently.")  # fmt: skip
def _number_in_defaults(recipe: Recipe) -> Iterator[Place]:
    for path, value in _leaves(recipe.defaults):
        if isinstance(value, bool | int | float) and ".accessControl" not in path:
            yield path, repr(value)


@rule("secret-in-defaults", "error", "Whoever may look at the component reads it, and it is the same on every device.",
      "Make it on the device, or take it from Secrets Manager.")  # fmt: skip
def _secret_in_defaults(recipe: Recipe) -> Iterator[Place]:
    for path, value in _leaves(recipe.defaults):
        if (
            re.search(r"(password|passwd|secret|token|privatekey|apikey)$", path, re.IGNORECASE)
            and value
            and isinstance(value, str)
        ):
            yield path, "a secret"


def _leaves(value: Any, path: str = "DefaultConfiguration") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{i}]")
    else:
        yield path, value
