# SPDX-License-Identifier: Apache-2.0
"""`linewatch recipes`: render ours for a local deployment, lint anybody's."""

import re
import shutil
from pathlib import Path

import click

from linewatch_fleet import options, output
from linewatch_fleet.errors import GateRefused
from linewatch_fleet.images import DEFAULT_FILE, read_images
from linewatch_fleet.recipes import lint, render
from linewatch_fleet.recipes.findings import Finding
from linewatch_fleet.recipes.render import Component

PATH = click.Path(path_type=Path)

AT_ONCE = 10
"""ggl-cli takes no more components in one call; local deployments add to what is there."""

_LOOPBACK = re.compile(r"(localhost|127(\.\d+){3})(:\d+)?(/|$)")


@click.group("recipes")
def command() -> None:
    """Render and lint the recipes."""


@command.command("render")
@click.option("--images", "images_file", type=PATH, default=DEFAULT_FILE, show_default=True,
              help="What `make images` built.")  # fmt: skip
@click.option("--registry", help="Where devices pull from.  [default: where `make images` pushed]")
@click.option(
    "--captures", type=click.IntRange(1, 16), default=2, show_default=True, help="Stations of a device."
)
@click.option(
    "--out", type=PATH, default=Path("build"), show_default=True, help="Gets recipes/ and artifacts/."
)
@options.as_json
def render_(images_file: Path, registry: str | None, captures: int, out: Path, as_json: bool) -> None:
    """Write the recipes of the images just built, and the models' files, for a local deployment."""
    built = read_images(images_file)
    images = {name: (image.repository, image.digest, image.platforms) for name, image in built.images.items()}
    references = render.references(images, built.registry if registry is None else registry)
    components = render.components_of(references, built.version, captures, is_local=True, pulls=True)
    found = [(one.name, finding) for one in components for finding in lint.lint_text(one.text)]
    if found:
        _tell(found)
        raise GateRefused("the templates in recipes/ do not hold the linter's rules; nothing was written")
    write(components, out)
    registry = built.registry if registry is None else registry
    if _LOOPBACK.match(registry):
        output.say(
            f"images are pulled from {registry}, this machine's own registry;"
            " on another device: make recipes REGISTRY=host, or a bundle"
        )
    if not registry:
        # Docker's older store keeps no digest of an image that it built itself.
        output.say(
            "images lie in this machine's engine only, and one without the containerd image store finds none of them by "
            "digest; push them (make images REGISTRY=host:port)"
        )
    if as_json:
        output.document(
            [
                {"name": one.name, "version": one.version, "bytes": len(one.text.encode())}
                for one in components
            ]
        )
        return
    output.table(("COMPONENT", "VERSION", "BYTES", "FILES"), (
        (one.name, one.version, len(one.text.encode()), " ".join(file.name for file in one.artifacts))
        for one in components
    ))  # fmt: skip
    for start in range(0, len(components), AT_ONCE):
        added = " ".join(
            f"--add-component {one.name}={one.version}" for one in components[start : start + AT_ONCE]
        )
        output.say(
            f"on the device: ggl-cli deploy --recipe-dir {out}/recipes --artifacts-dir {out}/artifacts {added}"
        )


def write(components: list[Component], out: Path) -> None:
    """Writes recipes/<component>-<version>.json and artifacts/<component>/<version>/<file>, and nothing else stays there."""
    for folder in ("recipes", "artifacts"):
        shutil.rmtree(out / folder, ignore_errors=True)
        (out / folder).mkdir(parents=True)
    for component in components:
        (out / "recipes" / f"{component.name}-{component.version}.json").write_text(
            component.text, encoding="utf-8"
        )
        for artifact in component.artifacts:
            place = out / "artifacts" / component.name / component.version
            place.mkdir(parents=True, exist_ok=True)
            (place / artifact.name).write_bytes(artifact.content())


@command.command("lint")
@click.argument("files", nargs=-1, required=True, type=PATH)
@options.as_json
def lint_(files: tuple[Path, ...], as_json: bool) -> None:
    """Check recipes, anybody's, JSON or YAML: does the classic nucleus take them, does lite, and do they hold in a plant.

    docs/recipes.md has every rule.
    """
    found = [(str(path), finding) for path in files for finding in lint.lint_file(path)]
    errors = sum(finding.severity == "error" for _, finding in found)
    if as_json:
        output.document([{"file": name, **finding.as_json()} for name, finding in found])
    else:
        _tell(found)
    if errors:
        raise GateRefused(
            f"{errors} error{'s' if errors > 1 else ''} in {len(files)} file{'s' if len(files) > 1 else ''}"
        )
    output.say(
        f"{len(files)} file{'s' if len(files) > 1 else ''}: no errors"
        + (f", {len(found)} warnings" if found else "")
    )


def _tell(found: list[tuple[str, Finding]]) -> None:
    for name, one in found:
        output.say(f"{name}: {one.path}: {one.severity} {one.rule}: {one.found}")
        output.say(f"    {one.reason} {one.remedy}")
