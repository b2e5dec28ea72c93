# SPDX-License-Identifier: Apache-2.0
"""Builds the Lambdas' code and layer as zips below build/lambda/, named after what is in them.

`layer_zip` is put together from what this environment has installed, for the stand-in, whose functions run on it.
`runtime_layer_zip` is for an account: pip fetches the same pinned, hashed requirements for Lambda's Python and processor.
"""

import hashlib
import py_compile
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "cloud" / "requirements.txt"
BUILD = ROOT / "build" / "lambda"
# boto3 is part of the Lambda runtime.
LAYER_DISTRIBUTIONS = (
    "aws-lambda-powertools", "typing_extensions", "jmespath", "protobuf",
    "urllib3", "certifi", "oauthlib",
)  # fmt: skip
# Parts of Powertools that no Lambda of ours imports: half of its files, unpacked again by every worker.
LEFT_OUT = tuple(
    f"aws_lambda_powertools/{part}/"
    for part in (
        "event_handler", "utilities/auth_alpha", "utilities/circuit_breaker",
        "utilities/data_masking", "utilities/feature_flags", "utilities/idempotency", "utilities/kafka",
        "utilities/parameters", "utilities/parser", "utilities/streaming", "utilities/validation",
    )
)  # fmt: skip
CODE_SUFFIXES = {".py", ".json"}
# Runtime of the template's functions.
RUNTIME = "3.13"
WHEEL_PLATFORMS = {"x86_64": "manylinux2014_x86_64", "arm64": "manylinux2014_aarch64"}
PIP_S = 300.0


class PackageError(Exception):
    """The layer can't be built here; the message says why and the remedy."""


def code_zip() -> Path:
    """cloud/{enrich,work_orders,api,erp,outcomes,watch,assets,dead_letters} and the contract's stubs."""
    files = {
        path.relative_to(parent).as_posix(): path
        for parent, package in (
            (ROOT / "cloud", "enrich"),
            (ROOT / "cloud", "work_orders"),
            (ROOT / "cloud", "api"),
            (ROOT / "cloud", "erp"),
            (ROOT / "cloud", "outcomes"),
            (ROOT / "cloud", "watch"),
            (ROOT / "cloud", "assets"),
            (ROOT / "cloud", "dead_letters"),
            (ROOT / "protos", "linewatch"),
        )
        for path in sorted((parent / package).rglob("*"))
        if path.suffix in CODE_SUFFIXES and "__pycache__" not in path.parts
    }
    return _zip("code", files)


def layer_zip() -> Path:
    """The libraries below python/, as Lambda looks for them."""
    files: dict[str, Path] = {}
    for name in LAYER_DISTRIBUTIONS:
        distribution = metadata.distribution(name)
        for entry in distribution.files or ():
            path = Path(str(distribution.locate_file(entry)))
            # ".." leads to scripts; Powertools imports its own metadata, so .dist-info stays.
            if ".." in entry.parts or "__pycache__" in entry.parts or entry.as_posix().startswith(LEFT_OUT):
                continue
            if not path.is_file():
                continue
            files[f"python/{entry.as_posix()}"] = path
    return _zip("layer", files)


def runtime_layer(architecture: str) -> Path:
    """Where `runtime_layer_zip` puts its zip. Named after what decides its content, so that nobody need build it to know."""
    inputs = "\0".join((RUNTIME, architecture, *LAYER_DISTRIBUTIONS, *LEFT_OUT)).encode()
    return BUILD / f"layer-{hashlib.sha256(inputs + REQUIREMENTS.read_bytes()).hexdigest()[:16]}.zip"


def runtime_layer_zip(architecture: str) -> Path:
    """The layer for Lambda's Python on "x86_64" or "arm64". Raises PackageError where pip can't fetch it."""
    target = runtime_layer(architecture)
    if target.exists():
        return target
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
        fetched = Path(scratch) / "python"
        _fetch(fetched, WHEEL_PLATFORMS[architecture])
        files = {
            f"python/{name}": path
            for path in sorted(fetched.rglob("*"))
            if path.is_file()
            and "__pycache__" not in path.parts
            and not (name := path.relative_to(fetched).as_posix()).startswith((*LEFT_OUT, "bin/"))
        }
        _write(target, files, compiled=False)
    return target


def _fetch(target: Path, platform: str) -> None:
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile",
        "--require-hashes", "--requirement", str(REQUIREMENTS), "--target", str(target),
        "--platform", platform, "--python-version", RUNTIME, "--only-binary", ":all:",
    ]  # fmt: skip
    try:
        said = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PIP_S)
    except subprocess.TimeoutExpired as error:
        raise PackageError(f"pip did not fetch the layer's packages within {PIP_S:.0f} s") from error
    if said.returncode:
        raise PackageError(f"pip can't fetch the layer's packages: {said.stderr.strip()[-500:]}")


def _zip(kind: str, files: dict[str, Path]) -> Path:
    digest = hashlib.sha256()
    for name, path in files.items():
        digest.update(f"{name}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    target = BUILD / f"{kind}-{digest.hexdigest()[:16]}.zip"
    if not target.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        _write(target, files, compiled=True)
    return target


def _write(target: Path, files: dict[str, Path], *, compiled: bool) -> None:
    with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
        made = Path(scratch) / "made.zip"
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, path in files.items():
                archive.write(path, name)
                if compiled and path.suffix == ".py":
                    _add_compiled(archive, name, path, Path(scratch) / "made.pyc")
        # Others may build the same at the same moment; the last rename wins and all are equal.
        made.replace(target)


def _add_compiled(archive: zipfile.ZipFile, name: str, path: Path, scratch: Path) -> None:
    """Adds the byte code: a worker that must compile 400 modules first starts a second later."""
    invalidation = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(path), str(scratch), name, doraise=True, invalidation_mode=invalidation)
    parent, _, leaf = name.rpartition("/")
    archive.write(
        scratch, f"{parent}/__pycache__/{leaf.removesuffix('.py')}.{sys.implementation.cache_tag}.pyc"
    )


if __name__ == "__main__":
    print(code_zip(), layer_zip(), sep="\n")
