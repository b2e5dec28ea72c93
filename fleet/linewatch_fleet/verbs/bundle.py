# SPDX-License-Identifier: Apache-2.0
"""`linewatch bundle make | verify`: everything for an air-gapped device in one archive that can be checked."""

import shutil
import tempfile
from functools import partial
from pathlib import Path

import click
from rich.filesize import decimal

from linewatch_fleet import images, options, output, signing
from linewatch_fleet.bundle import archive, assemble, layout
from linewatch_fleet.config import read_fleet
from linewatch_fleet.credentials import docker_credentials
from linewatch_fleet.errors import BadInput
from linewatch_fleet.manifest import Release, read_release
from linewatch_fleet.plan import Plan
from linewatch_fleet.recipes import render
from linewatch_fleet.registry import Registry
from linewatch_fleet.verbs.promote import Stage, stage_of

PATH = click.Path(path_type=Path)


@click.group(name="bundle")
def command() -> None:
    """Everything for an air-gapped device in one archive: images, models, recipes, doctor, installer."""


@command.command()
@options.release_file
@click.option("--platform", type=click.Choice(list(assemble.MACHINES)), required=True, help="The device's.")
@click.option("--from", "environment", metavar="ENVIRONMENT", help="Take the images from this environment's registry; else from where `make images` pushed them.")  # fmt: skip
@click.option("--key", type=PATH, required=True, help="Private key (PEM, EC P-256) that signs the bundle; the release's own will do.")  # fmt: skip
@click.option("--password-file", type=PATH, help="File with the key's password.")
@click.option("--captures", type=click.IntRange(1, 16), default=2, show_default=True, help="Stations of the device.")  # fmt: skip
@click.option("--out", type=PATH, help="The archive.  [default: linewatch-VERSION-ARCH.tar]")
@options.dry_run
@options.as_json
@click.pass_context
def make(
    ctx: click.Context, release_file: Path, platform: str, environment: str | None, key: Path,
    password_file: Path | None, captures: int, out: Path | None, dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Make a bundle of a release for one platform.

    It is checked on the device before anything is loaded: by install.sh in it, with the public half of --key.
    """
    release = read_release(release_file)
    signature = signing.signature_path(release_file)
    private = signing.read_private_key(key, signing.read_password(password_file))
    stage = _stage(ctx, environment)
    name = f"linewatch-{release.version}-{platform.partition('/')[2]}"
    out = out or Path(f"{name}.tar")
    if out.exists():
        raise BadInput(f"--out: {out} is there already; name another file, or remove it")
    wanted = {image: one for image, one in release.images.items() if image in images.RELEASED}

    plan = Plan()
    for image, one in wanted.items():
        plan.add("copy", f"image {image}", f"{platform} of {one.digest}", lambda: None)
    for model, package in release.models.items():
        plan.add("copy", f"model {model}", package.version, lambda: None)
    plan.add("write", f"bundle {out}", f"signed by {key}", lambda: None)
    if dry_run:
        if as_json:
            output.document({"plan": plan.as_json(), "applied": False})
        else:
            plan.show()
        return

    scratch = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=out.parent))
    try:
        place = scratch / name
        with output.progress("fetching images", len(wanted)) as advance:
            loaded = layout.fetch(wanted, stage.registry, stage.prefix, platform, place / "images", advance)
        papers = [release_file] + ([signature] if signature.is_file() else [])
        assemble.assemble(place, papers, platform, loaded, _components(release, loaded, platform, captures))
        sums = archive.sums(place)
        (place / archive.SUMS).write_bytes(sums)
        (place / archive.SIGNATURE).write_bytes(signing.sign(sums, private))
        output.say("packing")
        archive.pack(place, out, int(release.created.timestamp()))
    finally:
        shutil.rmtree(scratch)
    told = {
        "bundle": str(out),
        "bytes": out.stat().st_size,
        "images": {image: one.reference for image, one in loaded.items()},
    }
    if as_json:
        output.document(told)
    else:
        output.table(("BUNDLE", "SIZE", "IMAGES"), [(out, decimal(out.stat().st_size), len(loaded))])


@command.command()
@click.argument("bundle", type=PATH)
@click.option("--public-key", "public_keys", type=PATH, multiple=True, help="Key that it must be signed by; may be repeated.  [default: trusted_keys of the fleet file]")  # fmt: skip
@options.as_json
@click.pass_context
def verify(ctx: click.Context, bundle: Path, public_keys: tuple[Path, ...], as_json: bool) -> None:
    """Read a bundle whole and check signature and sums. Exit 3 when it does not hold."""
    trusted = list(public_keys) or read_fleet(ctx.find_root().obj).trusted_keys
    if not trusted:
        raise BadInput(
            "name the key that it must be signed by: --public-key FILE, or trusted_keys in fleet.yaml"
        )
    for key in trusted:
        signing.read_public_key(key)
    told = assemble.describe(archive.verify(bundle, trusted))
    if as_json:
        output.document(told)
        return
    output.table(("BUNDLE", "MACHINE", "COMPONENTS"), [(bundle, told["machine"], len(told["components"]))])
    output.table(("COMPONENT", "VERSION"), [line.split("=") for line in told["components"]])
    output.say("signature and every sum hold")


def _stage(ctx: click.Context, environment: str | None) -> Stage:
    if environment:
        return stage_of(options.environment_of(ctx, environment))
    host = images.read_images(images.DEFAULT_FILE).registry
    if not host:
        raise BadInput(
            f"{images.DEFAULT_FILE}: registry: the images lie in the engine only; push them with "
            "make images REGISTRY=HOST:PORT, or take them from an environment with --from"
        )
    return Stage(Registry(host, partial(docker_credentials, host)))


def _components(
    release: Release, loaded: dict[str, layout.Loaded], platform: str, captures: int
) -> list[render.Component]:
    """The release's components for local deployment, with the images named as they are after loading."""
    references = {
        name: render.ImageReference(one.reference, frozenset({platform}))  # type: ignore[arg-type]
        for name, one in loaded.items()
    }
    return render.components_of(references, release.version, captures, is_local=True)
