# SPDX-License-Identifier: Apache-2.0
"""A release's signature: ECDSA over SHA-256 with a P-256 key, in base64, in a file of its own beside release.yaml.

It is what `cosign sign-blob --key` writes and `cosign verify-blob --key` reads, offline and without a log.
"""

import base64
import binascii
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from linewatch_fleet.errors import BadInput

SUFFIX: Final = ".sig"
_REMEDY: Final = "make a pair with: linewatch release keys"


def signature_path(release: Path) -> Path:
    """Where the signature of a manifest lies."""
    return release.with_name(release.name + SUFFIX)


def make_keys(private: Path, public: Path, password: bytes | None) -> None:
    """Writes a new key pair; the private half can be read by its owner only. Raises BadInput when one is there."""
    key = generate_private_key(SECP256R1())
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    for path in (private, public):
        if path.exists():
            raise BadInput(f"{path} is there already, and a key is never overwritten; choose another name")
    try:
        private.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
        public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    except OSError as error:
        raise BadInput(f"{private}: can't be written: {error}") from error


def read_password(path: Path | None) -> bytes | None:
    """A key's password: what the file holds, without the line's end; None without a file. Raises BadInput."""
    if path is None:
        return None
    try:
        password = path.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise BadInput(f"--password-file {path}: can't be read: {error.strerror}") from error
    if not password:
        raise BadInput(f"--password-file {path}: is empty")
    return password


def read_private_key(path: Path, password: bytes | None) -> EllipticCurvePrivateKey:
    """A private key that can sign releases. Raises BadInput, with what is wrong with the file."""
    pem = _read(path)
    if b"SIGSTORE PRIVATE KEY" in pem or b"COSIGN PRIVATE KEY" in pem:
        raise BadInput(
            f"{path}: only cosign itself can read its own key format; sign with `cosign sign-blob --tlog-upload=false "
            f"--key {path} --output-signature release.yaml.sig release.yaml`, or {_REMEDY}"
        )
    try:
        key = load_pem_private_key(pem, password)
    except TypeError as error:
        hint = (
            "the key has no password" if password else "the key has a password; give it with --password-file"
        )
        raise BadInput(f"{path}: {hint}") from error
    except ValueError as error:
        what = "wrong password, or no private key in PEM form" if password else "no private key in PEM form"
        raise BadInput(f"{path}: {what}; {_REMEDY}") from error
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise BadInput(
            f"{path}: releases are signed by an EC key on P-256, this one is another kind; {_REMEDY}"
        )
    return key


def read_public_key(path: Path) -> EllipticCurvePublicKey:
    """A public key that releases may be signed by. Raises BadInput."""
    if not path.exists():
        raise BadInput(f"there is no file {path}, a key of trusted_keys or --public-key; {_REMEDY}")
    pem = _read(path)
    if b"PRIVATE KEY" in pem:
        raise BadInput(f"{path}: is a private key; name its public half, and keep this one away from here")
    try:
        key = load_pem_public_key(pem)
    except ValueError as error:
        raise BadInput(f"{path}: is no public key in PEM form; {_REMEDY}") from error
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise BadInput(
            f"{path}: releases are signed by an EC key on P-256, this one is another kind; {_REMEDY}"
        )
    return key


def sign(content: bytes, key: EllipticCurvePrivateKey) -> bytes:
    """The signature file's content."""
    # Deterministic (RFC 6979): the same content and key give the same bytes, as everything in a release does.
    return base64.b64encode(key.sign(content, ECDSA(SHA256(), deterministic_signing=True))) + b"\n"


def signer(content: bytes, signature: bytes, keys: Iterable[Path]) -> Path | None:
    """The first of the public keys that this content was signed by; None when none is."""
    try:
        raw = base64.b64decode(b"".join(signature.split()), validate=True)
    except binascii.Error:
        return None
    for path in keys:
        try:
            read_public_key(path).verify(raw, content, ECDSA(SHA256()))
        except InvalidSignature:
            continue
        return path
    return None


def release_signer(release: Path, keys: Iterable[Path]) -> tuple[Path | None, str]:
    """The trusted key that a release file is signed by, and in words how that was found out."""
    trusted = list(keys)
    beside = signature_path(release)
    if not trusted:
        return None, "fleet.yaml names no trusted_keys"
    if not beside.is_file():
        return None, f"there is no {beside}; sign with: linewatch release --key FILE"
    for path in trusted:
        read_public_key(path)
    found = signer(_read(release), _read(beside), trusted)
    if found is None:
        names = ", ".join(str(path) for path in trusted)
        return None, f"{beside} is not a signature of {release} by any of {names}"
    return found, f"signed by {found}"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: can't be read: {error.strerror}") from error
