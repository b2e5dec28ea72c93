# SPDX-License-Identifier: Apache-2.0
"""Gathers what a release consists of from a checkout: images that were built, models, recipes, template, tests, commit."""

import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from linewatch_fleet import images, output
from linewatch_fleet.errors import BadInput
from linewatch_fleet.junit import read_junit
from linewatch_fleet.manifest import Image, ModelPackage, Release, Template
from linewatch_fleet.oci import digest_of
from linewatch_fleet.recipes import archive
from linewatch_fleet.recipes.render import released_packages


def gather(root: Path, images_file: Path, test_report: Path | None, *, allow_dirty: bool) -> Release:
    """The manifest. Raises BadInput: something is missing, or does not belong to this commit."""
    commit, time, changed = _commit(root)
    built = images.read_images(images_file)
    version = _version(root)
    problems = []
    if changed:
        problems.append(
            f"the tree differs from the commit ({', '.join(changed[:5])}{', ...' if len(changed) > 5 else ''})"
        )
    if built.dirty:
        problems.append(f"the images of {images_file} were built from a changed tree")
    if built.commit != commit:
        problems.append(f"the images were built from {built.commit[:12]}, and this is {commit[:12]}")
    if problems and not allow_dirty:
        raise BadInput(
            "; ".join(problems)
            + "; commit and run `make images` again (--allow-dirty: for trying, no gate lets it pass)"
        )
    if built.version != version:
        raise BadInput(
            f"{images_file}: version: is {built.version}, and VERSION says {version}; run `make images` again"
        )
    packages = released_packages(root / "models")
    return Release(
        version=version,
        commit=commit,
        dirty=bool(problems),
        created=time,
        images=_images(built, images_file),
        models={name: ModelPackage(version=path.name, digest=archive.digest(path)) for name, path in sorted(packages.items())},
        recipes={path.name: _template(root, path) for path in _recipe_inputs(root)},
        cloud=_template(root, root / "cloud" / "template.yaml"),
        test_report=read_junit(test_report, time) if test_report else None,
    )  # fmt: skip


def _commit(root: Path) -> tuple[str, datetime, list[str]]:
    """The commit, its time, and what differs from it. What the operator keeps in the checkout is in .gitignore."""
    commit, seconds = _git(root, "show", "-s", "--format=%H %ct", "HEAD").split()
    status = _git(root, "status", "--porcelain", "--untracked-files=normal").splitlines()
    return commit, datetime.fromtimestamp(int(seconds), UTC), [line[3:] for line in status]


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BadInput(f"git can't be started: {error}; a release is made in a checkout") from error
    if done.returncode != 0:
        raise BadInput(
            f"git {arguments[0]}: {done.stderr.strip()}; a release is made at the top of a checkout"
        )
    return done.stdout


def _version(root: Path) -> str:
    try:
        return (root / "VERSION").read_text(encoding="utf-8").strip()
    except OSError as error:
        raise BadInput(
            f"VERSION can't be read: {error.strerror}; run this at the top of the checkout"
        ) from error


def _images(built: images.BuiltImages, path: Path) -> dict[str, Image]:
    missing = [name for name in images.RELEASED if name not in built.images]
    if missing:
        raise BadInput(f"{path}: images: lacks {', '.join(missing)}; build them all with: make images")
    if left_out := sorted(set(built.images) - {*images.RELEASED, *images.VARIANTS}):
        output.say(f"not part of a release: {', '.join(left_out)}")
    return {
        name: Image(repository=one.repository, digest=one.digest, platforms=sorted(one.platforms))
        for name, one in sorted(built.images.items())
        if name not in left_out
    }


def _recipe_inputs(root: Path) -> Iterable[Path]:
    """Everything that recipes are rendered from: templates, scripts, and the keys that models must be signed by."""
    return [
        *sorted((root / "recipes").glob("*.*")),
        *sorted((root / "models" / "trusted-keys").glob("*.pem")),
    ]


def _template(root: Path, path: Path) -> Template:
    try:
        return Template(path=path.relative_to(root).as_posix(), digest=digest_of(path.read_bytes()))
    except OSError as error:
        raise BadInput(
            f"{path}: can't be read: {error.strerror}; run this at the top of the checkout"
        ) from error
