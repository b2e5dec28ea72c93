# SPDX-License-Identifier: Apache-2.0
"""Model packages on disk: finds them, and reads one only as far as its digests and its signature hold.

Guarantee: the bytes that reach ONNX Runtime are the bytes whose digest metadata.json holds, read once, and with trusted
keys metadata.json itself is signed by one of them. The signature is checked before anything is parsed.
Proved by: services/inference/tests/test_package.py.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from linewatch_inference.errors import ModelNotFound, PackageRefused
from linewatch_inference.metadata import Metadata
from linewatch_inference.metadata_file import InvalidDescription, parse
from linewatch_inference.onnx_safety import MAX_MODEL_BYTES, refuse_external_data

METADATA = "metadata.json"
SIGNATURE = "metadata.json.sig"
GRAPHS: Mapping[str, str] = {"fp32": "model.onnx", "int8": "model.int8.onnx"}
"""Variant -> file."""

MAX_METADATA_BYTES = 1024 * 1024
MAX_PACKAGE_BYTES = 2 * MAX_MODEL_BYTES

_FILE_NAME = re.compile(r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)?$")
_VERSION = re.compile(r"^\d{1,6}\.\d{1,6}\.\d{1,6}$")


@dataclass(frozen=True, slots=True)
class Package:
    """A package whose digests and signature hold. `digest` is over metadata.json."""

    metadata: Metadata
    digest: str
    is_signed: bool
    files: Mapping[str, bytes]

    @property
    def name(self) -> str:
        """Name and version, for people."""
        return f"{self.metadata.model_name} {self.metadata.model_version}"


def version_key(version: str) -> tuple[int, ...]:
    """Sorts versions by number: 1.10.0 after 1.9.0."""
    return tuple(int(part) for part in version.split("."))


def is_version(text: str) -> bool:
    """Whether it is a version as packages have them: three numbers, such as 1.2.0."""
    return _VERSION.fullmatch(text) is not None and text.isascii()


def find(models_dir: Path) -> dict[str, dict[str, Path]]:
    """Every package below the directory: name -> version -> path, oldest version first.

    A package lies in {name}/{version} (a device) or {name}/releases/{version} (the repository).
    """
    found: dict[str, dict[str, Path]] = {}
    for model in sorted(models_dir.iterdir()) if models_dir.is_dir() else []:
        places = [*_versions(model), *_versions(model / "releases")]
        if places:
            found[model.name] = {
                path.name: path for path in sorted(places, key=lambda path: version_key(path.name))
            }
    return found


def _versions(directory: Path) -> list[Path]:
    try:
        if not directory.is_dir():
            return []
        return [path for path in directory.iterdir() if is_version(path.name) and path.is_dir()]
    except PermissionError:  # somebody else's folder must not hide the models beside it
        return []


def locate(models_dir: Path, name: str, version: str = "") -> Path:
    """Where a package lies; without a version the newest. Raises ModelNotFound."""
    versions = find(models_dir).get(name, {})
    if not versions:
        raise ModelNotFound(f"{name}: no package below {models_dir}; put one at {name}/<version>/")
    if not version:
        return list(versions.values())[-1]
    if version not in versions:
        raise ModelNotFound(f"{name}: no version {version}; there are {', '.join(versions)}")
    return versions[version]


def read_trusted_keys(directory: Path | None) -> list[Ed25519PublicKey]:
    """Every Ed25519 public key (*.pem) in the directory. Raises ValueError naming a file that is none."""
    if directory is None:
        return []
    keys = []
    for path in sorted(directory.glob("*.pem")):
        try:
            key = load_pem_public_key(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{path.name} is no public key in PEM form") from error
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError(f"{path.name} is no Ed25519 key")  # noqa: TRY004 - the file is wrong, not the call
        keys.append(key)
    return keys


def read_package(directory: Path, trusted_keys: Sequence[Ed25519PublicKey] = ()) -> Package:
    """Reads a package and checks it.

    Raises:
        PackageRefused: naming the file that does not hold.
    """
    text = _read(directory, METADATA, MAX_METADATA_BYTES)
    if trusted_keys:
        _check_signature(directory, text, trusted_keys)
    try:
        metadata = parse(Metadata, text, METADATA)
    except InvalidDescription as error:
        raise PackageRefused(str(error)) from error
    if directory.name != metadata.model_version or _model_directory(directory).name != metadata.model_name:
        raise PackageRefused(
            f"{METADATA}: is {metadata.model_name} {metadata.model_version} but lies in {directory};"
            " move it to <model_name>/<model_version>/"
        )
    files = _read_files(directory, metadata)
    for variant, name in GRAPHS.items():
        if name in files:
            refuse_external_data(files[name], name)
        elif variant == "fp32":
            raise PackageRefused(f"{METADATA}: files does not name {name}")
    if metadata.golden.expected not in files:
        raise PackageRefused(
            f"{METADATA}: golden.expected names {metadata.golden.expected}, which files does not"
        )
    digest = f"sha256:{hashlib.sha256(text).hexdigest()}"
    return Package(metadata, digest, bool(trusted_keys), files)


def _model_directory(directory: Path) -> Path:
    parent = directory.resolve().parent
    return parent.parent if parent.name == "releases" else parent


def _read_files(directory: Path, metadata: Metadata) -> dict[str, bytes]:
    if sum(file.size for file in metadata.files.values()) > MAX_PACKAGE_BYTES:
        raise PackageRefused(f"{METADATA}: the files sum up to more than {MAX_PACKAGE_BYTES} bytes")
    files = {}
    for name, told in metadata.files.items():
        if not _FILE_NAME.match(name):
            raise PackageRefused(f"{METADATA}: files: {name!r} is no plain file name within the package")
        data = _read(directory, name, told.size)
        if hashlib.sha256(data).hexdigest() != told.sha256:
            raise PackageRefused(f"{name}: its sha256 is not the one in {METADATA}; copy the package again")
        files[name] = data
    return files


def _read(directory: Path, name: str, max_bytes: int) -> bytes:
    path = directory / name
    if path.is_symlink() or path.parent.is_symlink() or not path.is_file():
        raise PackageRefused(f"{name}: there is no such plain file in {directory}; copy the package again")
    with path.open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise PackageRefused(f"{name}: larger than the {max_bytes} bytes it may have; copy the package again")
    return data


def _check_signature(directory: Path, text: bytes, trusted_keys: Sequence[Ed25519PublicKey]) -> None:
    try:
        signature = base64.b64decode(_read(directory, SIGNATURE, 1024).removesuffix(b"\n"), validate=True)
    except binascii.Error as error:
        raise PackageRefused(f"{SIGNATURE}: is no base64; sign the package again") from error
    for key in trusted_keys:
        try:
            key.verify(signature, text)
        except InvalidSignature:
            continue
        return
    raise PackageRefused(
        f"{SIGNATURE}: none of the trusted keys signed this {METADATA}; sign it, or add its key"
    )
