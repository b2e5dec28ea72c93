# SPDX-License-Identifier: Apache-2.0
"""Ed25519 signatures over metadata.json, and the keys for them."""

import base64
import hashlib
import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

SIGNING_DIR = Path("build/signing")
TRUSTED_KEYS_DIR = Path("build/trusted-keys")
KEY_NAME = "model-signing"


class NoSigningKey(Exception):
    """The file is no Ed25519 private key in PEM form."""


def read_key(path: Path) -> Ed25519PrivateKey:
    """The private key in a PEM file without a password. Raises NoSigningKey."""
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise NoSigningKey(f"{path}: can't be read as a private key: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise NoSigningKey(
            f"{path}: is no Ed25519 key; make one with: openssl genpkey -algorithm ed25519 -out {path}"
        )
    return key


def own_key(root: Path) -> tuple[Ed25519PrivateKey, Path]:
    """This checkout's own key pair below `root`, made at the first call; and where its public half lies."""
    private = root / SIGNING_DIR / f"{KEY_NAME}.pem"
    if not private.exists():
        private.parent.mkdir(parents=True, exist_ok=True)
        made = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with os.fdopen(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(made)
    key = read_key(private)
    public = private.with_suffix(".pub.pem")
    public.write_bytes(public_pem(key.public_key()))
    trusted = root / TRUSTED_KEYS_DIR / f"{KEY_NAME}-{fingerprint(key.public_key())}.pem"
    trusted.parent.mkdir(parents=True, exist_ok=True)
    trusted.write_bytes(public.read_bytes())
    return key, trusted


def public_pem(key: Ed25519PublicKey) -> bytes:
    """The public half as it lies among the trusted keys."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def fingerprint(key: Ed25519PublicKey) -> str:
    """Eight hex digits that tell keys apart."""
    return hashlib.sha256(public_pem(key)).hexdigest()[:8]


def sign(text: bytes, key: Ed25519PrivateKey) -> bytes:
    """The content of metadata.json.sig."""
    return base64.b64encode(key.sign(text)) + b"\n"
