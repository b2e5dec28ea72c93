# SPDX-License-Identifier: Apache-2.0
"""`linewatch release`: one signed file that names every part of a release by its digest."""

import os
from pathlib import Path

import click

from linewatch_fleet import images, options, output
from linewatch_fleet.config import read_fleet
from linewatch_fleet.errors import BadInput, GateRefused
from linewatch_fleet.manifest import Release, read_release, release_text
from linewatch_fleet.plan import Plan
from linewatch_fleet.releasing import gather
from linewatch_fleet.signing import (
    make_keys,
    read_password,
    read_private_key,
    read_public_key,
    release_signer,
    sign,
    signature_path,
)


@click.group(invoke_without_command=True)
@click.option("--images", "images_file", type=click.Path(path_type=Path), default=images.DEFAULT_FILE, show_default=True,
              help="What `make images` built.")  # fmt: skip
@click.option("--test-report", type=click.Path(path_type=Path), help="JUnit XML of the tests of this commit.")
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    help="Private key (PEM, EC P-256) to sign with; left out: unsigned.",
)
@click.option("--password-file", type=click.Path(path_type=Path), help="File with the key's password.")
@click.option(
    "--allow-dirty", is_flag=True, help="Also from a changed tree. No gate lets such a release pass."
)
@click.option("--output", "release_file", type=click.Path(path_type=Path), default=Path("release.yaml"), show_default=True,
              help="The manifest to write; its signature lies beside it.")  # fmt: skip
@options.dry_run
@options.as_json
@click.pass_context
def command(ctx: click.Context, images_file: Path, test_report: Path | None, key: Path | None, password_file: Path | None,
            allow_dirty: bool, release_file: Path, dry_run: bool, as_json: bool) -> None:  # fmt: skip
    """Pin images, models, recipes and template of this commit in release.yaml, and sign it.

    Run it at the top of the checkout, after `make images`. The same inputs make the same file.
    """
    if ctx.invoked_subcommand:
        return
    signing_key = read_private_key(key, read_password(password_file)) if key else None
    release = gather(Path.cwd(), images_file, test_report, allow_dirty=allow_dirty)
    text = release_text(release)
    signature = signature_path(release_file)

    plan = Plan()
    is_same = release_file.is_file() and release_file.read_bytes() == text
    plan.add("keep" if is_same else "write", f"manifest {release_file}", f"release {release.version} of {release.commit[:12]}",
             None if is_same else lambda: _write(release_file, text))  # fmt: skip
    if signing_key:
        plan.add(
            "sign", f"signature {signature}", f"by {key}", lambda: _write(signature, sign(text, signing_key))
        )
    elif signature.exists() and not is_same:
        plan.add("delete", f"signature {signature}", "it is of another manifest", signature.unlink)
    if not as_json:
        output.table(("PART", "NAME", "VERSION", "DIGEST"), _parts(release))
        plan.show()
    if not dry_run:
        plan.apply("releasing")
    if as_json:
        output.document({"release": release.model_dump(mode="json", by_alias=True, exclude_none=True),
                         "plan": plan.as_json(), "file": str(release_file), "applied": not dry_run})  # fmt: skip
    if release.dirty:
        output.say("the tree differs from the commit: no gate lets this release pass")
    if release.test_report is None:
        output.say("without --test-report: gates with `test_report: true` will refuse it")
    if not signing_key and not dry_run:
        output.say(
            "not signed: give --key, or sign with `cosign sign-blob`; `linewatch release keys` makes a pair"
        )


@command.command()
@click.argument("name", type=click.Path(path_type=Path), default=Path("keys/release"))
@click.option(
    "--password-file",
    type=click.Path(path_type=Path),
    help="Encrypt the private half with the password in FILE.",
)
def keys(name: Path, password_file: Path | None) -> None:
    """Make a key pair: NAME.key (keep it) and NAME.pem (name it in fleet.yaml's trusted_keys)."""
    private, public = name.with_name(name.name + ".key"), name.with_name(name.name + ".pem")
    make_keys(private, public, read_password(password_file))
    output.table(("KEY", "FILE", "WHERE IT BELONGS"), [
        ("private", private, "where releases are signed, and nowhere else; its owner alone can read it"),
        ("public", public, "trusted_keys in fleet.yaml, and with everybody who checks"),
    ])  # fmt: skip


@command.command(name="verify")
@options.release_file
@click.option("--public-key", "public_keys", type=click.Path(path_type=Path), multiple=True,
              help="Key that it must be signed by; may be repeated.  [default: trusted_keys of the fleet file]")  # fmt: skip
@options.as_json
@click.pass_context
def verify_command(
    ctx: click.Context, release_file: Path, public_keys: tuple[Path, ...], as_json: bool
) -> None:
    """Check a manifest and its signature."""
    release = read_release(release_file)
    trusted = list(public_keys) or read_fleet(ctx.find_root().obj).trusted_keys
    for path in trusted:
        read_public_key(path)
    signer, how = release_signer(release_file, trusted)
    if as_json:
        output.document(
            {"release": release.version, "commit": release.commit, "valid": signer is not None, "detail": how}
        )
    if signer is None:
        raise GateRefused(f"{release_file}: {how}")
    if not as_json:
        output.table(("RELEASE", "COMMIT", "SIGNATURE"), [(release.version, release.commit, how)])


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    except OSError as error:
        raise BadInput(f"{path}: can't be written: {error.strerror}") from error


def _parts(release: Release) -> list[tuple[str, str, str, str]]:
    return [
        *(("image", name, ", ".join(one.platforms), one.digest) for name, one in release.images.items()),
        *(("model", name, one.version, one.digest) for name, one in release.models.items()),
        *(("recipe", name, "", one.digest) for name, one in release.recipes.items()),
        ("template", release.cloud.path, "", release.cloud.digest),
    ]
